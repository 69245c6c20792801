"""Write captions from the image tokens that one subject's decoders predicted."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from afterimage.bids.names import entity
from afterimage.errors import ConfigError
from afterimage.io.arrays import block_shapes, groups_of, open_dataset, read_blocks
from afterimage.io.tables import read_tsv, write_tsv
from afterimage.reconstruction.git_caption import GitCaptioner, Rescale
from afterimage.settings import StageConfig
from afterimage.stages.stimuli import captions_of

VERSION = 1
CITES = ("wang2022", "ferrante2023")
COLUMNS = ("stimulus_id", "decoder", "source", "caption", "log_probability", "training_stimulus")


class Config(StageConfig):
    """How captions are written; they are where one of the features is of kind ``git``."""

    block: str = Field("", description="the block of image tokens; empty: the one of kind git")
    rescale: Rescale = Field(
        "layer_norm",
        description="put predicted tokens back to the spread that the captioner's layer norm gives",
    )
    n_beams: int = Field(1, ge=1, description="beams of the search for words; 1 is greedy")
    max_words: int = Field(24, ge=1, description="longest caption, in tokens of the captioner")
    batch_size: int = Field(64, ge=1, description="captions written at once")


@dataclass(frozen=True)
class Inputs:
    """What the stage reads; of test pictures, only the true tokens, for the ceiling."""

    predictions: tuple[Path, ...]
    features: Path
    test_features: Path
    split: Path


@dataclass(frozen=True)
class Outputs:
    """What the stage writes."""

    captions: Path


def run(
    inputs: Inputs, outputs: Outputs, config: Config, *, threads: int = 1, device: str = "cpu"
) -> None:
    """Caption every prediction, the true tokens, and the nearest training stimulus.

    Sources are those of the predictions (``brain``, ``shuffled``, ``mean``), ``truth``, and
    ``nearest``: the caption that the dataset has of the training stimulus with the highest score of
    the decoder, or where it has none, the one that GIT writes of that picture.
    """
    block, path = _block(inputs.features, config.block)
    shape = block_shapes(inputs.features)[block]
    captioner = GitCaptioner(path, device)
    names, _ = read_blocks(inputs.features, names=[])
    known = captions_of(row for row in read_tsv(inputs.split) if row["split"] == "train")

    def written(tokens: np.ndarray, rescale: Rescale) -> list[tuple[str, float]]:
        captions, scores = captioner.caption(
            tokens.reshape(-1, *shape), rescale=rescale, n_beams=config.n_beams,
            max_words=config.max_words, batch_size=config.batch_size,
        )  # fmt: skip
        return [
            (text, round(float(score), 6)) for text, score in zip(captions, scores, strict=True)
        ]

    rows: list[dict[str, Any]] = []
    for decoder, source, ids, tokens, nearest in _sources(inputs, block):
        rescale = "none" if source == "truth" else config.rescale
        for name, (text, score) in zip(ids, written(tokens, rescale), strict=True):
            rows.append(_row(name, decoder, source, text, score))
        if nearest is None:
            continue
        chosen = [str(names[index]) for index in nearest]
        silent = np.unique([row for row in nearest if str(names[row]) not in known]).astype(int)
        with open_dataset(inputs.features) as features:  # tokens of all pictures may be gigabytes
            own = dict(zip(silent, written(features[block][silent].values, "none"), strict=True))
        for name, row, stimulus in zip(ids, nearest, chosen, strict=True):
            caption, sure = own[row] if row in own else (known[stimulus][0], None)
            rows.append(_row(name, decoder, "nearest", caption, sure, stimulus))
    write_tsv(outputs.captions, rows, COLUMNS)


def _block(features: Path, wanted: str) -> tuple[str, str]:
    """Return the name of the block of image tokens, and the folder of its captioner."""
    with open_dataset(features) as dataset:
        settings = {
            str(name): json.loads(values.attrs["encoder"]) for name, values in dataset.items()
        }
    found = [name for name, values in settings.items() if values["kind"] == "git"]
    name = wanted or next(iter(found), "")
    if name not in found:
        raise ConfigError(
            "captions need image tokens of a captioner", where="caption.block",
            found=f"{name or 'nothing'} among {', '.join(settings)}",
            expected="a feature block of kind git",
            fix="add git: {kind: git, path: FOLDER} to extract_features.encoders",
        )  # fmt: skip
    return name, settings[name]["path"]


def _sources(
    inputs: Inputs, block: str
) -> Iterator[tuple[str, str, np.ndarray, np.ndarray, np.ndarray | None]]:
    """Yield decoder, source, stimuli, tokens, and of the brain the nearest training stimuli."""
    for path in inputs.predictions:
        for source in groups_of(path):
            if source == "roi":  # regions alone: nobody saw a picture
                continue
            brain = source == "brain"
            wanted = [block, "training_scores"] if brain else [block]
            ids, values = read_blocks(path, source, names=wanted)
            nearest = values["training_scores"].argmax(1) if brain else None
            yield entity(path, "desc"), source, ids, values[block], nearest
    ids, values = read_blocks(inputs.test_features, names=[block])
    if len(ids):
        yield "ceiling", "truth", ids, values[block], None


def _row(
    name: str, decoder: str, source: str, caption: str, score: float | None, stimulus: str = "n/a"
) -> dict[str, Any]:
    # A caption without a word would be an empty cell, which a table cannot tell from a lost one.
    values = (name, decoder, source, caption or "n/a", score, stimulus)
    return dict(zip(COLUMNS, values, strict=True))
