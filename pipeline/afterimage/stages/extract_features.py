"""Turn the pictures of one split of one subject into arrays of features, cached by content."""

from __future__ import annotations

import functools
import hashlib
import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from afterimage.bids.names import derivative_root
from afterimage.errors import InputError
from afterimage.features.gabor import GaborSettings
from afterimage.features.pixels import PixelsSettings
from afterimage.features.registry import ENCODERS
from afterimage.features.vae import VaeSettings
from afterimage.features.vision import VisionSettings
from afterimage.io.arrays import BlockWriter, block_writer
from afterimage.io.atomic import atomic_path
from afterimage.io.images import read_image
from afterimage.io.tables import Row, read_tsv
from afterimage.resources import model_folder
from afterimage.settings import StageConfig

VERSION = 2
CITES = ("radford2021", "rombach2022")
#: Pictures embedded, cached and written at once.
CHUNK = 64

if TYPE_CHECKING:
    Encoder = Any  # built below from the registry, which a type checker cannot follow
else:
    Encoder = ENCODERS.union()

log = logging.getLogger("afterimage")


class Config(StageConfig):
    """Which feature blocks the decoders predict; each name becomes a block."""

    encoders: dict[str, Encoder] = Field(
        default={
            "clip": VisionSettings(),
            "vae": VaeSettings(),
            "pixels": PixelsSettings(),
            "gabor": GaborSettings(),
        },
        description="feature blocks by name: clip is the embedding, vae the latents of the generator",
    )
    split: Literal["train", "test"] = Field(
        "train", description="set by the workflow", json_schema_extra={"workflow": True}
    )
    stimuli_digest: str = Field(
        "", description="set by the workflow", json_schema_extra={"workflow": True}
    )


@dataclass(frozen=True)
class Inputs:
    """What the stage reads; ``dataset`` is a file beside the folder ``stimuli/`` of the pictures."""

    split: Path
    dataset: Path
    generator: Path | None = None


@dataclass(frozen=True)
class Outputs:
    """What the stage writes."""

    features: Path


def run(
    inputs: Inputs, outputs: Outputs, config: Config, *, threads: int = 1, device: str = "cpu"
) -> None:
    """Embed every picture of the split with every encoder.

    Pictures of the training split must be there. Pictures of the test split may be absent: those
    are left out, and the reconstructions of their trials stay unscored.
    """
    folder = inputs.dataset.parent / "stimuli"
    rows = [row for row in read_tsv(inputs.split) if row["split"] == config.split]
    if config.split == "test":
        rows = [row for row in rows if (folder / row["file"]).is_file()]
    cache = derivative_root(outputs.features) / "work" / "features"
    with block_writer(outputs.features) as writer:
        writer.group("", [row["stimulus_id"] for row in rows])
        for name, settings in config.encoders.items():
            if settings.kind == "vae" and inputs.generator:
                settings = settings.model_copy(update={"path": str(inputs.generator)})
            _write_block(writer, name, settings, rows, folder, cache, device)


def _write_block(
    writer: BlockWriter,
    name: str,
    settings: Any,
    rows: list[Row],
    folder: Path,
    cache: Path,
    device: str,
) -> None:
    identity = encoder_identity(settings)
    of_text = getattr(ENCODERS.get(settings.kind), "reads_text", False)

    @functools.cache
    def encoder() -> Any:
        # Loading a model takes longer than reading what it made of the same pictures before.
        return ENCODERS.get(settings.kind)(settings, device=device)

    def chunks() -> Iterator[np.ndarray]:
        for start in range(0, len(rows), CHUNK):
            part = rows[start : start + CHUNK]
            paths = [folder / row["file"] for row in part]
            if of_text:
                yield encoder().encode([_text_of(row, name, settings.column) for row in part])
            else:
                yield _cached(cache, identity, paths, encoder)

    stream = chunks()
    first = next(stream, None)
    if first is None:  # no picture of the test split is there: an empty block of the right shape
        nothing: list[Any] = [""] if of_text else [np.zeros((64, 64, 3), np.uint8)]
        first = encoder().encode(nothing)[:0]
    shape = first.shape[1:]

    def all_chunks() -> Iterator[np.ndarray]:
        yield first
        yield from stream

    attributes = {"encoder": json.dumps(settings.model_dump(mode="json")), "identity": identity}
    writer.write("", name, all_chunks(), shape, attributes)


def _text_of(row: Row, block: str, column: str) -> str:
    """Return the text of one stimulus; every one needs it."""
    text = row.get(column, "n/a")
    if text.strip() in ("", "n/a"):
        raise InputError(
            "a stimulus has no caption",
            where=f"stimuli.tsv, {row['stimulus_id']} (feature block {block})",
            found="an empty cell" if column in row else f"no column {column!r}",
            expected=f"a text in column {column!r} for every stimulus that was shown",
            fix="fill the column, or take the block out of extract_features.encoders",
        )
    return text


def _cached(
    cache: Path, identity: str, paths: list[Path], encoder: Callable[[], Any]
) -> np.ndarray:
    """Embed one chunk of pictures, or read it from the cache.

    The key is the encoder and the bytes of all pictures of the chunk: the same pictures in the
    same chunk give the same bits, whether they were computed now or in a run that was killed.
    """
    digest = hashlib.sha256(identity.encode())
    for path in paths:
        if not path.is_file():
            read_image(path)  # raises the error that names the file
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    file = cache / digest.hexdigest()[:2] / f"{digest.hexdigest()}.npy"
    if file.is_file():
        try:
            return np.load(file, allow_pickle=False)
        except (ValueError, EOFError):
            log.warning("the cached features %s are damaged; computing them again", file)
    values = encoder().encode([read_image(path) for path in paths])
    if not np.isfinite(values).all():
        raise InputError(
            "an encoder gave values that are not finite", where=str(paths[0].parent),
            found=f"kind {identity[:40]}", expected="finite features",
            fix="check the weights of the encoder",
        )  # fmt: skip
    with atomic_path(file) as temporary:
        np.save(temporary, values, allow_pickle=False)
    return values


def encoder_identity(settings: Any) -> str:
    """Name an encoder by its settings and, where it has weights, by their content."""
    text = json.dumps(settings.model_dump(mode="json", exclude={"path"}), sort_keys=True)
    digest = hashlib.sha256(f"{settings.kind} {VERSION} {text}".encode())
    if hasattr(settings, "path"):
        folder = model_folder(settings.path)
        folder = folder / "vae" if settings.kind == "vae" and (folder / "vae").is_dir() else folder
        for file in sorted(folder.glob("*.json")) + sorted(folder.glob("*.safetensors")):
            digest.update(file.name.encode())
            with file.open("rb") as handle:
                digest.update(hashlib.file_digest(handle, "sha256").digest())
    return f"{settings.kind}-{digest.hexdigest()[:16]}"
