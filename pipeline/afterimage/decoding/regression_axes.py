"""Ridge regression in the axes of its eigenvectors (Hastie, Tibshirani & Friedman 2009, section 3.4.1).

One decomposition serves all penalties and all targets: of the products of trials with each other
(dual) or of units with each other (primal), whichever are fewer. What differs: trials of one stimulus
share their targets, so that what has to do with targets has a column a stimulus, not a trial; and
predictions of left-out trials are kept as weights of the features of training stimuli, so that what a
target costs does not depend on the number of units. Decompositions are in double precision; what is
multiplied with targets is in single precision, which is twice as fast and half as large.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from afterimage.signal.large_matrices import add_row_products

#: Rows that are in float64 at once.
N_ROWS_BATCH = 2048
#: Eigenvalues below this share of the largest are rounding errors.
SMALLEST = 1e-9
#: Matrices larger than this have too much work space for the 32-bit numbers of SciPy's LAPACK.
LARGEST_EIGH = 32_000
NOTHING = np.empty((0, 0), np.float32)


@dataclass(frozen=True)
class RegressionAxes:
    """Responses of some trials, standardised and weighted, in the axes of their products."""

    axes: np.ndarray  # float32 (n_used, r): a response times these are its coordinates; or
    # (m, r), the coordinates themselves of the responses that were asked for
    values: np.ndarray  # float64 (r,) eigenvalues
    targets: np.ndarray  # float32 (r, n_seen): features times these are their coordinates
    seen: np.ndarray  # (n_seen,) stimuli that the trials show
    counts: np.ndarray  # (n_seen,) trials of each
    level: float  # mean squared norm of a response: the unit of the penalties

    def centred(self, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Features (n_stimuli, n_targets) of the stimuli seen less their mean over trials; the mean.

        Returns
        -------
        float32, (n_seen, n_targets)
        float64, (n_targets,)
        """
        known = features[self.seen]
        mean: np.ndarray = self.counts @ known.astype(np.float64) / self.counts.sum()
        return (known - mean).astype(np.float32), mean

    def shrinkage(self, alphas: np.ndarray | float) -> np.ndarray:
        """Return what each axis is multiplied by, (r, 1), or (r, n_targets) for one penalty a target."""
        weights: np.ndarray = 1 / (self.values[:, None] + np.atleast_1d(alphas) * self.level)
        return weights.astype(np.float32)

    def solve(self, centred: np.ndarray, alphas: np.ndarray | float) -> np.ndarray:
        """Weights of the units for centred features, float32 (n_used, n_targets)."""
        solved: np.ndarray = self.axes @ ((self.targets @ centred) * self.shrinkage(alphas))
        return solved


