"""Plots of scores over the amount of training data."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from afterimage.reports.figures.style import Theme, label_axes, legend_above, new_axes, to_svg
from afterimage.reports.labels import as_number, metric, words
from afterimage.reports.model import Row, SubjectReport
from afterimage.reports.page import Panel

#: Metrics that are drawn, whatever the block: the hardest and the most forgiving.
DRAWN = ("retrieval_top1_", "twoway_")


def draw_learning(rows: Sequence[Row], theme: Theme) -> bytes:
    """Draw one metric over trials, one line a decoder and kind of fit; grey, chance.

    Parameters
    ----------
    rows : sequence of Row
        Of one metric, scored.
    theme : Theme
    """
    described = metric(str(rows[0]["metric"]))
    factor = 100.0 if described.percent else 1.0
    figure, axes = new_axes(2.8, theme)
    lines = dict.fromkeys((row["decoder"], row["analysis"]) for row in rows)
    several = len({analysis for _, analysis in lines}) > 1
    colours = (theme.accent, theme.second, theme.ink, theme.muted)
    band: dict[float, tuple[float, float]] = {}
    for number, (decoder, analysis) in enumerate(lines):
        own = [row for row in rows if (row["decoder"], row["analysis"]) == (decoder, analysis)]
        table = np.array(
            [
                [as_number(row.get(key)) for key in ("n_trials", "value", "ci_low", "ci_high")]
                for row in own
            ],
            dtype=np.float64,
        )
        table = table[np.argsort(table[:, 0])]
        shift = 1 + 0.02 * (number - (len(lines) - 1) / 2)  # so that intervals stand side by side
        x, colour = table[:, 0] * shift, colours[number % len(colours)]
        name = words(str(decoder)) + (f", {analysis}" if several else "")
        axes.vlines(x, factor * table[:, 2], factor * table[:, 3], color=colour, linewidth=2)
        axes.plot(x, factor * table[:, 1], "o-", color=colour, linewidth=1.2, label=name)
    for row in rows:
        low, high = as_number(row.get("chance_low")), as_number(row.get("chance_high"))
        trials = as_number(row.get("n_trials"))
        if low is not None and high is not None and trials is not None:
            before = band.get(trials, (low, high))
            band[trials] = (min(low, before[0]), max(high, before[1]))
    at = sorted(band)
    axes.fill_between(
        at, [factor * band[x][0] for x in at], [factor * band[x][1] for x in at],
        color=theme.band, linewidth=0, zorder=0,
    )  # fmt: skip
    axes.set_xscale("log")
    minutes = {as_number(row.get("n_trials")): as_number(row.get("minutes")) for row in rows}
    ticks = sorted(n for n in minutes if n is not None)
    named = [f"{n:.0f}\n{_time(minutes[n])}" for n in ticks]
    axes.set_xticks(ticks, named)
    axes.set_xticks([], minor=True)
    legend_above(axes, theme)
    label_axes(axes, theme, "training trials, and time of recording", "%" if factor > 1 else "")
    return to_svg(figure)


def _time(minutes: float | None) -> str:
    if minutes is None:
        return ""
    if minutes < 90:
        return f"{minutes:.1f} min" if minutes < 10 else f"{minutes:.0f} min"
    return f"{minutes / 60:.1f} h"


def learning_panels(report: SubjectReport) -> list[Panel]:
    """Scores over the amount of training data, one panel a metric."""
    scored = [row for row in report.learning if as_number(row.get("value")) is not None]
    panels = []
    for start in DRAWN:
        rows = [row for row in scored if str(row["metric"]).startswith(start)]
        rows = [row for row in rows if not str(row["metric"]).endswith("image_to_brain")]
        if len({row["n_trials"] for row in rows}) < 2:
            continue
        described = metric(str(rows[0]["metric"]))
        by_size = sorted(rows, key=lambda row: float(row["n_trials"]))
        told = "; ".join(
            f"{described.write(row['value'])} after {row['n_trials']} trials ({row['decoder']})"
            for row in (by_size[0], by_size[-1])
        )
        panels.append(
            Panel(
                described.title,
                f"{described.title} over the amount of training data: {told}",
                partial(draw_learning, rows),
            )
        )
    return panels
