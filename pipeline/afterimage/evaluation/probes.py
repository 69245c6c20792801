"""What a representation tells of a label: linear probes, with the controls that make them mean something.

A linear probe (Alain & Bengio 2017, arXiv:1610.01644) on frozen features; the same probe on the
features of an untrained network, of shuffled recordings, on static connectivity and on covariance
at a lag. The penalty is chosen inside the training part, by folds of whole groups; the test part
is used once. Chance: labels permuted over groups, in either part, everything refitted. (Permuting
those of the training part alone would have no power where features fall in tight clusters: it then
is luck which cluster gets which class, and half of all permutations are perfect.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from afterimage.evaluation.statistics import chance_of

#: Ridge penalties tried, in units of the mean squared length of a feature vector.
PENALTIES = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
N_FOLDS = 5


@dataclass(frozen=True)
class ProbeScore:
    """How well a label is told from features, with its interval, chance and p.

    Attributes
    ----------
    features : str
        What the probe was given.
    metric : str
        ``balanced_accuracy`` of classes, ``r`` (Pearson) of values.
    value, ci_low, ci_high : float
        On the test part; 95 % interval, groups drawn with replacement.
    chance, chance_low, chance_high, p : float
        Mean, 2.5 % and 97.5 % quantiles over permuted labels, and (1 + b) / (1 + m).
    n, n_groups : int
        Test items, and groups of them.
    predicted : ndarray, (n,)
        Predicted class numbers, or values.
    """

    features: str
    metric: str
    value: float
    ci_low: float
    ci_high: float
    chance: float
    chance_low: float
    chance_high: float
    p: float
    n: int
    n_groups: int
    predicted: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Labelled:
    """Labels of items, the groups they belong to, and which are held out.

    Attributes
    ----------
    labels : ndarray, (n,)
        Class numbers from 0, or values.
    groups : ndarray of str, (n,)
        Person or family of each item; never on both sides.
    test : ndarray of bool, (n,)
    classes : bool
        Whether labels are class numbers.
    """

    labels: NDArray[np.float64]
    groups: NDArray[np.str_]
    test: NDArray[np.bool_]
    classes: bool

    def __post_init__(self) -> None:
        if both := set(self.groups[self.test]) & set(self.groups[~self.test]):
            raise ValueError(f"groups on both sides of the split: {sorted(both)[:3]}")

    def targets(self, labels: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return what is regressed on, (n, n_targets): one-hot classes, or the values."""
        if not self.classes:
            return labels[:, None]
        one_hot: NDArray[np.float64] = np.eye(int(self.labels.max()) + 1)[labels.astype(int)]
        return one_hot


def probe(
    name: str,
    features: NDArray[np.floating],
    data: Labelled,
    *,
    n_permutations: int = 200,
    n_bootstraps: int = 1000,
    random_state: int = 0,
) -> ProbeScore:
    """Fit a ridge probe on the training part and score it on the test part.

    All permutations of the labels are further columns of the same regressions.

    Parameters
    ----------
    name : str
        What the features are.
    features : ndarray, (n, n_features)
    data : Labelled
    n_permutations, n_bootstraps, random_state : int
    """
    train = ~data.test
    generator = np.random.default_rng(random_state)
    drawn = [data.labels]
    drawn += [permute_over_groups(data, generator) for _ in range(n_permutations)]
    targets = np.concatenate([data.targets(labels)[train] for labels in drawn], axis=1)
    n_targets = targets.shape[1] // len(drawn)
    x_train, x_test = standardised(np.asarray(features, np.float64), train)
    chosen = nested_guesses(x_train, x_test, targets, data.groups[train], n_targets, generator)
    predicted = [
        _decide(chosen[:, i : i + n_targets], targets[:, i : i + n_targets], data.classes)
        for i in range(0, targets.shape[1], n_targets)
    ]
    null = np.array(
        [
            _score(labels[data.test], guess, data.classes)
            for labels, guess in zip(drawn[1:], predicted[1:], strict=True)
        ]
    )
    return scored(name, predicted[0], data, null, n_bootstraps, random_state)


