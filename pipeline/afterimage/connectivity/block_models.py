"""Blocks of weighted graphs: the stochastic block model of Peixoto (2018, doi:10.1103/PhysRevE.97.012306).

The model says that the weights and the number of edges between two nodes depend on their blocks alone.
graph-tool fits it by the description length, and so decides how many blocks there are; it needs an
environment of its own (`graph_tool_script`).

What differs where graph-tool is absent: blocks are then the communities of the Leiden algorithm
(Traag et al. 2019, doi:10.1038/s41598-019-41695-z), which maximise modularity. That is another method
and is named so in every result. Modularity finds communities in noise; they are kept only where it is
above that of graphs with the same degrees and shuffled weights, else there is one block. It is blind
to blocks whose members avoid one another.
"""

from __future__ import annotations

import json
import random
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from afterimage.connectivity import graph_tool_script
from afterimage.errors import ConfigError, InputError

if TYPE_CHECKING:
    from scipy.sparse import csr_array

GRAPH_TOOL = "weighted stochastic block model (graph-tool)"
LEIDEN = "fallback: Leiden modularity, not a block model"


@dataclass(frozen=True, eq=False)
class Blocks:
    """Blocks of the nodes of a graph.

    Attributes
    ----------
    labels : array of int, shape (n_nodes,)
        From 1 on, the largest block first.
    method : str
        `GRAPH_TOOL` or `LEIDEN`.
    quality : float
        Description length in nats (smaller is better), or modularity before any null.
    p : float
        Share of null graphs with a modularity as large; NaN for block models, which need none.
    n_refused : int
        Communities that were merged into one because noise has as many; 0 for block models.
    """

    labels: np.ndarray
    method: str
    quality: float
    p: float = float("nan")
    n_refused: int = 0

    @property
    def n_blocks(self) -> int:
        """Number of blocks."""
        return len(np.unique(self.labels))


def find_graph_tool(candidates: tuple[str, ...] = ("python3", "python")) -> str | None:
    """Return the first Python, by name on the path or by its own path, that has graph-tool."""
    for name in candidates:
        program = shutil.which(name)
        if program is None:
            continue
        asked = "import importlib.util as u, sys; sys.exit(u.find_spec('graph_tool') is None)"
        done = subprocess.run([program, "-c", asked], capture_output=True, check=False)
        if done.returncode == 0:
            return program
    return None


def fit_blocks(
    weights: csr_array,
    *,
    graph_tool: str | None = None,
    weighted: bool = True,
    n_starts: int = 3,
    n_nulls: int = 100,
    alpha: float = 0.01,
    random_state: int = 0,
) -> Blocks:
    """Group the nodes of a graph.

    Parameters
    ----------
    weights : csr_array of shape (n_nodes, n_nodes)
        Symmetric, nothing on the diagonal, entries above 0.
    graph_tool : str, optional
        A Python that has graph-tool, from `find_graph_tool`; None for the fallback.
    weighted : bool
        False to use only whether there is an edge.
    n_starts : int
        The best of as many is kept.
    n_nulls : int
        Null graphs of the fallback; at least ``1 / alpha - 1``.
    alpha : float
        Largest share of null graphs with as large a modularity.
    random_state : int

    Returns
    -------
    Blocks

    Raises
    ------
    InputError
        If there are no edges, or weights that are not above 0.
    """
    if not weights.nnz or not np.isfinite(weights.data).all() or weights.data.min() <= 0:
        raise InputError(
            "a graph has no blocks", found=f"{weights.nnz} entries, some not above 0"
            if weights.nnz else "no edges",
            expected="edges with weights above 0", fix="see how the graph was made",
        )  # fmt: skip
    if graph_tool is not None:
        return _block_model(weights, graph_tool, weighted, n_starts, random_state)
    if n_nulls < 1 / alpha - 1:
        raise ValueError(f"{n_nulls} null graphs cannot tell p <= {alpha}")
    return _leiden(weights, weighted, n_starts, n_nulls, alpha, random_state)


def _edges(weights: csr_array) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    from scipy.sparse import triu

    upper = triu(weights, k=1, format="coo")
    return upper.coords[0], upper.coords[1], upper.data.astype(np.float64)


def _ordered(labels: np.ndarray) -> np.ndarray:
    """Return labels from 1 on, the largest block first."""
    found, first, inverse, counts = np.unique(
        labels, return_index=True, return_inverse=True, return_counts=True
    )
    order = np.lexsort((first, -counts))
    rank = np.empty(len(found), dtype=int)
    rank[order] = np.arange(1, len(found) + 1)
    return rank[inverse]


def _block_model(
    weights: csr_array, python: str, weighted: bool, n_starts: int, random_state: int
) -> Blocks:
    rows, columns, values = _edges(weights)
    problem = {
        "n_nodes": weights.shape[0], "rows": rows.tolist(), "columns": columns.tolist(),
        "weights": values.tolist(), "weighted": weighted, "n_starts": n_starts,
        "random_state": random_state,
    }  # fmt: skip
    script = str(Path(graph_tool_script.__file__))
    done = subprocess.run(
        [python, script], input=json.dumps(problem), capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise ConfigError(
            "graph-tool could not fit a block model", where=python,
            found=(done.stderr.strip().splitlines() or ["no message"])[-1][:300],
            expected="graph-tool 2.45 or later",
            fix="see workflows/envs/graph-tool.yaml, or set factor_connectome.graph_tool to false",
        )  # fmt: skip
    found = json.loads(done.stdout)
    return Blocks(_ordered(np.array(found["labels"])), GRAPH_TOOL, found["description_length"])


def _leiden(
    weights: csr_array,
    weighted: bool,
    n_starts: int,
    n_nulls: int,
    alpha: float,
    random_state: int,
) -> Blocks:
    try:
        import igraph
    except ImportError:
        raise ConfigError(
            "neither graph-tool nor igraph is installed", found="no package for blocks",
            expected="one of both", fix="pip install 'afterimage[leiden]'",
        ) from None  # fmt: skip
    rows, columns, values = _edges(weights)
    values = values if weighted else np.ones(len(values))
    graph = igraph.Graph(weights.shape[0], list(zip(rows.tolist(), columns.tolist(), strict=True)))

    def best(chosen: igraph.Graph, given: np.ndarray) -> tuple[float, list[int]]:
        parts = [
            chosen.community_leiden("modularity", weights=given.tolist(), n_iterations=-1)
            for _ in range(n_starts)
        ]
        part = max(parts, key=lambda found: found.modularity)
        return float(part.modularity), part.membership

    # igraph draws from Python's generator of numbers.
    igraph.set_random_number_generator(random.Random(random_state))  # noqa: S311
    observed, labels = best(graph, values)
    rng = np.random.default_rng(random_state)
    n_as_large = 0
    for _ in range(n_nulls):
        other = graph.copy()
        other.rewire(n=10 * len(values))
        # A null gets as many starts, else the best of several looks good by itself.
        n_as_large += best(other, rng.permutation(values))[0] >= observed - 1e-12
    p = (1 + n_as_large) / (1 + n_nulls)
    if p <= alpha:
        return Blocks(_ordered(np.array(labels)), LEIDEN, observed, p)
    return Blocks(np.ones(len(labels), dtype=int), LEIDEN, observed, p, len(set(labels)))
