"""Identification of the seen image among others: two-way, n-way and retrieval.

Two-way as in MindEye2 (Scotti et al. 2024, arXiv:2403.11207) and Brain-Diffuser (Ozcelik &
VanRullen 2023, doi:10.1038/s41598-023-42891-8): each reconstruction against all real images, ties
fail.

What differs: success rates are kept for each image, the gallery may be larger than the test set,
the direction of retrieval is named, and similarities are rounded to 10 decimals so that exact ties
stay ties whatever order the matrix product summed in.

A similarity matrix is (n_decoded, n_gallery): row = what was decoded from the brain (or
reconstructed), column = image. ``index[row]`` is the column of the right image.

Ties are pessimistic everywhere: a wrong answer as similar as the right one counts as more similar.

Directions:

* ``brain_to_image``: given the decoded pattern, find the image among the gallery;
* ``image_to_brain``: given the image, find the decoded pattern among all decoded patterns.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from afterimage.errors import InputError

Direction = Literal["brain_to_image", "image_to_brain"]
DECIMALS = 10
#: More values than this are standardised and multiplied some features at a time.
LARGEST_WHOLE = 2**26
CHUNK_FEATURES = 8192


def similarity(
    predicted: NDArray[np.generic],
    true: NDArray[np.generic],
    *,
    training_mean: NDArray[np.generic] | None = None,
) -> NDArray[np.float64]:
    """Pearson correlation of every decoded feature vector with every true one.

    Parameters
    ----------
    predicted : ndarray, shape (n_decoded, ...)
        Decoded features, or features of reconstructions; all but the first axis are flattened.
    true : ndarray, shape (n_gallery, ...)
        Features of the gallery images.
    training_mean : ndarray, shape (...), optional
        Mean of the TRAINING features, taken off both first. Never a mean over the test set: that
        would be transductive.

    Returns
    -------
    ndarray of float64, shape (n_decoded, n_gallery)
        Between -1 and 1, rounded to 10 decimals; rows without variance give 0.
    """
    if max(np.size(predicted), np.size(true)) > LARGEST_WHOLE:
        return _similarity_of_many(predicted, true, training_mean)
    a = _rows(predicted, "decoded features")
    b = _rows(true, "true features")
    if a.shape[1] != b.shape[1]:
        raise InputError(
            "decoded and true features differ in length",
            found=f"{a.shape[1]} and {b.shape[1]} features",
            expected="the same feature block on both sides",
        )
    if training_mean is not None:
        centre = np.asarray(training_mean, np.float64).reshape(1, -1)
        a, b = a - centre, b - centre
    return np.asarray(np.round(np.clip(_standardise(a) @ _standardise(b).T, -1, 1), DECIMALS))


def count_beaten(similarities: NDArray[np.floating]) -> NDArray[np.int64]:
    """Count, for each entry of each row, the entries of that row that are strictly smaller.

    All scores of this module follow from these counts: with g columns, the two-way rate of a pair
    is count / (g - 1) and its pessimistic rank g - count.

    Parameters
    ----------
    similarities : ndarray, shape (n_decoded, n_gallery)

    Returns
    -------
    ndarray of int64, shape (n_decoded, n_gallery)
    """
    values = np.asarray(similarities)
    if values.ndim != 2 or not np.all(np.isfinite(values)):
        raise InputError(
            "similarities cannot be ranked",
            found=f"shape {values.shape}, {np.sum(~np.isfinite(values))} values not finite",
            expected="a finite matrix (n_decoded, n_gallery)",
        )
    order = np.argsort(values, axis=1)
    ranked = np.take_along_axis(values, order, axis=1)
    # In sorted order, the count is the position of the first of the run of equal values.
    position = np.broadcast_to(np.arange(values.shape[1]), values.shape).copy()
    position[:, 1:][ranked[:, 1:] == ranked[:, :-1]] = 0
    np.maximum.accumulate(position, axis=1, out=position)
    counts = np.empty_like(position)
    np.put_along_axis(counts, order, position, axis=1)
    return counts


def two_way(
    similarities: NDArray[np.floating], index: ArrayLike | None = None
) -> NDArray[np.float64]:
    """Two-way identification: the share of wrong images that each reconstruction beats.

    ``mean(two_way(S))`` equals the published definition ``r = corrcoef(real, recon)[:n, n:];
    sum(r < diag(r)) / (n - 1) / n``, whose columns are the reconstructions.

    Parameters
    ----------
    similarities : ndarray, shape (n_decoded, n_gallery)
    index : array_like of int, shape (n_decoded,), optional
        Column of the right image of each row; by default row i belongs to column i.

    Returns
    -------
    ndarray of float64, shape (n_decoded,)
        Between 0 and 1, chance 0.5; NaN where the gallery holds one image only.
    """
    return n_way(similarities, 2, index)


def n_way(
    similarities: NDArray[np.floating], n_ways: int, index: ArrayLike | None = None
) -> NDArray[np.float64]:
    """Probability that the right image beats n_ways - 1 wrong ones drawn at random.

    Exact, no drawing: with c of the g - 1 wrong images beaten, C(c, n - 1) / C(g - 1, n - 1).

    Parameters
    ----------
    similarities : ndarray, shape (n_decoded, n_gallery)
    n_ways : int
        Images to choose from, the right one included; chance is 1 / n_ways.
    index : array_like of int, shape (n_decoded,), optional

    Returns
    -------
    ndarray of float64, shape (n_decoded,)
        NaN where the gallery holds fewer than `n_ways` images.
    """
    columns = right_columns(similarities, index)
    n_wrong = similarities.shape[1] - 1
    if n_ways < 2:
        raise InputError("a choice needs two images", found=f"n_ways = {n_ways}", expected=">= 2")
    if n_wrong < n_ways - 1:
        return np.full(len(columns), np.nan)
    beaten = count_beaten(similarities)[np.arange(len(columns)), columns].astype(np.float64)
    drawn = np.arange(n_ways - 1)
    chances = np.maximum(beaten[:, None] - drawn, 0) / (n_wrong - drawn)
    return np.asarray(np.prod(chances, axis=1), np.float64)


def within_cluster_two_way(
    similarities: NDArray[np.floating], clusters: ArrayLike, index: ArrayLike | None = None
) -> NDArray[np.float64]:
    """Two-way identification against images of the same cluster only.

    Knowing only the cluster scores 0.5 here, while it scores 1 - 1/(2K) in the plain two-way.

    Parameters
    ----------
    similarities : ndarray, shape (n_decoded, n_gallery)
    clusters : array_like, shape (n_gallery,)
        Cluster of each gallery image.
    index : array_like of int, shape (n_decoded,), optional

    Returns
    -------
    ndarray of float64, shape (n_decoded,)
        NaN for an image that is alone in its cluster.
    """
    columns = right_columns(similarities, index)
    return within_cluster_rates(similarities, clusters)[np.arange(len(columns)), columns]


def within_cluster_rates(
    similarities: NDArray[np.floating], clusters: ArrayLike
) -> NDArray[np.float64]:
    """Two-way rate inside the column's cluster, for every pair (n_decoded, n_gallery)."""
    labels = np.asarray(clusters)
    rates = np.full(similarities.shape, np.nan)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        if len(members) > 1:
            rates[:, members] = count_beaten(similarities[:, members]) / (len(members) - 1)
    return rates


