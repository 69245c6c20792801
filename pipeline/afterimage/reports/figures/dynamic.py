"""Plots of dynamic connectivity: states, their time courses, and what surrogates give."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from afterimage.reports.dynamic import Dynamic
from afterimage.reports.figures.style import (
    Theme,
    bare,
    colour_bar,
    label_axes,
    legend_above,
    new_axes,
    new_stack,
    to_svg,
)
from afterimage.reports.page import Panel

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Blue for negative, orange for positive: the colours of the reports, safe for colour-blind eyes.
SIGNED_MAP = "PuOr_r"
N_COLUMNS = 4


def _matrices(
    values: np.ndarray, titles: list[str], label: str, limit: float, theme: Theme
) -> bytes:
    """Draw square matrices in rows of four, with one scale."""
    import matplotlib as mpl

    n_columns = min(len(values), N_COLUMNS)
    n_rows = -(-len(values) // n_columns)
    height_in = min(1.3 * N_COLUMNS / n_columns, 2.2)
    figure, stack = new_stack([height_in] * n_rows + [0.35], theme)
    colours = mpl.colormaps[SIGNED_MAP]
    for row, holder in enumerate(stack[:-1]):
        bare(holder)
        for column in range(n_columns):
            index = row * n_columns + column
            if index >= len(values):
                break
            axes: Axes = holder.inset_axes((column / n_columns, 0, 0.92 / n_columns, 0.86))
            bare(axes)
            level = np.clip(values[index] / (2 * limit) + 0.5, 0, 1)
            picture = (colours(level) * 255).round().astype(np.uint8)
            axes.imshow(picture, interpolation="none")
            axes.set_title(titles[index], fontsize=8.5, color=theme.ink, pad=3)
    colour_bar(stack[-1], SIGNED_MAP, (-limit, limit), label, theme)
    return to_svg(figure)


def draw_states(centres: np.ndarray, shares: np.ndarray, theme: Theme) -> bytes:
    """Draw the connectivity of every state, (n_states, n_units, n_units), with its share."""
    shown = centres.copy()
    for matrix in shown:
        np.fill_diagonal(matrix, 0.0)
    titles = [f"{index + 1}: {share:.0%}" for index, share in enumerate(shares)]
    limit = max(float(np.nanquantile(np.abs(shown), 0.98)), 0.1)
    return _matrices(np.nan_to_num(shown), titles, "correlation", limit, theme)


def draw_couplings(weights: np.ndarray, theme: Theme) -> bytes:
    """Draw couplings of an HMM-GLM: orange excites, purple inhibits; columns act on rows."""
    limit = max(float(np.quantile(np.abs(weights), 0.98)), 1e-3)
    titles = [f"state {index + 1}" for index in range(len(weights))]
    return _matrices(weights, titles, "coupling (from column to row)", limit, theme)


def draw_courses(
    labels: np.ndarray, groups: np.ndarray, starts: np.ndarray, unit: tuple[float, str],
    names: tuple[str, ...], theme: Theme,
) -> bytes:  # fmt: skip
    """Draw the state over time, one row a recording; labels, groups and starts (n,)."""
    used = np.unique(groups)
    figure, stack = new_stack([0.75] * len(used), theme)
    n_states = int(labels.max()) + 1 if len(labels) else 1
    for axes, group in zip(stack, used, strict=True):
        inside = groups == group
        values = np.where(labels[inside] < 0, np.nan, labels[inside] + 1.0)
        axes.step(
            starts[inside] * unit[0], values, where="post", color=theme.accent, linewidth=1.1
        )
        axes.set_ylim(0.6, n_states + 0.4)
        axes.set_yticks(range(1, n_states + 1))
        axes.set_title(names[int(group)], fontsize=8.5, color=theme.ink, loc="left", pad=2)
    label_axes(stack[-1], theme, f"time ({unit[1]})")
    return to_svg(figure)


def draw_occupancy(shares: np.ndarray, null: np.ndarray, theme: Theme) -> bytes:
    """Draw the share of every state, largest first, over the band of the surrogates."""
    figure, axes = new_axes(2.0, theme)
    places = np.arange(1, len(shares) + 1)
    for place in places if len(null) else ():
        low, high = np.quantile(null[:, place - 1], [0.025, 0.975])
        axes.bar(
            place, 100 * (high - low), bottom=100 * low, width=0.8, color=theme.band,
            label="95 % of surrogates" if place == 1 else None,
        )  # fmt: skip
    axes.bar(places, 100 * shares, width=0.4, color=theme.accent, label="measured", alpha=0.9)
    axes.set_xticks(places)
    axes.set_ylim(0, None)
    legend_above(axes, theme, n_columns=2)
    label_axes(axes, theme, "state, most frequent first", "% of the windows")
    return to_svg(figure)


def draw_variance(value: float, null: np.ndarray, theme: Theme) -> bytes:
    """Draw the variance of windowed connectivity in the histogram of the surrogates."""
    figure, axes = new_axes(1.9, theme)
    axes.hist(null, bins=min(20, max(5, len(null) // 5)), color=theme.soft, label="surrogates")
    axes.axvline(value, color=theme.second, linewidth=2, label="measured")
    axes.margins(x=0.05)
    legend_above(axes, theme, n_columns=2)
    label_axes(axes, theme, "variance of windowed connectivity (Fisher's z)", "surrogates")
    return to_svg(figure)


def state_shares(labels: np.ndarray, n_states: int) -> np.ndarray:
    """Return the share of the windows or samples in each state; -1 counts nowhere."""
    counts = np.bincount(labels[labels >= 0], minlength=n_states)
    return np.asarray(counts / max(counts.sum(), 1))


def dynamic_panels(dynamic: Dynamic) -> list[Panel]:
    """All plots of one subject's dynamic connectivity."""
    panels = []
    for index, name in enumerate(dynamic.recordings):
        value, null = float(dynamic.variance[index]), dynamic.null_variance[:, index]
        if np.isfinite(value) and len(null):
            panels.append(
                Panel(
                    f"Variance over windows · {name}",
                    f"Variance of windowed connectivity {value:.4g}; surrogates "
                    f"{np.quantile(null, 0.025):.4g} to {np.quantile(null, 0.975):.4g}",
                    partial(draw_variance, value, null),
                )
            )
    for title, labels, matrices, groups, starts in (
        ("States of windows", dynamic.window_state, dynamic.centres, dynamic.window_recording,
         dynamic.window_start),
        ("Hidden states", dynamic.hidden_state, dynamic.hidden_correlation,
         dynamic.sample_recording, _sample_numbers(dynamic.sample_recording)),
    ):  # fmt: skip
        if len(matrices) < 2:  # one state is the connectivity that is drawn above
            continue
        shares = state_shares(labels, len(matrices))
        told = ", ".join(f"{share:.0%}" for share in shares)
        panels.append(
            Panel(title, f"{len(matrices)} states, shares {told}",
                  partial(draw_states, matrices, shares))
        )  # fmt: skip
        panels.append(
            Panel(
                f"{title} over time", f"{title} over time, in {len(dynamic.recordings)} recordings",
                partial(draw_courses, labels, groups, starts, dynamic.time_unit(),
                        dynamic.recordings),
            )
        )  # fmt: skip
    n_states = len(dynamic.centres)
    if n_states > 1:
        shares = np.sort(state_shares(dynamic.window_state, n_states))[::-1]
        null = dynamic.null_occupancy
        null = null if null.ndim == 2 and null.shape[1] == n_states else np.zeros((0, n_states))
        panels.append(
            Panel("Occupancy", "Share of the windows in each state, and that of surrogates",
                  partial(draw_occupancy, shares, null))
        )  # fmt: skip
    for name, weights in dynamic.weights.items():
        panels.append(
            Panel(f"Couplings · {name.replace('_', '-')}",
                  f"Couplings in {len(weights)} states, {int((weights > 0).sum())} positive and "
                  f"{int((weights < 0).sum())} negative", partial(draw_couplings, weights))
        )  # fmt: skip
    return panels


def _sample_numbers(groups: np.ndarray) -> np.ndarray:
    """Return the number of every sample in its recording; groups (n_samples,) in order."""
    if not len(groups):
        return np.zeros(0, int)
    return np.concatenate([np.arange(int((groups == g).sum())) for g in np.unique(groups)])
