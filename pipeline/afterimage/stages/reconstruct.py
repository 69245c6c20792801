"""Turn predicted features of one subject and decoder into pictures."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from afterimage.bids.names import camel_case, entity, stimulus_labels, unit_of
from afterimage.features.registry import ENCODERS
from afterimage.io.arrays import block_shapes, block_writer, groups_of, open_dataset, read_blocks
from afterimage.io.images import read_image, write_png
from afterimage.io.tables import read_tsv, write_tsv
from afterimage.reconstruction.latent_diffusion import LatentDiffusionSettings
from afterimage.reconstruction.linear_pixels import LinearPixelsSettings
from afterimage.reconstruction.low_level import LowLevelSettings
from afterimage.reconstruction.registry import RECONSTRUCTIONS, Material
from afterimage.reconstruction.retrieval import RetrievalSettings
from afterimage.settings import StageConfig

VERSION = 1
CITES = (
    *("rombach2022", "meng2022", "ho2022", "schoenmakers2013", "naselaris2009"),
    *("podell2023", "ye2023", "ramesh2022", "razzhigaev2023", "esser2024"),
)

if TYPE_CHECKING:
    Method = Any  # built below from the registry, which a type checker cannot follow
else:
    Method = RECONSTRUCTIONS.union()


class Config(StageConfig):
    """Which pictures are made from the predicted features."""

    methods: dict[str, Method] = Field(
        default={
            "linear_pixels": LinearPixelsSettings(),
            "low_level": LowLevelSettings(),
            "retrieval": RetrievalSettings(),
            "latent_diffusion": LatentDiffusionSettings(),
        },
        description="reconstruction methods by name",
    )
    random_state: int | None = Field(
        None, description="seed of the generator's noise; default: the root seed"
    )


@dataclass(frozen=True)
class Inputs:
    """What the stage reads.

    ``predictions`` is what a decoder predicted, or, for the ceiling, the true features of the
    test images: the same code either way. Test pictures are never read.
    """

    predictions: Path
    features: Path
    split: Path
    dataset: Path
    generator: Path | None = None


@dataclass(frozen=True)
class Outputs:
    """What the stage writes; single PNG files lie beside them."""

    images: Path
    candidates: Path


def run(
    inputs: Inputs, outputs: Outputs, config: Config, *, threads: int = 1, device: str = "cpu"
) -> None:
    """Reconstruct every prediction with every method; write the stack, PNG files, a manifest."""
    material = open_material(inputs, config.random_state or 0, device)
    sources = groups_of(inputs.predictions) or [""]
    decoder = entity(outputs.images, "desc")
    methods = {
        name: open_method(settings, inputs.generator, device)
        for name, settings in config.methods.items()
    }

    manifest: list[dict[str, Any]] = []
    with block_writer(outputs.images) as writer:
        for source in sources:
            ids, predicted = read_blocks(inputs.predictions, source)
            material = replace(material, keys=list(ids))
            source = source or "truth"
            writer.group(source, ids)
            for name, method in methods.items():
                # A ceiling has nothing to show where no test picture is there.
                made = method.reconstruct(predicted, material) if len(ids) else ([], [])
                pictures, details = made
                stack = common_size(pictures)
                shape = stack.shape[1:]
                writer.write(source, name, [stack], shape, {"method": name}, dtype="uint8")
                if source in ("brain", "truth"):
                    manifest += _write_pictures(outputs, decoder, name, ids, stack, details)
    columns = ["stimulus_id", "decoder", "method", "label", "file", "seed", "details"]
    write_tsv(outputs.candidates, manifest, columns)


def open_method(settings: Any, generator: Path | None, device: str) -> Any:
    """Return a reconstruction method, with the subject's own generator where there is one."""
    if generator and hasattr(settings, "generator"):
        settings = settings.model_copy(update={"generator": str(generator)})
    return RECONSTRUCTIONS.get(settings.kind)(settings, device=device)


def open_material(inputs: Inputs, random_state: int, device: str) -> Material:
    """Return what every method may use, still without keys."""
    names, _ = read_blocks(inputs.features, names=[])
    files = {row["stimulus_id"]: row["file"] for row in read_tsv(inputs.split)}
    folder = inputs.dataset.parent / "stimuli"
    return Material(
        keys=(),
        random_state=random_state,
        shapes=block_shapes(inputs.features),
        training=_Training(inputs.features),
        training_image=lambda index: read_image(folder / files[names[index]]),
        embed=_embedders(inputs.features, inputs.generator, device),
    )


class _Training(dict[str, np.ndarray]):
    """Features of the training images, each block read when a method asks for it."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    def __missing__(self, block: str) -> np.ndarray:
        self[block] = read_blocks(self._path, names=[block])[1][block]
        return self[block]


def _write_pictures(
    outputs: Outputs,
    decoder: str,
    method: str,
    ids: np.ndarray,
    stack: np.ndarray,
    details: Sequence[dict[str, Any]],
) -> list[dict[str, Any]]:
    subject = unit_of(outputs.images)
    label = camel_case(decoder, method)
    rows = []
    short = stimulus_labels(ids)
    for name, picture, detail in zip(ids, stack, details, strict=True):
        file = outputs.images.parent / f"{subject}_stim-{short[name]}_desc-{label}_recon.png"
        write_png(file, picture)
        rows.append(
            {
                "stimulus_id": name,
                "decoder": decoder,
                "method": method,
                "label": label,
                "file": file.name,
                "seed": detail.get("seed"),
                "details": json.dumps(detail, sort_keys=True),
            }
        )
    return rows


def common_size(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """Stack pictures; where their sizes differ, all are resized to the most common one."""
    from PIL import Image

    if not len(pictures):
        return np.zeros((0, 1, 1, 3), dtype=np.uint8)
    sizes = [picture.shape[:2] for picture in pictures]
    height, width = max(sorted(set(sizes)), key=sizes.count)
    return np.stack(
        [
            picture
            if picture.shape[:2] == (height, width)
            else np.asarray(
                Image.fromarray(picture).resize((width, height), Image.Resampling.BILINEAR)
            )
            for picture in pictures
        ]
    )


def _embedders(
    features: Path, generator: Path | None, device: str
) -> dict[str, Callable[[Sequence[np.ndarray]], np.ndarray]]:
    """Return, by block, a function that embeds pictures as the training features were made."""
    with open_dataset(features) as dataset:
        settings = {
            str(name): json.loads(block.attrs["encoder"]) for name, block in dataset.items()
        }
    loaded: dict[str, Any] = {}

    def embedder(block: str) -> Callable[[Sequence[np.ndarray]], np.ndarray]:
        def embed(images: Sequence[np.ndarray]) -> np.ndarray:
            if block not in loaded:
                kind = settings[block]["kind"]
                values = dict(settings[block])
                if kind == "vae" and generator:
                    values["path"] = str(generator)
                loaded[block] = ENCODERS.get(kind)(
                    ENCODERS.settings(kind)(**values), device=device
                )
            return loaded[block].encode(images).reshape(len(images), -1)

        return embed

    # a block of texts has no pictures to embed
    return {
        block: embedder(block)
        for block, values in settings.items()
        if not getattr(ENCODERS.get(values["kind"]), "reads_text", False)
    }