def scored(
    name: str,
    predicted: NDArray[np.float64],
    data: Labelled,
    null: NDArray[np.float64] | None = None,
    n_bootstraps: int = 1000,
    random_state: int = 0,
) -> ProbeScore:
    """Score predictions for the test part.

    Parameters
    ----------
    name : str
        What made the predictions.
    predicted : ndarray, (n_test,)
        Class numbers, or values.
    data : Labelled
    null : ndarray, optional
        Scores under permuted labels; default: labels of test groups permuted against the
        predictions, for models too costly to refit.
    n_bootstraps, random_state : int
    """
    truth, groups = data.labels[data.test], data.groups[data.test]
    value = _score(truth, predicted, data.classes)
    generator = np.random.default_rng(random_state)
    if null is None:
        test = Labelled(truth, groups, np.ones(len(truth), bool), data.classes)
        null = np.array(
            [
                _score(permute_over_groups(test, generator), predicted, data.classes)
                for _ in range(1000)
            ]
        )
    names, index = np.unique(groups, return_inverse=True)
    members = [np.flatnonzero(index == i) for i in range(len(names))]
    means = []
    for _ in range(n_bootstraps):
        rows = np.concatenate([members[i] for i in generator.integers(0, len(names), len(names))])
        means.append(_score(truth[rows], predicted[rows], data.classes))
    low, high = np.nanquantile(means, [0.025, 0.975])
    chance = chance_of(value, null)
    return ProbeScore(
        name, "balanced_accuracy" if data.classes else "r", value, float(low), float(high),
        chance.mean, chance.low, chance.high, chance.p, len(truth), len(names), predicted,
    )  # fmt: skip


def compare(
    first: ProbeScore,
    second: ProbeScore,
    data: Labelled,
    *,
    n_bootstraps: int = 1000,
    random_state: int = 0,
) -> tuple[float, float, float]:
    """Compare two scores of the same items: first - second, and its 95 % interval over groups."""
    truth, groups = data.labels[data.test], data.groups[data.test]
    names, index = np.unique(groups, return_inverse=True)
    members = [np.flatnonzero(index == i) for i in range(len(names))]
    generator = np.random.default_rng(random_state)
    differences = []
    for _ in range(n_bootstraps):
        rows = np.concatenate([members[i] for i in generator.integers(0, len(names), len(names))])
        scores = [
            _score(truth[rows], one.predicted[rows], data.classes) for one in (first, second)
        ]
        differences.append(scores[0] - scores[1])
    low, high = np.nanquantile(differences, [0.025, 0.975])
    return first.value - second.value, float(low), float(high)


def permute_over_groups(data: Labelled, generator: np.random.Generator) -> NDArray[np.float64]:
    """Permute labels over groups where each has one label, else over items; training part apart."""
    labels = data.labels.copy()
    for part in (data.test, ~data.test):
        names, first, index = np.unique(data.groups[part], return_index=True, return_inverse=True)
        own = data.labels[part]
        of_group = own[first]
        if len(names) and (of_group[index] == own).all():
            labels[part] = of_group[generator.permutation(len(names))][index]
        else:
            labels[part] = generator.permutation(own)
    return labels


