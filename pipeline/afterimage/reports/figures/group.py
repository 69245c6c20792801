"""Plot of the group: subjects are dots (bars where many), their mean a stroke."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial

import numpy as np

from afterimage.evaluation.metrics import comparison_key
from afterimage.reports.figures.dots import ROLES, ROW_HEIGHT_IN, finish_rows
from afterimage.reports.figures.style import Theme, new_axes, to_svg
from afterimage.reports.labels import (
    Metric,
    as_number,
    decoders_of,
    label_title,
    main_metrics,
    metric,
)
from afterimage.reports.model import GroupReport, Row
from afterimage.reports.page import Panel

MAX_DOTS = 60
CAPTION_METRICS = ("named_", "meteor_")
CAPTION_KINDS = {
    "caption": "real",
    "caption_baseline": "baseline",
    "caption_audit": "baseline",
    "caption_ceiling": "ceiling",
}


def draw_subjects(
    titles: Sequence[str],
    kinds: Sequence[str],
    values: Sequence[np.ndarray],
    chance: float | None,
    described: Metric,
    theme: Theme,
) -> bytes:
    """Draw one row a label.

    Parameters
    ----------
    titles, kinds : sequence of str, one a label
        Kinds as in `dots.DotRow`.
    values : sequence of arrays of shape (n_subjects,), one a label
    chance : float or None
        Drawn as a line through all rows.
    """
    figure, axes = new_axes(0.62 + (ROW_HEIGHT_IN + 0.05) * len(titles), theme, grid="x")
    for position, (kind, scores) in enumerate(zip(kinds, values, strict=True)):
        colour = theme.accent if kind == "real" else theme.muted
        y = -position
        if len(scores) > MAX_DOTS:
            low, inner_low, inner_high, high = np.percentile(scores, (5, 25, 75, 95))
            axes.plot([low, high], [y, y], color=theme.band, linewidth=7, solid_capstyle="butt")
            axes.plot([inner_low, inner_high], [y, y], color=colour, linewidth=3)
        else:
            spread = 0.26 * np.linspace(-1, 1, len(scores)) if len(scores) > 12 else 0.0
            heights = np.full(len(scores), float(y)) + spread
            axes.plot(scores, heights, "o", color=colour, markersize=5, alpha=0.65, mew=0)
        mean = float(np.mean(scores))
        axes.plot([mean] * 2, [y - 0.38, y + 0.38], color=colour, linewidth=2.4)
    if chance is not None:
        axes.axvline(chance, color=theme.muted, linewidth=1, linestyle=(0, (3, 2)))
    means = [float(np.mean(scores)) for scores in values]
    finish_rows(axes, titles, kinds, means, described, theme)
    return to_svg(figure)


def subject_panels(report: GroupReport) -> list[Panel]:
    """One panel a metric: all subjects and their mean for each label."""
    reconstructions = [row for row in report.metrics if row.get("role") == "reconstruction"]
    panels = []
    decoders = decoders_of(report.metrics)
    for name in main_metrics(str(row["metric"]) for row in reconstructions):
        drawn = (row for row in report.metrics if row.get("role") in set(ROLES) - {"prediction"})
        parts = _by_size(row for row in drawn if row.get("metric") == name)
        for size, rows in parts.items():
            panels.append(_one_panel(name, rows, decoders, size if len(parts) > 1 else ""))
    return panels


def caption_panels(report: GroupReport) -> list[Panel]:
    """One panel a metric of captions: all subjects and their mean for each label."""
    captions = [row for row in report.metrics if row.get("role") in CAPTION_KINDS]
    decoders = decoders_of(report.metrics)
    panels = []
    for name in dict.fromkeys(str(row["metric"]) for row in captions):
        if name.startswith(CAPTION_METRICS):
            rows = [row for row in captions if row["metric"] == name]
            panels.append(_one_panel(name, rows, decoders, "", kinds=CAPTION_KINDS))
    return panels


def _by_size(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """Rows whose values may stand on one axis and be averaged: of one protocol and size.

    How a reconstruction was chosen differs between labels, which are rows of the panel of their own.
    """
    parts: dict[str, list[Row]] = {}
    for row in rows:
        _, text = comparison_key(row)
        size = "; ".join(part.strip() for part in text.split(";")[:2])
        gallery = [part.strip() for part in text.split(";") if "gallery=" in part]
        parts.setdefault("; ".join([size, *gallery]), []).append(row)
    return parts


def _one_panel(
    name: str,
    rows: Sequence[Row],
    decoders: Sequence[str],
    told: str,
    *,
    kinds: Mapping[str, str] = ROLES,
) -> Panel:
    collected: dict[str, list[float]] = {}
    kind_of: dict[str, str] = {}
    chances: list[float] = []
    for row in rows:
        kind, value = kinds.get(str(row.get("role"))), as_number(row.get("value"))
        if kind is None or value is None:
            continue
        collected.setdefault(str(row.get("label")), []).append(value)
        kind_of[str(row.get("label"))] = kind
        chance = as_number(row.get("chance"))
        if chance is not None and kind == "real":
            chances.append(chance)
    return _panel(name, collected, kind_of, chances, decoders, told)


def _panel(
    name: str,
    collected: Mapping[str, list[float]],
    kinds: Mapping[str, str],
    chances: Sequence[float],
    decoders: Sequence[str],
    told: str,
) -> Panel:
    order = ("real", "baseline", "ceiling")
    labels = sorted(collected, key=lambda label: order.index(kinds[label]))
    titles = [label_title(label, decoders) for label in labels]
    described = metric(name)
    means = "; ".join(
        f"{title} {described.write(float(np.mean(collected[label])))}"
        for title, label in zip(titles, labels, strict=True)
    )
    return Panel(
        f"{described.title} ({told})" if told else described.title,
        f"{described.title}, mean over subjects: {means}",
        partial(
            draw_subjects,
            titles,
            [kinds[label] for label in labels],
            [np.array(collected[label]) for label in labels],
            float(np.mean(chances)) if chances else None,
            described,
        ),
    )
