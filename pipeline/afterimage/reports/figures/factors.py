"""Plots of factors over time and people: regions, time courses, people, and the choice of the rank."""

from __future__ import annotations

from functools import partial

import numpy as np

from afterimage.reports.factors import Factored
from afterimage.reports.figures.style import Theme, label_axes, new_axes, new_stack, to_svg
from afterimage.reports.model import GroupReport
from afterimage.reports.page import Panel


def draw_regions(part: Factored, theme: Theme) -> bytes:
    """Draw what every region weighs in each component, regions sorted by their component."""
    rank = part.units.shape[1]
    order = np.lexsort((-part.units.max(axis=1), part.communities))
    scaled = part.units / np.maximum(part.units.max(axis=0), 1e-12)
    figure, stack = new_stack([0.55] * rank, theme)
    for index, axes in enumerate(stack):
        own = part.communities[order] == index + 1
        places = np.arange(len(order))
        for chosen, colour in ((own, theme.accent), (~own, theme.soft)):
            axes.bar(places[chosen], scaled[order, index][chosen], 1.0, color=colour, linewidth=0)
        axes.set_xlim(-0.5, len(order) - 0.5)
        axes.tick_params(labelbottom=index == rank - 1)
        axes.set_ylim(0, 1.05)
        axes.set_yticks([0, 1])
        axes.set_ylabel(f"{index + 1}", rotation=0, color=theme.ink, va="center", labelpad=8)
    label_axes(stack[-1], theme, "regions, sorted by the component they belong to most (dark)")
    return to_svg(figure)


def draw_times(part: Factored, theme: Theme) -> bytes:
    """Draw the strength of each component over time, scaled to its largest."""
    rank = part.times.shape[1]
    figure, stack = new_stack([0.55] * rank, theme)
    starts = np.arange(len(part.times)) * part.window_s
    for index, axes in enumerate(stack):
        course = part.times[:, index] / max(float(part.times[:, index].max()), 1e-12)
        axes.step(starts, course, where="post", color=theme.accent, linewidth=1.4)
        axes.set_ylim(0, 1.08)
        axes.tick_params(labelbottom=index == rank - 1)
        axes.set_yticks([0, 1])
        axes.set_ylabel(f"{index + 1}", rotation=0, color=theme.ink, va="center", labelpad=8)
    label_axes(stack[-1], theme, f"time ({part.time_unit})")
    return to_svg(figure)


def draw_people(part: Factored, theme: Theme) -> bytes:
    """Draw the share that every person has of each component; dashed: all have the same."""
    rank, n_people = part.people.shape[1], len(part.people)
    figure, axes = new_axes(0.7 + 0.3 * rank, theme, grid="x")
    share = 100 * part.people / part.people.sum(axis=0)
    for index in range(rank):
        axes.plot(
            share[:, index], np.full(n_people, -index), "o", color=theme.accent, alpha=0.5,
            markersize=5, mew=0,
        )  # fmt: skip
    axes.axvline(100 / n_people, color=theme.second, linestyle="--", linewidth=1.2)
    axes.set_yticks(-np.arange(rank), [f"component {index + 1}" for index in range(rank)])
    axes.set_ylim(-rank + 0.5, 0.5)
    axes.set_xlim(0, None)
    label_axes(axes, theme, "% of the component that a person has (dashed: all the same)")
    return to_svg(figure)


def draw_ranks(part: Factored, theme: Theme) -> bytes:
    """Draw the error on held-out entries for every number of components that was tried."""
    figure, axes = new_axes(1.9, theme)
    chosen = int(part.held_out_error.argmin())
    axes.plot(part.ranks, part.held_out_error, "-o", color=theme.accent, markersize=5)
    axes.plot(
        part.ranks[chosen], part.held_out_error[chosen], "o", color=theme.second, markersize=8
    )
    axes.set_xticks(part.ranks)
    label_axes(axes, theme, "components (orange: chosen)", "held-out relative error")
    return to_svg(figure)


def factor_panels(report: GroupReport) -> list[Panel]:
    """Four panels a set of regions."""
    panels = []
    for part in report.factored:
        rank = len(part.weights)
        counts = [int((part.communities == index + 1).sum()) for index in range(rank)]
        people = ", ".join(f"{value:.1f}" for value in part.effective_people)
        best = part.held_out_error.min() if len(part.held_out_error) else float("nan")
        panels += [
            Panel(f"Regions, {part.seg}",
                  f"Weights of regions in {rank} components; regions a component: {counts}",
                  partial(draw_regions, part)),
            Panel(f"Time, {part.seg}", f"Strength of {rank} components in {len(part.times)} windows",
                  partial(draw_times, part)),
            Panel(f"People, {part.seg}",
                  f"Shares of {len(part.people)} people; effective number by component: {people}",
                  partial(draw_people, part)),
        ]  # fmt: skip
        if len(part.ranks) > 1:
            panels.append(
                Panel(f"Number of components, {part.seg}",
                      f"Held-out relative error by number of components, lowest {best:.3f}",
                      partial(draw_ranks, part))
            )  # fmt: skip
    return panels
