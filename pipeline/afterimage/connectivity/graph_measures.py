"""Measures of brain graphs (Rubinov and Sporns 2010, doi:10.1016/j.neuroimage.2009.10.003).

Degree, strength, degree by distance, clustering and 3-cycles of every node, and modules: groups of
nodes that maximise modularity (Louvain; Blondel et al. 2008,
doi:10.1088/1742-5468/2008/10/P10008).

What differs: the graph holds the strongest positive connections only, a given share of all pairs, so
that measures do not follow the density. Modules are the best of several starts.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from afterimage.connectivity.three_cycles import three_cycles
from afterimage.errors import InputError

if TYPE_CHECKING:
    from scipy.sparse import csr_array


def strongest(matrix: np.ndarray, density: float, *, where: str = "") -> csr_array:
    """Keep the strongest positive connections of a matrix.

    Parameters
    ----------
    matrix : array of shape (n_units, n_units)
        Symmetric.
    density : float
        Share of the pairs that is kept, 0 to 1; fewer where not as many are positive. Of ties at
        the end, none is kept.
    where : str
        The unit, for error messages.

    Returns
    -------
    csr_array of shape (n_units, n_units)
        Symmetric, nothing on the diagonal.

    Raises
    ------
    InputError
        If a value is not finite or nothing is positive.
    """
    from scipy.sparse import csr_array

    n_units = len(matrix)
    upper = np.triu_indices(n_units, 1)
    values = np.asarray(matrix, dtype=np.float64)[upper]
    if not np.isfinite(values).all():
        raise InputError(
            "a connectivity matrix holds values that are no finite numbers", where=where,
            found=f"{int((~np.isfinite(values)).sum())} pairs", expected="finite numbers",
            fix="drop the units they belong to",
        )  # fmt: skip
    n_kept = max(1, round(density * len(values)))
    least = np.sort(values)[-n_kept - 1] if n_kept < len(values) else 0.0
    kept = values > max(least, 0.0)
    if not kept.any():
        raise InputError(
            "a graph has no edges", where=where, found="no pair that is related positively",
            expected="positive connections", fix="use another measure of connectivity",
        )  # fmt: skip
    row, column = upper[0][kept], upper[1][kept]
    both = np.concatenate([row, column]), np.concatenate([column, row])
    weight = np.concatenate([values[kept], values[kept]])
    return csr_array((weight, both), shape=(n_units, n_units))


def node_measures(
    weights: csr_array, centres: np.ndarray | None = None, bands_mm: Sequence[float] = ()
) -> dict[str, np.ndarray]:
    """Compute the measures of every node.

    Parameters
    ----------
    weights : csr_array of shape (n_nodes, n_nodes)
        Symmetric, nothing on the diagonal; every stored entry is an edge.
    centres : array of shape (n_nodes, 3), optional
        Where the nodes are, in mm.
    bands_mm : sequence of float
        Edges of bands of distance, increasing; a band holds its lower edge.

    Returns
    -------
    dict of str to array of shape (n_nodes,)
        ``degree``; ``strength``, the sum of weights; ``cycles``; ``clustering``, the share of the
        pairs of neighbours that are joined, 0 for fewer than two; ``degree20to40`` for edges of
        20 to 40 mm.
    """
    degree = np.diff(weights.indptr).astype(np.int64)
    cycles = three_cycles(weights)
    pairs = degree * (degree - 1) / 2
    found = {
        "degree": degree,
        "strength": np.asarray(weights.sum(axis=1), dtype=np.float64).ravel(),
        "cycles": cycles,
        "clustering": np.divide(cycles, pairs, out=np.zeros(len(degree)), where=pairs > 0),
    }
    if centres is None or not len(bands_mm) or not np.isfinite(centres).all():
        return found
    row = np.repeat(np.arange(len(degree)), degree)
    distance_mm = np.empty(weights.nnz)
    for start in range(0, weights.nnz, 1_000_000):  # coordinates of all edges would fill memory
        part = slice(start, start + 1_000_000)
        step = centres[row[part]] - centres[weights.indices[part]]
        distance_mm[part] = np.sqrt(np.square(step).sum(axis=1))
    for low, high in pairwise(bands_mm):
        inside = (distance_mm >= low) & (distance_mm < high)
        found[f"degree{low:g}to{high:g}"] = np.bincount(row[inside], minlength=len(degree))
    return found


def modules(
    weights: csr_array,
    *,
    resolution: float = 1.0,
    n_starts: int = 10,
    random_state: int = 0,
) -> tuple[np.ndarray, float]:
    """Group the nodes so that modularity is large.

    Parameters
    ----------
    weights : csr_array of shape (n_nodes, n_nodes)
        Symmetric and not negative.
    resolution : float
        Larger values give smaller modules.
    n_starts : int
        The best of as many is returned.
    random_state : int

    Returns
    -------
    labels : array of int, shape (n_nodes,)
        From 1 on, the largest module first.
    modularity : float
        Q = sum_c [w_c / w - resolution (s_c / 2w)^2], w_c the weight inside module c, s_c the
        strength of its nodes.
    """
    import networkx

    graph = networkx.from_scipy_sparse_array(weights)
    best: tuple[float, list[set[int]]] = (-np.inf, [])
    for start in range(n_starts):
        parts = networkx.community.louvain_communities(
            graph, resolution=resolution, seed=random_state + start
        )
        value = networkx.community.modularity(graph, parts, resolution=resolution)
        best = max(best, (float(value), parts), key=lambda found: found[0])
    labels = np.zeros(weights.shape[0], dtype=int)
    for number, part in enumerate(sorted(best[1], key=lambda p: (-len(p), min(p))), 1):
        labels[list(part)] = number
    return labels, best[0]
