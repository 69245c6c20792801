"""The one table of scores: value, interval, chance, p and ceiling of every metric of every label.

Metrics of the MindEye2 line (Scotti et al. 2024, arXiv:2403.11207).

What differs: every row carries its interval over images, its chance level by permuted pairs, the
ceiling of the generator and the protocol, so that no number stands alone.

Chance of an image metric needs it for all pairs. Where that costs too much, images are put at
random into equal blocks (the same for all labels) and pairs permuted within blocks: still an exact
test, whose null holds the right pairs in a share of 1/block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from afterimage.errors import InputError
from afterimage.evaluation import images as pixels
from afterimage.evaluation.identification import (
    Direction,
    count_beaten,
    oriented,
    right_columns,
    similarity,
    within_cluster_rates,
)
from afterimage.evaluation.metrics import COLUMNS, METRICS, describe, protocol
from afterimage.evaluation.statistics import bootstrap_interval, permutation_chance, permuted_pairs

__all__ = [
    "COLUMNS",
    "METRICS",
    "ReconstructionSet",
    "Resampling",
    "Scores",
    "describe",
    "image_rows",
    "prediction_rows",
    "protocol",
    "reconstruction_rows",
]

TOP_K = (1, 5)
SMALLEST_BLOCK = 8

PairMetric = Callable[[NDArray[np.float32], NDArray[np.float32]], NDArray[np.float64]]
# Per image, for all pairs, and how many image pixels x pairs the latter may cost for one label.
IMAGE_METRICS: dict[str, tuple[PairMetric, PairMetric, float]] = {
    "pixcorr": (pixels.pixcorr, pixels.pairwise_pixcorr, 1e10),
    "mse": (pixels.mse, pixels.pairwise_mse, 1e10),
    "ssim": (pixels.ssim, pixels.pairwise_ssim, 2e7),
}


@dataclass(frozen=True)
class Resampling:
    """How intervals and chance levels are drawn.

    Attributes
    ----------
    n_bootstraps, n_permutations, random_state : int
    level : float
        Coverage of the intervals, 0..1.
    """

    n_bootstraps: int = 1000
    n_permutations: int = 1000
    level: float = 0.95
    random_state: int = 0


@dataclass(frozen=True)
class ReconstructionSet:
    """The reconstructions of all test images by one decoder and method.

    Attributes
    ----------
    label, decoder, method : str
        ``ridgeLowLevel``, ``ridge``, ``low_level``.
    role : str
        ``reconstruction``, ``baseline``, ``audit`` or ``ceiling``.
    images : ndarray, shape (n, height, width, 3)
        uint8 or float 0..1, in the order of the true images.
    embeddings : mapping of str to ndarray, shape (n, n_features)
        Features of the reconstructions for each encoder to score.
    ceiling : str
        Label of the set made by the same generator from the true features; may be empty.
    selection : str
        How one reconstruction was chosen, e.g. ``best-of-4 by predicted embedding``.
    """

    label: str
    decoder: str
    method: str
    role: str
    images: NDArray[np.generic]
    embeddings: Mapping[str, NDArray[np.generic]]
    ceiling: str = ""
    selection: str = "one sample"


@dataclass(frozen=True)
class Scores:
    """Rows of the table, and the per-image values they are means of.

    Attributes
    ----------
    rows : list of dict
        Keys are `COLUMNS`; what cannot be computed is None.
    per_image : dict
        label -> metric -> ndarray of float64, shape (n,); NaN where an image has no value.
    n_constant : dict of str to int
        label -> reconstructions of one single colour; their pixcorr is 0.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    per_image: dict[str, dict[str, NDArray[np.float64]]] = field(default_factory=dict)
    n_constant: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class _Measure:
    """One metric for every pairing: scores[i, index[i]] is the value of image i."""

    name: str
    scores: NDArray[np.generic]
    index: NDArray[np.int64]
    direction: Direction | None = None
    groups: NDArray[np.generic] | None = None