def ranks(
    similarities: NDArray[np.floating],
    index: ArrayLike | None = None,
    direction: Direction = "brain_to_image",
) -> NDArray[np.int64]:
    """Rank of the right answer, 1 = best; ties count against it.

    Parameters
    ----------
    similarities : ndarray, shape (n_decoded, n_gallery)
    index : array_like of int, shape (n_decoded,), optional
    direction : {"brain_to_image", "image_to_brain"}
        See the head of this module.

    Returns
    -------
    ndarray of int64, shape (n_decoded,)
        For ``image_to_brain``, entry i is the rank of decoded pattern i given its own image.
    """
    queries, answers = oriented(similarities, index, direction)
    beaten = count_beaten(queries)[np.arange(len(answers)), answers]
    return np.asarray(queries.shape[1] - beaten)


def retrieval(
    similarities: NDArray[np.floating],
    top_k: int = 1,
    index: ArrayLike | None = None,
    direction: Direction = "brain_to_image",
) -> NDArray[np.float64]:
    """Whether the right answer is among the `top_k` most similar: 1 or 0 for each row.

    Parameters
    ----------
    similarities : ndarray, shape (n_decoded, n_gallery)
    top_k : int
    index : array_like of int, shape (n_decoded,), optional
    direction : {"brain_to_image", "image_to_brain"}

    Returns
    -------
    ndarray of float64, shape (n_decoded,)
        Chance is top_k / n_gallery (``brain_to_image``) or top_k / n_decoded.
    """
    return (ranks(similarities, index, direction) <= top_k).astype(np.float64)


