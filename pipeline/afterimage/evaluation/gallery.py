"""Retrieval of seen images from a gallery, at many moments or repetitions, as rows of one table.

Maximum-statistic permutation test over moments (Nichols and Holmes 2002, doi:10.1002/hbm.1058).

What differs: the permutation is of which image belongs to which decoded pattern, the same for all
moments, so that the maximum keeps their dependence; ties count against the right image everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from afterimage.evaluation.identification import count_beaten, right_columns
from afterimage.evaluation.scores import Resampling
from afterimage.evaluation.statistics import CHUNK_VALUES, bootstrap_means, permuted_pairs

#: Columns of the table of retrieval by time, repetitions and protocol.
COLUMNS = (
    *("subject", "label", "analysis", "metric", "window_start_s", "window_end_s", "k", "value"),
    *("ci_low", "ci_high", "chance", "chance_low", "chance_high", "ceiling", "p", "p_corrected"),
    *("alarm", "n", "protocol"),
)
TOP_K = {"retrieval_top1": 1, "retrieval_top5": 5}


@dataclass(frozen=True)
class Curve:
    """One metric at several points (windows, repetitions, pairs of moments).

    Attributes
    ----------
    metric : str
    per_image : ndarray of float64, shape (n_points, n_images)
        What the values are means of, for intervals of anything derived from the curve.
    value, low, high : ndarray, shape (n_points,)
        Mean over images, its percentile interval by resampling images.
    chance, chance_low, chance_high, p : ndarray, shape (n_points,)
        By permuted pairs, each point alone.
    p_corrected : ndarray, shape (n_points,)
        Against the maximum over all points, in standard deviations of each point's null.
    threshold : float
        Value that the maximum over the points exceeds in 5 % of the permutations, where all points
        have the same null.
    """

    metric: str
    per_image: NDArray[np.float64]
    value: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    chance: NDArray[np.float64]
    chance_low: NDArray[np.float64]
    chance_high: NDArray[np.float64]
    p: NDArray[np.float64]
    p_corrected: NDArray[np.float64]
    threshold: float


def metrics_of(n_gallery: int) -> tuple[str, ...]:
    """Names of the metrics that a gallery of this size allows (top k needs more than k images)."""
    return ("twoway", *(name for name, k in TOP_K.items() if k < n_gallery))


def pair_scores(similarities: NDArray[np.floating]) -> dict[str, NDArray[np.float32]]:
    """Score every pairing of a decoded pattern with a gallery image by every metric.

    Parameters
    ----------
    similarities : ndarray, shape (n_decoded, n_gallery)

    Returns
    -------
    dict of str to ndarray of float32, shape (n_decoded, n_gallery)
        Entry [i, j]: what pattern i would score if image j were its own. Metrics: `metrics_of`.
    """
    n_gallery = similarities.shape[1]
    beaten = count_beaten(similarities)
    scores = {"twoway": (beaten / max(1, n_gallery - 1)).astype(np.float32)}
    for name in metrics_of(n_gallery)[1:]:
        scores[name] = (n_gallery - beaten <= TOP_K[name]).astype(np.float32)
    return scores


def centred_gallery(
    gallery: NDArray[np.floating], training_mean: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Candidates ready to be multiplied: less the training mean, standardised by image.

    ``(prediction - training_mean) @ result.T`` ranks the candidates of each row as the Pearson
    correlation of `identification.similarity` does: what is left out scales a whole row.

    Parameters
    ----------
    gallery : ndarray, shape (n_gallery, n_features)
    training_mean : ndarray, shape (n_features,)

    Returns
    -------
    ndarray of float64, shape (n_gallery, n_features)
    """
    rows = np.asarray(gallery, np.float64) - np.asarray(training_mean, np.float64)
    rows = rows - rows.mean(axis=1, keepdims=True)
    norm = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.where(norm > 0, norm, 1.0))


