"""Scores of predicted phenotypes (intervals: Nichols and Holmes 2002, doi:10.1002/hbm.1058).

A score has two intervals. That of the bootstrap takes the predictions as they are and says how much
the score varies over people. That of permutations says how far scores of labels that cannot be
predicted spread about their mean, and holds chance where the permutation test, two-sided and corrected
for the number of tries, finds nothing; training people are drawn anew in effect, so it is wider.

What differs: permutations give an interval by taking their spread as that of the score too, which is
too wide where prediction is good; chance is their mean, not 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from afterimage.evaluation.fingerprint import Score
from afterimage.evaluation.phenotypes import Folds
from afterimage.evaluation.statistics import chance_of


@dataclass(frozen=True)
class TriedScore(Score):
    """A score among several tries.

    Attributes
    ----------
    ci_all_low, ci_all_high : float
        Interval of permutations at 95 % for all tries together (Bonferroni).
    """

    ci_all_low: float
    ci_all_high: float


def correlation(truth: np.ndarray, guess: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Correlate columns, with a weight a row; (n_rows, n_columns) each, columns may be one."""
    total = weights.sum(axis=0)
    a = truth - (weights * truth).sum(axis=0) / total
    b = guess - (weights * guess).sum(axis=0) / total
    length = np.sqrt((weights * a * a).sum(axis=0) * (weights * b * b).sum(axis=0))
    flat = length < 1e-12  # a constant prediction knows nothing
    return np.asarray((weights * a * b).sum(axis=0) / np.where(flat, 1, length) * ~flat)


def explained(truth: np.ndarray, guess: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Share of the variance that is explained, 1 - SS(y - f) / SS(y - mean); as `correlation`."""
    total = weights.sum(axis=0)
    spread = (weights * np.square(truth - (weights * truth).sum(axis=0) / total)).sum(axis=0)
    error = (weights * np.square(truth - guess)).sum(axis=0)
    return np.asarray(1 - error / np.where(spread > 0, spread, np.nan))


def balanced_accuracy(truth: np.ndarray, guess: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mean over classes of the share that is right.

    Parameters
    ----------
    truth, guess : array of shape (n_rows, n_columns, n_classes)
        Indicators, and outputs of which the largest is taken.
    weights : array of shape (n_rows, n_columns)
    """
    right = guess.argmax(axis=2) == truth.argmax(axis=2)
    of_class = weights[:, :, None] * truth  # (n_rows, n_columns, n_classes)
    total = of_class.sum(axis=0)
    share = (of_class * right[:, :, None]).sum(axis=0) / np.where(total > 0, total, np.nan)
    return np.asarray(np.nanmean(share, axis=1))


def auc(truth: np.ndarray, guess: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Share of pairs of the two classes in which the second class has the higher output.

    As `balanced_accuracy`; ties count half.
    """
    value, label = np.broadcast_arrays(guess[:, :, 1], truth[:, :, 1])
    n_columns = max(value.shape[1], weights.shape[1])
    result = np.empty(n_columns)
    for column in range(n_columns):
        one, many = column % value.shape[1], column % weights.shape[1]
        _, rank = np.unique(value[:, one], return_inverse=True)
        positive = np.bincount(rank, weights[:, many] * label[:, one])
        negative = np.bincount(rank, weights[:, many] * (1 - label[:, one]))
        below = np.cumsum(negative) - negative / 2
        pairs = positive.sum() * negative.sum()
        result[column] = (positive * below).sum() / pairs if pairs > 0 else np.nan
    return result


METRICS = {"r": correlation, "r2": explained, "balanced_accuracy": balanced_accuracy, "auc": auc}
#: What they lie between.
BOUNDS = {
    "r": (-1.0, 1.0),
    "r2": (-np.inf, 1.0),
    "balanced_accuracy": (0.0, 1.0),
    "auc": (0.0, 1.0),
}


def score(
    truth: np.ndarray,
    guess: np.ndarray,
    folds: Folds,
    metric: str,
    *,
    n_tries: int = 1,
    n_bootstraps: int = 1000,
    random_state: int = 0,
) -> TriedScore:
    """Score predictions, with an interval over groups and chance from permuted labels.

    Parameters
    ----------
    truth : array of shape (n_rows, 1 + n_permutations[, n_classes])
        The labels as they are, then permuted.
    guess : array of shape (n_repeats, n_rows, 1 + n_permutations[, n_classes])
        From `cross_validate`.
    folds : Folds
    metric : str
        A key of `METRICS`; scores of repeats are averaged.
    n_tries : int
        Sets of features that were tried.
    n_bootstraps, random_state : int

    Returns
    -------
    TriedScore
        ``p`` is one-sided, (1 + permutations at least as good) / (1 + n_permutations).
    """
    measure = METRICS[metric]
    names, place = np.unique(folds.groups, return_inverse=True)
    n_groups = len(names)
    drawn = np.random.default_rng(random_state).integers(0, n_groups, (n_bootstraps, n_groups))
    drawn += n_groups * np.arange(n_bootstraps)[:, None]
    counts = np.bincount(drawn.ravel(), minlength=n_bootstraps * n_groups)
    weights = counts.reshape(n_bootstraps, n_groups)[:, place].T.astype(float)
    even = np.ones((len(truth), 1))
    if metric == "r2":  # needs predictions in the units of the truth
        guess = guess.copy()
        for one, parts in zip(guess, folds.repeats, strict=False):
            for train, test in parts:
                one[test] += truth[train].mean(axis=0)
    all_of = np.mean([measure(truth, one, even) for one in guess], axis=0)
    resampled = np.mean([measure(truth[:, :1], one[:, :1], weights) for one in guess], axis=0)
    value, null = float(all_of[0]), all_of[1:]
    low, high = np.nanquantile(resampled, [0.025, 0.975])
    chance = chance_of(value, null)
    all_low, all_high = _permutation_interval(value, null, n_tries, BOUNDS[metric])
    return TriedScore(
        metric, value, float(low), float(high), chance.mean, chance.low, chance.high, chance.p,
        len(truth), all_low, all_high,
    )  # fmt: skip


def _permutation_interval(
    value: float, null: np.ndarray, n_tries: int, bounds: tuple[float, float]
) -> tuple[float, float]:
    """Return ``value`` less what the null reaches above its mean, and plus what it reaches below."""
    if not len(null):
        return float("nan"), float("nan")
    # As many permutations may be beyond as in p: (1 + extreme) / (1 + permutations).
    k = int(0.025 / n_tries * (len(null) + 1))
    if not k:
        return bounds  # too few permutations to say anything of so many tries
    ranks = np.sort(null)
    below, above = float(ranks[k - 1]), float(ranks[-k])
    mean = float(null.mean())
    return max(value - (above - mean), bounds[0]), min(value + (mean - below), bounds[1])
