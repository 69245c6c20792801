"""Low-level reconstruction is the decoder of the autoencoder, and nothing else."""

from __future__ import annotations

import numpy as np

from afterimage.networks.autoencoder import decode, load_autoencoder
from afterimage.reconstruction.low_level import LowLevel, LowLevelSettings
from afterimage.reconstruction.registry import Material
from afterimage.resources import model_folder


def test_equals_the_decoder_and_ignores_the_batch():
    rng = np.random.default_rng(0)
    latents = rng.normal(size=(5, 8 * 8 * 8)).astype(np.float32)
    material = Material(list("abcde"), 0, {"vae": (8, 8, 8)}, {}, lambda index: np.zeros(0), {})
    images, _ = LowLevel(LowLevelSettings()).reconstruct({"vae": latents}, material)
    vae = load_autoencoder(model_folder("tiny/generator"))
    expected = np.rint(decode(vae, latents.reshape(5, 8, 8, 8)) * 255)
    np.testing.assert_array_equal(np.stack(images), expected.astype(np.uint8))
    single, _ = LowLevel(LowLevelSettings(batch_size=1)).reconstruct({"vae": latents}, material)
    assert np.abs(np.stack(single).astype(int) - np.stack(images)).max() <= 1
