"""Plots of brain graphs: matrices sorted by module, hubs, and maps of voxels."""

from __future__ import annotations

from functools import partial

import numpy as np

from afterimage.reports.connectivity import RegionGraph, title_of
from afterimage.reports.figures.connectivity import draw_matrix
from afterimage.reports.figures.mosaic import choose_slices, draw_map
from afterimage.reports.figures.style import Theme, label_axes, new_axes, to_svg
from afterimage.reports.model import SubjectReport
from afterimage.reports.page import Panel

#: Maps of voxels that are shown, in words.
MAPS = {"degree": "degree", "cycles": "3-cycles", "clustering": "clustering"}


def draw_hubs(graph: RegionGraph, theme: Theme) -> bytes:
    """Draw the clustering of every region over its degree; orange: the largest module."""
    degree, clustering = graph.measures["degree"], graph.measures["clustering"]
    figure, axes = new_axes(2.2, theme)
    largest = graph.modules == 1
    for chosen, colour in ((~largest, theme.accent), (largest, theme.second)):
        axes.scatter(
            degree[chosen], clustering[chosen], s=14, color=colour, alpha=0.8, linewidths=0
        )
    axes.set_ylim(-0.03, 1.03)
    label_axes(axes, theme, "degree", "clustering")
    return to_svg(figure)


def module_panels(report: SubjectReport) -> list[Panel]:
    """Two panels a set of regions: its matrix by module, and clustering over degree."""
    panels = []
    for part in report.connectivity:
        if not part.graphs or not part.matrices:
            continue
        graph = part.graphs[0]
        measure, values = next(iter(part.matrices.items()))
        if len(graph.modules) != len(values):
            continue
        n_modules = int(graph.modules.max())
        words = [f"module {number}" for number in graph.modules.tolist()]
        order = np.argsort(graph.modules, kind="stable")
        told = f"{n_modules} modules, modularity {graph.modularity:.2f}"
        panels += [
            Panel(
                f"Modules, {part.seg}",
                f"{title_of(measure)} of {len(values)} regions sorted by module: {told}",
                partial(draw_matrix, values, words, order, title_of(measure)),
            ),
            Panel(
                f"Clustering and degree, {part.seg}",
                f"Clustering over degree of {len(values)} regions, "
                f"mean clustering {graph.measures['clustering'].mean():.2f}",
                partial(draw_hubs, graph),
            ),
        ]
    return panels


def voxel_panels(report: SubjectReport) -> list[Panel]:
    """One panel a map of the graph of voxels."""
    panels = []
    for part in report.connectivity:
        if part.voxels is None:
            continue
        for name, words in MAPS.items():
            volume = part.voxels.maps[name]
            inside = np.isfinite(volume)
            top = float(np.percentile(volume[inside], 98)) or 1.0
            panels.append(
                Panel(
                    f"Voxels: {words}",
                    f"Map of {words} of the graph of voxels: median "
                    f"{np.median(volume[inside]):.3g}, 98th percentile {top:.3g}",
                    partial(
                        draw_map, volume, choose_slices(inside, part.voxels.affine), (0.0, top),
                        words, None,
                    ),
                )
            )  # fmt: skip
    return panels
