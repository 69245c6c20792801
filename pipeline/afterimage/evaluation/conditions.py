"""How well the conditions of trials are told apart, on groups of trials the fit has not seen.

Groups (runs, sessions, people) are left out in turn. AUC (Hanley & McNeil 1982,
doi:10.1148/radiology.143.1.7063747) and balanced accuracy are computed within each group left out
and averaged, because the evidence of different fits has no common scale. Chance: labels permuted
within groups, everything refitted (Ojala & Garriga 2010, jmlr.org/papers/v11/ojala10a.html), since
the scores of folds that share training trials are not independent. Two audits stand beside every
score: the same classifier before the stimulus, and people left out against trials drawn at random.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np

from afterimage.errors import InputError
from afterimage.evaluation.group_folds import Folds, permute_labels
from afterimage.evaluation.statistics import chance_of

METRICS = ("auc", "balanced_accuracy")
#: What is drawn with replacement for an interval.
Resampled = Literal["groups", "trials"]


class Classifier(Protocol):
    """What is asked of a classifier of conditions; see `afterimage.decoding.conditions`."""

    def extract(self, trials: np.ndarray) -> np.ndarray:
        """Return what each trial tells alone."""

    def label_free(self) -> Any:
        """Return an unfitted transformer that needs no labels."""

    def fit_model(self, features: np.ndarray, labels: np.ndarray) -> Any:
        """Return a fitted scikit-learn classifier."""


@dataclass(frozen=True)
class Score:
    """One metric of one classifier, with what it takes to judge it.

    Attributes
    ----------
    value, ci_low, ci_high : float
        Mean over the groups left out, and its percentile interval.
    chance, chance_low, chance_high, p : float
        Mean and 2.5 % and 97.5 % quantiles over permuted labels, and the share of permutations at
        least as good, one added to both counts; NaN but for ``chance`` without permutations.
    per_group : dict of str to float
        Value in each group left out.
    """

    value: float
    ci_low: float
    ci_high: float
    chance: float
    chance_low: float
    chance_high: float
    p: float
    per_group: dict[str, float]

    @property
    def above_chance(self) -> bool:
        """Whether the whole interval lies above chance."""
        return self.ci_low > self.chance


@dataclass(frozen=True)
class Decoding:
    """Cross-validated evidence on every trial.

    Attributes
    ----------
    folds : list of (train, test)
    labels : array of int, shape (n_trials,)
        Numbers of the classes, from 0.
    groups : array of str, shape (n_trials,)
    evidence : array of shape (n_trials, n_classes)
        From the fit that has not seen the trial, larger for the more likely class; NaN for trials
        never left out. No probabilities: they saturate, and ties cost area under the curve.
    null : list of (labels, evidence)
        The same with labels permuted.
    """

    folds: Folds
    labels: np.ndarray
    groups: np.ndarray
    evidence: np.ndarray
    null: list[tuple[np.ndarray, np.ndarray]]


def cross_validate(
    classifier: Classifier,
    trials: np.ndarray,
    labels: np.ndarray,
    groups: np.ndarray,
    folds: Folds,
    *,
    n_permutations: int = 0,
    random_state: int = 0,
    n_jobs: int = 1,
) -> Decoding:
    """Fit on the training trials of every fold and weigh the evidence on those left out.

    Parameters
    ----------
    classifier : Classifier
    trials : array of shape (n_trials, n_channels, n_times)
    labels : array of int, shape (n_trials,)
        Numbers of the classes, 0 to n_classes - 1.
    groups : array of str, shape (n_trials,)
    folds : list of (train, test)
    n_permutations : int
        Further passes with labels permuted by `permute_labels`.
    random_state : int

    n_jobs : int
        Processes; the result does not depend on it.

    Returns
    -------
    Decoding
    """
    features = classifier.extract(trials)
    random = np.random.default_rng(random_state)
    permuted = [permute_labels(labels, groups, random) for _ in range(n_permutations)]
    labellings = np.array([labels, *permuted])
    n_blocks = min(len(labellings), -(-n_jobs // len(folds)))
    tasks = [
        (fold, block)
        for fold in folds
        for block in np.array_split(np.arange(len(labellings)), n_blocks)
    ]
    n_classes = int(labels.max()) + 1
    parts = each(
        n_jobs,
        fold_evidence,
        [(classifier, features, labellings[block], n_classes, fold) for fold, block in tasks],
    )
    found = np.full((len(labellings), len(labels), n_classes), np.nan)
    for ((_, test), block), evidence in zip(tasks, parts, strict=True):
        found[np.ix_(block, test)] = evidence
    return Decoding(
        folds, labels, groups, found[0], list(zip(labellings[1:], found[1:], strict=True))
    )


def each(n_jobs: int, function: Callable[..., Any], calls: Sequence[tuple[Any, ...]]) -> list[Any]:
    """Call a function with each of several sets of arguments, in processes where asked."""
    if n_jobs == 1 or len(calls) == 1:
        return [function(*call) for call in calls]
    from joblib import Parallel, delayed

    return list(Parallel(n_jobs=n_jobs)(delayed(function)(*call) for call in calls))


def fold_evidence(
    classifier: Classifier,
    features: np.ndarray,
    labellings: np.ndarray,
    n_classes: int,
    fold: tuple[np.ndarray, np.ndarray],
) -> np.ndarray:
    """Evidence on the test trials of one fold for each labelling, (n_labellings, n_test, n_classes)."""
    train, test = fold
    transformer = classifier.label_free().fit(features[train])
    known, asked = (transformer.transform(features[part]) for part in (train, test))
    found = np.zeros((len(labellings), len(test), n_classes))
    for number, labelling in enumerate(labellings):
        # A permuted class may be absent from a training part: it is then the least likely.
        if len(np.unique(labelling[train])) < 2:
            continue
        model = classifier.fit_model(known, labelling[train])
        evidence = np.asarray(model.decision_function(asked), np.float64)
        if evidence.ndim == 1:
            evidence = np.stack([-evidence, evidence], axis=1)
        found[number] = evidence.min() - 1
        found[number][:, np.asarray(model.classes_, int)] = evidence
    return found


def score(
    decoding: Decoding,
    metric: str,
    *,
    resampled: Resampled = "trials",
    n_bootstraps: int = 1000,
    level: float = 0.95,
    random_state: int = 0,
) -> Score:
    """Score cross-validated evidence.

    Parameters
    ----------
    decoding : Decoding
    metric : {"auc", "balanced_accuracy"}
        AUC of more than two classes: the mean over classes of one against the rest.
    resampled : {"trials", "groups"}
        What the interval says something about: other trials of these groups (drawn within group
        and class), or other groups (drawn as wholes). The second for people.
    n_bootstraps, level, random_state

    Returns
    -------
    Score
    """
    cells = _cells(decoding, decoding.labels)
    if not cells:
        raise InputError(
            "no group left out holds two classes", found="one class a group",
            expected="trials of two classes in at least one group",
            fix="choose another column of groups, or other conditions",
        )  # fmt: skip
    compute = _METRICS[metric]
    values = {
        name: float(compute(decoding.labels[rows], decoding.evidence[rows], ones(rows))[0])
        for name, rows in cells
    }
    observed = float(np.mean(list(values.values())))
    means = _bootstrap(decoding, cells, compute, resampled, n_bootstraps, random_state)
    low, high = (
        np.quantile(means, [(1 - level) / 2, (1 + level) / 2]) if len(means) else (np.nan,) * 2
    )
    theory = 0.5 if metric == "auc" else 1 / decoding.evidence.shape[1]
    # With whole groups relabelled, every group left out may be of one class: nothing to score.
    null = np.array([
        np.mean([compute(labels[rows], evidence[rows], ones(rows))[0] for _, rows in parts])
        for labels, evidence in decoding.null
        if (parts := _cells(decoding, labels))
    ])  # fmt: skip
    chance = chance_of(observed, null)
    return Score(
        observed, float(low), float(high), chance.mean if len(null) else theory, chance.low,
        chance.high, chance.p, values,
    )  # fmt: skip


def _cells(decoding: Decoding, labels: np.ndarray) -> list[tuple[str, np.ndarray]]:
    """Name and rows of the parts within which evidence is compared: one a fold."""
    parts = [test for _, test in decoding.folds]
    names = ["+".join(np.unique(decoding.groups[test]).tolist()) for test in parts]
    if len(set(names)) < len(names) or any(name.count("+") > 1 for name in names):
        names = [f"fold {number + 1}" for number in range(len(parts))]
    return [
        (name, test)
        for name, test in zip(names, parts, strict=True)
        if len(np.unique(labels[test])) > 1
    ]


def ones(rows: np.ndarray) -> np.ndarray:
    """Return the weights of trials that count once, (1, n_rows)."""
    return np.ones((1, len(rows)))


def weighted_auc(labels: np.ndarray, evidence: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Area under the ROC curve for each set of weights, ties counting one half.

    Parameters
    ----------
    labels : array of int, shape (n,)
    evidence : array of shape (n, n_classes)
    weights : array of shape (n_sets, n)
        How often each trial counts; every class of ``labels`` has some in every set.

    Returns
    -------
    array of shape (n_sets,)
    """
    n_classes = evidence.shape[1]
    wanted = [1] if n_classes == 2 else np.unique(labels).tolist()
    areas = []
    for label in wanted:
        positive = labels == label
        values = evidence[:, label]
        order = np.sign(values[positive][:, None] - values[~positive][None, :])
        of, rest = weights[:, positive], weights[:, ~positive]
        wins = np.einsum("bi,ij,bj->b", of, (order + 1) / 2, rest, optimize=True)
        areas.append(wins / (of.sum(1) * rest.sum(1)))
    return np.asarray(np.mean(areas, axis=0))


