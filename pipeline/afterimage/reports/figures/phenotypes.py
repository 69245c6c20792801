"""What predicts a phenotype beside its rivals, and generated connectivity beside real."""

from __future__ import annotations

from functools import partial

import numpy as np

from afterimage.reports.figures.dots import DotRow, draw_dots
from afterimage.reports.figures.style import Theme, label_axes, new_axes, to_svg
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


def draw_distributions(real: np.ndarray, generated: np.ndarray, theme: Theme) -> bytes:
    """Draw the distribution of connections over people: real ones filled, generated ones a line."""
    figure, axes = new_axes(2.0, theme, grid="x")
    low, high = np.quantile(np.concatenate([real, generated]), [0.001, 0.999])
    bins = np.linspace(low, high, 61)
    heights, _ = np.histogram(real, bins, density=True)
    axes.stairs(heights, bins, fill=True, color=theme.band)
    heights, _ = np.histogram(generated, bins, density=True)
    axes.stairs(heights, bins, color=theme.accent, linewidth=2)
    axes.set_yticks([])
    label_axes(axes, theme, "connectivity (filled: real people; line: generated)")
    return to_svg(figure)


def generated_panels(report: GroupReport) -> list[Panel]:
    """One panel: all connections of real people and of generated ones."""
    if report.generated_values is None:
        return []
    real, generated = report.generated_values
    return [
        Panel(
            "All connections",
            f"Connections of real people, mean {real.mean():.3f}, standard deviation "
            f"{real.std():.3f}; generated, {generated.mean():.3f} and {generated.std():.3f}",
            partial(draw_distributions, real, generated),
        )
    ]
