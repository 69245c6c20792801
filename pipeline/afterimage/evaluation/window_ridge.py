"""Ridge regression with its penalty chosen by grouped folds, all of it from one decomposition.

Fast cross-validation algorithms for least squares support vector machine and kernel ridge regression
(An, Liu and Venkatesh 2007, doi:10.1016/j.patcog.2006.12.015).

What differs: folds are groups of trials of the same stimulus, of the training trials only; one
penalty for all targets, in units of the mean squared norm of a trial; it is the one whose predictions
of left-out folds correlate best with the truth, for retrieval ranks by correlation, and the squared
error of noisy trials is least for predictions near zero, whatever they tell. Errors on left-out folds
are exact, not approximate: with H the hat matrix of the whole fit, intercept included, those of
fold I are (1 - H_II)^-1 (y - H y)_I, so that no fold is ever fitted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from afterimage.errors import InputError
from afterimage.signal.large_matrices import row_products

ALPHAS = (1e-3, 1e-2, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 1000.0)
#: Folds larger than this cost more than they tell: there are more folds instead.
LARGEST_FOLD = 256


@dataclass(frozen=True)
class LinearMap:
    """A fitted linear regression.

    Attributes
    ----------
    mean : ndarray, shape (n_inputs,)
    coefficients : ndarray, shape (n_inputs, n_targets)
    target_mean : ndarray, shape (n_targets,)
    alpha : float
        The penalty chosen, as given; ``penalty`` is the absolute one (sklearn's alpha).
    penalty : float
    """

    mean: NDArray[np.float64]
    coefficients: NDArray[np.float64]
    target_mean: NDArray[np.float64]
    alpha: float
    penalty: float

    def predict(self, inputs: NDArray[np.floating]) -> NDArray[np.float64]:
        """Predicted targets, (n, n_targets)."""
        return np.asarray((inputs - self.mean) @ self.coefficients + self.target_mean)


def folds_by_group(
    groups: NDArray[np.generic], n_folds: int = 5, random_state: int = 0
) -> list[NDArray[np.int64]]:
    """Rows of each fold; trials of one group stay together.

    Parameters
    ----------
    groups : ndarray, shape (n_trials,)
        Stimulus (or concept, or run) of each trial.
    n_folds : int
        At least; more where a fold would hold more than `LARGEST_FOLD` trials, fewer where there
        are fewer groups.
    random_state : int

    Returns
    -------
    list of ndarray of int
    """
    names, group = np.unique(np.asarray(groups), return_inverse=True)
    if len(names) < 2:
        raise InputError(
            "a penalty cannot be chosen", where="grouped folds",
            found=f"{len(names)} stimulus in {len(group)} training trials",
            expected="two or more", fix="give the decoder more than one training stimulus",
        )  # fmt: skip
    wanted = max(n_folds, -(-len(group) // LARGEST_FOLD))
    wanted = min(wanted, len(names))
    fold = np.random.default_rng(random_state).permutation(np.arange(len(names)) % wanted)
    return [np.flatnonzero(fold[group] == number) for number in range(wanted)]


def fit_ridge(
    inputs: NDArray[np.floating],
    targets: NDArray[np.floating],
    folds: Sequence[NDArray[np.int64]],
    alphas: Sequence[float] = ALPHAS,
) -> LinearMap:
    """Fit one ridge regression, its penalty by the agreement of left-out predictions.

    Parameters
    ----------
    inputs : ndarray, shape (n_trials, n_inputs)
    targets : ndarray, shape (n_trials, n_targets)
    folds : sequence of ndarray
        From `folds_by_group`; used only where there are several penalties.
    alphas : sequence of float
        Penalties to choose from, times the mean squared norm of a centred trial.

    Returns
    -------
    LinearMap
    """
    values = np.asarray(inputs, np.float64)
    mean = values.mean(axis=0)
    target_mean = np.asarray(np.mean(targets, axis=0, dtype=np.float64))
    centred = values - mean
    truth = np.asarray(targets, np.float64) - target_mean
    eigenvalues, left = decompose(centred)
    level = float(eigenvalues.sum()) / len(centred) or 1.0
    projected = left.T @ truth
    penalties = np.asarray(alphas, np.float64)
    found = [
        left_out_agreement(left, eigenvalues, projected, truth, alpha * level, folds)
        for alpha in (penalties if len(penalties) > 1 else ())
    ]
    best = int(np.argmax(found)) if found else 0
    shrunk = projected / (eigenvalues + penalties[best] * level)[:, None]
    return LinearMap(
        mean, centred.T @ (left @ shrunk), target_mean, float(penalties[best]),
        float(penalties[best] * level),
    )  # fmt: skip


def decompose(
    centred: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Squared singular values and left vectors: the axes of the trials.

    Whichever Gram matrix is smaller is decomposed, of the trials or of the inputs. Coefficients of
    targets y are ``centred.T @ left @ (left.T @ y / (eigenvalues + penalty))``.

    Parameters
    ----------
    centred : ndarray, shape (n_trials, n_inputs)

    Returns
    -------
    eigenvalues : ndarray, shape (rank,)
    left : ndarray, shape (n_trials, rank)
        Orthonormal.
    """
    from scipy.linalg import eigh

    n_trials, n_inputs = centred.shape
    gram = row_products(centred if n_trials <= n_inputs else centred.T)
    eigenvalues, vectors = eigh(gram, overwrite_a=True, driver="evd")
    kept = eigenvalues > 1e-10 * max(float(eigenvalues[-1]), 1e-300)
    eigenvalues, vectors = eigenvalues[kept], vectors[:, kept]
    if n_trials <= n_inputs:
        return eigenvalues, vectors
    return eigenvalues, centred @ (vectors / np.sqrt(eigenvalues))


def left_out_agreement(
    left: NDArray[np.float64],
    eigenvalues: NDArray[np.float64],
    projected: NDArray[np.float64],
    truth: NDArray[np.float64],
    penalty: float,
    folds: Sequence[NDArray[np.int64]],
) -> float:
    """Cosine of truth and predictions of left-out folds, each as if fitted without its trials.

    Parameters
    ----------
    left, eigenvalues
        From `decompose`.
    projected : ndarray, shape (rank, n_targets)
        ``left.T @ truth``.
    truth : ndarray, shape (n_trials, n_targets)
        Targets less their mean.
    penalty : float
        Absolute.
    folds : sequence of ndarray of int

    Returns
    -------
    float
    """
    shrink = eigenvalues / (eigenvalues + penalty)
    residual = truth - left @ (shrink[:, None] * projected)
    aligned = length = 0.0
    for rows in folds:
        hat = (left[rows] * shrink) @ left[rows].T + 1.0 / len(truth)
        predicted = truth[rows] - np.linalg.solve(np.eye(len(rows)) - hat, residual[rows])
        aligned += float((predicted * truth[rows]).sum())
        length += float((predicted**2).sum())
    return aligned / float(np.sqrt(max(length * (truth**2).sum(), 1e-300)))
