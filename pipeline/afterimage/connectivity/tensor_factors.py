"""Factors of connectivity over time and people (Dyballa et al. 2024, ICLR, arXiv:2402.14102).

The co-activation of every pair of units, at every time, in every person, is a tensor that is not
negative. It is approximated by a sum of few components, each the product of a weight for every unit
(twice), every time and every person:

    K[i, j, t, p] ~ sum_r w_r a_r[i] b_r[j] c_r[t] d_r[p],    all >= 0.

Fitted by hierarchical alternating least squares (tensorly; Cichocki and Phan 2009,
doi:10.1587/transfun.E92.A.708).

What differs: the affinity is the mean product of half-rectified standardised series in a window. The
diagonal, which says nothing about pairs, and what is held out are filled in by the model between
updates (expectation maximisation). The best of several starts is kept, and how alike the starts are is
part of the result: a solution that is not unique is no finding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from afterimage.errors import InputError


@dataclass(frozen=True, eq=False)
class Factors:
    """Components of a tensor, the largest first.

    Attributes
    ----------
    weights : array of shape (rank,)
        Norm of each component.
    factors : list of array, each of shape (n_of_the_mode, rank)
        Columns of length 1.
    relative_error : float
        Norm of what is not explained over that of the tensor, over what was fitted.
    match_score : float
        Mean of `factor_match_score` of the other starts with the best; NaN for one start.
    """

    weights: np.ndarray
    factors: list[np.ndarray]
    relative_error: float
    match_score: float = float("nan")

    def tensor(self) -> np.ndarray:
        """Return the sum of the components, of the shape of the tensor."""
        return _rebuild(self.weights, self.factors)


def affinity_tensor(
    series: Sequence[np.ndarray], window: int, *, step: int | None = None
) -> np.ndarray:
    """Compute the co-activation of pairs of units over time, for people whose times agree.

    Parameters
    ----------
    series : sequence of array of shape (n_times, n_units)
        One a person, of the same times; longer ones are cut to the shortest.
    window : int
        Samples that are averaged.
    step : int, optional
        Samples from one window to the next; default: ``window``.

    Returns
    -------
    array of shape (n_units, n_units, n_windows, n_people), float32
        Mean over the window of z+_i z+_j, z+ the positive part of standardised series; diagonal 0.

    Raises
    ------
    InputError
        If values are not finite, a unit does not vary, units differ, or the window is too long.
    """
    n_times = min(len(values) for values in series)
    n_units = {values.shape[1] for values in series}
    if len(n_units) > 1 or n_times < 2 * window:
        raise InputError(
            "series cannot be put into one tensor",
            found=f"{sorted(n_units)} units, {n_times} samples in the shortest",
            expected=f"the same units, and two windows of {window} samples or more",
            fix="use one atlas, leave short recordings out, or use a shorter window",
        )  # fmt: skip
    starts = np.arange(0, n_times - window + 1, step or window)
    size = n_units.pop()
    tensor = np.empty((size, size, len(starts), len(series)), dtype=np.float32)
    for person, values in enumerate(series):
        cut = np.asarray(values[:n_times], dtype=np.float64)
        spread = cut.std(axis=0)
        if not np.isfinite(cut).all() or not (spread > 1e-9 * np.abs(cut.mean(axis=0))).all():
            raise InputError(
                "a series cannot be compared over time", where=f"person {person + 1}",
                found="units that do not vary, or values that are no finite numbers",
                expected="finite numbers that change", fix="drop these units",
            )  # fmt: skip
        active = np.maximum((cut - cut.mean(axis=0)) / spread, 0.0)
        for index, start in enumerate(starts.tolist()):
            part = active[start : start + window]
            tensor[:, :, index, person] = part.T @ part / window
    tensor[np.arange(size), np.arange(size)] = 0.0
    return tensor


def fit_factors(
    tensor: np.ndarray,
    rank: int,
    *,
    missing: np.ndarray | None = None,
    n_starts: int = 5,
    n_iter_max: int = 100,
    n_fills: int = 10,
    random_state: int = 0,
) -> Factors:
    """Fit the components, from several random starts.

    Parameters
    ----------
    tensor : array
        Not negative, finite.
    rank : int
        Components.
    missing : array of bool, of the shape of the tensor, optional
        Entries that are not fitted, as the diagonal.
    n_starts : int
        The start with the smallest error is kept.
    n_iter_max : int
        Updates of all factors.
    n_fills : int
        How often what is missing is filled in anew, where something is.
    random_state : int

    Returns
    -------
    Factors

    Raises
    ------
    InputError
        If a value is negative or not finite, or all are 0.
    """
    values = np.asarray(tensor, dtype=np.float64)
    if not np.isfinite(values).all() or values.min() < 0 or not values.any():
        raise InputError(
            "a tensor cannot be factored",
            found="values that are negative or no finite numbers, or nothing but 0",
            expected="finite numbers from 0 on", fix="see how affinities were computed",
        )  # fmt: skip
    found = [
        _one_start(values, rank, missing, n_iter_max, n_fills, random_state + start)
        for start in range(n_starts)
    ]
    best = min(found, key=lambda start: start.relative_error)
    others = [factor_match_score(best, start) for start in found if start is not best]
    score = float(np.mean(others)) if others else float("nan")
    return Factors(best.weights, best.factors, best.relative_error, score)


def _one_start(
    values: np.ndarray,
    rank: int,
    missing: np.ndarray | None,
    n_iter_max: int,
    n_fills: int,
    seed: int,
) -> Factors:
    from tensorly.cp_tensor import CPTensor
    from tensorly.decomposition import non_negative_parafac_hals

    rng = np.random.default_rng(seed)
    # Entries of the start sum to those of the tensor, in the mean.
    level = (values.mean() / rank) ** (1 / values.ndim) * 2
    model: Any = CPTensor((np.ones(rank), [level * rng.random((n, rank)) for n in values.shape]))
    hidden = missing if missing is not None and missing.any() else None
    filled = values
    for _ in range(1 if hidden is None else n_fills):
        if hidden is not None:
            filled = np.where(hidden, _rebuild(*model), values)
        model = non_negative_parafac_hals(
            filled, rank, init=model, tol=1e-7,
            n_iter_max=n_iter_max if hidden is None else max(1, n_iter_max // n_fills),
        )  # fmt: skip
    weights, factors = np.asarray(model[0], dtype=np.float64), []
    for factor in model[1]:
        length = np.linalg.norm(factor, axis=0)
        factors.append(factor / np.where(length > 0, length, 1.0))
        weights = weights * length
    order = np.argsort(-weights, kind="stable")
    weights, factors = weights[order], [factor[:, order] for factor in factors]
    left = values - _rebuild(weights, factors)
    used = ~missing if missing is not None else np.ones(values.shape, dtype=bool)
    return Factors(
        weights, factors, float(np.linalg.norm(left[used]) / np.linalg.norm(values[used]))
    )


def _rebuild(weights: np.ndarray, factors: Sequence[np.ndarray]) -> np.ndarray:
    from tensorly import cp_to_tensor

    return np.asarray(cp_to_tensor((np.asarray(weights), list(factors))))


def factor_match_score(first: Factors, second: Factors) -> float:
    """Say how alike two solutions are, whatever the order and scale of their components.

    Returns
    -------
    float
        Mean over matched components of the product over modes of the cosine between factors;
        1 for the same.
    """
    from scipy.optimize import linear_sum_assignment

    alike = np.ones((len(first.weights), len(second.weights)))
    for a, b in zip(first.factors, second.factors, strict=True):
        alike = alike * np.abs(a.T @ b)
    rows, columns = linear_sum_assignment(-alike)
    return float(alike[rows, columns].sum() / max(alike.shape))


def leave_one_out_scores(
    tensor: np.ndarray,
    factors: Factors,
    *,
    missing: np.ndarray | None = None,
    people: Sequence[int] | None = None,
    n_starts: int = 1,
    n_iter_max: int = 100,
    random_state: int = 0,
) -> np.ndarray:
    """Fit without one person at a time, and say how alike every component stays.

    A component that goes with a person is that person's, not the group's.

    Parameters
    ----------
    tensor : array
        As for `fit_factors`; the last mode is people.
    factors : Factors
        Fitted to all of it.
    missing : array of bool, of the shape of the tensor, optional
    people : sequence of int, optional
        Who is left out; default: everybody.
    n_starts, n_iter_max, random_state
        As for `fit_factors`; starts are random, and know nothing of ``factors``.

    Returns
    -------
    array of shape (n_left_out, rank)
        Product over the modes but people of the cosine of each component with the one that it is
        matched to.
    """
    from scipy.optimize import linear_sum_assignment

    n_people = tensor.shape[-1]
    rows = []
    for person in range(n_people) if people is None else people:
        others = np.arange(n_people) != person
        again = fit_factors(
            tensor[..., others], len(factors.weights),
            missing=None if missing is None else missing[..., others],
            n_starts=n_starts, n_iter_max=n_iter_max, random_state=random_state,
        )  # fmt: skip
        alike = np.ones((len(factors.weights), len(again.weights)))
        for a, b in zip(factors.factors[:-1], again.factors[:-1], strict=True):
            alike = alike * np.abs(a.T @ b)
        row, column = linear_sum_assignment(-alike)
        rows.append(alike[row, column])
    return np.array(rows)


def effective_people(factors: Factors) -> np.ndarray:
    """Return how many people make up each component, (rank,): exp of the entropy of their shares.

    1 for a component of one person alone, the number of people where all have the same.
    """
    share = factors.factors[-1] / factors.factors[-1].sum(axis=0)
    logs = np.log(np.where(share > 0, share, 1.0))
    return np.asarray(np.exp(-(share * logs).sum(axis=0)))


def held_out_errors(
    tensor: np.ndarray,
    ranks: Sequence[int],
    *,
    missing: np.ndarray | None = None,
    share: float = 0.1,
    n_iter_max: int = 100,
    random_state: int = 0,
) -> np.ndarray:
    """Compute the error on entries that were not fitted, for several ranks.

    Parameters
    ----------
    tensor : array
        As for `fit_factors`; of a tensor whose first two modes are the same, both entries of a pair
        are held out together.
    ranks : sequence of int
    missing : array of bool, of the shape of the tensor, optional
        Entries that are neither fitted nor scored.
    share : float
        Of the entries that are held out.
    n_iter_max, random_state
        As for `fit_factors`, one start each.

    Returns
    -------
    array of shape (n_ranks,)
        Norm of the error over that of the values held out.
    """
    rng = np.random.default_rng(random_state)
    held = rng.random(tensor.shape) < share
    if tensor.shape[0] == tensor.shape[1]:
        lower = np.tril_indices(tensor.shape[0], -1)
        held[lower] = held.swapaxes(0, 1)[lower]
    nothing = np.zeros(tensor.shape, dtype=bool) if missing is None else missing
    held &= ~nothing
    errors = []
    for rank in ranks:
        fitted = fit_factors(
            tensor, rank, missing=held | nothing, n_starts=1, n_iter_max=n_iter_max,
            random_state=random_state,
        )  # fmt: skip
        left = (np.asarray(tensor, dtype=np.float64) - fitted.tensor())[held]
        errors.append(np.linalg.norm(left) / np.linalg.norm(tensor[held]))
    return np.array(errors)


def communities(factors: Factors) -> np.ndarray:
    """Return the component that each unit belongs to most, (n_units,) int, -1 for none.

    The two factors of units are averaged, as the affinity is symmetric; each component is scaled to
    a maximum of 1, so that a strong one does not take all units.
    """
    weights = (factors.factors[0] + factors.factors[1]) / 2
    top = weights.max(axis=0)
    scaled = weights / np.where(top > 0, top, 1.0)
    return np.where(scaled.max(axis=1) > 0, scaled.argmax(axis=1), -1)
