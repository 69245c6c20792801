"""Prepared responses checked and described: unusable units, bad trials, repeats, splits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class ResponseScan:
    """What one pass over the responses of a subject found.

    Attributes
    ----------
    constant : array of bool, shape (n_units,)
        Units whose finite values are all the same.
    never_finite : array of bool, shape (n_units,)
        Units without one finite value.
    bad_trials : array of int
        Trials with a non-finite value in a unit that is otherwise usable.
    """

    constant: np.ndarray
    never_finite: np.ndarray
    bad_trials: np.ndarray

    @property
    def usable(self) -> np.ndarray:
        """Units to keep, array of bool of shape (n_units,)."""
        return ~(self.constant | self.never_finite)


def scan_responses(chunks: Iterable[np.ndarray]) -> ResponseScan:
    """Find unusable units and trials in one pass over chunks of trials.

    Parameters
    ----------
    chunks : iterable of array of shape (k, n_units[, n_times])
        Consecutive trials, each chunk read once.

    Returns
    -------
    ResponseScan
    """
    low = high = finite_count = np.zeros(0)
    # which units have a non-finite value, a bit a unit and trial
    partly: list[np.ndarray] = []
    for chunk in chunks:
        values = np.asarray(chunk, dtype=np.float32).reshape(len(chunk), chunk.shape[1], -1)
        finite = np.isfinite(values)
        chunk_low = np.where(finite, values, np.inf).min(axis=(0, 2))
        chunk_high = np.where(finite, values, -np.inf).max(axis=(0, 2))
        count = finite.sum(axis=(0, 2))
        if not partly:
            low, high, finite_count = chunk_low, chunk_high, count
        else:
            low, high = np.minimum(low, chunk_low), np.maximum(high, chunk_high)
            finite_count = finite_count + count
        partly.append(np.packbits(~finite.all(axis=2), axis=1))
    if not partly:
        raise ValueError("no trials to scan")
    never_finite = finite_count == 0
    constant = ~never_finite & (low == high)
    keep = np.packbits(~(never_finite | constant))
    bad = np.flatnonzero(np.concatenate([(part & keep).any(axis=1) for part in partly]))
    return ResponseScan(constant, never_finite, bad)


def repeat_index(stimuli: np.ndarray) -> np.ndarray:
    """Return the repeat number of each trial, from 0 in trial order; int64, (n_trials,)."""
    counts: dict[str, int] = {}
    repeats = np.empty(len(stimuli), dtype=np.int64)
    for trial, name in enumerate(stimuli):
        repeats[trial] = counts.get(name, 0)
        counts[name] = repeats[trial] + 1
    return repeats


def seeded_split(
    stimuli: Iterable[str], test_fraction: float, random_state: int
) -> dict[str, str]:
    """Split stimuli at random into ``train`` and ``test``; the order given does not matter.

    Parameters
    ----------
    stimuli : iterable of str
        The ids of all stimuli of the dataset, so that every subject gets the same split.
    test_fraction : float
        Share of stimuli for the test set; at least one stimulus on either side.
    random_state : int
        Seed.

    Returns
    -------
    dict
        Stimulus id to ``train`` or ``test``.
    """
    names = sorted(set(stimuli))
    n_test = min(max(1, round(test_fraction * len(names))), len(names) - 1)
    order = np.random.default_rng(random_state).permutation(len(names))
    test = {names[index] for index in order[:n_test]}
    return {name: "test" if name in test else "train" for name in names}


def grouped_split(
    groups: Mapping[str, str], test_fraction: float, random_state: int
) -> dict[str, str]:
    """Split stimuli into ``train`` and ``test`` so that whole groups are on one side.

    Groups come in random order, and one goes to the test set if that brings its size nearer to
    what is wanted.

    Parameters
    ----------
    groups : mapping of str to str
        Group of every stimulus of the dataset, so that every subject gets the same split.
    test_fraction : float
        Share of stimuli wanted in the test set; at least one group is on either side.
    random_state : int

    Returns
    -------
    dict
        Stimulus id to ``train`` or ``test``.
    """
    names = sorted(set(groups.values()))
    if len(names) < 2:
        raise ValueError("one group cannot be split")
    sizes = {name: list(groups.values()).count(name) for name in names}
    wanted = test_fraction * len(groups)
    test: set[str] = set()
    for index in np.random.default_rng(random_state).permutation(len(names)):
        name, size = names[index], sum(sizes[other] for other in test)
        nearer = abs(size + sizes[name] - wanted) < abs(size - wanted)
        if nearer and len(test) < len(names) - 1:
            test.add(name)
    # Where every group is more than twice what is wanted, the smallest one is still nearest.
    test = test or {min(names, key=lambda name: (sizes[name], name))}
    return {name: "test" if group in test else "train" for name, group in groups.items()}


def cluster_stimuli(features: np.ndarray, n_clusters: int, random_state: int) -> np.ndarray:
    """Put stimuli into clusters by k-means on their standardised features.

    Parameters
    ----------
    features : (n_stimuli, n_features)
    n_clusters, random_state : int

    Returns
    -------
    array of int, shape (n_stimuli,)
    """
    from sklearn.cluster import KMeans

    values = np.asarray(features, np.float64).reshape(len(features), -1)
    values = (values - values.mean(axis=0)) / np.maximum(values.std(axis=0), 1e-12)
    model = KMeans(n_clusters=n_clusters, n_init=4, random_state=random_state).fit(values)
    return np.asarray(model.labels_, np.int64)
