"""Probes of the label of trials over folds of people: on frozen features, and what was trained.

The ridge probe of `afterimage.evaluation.probes`, its penalty chosen inside each fold by people left
out of the training part, as evidence for `afterimage.evaluation.conditions.score`: probes, trained
networks and classifiers of signals then stand in one table, on the same folds. Trials of people
that a pretrained model has seen and of others are never in one fold, so that they are scored apart.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from afterimage.errors import InputError
from afterimage.evaluation.conditions import Decoding, Score
from afterimage.evaluation.group_folds import (
    Folds,
    label_of_group,
    leave_groups_out,
    permute_labels,
)
from afterimage.evaluation.probes import even_evidence, nested_guesses, standardised
from afterimage.evaluation.statistics import bootstrap_interval


def folds_by_side(
    labels: NDArray[np.integer], groups: NDArray[np.str_], sides: NDArray[np.str_], n_folds: int
) -> tuple[dict[str, Folds], list[str]]:
    """Return folds in which all test trials are of one side, by the name of the side.

    Training parts hold every trial of the groups not left out, of either side.

    Parameters
    ----------
    labels, groups, sides : ndarray, (n_trials,)
    n_folds : int
        Of each side, at most.

    Returns
    -------
    folds : dict of str to list of (train, test)
    notes : list of str
        Which sides cannot be scored, and why.
    """
    found: dict[str, Folds] = {}
    notes: list[str] = []
    everyone = np.arange(len(labels))
    for side in np.unique(sides):
        rows = np.flatnonzero(sides == side)
        tests = [rows]
        if len(np.unique(groups[rows])) > 1:
            try:
                inner = leave_groups_out(labels[rows], groups[rows], n_folds, n_folds)
            except InputError as error:
                notes.append(f"seen {side}: not scored, {error.what} ({error.found})")
                continue
            tests = [rows[test] for _, test in inner]
        folds = []
        for test in tests:
            train = everyone[~np.isin(groups, groups[test])]
            if set(labels[train]) == set(labels.tolist()) and len(np.unique(labels[test])) > 1:
                folds.append((train, test))
        if folds:
            found[str(side)] = folds
        else:
            notes.append(f"seen {side}: not scored, no group left out holds two classes")
    return found, notes


def by_group(folds: Folds, labels: NDArray[np.integer], groups: NDArray[np.str_]) -> Folds:
    """Part the test trials of folds by group, for scores and intervals over groups.

    Where the label is the group's own, a group alone tells no classes apart: folds stay whole.
    """
    if label_of_group(labels, groups):
        return folds
    return [
        (train, test[groups[test] == name])
        for train, test in folds
        for name in np.unique(groups[test])
    ]


def ridge_decoding(
    features: NDArray[np.floating],
    labels: NDArray[np.integer],
    groups: NDArray[np.str_],
    folds: Folds,
    *,
    n_permutations: int = 0,
    random_state: int = 0,
) -> Decoding:
    """Probe frozen features; labels permuted within groups are further columns of the regressions.

    Parameters
    ----------
    features : ndarray, (n_trials, n_features)
    labels : ndarray of int, (n_trials,)
        Numbers of the classes, from 0.
    groups : ndarray of str, (n_trials,)
    folds : list of (train, test)
    n_permutations, random_state : int
    """
    random = np.random.default_rng(random_state)
    drawn = [labels, *(permute_labels(labels, groups, random) for _ in range(n_permutations))]
    n_classes = int(labels.max()) + 1
    one_hot = np.eye(n_classes)
    found = np.full((len(drawn), len(labels), n_classes), np.nan)
    for train, test in folds:
        rows = np.concatenate([train, test])
        x_train, x_test = standardised(
            np.asarray(features[rows], np.float64), np.arange(len(rows)) < len(train)
        )
        targets = np.concatenate([one_hot[one[train]] for one in drawn], axis=1)
        guesses = nested_guesses(x_train, x_test, targets, groups[train], n_classes, random)
        for number in range(len(drawn)):
            at = slice(number * n_classes, (number + 1) * n_classes)
            found[number, test] = even_evidence(guesses[:, at], targets[:, at])
    null = list(zip(drawn[1:], found[1:], strict=True))
    return Decoding(folds, labels, groups, found[0], null)


def trained_decoding(
    evidence: NDArray[np.floating],
    labels: NDArray[np.integer],
    groups: NDArray[np.str_],
    folds: Folds,
    *,
    n_permutations: int = 1000,
    random_state: int = 0,
) -> Decoding:
    """Return evidence of networks too costly to train again; chance permutes the labels tested.

    Parameters
    ----------
    evidence : ndarray, (n_trials, n_classes)
        NaN for trials never left out.
    """
    random = np.random.default_rng(random_state)
    null = [(permute_labels(labels, groups, random), evidence) for _ in range(n_permutations)]
    return Decoding(folds, labels, groups, np.asarray(evidence, np.float64), null)


def paired_difference(
    first: Score, second: Score, n_bootstraps: int, random_state: int
) -> tuple[float, float, float]:
    """Return first - second over the groups left out of both, and its 95 % interval over them."""
    both = [name for name in first.per_group if name in second.per_group]
    values = np.array([first.per_group[name] - second.per_group[name] for name in both])
    low, high = bootstrap_interval(values, n_bootstraps=n_bootstraps, random_state=random_state)
    return float(values.mean()), low, high
