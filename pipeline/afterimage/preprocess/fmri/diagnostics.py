"""Is there a response at all, and where in time: stimulus test, shift of onsets, average response."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from afterimage.preprocess.fmri.design import (
    RunDesign,
    orthonormal_basis,
    residual,
    trial_regressors,
)
from afterimage.preprocess.fmri.hrf import HrfLibrary

#: Fewer trials of repeated stimuli than this say nothing about reproducibility.
MIN_REPEATS = 40


def stimulus_test(betas: np.ndarray, stimulus: np.ndarray) -> np.ndarray:
    """Test in each voxel whether the mean response differs between stimuli.

    One-way analysis of variance over the trials of repeated stimuli,
    ``F = (between / (k - 1)) / (within / (n - k))``.

    Parameters
    ----------
    betas : array of shape (n_trials, n_voxels)
    stimulus : array of str, shape (n_trials,)

    Returns
    -------
    array of shape (n_voxels,), float64
        p values; 1 where the voxel does not vary, or no stimulus was repeated.
    """
    from scipy.stats import f as f_distribution

    names, inverse, counts = np.unique(stimulus, return_inverse=True, return_counts=True)
    repeated = counts[inverse] > 1
    if not repeated.any():
        return np.ones(betas.shape[1])
    names, inverse, counts = np.unique(stimulus[repeated], return_inverse=True, return_counts=True)
    values = np.asarray(betas[repeated], dtype=np.float64)
    values = values - values.mean(axis=0)
    sums = np.zeros((len(names), values.shape[1]))
    np.add.at(sums, inverse, values)
    between = (sums**2 / counts[:, None]).sum(axis=0)
    within = np.maximum((values**2).sum(axis=0) - between, 0.0)
    degrees = (len(names) - 1, int(repeated.sum()) - len(names))
    if degrees[0] < 1:
        return np.ones(betas.shape[1])
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = (between / degrees[0]) / (within / degrees[1])
    return np.nan_to_num(f_distribution.sf(ratio, *degrees), nan=1.0)


def shared_variance(betas: np.ndarray, stimulus: np.ndarray) -> np.ndarray:
    """Return the share of single-trial variance that repeats of a stimulus share, (n_voxels,).

    The intraclass correlation of a one-way random-effects analysis of variance, which is the
    square of the noise ceiling of a single trial; not cut off at zero, so that its mean over
    voxels without signal is zero.
    """
    names, inverse, counts = np.unique(stimulus, return_inverse=True, return_counts=True)
    values = np.asarray(betas, dtype=np.float64) - np.mean(betas, axis=0)
    sums = np.zeros((len(names), values.shape[1]))
    np.add.at(sums, inverse, values)
    n, k = len(values), len(names)
    between = (sums**2 / counts[:, None]).sum(axis=0)
    mean_within = ((values**2).sum(axis=0) - between) / max(n - k, 1)
    mean_between = between / max(k - 1, 1)
    size = (n - (counts**2).sum() / n) / max(k - 1, 1)
    total = mean_between + (size - 1) * mean_within
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.nan_to_num((mean_between - mean_within) / total)


def onset_shift(
    designs: Sequence[RunDesign],
    blocks: Sequence[np.ndarray],
    library: HrfLibrary,
    shifts_s: np.ndarray,
    share: float = 0.05,
) -> tuple[np.ndarray, str, float]:
    """Move all onsets and see when the responses are most reproducible.

    For each shift, every trial gets a response by least squares, and the measure
    is the variance that repeats of a stimulus share; without repeats, the variance of the time
    series that one regressor of all trials explains. It is averaged over the voxels in which it is
    largest at any shift, so that the choice of voxels prefers no shift. The peak lies at 0 where
    the onsets are right, and at -7 s where they were written 7 s late.

    Parameters
    ----------
    designs : sequence of RunDesign
        Training runs.
    blocks : sequence of array of shape (n_volumes, n_voxels)
        Their time series, percent signal change.
    library : HrfLibrary
        Its first member is used.
    shifts_s : array of shape (n_shifts,)
    share : float
        Share of voxels that are averaged; at least 20 voxels.

    Returns
    -------
    curve : array of shape (n_shifts,)
    measure : str
        What the numbers are, in words.
    least : float
        A peak below this may be noise: three standard errors of the shared variance of one voxel
        without signal, ``sqrt(2 / ((k - 1) n (n - 1)))`` for n repeats of k stimuli, or 0.02.
    """
    stimulus = np.concatenate([design.stimulus[design.training] for design in designs])
    _, inverse, counts = np.unique(stimulus, return_inverse=True, return_counts=True)
    again = counts[inverse] > 1
    repeated = int(again.sum()) >= MIN_REPEATS
    bases = [orthonormal_basis(design.nuisance) for design in designs]
    cleaned = [residual(block, basis) for block, basis in zip(blocks, bases, strict=True)]
    scores = np.empty((len(shifts_s), blocks[0].shape[1]))
    for index, shift in enumerate(shifts_s):
        found, explained, total = [], 0.0, 0.0
        for design, basis, signal in zip(designs, bases, cleaned, strict=True):
            moved = replace(design, onsets_s=design.onsets_s + shift)
            matrix = residual(trial_regressors(moved, library)[0], basis)
            if repeated:
                betas = np.linalg.lstsq(matrix, signal, rcond=1e-6)[0]
                found.append(betas[design.training])
            else:
                together = matrix.sum(axis=1)
                power = max(float(together @ together), 1e-12)
                explained = explained + (together @ signal) ** 2 / power
                total = total + (signal**2).sum(axis=0)
        if repeated:
            scores[index] = shared_variance(np.concatenate(found)[again], stimulus[again])
        else:
            scores[index] = explained / np.maximum(total, 1e-12)
    n_kept = min(scores.shape[1], max(20, round(share * scores.shape[1])))
    best = np.argsort(-scores.max(axis=0), kind="stable")[:n_kept]
    measure = (
        "variance of single trials that repeats of a stimulus share"
        if repeated
        else "variance of the signal explained by one regressor of all trials"
    )
    counts = counts[counts > 1]
    n_repeats, k = float(counts.mean()) if repeated else 2.0, len(counts)
    least = 3 * np.sqrt(2 / (max(k - 1, 1) * n_repeats * max(n_repeats - 1, 0.1)))
    return scores[:, best].mean(axis=1), measure, float(least) if repeated else 0.02


def average_response(
    designs: Sequence[RunDesign],
    blocks: Sequence[np.ndarray],
    step_s: float,
    last_s: float = 24.0,
) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Estimate the average response around onset without assuming its shape.

    Finite impulse response by least squares: one straight-line basis function every ``step_s``
    from 0 to ``last_s`` after onset, the nuisance of each run beside them, all voxels averaged.

    Parameters
    ----------
    designs : sequence of RunDesign
    blocks : sequence of array of shape (n_volumes, n_voxels)
        Time series of responsive voxels, percent signal change.
    step_s, last_s : float

    Returns
    -------
    tuple of (lags_s, response, standard_error) or None
        None where trials follow each other so regularly that the shape cannot be told.
    """
    lags = np.arange(0.0, last_s + step_s / 2, step_s)
    gram = np.zeros((len(lags), len(lags)))
    moment = np.zeros(len(lags))
    unexplained, n_rows = 0.0, 0
    parts = []
    for design, block in zip(designs, blocks, strict=True):
        delay = design.volume_times_s[:, None] - design.onsets_s[None]  # (n_volumes, n_trials)
        tents = np.maximum(0.0, 1 - np.abs(delay[..., None] - lags) / step_s).sum(axis=1)
        nuisance = orthonormal_basis(design.nuisance)
        tents = residual(tents, nuisance)
        signal = residual(block.mean(axis=1), nuisance)
        gram += tents.T @ tents
        moment += tents.T @ signal
        parts.append((tents, signal))
    if np.linalg.cond(gram) > 1e4:
        return None
    response = np.linalg.solve(gram, moment)
    for tents, signal in parts:
        unexplained += float(((signal - tents @ response) ** 2).sum())
        n_rows += len(signal)
    error = np.sqrt(np.diag(np.linalg.inv(gram)) * unexplained / max(n_rows - len(lags), 1))
    return lags, response, error
