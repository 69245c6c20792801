"""Series whose covariance switches between planted states, and series in which nothing switches."""

from __future__ import annotations

import numpy as np
from scipy.signal import lfilter


def smoothed(noise: np.ndarray) -> np.ndarray:
    """Colour noise like BOLD that was high-passed: an autoregression without slow drift."""
    values = lfilter([1.0], [1.0, -0.5], noise, axis=0)
    return np.asarray(values / values.std())


def covariance_factors(n_states: int, n_units: int, seed: int) -> np.ndarray:
    """Return loadings of units on a few common sources, different in each state."""
    rng = np.random.default_rng(seed)
    factors = []
    for _ in range(n_states):
        labels = rng.permutation(np.arange(n_units) % 3)
        factors.append(1.5 * np.eye(3)[labels] * rng.choice([-1, 1], (n_units, 1)))
    return np.array(factors)


def switching(
    seed: int, n_times: int = 1200, n_units: int = 15, n_states: int = 3, dwell: int = 100
) -> tuple[np.ndarray, np.ndarray]:
    """Return series (n_times, n_units) and the state of each sample."""
    rng = np.random.default_rng(seed)
    states, state = [], 0
    while len(states) < n_times:
        states += [state] * int(rng.integers(dwell // 2, 3 * dwell // 2))
        state = (state + int(rng.integers(1, n_states))) % n_states
    labels = np.array(states[:n_times])
    sources = smoothed(rng.standard_normal((n_times, 3)))
    loadings = covariance_factors(n_states, n_units, seed)[labels]  # (n_times, n_units, 3)
    common = np.einsum("tus,ts->tu", loadings, sources)
    return common + smoothed(rng.standard_normal((n_times, n_units))), labels


def stationary(seed: int, n_times: int = 400, n_units: int = 8) -> np.ndarray:
    """Return a vector autoregression: one network for ever."""
    rng = np.random.default_rng(seed)
    coupling = 0.15 * rng.standard_normal((n_units, n_units)) + 0.3 * np.eye(n_units)
    coupling *= 0.7 / np.abs(np.linalg.eigvals(coupling)).max()
    values = np.zeros((n_times + 100, n_units))
    noise = rng.standard_normal(values.shape)
    for t in range(1, len(values)):
        values[t] = values[t - 1] @ coupling.T + noise[t]
    return values[100:]