def standardised(
    features: NDArray[np.float64], train: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Standardise by the training part; more features than items are rotated, at no loss."""
    mean, scale = features[train].mean(0), features[train].std(0)
    moving = scale > 1e-12 * max(1e-300, float(np.abs(features[train]).max()))
    values = (features[:, moving] - mean[moving]) / scale[moving]
    inside, left = values[train], values[~train]
    if inside.shape[1] > inside.shape[0]:
        # Penalised by their length, coefficients lie in the span of the training items.
        _, _, basis = np.linalg.svd(inside, full_matrices=False)
        inside, left = inside @ basis.T, left @ basis.T
    return inside, left


def _folds(groups: NDArray[np.str_], generator: np.random.Generator) -> NDArray[np.int64]:
    """Return the fold of each item; a group is in one fold."""
    names, index = np.unique(groups, return_inverse=True)
    order = generator.permutation(len(names))
    return (order % min(N_FOLDS, len(names)))[index]


def _ridge(
    x: NDArray[np.float64], y: NDArray[np.float64], x_new: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Predict for each penalty, (n_penalties, n_new, n_targets); the intercept is not shrunk."""
    centre, mean = x.mean(0), y.mean(0)
    left, values, right = np.linalg.svd(x - centre, full_matrices=False)
    unit = max(float((values**2).sum()) / len(x), 1e-12)
    projected, new = left.T @ (y - mean), (x_new - centre) @ right.T
    result = np.empty((len(PENALTIES), len(x_new), y.shape[1]))
    for place, penalty in enumerate(PENALTIES):
        shrunk = values / (values**2 + penalty * unit)
        result[place] = mean + new @ (shrunk[:, None] * projected)
    return result


def nested_guesses(
    x_train: NDArray[np.float64],
    x_test: NDArray[np.float64],
    targets: NDArray[np.float64],
    groups: NDArray[np.str_],
    n_targets: int,
    generator: np.random.Generator,
) -> NDArray[np.float64]:
    """Guess targets by ridge, the penalty chosen inside the training part, by folds of groups.

    Parameters
    ----------
    x_train, x_test : ndarray, (n_train or n_test, n_features)
    targets : ndarray, (n_train, n_labellings * n_targets)
        Of several labellings side by side; each has one penalty, the same for all of its targets.
    groups : ndarray of str, (n_train,)
        A single group is parted into its items.
    n_targets : int
    generator : numpy.random.Generator

    Returns
    -------
    ndarray, (n_train + n_test, n_labellings * n_targets)
    """
    if len(np.unique(groups)) < 2:
        groups = np.arange(len(groups)).astype(str)
    folds = _folds(groups, generator)
    errors = np.zeros((len(PENALTIES), targets.shape[1]))
    for fold in np.unique(folds):
        inner, left = folds != fold, folds == fold
        for place, guess in enumerate(_ridge(x_train[inner], targets[inner], x_train[left])):
            errors[place] += ((guess - targets[left]) ** 2).sum(0)
    best = errors.reshape(len(PENALTIES), -1, n_targets).sum(2).argmin(0)
    guesses = _ridge(x_train, targets, np.concatenate([x_train, x_test]))
    chosen: NDArray[np.float64] = guesses[best.repeat(n_targets), :, np.arange(targets.shape[1])].T
    return chosen


def even_evidence(
    guesses: NDArray[np.float64], targets: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return guesses of classes for the test items, so that no class is favoured.

    The threshold is halfway between the training means of those in a class and those not.

    Parameters
    ----------
    guesses : ndarray, (n_train + n_test, n_classes)
    targets : ndarray, (n_train, n_classes)
        One-hot classes.
    """
    n_train = len(targets)
    inside = (guesses[:n_train] * targets).sum(0) / np.maximum(targets.sum(0), 1)
    outside = (guesses[:n_train] * (1 - targets)).sum(0) / np.maximum((1 - targets).sum(0), 1)
    evidence: NDArray[np.float64] = guesses[n_train:] - (inside + outside) / 2
    return evidence


def _decide(
    guesses: NDArray[np.float64], targets: NDArray[np.float64], classes: bool
) -> NDArray[np.float64]:
    """Turn guesses for training then test items into predictions for the test items."""
    n_train = len(targets)
    if not classes:
        return guesses[n_train:, 0]
    return even_evidence(guesses, targets).argmax(1).astype(np.float64)


def _score(truth: NDArray[np.float64], predicted: NDArray[np.float64], classes: bool) -> float:
    if classes:
        right = predicted == truth
        return float(np.mean([right[truth == label].mean() for label in np.unique(truth)]))
    if np.ptp(truth) == 0 or np.ptp(predicted) == 0:
        return 0.0
    return float(np.corrcoef(truth, predicted)[0, 1])


def static_features(series: Sequence[NDArray[np.floating]]) -> NDArray[np.float64]:
    """Fisher-transformed correlation of regions, (n_recordings, n_pairs): the static baseline."""
    rows = []
    for values in series:
        standard = values - values.mean(0)
        norm = np.linalg.norm(standard, axis=0)
        standard = np.divide(standard, norm, out=np.zeros_like(standard), where=norm > 0)
        matrix = standard.T @ standard
        rows.append(np.arctanh(np.clip(matrix[np.triu_indices(len(matrix), 1)], -0.999, 0.999)))
    return np.array(rows, np.float64)


def lag_features(series: Sequence[NDArray[np.floating]], lag: int) -> NDArray[np.float64]:
    """Covariance of every region with every other ``lag`` samples later: the dynamic baseline.

    Returns
    -------
    ndarray of float64, (n_recordings, n_regions ** 2)
    """
    rows = []
    for values in series:
        centred = values - values.mean(0)
        rows.append((centred[:-lag].T @ centred[lag:] / (len(values) - lag)).ravel())
    return np.array(rows, np.float64)


def shuffle_time(
    series: NDArray[np.floating], length: int, generator: np.random.Generator
) -> NDArray[np.floating]:
    """Return a recording with its segments of ``length`` samples in random order; 1: its samples.

    Samples beyond the last whole segment are left out.
    """
    n_segments = len(series) // length
    cut = series[: n_segments * length].reshape(n_segments, length, *series.shape[1:])
    return cut[generator.permutation(n_segments)].reshape(-1, *series.shape[1:])
