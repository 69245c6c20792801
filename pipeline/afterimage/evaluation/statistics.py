"""Intervals, chance levels and comparisons of scores, by resampling images.

Percentile bootstrap (Efron & Tibshirani 1993, doi:10.1201/9780429246593), permutation p-values
(Phipson & Smyth 2010, doi:10.2202/1544-6115.1585), Holm (1979, jstor.org/stable/4615733), and the
interval of a share by Wilson (1927, doi:10.1080/01621459.1927.10502953).

What differs: chance is never a binomial. Two-way identification makes N(N - 1) comparisons, but
they share N reconstructions and N images, so they are far from independent: with N = 1000
unrelated pairs the score varies from study to study with a standard deviation of 0.008 to 0.009,
while a binomial over 999,000 "trials" claims 0.0005 and calls almost every null result
significant. Here the pairing of truths and reconstructions is permuted, which keeps all those
dependencies.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from afterimage.errors import InputError

CHUNK_VALUES = 2**20


@dataclass(frozen=True)
class Chance:
    """What a score would be if truths and reconstructions were paired at random.

    Attributes
    ----------
    mean, low, high : float
        Mean and 2.5 % and 97.5 % quantiles of the null distribution.
    p : float
        (1 + number of permutations at least as good as observed) / (1 + n_permutations).
    """

    mean: float
    low: float
    high: float
    p: float


@dataclass(frozen=True)
class Difference:
    """Mean difference of two scores of the same images, its interval and two-sided p."""

    value: float
    low: float
    high: float
    p: float


def bootstrap_means(
    values: ArrayLike, *, n_bootstraps: int = 1000, random_state: int = 0
) -> NDArray[np.float64]:
    """Means of images drawn with replacement.

    Parameters
    ----------
    values : array_like, shape (n_images,) or (n_images, n_scores)
        One value an image; several columns are resampled with the same draws.
    n_bootstraps : int
    random_state : int

    Returns
    -------
    ndarray of float64, shape (n_bootstraps,) or (n_bootstraps, n_scores)
    """
    data = np.asarray(values, np.float64)
    n = len(data)
    generator = np.random.default_rng(random_state)
    means = np.empty((n_bootstraps, *data.shape[1:]))
    step = max(1, CHUNK_VALUES // max(1, n))
    for start in range(0, n_bootstraps, step):
        size = min(step, n_bootstraps - start)
        drawn = generator.integers(0, n, size=(size, n)) + n * np.arange(size)[:, None]
        # How often each image was drawn, so that the means are one matrix product.
        counts = np.bincount(drawn.ravel(), minlength=size * n).reshape(size, n)
        means[start : start + size] = counts @ data / n
    return means


def bootstrap_interval(
    values: ArrayLike, *, n_bootstraps: int = 1000, level: float = 0.95, random_state: int = 0
) -> tuple[float, float]:
    """Percentile interval of the mean over images.

    Parameters
    ----------
    values : array_like, shape (n_images,)
        One value an image. For two-way identification and retrieval: the image's own success,
        with the gallery held fixed. Repeats of an image must be averaged before: resampling trials
        of the same image would make the interval too narrow.
    n_bootstraps : int
    level : float
        Coverage, 0..1.
    random_state : int

    Returns
    -------
    low, high : float
        NaN with fewer than two images (nothing to resample).
    """
    data = np.asarray(values, np.float64)
    if len(data) < 2:
        return float("nan"), float("nan")
    means = bootstrap_means(data, n_bootstraps=n_bootstraps, random_state=random_state)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def permuted_pairs(
    n_images: int,
    n_permutations: int = 1000,
    *,
    random_state: int = 0,
    groups: ArrayLike | None = None,
) -> NDArray[np.int32]:
    """Random re-pairings of truths with reconstructions.

    Parameters
    ----------
    n_images, n_permutations, random_state : int
    groups : array_like, shape (n_images,), optional
        Permute inside these groups only. Such permutations form a group too, so p-values stay
        exact: used for the within-cluster two-way, and where the metric of all n x n pairs would
        cost too much.

    Returns
    -------
    ndarray of int32, shape (n_permutations, n_images)
        Entry [b, i]: whose truth reconstruction i is given in permutation b.
    """
    generator = np.random.default_rng(random_state)
    labels = np.zeros(n_images, np.int64) if groups is None else np.asarray(groups)
    result = np.empty((n_permutations, n_images), np.int32)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label).astype(np.int32)
        tiled = np.broadcast_to(members, (n_permutations, len(members)))
        result[:, members] = generator.permuted(tiled, axis=1)
    return result


def permutation_chance(
    scores: NDArray[np.generic],
    permutations: NDArray[np.int32],
    *,
    index: ArrayLike | None = None,
    observed: float | None = None,
    higher_is_better: bool = True,
) -> Chance:
    """Chance level and p of a mean score by permuting which truth belongs to which reconstruction.

    Parameters
    ----------
    scores : ndarray, shape (n_decoded, n_gallery)
        Score of every reconstruction (row) if the column were its truth. Computed once; each
        permutation only looks entries up, so the same permutation serves the whole matrix.
    permutations : ndarray of int, shape (n_permutations, n_decoded)
        From `permuted_pairs`.
    index : array_like of int, shape (n_decoded,), optional
        Column of the right image of each row; by default row i belongs to column i.
    observed : float, optional
        The score to test; by default the mean over the right pairs.
    higher_is_better : bool
        False for errors such as `mse`: small values are then the extreme side.

    Returns
    -------
    Chance
        All NaN with fewer than two images: one pair cannot be re-paired.
        With two, half of the permutations are the observed pairing, so p is near 0.5 at best.
    """
    n_rows, n_columns = scores.shape
    columns = np.arange(n_rows) if index is None else np.asarray(index)
    if permutations.shape[1] != n_rows:
        raise InputError(
            "permutations and scores differ in the number of images",
            found=f"{permutations.shape[1]} and {n_rows}",
            expected="one entry of a permutation for each row of scores",
        )
    if n_rows < 2:
        return Chance(*[float("nan")] * 4)
    flat = np.ascontiguousarray(scores).ravel()
    offsets = np.arange(n_rows) * n_columns
    if observed is None:
        observed = float(np.mean(flat[offsets + columns], dtype=np.float64))
    null = np.empty(len(permutations))
    step = max(1, CHUNK_VALUES // n_rows)
    for start in range(0, len(permutations), step):
        drawn = permutations[start : start + step]
        null[start : start + step] = flat[offsets + columns[drawn]].mean(axis=1, dtype=np.float64)
    if not np.all(np.isfinite(null)):  # NaN would never count as extreme: a falsely small p
        fix = "permute inside the groups for which scores were computed"
        raise InputError("permutations reach pairs without a score", fix=fix)
    return chance_of(observed, null, higher_is_better=higher_is_better)


def chance_of(
    observed: float, null: NDArray[np.float64], *, higher_is_better: bool = True
) -> Chance:
    """Describe scores under permutation, and how many are at least as good as the observed one.

    Parameters
    ----------
    observed : float
    null : ndarray, shape (n_permutations,)
    higher_is_better : bool
        False for errors: small values are then the extreme side.

    Returns
    -------
    Chance
        All NaN without permutations.
    """
    if not len(null):
        return Chance(*[float("nan")] * 4)
    slack = 1e-9 * max(1.0, abs(observed))  # sums in another order must still count as equal
    extreme = null >= observed - slack if higher_is_better else null <= observed + slack
    low, high = np.quantile(null, [0.025, 0.975])
    p = (1 + int(np.sum(extreme))) / (1 + len(null))
    return Chance(float(null.mean()), float(low), float(high), p)


def wilson_interval(share: float, n: int, z: float = 1.959964) -> tuple[float, float]:
    """Return the interval of a share of ``n`` people, at 95 % by default.

    (p + z^2/2n -+ z sqrt(p (1 - p)/n + z^2/4n^2)) / (1 + z^2/n).
    """
    middle = share + z**2 / (2 * n)
    reach = z * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    scale = 1 + z**2 / n
    return float(max(0.0, (middle - reach) / scale)), float(min(1.0, (middle + reach) / scale))


def paired_bootstrap_difference(
    first: ArrayLike,
    second: ArrayLike,
    *,
    n_bootstraps: int = 1000,
    level: float = 0.95,
    random_state: int = 0,
) -> Difference:
    """Compare two scores of the same images: mean of first - second.

    Parameters
    ----------
    first, second : array_like, shape (n_images,)
        Per-image values in the same order of images.
    n_bootstraps, level, random_state
        As in `bootstrap_interval`.

    Returns
    -------
    Difference
        p is two-sided: twice the smaller share of resamples on either side of zero, with one added
        to both counts; interval and p are NaN with fewer than two images.
    """
    a, b = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if a.shape != b.shape or a.ndim != 1 or not len(a):
        raise InputError(
            "paired scores must come from the same images",
            found=f"shapes {a.shape} and {b.shape}",
            expected="two vectors of one value an image",
        )
    difference = a - b
    value = float(difference.mean())
    if len(difference) < 2:
        return Difference(value, *[float("nan")] * 3)
    means = bootstrap_means(difference, n_bootstraps=n_bootstraps, random_state=random_state)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    smaller = min(int(np.sum(means <= 0)), int(np.sum(means >= 0)))
    p = min(1.0, 2 * (1 + smaller) / (1 + n_bootstraps))
    return Difference(value, float(low), float(high), p)


def holm(p_values: ArrayLike) -> NDArray[np.float64]:
    """Adjust p-values of several metrics for their number, step down.

    Parameters
    ----------
    p_values : array_like, shape (n_tests,)
        NaN entries (tests that could not be made) stay NaN and are not counted.

    Returns
    -------
    ndarray of float64, shape (n_tests,)
        Adjusted p_(i) = max over j <= i of min(1, (m - j + 1) p_(j)).
    """
    p = np.asarray(p_values, np.float64)
    adjusted = np.full(p.shape, np.nan)
    made = np.flatnonzero(np.isfinite(p))
    order = made[np.argsort(p[made], kind="stable")]
    factors = len(order) - np.arange(len(order))
    adjusted[order] = np.maximum.accumulate(np.minimum(1.0, factors * p[order]))
    return adjusted
