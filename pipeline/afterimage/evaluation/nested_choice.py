"""Choice inside the training trials (Varma & Simon 2006, doi:10.1186/1471-2105-7-91).

The best of several classifiers, taken by the scores it is reported with, is better than it will be
on new data. Here each fold chooses anew, by groups left out of its own training trials, and the
score of the choices is that of the whole procedure. What differs: the inner folds deal the groups
into at most five parts, and a tie goes to the classifier that is named first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

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


def choose_inside(
    classifiers: Mapping[str, Classifier],
    trials: np.ndarray,
    labels: np.ndarray,
    groups: np.ndarray,
    folds: Folds,
    *,
    n_inner: int = 5,
    n_jobs: int = 1,
) -> list[dict[str, float]]:
    """Score classifiers inside the training trials of every fold, groups left out again.

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
    list of dict of str to float
        For every fold the AUC of each classifier; nothing of its test trials went into it.

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
    scores: list[dict[str, float]] = [{} for _ in folds]
    for name, classifier in classifiers.items():
        features = classifier.extract(trials)
        calls = [
            (classifier, features, labels[None], n_classes, fold)
            for part in inner
            for fold in part
        ]
        found = iter(each(n_jobs, fold_evidence, calls))
        for place, part in enumerate(inner):
            areas = []
            for _, test in part:
                evidence = next(found)[0]
                areas += _areas(labels[test], groups[test], evidence)
            scores[place][name] = float(np.mean(areas))
    return scores


def _areas(labels: np.ndarray, groups: np.ndarray, evidence: np.ndarray) -> list[float]:
    """AUC of every group that has two classes, else of all groups together."""
    names = np.unique(groups)
    parts = [groups == name for name in names]
    parts = [rows for rows in parts if len(np.unique(labels[rows])) > 1]
    return [
        float(weighted_auc(labels[rows], evidence[rows], ones(rows[rows]))[0])
        for rows in parts or [np.full(len(labels), True)]
    ]


def combine(choices: Sequence[str], decodings: Mapping[str, Decoding]) -> Decoding:
    """Put together the evidence of the classifier that was chosen for each fold; without a null."""
    first = next(iter(decodings.values()))
    evidence = np.full_like(first.evidence, np.nan)
    for name, (_, test) in zip(choices, first.folds, strict=True):
        evidence[test] = decodings[name].evidence[test]
    return Decoding(first.folds, first.labels, first.groups, evidence, [])
