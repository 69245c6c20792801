"""Checks of generated connectivity on held-out people (after Orlichenko et al. 2024, arXiv:2405.07977).

Whether sampled people are like real ones (mean, spread, covariance of connections, effects of
demographics), whether latents know nothing of demographics (also nonlinearly), and whether samples
are copies of training people. What differs: decoding is cross-validated among held-out people, since
latents are made free of demographics on training people only; each check has the same for training
people against held-out people beside it, as the ceiling.
"""

from __future__ import annotations

import numpy as np

from afterimage.evaluation.fingerprint import Score
from afterimage.evaluation.phenotype_scores import score
from afterimage.evaluation.phenotypes import (
    cross_validate,
    gram,
    make_folds,
    permuted_rows,
    standardised,
)

#: Connections of which the covariance is compared, at most.
MAX_EDGES = 2000


def likeness(real: np.ndarray, other: np.ndarray, random_state: int = 0) -> dict[str, float]:
    """Compare two sets of people.

    Parameters
    ----------
    real, other : array of shape (n_people, n_edges)
        The numbers of people may differ.
    random_state : int
        For the choice of connections where there are many.

    Returns
    -------
    dict of float
        ``mean_r``: correlation of mean connectivity; ``spread_ratio``: median ratio of standard
        deviations over people, other / real; ``covariance_r``: correlation of the covariances of
        pairs of connections.
    """
    spread = other.std(axis=0) / np.maximum(real.std(axis=0), 1e-12)
    n_edges = real.shape[1]
    some = np.random.default_rng(random_state).permutation(n_edges)[:MAX_EDGES]
    rows, columns = np.tril_indices(len(some))
    first, second = (np.cov(x[:, some], rowvar=False)[rows, columns] for x in (real, other))
    return {
        "mean_r": _r(real.mean(axis=0), other.mean(axis=0)),
        "spread_ratio": float(np.median(spread)),
        "covariance_r": _r(first, second),
    }


def effect_map(edges: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return the effect of a demographic on every connection.

    Parameters
    ----------
    edges : array of shape (n_people, n_edges)
    values : array of shape (n_people,)
        Numbers, or text for categories.

    Returns
    -------
    array of shape (n_effects * n_edges,)
        The slope over numbers in standard deviations; of categories, the mean of each less the mean
        of its others.
    """
    if values.dtype.kind in "fiu":
        scaled = (values - values.mean()) / max(values.std(), 1e-12)
        return np.asarray(scaled @ (edges - edges.mean(axis=0)) / len(edges))
    names = np.unique(values)
    maps = [
        edges[values == n].mean(axis=0) - edges[values != n].mean(axis=0)
        for n in (names[1:] if len(names) == 2 else names)
    ]
    return np.concatenate(maps)


def compare_effects(real: np.ndarray, other: np.ndarray) -> dict[str, float]:
    """Return correlation of two effect maps, and the slope of the other over the real one."""
    a, b = real - real.mean(), other - other.mean()
    return {"effect_r": _r(real, other), "effect_slope": float(a @ b / (a @ a))}


def decode(
    features: np.ndarray,
    values: np.ndarray,
    *,
    nonlinear: bool = False,
    n_permutations: int = 200,
    n_bootstraps: int = 1000,
    random_state: int = 0,
) -> Score:
    """Decode a demographic from features of held-out people.

    Parameters
    ----------
    features : array of shape (n_people, n_features)
        Latents or connections.
    values : array of shape (n_people,)
        Numbers (scored by correlation), or text (by balanced accuracy).
    nonlinear : bool
        Ridge regression with a Gaussian kernel as wide as the median distance.
    n_permutations, n_bootstraps, random_state : int

    Returns
    -------
    Score
    """
    everybody = np.ones(len(features), dtype=bool)
    products = gram(np.asarray(features, np.float64))
    if nonlinear:
        products = gaussian_gram(standardised(np.asarray(features, np.float64), everybody))
    if values.dtype.kind in "fiu":
        labels, metric = values[:, None].astype(np.float64), "r"
    else:
        names = np.unique(values)
        labels = (values[:, None] == names)[:, None].astype(np.float64)
        metric = "balanced_accuracy"
    people = np.arange(len(features))
    folds = make_folds(people, n_folds=5, n_repeats=2, random_state=random_state)
    drawn = permuted_rows(people, people, n_permutations=n_permutations, random_state=random_state)
    every = np.concatenate([labels, np.moveaxis(labels[:, 0][drawn], 0, 1)], axis=1)
    guess = cross_validate(
        [[products] * len(parts) for parts in folds.repeats], every, folds, n_inner=3
    )
    return score(every, guess, folds, metric, n_bootstraps=n_bootstraps, random_state=random_state)


def gaussian_gram(features: np.ndarray) -> np.ndarray:
    """Return ``exp(-d / median d)`` of the squared distances d, (n_people, n_people)."""
    squares = np.square(features).sum(axis=1)
    distance = np.maximum(squares[:, None] + squares - 2 * features @ features.T, 0)
    middle = np.median(distance[np.triu_indices(len(distance), 1)])
    return np.asarray(np.exp(-distance / max(middle, 1e-300)))


def copying(train: np.ndarray, held_out: np.ndarray, sampled: np.ndarray) -> float:
    """Return how near samples come to training people, as held-out people do.

    Returns
    -------
    float
        Median distance to the nearest training person, of samples over that of held-out people:
        far below 1 where training people are copied.
    """

    def nearest(x: np.ndarray) -> float:
        squares = np.square(x).sum(axis=1)[:, None] + np.square(train).sum(axis=1)
        return float(np.median(np.sqrt(np.maximum(squares - 2 * x @ train.T, 0).min(axis=1))))

    return nearest(sampled) / max(nearest(held_out), 1e-300)


def _r(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a, b)[0, 1])
