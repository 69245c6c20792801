"""How ``evaluate`` scores captions: references, encoders of texts, and the tables of captions."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from afterimage.bids.names import camel_case, unit_of
from afterimage.errors import ConfigError
from afterimage.io.arrays import block_shapes, open_dataset
from afterimage.io.tables import Row, read_tsv, write_tsv
from afterimage.networks.text_encoder import TextEncoder
from afterimage.resources import model_folder
from afterimage.settings import Settings
from afterimage.stages.stimuli import captions_of

if TYPE_CHECKING:
    from afterimage.evaluation.caption_scores import CaptionSet, Judge, References
    from afterimage.evaluation.scores import Resampling

#: Source of a caption: the words of its label, its role and its method.
SOURCES = {
    "brain": ([], "caption", "git_caption"),
    "nearest": ([], "caption_baseline", "nearest_caption"),
    "shuffled": (["shuffled_brain"], "caption_audit", "git_caption"),
    "mean": (["mean_brain"], "caption_audit", "git_caption"),
    "noise": (["noise_brain"], "caption_audit", "git_caption"),
}
CEILING = camel_case("ceiling", "git_caption")


class CaptionMetrics(Settings):
    """What captions are compared by, beside their words."""

    clip_block: str = Field(
        "clip",
        description="feature block whose folder is a CLIP with both sides: similarity of captions "
        "to references and to the true picture; empty or another model: not scored",
    )
    sentence_encoder: str = Field(
        "",
        description="local folder of a transformers sentence encoder, such as all-MiniLM-L6-v2; "
        "empty: not scored",
    )
    attributes: list[str] = Field(
        default=["category", "colour"],
        description="columns of the table of stimuli whose value captions should name",
    )


def score_captions(
    captions: Path,
    split: Path,
    features: Path,
    test_ids: Sequence[str],
    test_blocks: dict[str, np.ndarray],
    settings: CaptionMetrics,
    resampling: Resampling,
    device: str,
) -> list[dict[str, Any]]:
    """Return the rows of captions for the table of scores, and write each label's captions.

    Parameters
    ----------
    captions : Path
        What the stage ``caption`` wrote.
    split : Path
        The subject's stimuli.
    features : Path
        Its training features: which folder a block was made with.
    test_ids, test_blocks
        Test pictures that are there, and their true features.
    settings : CaptionMetrics
    resampling : Resampling
    device : str
    """
    from afterimage.evaluation.caption_scores import caption_rows

    sets = _sets(read_tsv(captions), test_ids)
    stimuli = {row["stimulus_id"]: row for row in read_tsv(split)}
    references = _references(sets, stimuli, test_ids)
    judge = _judge(settings, stimuli, features, test_ids, test_blocks, device)
    subject = unit_of(captions)
    rows, values = caption_rows(
        sets,
        references,
        judge,
        subject=subject.removeprefix("sub-"),
        n_bootstraps=resampling.n_bootstraps,
        n_permutations=resampling.n_permutations,
        random_state=resampling.random_state,
    )
    known = captions_of(stimuli.values())
    for one in sets:
        metrics = list(values[one.label])
        table = [
            {"stimulus_id": name, "decoder": one.decoder, "method": one.method}
            | {"caption": one.captions[i], "reference": known.get(name, ("n/a",))[0]}
            | {metric: values[one.label][metric][i] for metric in metrics}
            for i, name in enumerate(test_ids)
        ]
        file = captions.with_name(f"{subject}_desc-{one.label}_captions.tsv")
        write_tsv(file, table, list(table[0]))
    return rows


def _sets(rows: Sequence[Row], test_ids: Sequence[str]) -> list[CaptionSet]:
    """Put the captions of every decoder and source in the order of the test pictures."""
    from afterimage.evaluation.caption_scores import CaptionSet

    written: dict[tuple[str, str], dict[str, str]] = {}
    for row in rows:
        texts = written.setdefault((row["decoder"], row["source"]), {})
        texts[row["stimulus_id"]] = "" if row["caption"] == "n/a" else row["caption"]
    several = len({decoder for decoder, _ in written} - {"ceiling"}) > 1
    sets = []
    for (decoder, source), texts in written.items():
        if source == "truth":
            words, role, method = ["ceiling"], "caption_ceiling", "git_caption"
        else:
            control, role, method = SOURCES[source]
            words = [*([decoder] if several or not control else []), *control]
        # The mean and the noise belong to no image: they stand for all of them in turn.
        names = itertools.cycle(texts) if source in ("mean", "noise") else iter(test_ids)
        ordered = [texts[name] for name in itertools.islice(names, len(test_ids))]
        label = camel_case(*words, method)
        truth = source == "truth"
        sets.append(
            CaptionSet(
                label, "" if truth else decoder, method, role, ordered, "" if truth else CEILING
            )
        )
    return sets


def _references(
    sets: Sequence[CaptionSet], stimuli: dict[str, Row], test_ids: Sequence[str]
) -> list[References]:
    """Collect references: the dataset's captions where all pictures have some, and GIT's."""
    from afterimage.evaluation.caption_scores import References

    known = captions_of(stimuli.values())
    found = []
    if all(name in known for name in test_ids):
        found.append(References("dataset", [known[name] for name in test_ids]))
    for one in sets:
        if one.role == "caption_ceiling":
            found.append(References("git", [(text,) for text in one.captions]))
    return found


def _judge(
    settings: CaptionMetrics,
    stimuli: dict[str, Row],
    features: Path,
    test_ids: Sequence[str],
    test_blocks: dict[str, np.ndarray],
    device: str,
) -> Judge:
    """Load the encoders of texts that are there, and collect what captions should name."""
    from afterimage.evaluation.caption_scores import Judge

    embed, images = {}, None
    folder = _clip_folder(settings.clip_block, features)
    if folder:
        embed["cliptext"] = TextEncoder(folder, device).embed
        images = test_blocks[settings.clip_block]
        images = images / np.maximum(np.linalg.norm(images, axis=1, keepdims=True), 1e-12)
    if settings.sentence_encoder:
        embed["sentence"] = TextEncoder(model_folder(settings.sentence_encoder), device).embed
    attributes, values = {}, {}
    for column in settings.attributes:
        every = sorted({row.get(column, "n/a") for row in stimuli.values()} - {"n/a"})
        truths = [stimuli[name].get(column, "n/a") for name in test_ids]
        if len(every) > 1 and "n/a" not in truths:
            attributes[column], values[column] = truths, every
    return Judge(embed=embed, images=images, attributes=attributes, values=values)


def _clip_folder(block: str, features: Path) -> Path | None:
    """Return the folder of that block where it is CLIP's own image embedding, else None."""
    if not block:
        return None
    with open_dataset(features) as dataset:
        if block not in dataset:
            return None
        encoder = json.loads(dataset[block].attrs["encoder"])
    own = encoder.get("output") == "embedding" and encoder.get("layer") == "projection"
    if encoder["kind"] != "vision" or not own or len(block_shapes(features)[block]) != 1:
        return None
    folder = model_folder(encoder["path"])
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if config.get("model_type") != "clip":
        return None
    if "text_config" not in config:
        raise ConfigError(
            "a CLIP folder has no text side", where=str(folder), found="config.json",
            expected="text_config beside vision_config", fix="empty evaluate.captions.clip_block",
        )  # fmt: skip
    return folder