def reconstruction_rows(
    truth: NDArray[np.generic],
    truth_embeddings: Mapping[str, NDArray[np.generic]],
    sets: Iterable[ReconstructionSet],
    *,
    subject: str,
    size: str = "native size",
    repeats: str = "averaged",
    clusters: ArrayLike | None = None,
    resampling: Resampling | None = None,
) -> Scores:
    """Score sets of reconstructions against the true images.

    Parameters
    ----------
    truth : ndarray, shape (n, height, width, 3)
        True images at the size of the reconstructions.
    truth_embeddings : mapping of str to ndarray, shape (n, n_features)
        Features of the true images for each encoder.
    sets : iterable of ReconstructionSet
        The ceilings among them: a row's ceiling is the same metric of the set it names. Read one
        at a time, so that a generator holds one set in memory.
    subject : str
    size, repeats : str
        For the protocol.
    clusters : array_like, shape (n,), optional
        Cluster of each true image; adds ``twoway_within_cluster_<encoder>``.
    resampling : Resampling, optional

    Returns
    -------
    Scores
        pixcorr, mse, ssim, and ``twoway_<encoder>``, ``retrieval_top1_<encoder>`` and
        ``retrieval_top5_<encoder>`` (retrieval only in galleries larger than 1 and 5).
    """
    drawing = resampling or Resampling()
    scores = Scores()
    ceilings: dict[str, str] = {}
    for one in sets:
        if one.label in scores.per_image:
            raise InputError("two sets of reconstructions share a label", found=one.label)
        if set(one.embeddings) != set(truth_embeddings):
            raise InputError(
                "reconstructions were not embedded like the true images",
                where=one.label,
                found=", ".join(sorted(one.embeddings)),
                expected=", ".join(sorted(truth_embeddings)),
            )
        measures = [*_image_measures(truth, one.images, drawing)]
        for encoder, true in truth_embeddings.items():
            similarities = similarity(one.embeddings[encoder], true)
            measures += _identification_measures(similarities, None, f"_{encoder}", clusters)
        identity = {"subject": subject, "label": one.label, "decoder": one.decoder}
        identity |= {"method": one.method, "role": one.role}
        told = {"size": size, "repeats": repeats, "selection": one.selection}
        _add(scores, measures, identity, told, drawing)
        scores.n_constant[one.label] = int(pixels.constant_images(one.images).sum())
        ceilings[one.label] = one.ceiling
    values = {(row["label"], row["metric"]): row["value"] for row in scores.rows}
    for row in scores.rows:
        row["ceiling"] = values.get((ceilings[row["label"]], row["metric"]))
    return scores


def prediction_rows(
    predicted: Mapping[str, NDArray[np.generic]],
    true: Mapping[str, NDArray[np.generic]],
    *,
    subject: str,
    label: str,
    decoder: str,
    method: str = "",
    role: str = "prediction",
    index: ArrayLike | None = None,
    training_means: Mapping[str, NDArray[np.generic]] | None = None,
    score_matrix: NDArray[np.floating] | None = None,
    clusters: ArrayLike | None = None,
    repeats: str = "averaged",
    resampling: Resampling | None = None,
) -> Scores:
    """Score decoded features, before any image is made from them.

    Parameters
    ----------
    predicted : mapping of str to ndarray, shape (n_decoded, n_features)
        Decoded feature blocks.
    true : mapping of str to ndarray, shape (n_gallery, n_features)
        The same blocks of the gallery images.
    subject, label, decoder, method, role : str
    index : array_like of int, shape (n_decoded,), optional
        Gallery row of each decoded pattern.
    training_means : mapping of str to ndarray, shape (n_features,), optional
        Means of the TRAINING features, taken off before correlating; named in the protocol.
    score_matrix : ndarray, shape (n_decoded, n_gallery), optional
        A decoder's own similarity; gives twoway, retrieval_top1, retrieval_top5 without a block.
    clusters, repeats, resampling
        As in `reconstruction_rows`.

    Returns
    -------
    Scores
        For each block ``twoway_<block>``, ``retrieval_top1_<block>`` and
        ``retrieval_top5_<block>``, the latter two also
        with ``_image_to_brain`` where each decoded pattern has its own image. The ceiling is 1.
    """
    drawing = resampling or Resampling()
    scores = Scores()
    identity = {"subject": subject, "label": label, "decoder": decoder}
    identity |= {"method": method, "role": role}
    told = {"size": "decoded features", "repeats": repeats, "selection": "no selection"}
    for block, values in predicted.items():
        mean = None if training_means is None else training_means[block]
        extra = () if mean is None else ("centred on training mean",)
        similarities = similarity(values, true[block], training_mean=mean)
        measures = [*_identification_measures(similarities, index, f"_{block}", clusters)]
        measures += _backward_measures(similarities, index, f"_{block}")
        _add(scores, measures, identity, told, drawing, extra)
    if score_matrix is not None:
        measures = [*_identification_measures(score_matrix, index, "", None)]
        measures += _backward_measures(score_matrix, index, "")
        _add(scores, measures, identity, told, drawing, ("the decoder's own similarity",))
    for row in scores.rows:
        row["ceiling"] = 1.0
    return scores


def image_rows(
    stimuli: Sequence[str], per_image: Mapping[str, Mapping[str, NDArray[np.float64]]]
) -> list[dict[str, Any]]:
    """Return the table stimulus x metric, one row a stimulus and label.

    Parameters
    ----------
    stimuli : sequence of str, length n
    per_image : mapping
        `Scores.per_image`.

    Returns
    -------
    list of dict
        ``stimulus``, ``label`` and one key a metric; None where an image has no value.
    """
    return [
        {"stimulus": str(stimulus), "label": label}
        | {name: _number(values[position]) for name, values in metrics.items()}
        for label, metrics in per_image.items()
        for position, stimulus in enumerate(stimuli)
    ]