def weighted_balanced_accuracy(
    labels: np.ndarray, evidence: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """Mean over classes of the share of trials told right; arguments as `weighted_auc`."""
    right = evidence.argmax(axis=1) == labels
    shares = []
    for label in np.unique(labels):
        own = weights[:, labels == label]
        shares.append(own @ right[labels == label] / own.sum(1))
    return np.asarray(np.mean(shares, axis=0))


_METRICS: dict[str, Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]] = {
    "auc": weighted_auc,
    "balanced_accuracy": weighted_balanced_accuracy,
}


def _bootstrap(
    decoding: Decoding,
    cells: Sequence[tuple[str, np.ndarray]],
    compute: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray],
    resampled: Resampled,
    n_bootstraps: int,
    random_state: int,
) -> np.ndarray:
    """Means over cells of resampled data, (n_bootstraps,); empty where nothing can be drawn."""
    random = np.random.default_rng(random_state)
    labels, evidence = decoding.labels, decoding.evidence
    if resampled == "groups":
        if len(cells) < 2:
            return np.empty(0)
        values = np.array([
            compute(labels[rows], evidence[rows], ones(rows))[0] for _, rows in cells
        ])  # fmt: skip
        drawn = random.integers(0, len(values), size=(n_bootstraps, len(values)))
        return np.asarray(values[drawn].mean(axis=1))
    means = np.zeros(n_bootstraps)
    for _, rows in cells:
        weights = np.zeros((n_bootstraps, len(rows)))
        for label in np.unique(labels[rows]):
            own = np.flatnonzero(labels[rows] == label)
            weights[:, own] = random.multinomial(
                len(own), np.full(len(own), 1 / len(own)), size=n_bootstraps
            )
        means += compute(labels[rows], evidence[rows], weights) / len(cells)
    return means


def alarm_window(
    times_s: np.ndarray, latest_s: float = 0.0, first_s: float = 0.031
) -> tuple[float, float, str]:
    """Return the window in which nothing of the stimulus can be in the brain yet.

    The samples before ``latest_s``; where the trials have fewer than two of them, the first
    ``first_s`` seconds of the trial, before the cortex answers.

    Returns
    -------
    tmin_s, tmax_s : float
    what : str
        ``before the stimulus`` or ``first samples``.
    """
    before = np.flatnonzero(times_s < latest_s - 1e-9)
    if len(before) > 1:
        return float(times_s[0]), float(times_s[before[-1]]), "before the stimulus"
    first = times_s[times_s <= times_s[0] + first_s + 1e-9]
    first = first if len(first) > 1 else times_s[:2]
    return float(first[0]), float(first[-1]), "first samples"


def describe_groups(labels: np.ndarray, groups: np.ndarray) -> Iterator[dict[str, Any]]:
    """Yield the number of trials of each class in each group, for the record."""
    for name in np.unique(groups):
        kinds, counts = np.unique(labels[groups == name], return_counts=True)
        yield {"group": str(name), **{str(k): int(n) for k, n in zip(kinds, counts, strict=True)}}
