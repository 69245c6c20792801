"""Brain states by a hidden Markov model (Vidaurre, Smith, Woolrich 2017, doi:10.1073/pnas.1705120114).

What differs: hmmlearn's Gaussian model, fitted by EM from several starts to principal components of
the series instead of by variational Bayes; a state is a covariance (and a mean) of the components.
The number of states, one among the candidates, is chosen by the likelihood of held-out stretches.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from afterimage.connectivity.window_states import principal_components
from afterimage.errors import InputError


class HiddenStates(NamedTuple):
    """States of samples.

    Attributes
    ----------
    labels : list of array of int, each of shape (n_times,)
        Likeliest state of each sample (forward-backward), 0 the most frequent; -1 where censored.
    correlations : array of shape (n_states, n_units, n_units), float32
        Correlation of the units in a state, in the space of the components.
    n_states : int
    held_out : dict of float
        Held-out log likelihood per sample, by number of states.
    """

    labels: list[np.ndarray]
    correlations: np.ndarray
    n_states: int
    held_out: dict[int, float]


def find_hidden_states(
    series: Sequence[np.ndarray],
    kept: Sequence[np.ndarray] | None = None,
    *,
    candidates: Sequence[int] = (1, 2, 3, 4),
    n_components: int = 8,
    n_restarts: int = 5,
    n_iterations: int = 100,
    random_state: int = 0,
) -> HiddenStates:
    """Fit hidden Markov models to the recordings of one subject.

    Parameters
    ----------
    series : list of array, each of shape (n_times, n_units)
        Standardised here, unit by unit and recording by recording.
    kept : list of array of bool, optional
        Samples that are not censored; a gap starts a new sequence.
    candidates : sequence of int
    n_components, n_restarts, n_iterations : int
    random_state : int
    """
    kept = [np.ones(len(one), bool) for one in series] if kept is None else kept
    pieces, places = [], []
    for index, (values, good) in enumerate(zip(series, kept, strict=True)):
        if not np.isfinite(values[good]).all():
            raise InputError(
                "a hidden Markov model needs finite values", where=f"recording {index + 1}",
                found=f"{int((~np.isfinite(values[good])).sum())} that are not",
                expected="finite numbers", fix="censor these samples or leave out these units",
            )  # fmt: skip
        spread = values[good].std(0)
        scaled = (values - values[good].mean(0)) / np.where(spread > 0, spread, 1)
        for rows in _runs(good):
            pieces.append(scaled[rows])
            places.append((index, rows))
    if sum(map(len, pieces)) < 20 * max(candidates) or not pieces:
        raise InputError(
            "too few samples for hidden states", found=f"{sum(map(len, pieces))}",
            expected=f"at least {20 * max(candidates)}", fix="use fewer states",
        )  # fmt: skip
    mean, axes = _components(np.concatenate(pieces), n_components)
    points = [(piece - mean) @ axes.T for piece in pieces]
    held_out: dict[int, float] = {}
    if len(candidates) > 1:
        halves = _stretches(points)
        for k in candidates:
            scores = [
                _fit(train, k, max(2, n_restarts // 2), n_iterations, random_state).score(test)
                / len(test)
                for train, test in halves
            ]
            held_out[k] = float(np.mean(scores))
        n_states = max(held_out, key=lambda k: held_out[k])
    else:
        n_states = candidates[0]
    model = _fit(points, n_states, n_restarts, n_iterations, random_state)
    found = [model.predict_proba(piece).argmax(1) for piece in points]
    order = np.argsort(-np.bincount(np.concatenate(found), minlength=n_states), kind="stable")
    rank = np.argsort(order)
    labels = [np.full(len(values), -1) for values in series]
    for (index, rows), states in zip(places, found, strict=True):
        labels[index][rows] = rank[states]
    covariances = np.einsum("kdn,kdm->knm", np.einsum("kde,en->kdn", model.covars_[order], axes),
                            np.repeat(axes[None], n_states, 0))  # fmt: skip
    spread = np.sqrt(np.maximum(np.einsum("knn->kn", covariances), 1e-12))
    correlations = covariances / spread[:, :, None] / spread[:, None, :]
    return HiddenStates(labels, correlations.astype(np.float32), n_states, held_out)


def held_out_gain(series: np.ndarray, n_states: int, **settings: Any) -> float:
    """Return how much better ``n_states`` predict held-out samples than one, nats a sample."""
    found = find_hidden_states([series], candidates=(1, n_states), **settings).held_out
    return found[n_states] - found[1]


def _runs(good: np.ndarray) -> list[np.ndarray]:
    """Rows of every unbroken stretch of good samples, of two or more."""
    rows = np.flatnonzero(good)
    return [
        part for part in np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1) if len(part) > 1
    ]


def _components(values: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and first principal components, from whichever side of the matrix is smaller."""
    if len(values) <= values.shape[1]:
        return principal_components(values, n)
    mean = values.mean(0)
    vectors = np.linalg.eigh((values - mean).T @ (values - mean))[1]
    return mean, vectors[:, ::-1][:, : min(n, values.shape[1])].T


def _stretches(points: list[np.ndarray]) -> list[tuple[list[np.ndarray], np.ndarray]]:
    """Training pieces and one held-out piece: whole pieces if there are several, else quarters."""
    if len(points) == 1:
        points = np.array_split(points[0], 4)
    longest = sorted(range(len(points)), key=lambda i: -len(points[i]))[:4]
    return [([p for j, p in enumerate(points) if j != i], points[i]) for i in longest]


def _fit(
    points: list[np.ndarray], n_states: int, n_restarts: int, n_iterations: int, random_state: int
) -> Any:
    """Fit from several starts, keep the one that is likeliest on what it was fitted to."""
    from hmmlearn.hmm import GaussianHMM

    logging.getLogger("hmmlearn").setLevel(logging.ERROR)  # it tells of every rounding error
    values, lengths = np.concatenate(points), [len(piece) for piece in points]
    best, best_score = None, -np.inf
    stay = np.full((n_states, n_states), 0.05 / max(n_states - 1, 1))
    np.fill_diagonal(stay, 0.95 if n_states > 1 else 1.0)
    rng = np.random.default_rng(random_state)
    for _ in range(n_restarts if n_states > 1 else 1):
        model = GaussianHMM(
            n_states, covariance_type="full", n_iter=n_iterations, tol=1e-2, init_params="",
            random_state=0, covars_prior=1e-2, min_covar=1e-3,
        )  # fmt: skip
        model.startprob_, model.transmat_ = np.full(n_states, 1 / n_states), stay
        model.means_ = np.zeros((n_states, values.shape[1]))
        # Every state starts as the covariance of other stretches of time.
        blocks = np.array_split(values, 8 * n_states)
        chosen = rng.permutation(len(blocks)).reshape(n_states, -1)[:, :4]
        ridge = 0.1 * np.cov(values.T).reshape(values.shape[1], -1)
        model.covars_ = np.stack(
            [np.cov(np.concatenate([blocks[i] for i in row]).T).reshape(ridge.shape) + ridge
             for row in chosen]
        )  # fmt: skip
        model.fit(values, lengths)
        score = model.score(values, lengths)
        if score > best_score:
            best, best_score = model, score
    return best
