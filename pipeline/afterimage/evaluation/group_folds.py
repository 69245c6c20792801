"""Folds that leave groups of trials out (runs, people), and labels permuted within groups."""

from __future__ import annotations

import numpy as np

from afterimage.errors import InputError

#: Rows of training and of test trials, one pair a fold.
Folds = list[tuple[np.ndarray, np.ndarray]]


def leave_groups_out(
    labels: np.ndarray, groups: np.ndarray, n_folds: int = 6, max_folds: int | None = None
) -> Folds:
    """Return folds of rows (train, test) in which no group is on both sides.

    One group a fold where every group holds every class. Where the label belongs to the group
    (patients and controls), groups are dealt into ``n_folds`` folds, fewer with few groups, each
    with groups of every class.

    Parameters
    ----------
    labels, groups : array of shape (n_trials,)
    n_folds : int
    max_folds : int or None
        More groups than this are dealt into so many folds, whatever the label.
    """
    names = np.unique(groups)
    if len(names) < 2:
        raise InputError(
            "no group of trials can be left out", found=f"one group: {names.tolist()}",
            expected="trials of at least two runs, sessions or people",
            fix="choose another column of groups",
        )  # fmt: skip
    if not label_of_group(labels, groups):
        n_parts = min(max_folds or len(names), len(names))
        left_out = [np.isin(groups, names[k::n_parts]) for k in range(n_parts)]
        return [
            (np.flatnonzero(~out), np.flatnonzero(out))
            for out in left_out
            if len(np.unique(labels[~out])) == len(np.unique(labels))
        ]
    by_class = [np.unique(groups[labels == label]) for label in np.unique(labels)]
    fewest = min(len(members) for members in by_class)
    if fewest < 2:
        raise InputError(
            "a label of people needs at least two people a class",
            found=f"{fewest} in the smallest class", expected="2 or more",
            fix="add people, or decode something that changes within a person",
        )  # fmt: skip
    n = min(max_folds or n_folds, fewest)
    fold_of = {
        name: index % n for members in by_class for index, name in enumerate(members.tolist())
    }
    fold = np.array([fold_of[name] for name in groups.tolist()])
    return [(np.flatnonzero(fold != k), np.flatnonzero(fold == k)) for k in range(n)]


def random_folds(labels: np.ndarray, n_folds: int = 6, random_state: int = 0) -> Folds:
    """Return folds of trials drawn at random within classes: what leaks the person or the run."""
    from sklearn.model_selection import StratifiedKFold

    smallest = np.unique(labels, return_counts=True)[1].min()
    splitter = StratifiedKFold(min(n_folds, smallest), shuffle=True, random_state=random_state)
    return list(splitter.split(labels, labels))


def label_of_group(labels: np.ndarray, groups: np.ndarray) -> bool:
    """Tell whether no group holds more than one class, so that the label is the group's own."""
    return all(len(np.unique(labels[groups == name])) == 1 for name in np.unique(groups))


def permute_labels(
    labels: np.ndarray, groups: np.ndarray, random: np.random.Generator
) -> np.ndarray:
    """Permute labels within groups; over whole groups where the label is the group's own."""
    names, index = np.unique(groups, return_inverse=True)
    if label_of_group(labels, groups):
        own = np.array([labels[groups == name][0] for name in names])
        return np.asarray(random.permutation(own)[index])
    permuted = labels.copy()
    for group in range(len(names)):
        rows = np.flatnonzero(index == group)
        permuted[rows] = labels[random.permutation(rows)]
    return permuted
