"""Low-rank encoding of signals by image features (Carroll & Chang 1970, doi:10.1007/BF02310791).

The cross-covariance of signals and features, (n_features, n_units, n_times), is a sum of few
products tuning x topography x time course: PARAFAC by alternating least squares. It is what network
decoders start from, since thousands of trials cannot tell a full matrix of weights from noise.
What differs: tuning and time courses are shared by subjects, topographies are not; it starts from
the singular vectors of short windows; topographies are shrunk as noise of known size demands.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

PENALTY = 0.05  # keeps products apart that are nearly the same
WINDOW_S, STEP_S = 0.03, 0.05  # standard deviation of the first time courses, and their distance


@dataclass(frozen=True)
class Factors:
    """Products that sum to the cross-covariance of each subject."""

    space: np.ndarray  # (n_subjects, n_units, rank)
    tuning: np.ndarray  # (n_features, rank), columns of length 1
    time: np.ndarray  # (n_times, rank), columns of length 1


def first_windows(times_s: np.ndarray) -> np.ndarray:
    """Return Gaussian windows over the times, (n_windows, n_times), each of length 1."""
    times = np.asarray(times_s, float)
    centres = np.arange(times[0], times[-1] + STEP_S / 2, STEP_S)
    step = (times[-1] - times[0]) / max(1, len(times) - 1)
    windows = np.exp(-0.5 * ((times - centres[:, None]) / max(WINDOW_S, step)) ** 2)
    normed: np.ndarray = windows / np.linalg.norm(windows, axis=1, keepdims=True)
    return normed


def cross_covariance(
    read: Callable[[np.ndarray], np.ndarray],
    rows: np.ndarray,
    subject: np.ndarray,
    features: np.ndarray,
    stimulus: np.ndarray,
    basis: np.ndarray,
    chunk: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Mean product of features and signals for each subject.

    Parameters
    ----------
    read : callable
        Trial numbers (n,) to whitened signals, float32 (n, n_units, n_times).
    rows : int, trial numbers to use
    subject, stimulus : int, (n_trials,)
    features : (n_stimuli, n_features), whitened
    basis : (n_basis, n_times)
        Orthonormal functions of time in which it is expressed.

    Returns
    -------
    covariance : float64, (n_subjects, n_features, n_units, n_basis)
    counts : int, (n_subjects,)
    """
    n_subjects = int(subject.max()) + 1
    counts = np.bincount(subject[rows], minlength=n_subjects)
    sums: list[np.ndarray | float] = [0.0] * n_subjects
    for start in range(0, len(rows), chunk):
        part = rows[start : start + chunk]
        signals = read(part) @ basis.T.astype(np.float32)
        for number in np.unique(subject[part]):
            own = subject[part] == number
            known = features[stimulus[part[own]]].astype(np.float32)
            sums[number] = sums[number] + np.tensordot(known, signals[own], (0, 0)).astype(float)
    shape = (features.shape[1], signals.shape[1], len(basis))
    means = [np.zeros(shape) + total / max(1, n) for total, n in zip(sums, counts, strict=True)]
    return np.stack(means), counts


