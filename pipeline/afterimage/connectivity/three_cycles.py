"""Maps of 3-cycles in graphs of voxels (Dey, Rao, Shah 2012, doi:10.3389/fnsys.2012.00075).

Voxels are joined where the correlation of their series is above a threshold; a map holds for each
voxel the number of cycles of length 3 that pass through it.

What differs: correlations are computed block by block and only what is above the threshold is kept,
so that memory goes with the edges, not with the square of the voxels. A threshold can also be set by
the share of pairs that is joined: with a fixed one (0.8 in the paper) the number of edges follows
motion, noise and the length of a scan, so the density is always reported. Cycles are counted once
each on the graph directed from nodes of low to nodes of high degree, instead of three times by A^3.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from afterimage.errors import InputError
from afterimage.signal.correlation import unit_columns

if TYPE_CHECKING:
    from scipy.sparse import csr_array

#: Rows of correlations that are in memory at a time.
BLOCK = 512
#: Correlations this close to the threshold are computed again in float64.
MARGIN = 1e-5
#: Bins a unit of correlation, where the threshold is found from a density.
BINS = 10_000
#: Entries of a sparse product that are in memory at a time, at most.
MAX_PRODUCTS = 10_000_000


@dataclass(frozen=True, eq=False)
class VoxelGraph:
    """A graph of voxels, made by `threshold_graph`.

    Attributes
    ----------
    weights : csr_array of shape (n_units, n_units), float32
        Correlations above the threshold; symmetric, nothing on the diagonal.
    threshold : float
        Correlations above it are edges.
    n_constant : int
        Units that do not vary, which have no edges.
    """

    weights: csr_array
    threshold: float
    n_constant: int = 0

    @property
    def density(self) -> float:
        """Share of the pairs of units that is joined."""
        n = self.weights.shape[0]
        return float(self.weights.nnz / max(n * (n - 1), 1))


def threshold_graph(
    series: np.ndarray,
    *,
    threshold: float | None = None,
    density: float | None = None,
    max_edges: int = 50_000_000,
    where: str = "",
) -> VoxelGraph:
    """Join the units whose series correlate above a threshold.

    Parameters
    ----------
    series : array of shape (n_times, n_units)
        Finite numbers.
    threshold : float, optional
        Of the correlation, 0 to 1.
    density : float, optional
        Share of the pairs to join, in place of a threshold: the largest threshold, to 1e-4, is
        used that joins no more; it is never below 0.
    max_edges : int
        More are refused, as they would fill the memory (24 bytes each).
    where : str
        The recording, for error messages.

    Returns
    -------
    VoxelGraph

    Raises
    ------
    InputError
        If values are not finite, fewer than 3 units vary, or no pair or too many are joined.
    """
    from scipy.sparse import coo_array

    if (threshold is None) == (density is None):
        raise ValueError("give a threshold or a density")
    values = np.asarray(series)
    _check(values, where)
    scaled = unit_columns(values)
    n_units = values.shape[1]
    n_constant = int((~scaled.any(axis=0)).sum())
    if n_units - n_constant < 3:
        raise InputError(
            "a graph needs units that vary", where=where,
            found=f"{n_units - n_constant} of {n_units} vary", expected="3 or more",
            fix="see the brain mask and the images of this recording",
        )  # fmt: skip
    limit = _threshold_of(scaled, float(density or 0)) if threshold is None else threshold
    rows, columns, weights = [], [], []
    n_edges = 0
    for start, block in _upper(scaled):
        row, column = np.nonzero(block > limit - MARGIN)
        weight = block[row, column]
        keep = weight > limit
        doubtful = np.flatnonzero(weight < limit + MARGIN)
        for part in np.array_split(doubtful, max(1, len(doubtful) // 10_000)):
            keep[part] = _exact(values, row[part] + start, column[part] + start) > limit
        n_edges += int(keep.sum())
        if n_edges > max_edges:
            raise InputError(
                "a graph has too many edges", where=where,
                found=f"more than {max_edges} pairs of {n_units} units correlate above "
                f"{limit:.3f}", expected="fewer",
                fix="set a density, a higher threshold, or larger voxels",
            )  # fmt: skip
        rows.append((row[keep] + start).astype(np.int32))
        columns.append((column[keep] + start).astype(np.int32))
        weights.append(weight[keep])
    if not n_edges:
        raise InputError(
            "no pair of units correlates above the threshold", where=where,
            found=f"{n_units} units, none above {limit:.3f}", expected="a graph with edges",
            fix="set a lower threshold, or a density",
        )  # fmt: skip
    row, column, weight = (np.concatenate(part) for part in (rows, columns, weights))
    both = np.concatenate([row, column]), np.concatenate([column, row])
    joined = coo_array((np.concatenate([weight, weight]), both), shape=(n_units, n_units))
    return VoxelGraph(joined.tocsr(), float(limit), n_constant)


def _check(values: np.ndarray, where: str) -> None:
    if values.ndim != 2 or len(values) < 3:
        raise InputError(
            "a recording is too short for a graph", where=where,
            found=f"values of shape {values.shape}", expected="3 samples or more",
            fix="leave it out",
        )  # fmt: skip
    bad = ~np.isfinite(values).all(axis=0)
    if bad.any():
        raise InputError(
            "a series holds values that are no finite numbers", where=where,
            found=f"{int(bad.sum())} units, the first is number {int(bad.argmax()) + 1}",
            expected="finite numbers", fix="censor these samples, or take the units out of the mask",
        )  # fmt: skip


def _upper(scaled: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Yield blocks of correlations right of the diagonal; what is not, is -2.

    A block holds rows from ``start`` on, and columns from ``start`` on.
    """
    for start in range(0, scaled.shape[1], BLOCK):
        block = scaled[:, start : start + BLOCK].T @ scaled[:, start:]
        block[np.tril_indices(len(block))] = -2.0
        yield start, block


