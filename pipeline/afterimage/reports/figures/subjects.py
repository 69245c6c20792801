"""Plot of decoders that go from person to person: a ladder of own trials between two ends."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from afterimage.reports.comparison import (
    REPEATS,
    Scores,
    groups,
    main_metric,
    scores_of,
    steps,
)
from afterimage.reports.figures.style import Theme, label_axes, legend_above, new_axes, to_svg
from afterimage.reports.labels import Metric, metric
from afterimage.reports.model import GroupReport
from afterimage.reports.page import Panel

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Most people whose dots are drawn one by one.
MAX_DOTS = 60


@dataclass(frozen=True, eq=False)
class Ladder:
    """Scores of one decoder, tested one way.

    Parameters
    ----------
    shots : mapping of int to Scores
        Trials of the new person (0: none) and what they give.
    ends : mapping of str to Scores
        ``"own only"`` and ``"all together"``, where they are known.
    metric : str
    """

    shots: Mapping[int, Scores]
    ends: Mapping[str, Scores]
    metric: str


def draw_ladder(ladder: Ladder, theme: Theme) -> bytes:
    """Draw the mean over people along the ladder, everybody's dots, and both ends on the right."""
    factor = 100.0 if metric(ladder.metric).percent else 1.0
    figure, axes = new_axes(2.7, theme)
    counts, shots = list(ladder.shots), list(ladder.shots.values())
    gap = len(counts) + 0.35
    places = [*range(len(counts)), *(gap + place for place in range(len(ladder.ends)))]
    every = [*shots, *ladder.ends.values()]
    low, chance, high = (
        factor * float(np.mean([getattr(one, name) for one in every]))
        for name in ("chance_low", "chance", "chance_high")
    )
    axes.axhspan(low, high, color=theme.band, linewidth=0)
    axes.axhline(chance, color=theme.muted, linewidth=0.9)
    if "own only" in ladder.ends:
        own = factor * float(np.mean(ladder.ends["own only"].value))
        axes.plot(
            [-0.4, places[len(counts)]], [own, own], color=theme.second, linewidth=1.3,
            linestyle=(0, (4, 2)), label="own data only",
        )  # fmt: skip
    for place, scores in zip(places, every, strict=True):
        _dots(axes, place, factor * scores.value, theme)
    means = [factor * float(np.mean(scores.value)) for scores in every]
    if counts:
        axes.plot(
            places[: len(counts)], means[: len(counts)], "o-", color=theme.accent, linewidth=1.7,
            markersize=5, label="other people + own trials",
        )  # fmt: skip
    for place, mean, name in zip(
        places[len(counts) :], means[len(counts) :], ladder.ends, strict=True
    ):
        colour = theme.second if name == "own only" else theme.accent
        axes.plot([place - 0.3, place + 0.3], [mean, mean], color=colour, linewidth=2.4)
    names = [*(f"{count}" for count in counts), *(n.replace(" ", "\n") for n in ladder.ends)]
    axes.set_xticks(places, names)
    axes.set_xlim(-0.5, places[-1] + 0.5)
    axes.margins(y=0.08)
    legend_above(axes, theme, n_columns=2)
    label_axes(
        axes, theme, "trials of the new person", "%" if factor > 1 else metric(ladder.metric).title
    )
    return to_svg(figure)


def _dots(axes: Axes, place: float, values: np.ndarray, theme: Theme) -> None:
    """Draw everybody; of very many people, the range and the middle half."""
    if len(values) > MAX_DOTS:
        low, inner_low, inner_high, high = np.percentile(values, (5, 25, 75, 95))
        axes.plot([place] * 2, [low, high], color=theme.soft, linewidth=2)
        axes.plot([place] * 2, [inner_low, inner_high], color=theme.soft, linewidth=6)
        return
    spread = 0.22 * np.linspace(-1, 1, len(values)) if len(values) > 1 else np.zeros(1)
    axes.plot(place + spread, values, "o", color=theme.soft, markersize=4, mew=0)


def ladder_panels(report: GroupReport) -> list[Panel]:
    """One panel a kind of people, decoder and way of testing."""
    name = main_metric(report.compared)
    described = metric(name)
    panels = []
    for people, label, rows in groups(report.compared):
        for repeats in REPEATS:
            found = {
                step: scores
                for step in steps(rows)
                if (scores := scores_of(rows, *step, repeats, name)) is not None
            }
            shots = {
                k or 0: scores
                for (analysis, k), scores in found.items()
                if analysis in ("cross_subject", "few_shot")
            }
            ends = {
                title: found[analysis, None]
                for analysis, title in (
                    ("within_subject", "own only"), ("pooled_subjects", "all together")
                )
                if (analysis, None) in found
            }  # fmt: skip
            if not found:
                continue
            told = [f"{k} own trials {_mean(described, s)}" for k, s in shots.items()]
            told += [f"{title} {_mean(described, scores)}" for title, scores in ends.items()]
            panels.append(
                Panel(
                    f"{people}, {label}, {repeats} test trials",
                    f"{described.title} of {label}, {people}, {repeats} test trials, mean over people: "
                    + "; ".join(told),
                    partial(draw_ladder, Ladder(shots, ends, name)),
                )
            )
    return panels


def _mean(described: Metric, scores: Scores) -> str:
    return described.write(float(np.mean(scores.value)))
