"""Plots of what decoders tell without single networks of the cortex, and from them alone."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from afterimage.reports.figures.dots import DotRow, draw_dots
from afterimage.reports.labels import as_number, metric, metric_order, words
from afterimage.reports.model import Row, SubjectReport
from afterimage.reports.page import Panel

DRAWN = ("retrieval_top1", "twoway_")
LEVEL = 0.05
#: Networks of a panel, at most: those whose loss costs most.
MAX_NETWORKS = 15


def ablation_panels(report: SubjectReport) -> list[Panel]:
    """One panel a decoder and metric: without each network, and each alone, beside the whole."""
    scored = [row for row in report.ablation if as_number(row.get("value")) is not None]
    panels = []
    for name in metric_order(dict.fromkeys(str(row["metric"]) for row in scored)):
        if not name.startswith(DRAWN) or name in ("retrieval_top1", "twoway"):
            continue
        described = metric(name)
        rows = [row for row in scored if row["metric"] == name]
        for decoder in dict.fromkeys(row["decoder"] for row in rows):
            own = [row for row in rows if row["decoder"] == decoder]
            dots = _dots(own)
            if not dots:
                continue
            values = "; ".join(f"{dot.title} {described.write(dot.value)}" for dot in dots)
            title = f"{described.title}, {words(str(decoder))}"
            panels.append(Panel(title, f"{title}: {values}", partial(draw_dots, dots, described)))
    return panels


def _dots(rows: Sequence[Row]) -> list[DotRow]:
    """Return the whole brain, then each network, the most costly to lose first."""
    whole = [row for row in rows if row["analysis"] == "whole"]
    parts = {(row["network"], row["analysis"]): row for row in rows if row["analysis"] != "whole"}
    costs = {
        network: as_number(row["difference"]) or 0.0
        for (network, analysis), row in parts.items()
        if analysis == "without"
    }
    chosen = sorted(costs, key=lambda network: costs[network])[:MAX_NETWORKS]
    if not whole or not chosen:
        return []
    ceiling = as_number(whole[0]["value"])
    dots = [_dot("whole brain", "real", whole[0], None)]
    for network in chosen:
        for analysis, kind in (("without", "real"), ("only", "baseline")):
            row = parts.get((network, analysis))
            if row is not None:
                p = as_number(row.get("difference_p_holm"))
                star = " *" if p is not None and p < LEVEL else ""
                dots.append(_dot(f"{analysis} {network}{star}", kind, row, ceiling))
    return dots


def _dot(title: str, kind: str, row: Row, ceiling: float | None) -> DotRow:
    value = as_number(row["value"])
    assert value is not None  # noqa: S101  only scored rows come here
    low, high = as_number(row.get("ci_low")), as_number(row.get("ci_high"))
    chance = as_number(row.get("chance"))
    band = as_number(row.get("chance_low")), as_number(row.get("chance_high"))
    return DotRow(title, kind, value, low, high, chance, *band, ceiling=ceiling)
