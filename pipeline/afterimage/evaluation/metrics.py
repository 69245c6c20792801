"""What each metric is called, means and prefers, and how its protocol is written down."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from afterimage.errors import InputError

COLUMNS = (
    *("subject", "label", "decoder", "method", "role", "metric", "value", "ci_low", "ci_high"),
    *("chance", "chance_low", "chance_high", "ceiling", "noise_ceiling", "p", "n", "protocol"),
)
PROTOCOL = "afterimage-1"


@dataclass(frozen=True)
class Metric:
    """One metric, or one family of metrics (``twoway_<encoder>``).

    Attributes
    ----------
    higher_is_better : bool
    text : str
        For people, in one line.
    definition : str
        Exact enough to compute it again.
    """

    higher_is_better: bool
    text: str
    definition: str


METRICS: dict[str, Metric] = {
    "pixcorr": Metric(
        True,
        "pixel correlation",
        "Pearson r of the flattened RGB values of image and reconstruction, native size, mean "
        "over images; 0 where either is constant.",
    ),
    "mse": Metric(
        False,
        "mean squared pixel error",
        "Mean squared difference of RGB values 0..1, native size, mean over images.",
    ),
    "ssim": Metric(
        True,
        "structural similarity",
        "SSIM of rgb2gray images, Gaussian window sigma 1.5 (11 px), population covariance, data "
        "range 1, native size, mean over images.",
    ),
    "twoway": Metric(
        True,
        "two-way identification",
        "Share of wrong gallery images whose features correlate strictly less with those of the "
        "reconstruction than the right image's do; ties fail; mean over reconstructions; 0.5 by "
        "chance.",
    ),
    "twoway_within_cluster": Metric(
        True,
        "two-way identification among images of the same cluster",
        "As twoway, against gallery images of the right image's own cluster only; 0.5 for whoever "
        "knows only the cluster.",
    ),
    "rank": Metric(
        False,
        "gallery rank of the right image",
        "Mean over reconstructions of (rank - 1) / (gallery - 1): 0 the first of the gallery, 1 the "
        "last, 0.5 by chance; ties count against it. Exactly 1 - twoway of the same row.",
    ),
    "distance": Metric(
        False,
        "feature distance",
        "Mean over images of scipy.spatial.distance.correlation of the features of image and "
        "reconstruction: 1 - Pearson r.",
    ),
    "encoding_agreement": Metric(
        True,
        "encoding agreement",
        "Responses that a linear encoding model, fitted on training trials, predicts for the "
        "reconstructions: Pearson r over test images with the measured mean responses, by unit, mean "
        "over the units of a region. The ceiling is the same for the true images.",
    ),
    "retrieval_top1": Metric(
        True,
        "retrieval, first hit",
        "Share of queries whose right answer is more similar than every other of the gallery; "
        "ties fail. brain_to_image: decoded pattern asks for its image; image_to_brain: image "
        "asks for its decoded pattern.",
    ),
    "retrieval_top5": Metric(
        True,
        "retrieval, among the first five",
        "Share of queries with fewer than five wrong answers at least as similar as the right "
        "one. Directions as in retrieval_top1.",
    ),
    "meteor": Metric(
        True,
        "METEOR of captions",
        "nltk's METEOR (alpha .9, beta 3, gamma .5) of equal words and Porter stems, no synonyms, "
        "best reference, mean over captions. _dataset: captions of the dataset; _git: what GIT "
        "writes of the true picture.",
    ),
    "rouge1": Metric(True, "ROUGE-1 of captions", "F of words, rouge-score without stemming."),
    "rougel": Metric(
        True,
        "ROUGE-L of captions",
        "F of the longest common subsequence, rouge-score, no stemming.",
    ),
    "bleu1": Metric(True, "BLEU-1 of captions", "BLEU of words, of single sentences, mean."),
    "bleu4": Metric(
        True, "BLEU-4 of captions", "BLEU to four words, of single sentences, smoothed, mean."
    ),
    "cider": Metric(
        True, "CIDEr of captions", "CIDEr-D, 0..10, document frequencies of the test references."
    ),
    "cliptext": Metric(
        True, "CLIP similarity of captions", "Cosine of CLIP's text embeddings, best reference."
    ),
    "clipimage": Metric(
        True, "CLIP similarity of caption and image", "Cosine of CLIP's text and image embeddings."
    ),
    "sentence": Metric(
        True, "similarity of sentences", "Cosine of sentence embeddings, best reference."
    ),
    "named": Metric(
        True,
        "named right",
        "Share of captions whose first named value of the column is the picture's.",
    ),
}


def describe(name: str) -> Metric:
    """Return the entry of a metric's name or, for ``twoway_clip``, of its family.

    Parameters
    ----------
    name : str
        As in the column ``metric`` of the tables.

    Returns
    -------
    Metric

    Raises
    ------
    KeyError
        For a name of no family.
    """
    families = [key for key in METRICS if name == key or name.startswith(f"{key}_")]
    if not families:
        raise KeyError(name)
    return METRICS[max(families, key=len)]


def protocol(
    *,
    size: str,
    n: int,
    repeats: str,
    selection: str,
    direction: str | None = None,
    gallery: int | None = None,
    extra: Sequence[str] = (),
    family: str = PROTOCOL,
) -> str:
    """Write down how a number was made; numbers of different protocols are not comparable.

    Returns
    -------
    str
        As in ``afterimage-1; native size; n=10; brain_to_image; gallery=10; repeats averaged;
        best-of-4 by predicted embedding``.
    """
    parts = [family, size, f"n={n}"]
    if direction is not None:
        parts += [direction, f"gallery={gallery}"]
    return "; ".join([*parts, f"repeats {repeats}", selection, *extra])


def family_of(row: Mapping[str, Any]) -> str:
    """Return the name of the protocol of a row, the first part of its ``protocol``."""
    return str(row.get("protocol") or "").partition(";")[0].strip()


def shared_protocol(row: Mapping[str, Any]) -> str:
    """Return the protocol of a row without what is a person's own: the number of training trials.

    The number of test images is that of the row's ``n`` where the protocol does not say it.
    """
    parts = [part.strip() for part in str(row.get("protocol") or "").split(";")]
    kept = [part for part in parts if part and not part.endswith("training trials")]
    if not any(part.startswith("n=") for part in kept):
        with suppress(ValueError):  # nobody knows
            kept.append(f"n={float(str(row.get('n'))):g}")
    return "; ".join(kept)


def comparison_key(row: Mapping[str, Any]) -> tuple[str, str]:
    """Return what two rows must share for their values to be averaged, compared or drawn together.

    Returns
    -------
    metric, protocol : str
        The protocol without what may differ between people: the number of training trials, and of
        metrics whose expectation does not depend on it, which is all but retrieval, the number of
        test images.
    """
    metric = str(row.get("metric"))
    parts = shared_protocol(row).split("; ")
    if not metric.startswith("retrieval"):
        parts = [part for part in parts if not part.startswith(("n=", "gallery="))]
    return metric, "; ".join(parts)


def check_one_protocol(rows: Iterable[Mapping[str, Any]], doing: str) -> None:
    """Refuse to put numbers of different metrics or protocols together.

    Parameters
    ----------
    rows : iterable of mapping
        Rows of ``metrics.tsv``.
    doing : str
        What would be done with them, for the message.

    Raises
    ------
    InputError
        If there are two.
    """
    keys = dict.fromkeys(comparison_key(row) for row in rows)
    if len(keys) > 1:
        raise InputError(
            f"numbers of different protocols would be {doing}",
            found=" | ".join(f"{metric}: {text}" for metric, text in list(keys)[:3]),
            expected="one metric and one protocol",
            fix="put rows together by afterimage.evaluation.metrics.comparison_key",
        )
