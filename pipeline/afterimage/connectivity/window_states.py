"""States of windowed connectivity by k-means (Allen et al. 2014, doi:10.1093/cercor/bhs352).

What differs: windows are reduced to principal components of the training part; the number of
states, one among the candidates, is chosen by the likelihood of held-out stretches of time, a
window apart from the training part, under a mixture of Gaussians of one shape around the centres. One
state, that is no states at all, is a possible answer. Windows that straddle a change lie between
the centres, so more states than there are may be chosen: the number is no finding by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from afterimage.errors import InputError


class WindowStates(NamedTuple):
    """States of windows.

    Attributes
    ----------
    labels : array of int, shape (n_windows,)
        State of each window, 0 the most frequent; -1 for windows that hold no numbers.
    centres : array of shape (n_states, n_edges), float32
    n_states : int
    held_out : dict of float
        Held-out log likelihood per window and component, by number of states.
    explained : float
        Share of the variance of the windows that lies between the states.
    """

    labels: np.ndarray
    centres: np.ndarray
    n_states: int
    held_out: dict[int, float]
    explained: float


class StateSummary(NamedTuple):
    """How a sequence of states behaves.

    Attributes
    ----------
    occupancy : array of shape (n_states,)
        Share of the samples spent in each state.
    dwell : array of shape (n_states,)
        Mean length of a visit, in samples; NaN for a state without visits.
    transition : array of shape (n_states, n_states)
        Share of the steps from the row's state that lead to the column's.
    n_switches : int
    """

    occupancy: np.ndarray
    dwell: np.ndarray
    transition: np.ndarray
    n_switches: int


def summarise_states(labels: Sequence[np.ndarray], n_states: int) -> StateSummary:
    """Summarise sequences of states, one a recording; -1 interrupts a visit."""
    counts = np.zeros((n_states, n_states))
    visits, samples = np.zeros(n_states), np.zeros(n_states)
    for row in labels:
        before, after = row[:-1], row[1:]
        both = (before >= 0) & (after >= 0)
        np.add.at(counts, (before[both], after[both]), 1)
        starts = np.concatenate([[True], row[1:] != row[:-1]]) & (row >= 0)
        visits += np.bincount(row[starts], minlength=n_states)
        samples += np.bincount(row[row >= 0], minlength=n_states)
    with np.errstate(invalid="ignore", divide="ignore"):
        dwell = samples / visits
        transition = counts / counts.sum(1, keepdims=True)
    switches = int(counts.sum() - np.trace(counts))
    return StateSummary(samples / max(samples.sum(), 1), dwell, transition, switches)


def principal_components(values: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean and the first components, (n_features,) and (n, n_features), by windows."""
    mean = values.mean(axis=0)
    centred = values - mean
    spread, vectors = np.linalg.eigh(centred @ centred.T)
    n = min(n, int((spread > 1e-8 * max(spread[-1], 1e-30)).sum()))
    axes = vectors[:, ::-1][:, :n].T @ centred
    return mean, axes / np.maximum(np.linalg.norm(axes, axis=1, keepdims=True), 1e-12)


