"""The shipped small weights: complete, small, without pickles, and as good as their card says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from afterimage.networks.autoencoder import decode, encode, load_autoencoder
from afterimage.reconstruction.latent_diffusion import LatentDiffusion, LatentDiffusionSettings
from afterimage.reconstruction.registry import Material
from afterimage.resources import resource_root
from afterimage.simulate.stimuli import draw_stimuli

TINY = resource_root() / "data" / "tiny"


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def clip() -> Any:
    from transformers import CLIPVisionModelWithProjection

    return CLIPVisionModelWithProjection.from_pretrained(TINY / "clip", dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def vae() -> Any:
    return load_autoencoder(TINY / "generator")


def embed(clip: Any, images: Any) -> np.ndarray:
    pixels = torch.from_numpy(np.stack(list(images))).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.inference_mode():
        return clip(pixels).image_embeds.numpy()


def test_files_are_small_and_hold_no_pickles() -> None:
    files = [path for path in TINY.rglob("*") if path.is_file() and path.suffix != ".pyc"]
    assert sum(path.stat().st_size for path in files) <= 25e6
    allowed = {".json", ".safetensors", ".md", ".py"}
    assert {path.suffix for path in files} <= allowed
    for part in ("clip", "git", "generator/vae", "generator/unet"):
        assert list((TINY / part).glob("*.safetensors"))


def test_model_card_names_licence_and_limits() -> None:
    card = (TINY / "README.md").read_text(encoding="utf-8")
    for word in ("BSD-3-Clause", "Limits", "train.py", "measure.py", "PSNR"):
        assert word in card


def test_image_processor_and_tokenizer_fit_the_model(clip: Any) -> None:
    from transformers import AutoTokenizer, CLIPImageProcessor, CLIPModel

    images, _, captions = draw_stimuli(50, 12)
    processor = CLIPImageProcessor.from_pretrained(TINY / "clip")
    pixels = processor(list(images), return_tensors="pt")["pixel_values"]
    assert np.allclose(pixels, images.transpose(0, 3, 1, 2) / 127.5 - 1, atol=1e-5)
    tokenizer = AutoTokenizer.from_pretrained(TINY / "clip")
    tokens = tokenizer(captions, padding=True, return_tensors="pt")
    assert not (tokens["input_ids"] == tokenizer.unk_token_id).any()
    model = CLIPModel.from_pretrained(TINY / "clip", dtype=torch.float32).eval()
    with torch.inference_mode():
        similarity = model(pixel_values=pixels, **tokens).logits_per_image
    own = np.arange(50)
    assert (similarity.argmax(1).numpy() == own).mean() >= 0.95
    assert (similarity.argmax(0).numpy() == own).mean() >= 0.95


def test_captions_name_category_and_colour() -> None:
    from afterimage.evaluation.captions import first_named
    from afterimage.features.git import Git, GitSettings
    from afterimage.reconstruction.git_caption import GitCaptioner
    from afterimage.simulate.stimuli import CATEGORIES, COLOURS

    images, attributes, _ = draw_stimuli(200, 77)
    tokens = Git(GitSettings()).encode(list(images))
    said, _ = GitCaptioner("tiny/git").caption(tokens)
    for key, values in (("category", CATEGORIES), ("colour", COLOURS)):
        named = np.array([first_named(text, values) for text in said])
        assert (named == attributes[key]).mean() >= 0.97


def test_embedding_carries_the_attributes(clip: Any) -> None:
    from sklearn.linear_model import Ridge, RidgeClassifier

    images, attributes, _ = draw_stimuli(1500, 10)
    features = embed(clip, images)
    assert features.std(0).mean() == pytest.approx(1.0, abs=0.15)
    train, test = slice(0, 1000), slice(1000, None)
    for key, least in (("category", 0.98), ("colour", 0.97), ("size_name", 0.9)):
        probe = RidgeClassifier(1.0).fit(features[train], attributes[key][train])
        assert probe.score(features[test], attributes[key][test]) >= least, key
    for key, least in (("x", 0.9), ("y", 0.9), ("size", 0.8)):
        ridge = Ridge(1.0).fit(features[train], attributes[key][train])
        assert ridge.score(features[test], attributes[key][test]) >= least, key


@pytest.fixture(scope="module")
def known_pictures(clip: Any) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Return the embeddings and attributes of fresh drawn pictures."""
    images, attributes, _ = draw_stimuli(700, 14)
    return embed(clip, images), attributes


def psnr(images: np.ndarray, decoded: np.ndarray) -> float:
    return float((-10 * np.log10(((images - decoded) ** 2).mean((1, 2, 3)))).mean())


def test_autoencoder_keeps_drawn_pictures(vae: Any) -> None:
    images = draw_stimuli(200, 11)[0].astype(np.float32) / 255
    latents = encode(vae, images)
    assert latents.shape == (200, 8, 8, 8)
    # Standardised over all kinds of pictures, of which the drawn ones are a part.
    assert np.abs(latents.mean((0, 2, 3))).max() < 0.8
    assert 0.5 < latents.std((0, 2, 3)).min() < latents.std((0, 2, 3)).max() < 1.5
    assert psnr(images, decode(vae, latents)) >= 25


@pytest.mark.parametrize("folder", ["digits69", "v4-natural"])
def test_autoencoder_keeps_pictures_of_other_kinds(
    vae: Any, shared_data: Path, folder: str
) -> None:
    from PIL import Image

    paths = sorted((shared_data / folder / "stimuli").iterdir())[:60]
    pictures = [Image.open(p).convert("RGB").resize((64, 64)) for p in paths]
    images = np.stack([np.asarray(picture, np.float32) / 255 for picture in pictures])
    assert psnr(images, decode(vae, encode(vae, images))) >= 20


@pytest.mark.parametrize("noise", [0.0, 0.5])
def test_generator_draws_what_the_embedding_says(
    clip: Any, vae: Any, known_pictures: Any, noise: float
) -> None:
    """Read category and colour of the pictures with probes fitted to fresh drawn ones."""
    from sklearn.linear_model import RidgeClassifier

    n = 40
    images, attributes, _ = draw_stimuli(n, 13)
    rng = np.random.default_rng(0)
    true = {"clip": embed(clip, images), "vae": encode(vae, images.astype(np.float32) / 255)}
    features = {
        block: values
        + noise * values.std(0) * rng.standard_normal(values.shape).astype(np.float32)
        for block, values in true.items()
    }
    material = Material(
        keys=[str(i) for i in range(n)],
        random_state=0,
        shapes={"clip": (128,), "vae": (8, 8, 8)},
        training={},
        training_image=lambda index: images[index],
        embed={"clip": lambda pictures: embed(clip, pictures)},
    )
    settings = LatentDiffusionSettings(n_candidates=1, n_steps=12)
    made = np.stack(LatentDiffusion(settings).reconstruct(features, material)[0])
    known, labels = known_pictures
    found = embed(clip, made)
    for key, least in (("category", 0.9), ("colour", 0.85)):
        probe = RidgeClassifier(1.0).fit(known, labels[key])
        assert probe.score(found, attributes[key]) >= least, key
    correlation = [
        np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(images, made, strict=True)
    ]
    assert np.mean(correlation) >= 0.6