def low_rank_encoding(
    covariance: np.ndarray,
    counts: np.ndarray,
    windows: np.ndarray,
    rank: int,
    shrinkage: float,
    n_iterations: int = 15,
) -> Factors:
    """Fit the products by alternating least squares.

    Parameters
    ----------
    covariance, counts
        See `cross_covariance`.
    windows : (n_windows, n_basis)
        Time courses to start from.
    rank : int
        Products at most; those that are shrunk to nothing are dropped.
    shrinkage : float
        By how much of the largest topography that noise could have, squared, those found are
        shrunk: 1 leaves no product of noise, but also none of a weak signal.
    """
    n_subjects, n_units = covariance.shape[0], covariance.shape[2]
    # scaled so that noise is equal in all subjects, whatever their number of trials
    weight = np.sqrt(counts / counts.mean())
    stacked = covariance * weight[:, None, None, None]
    stacked = np.concatenate(list(stacked), 1)  # (n_features, n_subjects * n_units, n_times)
    tuning, time = _first_products(stacked, windows, rank)
    edge = shrinkage * _noise_edge(covariance.shape, float(counts.mean()))
    space = np.zeros((n_subjects * n_units, tuning.shape[1]))
    for iteration in range(n_iterations + 1):
        space = _space(stacked, tuning, time, n_subjects, edge)
        kept = (space**2).sum(0) > 0
        if not kept.any():  # nothing but noise: the first product is as good as any
            kept, space = np.arange(len(kept)) == 0, space + 1e-6
        space, tuning, time = space[:, kept], tuning[:, kept], time[:, kept]
        if iteration == n_iterations:
            break
        gram = space.T @ space
        level = PENALTY * np.trace(gram) / len(gram) * np.eye(len(gram))
        over_time = np.einsum("ruk,ur->kr", _along(stacked, tuning), space)
        time = _unit(over_time @ np.linalg.inv(gram * (tuning.T @ tuning) + level))
        mixed = np.matmul(stacked, time)  # (n_features, n_subjects * n_units, rank)
        over_features = np.einsum("fur,ur->fr", mixed, space)
        tuning = _unit(over_features @ np.linalg.inv(gram * (time.T @ time) + level))
    parts = space.reshape(n_subjects, n_units, -1) / np.maximum(weight, 1e-12)[:, None, None]
    return Factors(parts, tuning, time)


def topographies(
    covariance: np.ndarray, count: int, tuning: np.ndarray, time: np.ndarray
) -> np.ndarray:
    """Return topographies (n_units, rank) of one more subject, (n_features, n_units, n_times)."""
    edge = _noise_edge((1, *covariance.shape), float(count), shared=False)
    return _space(covariance, tuning, time, 1, edge)


def _noise_edge(shape: tuple[int, ...], count: float, *, shared: bool = True) -> float:
    """Squared length of the largest topography that noise of variance 1 / count would have."""
    n_subjects, n_features, n_units, n_times = shape
    others = (np.sqrt(n_features) + np.sqrt(n_times)) / np.sqrt(n_subjects) if shared else 0.0
    return float((np.sqrt(n_units) + others) ** 2 / count)


def _first_products(
    stacked: np.ndarray, windows: np.ndarray, rank: int
) -> tuple[np.ndarray, np.ndarray]:
    """Largest singular vectors of the windows: tuning (n_features, r), time (n_times, r)."""
    found = []
    for number, course in enumerate(windows):
        left, values, _ = np.linalg.svd(stacked @ course, full_matrices=False)
        found += [(values[k], number, left[:, k]) for k in range(min(4, len(values)))]
    found = sorted(found, key=lambda item: -item[0])[:rank]
    tuning = np.stack([vector for _, _, vector in found], 1)
    return tuning, np.stack([windows[number] for _, number, _ in found], 1)


def _along(stacked: np.ndarray, tuning: np.ndarray) -> np.ndarray:
    """Contract the features: (rank, n_subjects * n_units, n_times)."""
    n_features, *rest = stacked.shape
    return (tuning.T @ stacked.reshape(n_features, -1)).reshape(-1, *rest)


def _space(
    stacked: np.ndarray, tuning: np.ndarray, time: np.ndarray, n_subjects: int, edge: float
) -> np.ndarray:
    """Topographies by least squares, shrunk by how far they are above noise."""
    overlap = (tuning.T @ tuning) * (time.T @ time)
    raw = np.einsum("ruk,kr->ur", _along(stacked, tuning), time)
    space = raw @ np.linalg.inv(overlap + PENALTY * np.eye(len(overlap)))
    parts = space.reshape(n_subjects, -1, space.shape[1])
    power = np.maximum((parts**2).sum(1, keepdims=True), 1e-30)
    shrunk: np.ndarray = (parts * np.maximum(1 - edge / power, 0)).reshape(space.shape)
    return shrunk


def _unit(columns: np.ndarray) -> np.ndarray:
    return np.asarray(columns / np.maximum(np.linalg.norm(columns, axis=0), 1e-12))