@dataclass(frozen=True)
class LeftOut:
    """What the other trials say of the left-out trials of a fold, for every penalty."""

    test: np.ndarray  # (n_test,) numbers of the trials
    axes: RegressionAxes  # with the coordinates of these trials
    alphas: tuple[float, ...]
    #: float32 (n_penalties, n_test, n_seen): predictions as weights of centred features; None where
    #: going through the axes is the shorter way.
    weights: np.ndarray | None = None

    def known(self, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return what predictions are made of, (r or n_seen, n_targets), and the mean they lack."""
        centred, mean = self.axes.centred(features)
        return (self.axes.targets @ centred if self.weights is None else centred), mean

    def each(self, known: np.ndarray) -> Iterator[np.ndarray]:
        """Predictions without the mean, float32 (n_test, n_targets), one penalty after the other."""
        for number, alpha in enumerate(self.alphas):
            if self.weights is None:
                yield self.axes.axes @ (known * self.axes.shrinkage(alpha))
            else:
                yield self.weights[number] @ known

    def chosen(self, known: np.ndarray, choice: np.ndarray) -> np.ndarray:
        """Predictions (n_test, n_targets) with the penalty that is chosen, by number, for each target."""
        if self.weights is None:
            shrinkage = self.axes.shrinkage(np.asarray(self.alphas)[choice])
            return np.asarray(self.axes.axes @ (known * shrinkage))
        found = np.empty((len(self.test), known.shape[1]), np.float32)
        for number in np.unique(choice):
            columns = np.flatnonzero(choice == number)
            found[:, columns] = self.weights[number] @ known[:, columns]
        return found

    def weighed(
        self, n_targets: int, allocate: Callable[[tuple[int, ...]], np.ndarray]
    ) -> LeftOut:
        """Weigh stimuli instead of going through the axes, where that is less work for all targets.

        ``allocate`` makes the array of the weights, which may be larger than memory.
        """
        n_axes, n_seen = self.axes.targets.shape
        n_asked = len(self.alphas) * len(self.test)
        # multiplications of one target, and those that make the weights
        through = n_axes * (n_seen + n_asked)
        if n_asked * n_seen * (n_targets + n_axes) >= n_targets * through:
            return self
        weights = allocate((len(self.alphas), len(self.test), n_seen))
        for number, alpha in enumerate(self.alphas):
            scaled = self.axes.axes * self.axes.shrinkage(alpha).T
            np.matmul(scaled, self.axes.targets, out=weights[number])
        return replace(
            self, axes=replace(self.axes, axes=NOTHING, targets=NOTHING), weights=weights
        )


def regression_axes(
    responses: np.ndarray,
    statistics: tuple[np.ndarray, np.ndarray],
    units: np.ndarray,
    stimulus: np.ndarray,
    rows: np.ndarray,
    asked: np.ndarray | None = None,
) -> RegressionAxes:
    """Decompose the standardised responses of some trials.

    Parameters
    ----------
    responses : float32, (n_trials, n_units)
    statistics : (mean (n_units,), scale (n_units,))
        What they are standardised by: standard deviation over weight.
    units : int, (n_used,)
    stimulus : int, (n_trials,)
    rows : int, (n,)
        The trials that are decomposed.
    asked : int, (m,), optional
        Trials whose coordinates are wanted, instead of the axes themselves.
    """
    from scipy.sparse import csr_array

    inputs = standardised(responses, rows, statistics, units)
    centre = inputs.mean(0, dtype=np.float64).astype(np.float32)
    inputs -= centre
    others = None if asked is None else standardised(responses, asked, statistics, units)
    seen, place, counts = np.unique(stimulus[rows], return_inverse=True, return_counts=True)
    ones = (np.ones(len(rows), np.float32), (place, np.arange(len(rows))))
    shown = csr_array(ones, shape=(len(seen), len(rows)))
    if len(rows) <= len(units):
        left = inputs.T if others is None else product(others, inputs.T)
        values, vectors, level = _decomposed(products(inputs.T), len(rows))
        axes, targets = rows_product(left, vectors), (shown @ vectors).T
    else:
        moments = shown @ inputs
        gram = products(inputs)
        del inputs  # as large as the decomposition's work space, and done with
        values, vectors, level = _decomposed(gram, len(rows))
        axes = vectors if others is None else rows_product(others, vectors)
        targets = rows_product(moments, vectors).T
    return RegressionAxes(
        axes=np.ascontiguousarray(axes, np.float32),
        values=values,
        targets=np.ascontiguousarray(targets, np.float32),
        seen=seen,
        counts=counts,
        level=level,
    )


def standardised(
    responses: np.ndarray,
    rows: np.ndarray,
    statistics: tuple[np.ndarray, np.ndarray],
    units: np.ndarray | slice,
) -> np.ndarray:
    """Responses of some trials and units, standardised: float32 (n_rows, n_units), in one copy."""
    mean, scale = statistics
    if isinstance(units, slice) or len(units) == responses.shape[1]:
        values = responses[rows, units] if isinstance(units, slice) else responses[rows]
    else:
        values = responses[np.ix_(rows, units)]
    values -= mean[units]
    values /= scale[units]
    return values


def _decomposed(gram: np.ndarray, n_trials: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Eigenvalues, eigenvectors and mean squared norm of a response; ``gram`` is used up."""
    from scipy.linalg import eigh

    if len(gram) > LARGEST_EIGH:
        values, vectors = np.linalg.eigh(gram)
    else:
        values, vectors = eigh(gram.T, overwrite_a=True, check_finite=False, driver="evd")
    # the mean over trials, also where there are more trials than units
    level = float(values.sum()) / n_trials or 1.0
    first = int(np.searchsorted(values, SMALLEST * max(values[-1], 0), side="right"))
    return values[first:], vectors[:, first:], level


def products(rows: np.ndarray) -> np.ndarray:
    """Product of a matrix with itself, rows' rows, added up in float64: (n, m) to (m, m)."""
    total = np.zeros((rows.shape[1], rows.shape[1]))
    for start in range(0, len(rows), N_ROWS_BATCH):
        part = rows[start : start + N_ROWS_BATCH].astype(np.float64)
        add_row_products(total, part.T)
    return total


def product(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Product in float64, without float64 copies of the whole of both."""
    total = np.zeros((len(left), right.shape[1]))
    for start in range(0, len(right), N_ROWS_BATCH):
        part = slice(start, start + N_ROWS_BATCH)
        total += left[:, part].astype(np.float64) @ right[part].astype(np.float64)
    return total


def rows_product(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Product with a float64 matrix, some rows at a time: float32 (n, m)."""
    found = np.empty((len(left), right.shape[1]), np.float32)
    for start in range(0, len(left), N_ROWS_BATCH):
        part = slice(start, start + N_ROWS_BATCH)
        found[part] = left[part].astype(np.float64) @ right
    return found
