"""Any diffusers autoencoder folder: found, checked, standardised and undone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderTiny

from afterimage.errors import ConfigError, InputError
from afterimage.networks.autoencoder import (
    decode,
    encode,
    load_autoencoder,
    shuffle_factor,
    standardise,
    to_network,
    unstandardise,
)
from afterimage.training.generative import new_autoencoder

IMAGES = np.random.default_rng(0).random((3, 32, 32, 3)).astype(np.float32)


def small_kl(**config: Any) -> AutoencoderKL:
    torch.manual_seed(0)
    return AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=4,
        latent_channels=4,
        **config,
    ).eval()


def test_loads_the_folder_or_its_vae_subfolder(tmp_path: Path) -> None:
    vae = small_kl()
    vae.save_pretrained(tmp_path / "pipeline" / "vae")
    expected = encode(vae, IMAGES)
    for folder in (tmp_path / "pipeline", tmp_path / "pipeline" / "vae"):
        assert np.array_equal(encode(load_autoencoder(folder), IMAGES), expected)


def test_half_precision_on_disk_is_float32_in_memory(tmp_path: Path) -> None:
    small_kl().half().save_pretrained(tmp_path)
    assert load_autoencoder(tmp_path).dtype == torch.float32


def test_missing_folder_and_pickled_weights_are_input_errors(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no autoencoder"):
        load_autoencoder(tmp_path / "nowhere")
    small_kl().save_pretrained(tmp_path, safe_serialization=False)
    with pytest.raises(InputError, match="cannot be loaded"):
        load_autoencoder(tmp_path)


def test_other_models_are_a_config_error(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"_class_name": "UNet2DModel"}', encoding="utf-8")
    with pytest.raises(ConfigError, match="not known"):
        load_autoencoder(tmp_path)


def test_scaling_and_shift_follow_stable_diffusion() -> None:
    vae = small_kl(scaling_factor=0.18215, shift_factor=0.1)
    raw = vae.encode(torch.from_numpy(IMAGES).permute(0, 3, 1, 2) * 2 - 1).latent_dist.mean
    expected = (raw.detach().numpy() - 0.1) * 0.18215
    assert np.allclose(encode(vae, IMAGES), expected, atol=1e-6)


def test_means_and_deviations_win_over_the_scaling_factor() -> None:
    vae = small_kl(latents_mean=(1, 2, 3, 4), latents_std=(1, 2, 4, 8), scaling_factor=1.0)
    latents = torch.tensor([1.0, 4.0, 7.0, 12.0]).reshape(1, 4, 1, 1)
    assert standardise(vae, latents).ravel().tolist() == [0, 1, 1, 1]
    assert torch.allclose(unstandardise(vae, standardise(vae, latents)), latents)


def test_decode_undoes_the_standardisation() -> None:
    plain = small_kl(scaling_factor=1.0)
    scaled = small_kl(latents_mean=(1, 2, 3, 4), latents_std=(1, 2, 4, 8), scaling_factor=1.0)
    assert np.allclose(
        decode(plain, encode(plain, IMAGES)), decode(scaled, encode(scaled, IMAGES)), atol=1e-5
    )


def test_unshuffled_network_sees_every_pixel_once() -> None:
    vae = new_autoencoder(channels=(16, 16), latent_channels=4)
    assert shuffle_factor(vae) == 4
    inputs = to_network(vae, IMAGES)
    assert inputs.shape == (3, 48, 8, 8)
    back = torch.nn.functional.pixel_shuffle(inputs, 4).permute(0, 2, 3, 1) / 2 + 0.5
    assert np.allclose(back, IMAGES, atol=1e-6)
    assert encode(vae, IMAGES).shape == (3, 4, 4, 4)
    assert decode(vae, encode(vae, IMAGES)).shape == IMAGES.shape


def test_batches_do_not_change_the_result() -> None:
    vae = small_kl()
    assert np.allclose(encode(vae, IMAGES, batch=1), encode(vae, IMAGES, batch=3), atol=1e-5)


def test_tiny_autoencoder_class_works_too() -> None:
    torch.manual_seed(0)
    vae = AutoencoderTiny(
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        num_encoder_blocks=(1, 1),
        num_decoder_blocks=(1, 1),
    ).eval()
    latents = encode(vae, IMAGES)
    assert latents.shape == (3, 4, 16, 16)
    decoded = decode(vae, latents)
    assert decoded.shape == IMAGES.shape
    assert decoded.min() >= 0
    assert decoded.max() <= 1
