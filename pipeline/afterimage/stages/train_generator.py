"""Fine-tune the small generator on a subject's own training images."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from afterimage.features.registry import ENCODERS
from afterimage.features.vision import VisionSettings
from afterimage.io.atomic import atomic_folder, write_json
from afterimage.io.images import read_image, resize_images
from afterimage.io.tables import read_tsv
from afterimage.resources import model_folder
from afterimage.settings import StageConfig
from afterimage.stages.checkpoints import checkpoint_folder

VERSION = 1
CITES = ("rombach2022",)


class Config(StageConfig):
    """Whether the generator is adapted to the pictures of the dataset (training images only)."""

    enabled: bool = Field(
        False, description="fine-tune on the training images; for pictures unlike the shipped ones"
    )
    generator: str = Field("tiny/generator", description="diffusers folder to start from")
    encoder: str = Field("tiny/clip", description="image encoder whose embedding guides it")
    size_px: int = Field(64, ge=8, description="pictures are resized to this square")
    autoencoder_steps: int = Field(400, ge=0, description="steps of fine-tuning the autoencoder")
    denoiser_steps: int = Field(800, ge=0, description="steps of fine-tuning the denoiser")
    batch_size: int = Field(24, ge=1, description="pictures a step")
    random_state: int | None = Field(None, description="seed; default: the root seed")


@dataclass(frozen=True)
class Inputs:
    """What the stage reads: training pictures."""

    split: Path
    dataset: Path


@dataclass(frozen=True)
class Outputs:
    """What the stage writes: a diffusers folder."""

    generator: Path


def run(
    inputs: Inputs, outputs: Outputs, config: Config, *, threads: int = 1, device: str = "cpu"
) -> None:
    """Fine-tune the autoencoder, then the denoiser; save a diffusers folder of the same form.

    Both resume from checkpoints in the work folder after an interruption.
    """
    from afterimage.networks.autoencoder import encode, load_autoencoder
    from afterimage.training.generative import fit_autoencoder, fit_denoiser
    from afterimage.training.loop import LoopSettings

    folder = inputs.dataset.parent / "stimuli"
    rows = [row for row in read_tsv(inputs.split) if row["split"] == "train"]
    pictures = [read_image(folder / row["file"]) for row in rows]
    pixels = resize_images(pictures, config.size_px, config.size_px)
    images = np.rint(pixels * 255.0).astype(np.uint8)
    start = model_folder(config.generator)
    work = checkpoint_folder("train_generator", VERSION, config, inputs, outputs.generator)
    random_state = config.random_state or 0

    vae = load_autoencoder(start)
    if config.autoencoder_steps:
        vae, _ = fit_autoencoder(
            images,
            vae=vae,
            settings=LoopSettings(
                n_steps=config.autoencoder_steps, batch_size=config.batch_size, learning_rate=5e-4
            ),
            random_state=random_state,
            device=device,
            checkpoint_folder=work / "autoencoder",
        )
    settings = VisionSettings(path=config.encoder)
    embeddings = ENCODERS.get("vision")(settings, device=device).encode(pictures)
    unet, scheduler = _load_denoiser(start)
    if config.denoiser_steps:
        unet, _ = fit_denoiser(
            encode(vae, pixels, device=device),
            embeddings,
            unet=unet,
            scheduler=scheduler,
            settings=LoopSettings(
                n_steps=config.denoiser_steps, batch_size=config.batch_size, learning_rate=5e-4
            ),
            random_state=random_state,
            device=device,
            checkpoint_folder=work / "denoiser",
        )
    card = {"start": config.generator, "trained_on": [row["stimulus_id"] for row in rows]}
    with atomic_folder(outputs.generator) as folder:
        vae.save_pretrained(folder / "vae", safe_serialization=True)
        unet.save_pretrained(folder / "unet", safe_serialization=True)
        scheduler.save_pretrained(folder / "scheduler")
        shutil.copyfile(start / "model_index.json", folder / "model_index.json")
        write_json(folder / "training.json", card)
    shutil.rmtree(work.parent, ignore_errors=True)


def _load_denoiser(folder: Path) -> tuple[Any, Any]:
    from diffusers import DDIMScheduler, UNet2DConditionModel

    unet = UNet2DConditionModel.from_pretrained(
        folder / "unet", local_files_only=True, use_safetensors=True
    )
    return unet.float(), DDIMScheduler.from_pretrained(folder / "scheduler", local_files_only=True)
