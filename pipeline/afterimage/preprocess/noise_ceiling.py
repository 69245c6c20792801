"""How reliable single-trial responses are (Allen et al. 2022, doi:10.1038/s41593-021-00962-x).

What differs: ceilings are correlations and not percent of variance, and responses are centred
within runs where runs are given. Errors of neighbouring responses of a run depend on each other:
where trials overlap, all responses of a run are too high or too low together. Repeats within a run
share that error, which then passes for signal; repeats in different runs do not, and it passes for
more noise than decoders that centre runs meet. On simulated trials 4 s apart, all repeats within a
run, the ceiling of least squares (`lsa`) was 0.3 too high without centring and 0.06 too low with
it, that of `lss` 0.07 and 0.01 too high, that of `ridge_glm` 0.01 too high either way. Centring
takes away signal too where a run shows few stimuli or only stimuli of one kind: leave runs out
there, and read ceilings of repeats within a run as upper bounds.

The caller passes training trials only.
"""

from __future__ import annotations

import numpy as np

#: Correlating halves over fewer stimuli says nothing.
MIN_STIMULI = 3


def centre_runs(responses: np.ndarray, runs: np.ndarray | None) -> np.ndarray:
    """Subtract from each response the mean of its run; (n_trials, n_units) float64.

    Parameters
    ----------
    responses : (n_trials, n_units)
    runs : (n_trials,) str or int, or None
        One name a run, different between sessions; None returns the responses as they are.
    """
    values = np.asarray(responses, dtype=np.float64)
    if runs is None:
        return values
    _, inverse, counts = np.unique(runs, return_inverse=True, return_counts=True)
    return values - (_sums(values, inverse, len(counts)) / counts[:, None])[inverse]


def noise_ceiling(
    responses: np.ndarray, stimulus: np.ndarray, runs: np.ndarray | None = None
) -> np.ndarray:
    """Estimate the largest correlation a model can reach with single trials.

    With the variance of repeats around their mean ``v_noise`` (pooled over stimuli, unbiased) and
    the variance of single trials ``v_total``, the signal variance is
    ``v_signal = max(0, v_total - v_noise)`` and the largest correlation that a perfect model can
    reach with one trial is ``sqrt(v_signal / (v_signal + v_noise))``.

    Parameters
    ----------
    responses : (n_trials, n_units)
        Training trials.
    stimulus : (n_trials,) str
    runs : (n_trials,), optional
        Centre the responses within runs first.

    Returns
    -------
    (n_units,) float32
        NaN without repeats, 0 in units without signal.
    """
    names, inverse, counts = np.unique(stimulus, return_inverse=True, return_counts=True)
    repeated = counts[inverse] > 1
    if not repeated.any():
        return np.full(responses.shape[1], np.nan, dtype=np.float32)
    values = centre_runs(responses, runs)
    mean = _sums(values, inverse, len(names)) / counts[:, None]
    residual = values[repeated] - mean[inverse[repeated]]
    noise = np.einsum("tu,tu->u", residual, residual) / (counts[counts > 1] - 1).sum()
    signal = np.maximum(values.var(axis=0, ddof=1) - noise, 0.0)
    power = signal + noise
    return np.sqrt(signal / np.where(power > 0, power, 1)).astype(np.float32)


def ncsnr(
    responses: np.ndarray, stimulus: np.ndarray, runs: np.ndarray | None = None
) -> np.ndarray:
    """Estimate the noise-ceiling signal-to-noise ratio: standard deviation of signal over noise.

    Parameters
    ----------
    responses, stimulus, runs
        As for `noise_ceiling`.

    Returns
    -------
    (n_units,) float32
        NaN without repeats; infinite where repeats are identical.
    """
    ceiling = noise_ceiling(responses, stimulus, runs).astype(np.float64)
    with np.errstate(divide="ignore"):
        return np.asarray(ceiling / np.sqrt(1 - np.minimum(ceiling, 1) ** 2), np.float32)


def averaged_ceiling(snr: np.ndarray, n_averaged: np.ndarray | int) -> np.ndarray:
    """Noise ceiling of averages over trials, from the ratio of one trial.

    Parameters
    ----------
    snr : (n_units,)
        `ncsnr`.
    n_averaged : int or (n_stimuli,) int
        Number of trials in each average; unequal numbers count with the mean of their inverse.

    Returns
    -------
    (n_units,) float32
        As a correlation.
    """
    noise = np.mean(1 / np.asarray(n_averaged, dtype=np.float64))
    variance = np.asarray(snr, dtype=np.float64) ** 2
    perfect = np.isinf(variance)
    ratio = np.where(perfect, 0.0, variance)
    return np.where(perfect, 1.0, np.sqrt(ratio / (ratio + noise))).astype(np.float32)


def split_half_reliability(
    responses: np.ndarray,
    stimulus: np.ndarray,
    runs: np.ndarray | None = None,
    *,
    n_splits: int = 20,
    spearman_brown: bool = False,
    random_state: int = 0,
) -> np.ndarray:
    """Correlate two halves of the repeats over stimuli, the mean over random splits.

    Parameters
    ----------
    responses : (n_trials, n_units)
        Training trials.
    stimulus : (n_trials,) str
    runs : (n_trials,), optional
        Centre the responses within runs first.
    n_splits : int
        Random splits.
    spearman_brown : bool
        Predict the reliability of all repeats from that of half of them.
    random_state : int
        Seed.

    Returns
    -------
    (n_units,) float32
        NaN where fewer than three stimuli were repeated; 0 in units that do not vary.
    """
    _, kind, counts = np.unique(stimulus, return_inverse=True, return_counts=True)
    repeated = np.flatnonzero(counts[kind] > 1)
    if (counts > 1).sum() < MIN_STIMULI:
        return np.full(responses.shape[1], np.nan, dtype=np.float32)
    values = centre_runs(responses, runs)[repeated]
    kind = np.unique(kind[repeated], return_inverse=True)[1]
    counts = counts[counts > 1]
    first = np.concatenate([[0], counts.cumsum()])[:-1]
    rng = np.random.default_rng(random_state)
    total = np.zeros(values.shape[1])
    for _ in range(n_splits):
        order = np.lexsort((rng.random(len(kind)), kind))
        rank = np.empty(len(kind), int)
        rank[order] = np.arange(len(kind)) - first[kind[order]]
        size = counts // 2  # of an odd number of repeats, one is left out
        halves = []
        for low in (0, 1):
            chosen = (rank >= low * size[kind]) & (rank < (low + 1) * size[kind])
            mean = _sums(values[chosen], kind[chosen], len(counts)) / size[:, None]
            halves.append(mean - mean.mean(axis=0))
        power = (halves[0] ** 2).sum(axis=0) * (halves[1] ** 2).sum(axis=0)
        product = (halves[0] * halves[1]).sum(axis=0)
        total += product / np.sqrt(np.where(power > 0, power, np.inf))
    reliability = total / n_splits
    if spearman_brown:
        reliability = 2 * reliability / np.maximum(1 + reliability, 1e-6)
    return np.asarray(reliability, np.float32)


def _sums(values: np.ndarray, group: np.ndarray, n_groups: int) -> np.ndarray:
    """Sum the rows of each group, (n_groups, n)."""
    from scipy.sparse import csr_array

    n = len(group)
    members = csr_array((np.ones(n), (group, np.arange(n))), shape=(n_groups, n))
    return np.asarray(members @ values)