def _image_measures(
    truth: NDArray[np.generic], recon: NDArray[np.generic], drawing: Resampling
) -> Iterator[_Measure]:
    a, b = pixels.as_unit_float(truth, "true images"), pixels.as_unit_float(recon)
    n = len(a)
    for name, (each, pairwise, budget) in IMAGE_METRICS.items():
        values = each(a, b)
        per_block = max(SMALLEST_BLOCK, int(budget / max(1, n * a.shape[1] * a.shape[2])))
        order = np.random.default_rng(drawing.random_state).permutation(n)
        blocks = np.array_split(order, max(1, -(-n // per_block)))
        scores, groups = np.full((n, n), np.nan), np.zeros(n, np.int64)
        for number, block in enumerate(blocks):
            scores[np.ix_(block, block)] = pairwise(a[block], b[block])
            groups[block] = number
        # The exact values on the diagonal, so that a null draw can equal what was observed.
        np.fill_diagonal(scores, values)
        yield _Measure(name, scores, np.arange(n), groups=groups)


def _identification_measures(
    similarities: NDArray[np.floating],
    index: ArrayLike | None,
    suffix: str,
    clusters: ArrayLike | None,
) -> Iterator[_Measure]:
    columns = right_columns(similarities, index)
    n_wrong = similarities.shape[1] - 1
    beaten = count_beaten(similarities)
    rates = beaten / n_wrong if n_wrong else np.full(beaten.shape, np.nan)
    yield _Measure(f"twoway{suffix}", rates, columns, "brain_to_image")
    if clusters is not None:
        groups = np.asarray(clusters)
        within = within_cluster_rates(similarities, groups)
        name = f"twoway_within_cluster{suffix}"
        yield _Measure(name, within, columns, "brain_to_image", groups[columns])
    yield from _top_k(beaten, columns, suffix, "brain_to_image")


def _backward_measures(
    similarities: NDArray[np.floating], index: ArrayLike | None, suffix: str
) -> Iterator[_Measure]:
    columns = right_columns(similarities, index)
    if len(np.unique(columns)) < len(columns):
        return
    queries, answers = oriented(similarities, index, "image_to_brain")
    beaten = count_beaten(queries)
    yield from _top_k(beaten, answers, f"{suffix}_image_to_brain", "image_to_brain")


def _top_k(
    beaten: NDArray[np.int64], columns: NDArray[np.int64], suffix: str, direction: Direction
) -> Iterator[_Measure]:
    gallery = beaten.shape[1]
    for top_k in TOP_K:
        if top_k < gallery:
            hits = gallery - beaten <= top_k
            yield _Measure(f"retrieval_top{top_k}{suffix}", hits, columns, direction)


def _add(
    scores: Scores,
    measures: Sequence[_Measure],
    identity: Mapping[str, str],
    told: Mapping[str, str],
    drawing: Resampling,
    extra: Sequence[str] = (),
) -> None:
    """Append a row for each measure, and its per-image values."""
    state, n_permutations = drawing.random_state, drawing.n_permutations
    free: dict[int, NDArray[np.int32]] = {}
    for one in measures:
        values = one.scores[np.arange(len(one.index)), one.index].astype(np.float64)
        kept = np.flatnonzero(np.isfinite(values))
        n = len(kept)
        if one.groups is None:
            if n not in free:
                free[n] = permuted_pairs(n, n_permutations, random_state=state)
            permutations = free[n]
        else:
            permutations = permuted_pairs(
                n, n_permutations, random_state=state, groups=one.groups[kept]
            )
        chance = permutation_chance(
            one.scores[kept],
            permutations,
            index=one.index[kept],
            higher_is_better=describe(one.name).higher_is_better,
        )
        low, high = bootstrap_interval(
            values[kept],
            n_bootstraps=drawing.n_bootstraps,
            level=drawing.level,
            random_state=state,
        )
        gallery = None if one.direction is None else one.scores.shape[1]
        text = protocol(**told, n=n, direction=one.direction, gallery=gallery, extra=extra)
        row: dict[str, Any] = dict.fromkeys(COLUMNS)
        value = values[kept].mean() if n else None
        row |= {**identity, "metric": one.name, "value": _number(value)}
        row |= {"ci_low": _number(low), "ci_high": _number(high), "chance": _number(chance.mean)}
        row |= {"chance_low": _number(chance.low), "chance_high": _number(chance.high)}
        row |= {"p": _number(chance.p), "n": n, "protocol": text}
        scores.rows.append(row)
        scores.per_image.setdefault(identity["label"], {})[one.name] = values


def _number(value: float | np.floating | None) -> float | None:
    return None if value is None or not np.isfinite(value) else float(value)
