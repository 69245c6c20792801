"""Names, directions and number formats of metrics and rows, for readers outside the project."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from afterimage.reports.model import Row

METHOD_ORDER = ("linear_pixels", "low_level", "retrieval", "latent_diffusion")
METHOD_TITLES = {
    "linear_pixels": "Linear",
    "low_level": "Low-level",
    "retrieval": "Retrieval",
    "latent_diffusion": "Diffusion",
    "git_caption": "Caption",
    "nearest_caption": "Nearest training caption",
}
#: Roles of the rows of captions, which have a table of their own.
CAPTION_ROLES = ("caption", "caption_baseline", "caption_audit", "caption_ceiling")
_MODALITIES = {"fmri": "fMRI", "spikes": "spikes", "n/a": ""}
_SOURCES = {
    "shuffledBrain": "Shuffled brain",
    "meanBrain": "Mean brain",
    "noiseBrain": "Noise only",
    "ceiling": "Generator ceiling",
    "generatorCeiling": "Generator ceiling",
}
_BASE_ORDER = (
    *("pixcorr", "mse", "ssim", "twoway", "rank", "distance", "retrieval", "encoding"),
    *("named", "meteor", "rouge1", "rougel", "bleu1", "bleu4", "cider"),
    *("cliptext", "sentence", "clipimage"),
)
METRICS = {
    "pixcorr": (
        "Pixel correlation",
        "Pearson r between the pixels of the seen and the reconstructed image, mean over images.",
    ),
    "mse": ("Mean squared error", "Mean squared pixel difference, intensities from 0 to 1."),
    "ssim": (
        "Structural similarity",
        "Local luminance, contrast and structure of grey images; 1 means identical.",
    ),
    "twoway": (
        "Two-way identification",
        "How often the reconstruction is closer to its own image than to another test image.",
    ),
    "rank": (
        "Gallery rank",
        "Rank of the right image among all test images, 0 the first and 1 the last, mean over images: "
        "exactly 1 less two-way identification.",
    ),
    "encoding": (
        "Agreement with the brain",
        "A linear model of each unit, fitted on training trials, predicts responses to the "
        "reconstructions: correlation with the measured ones over test images, mean over units of a "
        "region.",
    ),
    "distance": (
        "Feature distance",
        "1 less the correlation of the features of the seen and the reconstructed image, mean over "
        "images.",
    ),
    "retrieval": (
        "Retrieval",
        "How often the right image is among the k nearest of all test images.",
    ),
    "meteor": ("METEOR", "Words and stems shared with a reference, in the same order; 1 at best."),
    "rouge1": ("ROUGE-1", "F score of the words shared with a reference."),
    "rougel": ("ROUGE-L", "F score of the longest series of words shared with a reference."),
    "bleu1": ("BLEU-1", "Share of words found in a reference, single sentences."),
    "bleu4": ("BLEU-4", "Series of up to four words found in a reference, single sentences."),
    "cider": ("CIDEr", "Series of words shared with a reference, rare ones count more; 0 to 10."),
    "sentence": ("Sentence similarity", "Cosine of the sentence embeddings of two captions."),
    "cliptext": ("CLIP text similarity", "Cosine of the CLIP embeddings of two captions."),
    "clipimage": (
        "CLIP caption to image",
        "Cosine of CLIP's embeddings of caption and seen image.",
    ),
    "named": ("Named right", "How often the caption names the seen value first."),
}
_REFERENCES = {"dataset": "dataset's captions", "git": "captioner's caption"}
#: Start of the label of an audit row, its title, and what it tells.
AUDIT_ROWS = (
    (
        "noiseBrain",
        "Noise instead of a brain",
        "Random numbers with the mean and spread of each unit go through the same decoder and "
        "generator. What this scores, no brain is needed for.",
    ),
    (
        "shuffledBrain",
        "Shuffled brain",
        "Every unit's test responses are shuffled across images on their own, and go through the same "
        "decoder and generator. If this scores above chance, the score rewards something that does "
        "not come from the brain.",
    ),
    (
        "meanBrain",
        "Mean brain",
        "The average training response goes through the same chain, so every test image gets the "
        "same reconstruction. It shows what the generator makes up on its own.",
    ),
    (
        "meanTrainingImage",
        "Mean training image",
        "The pixel average of the training images, the same for every test image. Blurry guesses "
        "score well in pixel metrics; a reconstruction must beat this one.",
    ),
    (
        "nearestTrainingImage",
        "Nearest training image",
        "A picture the subject saw in training, chosen from the responses alone. A generator that "
        "scores no higher than this has only recalled its training set.",
    ),
    (
        "clusterOracle",
        "Cluster oracle",
        "An oracle that knows which cluster the seen image belongs to, and nothing else. Two-way "
        "scores below its score do not show more than the kind of picture.",
    ),
)


@dataclass(frozen=True)
class Metric:
    """How a metric is written: title, explanation, direction, and whether it is a percentage."""

    name: str
    title: str
    explanation: str
    lower_is_better: bool
    percent: bool

    def write(self, value: Any) -> str:
        """Write one value with the digits this metric deserves; an en dash where not known."""
        number = as_number(value)
        if number is None:
            return "–"
        text = f"{100 * number:.1f} %" if self.percent else f"{number:.3f}"
        if self.name == "mse":
            text = f"{number:.4f}"
        return text.replace("-", "−")

    def interval(self, low: Any, high: Any) -> str:
        """Write an interval, or an en dash where either end is not known."""
        if as_number(low) is None or as_number(high) is None:
            return "–"
        return f"{self.write(low).removesuffix(' %')} to {self.write(high)}"


def as_number(value: Any) -> float | None:
    """Read a number from a table cell; None for NaN, infinities, empty text and "n/a"."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def metric(name: str) -> Metric:
    """Describe a metric by its name in ``metrics.tsv``; unknown names are shown as they are."""
    base, _, rest = name.partition("_")
    title, explanation = METRICS.get(base, (name, ""))
    if base == "twoway" and rest:
        within = rest.startswith("within_cluster")
        encoder = _encoder_title(rest.removeprefix("within_cluster").lstrip("_"))
        title += f"{' within a cluster' if within else ''}{', ' if encoder else ''}{encoder}"
    elif base in ("rank", "distance") and rest:
        title += f", {_encoder_title(rest)}"
    elif name.startswith("encoding_agreement"):
        region = name.removeprefix("encoding_agreement").lstrip("_")
        title += ", all units" if region == "all" else f", {region}"
    elif match := re.fullmatch(r"retrieval_top(\d+)_?(.*)", name):
        backward = match.group(2).endswith("image_to_brain")
        of = re.sub(r"_?(image_to_brain|brain_to_image)$", "", match.group(2))
        encoder = f", {_encoder_title(of)}" if of else ""
        arrow = "image → brain" if backward else "brain → image"
        title += f", top {match.group(1)}{encoder} ({arrow})"
    elif base == "named":
        title = f"{rest.capitalize()} named right"
    elif base in METRICS and rest in _REFERENCES:
        title += f" ({_REFERENCES[rest]})"
    lower = base in ("mse", "rank", "distance")
    return Metric(name, title, explanation, lower, base in ("twoway", "retrieval", "named"))


