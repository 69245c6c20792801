"""Measures of graphs against networkx, and planted modules."""

from __future__ import annotations

import networkx
import numpy as np
import pytest
from scipy.sparse import csr_array
from sklearn.metrics import adjusted_rand_score

from afterimage.connectivity.graph_measures import modules, node_measures, strongest
from afterimage.errors import InputError


def test_measures_of_nodes_are_those_of_networkx() -> None:
    graph = networkx.gnp_random_graph(80, 0.15, seed=2)
    rng = np.random.default_rng(0)
    for a, b in graph.edges:
        graph[a][b]["weight"] = float(rng.uniform(0.1, 1))
    weights = csr_array(networkx.to_scipy_sparse_array(graph, format="csr"))
    centres = rng.uniform(0, 60, (80, 3))
    found = node_measures(weights, centres, (0, 20, 40, 200))
    nodes = range(80)
    assert found["degree"].tolist() == [graph.degree[n] for n in nodes]
    np.testing.assert_allclose(found["strength"], [graph.degree(n, "weight") for n in nodes])
    assert found["cycles"].tolist() == [networkx.triangles(graph)[n] for n in nodes]
    np.testing.assert_allclose(found["clustering"], [networkx.clustering(graph)[n] for n in nodes])
    bands = [found[f"degree{name}"] for name in ("0to20", "20to40", "40to200")]
    assert np.array_equal(sum(bands), found["degree"])
    near = [sum(np.linalg.norm(centres[n] - centres[m]) < 20 for m in graph[n]) for n in nodes]
    assert bands[0].tolist() == near


def test_bands_need_coordinates() -> None:
    weights = strongest(np.ones((5, 5)), 1.0)
    assert "degree0to20" not in node_measures(weights, np.full((5, 3), np.nan), (0, 20))


def test_strongest_keeps_a_share_of_the_pairs() -> None:
    matrix = np.corrcoef(np.random.default_rng(0).standard_normal((40, 60)), rowvar=False)
    graph = strongest(matrix, 0.1)
    assert graph.nnz / 2 == round(0.1 * 60 * 59 / 2)
    assert graph.data.min() == np.sort(matrix[np.triu_indices(60, 1)])[-177]
    assert strongest(matrix, 1.0).nnz == (matrix > 0).sum() - 60
    matrix[3, 5] = matrix[5, 3] = np.nan
    with pytest.raises(InputError, match="no finite numbers"):
        strongest(matrix, 0.1)
    with pytest.raises(InputError, match="no edges"):
        strongest(-np.ones((5, 5)), 0.5)


def test_planted_modules_are_found() -> None:
    rng = np.random.default_rng(0)
    truth = np.repeat([0, 1, 2, 3], [30, 25, 20, 15])
    matrix = 0.2 * rng.random((90, 90)) + 0.4 * (truth[:, None] == truth) * rng.random((90, 90))
    labels, modularity = modules(strongest((matrix + matrix.T) / 2, 0.2))
    assert adjusted_rand_score(truth, labels) == 1.0
    assert labels[:30].tolist() == [1] * 30  # the largest is the first
    assert 0.4 < modularity < 1
