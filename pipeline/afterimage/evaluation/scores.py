"""The one table of scores: value, interval, chance, p and ceiling of every metric of every label.

Metrics of the MindEye2 line (Scotti et al. 2024, arXiv:2403.11207).

What differs: every row carries its interval over images, its chance level by permuted pairs, the
ceiling of the generator and the protocol, so that no number stands alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from afterimage.errors import InputError
from afterimage.evaluation import images as pixels
from afterimage.evaluation.identification import similarity
from afterimage.evaluation.measures import (
    Resampling,
    Scores,
    add_rows,
    backward_measures,
    identification_measures,
    image_measures,
    plain_number,
)
from afterimage.evaluation.metrics import COLUMNS, METRICS, describe, protocol

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
    how : tuple of str
        More of how they were made, for the protocol: blend, seeds, whether it is transductive.
    originals : sequence of ndarray, each (height, width, 3), uint8
        The reconstructions at the size that they were made at, for published protocols.
    """

    label: str
    decoder: str
    method: str
    role: str
    images: NDArray[np.generic]
    embeddings: Mapping[str, NDArray[np.generic]]
    ceiling: str = ""
    selection: str = "one sample"
    how: tuple[str, ...] = ()
    originals: Sequence[NDArray[np.generic]] = ()


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
        pixcorr, mse, ssim, and ``twoway_<encoder>``, ``rank_<encoder>``,
        ``retrieval_top1_<encoder>`` and ``retrieval_top5_<encoder>`` (retrieval only in galleries
        larger than 1 and 5).
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
        measures = [*image_measures(truth, one.images, drawing)]
        for encoder, true in truth_embeddings.items():
            similarities = similarity(one.embeddings[encoder], true)
            measures += identification_measures(similarities, None, f"_{encoder}", clusters)
        identity = {"subject": subject, "label": one.label, "decoder": one.decoder}
        identity |= {"method": one.method, "role": one.role}
        told = {"size": size, "repeats": repeats, "selection": one.selection}
        add_rows(scores, measures, identity, told, drawing, one.how)
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
    how: Sequence[str] = (),
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
    how : sequence of str
        More of how they were decoded, for the protocol.
    clusters, repeats, resampling
        As in `reconstruction_rows`.

    Returns
    -------
    Scores
        For each block ``twoway_<block>``, ``rank_<block>``, ``retrieval_top1_<block>`` and
        ``retrieval_top5_<block>``, the latter two also
        with ``_image_to_brain`` where each decoded pattern has its own image. The ceiling is 1
        (0 for ranks).
    """
    drawing = resampling or Resampling()
    scores = Scores()
    identity = {"subject": subject, "label": label, "decoder": decoder}
    identity |= {"method": method, "role": role}
    told = {"size": "decoded features", "repeats": repeats, "selection": "no selection"}
    for block, values in predicted.items():
        mean = None if training_means is None else training_means[block]
        extra = [*(() if mean is None else ("centred on training mean",)), *how]
        similarities = similarity(values, true[block], training_mean=mean)
        measures = [*identification_measures(similarities, index, f"_{block}", clusters)]
        measures += backward_measures(similarities, index, f"_{block}")
        add_rows(scores, measures, identity, told, drawing, extra)
    if score_matrix is not None:
        measures = [*identification_measures(score_matrix, index, "", None)]
        measures += backward_measures(score_matrix, index, "")
        add_rows(scores, measures, identity, told, drawing, ("the decoder's own similarity", *how))
    for row in scores.rows:
        row["ceiling"] = 1.0 if describe(row["metric"]).higher_is_better else 0.0
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
        | {name: plain_number(values[position]) for name, values in metrics.items()}
        for label, metrics in per_image.items()
        for position, stimulus in enumerate(stimuli)
    ]