def oriented(
    similarities: NDArray[np.floating], index: ArrayLike | None, direction: Direction
) -> tuple[NDArray[np.floating], NDArray[np.int64]]:
    """Return the matrix with one query a row, and the column of the right answer of each row."""
    columns = right_columns(similarities, index)
    if direction == "brain_to_image":
        return similarities, columns
    if len(np.unique(columns)) < len(columns):
        raise InputError(
            "retrieval image_to_brain has several right answers",
            found=f"{len(columns)} decoded patterns of {len(np.unique(columns))} images",
            expected="one decoded pattern an image",
            fix="average the repeats of each image before decoding",
        )
    return similarities[:, columns].T, np.arange(len(columns))


def right_columns(
    similarities: NDArray[np.floating], index: ArrayLike | None
) -> NDArray[np.int64]:
    """Return the checked column of the right image of each row."""
    n_rows, n_columns = similarities.shape
    columns = np.arange(n_rows) if index is None else np.asarray(index, dtype=np.int64)
    inside = (columns >= 0) & (columns < n_columns)
    if columns.shape != (n_rows,) or not inside.all():
        raise InputError(
            "the right images are not all in the gallery",
            found=f"{n_rows} rows, {n_columns} gallery images, index of shape {columns.shape}",
            expected="for each row, a column of the similarity matrix",
        )
    return columns


def _similarity_of_many(
    predicted: NDArray[np.generic],
    true: NDArray[np.generic],
    training_mean: NDArray[np.generic] | None,
) -> NDArray[np.float64]:
    """As `similarity`, without a float64 copy of all features (maps of AlexNet: 1.5 GB a thousand)."""
    a, b = (np.asarray(v).reshape(len(v), -1) for v in (predicted, true))
    centre = np.zeros(a.shape[1]) if training_mean is None else np.ravel(training_mean)
    means = [v.mean(axis=1, dtype=np.float64, keepdims=True) - centre.mean() for v in (a, b)]
    product = np.zeros((len(a), len(b)))
    squares = [np.zeros((len(v), 1)) for v in (a, b)]
    for start in range(0, a.shape[1], CHUNK_FEATURES):
        part = slice(start, start + CHUNK_FEATURES)
        first, second = (
            v[:, part] - (mean + centre[part]) for v, mean in zip((a, b), means, strict=True)
        )
        product += first @ second.T
        for total, values in zip(squares, (first, second), strict=True):
            total += np.einsum("ij,ij->i", values, values)[:, None]
    if not all(np.isfinite(total).all() for total in squares):
        raise InputError("features hold values that are not finite")
    norms = [np.sqrt(total) for total in squares]
    scale = norms[0] @ norms[1].T
    ratio = np.divide(product, scale, out=np.zeros_like(product), where=scale > 0)
    return np.asarray(np.round(np.clip(ratio, -1, 1), DECIMALS))


def _rows(values: NDArray[np.generic], name: str) -> NDArray[np.float64]:
    flat = np.asarray(values, np.float64).reshape(len(values), -1)
    if not np.all(np.isfinite(flat)):
        raise InputError(
            f"{name} hold values that are not finite",
            found=f"{np.sum(~np.isfinite(flat))} of {flat.size}",
        )
    return flat


def _standardise(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    centred = rows - rows.mean(axis=1, keepdims=True)
    norm = np.linalg.norm(centred, axis=1, keepdims=True)
    # Below this, what is left after centring is rounding error of a row of equal values.
    flat = norm <= 1e-12 * (np.linalg.norm(rows, axis=1, keepdims=True) + 1e-300)
    return np.asarray(np.where(flat, 0.0, centred / np.where(flat, 1.0, norm)))
