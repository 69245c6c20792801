"""Blocks of graphs whose weights alone tell them, and one block in noise."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import csr_array
from sklearn.metrics import homogeneity_score, normalized_mutual_info_score

from afterimage.connectivity.block_models import (
    GRAPH_TOOL,
    LEIDEN,
    find_graph_tool,
    fit_blocks,
)
from afterimage.errors import ConfigError, InputError

pytest.importorskip("igraph", reason="the fallback needs the extra 'leiden'")


def random_graph(ratio: float, n_nodes: int = 200, seed: int = 0) -> tuple[csr_array, np.ndarray]:
    """Make a random graph whose mean weight is ``ratio`` times larger inside four blocks."""
    rng = np.random.default_rng(seed)
    truth = np.arange(n_nodes) % 4
    edge = np.triu(rng.random((n_nodes, n_nodes)) < 0.3, 1)
    mean = np.where(truth[:, None] == truth, ratio, 1.0)
    weights = np.where(edge, rng.exponential(mean), 0)
    return csr_array(weights + weights.T), truth


def test_fallback_finds_blocks_of_weights_and_says_what_it_is() -> None:
    graph, truth = random_graph(4.0)
    found = fit_blocks(graph, n_starts=5)
    assert normalized_mutual_info_score(truth, found.labels) >= 0.9
    assert found.n_blocks == 4
    assert found.method == LEIDEN
    assert "not a block model" in LEIDEN
    assert found.p <= 0.01
    # Edges alone know nothing of these blocks.
    blind = fit_blocks(graph, weighted=False, n_starts=1)
    assert normalized_mutual_info_score(truth, blind.labels) < 0.1


def test_fallback_returns_one_block_on_noise() -> None:
    for seed in range(3):
        graph, _ = random_graph(1.0, 100, seed)
        found = fit_blocks(graph, n_starts=1)
        assert found.n_blocks == 1
        assert found.n_refused > 1  # modularity alone sees communities in noise
        assert found.p > 0.01


def test_blocks_of_edges_are_found_too() -> None:
    rng = np.random.default_rng(0)
    truth = np.repeat([0, 1], [40, 30])
    edge = np.triu(rng.random((70, 70)) < np.where(truth[:, None] == truth, 0.4, 0.1), 1)
    found = fit_blocks(csr_array((edge | edge.T).astype(float)), n_starts=3)
    # Modularity may split a dense block further; it mixes none.
    assert homogeneity_score(truth, found.labels) > 0.95
    assert 2 <= found.n_blocks <= 3
    assert (np.diff(np.bincount(found.labels)[1:]) <= 0).all()  # the largest block is the first


@pytest.mark.slow
def test_graph_tool_finds_blocks_of_weights_and_one_on_noise() -> None:
    python = find_graph_tool()
    if python is None:
        pytest.skip("no Python on the path has graph-tool: see workflows/envs/graph-tool.yaml")
    graph, truth = random_graph(4.0)
    found = fit_blocks(graph, graph_tool=python, n_starts=1)
    assert found.method == GRAPH_TOOL
    assert normalized_mutual_info_score(truth, found.labels) >= 0.9
    blind = fit_blocks(graph, graph_tool=python, weighted=False, n_starts=1)
    assert normalized_mutual_info_score(truth, blind.labels) < 0.1
    assert fit_blocks(random_graph(1.0)[0], graph_tool=python, n_starts=1).n_blocks == 1


def test_bad_input_and_a_python_without_graph_tool_are_named() -> None:
    import sys

    with pytest.raises(InputError, match="no blocks"):
        fit_blocks(csr_array((5, 5)))
    graph, _ = random_graph(1.0, 20)
    negative = graph.copy()
    negative.data[0] = -1
    with pytest.raises(InputError, match="no blocks"):
        fit_blocks(negative)
    with pytest.raises(ValueError, match="cannot tell"):
        fit_blocks(graph, n_nulls=10)
    assert find_graph_tool(("no-such-python",)) is None
    if find_graph_tool((sys.executable,)) is None:
        with pytest.raises(ConfigError, match="could not fit") as error:
            fit_blocks(graph, graph_tool=sys.executable)
        assert "graph_tool" in str(error.value)