def _encoder_title(encoder: str) -> str:
    if encoder.startswith("standin_"):
        return f"{_encoder_title(encoder.removeprefix('standin_'))} (stand-in)"
    known = {
        "alexnet2": "AlexNet(2)", "alexnet5": "AlexNet(5)", "inception": "Inception",
        "cliplarge": "CLIP ViT-L/14", "efficientnet": "EfficientNet-B1", "swav": "SwAV",
    }  # fmt: skip
    known |= {"clip": "CLIP", "vae": "VAE latents", "dinov2": "DINOv2", "dino": "DINO"}
    return known.get(encoder, encoder.replace("_", " "))


def metric_order(names: Iterable[str]) -> list[str]:
    """Sort metric names: pixels first, then identification, then retrieval, unknown ones last."""

    def rank(name: str) -> tuple[int, str]:
        base = name.partition("_")[0]
        return (_BASE_ORDER.index(base) if base in _BASE_ORDER else len(_BASE_ORDER), name)

    return sorted(set(names), key=rank)


def inline(title: str) -> str:
    """Write a title inside a sentence: its first letter small, names such as CLIP kept."""
    return title[:1].lower() + title[1:]


def words(label: str) -> str:
    """Split camelCase: ``meanTrainingImage`` becomes ``Mean training image``."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", label).replace("_", " ")
    return spaced[:1].upper() + spaced[1:].lower() if spaced != label.upper() else spaced


def method_of(label: str) -> str:
    """Find the reconstruction method a label ends in, or an empty string."""
    for name in METHOD_TITLES:
        camel = "".join(part.capitalize() for part in name.split("_"))
        if label.endswith(camel):
            return name
    return ""


def label_title(label: str, decoders: Sequence[str] = ()) -> str:
    """Name a row or a gallery column.

    Parameters
    ----------
    label : str
        As in ``metrics.tsv``, for example ``shuffledBrainLowLevel``.
    decoders : sequence of str
        Decoders of this report; with more than one, the title says which.
    """
    method = method_of(label)
    if not method:
        return label if label in decoders else words(label)
    title = METHOD_TITLES[method]
    camel = "".join(part.capitalize() for part in method.split("_"))
    source = label.removesuffix(camel)
    if source in _SOURCES:
        return f"{_SOURCES[source]}, {title.lower()}"
    if source in decoders or source.islower() or not source:
        return f"{title} ({source})" if len(decoders) > 1 and source else title
    return words(label)


def main_metrics(names: Iterable[str]) -> list[str]:
    """Leave out the metrics that are for the tables only: within a cluster, top 5, single regions.

    So is the rank, which says what two-way identification says.
    """
    ordered = metric_order(names)
    kept = [
        name for name in ordered
        if "within_cluster" not in name and "_top5" not in name and not name.startswith("rank")
        and (not name.startswith("encoding_") or name == "encoding_agreement_all")
    ]  # fmt: skip
    return kept or ordered


def is_shuffled(label: str) -> bool:
    """Whether a row was made from responses shuffled across test images."""
    return "shuffledbrain" in label.lower()


def decoders_of(rows: Sequence[Row]) -> list[str]:
    """List the decoders that made the reconstructions, in order of appearance."""
    found = [str(row.get("decoder") or "") for row in rows if row.get("role") == "reconstruction"]
    return [name for name in dict.fromkeys(found) if name]


def find(rows: Sequence[Row], label: str, name: str) -> Row | None:
    """Find the row of one label and metric."""
    for row in rows:
        if row.get("label") == label and row.get("metric") == name:
            return row
    return None


def pipeline_rank(row: Row) -> int:
    """Rank a reconstruction row by how late in the pipeline its method stands."""
    method = str(row.get("method") or "") or method_of(str(row.get("label", "")))
    return METHOD_ORDER.index(method) if method in METHOD_ORDER else -1


def duration(seconds: float | None) -> str:
    """Write a duration: ``8.1 s``, ``3 min 12 s``, ``2 h 05 min``."""
    if seconds is None or not math.isfinite(seconds):
        return "–"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def p_text(value: Any) -> str:
    """Write a p value with two significant digits."""
    number = as_number(value)
    if number is None:
        return "–"
    return f"{number:.3f}" if number >= 0.001 else f"{number:.1e}".replace("e-0", "e−")


def modality_title(modality: str) -> str:
    """Name a modality of the index; empty where it is not known."""
    return _MODALITIES.get(modality, modality.upper())
