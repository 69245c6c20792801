"""Models of single units: ridge regression from stimulus to response, and what they leave over."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from afterimage.signal.large_matrices import cholesky_in_place, row_products

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

UNIT_BATCH = 4096  # units handled together: bounds the memory, does not change the result


def average_repeats(values: np.ndarray, stimulus_of_trial: np.ndarray) -> np.ndarray:
    """Mean over the trials of each stimulus: (n_trials, n) to float64 (n_stimuli, n)."""
    order = np.argsort(stimulus_of_trial, kind="stable")
    starts = np.flatnonzero(np.diff(stimulus_of_trial[order], prepend=-1))
    counts = np.diff(np.append(starts, len(order)))
    means = np.empty((len(starts), values.shape[1]))
    for start in range(0, values.shape[1], UNIT_BATCH):
        part = slice(start, start + UNIT_BATCH)
        means[:, part] = np.add.reduceat(values[order, part].astype(np.float64), starts, axis=0)
    return means / counts[:, None]


def centred_gram(features: np.ndarray) -> tuple[np.ndarray, float]:
    """Inner products of the centred rows, divided by their mean diagonal.

    Returns
    -------
    gram : float64, (n, n)
        Of mean diagonal one, so that one penalty means the same for every block.
    power : float
        The mean diagonal before the division; 0 for constant features.
    """
    centred = (features - features.mean(0, dtype=np.float64)).astype(np.float64)
    gram = row_products(centred)
    power = float(np.trace(gram)) / len(gram)
    return (gram / power if power > 0 else gram), power


def leave_one_out_residuals(
    eigen: tuple[np.ndarray, np.ndarray], penalty: float, responses: np.ndarray
) -> np.ndarray:
    """Errors of kernel ridge regression on each stimulus when it is left out, in closed form.

    With hat matrix H = 11'/n + K (K + penalty I)^-1 of a centred kernel K, the left-out error is
    (y - Hy)_i / (1 - H_ii) (Hastie, Tibshirani & Friedman 2009, eq. 7.64).

    Parameters
    ----------
    eigen : (values (n,), vectors (n, n))
        Eigendecomposition of the centred kernel of the stimuli.
    penalty : float
    responses : (n, n_units)

    Returns
    -------
    float64, (n, n_units)
    """
    values, vectors = eigen
    kept = np.clip(values, 0, None)
    hat = (vectors * (kept / (kept + penalty))) @ vectors.T + 1 / len(values)
    leverage = np.minimum(np.diag(hat), 1 - 1e-9)
    return (responses - hat @ responses) / (1 - leverage)[:, None]


def explained_variance(
    eigen: tuple[np.ndarray, np.ndarray], penalties: Sequence[float], responses: np.ndarray
) -> np.ndarray:
    """Share of each unit's variance explained on new stimuli, by generalised cross-validation.

    Golub, Heath & Wahba 1979, doi:10.1080/00401706.1979.10489751: the left-out errors with every
    leverage replaced by the mean leverage, which costs one projection for all penalties.

    Parameters
    ----------
    eigen : (values (n,), vectors (n, n))
    penalties : sequence of float
    responses : (n, n_units)

    Returns
    -------
    float64, (n_penalties, n_units)
        0 for units that never change.
    """
    values, vectors = eigen
    n = len(values)
    kept = np.clip(values, 0, None)
    shrunk = np.array([penalty / (kept + penalty) for penalty in penalties])
    freedom = 1 + (1 - shrunk).sum(1)
    explained = np.zeros((len(penalties), responses.shape[1]))
    for start in range(0, responses.shape[1], UNIT_BATCH):
        batch = responses[:, start : start + UNIT_BATCH]
        power = (vectors.T @ (batch - batch.mean(0))) ** 2
        total = power.sum(0) * (n / (n - 1)) ** 2
        error = (shrunk**2) @ power / np.maximum(1 - freedom / n, 1e-6)[:, None] ** 2
        ratio = error / np.where(total > 0, total, 1)
        explained[:, start : start + UNIT_BATCH] = np.where(total > 0, 1 - ratio, 0)
    return explained


def explained_variance_of(
    kernel: np.ndarray,
    penalty: float,
    responses: Callable[[slice], np.ndarray],
    n_units: int,
) -> np.ndarray:
    """As `explained_variance` for one penalty, from a Cholesky factor, which is several times quicker.

    Parameters
    ----------
    kernel : (n, n)
        The centred kernel of the stimuli; used up.
    penalty : float
    responses : callable
        Gives the responses (n, n_batch) of a slice of the units.
    n_units : int

    Returns
    -------
    float64, (n_units,)
        0 for units that never change.
    """
    from scipy.linalg import cho_solve
    from scipy.linalg.lapack import dtrtri

    n = len(kernel)
    kernel[np.diag_indices(n)] += penalty
    factor = cholesky_in_place(kernel)
    # tr H = 1 + tr K (K + p)^-1 = 1 + n - p |L^-1|^2
    inverse = dtrtri(factor, lower=1)[0]
    left = 1 - (1 + n - penalty * float(np.einsum("ij,ij->", inverse, inverse))) / n
    del inverse
    explained = np.zeros(n_units)
    for start in range(0, n_units, UNIT_BATCH):
        part = slice(start, start + UNIT_BATCH)
        batch = responses(part)
        batch = batch - batch.mean(0)
        total = (batch**2).sum(0) * (n / (n - 1)) ** 2
        missed = penalty * cho_solve((factor, True), batch, overwrite_b=True, check_finite=False)
        error = (missed**2).sum(0) / max(left, 1e-6) ** 2
        explained[part] = np.where(total > 0, 1 - error / np.where(total > 0, total, 1), 0)
    return explained


def shrunk_covariance(residuals: np.ndarray) -> np.ndarray:
    """Covariance of residuals, its correlations shrunk towards zero by Ledoit & Wolf's weight.

    Ledoit & Wolf 2004, doi:10.1016/S0047-259X(03)00096-4, applied to residuals divided by their
    standard deviations, so that the target is the diagonal of variances.

    Parameters
    ----------
    residuals : (n_trials, n)

    Returns
    -------
    float64, (n, n), positive definite
    """
    from sklearn.covariance import ledoit_wolf_shrinkage

    deviations = np.sqrt((residuals**2).mean(0))
    deviations = np.maximum(deviations, 1e-3 * max(deviations.max(), 1e-12))
    scaled = residuals / deviations
    weight = ledoit_wolf_shrinkage(scaled, assume_centered=True)
    correlations = (1 - weight) * row_products(scaled.T) / len(scaled)
    # a singular sample covariance with weight 0 would not invert
    correlations[np.diag_indices_from(correlations)] += max(weight, 1e-3)
    return correlations * np.outer(deviations, deviations)


def whitening(covariance: np.ndarray) -> np.ndarray:
    """Matrix M with M M' the inverse of a covariance: rows x M have covariance I, (n, n)."""
    return np.linalg.inv(np.linalg.cholesky(covariance)).T
