"""Classifiers weighed inside the training trials (Wolpert 1992, doi:10.1016/S0893-6080(05)80023-1).

The best of several classifiers, taken by the scores it is reported with, is better than it will be
on new data (Varma & Simon 2006, doi:10.1186/1471-2105-7-91). Here each fold weighs them anew, by the
evidence on groups left out of its own training trials, and the score is that of the whole
procedure. Weights, where few people are left out, are steadier than a choice between classifiers
that do about as well. What differs: weights are not below zero (Breiman 1996,
doi:10.1007/BF00117832), those of a logistic regression in which classes count equally, without an
intercept, since the classifiers count classes equally too; the inner folds deal the groups into at
most five parts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from afterimage.evaluation.conditions import (
    Classifier,
    Decoding,
    each,
    fold_evidence,
    ones,
    weighted_auc,
)
from afterimage.evaluation.group_folds import Folds, leave_groups_out


@dataclass(frozen=True)
class Weighing:
    """What one fold made of the classifiers; nothing of its test trials went into it.

    Attributes
    ----------
    weights, scales : dict of str to float
        Of the evidence of each classifier, once divided by its scale.
    auc : dict of str to float
        Of each classifier on the groups left out of the training trials.
    """

    weights: dict[str, float]
    scales: dict[str, float]
    auc: dict[str, float]


def weigh_inside(
    classifiers: Mapping[str, Classifier],
    trials: np.ndarray,
    labels: np.ndarray,
    groups: np.ndarray,
    folds: Folds,
    *,
    n_inner: int = 5,
    n_jobs: int = 1,
) -> list[Weighing]:
    """Weigh classifiers inside the training trials of every fold, groups left out again.

    Parameters
    ----------
    classifiers : dict of str to Classifier
    trials, labels, groups, folds
        As of `cross_validate`.
    n_inner : int
        Inner folds at most: groups are dealt into so many.
    n_jobs : int

    Returns
    -------
    list of Weighing
        One a fold.

    Raises
    ------
    InputError
        If the training trials of a fold are of one group, or of one group a class.
    """
    inner = [
        [
            (train[inside], train[outside])
            for inside, outside in leave_groups_out(
                labels[train], groups[train], max_folds=n_inner
            )
        ]
        for train, _ in folds
    ]
    n_classes = int(labels.max()) + 1
    areas: list[dict[str, float]] = [{} for _ in folds]
    evidence: list[list[np.ndarray]] = [[] for _ in folds]
    for name, classifier in classifiers.items():
        features = classifier.extract(trials)
        calls = [
            (classifier, features, labels[None], n_classes, fold)
            for part in inner
            for fold in part
        ]
        found = iter(each(n_jobs, fold_evidence, calls))
        for place, part in enumerate(inner):
            own = [next(found)[0] for _ in part]
            areas[place][name] = float(np.mean([
                area
                for (_, test), one in zip(part, own, strict=True)
                for area in _areas(labels[test], groups[test], one)
            ]))  # fmt: skip
            evidence[place].append(np.concatenate(own))
    weighings = []
    for part, own, auc in zip(inner, evidence, areas, strict=True):
        rows = np.concatenate([test for _, test in part])
        scales = np.array([max(float(np.std(one)), 1e-12) for one in own])
        weights = weights_of(np.stack(own) / scales[:, None, None], labels[rows])
        named = (
            dict(zip(classifiers, values.tolist(), strict=True)) for values in (weights, scales)
        )
        weighings.append(Weighing(*named, auc))
    return weighings


def weights_of(evidence: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Weights of evidence, by logistic regression with weights not below zero.

    The mean log-loss, classes counting equally, and the squared weights over twice the number of
    trials, are least together.

    Parameters
    ----------
    evidence : array of shape (n_classifiers, n_trials, n_classes)
        On trials that had no part in the fit; of like scale.
    labels : array of int, shape (n_trials,)

    Returns
    -------
    array of shape (n_classifiers,)
    """
    from scipy.optimize import minimize
    from scipy.special import log_softmax, softmax

    n_classifiers, n_trials, n_classes = evidence.shape
    centred = evidence - evidence.mean(axis=2, keepdims=True)
    right = np.eye(n_classes)[labels]
    counts = right.sum(axis=0)
    share = 1 / (counts[labels] * (counts > 0).sum())

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        logits = np.tensordot(weights, centred, 1)
        least = -float(share @ (right * log_softmax(logits, axis=1)).sum(axis=1))
        wrong = share[:, None] * (softmax(logits, axis=1) - right)
        gradient = np.einsum("knc,nc->k", centred, wrong) + weights / n_trials
        return least + 0.5 * float(weights @ weights) / n_trials, gradient

    start = np.full(n_classifiers, 1 / n_classifiers)
    bounds = [(0, None)] * n_classifiers
    found: np.ndarray = minimize(loss, start, jac=True, bounds=bounds, method="L-BFGS-B").x
    return found


def stack(weighings: Sequence[Weighing], decodings: Mapping[str, Decoding]) -> Decoding:
    """Put together the evidence of all classifiers, weighed as each fold did; without a null."""
    first = next(iter(decodings.values()))
    evidence = np.full_like(first.evidence, np.nan)
    for weighing, (_, test) in zip(weighings, first.folds, strict=True):
        parts = [
            weight / weighing.scales[name] * decodings[name].evidence[test]
            for name, weight in weighing.weights.items()
        ]
        evidence[test] = np.sum(parts, axis=0)
    return Decoding(first.folds, first.labels, first.groups, evidence, [])


def _areas(labels: np.ndarray, groups: np.ndarray, evidence: np.ndarray) -> list[float]:
    """AUC of every group that has two classes, else of all groups together."""
    names = np.unique(groups)
    parts = [groups == name for name in names]
    parts = [rows for rows in parts if len(np.unique(labels[rows])) > 1]
    return [
        float(weighted_auc(labels[rows], evidence[rows], ones(rows[rows]))[0])
        for rows in parts or [np.full(len(labels), True)]
    ]
