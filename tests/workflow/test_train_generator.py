"""The switch that fine-tunes the generator: training pictures only, and really used afterwards."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from afterimage.features.vae import Vae, VaeSettings
from afterimage.io.images import read_image, resize_images
from afterimage.io.tables import read_tsv, write_tsv
from afterimage.networks.autoencoder import decode, load_autoencoder
from afterimage.resources import model_folder
from afterimage.stages import train_generator

MINIMAL = Path(__file__).resolve().parents[1] / "data" / "minimal"


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """Fine-tune for a few steps on the training pictures of the minimal dataset."""
    folder = tmp_path_factory.mktemp("generator") / "sub-01"
    folder.mkdir()
    rows = read_tsv(MINIMAL / "stimuli.tsv")
    write_tsv(folder / "sub-01_split.tsv", rows, list(rows[0]))
    train_generator.run(
        train_generator.Inputs(folder / "sub-01_split.tsv", MINIMAL / "stimuli.tsv"),
        train_generator.Outputs(folder / "generator"),
        train_generator.Config(autoencoder_steps=120, denoiser_steps=3, batch_size=8),
    )
    return folder / "generator"


def test_only_training_pictures_were_used(trained):
    card = json.loads((trained / "training.json").read_text())
    split = {row["stimulus_id"]: row["split"] for row in read_tsv(MINIMAL / "stimuli.tsv")}
    assert {split[name] for name in card["trained_on"]} == {"train"}
    assert len(card["trained_on"]) == 12


def test_the_autoencoder_knows_these_pictures_better(trained):
    rows = [row for row in read_tsv(MINIMAL / "stimuli.tsv") if row["split"] == "train"]
    pictures = [read_image(MINIMAL / "stimuli" / row["file"]) for row in rows]

    def error(path: str) -> float:
        latents = Vae(VaeSettings(path=path)).encode(pictures)
        made = decode(load_autoencoder(model_folder(path)), latents)
        return float(((made - resize_images(pictures, 64, 64)) ** 2).mean())

    assert error(str(trained)) < 0.9 * error("tiny/generator")


def test_the_folder_is_complete_and_nothing_is_left_behind(trained):
    assert {p.name for p in trained.iterdir()} == {
        "vae", "unet", "scheduler", "model_index.json", "training.json",
    }  # fmt: skip
    assert not list(trained.parent.glob(".writing-*"))
    weights = "unet/diffusion_pytorch_model.safetensors"
    shipped = model_folder("tiny/generator")
    assert (trained / weights).read_bytes() != (shipped / weights).read_bytes()
