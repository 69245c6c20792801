"""Ridge regression in the axes of its eigenvectors (Hastie, Tibshirani & Friedman 2009, section 3.4.1).

One decomposition serves all penalties and all targets: of the products of trials with each other
(dual) or of units with each other (primal), whichever are fewer. What differs: trials of one stimulus
share their targets, so that what has to do with targets has a column a stimulus, not a trial.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

#: Rows of responses that are in float64 at once.
N_ROWS_BATCH = 2048
#: Eigenvalues below this share of the largest are rounding errors.
SMALLEST = 1e-9


@dataclass(frozen=True)
class RegressionAxes:
    """Responses of some trials, standardised and weighted, in the axes of their products."""

    mean: np.ndarray  # (n_units,)
    scale: np.ndarray  # (n_units,) standard deviation over weight
    units: np.ndarray  # (n_used,)
    axes: np.ndarray  # float64 (n_used, r): a response times these are its coordinates
    values: np.ndarray  # (r,) eigenvalues
    targets: np.ndarray  # float64 (r, n_stimuli): features times these are their coordinates
    counts: np.ndarray  # (n_stimuli,) trials of each
    level: float  # mean squared norm of a response: the unit of the penalties

    def coordinates(self, responses: np.ndarray) -> np.ndarray:
        """Other trials in the axes: (m, n_units) to float64 (m, r)."""
        asked = (responses[:, self.units] - self.mean[self.units]) / self.scale[self.units]
        return product(asked, self.axes)

    def centre(self, features: np.ndarray) -> np.ndarray:
        """Mean over trials of features (n_stimuli, n_targets): float64 (n_targets,)."""
        mean: np.ndarray = self.counts @ features.astype(np.float64) / self.counts.sum()
        return mean

    def project(self, features: np.ndarray) -> np.ndarray:
        """Centred features in the axes: (n_stimuli, n_targets) to float64 (r, n_targets)."""
        centred: np.ndarray = self.targets @ (features - self.centre(features))
        return centred

    def solve(self, projected: np.ndarray, alphas: np.ndarray | float) -> np.ndarray:
        """Weights of the axes, (r, n_targets), for one penalty or one a target."""
        return projected / (self.values[:, None] + alphas * self.level)


def regression_axes(
    responses: np.ndarray,
    statistics: tuple[np.ndarray, np.ndarray],
    units: np.ndarray,
    stimulus: np.ndarray,
    n_stimuli: int,
) -> RegressionAxes:
    """Decompose the standardised responses of some trials.

    Parameters
    ----------
    responses : float32, (n_trials, n_units)
    statistics : (mean (n_units,), scale (n_units,))
        What they are standardised by.
    units : int, (n_used,)
    stimulus : int, (n_trials,)
    n_stimuli : int
    """
    from scipy.sparse import csr_array

    mean, scale = statistics
    n_trials = len(responses)
    inputs = (responses[:, units] - mean[units]) / scale[units]  # float32
    inputs -= inputs.mean(0, dtype=np.float64).astype(np.float32)
    shown = csr_array(
        (np.ones(n_trials), (stimulus, np.arange(n_trials))), shape=(n_stimuli, n_trials)
    )
    dual = n_trials <= len(units)
    values, vectors = np.linalg.eigh(products(inputs.T if dual else inputs))
    # the mean over trials, also where there are more trials than units
    level = float(values.sum()) / n_trials or 1.0
    kept = values > SMALLEST * values[-1]
    values, vectors = values[kept], vectors[:, kept]
    if dual:
        axes, targets = product(inputs.T, vectors), (shown @ vectors).T
    else:
        axes, targets = vectors, product(vectors.T, shown @ inputs, transposed=True)
    return RegressionAxes(
        mean=mean,
        scale=scale,
        units=units,
        axes=axes,
        values=values,
        targets=targets,
        counts=np.bincount(stimulus, minlength=n_stimuli),
        level=level,
    )


def products(rows: np.ndarray) -> np.ndarray:
    """Product of a matrix with itself, rows' rows, added up in float64: (n, m) to (m, m)."""
    total = np.zeros((rows.shape[1], rows.shape[1]))
    for start in range(0, len(rows), N_ROWS_BATCH):
        part = rows[start : start + N_ROWS_BATCH].astype(np.float64)
        total += part.T @ part
    return total


def product(left: np.ndarray, right: np.ndarray, *, transposed: bool = False) -> np.ndarray:
    """Product in float64 (with ``right`` transposed), without float64 copies of the whole of both."""
    right = right.T if transposed else right
    total = np.zeros((len(left), right.shape[1]))
    for start in range(0, len(right), N_ROWS_BATCH):
        part = slice(start, start + N_ROWS_BATCH)
        total += left[:, part].astype(np.float64) @ right[part].astype(np.float64)
    return total
