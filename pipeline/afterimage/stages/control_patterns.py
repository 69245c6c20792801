"""Patterns that are no brain's response to the picture, decoded beside those that are."""

from __future__ import annotations

from typing import Any

import numpy as np

#: Patterns of noise: what a decoder and a generator make of no brain at all.
N_NOISE = 4
#: Values whose moments are computed together: a deviation takes a copy of them.
N_VALUES_BATCH = 512


def controls(
    patterns: np.ndarray,
    stimuli: np.ndarray,
    statistics: tuple[np.ndarray, np.ndarray],
    random_state: int,
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Make the controls of test patterns, by name: the patterns, and the stimulus of each.

    ``shuffled``: every unit's values shuffled across patterns on its own, which leaves the units'
    distributions; ``mean``: the mean training response; ``noise``: normal numbers with the mean and
    the deviation of each unit's training responses.

    Parameters
    ----------
    patterns : (n, n_values) float32
    stimuli : (n,) of str
    statistics : tuple of array, (n_values,) each
        `moments` of the training responses.
    random_state : int
    """
    mean, deviation = statistics
    rng = np.random.default_rng(random_state)
    drawn = np.random.default_rng([random_state, 1]).standard_normal((N_NOISE, len(mean)))
    return {
        "shuffled": (rng.permuted(patterns, axis=0), stimuli),
        "mean": (mean[None], np.array(["mean"])),
        "noise": (
            (mean + deviation * drawn).astype(np.float32),
            np.array([f"noise{number}" for number in range(N_NOISE)]),
        ),
    }


def moments(responses: Any, n_trials: int = 256) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each value of training responses, (n_values,), read in pieces."""
    if isinstance(responses, np.ndarray):
        parts = [
            slice(i, i + N_VALUES_BATCH) for i in range(0, responses.shape[1], N_VALUES_BATCH)
        ]
        return (
            np.concatenate([responses[:, part].mean(axis=0) for part in parts]),
            np.concatenate([responses[:, part].std(axis=0) for part in parts]),
        )
    n = responses.shape[0]
    first = responses[np.arange(1)][0].astype(np.float64)  # squares of offsets would lose digits
    total, squares = np.zeros_like(first), np.zeros_like(first)
    for start in range(0, n, n_trials):
        values = responses[np.arange(start, min(start + n_trials, n))]
        total += values.sum(0, dtype=np.float64)
        squares += ((values - first) ** 2).sum(0)
    mean = total / n
    deviation = np.sqrt(np.maximum(squares / n - (mean - first) ** 2, 0))
    return mean.astype(np.float32), deviation.astype(np.float32)
