"""Dot and interval plot: one row a label, with its chance band and its ceiling."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from afterimage.reports.figures.style import Theme, label_axes, new_axes, to_svg
from afterimage.reports.labels import (
    Metric,
    as_number,
    decoders_of,
    label_title,
    main_metrics,
    metric,
    metric_order,
    pipeline_rank,
)
from afterimage.reports.model import Row, SubjectReport
from afterimage.reports.page import Panel

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ROW_HEIGHT_IN = 0.27
ROLES = {
    "reconstruction": "real",
    "prediction": "real",
    "ceiling": "ceiling",
    "baseline": "baseline",
    "audit": "baseline",
}
AGREEMENT = "encoding_agreement_"
#: Regions of a panel, at most.
MAX_REGIONS = 30
AUDIT_METRICS = ("pixcorr", "twoway_clip", "twoway_pixels")


@dataclass(frozen=True)
class DotRow:
    """One row: `kind` is ``real``, ``baseline`` or ``ceiling``; numbers not known are None."""

    title: str
    kind: str
    value: float
    low: float | None = None
    high: float | None = None
    chance: float | None = None
    chance_low: float | None = None
    chance_high: float | None = None
    ceiling: float | None = None

    def renamed(self, title: str) -> DotRow:
        """Give the row another title."""
        return replace(self, title=title)


def rows_of(rows: Sequence[Row], name: str, *, kinds: Mapping[str, str] = ROLES) -> list[DotRow]:
    """Take the rows of one metric: reconstructions first, then baselines, the ceiling last."""
    decoders = decoders_of(rows)
    found = []
    for row in rows:
        value = as_number(row.get("value"))
        kind = kinds.get(str(row.get("role")))
        if row.get("metric") != name or value is None or kind is None:
            continue
        numbers = {
            key: as_number(row.get(column))
            for key, column in (
                ("low", "ci_low"),
                ("high", "ci_high"),
                ("chance", "chance"),
                ("chance_low", "chance_low"),
                ("chance_high", "chance_high"),
                ("ceiling", "ceiling"),
            )
        }
        title = label_title(str(row.get("label", "")), decoders)
        found.append(DotRow(title, kind, value, **numbers))
    order = ("real", "baseline", "ceiling")
    return sorted(found, key=lambda dot: order.index(dot.kind))


def draw_dots(rows: Sequence[DotRow], described: Metric, theme: Theme) -> bytes:
    """Draw values with 95 % intervals, chance bands (grey) and ceilings (upright strokes)."""
    figure, axes = new_axes(0.62 + ROW_HEIGHT_IN * len(rows), theme, grid="x")
    places = list(zip(rows, range(0, -len(rows), -1), strict=True))
    # one call for all rows of a kind: lines of their own would be laid out and drawn one by one
    bands = [
        (y, row.chance_low, row.chance_high - row.chance_low)
        for row, y in places
        if row.chance_low is not None and row.chance_high is not None
    ]
    if bands:
        y, left, width = zip(*bands, strict=True)
        axes.barh(y, width, left=left, height=0.86, color=theme.band, linewidth=0)
    upright_strokes(axes, [(row.chance, y) for row, y in places], 0.43, theme.muted, 1)
    ceilings = [(row.ceiling, y) for row, y in places if row.kind == "real"]
    upright_strokes(axes, ceilings, 0.36, theme.ink, 2.2)
    for kind in dict.fromkeys(row.kind for row in rows):
        own = [(row, y) for row, y in places if row.kind == kind]
        colour = theme.accent if kind == "real" else theme.muted
        lines = [(y, r.low, r.high) for r, y in own if r.low is not None and r.high is not None]
        if lines:
            axes.hlines(*zip(*lines, strict=True), color=colour, linewidth=2)
        face = colour if kind == "real" else theme.paper
        marker = "^" if kind == "ceiling" else "o"
        values, heights = [row.value for row, _ in own], [y for _, y in own]
        axes.plot(values, heights, marker, color=colour, mfc=face, markersize=6.5, mew=1.5)
    finish_rows(
        axes,
        [row.title for row in rows],
        [row.kind for row in rows],
        [row.value for row in rows],
        described,
        theme,
    )
    return to_svg(figure)


def upright_strokes(
    axes: Axes,
    places: Sequence[tuple[float | None, float]],
    half: float,
    colour: str,
    width: float,
) -> None:
    """Draw a stroke through each (x, y) that is known, `half` a row up and down."""
    known = [(x, y - half, y + half) for x, y in places if x is not None]
    if known:
        axes.vlines(*zip(*known, strict=True), color=colour, linewidth=width)


def finish_rows(
    axes: Axes,
    titles: Sequence[str],
    kinds: Sequence[str],
    values: Sequence[float],
    described: Metric,
    theme: Theme,
) -> None:
    """Write names on the left, values on the right, and which direction is better below."""
    colours = [theme.ink if kind == "real" else theme.muted for kind in kinds]
    for position, (kind, value, colour) in enumerate(zip(kinds, values, colours, strict=True)):
        axes.text(
            1.015,
            -position,
            described.write(value),
            transform=axes.get_yaxis_transform(),
            va="center",
            color=colour,
            fontweight="bold" if kind == "real" else "normal",
        )
    axes.set_yticks([-position for position in range(len(titles))], list(titles))
    for text, colour in zip(axes.get_yticklabels(), colours, strict=True):
        text.set_color(colour)
    axes.set_ylim(-len(titles) + 0.4, 0.6)
    axes.margins(x=0.04)
    if described.percent:
        axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f}")
    axes.locator_params(axis="x", nbins=5)
    unit = "%, " if described.percent else ""
    direction = "← lower is better" if described.lower_is_better else "higher is better →"
    label_axes(axes, theme, f"{unit}{direction}")


def score_panels(report: SubjectReport) -> list[Panel]:
    """One dot plot per main metric: reconstructions, baselines and ceiling."""
    kinds = {key: ROLES[key] for key in ("reconstruction", "baseline", "ceiling")}
    return _panels(report.metrics, main_metrics(_names(report.metrics)), kinds)


def agreement_panels(report: SubjectReport) -> list[Panel]:
    """One panel a decoder: agreement with the brain by region, of its last method."""
    rows = [row for row in report.metrics if str(row.get("metric")).startswith(AGREEMENT)]
    made = [row for row in rows if row.get("role") == "reconstruction"]
    panels = []
    for decoder in decoders_of(made):
        own = [row for row in made if row.get("decoder") == decoder]
        label = str(max(own, key=pipeline_rank)["label"])
        dots = [
            dot.renamed(
                "all units"
                if (region := str(row["metric"])[len(AGREEMENT) :]) == "all"
                else region
            )
            for row in [row for row in own if row["label"] == label][:MAX_REGIONS]
            for dot in rows_of([row], str(row["metric"]))
        ]
        if len(dots) < 2:  # without regions, the panel of all units says it
            continue
        described = metric(f"{AGREEMENT}all")
        title = label_title(label, decoders_of(report.metrics))
        values = "; ".join(f"{dot.title} {described.write(dot.value)}" for dot in dots)
        panels.append(
            Panel(title, f"Agreement of {title}: {values}", partial(draw_dots, dots, described))
        )
    return panels


def audit_panels(report: SubjectReport) -> list[Panel]:
    """Real rows beside every audit row, for pixels and identification."""
    names = metric_order(_names(report.metrics))
    chosen = [name for name in names if name in AUDIT_METRICS] or names[:2]
    kinds = {key: ROLES[key] for key in ("reconstruction", "baseline", "audit")}
    return _panels(report.metrics, chosen, kinds)


def _names(rows: Sequence[Row]) -> list[str]:
    return [str(row["metric"]) for row in rows if row.get("role") == "reconstruction"]


def _panels(rows: Sequence[Row], names: Sequence[str], kinds: Mapping[str, str]) -> list[Panel]:
    panels = []
    for name in names:
        dots = rows_of(rows, name, kinds=kinds)
        if not dots:
            continue
        described = metric(name)
        values = "; ".join(f"{dot.title} {described.write(dot.value)}" for dot in dots)
        panels.append(
            Panel(
                described.title,
                f"{described.title}: {values}",
                partial(draw_dots, dots, described),
            )
        )
    return panels
