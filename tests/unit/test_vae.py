"""Latents of a diffusers folder, from pictures of any size."""

from __future__ import annotations

import numpy as np
import pytest

from afterimage.errors import AfterimageError
from afterimage.features.vae import Vae, VaeSettings
from afterimage.networks.autoencoder import decode, load_autoencoder
from afterimage.resources import model_folder


def test_latents_decode_to_the_picture():
    from afterimage.simulate.stimuli import draw_stimuli

    images, _, _ = draw_stimuli(8, random_state=3)
    latents = Vae(VaeSettings()).encode(list(images))
    pictures = decode(load_autoencoder(model_folder("tiny/generator")), latents)
    error = ((pictures - images / 255.0) ** 2).mean()
    assert 10 * np.log10(1 / error) > 22  # dB; noise of the same variance gives about 8


def test_size_of_the_picture_does_not_matter_but_its_content_does():
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (8, 8, 3)).astype(np.uint8)
    large = np.kron(small, np.ones((16, 16, 1), np.uint8))
    encoder = Vae(VaeSettings())
    first, second = encoder.encode([large]), encoder.encode([large[::2, ::2]])
    other = encoder.encode([255 - large])
    assert np.abs(first - second).mean() < 0.25 * np.abs(first - other).mean()


def test_a_wrong_folder_is_one_clear_error(tmp_path):
    with pytest.raises(AfterimageError) as caught:
        Vae(VaeSettings(path=str(tmp_path)))
    assert str(tmp_path) in str(caught.value)
