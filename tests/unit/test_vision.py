"""Embeddings of a transformers folder: equal to the model called by hand, whatever the batch."""

from __future__ import annotations

import numpy as np
import pytest

from afterimage.errors import ConfigError
from afterimage.features.registry import ENCODERS
from afterimage.features.vision import Vision, VisionSettings


@pytest.fixture(scope="module")
def dino_folder(tmp_path_factory):
    """Save a DINOv2 of random weights in the on-disk form of a real one."""
    import torch
    from transformers import BitImageProcessor, Dinov2Config, Dinov2Model

    folder = tmp_path_factory.mktemp("dino")
    torch.manual_seed(0)
    config = Dinov2Config(
        hidden_size=24, num_hidden_layers=2, num_attention_heads=2, image_size=28, patch_size=14
    )
    Dinov2Model(config).save_pretrained(folder, safe_serialization=True)
    BitImageProcessor(
        size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}
    ).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def pictures():
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (30 + 4 * i, 40, 3)).astype(np.uint8) for i in range(5)]


def test_embedding_equals_the_model_called_by_hand(dino_folder, pictures):
    import torch
    from transformers import AutoImageProcessor, Dinov2Model

    ours = Vision(VisionSettings(path=str(dino_folder))).encode(pictures)
    model = Dinov2Model.from_pretrained(dino_folder).eval()
    pixels = AutoImageProcessor.from_pretrained(dino_folder, backend="pil")(
        images=pictures, return_tensors="pt"
    )["pixel_values"]
    with torch.inference_mode():
        theirs = model(pixels).pooler_output.numpy()
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_batch_size_changes_nothing(dino_folder, pictures):
    one = Vision(VisionSettings(path=str(dino_folder), batch_size=1)).encode(pictures)
    many = Vision(VisionSettings(path=str(dino_folder), batch_size=5)).encode(pictures)
    np.testing.assert_allclose(one, many, rtol=1e-4, atol=1e-5)


def test_tokens_of_a_layer(dino_folder, pictures):
    settings = VisionSettings(path=str(dino_folder), output="tokens", layer=1)
    tokens = Vision(settings).encode(pictures)
    assert tokens.shape == (5, 1 + 4, 24)
    last = Vision(settings.model_copy(update={"layer": 2})).encode(pictures)
    assert not np.allclose(tokens, last)


def test_clip_gives_the_projected_embedding(pictures):
    encoder = Vision(VisionSettings(path="tiny/clip"))
    values = encoder.encode(pictures)
    assert values.shape == (5, 128)
    assert np.isfinite(values).all()


def test_a_folder_without_weights_is_one_clear_error(tmp_path):
    with pytest.raises(ConfigError) as caught:
        Vision(VisionSettings(path=str(tmp_path)))
    assert str(tmp_path) in str(caught.value)
    with pytest.raises(ConfigError, match="does not exist"):
        Vision(VisionSettings(path=str(tmp_path / "nowhere")))


def test_registered():
    assert ENCODERS.get("vision") is Vision
