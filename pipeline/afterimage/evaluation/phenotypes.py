"""Nested prediction of phenotypes (Varoquaux 2017, doi:10.1016/j.neuroimage.2016.10.038).

Ridge regression in its dual form (Saunders 1998), for numbers, and for classes on their indicators;
logistic regression (on the same coordinates) where asked. Confounds are regressed out of features
inside the fold (Snoek 2019, doi:10.1016/j.neuroimage.2018.09.074). Permutations move whole families
(Winkler 2015, doi:10.1016/j.neuroimage.2015.05.092).

What differs: everything is computed from one n x n matrix of products of features, so that a thousand
permutations, each with its own choice of the penalty, cost little more than one. Folds never look
at labels: stratified folds are more even for the labels as they are than for permuted ones, and make
chance look lower than it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from afterimage.errors import InputError

#: Penalties to choose from, in units of the mean squared length of the features of a person.
PENALTIES = tuple(float(value) for value in 10.0 ** np.arange(-3, 4))
#: Eigenvalues below this share of the largest are rounding errors.
RANK_TOLERANCE = 1e-10


@dataclass(frozen=True, eq=False)
class Folds:
    """How rows are split, the same for all targets and features.

    Attributes
    ----------
    repeats : list of list of (array of bool, array of bool), each of shape (n_rows,)
        Training and test rows of the folds of every repeat.
    groups : array of int, shape (n_rows,)
        Rows of a group are never on both sides.
    protocol : str
        In words.
    """

    repeats: list[list[tuple[np.ndarray, np.ndarray]]]
    groups: np.ndarray
    protocol: str

    def select(self, rows: np.ndarray) -> Folds:
        """Return the folds of some rows, by index; folds without test rows go."""
        return Folds(
            [
                [(train[rows], test[rows]) for train, test in folds if test[rows].any()]
                for folds in self.repeats
            ],
            self.groups[rows],
            self.protocol,
        )


def make_folds(
    groups: np.ndarray,
    *,
    sites: np.ndarray | None = None,
    n_folds: int = 5,
    n_repeats: int = 10,
    random_state: int = 0,
) -> Folds:
    """Split rows so that those of a group stay on one side.

    Parameters
    ----------
    groups : array of int, shape (n_rows,)
    sites : array, shape (n_rows,), optional
        Leave one site out instead; people of a training site whose group is also at the site that is
        tested are left out of training.
    n_folds, n_repeats, random_state : int

    Raises
    ------
    InputError
        If there are fewer groups than folds, or one site.
    """
    _, groups = np.unique(groups, return_inverse=True)
    if sites is not None:
        names = np.unique(sites)
        if len(names) < 2:
            raise InputError(
                "one site cannot be left out", found=f"{len(names)} site",
                expected="two or more", fix="set predict_phenotypes.leave_site_out to false",
            )  # fmt: skip
        folds = []
        for name in names:
            test = sites == name
            folds.append((~test & ~np.isin(groups, groups[test]), test))
        return Folds([folds], groups, f"leave one of {len(names)} sites out")
    n_groups = int(groups.max(initial=-1)) + 1
    if n_groups < n_folds:
        raise InputError(
            "there are fewer people than folds", found=f"{n_groups} people or groups of people",
            expected=f"{n_folds} or more", fix="lower predict_phenotypes.n_folds, or add people",
        )  # fmt: skip
    rng = np.random.default_rng(random_state)
    repeats = []
    for _ in range(n_repeats):
        part = np.empty(n_groups, dtype=int)
        part[rng.permutation(n_groups)] = np.arange(n_groups) % n_folds
        tests = [part[groups] == fold for fold in range(n_folds)]
        repeats.append([(~test, test) for test in tests])
    return Folds(repeats, groups, f"{n_folds} folds, {n_repeats} repeats")


def permuted_rows(
    people: np.ndarray,
    groups: np.ndarray,
    sites: np.ndarray | None = None,
    *,
    n_permutations: int = 1000,
    random_state: int = 0,
) -> np.ndarray:
    """Permute rows as far as they can be exchanged.

    Parameters
    ----------
    people, groups : array, shape (n_rows,)
        Rows of a person stay together. Groups change places with groups of the same make-up, and
        people of a group with each other.
    sites : array, shape (n_rows,), optional
        Nothing leaves its site.
    n_permutations, random_state : int

    Returns
    -------
    array of int, shape (n_permutations, n_rows)
        Entry [b, i]: the row whose label row i gets.
    """
    rng = np.random.default_rng(random_state)
    classes: dict[tuple[object, ...], list[list[np.ndarray]]] = {}
    for group in np.unique(groups):
        inside = np.flatnonzero(groups == group)
        members = [inside[people[inside] == person] for person in np.unique(people[inside])]
        members.sort(key=len)
        site = None if sites is None else sites[inside[0]]
        classes.setdefault((site, *map(len, members)), []).append(members)
    result = np.empty((n_permutations, len(people)), dtype=np.int64)
    for (_, *sizes), blocks in classes.items():
        rows = np.array([np.concatenate(block) for block in blocks])  # (n_blocks, n_rows_of_block)
        order = np.tile(np.arange(len(rows)), (n_permutations, 1))
        moved = rows[rng.permuted(order, axis=1)]  # (n_permutations, n_blocks, n_rows_of_block)
        starts = np.cumsum([0, *sizes])
        for size in set(sizes):
            places = [s for s, n in zip(starts, sizes, strict=False) if n == size]
            if len(places) > 1:
                columns = np.array(places)[:, None] + np.arange(int(size))  # type: ignore[call-overload]
                part = moved[:, :, columns]  # (n_permutations, n_blocks, n_people, size)
                order = rng.random(part.shape[:3]).argsort(axis=2)
                moved[:, :, columns] = np.take_along_axis(part, order[..., None], axis=2)
        result[:, rows] = moved
    return result


def gram(features: np.ndarray) -> np.ndarray:
    """Return the products of all pairs of rows, (n_rows, n_features) to (n_rows, n_rows) float64.

    Features are centred first, which changes no prediction (each fold centres again) and keeps
    float32 exact enough.
    """
    centred = features - features.mean(axis=0, dtype=np.float64).astype(features.dtype)
    return np.asarray(centred @ centred.T, dtype=np.float64)


def standardised(features: np.ndarray, train: np.ndarray) -> np.ndarray:
    """Scale columns by the training rows, fill in their means, (n_rows, n_features) float64.

    Columns that do not vary there become 0.
    """
    known = np.isfinite(features)
    count = np.maximum(known[train].sum(axis=0), 1)
    mean = np.where(known[train], features[train], 0).sum(axis=0) / count
    centred = np.where(known, features - mean, 0.0)
    spread = np.sqrt(np.square(centred[train]).sum(axis=0) / count)
    return np.asarray(centred / np.where(spread > 1e-12, spread, np.inf))


def residual_gram(products: np.ndarray, train: np.ndarray, confounds: np.ndarray) -> np.ndarray:
    """Centre features, and regress confounds out of them, as fitted on the training rows.

    Parameters
    ----------
    products : array of shape (n_rows, n_rows)
    train : array of bool, shape (n_rows,)
    confounds : array of shape (n_rows, n_confounds)
        Without the constant.

    Returns
    -------
    array of shape (n_rows, n_rows)
        M K M' with M = I - C (C_train)^+, which is what the residuals of features would give.
    """
    design = np.column_stack([np.ones(len(products)), standardised(confounds, train)])
    project = np.eye(len(products))
    project[:, train] -= design @ np.linalg.pinv(design[train], rcond=1e-8)
    return np.asarray(project @ products @ project.T)


def _solve(
    products: np.ndarray,
    labels: np.ndarray,
    train: np.ndarray,
    test: np.ndarray,
    penalties: Sequence[float],
    chosen: np.ndarray | None = None,
) -> np.ndarray:
    """Fit ridge regressions, predict the test rows.

    Parameters
    ----------
    products : array of shape (n_rows, n_rows)
        From `residual_gram`.
    labels : array of shape (n_rows, n_labels, n_outputs)
    chosen : array of int, shape (n_labels,), optional
        Penalty of every label; by default predictions of all penalties are returned.

    Returns
    -------
    array of shape (n_penalties, n_test, n_labels, n_outputs), or (n_test, n_labels, n_outputs)
    """
    values, vectors = np.linalg.eigh(products[np.ix_(train, train)])
    good = values > RANK_TOLERANCE * max(values[-1], 1e-300)
    values, vectors = values[good], vectors[:, good]
    flat = labels[train].reshape(int(train.sum()), -1)
    mean = flat.mean(axis=0)
    inner = vectors.T @ (flat - mean)  # (rank, n_labels * n_outputs)
    across = products[np.ix_(test, train)] @ vectors  # (n_test, rank)
    scale = max(float(values.sum()) / int(train.sum()), 1e-300)
    shape = (int(test.sum()), *labels.shape[1:])
    if chosen is None:
        found = [across @ (inner / (values + p * scale)[:, None]) + mean for p in penalties]
        return np.stack(found).reshape(len(penalties), *shape)
    penalty = np.asarray(penalties)[np.repeat(chosen, labels.shape[2])] * scale
    return (across @ (inner / (values[:, None] + penalty)) + mean).reshape(shape)


def _logistic(
    products: np.ndarray,
    labels: np.ndarray,
    train: np.ndarray,
    test: np.ndarray,
    penalties: Sequence[float],
    chosen: np.ndarray | None = None,
) -> np.ndarray:
    """Fit logistic regressions; as `_solve`, the outputs being probabilities of the classes."""
    from sklearn.linear_model import LogisticRegression

    values, vectors = np.linalg.eigh(products[np.ix_(train, train)])
    good = values > RANK_TOLERANCE * max(values[-1], 1e-300)
    root = np.sqrt(values[good] / max(float(values.sum()) / int(train.sum()), 1e-300))
    inside = vectors[:, good] * root
    scale = np.maximum(values[good], 1e-300) / root
    outside = products[np.ix_(test, train)] @ vectors[:, good] / scale
    result = np.zeros((len(penalties), len(outside), *labels.shape[1:]))
    classes = labels.argmax(axis=2)
    for label in range(labels.shape[1]):
        known = classes[train, label]
        for index, penalty in enumerate(penalties):
            if chosen is not None and chosen[label] != index:
                continue
            if len(set(known.tolist())) < 2:
                result[index, :, label, known[0]] = 1.0
                continue
            model = LogisticRegression(C=1 / penalty, max_iter=1000).fit(inside, known)
            result[index, :, label, model.classes_] = model.predict_proba(outside).T
    if chosen is None:
        return result
    at = chosen[None, None, :, None]
    return np.take_along_axis(result, np.broadcast_to(at, (1, *result.shape[1:])), 0)[0]


def cross_validate(
    products: Sequence[Sequence[np.ndarray]],
    labels: np.ndarray,
    folds: Folds,
    *,
    confounds: np.ndarray | None = None,
    logistic: bool = False,
    n_inner: int = 5,
    penalties: Sequence[float] = PENALTIES,
    random_state: int = 0,
) -> np.ndarray:
    """Predict every row from other groups; penalties are chosen inside the training rows.

    Parameters
    ----------
    products : sequence of sequence of array of shape (n_rows, n_rows)
        One a repeat and fold, from `gram`: features whose making is fitted differ between folds.
        Fewer repeats than there are folds for, and only these are made.
    labels : array of shape (n_rows, n_labels) or (n_rows, n_labels, n_classes)
        Numbers, or indicators of classes; one column the labels as they are, or permuted.
    folds : Folds
    confounds : array of shape (n_rows, n_confounds), optional
        Regressed out of features.
    logistic : bool
        For indicators only.
    n_inner, random_state : int
        Folds inside the training rows, of whole groups.
    penalties : sequence of float

    Returns
    -------
    array of shape (n_repeats, n_rows, n_labels[, n_classes]), float64
        Of numbers: the deviation from the mean of the training rows. Pooled over folds, that mean
        is lower where the rows left out are high, and would correlate with them below zero. Of
        classes: the output over its share of the training rows, so that the largest one is right
        for rare classes too.
    """
    outputs = labels if labels.ndim == 3 else labels[:, :, None]
    outputs = np.asarray(outputs, dtype=np.float64)
    nothing = np.zeros((len(labels), 0)) if confounds is None else confounds
    fit = _logistic if logistic else _solve
    result = np.full((len(products), *outputs.shape), np.nan)
    for repeat, (own, parts) in enumerate(zip(products, folds.repeats, strict=False)):
        for number, (matrix, (train, test)) in enumerate(zip(own, parts, strict=True)):
            error = np.zeros((len(penalties), outputs.shape[1]))
            seed = random_state + 1000 * repeat + number
            for fitted, held in _inner(folds.groups, train, n_inner, seed):
                inside = residual_gram(matrix, fitted, nothing)
                guess = fit(inside, outputs, fitted, held, penalties)
                error += np.square(guess - outputs[held]).sum(axis=(1, 3))
            best = error.argmin(axis=0)
            residual = residual_gram(matrix, train, nothing)
            guess = fit(residual, outputs, train, test, penalties, best)
            share = outputs[train].mean(axis=0)
            if labels.ndim == 2:
                guess -= share
            else:
                guess = np.where(share > 0, guess / np.where(share > 0, share, 1.0), -np.inf)
            result[repeat, test] = guess
    return result if labels.ndim == 3 else result[..., 0]


def _inner(
    groups: np.ndarray, train: np.ndarray, n_inner: int, seed: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Split training rows into parts of whole groups; (fitted, held out), masks over all rows."""
    own = np.unique(groups[train])
    part = np.zeros(int(groups.max()) + 1, dtype=int)
    n_parts = min(n_inner, len(own))
    part[np.random.default_rng(seed).permutation(own)] = np.arange(len(own)) % n_parts
    if n_parts < 2:
        return []
    return [
        (train & (part[groups] != fold), train & (part[groups] == fold)) for fold in range(n_parts)
    ]
