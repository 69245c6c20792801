"""Latent diffusion: start, guidance, choice of candidates and independence of batches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from afterimage.errors import ConfigError, InputError
from afterimage.networks.autoencoder import decode, load_autoencoder
from afterimage.reconstruction.candidates import noise_seed
from afterimage.reconstruction.latent_diffusion import (
    LatentDiffusion,
    LatentDiffusionSettings,
    load_generator,
)
from afterimage.reconstruction.registry import RECONSTRUCTIONS, Material
from afterimage.training.generative import new_autoencoder, new_denoiser, new_scheduler

N, WIDTH, SHAPE = 5, 6, (4, 4, 4)


@pytest.fixture(scope="module")
def generator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a generator with random weights, whose condition matters."""
    folder = tmp_path_factory.mktemp("generator")
    new_autoencoder(channels=(16, 16), latent_channels=4).save_pretrained(folder / "vae")
    unet = new_denoiser(latent_shape=SHAPE, embedding_size=WIDTH, channels=(16, 16))
    unet.save_pretrained(folder / "unet")
    new_scheduler().save_pretrained(folder / "scheduler")
    return folder


@pytest.fixture(scope="module")
def predicted() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "clip": rng.standard_normal((N, WIDTH)).astype(np.float32),
        "vae": rng.standard_normal((N, int(np.prod(SHAPE)))).astype(np.float32),
    }


def mean_colour(images: Any) -> np.ndarray:
    """Embed pictures by what is easy to check: means and spreads of the three colours."""
    pictures = np.stack(list(images)).astype(np.float32) - 127.0
    return np.concatenate([pictures.mean((1, 2)), pictures.std((1, 2))], 1)


def material(**changes: Any) -> Material:
    values: dict[str, Any] = {
        "keys": [f"stimulus-{i}" for i in range(N)],
        "random_state": 3,
        "shapes": {"clip": (WIDTH,), "vae": SHAPE},
        "training": {},
        "training_image": lambda _: np.zeros((16, 16, 3), np.uint8),
        "embed": {"clip": mean_colour},
    }
    return Material(**(values | changes))


def method(generator: Path, **settings: Any) -> LatentDiffusion:
    values = {"generator": str(generator), "n_steps": 4, "n_candidates": 3} | settings
    return LatentDiffusion(LatentDiffusionSettings(**values))


def test_is_registered() -> None:
    assert RECONSTRUCTIONS.get("latent_diffusion") is LatentDiffusion
    assert RECONSTRUCTIONS.settings("latent_diffusion") is LatentDiffusionSettings


def test_same_result_whatever_the_batches(generator: Path, predicted: dict[str, Any]) -> None:
    whole, details = method(generator, batch_size=64).reconstruct(predicted, material())
    parts, details_parts = method(generator, batch_size=2).reconstruct(predicted, material())
    assert np.abs(np.stack(whole).astype(int) - np.stack(parts)).max() <= 1
    assert [d["seed"] for d in details] == [d["seed"] for d in details_parts]
    again, _ = method(generator, batch_size=64).reconstruct(predicted, material())
    assert np.array_equal(np.stack(whole), np.stack(again))


def test_noise_follows_the_key_not_the_row(generator: Path, predicted: dict[str, Any]) -> None:
    order = [3, 0, 4, 1, 2]
    whole, _ = method(generator).reconstruct(predicted, material())
    shuffled = {block: values[order] for block, values in predicted.items()}
    keys = [f"stimulus-{i}" for i in order]
    mixed, _ = method(generator).reconstruct(shuffled, material(keys=keys))
    for row, original in enumerate(order):
        assert np.abs(mixed[row].astype(int) - whole[original]).max() <= 1
    others, _ = method(generator).reconstruct(shuffled, material())
    assert np.abs(np.stack(others).astype(int) - np.stack(mixed)).max() > 1


def test_noise_seed_is_stable_and_differs_in_every_argument() -> None:
    seeds = {noise_seed(s, k, j) for s in (0, 1) for k in ("a", "b") for j in range(4)}
    assert len(seeds) == 16
    assert noise_seed(0, "a", 0) == noise_seed(0, "a", 0)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_strength_zero_is_the_decoded_start(generator: Path, predicted: dict[str, Any]) -> None:
    images, details = method(generator, strength=0).reconstruct(predicted, material())
    start = decode(load_autoencoder(generator), predicted["vae"].reshape(N, *SHAPE))
    assert np.array_equal(np.stack(images), np.rint(start * 255).astype(np.uint8))
    assert all(len(set(detail["scores"])) == 1 for detail in details)