class CurveBuilder:
    """Collect a curve point by point, so that the pair scores of one point are held at a time.

    Parameters
    ----------
    metric : str
    columns : ndarray of int, shape (n_images,)
        Gallery column of the right image of each decoded pattern.
    resampling : Resampling
        All points are resampled and permuted with the same draws.
    """

    def __init__(
        self, metric: str, columns: NDArray[np.int64], resampling: Resampling | None = None
    ) -> None:
        self._metric, self._columns = metric, columns
        self._drawing = resampling or Resampling()
        self._per_image: list[NDArray[np.float64]] = []
        self._null: list[NDArray[np.float64]] = []
        self._permuted = columns[
            permuted_pairs(
                len(columns), self._drawing.n_permutations, random_state=self._drawing.random_state
            )
        ]

    def add(self, scores: NDArray[np.float32]) -> None:
        """Add a point by its matrix of `pair_scores`, (n_images, n_gallery)."""
        n_images, n_gallery = scores.shape
        rows = np.arange(n_images)
        self._per_image.append(scores[rows, self._columns].astype(np.float64))
        values = np.ascontiguousarray(scores).ravel()
        null = np.empty(len(self._permuted))
        step = max(1, CHUNK_VALUES // n_images)
        for start in range(0, len(null), step):
            drawn = rows * n_gallery + self._permuted[start : start + step]
            null[start : start + step] = values[drawn].mean(axis=1, dtype=np.float64)
        self._null.append(null)

    def curve(self) -> Curve:
        """Return mean, interval, chance and p at every point added, and p corrected over them."""
        drawing, metric = self._drawing, self._metric
        per_image = np.array(self._per_image)
        value = per_image.mean(axis=1)
        if per_image.shape[1] < 2:
            nothing = np.full(len(value), np.nan)
            return Curve(
                metric, per_image, value, nothing, nothing, nothing, nothing, nothing, nothing,
                nothing, float("nan"),
            )  # fmt: skip
        means = bootstrap_means(
            per_image.T, n_bootstraps=drawing.n_bootstraps, random_state=drawing.random_state
        )
        tail = (1 - drawing.level) / 2
        low, high = np.quantile(means, [tail, 1 - tail], axis=0)
        null = np.array(self._null).T
        slack = 1e-6  # sums of float32 in another order must still count as equal
        p = (1 + (null >= value - slack).sum(axis=0)) / (1 + len(null))
        centre, spread = null.mean(axis=0), np.maximum(null.std(axis=0), 1e-12)
        maximum = ((null - centre) / spread).max(axis=1)
        observed = (value - centre) / spread
        corrected = (1 + (maximum[:, None] >= observed - slack).sum(axis=0)) / (1 + len(null))
        chance_low, chance_high = np.quantile(null, [0.025, 0.975], axis=0)
        return Curve(
            metric, per_image, value, low, high, centre, chance_low, chance_high, p, corrected,
            float(np.quantile(null.max(axis=1), 0.95)),
        )  # fmt: skip


def score_curve(
    metric: str,
    scores: Sequence[NDArray[np.float32]] | NDArray[np.float32],
    index: ArrayLike | None = None,
    resampling: Resampling | None = None,
) -> Curve:
    """Mean score, interval and chance at every point, and p corrected over the points.

    Parameters
    ----------
    metric : str
    scores : sequence of ndarray, shape (n_decoded, n_gallery)
        One matrix of `pair_scores` a point; the same patterns and gallery at all points.
    index : array_like of int, shape (n_decoded,), optional
        Column of the right image of each row.
    resampling : Resampling, optional

    Returns
    -------
    Curve
    """
    builder = CurveBuilder(metric, right_columns(scores[0], index), resampling)
    for one in scores:
        builder.add(one)
    return builder.curve()


def curve_rows(
    curve: Curve, identity: Mapping[str, Any], points: Sequence[Mapping[str, Any]], text: str
) -> list[dict[str, Any]]:
    """Rows of the table for a curve: `identity` and one of `points` (window or k) in each.

    Parameters
    ----------
    curve : Curve
    identity : mapping
        Columns that all rows share: subject, label, analysis.
    points : sequence of mapping, length n_points
        ``window_start_s`` and ``window_end_s``, or ``k``; may override any other column.
    text : str
        The protocol.

    Returns
    -------
    list of dict
        Keys are `COLUMNS`; what cannot be computed is None.
    """
    rows = []
    for number, point in enumerate(points):
        row: dict[str, Any] = dict.fromkeys(COLUMNS)
        row |= {"metric": curve.metric, "n": curve.per_image.shape[1], "protocol": text}
        row |= {
            "value": plain(curve.value[number]),
            "ci_low": plain(curve.low[number]),
            "ci_high": plain(curve.high[number]),
            "chance": plain(curve.chance[number]),
            "chance_low": plain(curve.chance_low[number]),
            "chance_high": plain(curve.chance_high[number]),
            "p": plain(curve.p[number]),
            "p_corrected": plain(curve.p_corrected[number]),
        }
        rows.append(row | dict(identity) | dict(point))
    return rows


def plain(value: Any) -> float | None:
    """Return a float for a table, None where it is not finite."""
    return float(value) if value is not None and np.isfinite(value) else None


def average_by(
    values: NDArray[np.floating], names: NDArray[np.str_], wanted: Sequence[str]
) -> NDArray[np.float64]:
    """Mean of the rows of each name, in the order of `wanted`: (n_wanted, ...) float64."""
    place = {str(name): row for row, name in enumerate(wanted)}
    rows = np.array([place[str(name)] for name in names])
    sums = np.zeros((len(wanted), *values.shape[1:]))
    np.add.at(sums, rows, values)
    counts = np.bincount(rows, minlength=len(wanted)).reshape(-1, *[1] * (values.ndim - 1))
    return np.asarray(sums / counts)
