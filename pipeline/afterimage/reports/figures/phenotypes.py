"""Dots with intervals and chance bands: what predicts a phenotype, and what its rivals reach."""

from __future__ import annotations

from functools import partial

from afterimage.reports.figures.dots import DotRow, draw_dots
from afterimage.reports.labels import as_number
from afterimage.reports.model import GroupReport
from afterimage.reports.page import Panel
from afterimage.reports.phenotypes import feature_title, main_rows


def phenotype_panels(report: GroupReport) -> list[Panel]:
    """One panel a target and set of regions, of its main metric."""
    panels = []
    for target, seg, metric, rows in main_rows(report.phenotypes):
        dots = [
            DotRow(
                feature_title(row),
                "baseline" if row["role"] == "rival" else "real",
                float(str(row["value"])),
                *(
                    as_number(row.get(name))
                    for name in ("ci_low", "ci_high", "chance", "chance_low", "chance_high")
                ),
            )
            for row in sorted(rows, key=lambda row: row["role"] == "rival")
        ]
        said = "; ".join(f"{dot.title} {metric.write(dot.value)}" for dot in dots)
        panels.append(
            Panel(
                f"{target}, {metric.title.lower()}, {seg}",
                f"{metric.title} of {target}: {said}",
                partial(draw_dots, dots, metric),
            )
        )
    return panels