def _exact(values: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the correlations of pairs of columns in float64."""
    pair = [values[:, part].astype(np.float64) for part in (first, second)]
    a, b = (part - part.mean(axis=0) for part in pair)
    length = np.sqrt(np.einsum("tp,tp->p", a, a) * np.einsum("tp,tp->p", b, b))
    product = np.einsum("tp,tp->p", a, b)
    return np.asarray(np.divide(product, length, out=np.zeros_like(length), where=length > 0))


def _threshold_of(scaled: np.ndarray, density: float) -> float:
    """Return the lowest threshold, on a grid of 1e-4, that joins at most this share of pairs."""
    n_units = scaled.shape[1]
    edges = np.arange(0, BINS + 2) / BINS
    counts = np.zeros(BINS + 1, dtype=np.int64)
    for _, block in _upper(scaled):
        counts += np.histogram(block, bins=BINS + 1, range=(0.0, edges[-1]))[0]
    above = np.cumsum(counts[::-1])[::-1]  # pairs above the lower edge of each bin
    allowed = density * n_units * (n_units - 1) / 2
    fits = np.flatnonzero(above <= allowed)
    return float(edges[fits[0]] if len(fits) else edges[-1])


def three_cycles(adjacency: csr_array) -> np.ndarray:
    """Count the cycles of length 3 through every node.

    Parameters
    ----------
    adjacency : csr_array of shape (n_nodes, n_nodes)
        Symmetric, nothing on the diagonal; every stored entry is an edge.

    Returns
    -------
    array of shape (n_nodes,), int64
        diag(A^3) / 2, with A the binary adjacency.

    Notes
    -----
    With nodes in order of degree and L the edges from earlier to later ones, every cycle i < j < k is
    met once in (L L) * L, which gives i and k, and once in (L' L) * L, which gives j. Hubs have few
    later neighbours, so that both products stay small where degrees vary much.
    """
    from scipy.sparse import csr_array, triu

    n_nodes = adjacency.shape[0]
    order = np.argsort(np.diff(adjacency.indptr), kind="stable")
    ones = np.ones(adjacency.nnz, dtype=np.int32)
    pattern = csr_array((ones, adjacency.indices, adjacency.indptr), shape=adjacency.shape)
    later = csr_array(triu(pattern[order][:, order], k=1, format="csr"))
    earlier = csr_array(later.T)
    n_later = np.diff(later.indptr)
    counts = np.zeros(n_nodes, dtype=np.int64)
    for rows in _row_blocks(later @ n_later):
        chains = (later[rows] @ later).multiply(later[rows])
        counts[rows] += np.asarray(chains.sum(axis=1)).ravel()
        counts += np.asarray(chains.sum(axis=0)).ravel()
    for rows in _row_blocks(earlier @ n_later):
        forks = (earlier[rows] @ later).multiply(later[rows])
        counts[rows] += np.asarray(forks.sum(axis=1)).ravel()
    result = np.empty(n_nodes, dtype=np.int64)
    result[order] = counts
    return result


def _row_blocks(products: np.ndarray) -> Iterator[slice]:
    """Yield runs of rows with at most `MAX_PRODUCTS` products each, or of one row."""
    total = np.cumsum(products, dtype=np.int64)
    start = 0
    while start < len(total):
        before = total[start - 1] if start else 0
        stop = max(int(np.searchsorted(total, before + MAX_PRODUCTS, side="right")), start + 1)
        yield slice(start, stop)
        start = stop
