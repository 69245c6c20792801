"""Graphs of voxels: thresholded correlations in blocks, and cycles of length 3."""

from __future__ import annotations

from unittest.mock import patch

import networkx
import numpy as np
import pytest
from scipy.sparse import csr_array

from afterimage.connectivity import three_cycles as module
from afterimage.connectivity.three_cycles import three_cycles, threshold_graph
from afterimage.errors import InputError


def mixed(n_times: int, n_units: int, seed: int = 0, n_sources: int = 30) -> np.ndarray:
    """Make series that share sources, so that correlations reach far."""
    rng = np.random.default_rng(seed)
    sources = rng.standard_normal((n_times, n_sources))
    nearest = rng.integers(0, n_sources, n_units)
    return sources[:, nearest] + 0.6 * rng.standard_normal((n_times, n_units))


def test_edges_are_exactly_those_of_corrcoef_for_2000_voxels() -> None:
    series = 100 + mixed(120, 2000).astype(np.float32)
    expected = np.corrcoef(series.astype(np.float64), rowvar=False)
    np.fill_diagonal(expected, 0)
    # A threshold that is itself a correlation: the pair is not above it, and float32 cannot tell.
    for threshold in (0.6, 0.7, float(np.sort(expected.ravel())[-20001])):
        graph = threshold_graph(series, threshold=threshold)
        found = graph.weights.toarray()
        near = np.abs(expected - threshold) < 1e-12
        assert np.array_equal((found > 0)[~near], (expected > threshold)[~near])
        np.testing.assert_allclose(found[found > 0], expected[found > 0], atol=2e-6)
        assert graph.density == pytest.approx(
            (expected > threshold).sum() / (2000 * 1999), abs=1e-6
        )


def test_density_sets_the_threshold() -> None:
    series = mixed(100, 700)
    graph = threshold_graph(series, density=0.02)
    assert 0.019 < graph.density <= 0.02
    pairs = np.sort(np.corrcoef(series, rowvar=False)[np.triu_indices(700, 1)])
    assert graph.threshold == pytest.approx(pairs[-round(0.02 * len(pairs))], abs=3e-4)


@pytest.mark.parametrize("budget", [10_000_000, 500])
@pytest.mark.parametrize(
    "graph",
    [
        networkx.gnp_random_graph(200, 0.1, seed=0),
        networkx.barabasi_albert_graph(200, 5, seed=1),
        networkx.empty_graph(10),
        networkx.complete_graph(12),
    ],
    ids=["random", "hubs", "empty", "complete"],
)
def test_cycles_are_those_of_networkx(graph: networkx.Graph, budget: int) -> None:
    adjacency = csr_array(networkx.to_scipy_sparse_array(graph, weight=None, format="csr"))
    expected = [networkx.triangles(graph)[node] for node in range(len(graph))]
    with patch.object(module, "MAX_PRODUCTS", budget):  # many blocks of rows
        assert three_cycles(adjacency).tolist() == expected


def test_voxels_that_do_not_vary_have_no_edges() -> None:
    series = mixed(60, 50)
    series[:, 7] = 3.0
    graph = threshold_graph(series, threshold=0.3)
    assert graph.n_constant == 1
    assert np.diff(graph.weights.indptr)[7] == 0


def test_bad_input_is_named() -> None:
    series = mixed(60, 50)
    with pytest.raises(InputError, match="no pair of units") as error:
        threshold_graph(np.random.default_rng(0).standard_normal((500, 20)), threshold=0.9)
    assert "density" in str(error.value)
    with pytest.raises(InputError, match="too many edges"):
        threshold_graph(series, threshold=0.0, max_edges=10)
    with pytest.raises(InputError, match="units that vary"):
        threshold_graph(np.ones((60, 50)), threshold=0.5)
    with pytest.raises(InputError, match="too short"):
        threshold_graph(series[:2], threshold=0.5)
    series[3, 4] = np.nan
    with pytest.raises(InputError, match="no finite numbers") as error:
        threshold_graph(series, threshold=0.5)
    assert "1 units, the first is number 5" in str(error.value)
