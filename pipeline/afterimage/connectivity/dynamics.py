"""Dynamic connectivity against its null (Hindriks et al. 2016, doi:10.1016/j.neuroimage.2015.11.055).

Whatever is found in windows is also computed on phase-randomised surrogates, which have the same
static connectivity and spectra but nothing that changes. Window widths, censored samples and the
high-pass are the same in both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from afterimage.connectivity.hidden_states import held_out_gain
from afterimage.connectivity.window_states import (
    WindowStates,
    find_window_states,
    summarise_states,
)
from afterimage.signal.surrogates import filled, phase_randomised
from afterimage.signal.windows import kept_in_windows, sliding_correlations


@dataclass(frozen=True, eq=False)
class Windows:
    """Windows of several recordings.

    Attributes
    ----------
    correlations : array of shape (n_windows, n_edges), float32
        NaN rows where too much is censored.
    groups : array of int, shape (n_windows,)
        Recording of each window.
    variance : array of shape (n_recordings,)
        Variance over windows of Fisher's z, mean over pairs of units.
    """

    correlations: np.ndarray
    groups: np.ndarray
    variance: np.ndarray


def all_windows(
    series: Sequence[np.ndarray],
    kept: Sequence[np.ndarray],
    width: int,
    step: int,
    min_kept: int,
    n_threads: int = 1,
) -> Windows:
    """Compute the windows of all recordings; series (n_times, n_units) already high-passed."""
    parts, groups, variances = [], [], []
    for index, (values, good) in enumerate(zip(series, kept, strict=True)):
        n_windows = len(kept_in_windows(good, width, step))
        part = np.empty((n_windows, values.shape[1] * (values.shape[1] - 1) // 2), np.float32)
        for rows, found in sliding_correlations(
            values, width, step, kept=good, min_kept=min_kept, n_threads=n_threads
        ):
            part[rows] = found
        parts.append(part)
        groups.append(np.full(n_windows, index))
        variances.append(edge_variance(part))
    return Windows(np.concatenate(parts), np.concatenate(groups), np.array(variances))


def edge_variance(correlations: np.ndarray) -> float:
    """Return the variance over windows of Fisher's z, mean over edges; (n_windows, n_edges)."""
    good = correlations[np.isfinite(correlations).all(1)]
    if len(good) < 2:
        return float("nan")
    z = np.arctanh(np.clip(good, -0.999999, 0.999999))
    return float(z.var(axis=0, ddof=1).mean())


@dataclass(frozen=True, eq=False)
class Null:
    """The same quantities of surrogates; the first axis is the surrogate.

    Attributes
    ----------
    variance : array of shape (n, n_recordings)
    explained, switches : array of shape (n,)
        Variance between states, and changes of state, of ``n_states`` states.
    occupancy : array of shape (n, n_states)
        Largest first, as states have no names.
    """

    variance: np.ndarray
    explained: np.ndarray
    switches: np.ndarray
    occupancy: np.ndarray


def surrogate_null(
    series: Sequence[np.ndarray],
    kept: Sequence[np.ndarray],
    width: int,
    step: int,
    min_kept: int,
    *,
    n_states: int,
    n_components: int,
    n_surrogates: int,
    n_threads: int = 1,
    random_state: int = 0,
) -> Null:
    """Compute windows and their states on surrogates of all recordings."""
    rng = np.random.default_rng(random_state)
    whole = [filled(values, good) for values, good in zip(series, kept, strict=True)]
    variance, explained, switches, occupancy = [], [], [], []
    for _ in range(n_surrogates):
        surrogates = [phase_randomised(values, rng) for values in whole]
        windows = all_windows(surrogates, kept, width, step, min_kept, n_threads)
        variance.append(windows.variance)
        if n_states > 1:
            found = cluster(windows, n_states, n_components, random_state)
            summary = summarise_states(by_recording(found.labels, windows.groups), n_states)
            explained.append(found.explained)
            switches.append(summary.n_switches)
            occupancy.append(np.sort(summary.occupancy)[::-1])
    return Null(*(np.array(values) for values in (variance, explained, switches, occupancy)))


def cluster(windows: Windows, n_states: int, n_components: int, random_state: int) -> WindowStates:
    """Cluster windows into a given number of states."""
    return find_window_states(
        windows.correlations, windows.groups, candidates=(n_states,), n_components=n_components,
        random_state=random_state,
    )  # fmt: skip


def by_recording(labels: np.ndarray, groups: np.ndarray) -> list[np.ndarray]:
    """Split labels of all windows into one array a recording."""
    return [labels[groups == group] for group in np.unique(groups)]


def hidden_state_null(
    series: Sequence[np.ndarray],
    kept: Sequence[np.ndarray],
    n_states: int,
    n_surrogates: int,
    *,
    n_components: int,
    random_state: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the held-out gain of ``n_states`` hidden states over one, real and of surrogates.

    Returns
    -------
    real : array of shape (n_recordings,)
        Nats a sample.
    null : array of shape (n_surrogates, n_recordings)
    """
    rng = np.random.default_rng(random_state)
    whole = [filled(values, good) for values, good in zip(series, kept, strict=True)]
    settings = {"n_components": n_components, "n_restarts": 4, "n_iterations": 40}

    def gains(values: Sequence[np.ndarray]) -> list[float]:
        return [held_out_gain(one, n_states, **settings) for one in values]

    real = np.array(gains(whole))
    null = [gains([phase_randomised(one, rng) for one in whole]) for _ in range(n_surrogates)]
    return real, np.array(null).reshape(n_surrogates, len(whole))
