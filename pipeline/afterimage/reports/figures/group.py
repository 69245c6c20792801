"""Plot of the group: subjects are dots (bars where many), the mean of those scored alike a stroke."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np

from afterimage.reports.figures.dots import ROLES, ROW_HEIGHT_IN, finish_rows
from afterimage.reports.figures.style import Theme, new_axes, to_svg
from afterimage.reports.labels import (
    Metric,
    as_number,
    decoders_of,
    label_title,
    main_metrics,
    metric,
    modality_title,
)
from afterimage.reports.model import GroupReport, Row
from afterimage.reports.page import Panel
from afterimage.reports.protocol_words import differing, setting_and_way

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
    """One panel a metric and kind of people: all of them and their mean for each label."""
    reconstructions = [row for row in report.metrics if row.get("role") == "reconstruction"]
    drawn = [row for row in report.metrics if row.get("role") in set(ROLES) - {"prediction"}]
    names = main_metrics(str(row["metric"]) for row in reconstructions)
    return _panels(report, drawn, names, ROLES)


def caption_panels(report: GroupReport) -> list[Panel]:
    """One panel a metric of captions and kind of people."""
    captions = [row for row in report.metrics if row.get("role") in CAPTION_KINDS]
    names = dict.fromkeys(str(row["metric"]) for row in captions)
    wanted = [name for name in names if name.startswith(CAPTION_METRICS)]
    return _panels(report, captions, wanted, CAPTION_KINDS)


def _panels(
    report: GroupReport, drawn: Sequence[Row], names: Sequence[str], kinds: Mapping[str, str]
) -> list[Panel]:
    """Make panels of rows that may stand on one axis: of one metric, modality and setting."""
    people = {one.subject: modality_title(one.modality) for one in report.subjects}
    decoders = decoders_of(report.metrics)
    panels = []
    for name in names:
        parts: dict[tuple[str, str], list[Row]] = {}
        for row in drawn:
            if row.get("metric") == name:
                modality = people.get(str(row.get("subject")), "")
                parts.setdefault((modality, setting_and_way(row)[0]), []).append(row)
        settings: dict[str, list[str]] = {}
        for modality, setting in parts:
            settings.setdefault(modality, []).append(setting)
        for (modality, setting), rows in parts.items():
            told = [modality] if len(settings) > 1 else []
            what = ", ".join(filter(None, [*told, differing(settings[modality])[setting]]))
            panels.append(_one_panel(name, rows, decoders, what, kinds=kinds))
    return panels


def _one_panel(
    name: str,
    rows: Sequence[Row],
    decoders: Sequence[str],
    told: str,
    *,
    kinds: Mapping[str, str],
) -> Panel:
    """Draw people who were scored alike as one row; a label scored in two ways has two rows."""
    collected: dict[tuple[str, str], list[float]] = {}
    kind_of: dict[tuple[str, str], str] = {}
    chances: list[float] = []
    for row in rows:
        kind, value = kinds.get(str(row.get("role"))), as_number(row.get("value"))
        if kind is None or value is None:
            continue
        key = (str(row.get("label")), setting_and_way(row)[1])
        collected.setdefault(key, []).append(value)
        kind_of[key] = kind
        chance = as_number(row.get("chance"))
        if chance is not None and kind == "real":
            chances.append(chance)
    ways = {
        label: differing(way for other, way in collected if other == label)
        for label, _ in collected
    }
    titles = {}
    for label, way in collected:
        title, what = label_title(label, decoders), ways[label][way]
        titles[label, way] = f"{title} ({what})" if what else title
    return _panel(name, collected, kind_of, chances, titles, told)


def _panel(
    name: str,
    collected: Mapping[tuple[str, str], list[float]],
    kinds: Mapping[tuple[str, str], str],
    chances: Sequence[float],
    title_of: Mapping[tuple[str, str], str],
    told: str,
) -> Panel:
    order = ("real", "baseline", "ceiling")
    labels = sorted(collected, key=lambda label: order.index(kinds[label]))
    titles = [title_of[label] for label in labels]
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
