"""What the report of a subject says and shows of graphs."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from afterimage.connectivity.graph_measures import modules, node_measures, strongest
from afterimage.reports.connectivity import Connectivity, RegionGraph, VoxelMaps
from afterimage.reports.connectivity_tables import subject_view
from afterimage.reports.figures.graphs import module_panels, voxel_panels
from afterimage.reports.figures.style import LIGHT


def a_person() -> Connectivity:
    rng = np.random.default_rng(0)
    truth = np.arange(30) % 3
    matrix = 0.5 * (truth[:, None] == truth) + 0.1 * rng.standard_normal((30, 30))
    matrix = (matrix + matrix.T) / 2
    np.fill_diagonal(matrix, 1)
    graph = strongest(matrix, 0.3)
    labels, modularity = modules(graph)
    volume = np.full((6, 7, 5), np.nan)
    volume[1:5, 1:6, 1:4] = rng.poisson(5, (4, 5, 3))
    maps = dict.fromkeys(("degree", "cycles", "clustering"), volume)
    return Connectivity(
        seg="A", names=[f"R{i}" for i in range(30)], networks=["n/a"] * 30,
        centres=np.full((30, 3), np.nan), matrices={"correlation": matrix},
        graphs=[RegionGraph(0.3, modularity, labels, node_measures(graph))],
        voxels=VoxelMaps(maps, np.diag([3.0, 3, 3, 1]), [0.005, 0.004], [0.61, 0.8]),
    )  # fmt: skip


def test_tables_and_words() -> None:
    person = a_person()
    view = subject_view([person])
    assert view is not None
    part = view["parts"][0]
    cells = [cell.text for cell in part["graphs"].rows[0]]
    assert cells[0] == "30 %"
    assert cells[4] == "3"
    total = sum(person.graphs[0].measures["cycles"]) // 3
    assert cells[3] == str(total)
    assert "0.5 % of the pairs above 0.61; 0.4 % of the pairs above 0.80" in part["voxels"]


def test_panels_are_drawn() -> None:
    report = SimpleNamespace(connectivity=[a_person()])
    found = [*module_panels(report), *voxel_panels(report)]
    assert len(found) == 5
    assert "3 modules" in found[0].alt
    for panel in found:
        assert panel.draw(LIGHT).lstrip().startswith(b"<")
    empty = SimpleNamespace(connectivity=[])
    assert module_panels(empty) == voxel_panels(empty) == []