def test_strength_one_forgets_the_start(generator: Path, predicted: dict[str, Any]) -> None:
    other = predicted | {"vae": -predicted["vae"]}
    kept = method(generator, strength=0.5)
    lost = method(generator, strength=1.0)
    difference = [
        np.abs(
            np.stack(m.reconstruct(predicted, material())[0]).astype(int)
            - np.stack(m.reconstruct(other, material())[0])
        ).max()
        for m in (lost, kept)
    ]
    assert difference[0] <= 1
    assert difference[1] > 1


def test_candidate_is_the_nearest_to_the_predicted_embedding(
    generator: Path, predicted: dict[str, Any]
) -> None:
    candidates = [
        method(generator, n_candidates=1).reconstruct(
            predicted, material(keys=[f"x{j}"] * N, random_state=j)
        )[0]
        for j in range(3)
    ]
    assert len({np.stack(c).tobytes() for c in candidates}) == 3
    images, details = method(generator).reconstruct(predicted, material())
    target = predicted["clip"]
    for row, detail in enumerate(details):
        assert detail["candidate"] == int(np.argmax(detail["scores"]))
        own = mean_colour(images[row : row + 1])[0]
        cosine = own @ target[row] / np.linalg.norm(own) / np.linalg.norm(target[row])
        assert max(detail["scores"]) == pytest.approx(cosine, abs=1e-4)
        assert detail["seed"] == noise_seed(3, f"stimulus-{row}", detail["candidate"])


def test_choice_turns_with_the_embedding_function(
    generator: Path, predicted: dict[str, Any]
) -> None:
    plain = method(generator).reconstruct(predicted, material())[1]
    turned = material(embed={"clip": lambda images: -mean_colour(images)})
    opposite = method(generator).reconstruct(predicted, turned)[1]
    for one, other in zip(plain, opposite, strict=True):
        assert other["candidate"] == int(np.argmin(one["scores"]))


def test_guidance_algebra(generator: Path) -> None:
    torch.manual_seed(0)
    noisy, condition = torch.randn(2, *SHAPE), torch.randn(2, WIDTH)
    step = torch.tensor(500)
    with torch.inference_mode():
        outputs = {
            scale: method(generator, guidance_scale=scale)._guided(noisy, step, condition)
            for scale in (0.0, 1.0, 3.0)
        }
        null = method(generator, guidance_scale=1.0)._guided(noisy, step, 0 * condition)
    assert torch.allclose(outputs[0.0], null, atol=1e-5)
    assert not torch.allclose(outputs[0.0], outputs[1.0], atol=1e-4)
    expected = outputs[0.0] + 3 * (outputs[1.0] - outputs[0.0])
    assert torch.allclose(outputs[3.0], expected, atol=1e-5)


def test_out_of_memory_halves_the_batch(
    generator: Path, predicted: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = method(generator).reconstruct(predicted, material())[0]
    small, sizes = method(generator), []
    sample = small._sample

    def scarce(embedding: Any, latents: Any, seeds: Any) -> Any:
        sizes.append(len(embedding))
        if len(embedding) > 4:
            raise torch.OutOfMemoryError
        return sample(embedding, latents, seeds)

    monkeypatch.setattr(small, "_sample", scarce)
    images = small.reconstruct(predicted, material())[0]
    assert sizes[:3] == [15, 8, 4]
    assert np.abs(np.stack(images).astype(int) - np.stack(expected)).max() <= 1


def test_missing_parts_are_one_clear_error(tmp_path: Path, generator: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        method(tmp_path / "nowhere")
    with pytest.raises(InputError, match="no complete generator") as caught:
        method(tmp_path)
    assert "no unet" in str(caught.value)
    for part in ("vae", "unet", "scheduler"):
        (tmp_path / part).mkdir()
    with pytest.raises(InputError, match="cannot be loaded"):
        load_generator(tmp_path)


def test_misfitting_features_are_config_errors(generator: Path, predicted: dict[str, Any]) -> None:
    made = method(generator)
    with pytest.raises(ConfigError, match="not decoded"):
        made.reconstruct({"clip": predicted["clip"]}, material())
    with pytest.raises(ConfigError, match="image embedding"):
        made.reconstruct(predicted | {"clip": predicted["clip"][:, :3]}, material())
    with pytest.raises(ConfigError, match="these latents"):
        made.reconstruct(predicted, material(shapes={"clip": (WIDTH,), "vae": (64,)}))