def time_folds(groups: np.ndarray, n_folds: int, gap: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return folds of stretches: whole recordings if there are enough of them, else parts of time.

    Parameters
    ----------
    groups : array of int, shape (n_windows,)
        Recording of each window; its windows stand in the order of time.
    n_folds : int
    gap : int
        Windows next to the held-out stretch that take no part in training.
    """
    rows = np.arange(len(groups))
    labels = np.unique(groups)
    folds = []
    for fold in range(n_folds):
        if len(labels) >= n_folds:
            test = np.isin(groups, labels[fold::n_folds])
            train = ~test
        else:
            low, high = len(rows) * fold // n_folds, len(rows) * (fold + 1) // n_folds
            test = (rows >= low) & (rows < high)
            train = (rows < low - gap) | (rows >= high + gap)
        if train.sum() > 2 and test.any():
            folds.append((rows[train], rows[test]))
    return folds


def find_window_states(
    windows: np.ndarray,
    groups: np.ndarray,
    *,
    candidates: Sequence[int] = (1, 2, 3, 4, 5, 6),
    n_components: int = 10,
    n_folds: int = 5,
    gap: int = 0,
    n_restarts: int = 10,
    random_state: int = 0,
) -> WindowStates:
    """Cluster windows of connectivity.

    Parameters
    ----------
    windows : array of shape (n_windows, n_edges)
        Correlations (they are turned into Fisher's z); rows with NaN take no part.
    groups : array of int, shape (n_windows,)
        Recording of each window.
    candidates : sequence of int
        Numbers of states to choose from; one candidate is taken as it is.
    n_components, n_folds, gap, n_restarts : int
        Components of the windows; folds, and windows left out around a held-out stretch (those that
        share samples with it); starts of k-means.
    random_state : int
    """
    from sklearn.cluster import KMeans

    good = np.isfinite(windows).all(axis=1)
    if good.sum() < 3 * max(candidates):
        raise InputError(
            "too few windows for states", found=f"{int(good.sum())} without gaps",
            expected=f"at least {3 * max(candidates)}", fix="use shorter windows or fewer states",
        )  # fmt: skip
    values = np.arctanh(np.clip(windows[good].astype(np.float32), -0.999999, 0.999999))
    held_out: dict[int, float] = {}
    if len(candidates) > 1:
        folds = time_folds(groups[good], n_folds, gap)
        scores = np.array(
            [_held_out(values[a], values[b], candidates, n_components, random_state)
             for a, b in folds]
        )  # fmt: skip
        held_out = dict(zip(candidates, scores.mean(0).tolist(), strict=True))
        best = int(np.argmax(scores.mean(0)))
        # The smallest number that the folds cannot tell from the best.
        lag = scores - scores[:, [best]]
        error = (
            lag.std(0, ddof=1) / np.sqrt(len(folds)) if len(folds) > 1 else np.zeros(len(lag.T))
        )
        n_states = next(
            k for k, d, e in zip(candidates, lag.mean(0), error, strict=True) if d >= -e
        )
    else:
        n_states = candidates[0]
    mean, axes = principal_components(values, n_components)
    points = (values - mean) @ axes.T
    clusters = KMeans(n_states, n_init=n_restarts, random_state=random_state).fit(points)
    order = np.argsort(-np.bincount(clusters.labels_, minlength=n_states), kind="stable")
    labels = np.full(len(windows), -1)
    labels[good] = np.argsort(order)[clusters.labels_]
    centres = np.tanh(mean + clusters.cluster_centers_[order] @ axes).astype(np.float32)
    total = float(np.square(points - points.mean(0)).sum())
    explained = 1 - float(clusters.inertia_) / total if total > 0 else 0.0
    return WindowStates(labels, centres, n_states, held_out, explained)


def _held_out(
    train: np.ndarray,
    test: np.ndarray,
    candidates: Sequence[int],
    n_components: int,
    random_state: int,
) -> list[float]:
    """Log likelihood per window and component of the test part, one a candidate."""
    from scipy.special import logsumexp
    from sklearn.cluster import KMeans

    mean, axes = principal_components(train, n_components)
    inside, outside = (train - mean) @ axes.T, (test - mean) @ axes.T
    scores = []
    for k in candidates:
        found = KMeans(k, n_init=5, random_state=random_state).fit(inside)
        # One variance a component, shared by the clusters: a long axis alone is no second state.
        within = inside - found.cluster_centers_[found.labels_]
        variance = np.maximum(np.square(within).mean(0), 1e-12)
        share = np.bincount(found.labels_, minlength=k) / len(inside)
        distance = (np.square(outside[:, None] - found.cluster_centers_) / variance).sum(-1)
        joint = np.log(share) - 0.5 * distance
        constant = -0.5 * np.log(2 * np.pi * variance).sum()
        scores.append(float((logsumexp(joint, axis=1) + constant).mean() / outside.shape[1]))
    return scores
