"""Plot of the group: subjects are dots (bars where many), the mean of those scored alike a stroke.

What a decoder and method make of other brains stands on their own row, as one open circle.
"""

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
    without: Sequence[float | None],
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
    without : sequence of float or None, one a label
        What the same is worth without the brain that was recorded: an open circle.
    chance : float or None
        Drawn as a line through all rows.
    """
    figure, axes = new_axes(0.62 + (ROW_HEIGHT_IN + 0.05) * len(titles), theme, grid="x")
    for position, (kind, scores, fake) in enumerate(zip(kinds, values, without, strict=True)):
        colour = theme.accent if kind == "real" else theme.muted
        y = -position
        if fake is not None:
            axes.plot(fake, y, "o", color=theme.muted, mfc=theme.paper, markersize=5, mew=1.2)
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
    """Draw people who were scored alike as one row; a label scored in two ways has two rows.

    Of shuffled brains, the mean brain and noise, the one that is scored best stands on the row.
    """
    collected: dict[tuple[str, str], list[float]] = {}
    kind_of: dict[tuple[str, str], str] = {}
    chances: list[float] = []
    owners = {_maker(row): _key(row) for row in rows if row.get("role") == "reconstruction"}
    fakes: dict[tuple[str, str], dict[str, list[float]]] = {}
    for row in rows:
        kind, value = kinds.get(str(row.get("role"))), as_number(row.get("value"))
        if kind is None or value is None:
            continue
        if row.get("role") == "audit" and _maker(row) in owners:
            own = fakes.setdefault(owners[_maker(row)], {})
            own.setdefault(str(row.get("label")), []).append(value)
            continue
        collected.setdefault(_key(row), []).append(value)
        kind_of[_key(row)] = kind
        chance = as_number(row.get("chance"))
        if chance is not None and kind == "real":
            chances.append(chance)
    described = metric(name)
    best = min if described.lower_is_better else max
    without = {
        key: best(float(np.mean(values)) for values in own.values()) for key, own in fakes.items()
    }
    ways = {
        label: differing(way for other, way in collected if other == label)
        for label, _ in collected
    }
    order = ("real", "baseline", "ceiling")
    keys = sorted(collected, key=lambda key: order.index(kind_of[key]))
    titles, told_values = [], []
    for label, way in keys:
        title, what = label_title(label, decoders), ways[label][way]
        titles.append(f"{title} ({what})" if what else title)
        mean = described.write(float(np.mean(collected[label, way])))
        fake = without.get((label, way))
        beside = "" if fake is None else f" (without this brain {described.write(fake)})"
        told_values.append(f"{titles[-1]} {mean}{beside}")
    return Panel(
        f"{described.title} ({told})" if told else described.title,
        f"{described.title}, mean over subjects: {'; '.join(told_values)}",
        partial(
            draw_subjects,
            titles,
            [kind_of[key] for key in keys],
            [np.array(collected[key]) for key in keys],
            [without.get(key) for key in keys],
            float(np.mean(chances)) if chances else None,
            described,
        ),
    )


def _key(row: Row) -> tuple[str, str]:
    """Return what rows of people must have in common to be one row of a panel."""
    return str(row.get("label")), setting_and_way(row)[1]


def _maker(row: Row) -> tuple[str, ...]:
    """Return decoder and method of a row, and how it was scored."""
    return str(row.get("decoder")), str(row.get("method")), setting_and_way(row)[1]
