"""Multivariate noise normalisation (Guggenmos et al. 2018, doi:10.1016/j.neuroimage.2018.02.044).

The covariance of the noise is estimated in every epoch, from what is left after the mean of its
condition, and shrunk as by Ledoit and Wolf (2004, doi:10.1016/S0047-259X(03)00096-4); its mean over
epochs, inverted and rooted, whitens the data. What differs:

* Only training trials enter; the caller passes no others.
* A condition shown once has no mean to subtract: its epochs lose their mean over time only. Taking
  such an epoch from itself leaves zeros, which would shrink the estimate of the noise.
* What is left around the mean of n epochs has (n - 1)/n of the variance of the noise, and is scaled
  by the inverse. The signal of a condition shown once stays in, as it does in the field.
* Units of different kinds (EEG, magnetometers, gradiometers) are put on one scale first: shrinking
  towards a sphere makes no sense between V and T.
* Data of lower rank than channels (average reference, interpolation, Maxwell filter) are whitened
  in the space they span, and stay zero outside of it.
* ``shrinkage="pooled"`` shrinks the mean of the covariances, once, by what the number of all its
  samples asks for. An epoch has few and correlated samples, so that its own shrinkage is strong,
  does not vanish in the mean, and leaves whitened noise correlated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np

#: Directions with less than this share of the largest variance are outside the data.
RANK_TOLERANCE = 1e-7

#: Epochs are worked on in parts of this size, which stay in the cache of a core.
CACHE_BYTES = 2**20

#: What `fit_whitening` is given: pairs of epochs (n, n_units, n_times) and their conditions, and
#: called again for each pass over the data.
Batches = Callable[[], Iterable[tuple[np.ndarray, np.ndarray]]]

Shrinkage = Literal["epoch", "pooled"] | float


@dataclass(frozen=True)
class Whitening:
    """A fitted whitening.

    Attributes
    ----------
    matrix : array of shape (n_units, n_units), float64
        Whitened data are ``matrix @ epoch``; symmetric in the scale of each kind.
    covariance : array of shape (n_units, n_units), float64
        The shrunk covariance of the noise, in the units of the data.
    eigenvalues, eigenvalues_after : array of shape (n_units,), float64
        Of the covariance of the fitted epochs before and after, in the scale of each kind, largest
        first; those after differ from 1 by shrinkage, and are 0 outside of the data.
    shrinkage : float
        Mean over what was shrunk.
    rank, n_epochs : int
    """

    matrix: np.ndarray
    covariance: np.ndarray
    eigenvalues: np.ndarray
    eigenvalues_after: np.ndarray
    shrinkage: float
    rank: int
    n_epochs: int


def shrunk_covariances(
    epochs: np.ndarray,
    shrinkage: float | None = None,
    *,
    standardise: bool = False,
    dtype: type = np.float64,
) -> tuple[np.ndarray, np.ndarray]:
    """Estimate the covariance of each epoch over its time points, shrunk by Ledoit and Wolf.

    Parameters
    ----------
    epochs : array of shape (n_epochs, n_units, n_times)
        The mean over time of every epoch and unit is subtracted.
    shrinkage : float, optional
        The same for all, in place of the estimate.
    standardise : bool
        Divide each unit by its standard deviation in the epoch, and undo it in the covariance: what
        is shrunk are correlations, towards none.
    dtype : type
        Of the products. ``float32`` takes half the time; covariances then agree within 1e-6 of the
        largest.

    Returns
    -------
    covariances : array of shape (n_epochs, n_units, n_units), float64
        Equal to ``sklearn.covariance.ledoit_wolf(epoch.T)`` one by one; where standardised, to
        what scikit-learn's discriminant analysis makes of ``epoch.T``.
    intensities : array of shape (n_epochs,), float64
    """
    n_epochs, n_units, n_times = epochs.shape
    covariances = np.empty((n_epochs, n_units, n_units))
    intensities = np.empty(n_epochs)
    step = max(1, CACHE_BYTES // (8 * n_units * (n_times + n_units)))
    for start in range(0, n_epochs, step):
        part = slice(start, start + step)
        intensities[part] = _shrink(epochs[part], covariances[part], shrinkage, standardise, dtype)
    return covariances, intensities


def _shrink(
    epochs: np.ndarray,
    covariances: np.ndarray,
    shrinkage: float | None,
    standardise: bool,
    dtype: type,
) -> np.ndarray:
    """Fill ``covariances``, (n_epochs, n_units, n_units); return the intensities, (n_epochs,).

    Correlations are never formed: what is asked of them are sums of their squares, and with D the
    variances, D^1/2 ((1 - s) R + s c I) D^1/2 is (1 - s) C + s c D.
    """
    n_times = epochs.shape[2]
    mean = np.matmul(epochs, np.full((n_times, 1), 1 / n_times))  # in float64: faster than mean
    x: np.ndarray = np.empty(epochs.shape, dtype=dtype)
    np.subtract(epochs, mean, out=x, casting="same_kind")
    np.multiply(np.matmul(x, x.transpose(0, 2, 1)), 1 / n_times, out=covariances)
    variance = np.diagonal(covariances, axis1=1, axis2=2).copy()
    weights = np.ones_like(variance)  # of squares, so that they are those of standardised units
    if standardise:
        np.divide(1, variance, out=weights, where=variance > 0)
    centre = (weights * variance).mean(axis=1)
    if shrinkage is None:
        np.square(x, out=x)
        norms = np.matmul(weights[:, None, :].astype(dtype), x)  # (n_epochs, 1, n_times)
        fourth = np.square(norms, dtype=np.float64).sum(axis=(1, 2))
        rows = np.matmul(np.square(covariances), weights[:, :, None])  # (n_epochs, n_units, 1)
        power = np.matmul(weights[:, None, :], rows)[:, 0, 0]
        intensities = _ledoit_wolf(power, centre, fourth, epochs.shape[1], n_times)
    else:
        intensities = np.full(len(epochs), float(shrinkage))
    covariances *= (1 - intensities)[:, None, None]
    diagonal = np.arange(epochs.shape[1])
    covariances[:, diagonal, diagonal] += (intensities * centre)[:, None] / weights
    return intensities


def _ledoit_wolf(
    power: np.ndarray, centre: np.ndarray, fourth: np.ndarray, n_units: int, n_samples: int
) -> np.ndarray:
    """Return shrinkage intensities, (n,).

    Parameters
    ----------
    power, centre : array of shape (n,)
        Sum of the squares of a covariance, and the mean of its diagonal.
    fourth : array of shape (n,)
        Sum over samples of their squared norms squared.
    n_units, n_samples : int
    """
    if n_units == 1:
        return np.zeros(len(power))
    beta = (fourth / n_samples - power) / (n_units * n_samples)
    delta = power / n_units - centre**2
    beta = np.minimum(beta, delta)
    return np.where(beta <= 0, 0.0, beta / np.where(delta > 0, delta, 1.0))


def residuals(epochs: np.ndarray, conditions: np.ndarray) -> np.ndarray:
    """Subtract from every epoch the mean of its condition; keep those shown once as they are.

    Parameters
    ----------
    epochs : array of shape (n_epochs, n_units, n_times)
    conditions : array of shape (n_epochs,)

    Returns
    -------
    array of shape (n_epochs, n_units, n_times), float64
        Scaled to the variance of the noise: by ``sqrt(n / (n - 1))`` of a condition's epochs.
    """
    values = np.array(epochs, dtype=np.float64)
    _, inverse, counts = np.unique(conditions, return_inverse=True, return_counts=True)
    order = np.argsort(inverse, kind="stable")
    starts = np.concatenate([[0], np.cumsum(counts)])
    for condition in np.flatnonzero(counts > 1):
        rows = order[starts[condition] : starts[condition + 1]]
        n = counts[condition]
        values[rows] = (values[rows] - values[rows].mean(axis=0)) * np.sqrt(n / (n - 1))
    return values


def fit_whitening(
    batches: Batches, kinds: np.ndarray, shrinkage: Shrinkage = "pooled"
) -> Whitening:
    """Estimate the noise from training epochs and return what makes it white.

    Parameters
    ----------
    batches : callable
        Returns an iterable of (epochs, conditions); the epochs of a condition in one batch share
        its mean. It is called twice, or three times where the data are not of full rank.
    kinds : array of str, shape (n_units,)
        Units of one kind share a scale.
    shrinkage : {"epoch", "pooled"} or float
        Ledoit-Wolf for each epoch, as in the paper; once for their mean; or a fixed share.

    Returns
    -------
    Whitening
    """
    scale = _scales(batches, kinds)
    n_units = len(kinds)
    empirical, _, _, n_epochs = _mean_covariance(batches, scale, np.eye(n_units), 0.0)
    values, vectors = np.linalg.eigh(empirical)
    basis = vectors[:, values > RANK_TOLERANCE * values[-1]]
    full = basis.shape[1] == n_units
    basis = np.eye(n_units) if full else basis
    fixed = None if isinstance(shrinkage, str) else float(shrinkage)
    covariance, intensity, pooled, _ = _mean_covariance(batches, scale, basis, fixed)
    if shrinkage == "pooled":
        covariance, intensity = _shrink_pooled(basis.T @ empirical @ basis, *pooled)
    values_in, vectors_in = np.linalg.eigh(covariance)
    root = (vectors_in / np.sqrt(values_in)) @ vectors_in.T
    whitener = basis @ root @ basis.T
    after = np.linalg.eigvalsh(whitener @ empirical @ whitener)
    return Whitening(
        matrix=whitener / scale[None, :],
        covariance=basis @ covariance @ basis.T * np.outer(scale, scale),
        eigenvalues=np.maximum(values[::-1], 0),
        eigenvalues_after=np.maximum(after[::-1], 0),
        shrinkage=float(intensity),
        rank=basis.shape[1],
        n_epochs=n_epochs,
    )


def _scales(batches: Batches, kinds: np.ndarray) -> np.ndarray:
    """Return the root mean square of what is left of each kind of unit, (n_units,)."""
    power, count = np.zeros(len(kinds)), 0
    for epochs, conditions in batches():
        left = residuals(epochs, conditions)
        left -= left.mean(axis=2, keepdims=True)
        power += np.einsum("eut,eut->u", left, left)
        count += left.shape[0] * left.shape[2]
    if not count or not power.any():
        raise ValueError("no epochs that vary to estimate the noise from")
    scale = np.ones(len(kinds))
    for kind in np.unique(kinds):
        own = power[kinds == kind]
        if own.any():
            scale[kinds == kind] = np.sqrt(own[own > 0].mean() / count)
    return scale


def _mean_covariance(
    batches: Batches, scale: np.ndarray, basis: np.ndarray, shrinkage: float | None
) -> tuple[np.ndarray, float, tuple[float, int], int]:
    """Average shrunk covariances over epochs, in the space of a basis.

    Returns
    -------
    covariance : array of shape (rank, rank)
    intensity : float
        Mean shrinkage.
    pooled : tuple
        Sum over all samples of their squared norms squared, and the number of samples.
    n_epochs : int
    """
    total = np.zeros((basis.shape[1],) * 2)
    intensity, fourth, n_samples, n_epochs = 0.0, 0.0, 0, 0
    for epochs, conditions in batches():
        left = residuals(epochs, conditions) / scale[:, None]
        left = np.matmul(basis.T, left)
        left -= left.mean(axis=2, keepdims=True)
        single = np.float64 if shrinkage is not None else np.float32
        covariances, intensities = shrunk_covariances(left, shrinkage, dtype=single)
        total += covariances.sum(axis=0)
        intensity += float(intensities.sum())
        fourth += float(np.square(np.einsum("eut,eut->et", left, left)).sum())
        n_samples += left.shape[0] * left.shape[2]
        n_epochs += len(left)
    return total / n_epochs, intensity / n_epochs, (fourth, n_samples), n_epochs


def _shrink_pooled(
    empirical: np.ndarray, fourth: float, n_samples: int
) -> tuple[np.ndarray, float]:
    """Shrink one covariance of many samples by Ledoit and Wolf."""
    n_units = len(empirical)
    centre = np.trace(empirical) / n_units
    power, sums = np.square(empirical).sum(), np.array([fourth])
    intensity = _ledoit_wolf(power[None], np.array([centre]), sums, n_units, n_samples)[0]
    shrunk = (1 - intensity) * empirical + intensity * centre * np.eye(n_units)
    return shrunk, float(intensity)
