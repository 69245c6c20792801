"""Patterns that are no brain's response to the picture, decoded beside those that are."""

from __future__ import annotations

from typing import Any

import numpy as np

#: Patterns of noise: what a decoder and a generator make of no brain at all.
N_NOISE = 4


def controls(
    patterns: np.ndarray, stimuli: np.ndarray, responses: Any, random_state: int
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Make the controls of test patterns, by name: the patterns, and the stimulus of each.

    ``shuffled``: every unit's values shuffled across patterns on its own, which leaves the units'
    distributions; ``mean``: the mean training response; ``noise``: normal numbers with the mean and
    the deviation of each unit's training responses.

    Parameters
    ----------
    patterns : (n, n_values) float32
    stimuli : (n,) of str
    responses : indexable, (n_trials, n_values)
        Training responses.
    random_state : int
    """
    mean, deviation = moments(responses)
    rng = np.random.default_rng(random_state)
    drawn = np.random.default_rng([random_state, 1]).standard_normal((N_NOISE, mean.shape[1]))
    return {
        "shuffled": (rng.permuted(patterns, axis=0), stimuli),
        "mean": (mean, np.array(["mean"])),
        "noise": (
            (mean + deviation * drawn).astype(np.float32),
            np.array([f"noise{number}" for number in range(N_NOISE)]),
        ),
    }


def moments(responses: Any, n_trials: int = 256) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation of the responses, (1, n_values) each, read in pieces."""
    if isinstance(responses, np.ndarray):
        return responses.mean(axis=0, keepdims=True), responses.std(axis=0, keepdims=True)
    n = responses.shape[0]
    total = squares = np.zeros(1)
    for start in range(0, n, n_trials):
        part = responses[np.arange(start, min(start + n_trials, n))].astype(np.float64)
        total, squares = total + part.sum(0), squares + (part**2).sum(0)
    mean = total / n
    deviation = np.sqrt(np.maximum(squares / n - mean**2, 0))
    return np.asarray(mean, np.float32)[None], np.asarray(deviation, np.float32)[None]
