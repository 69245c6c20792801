"""Embeddings of a transformers folder: equal to the model called by hand, whatever the batch."""

from __future__ import annotations

import numpy as np
import pytest

from afterimage.errors import ConfigError
from afterimage.features.registry import ENCODERS
from afterimage.features.vision import Vision, VisionSettings, random_view


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


@pytest.mark.parametrize("layer", [0, 1, -1, "last"])
@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_layer_and_pooling_equal_the_model_called_by_hand(dino_folder, pictures, layer, pooling):
    import torch
    from transformers import AutoImageProcessor, Dinov2Model

    settings = VisionSettings(path=str(dino_folder), layer=layer, pooling=pooling)
    ours = Vision(settings).encode(pictures)
    model = Dinov2Model.from_pretrained(dino_folder).eval()
    pixels = AutoImageProcessor.from_pretrained(dino_folder, backend="pil")(
        images=pictures, return_tensors="pt"
    )["pixel_values"]
    with torch.inference_mode():
        output = model(pixels, output_hidden_states=True)
    tokens = output.last_hidden_state if layer == "last" else output.hidden_states[layer]
    theirs = tokens[:, 0] if pooling == "cls" else tokens.mean(dim=1)
    np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-5, atol=1e-6)


def test_a_layer_that_is_not_there_is_one_clear_error(dino_folder, pictures):
    with pytest.raises(ConfigError, match="no such layer") as caught:
        Vision(VisionSettings(path=str(dino_folder), layer=3)).encode(pictures)
    assert "-3 to 2" in str(caught.value)


def test_augmented_features_are_the_mean_over_views(dino_folder, pictures):
    plain = Vision(VisionSettings(path=str(dino_folder), layer=1))
    settings = VisionSettings(path=str(dino_folder), layer=1, n_augmentations=3, random_state=7)
    ours = Vision(settings).encode(pictures)
    views = [pictures] + [[random_view(p, (7, number)) for p in pictures] for number in range(3)]
    np.testing.assert_allclose(
        ours, np.mean([plain.encode(v) for v in views], axis=0), rtol=1e-4, atol=1e-5
    )
    one_by_one = Vision(settings.model_copy(update={"batch_size": 1})).encode(pictures)
    np.testing.assert_allclose(ours, one_by_one, rtol=1e-4, atol=1e-5)
    assert not np.allclose(ours, plain.encode(pictures))


def test_views_of_tokens_are_refused():
    with pytest.raises(ValueError, match="output: embedding"):
        VisionSettings(output="tokens", n_augmentations=2)


def test_views_keep_the_size_and_differ_by_seed(pictures):
    views = [random_view(pictures[1], seed) for seed in range(8)]
    assert {view.shape for view in views} == {pictures[1].shape}
    assert len({view.tobytes() for view in views}) == 8
    np.testing.assert_array_equal(views[3], random_view(pictures[1], 3))
    flat = np.full((20, 30, 3), 77, np.uint8)
    np.testing.assert_array_equal(random_view(flat, 5), flat)


def test_unit_norm(dino_folder, pictures):
    plain = Vision(VisionSettings(path=str(dino_folder))).encode(pictures)
    unit = Vision(VisionSettings(path=str(dino_folder), normalise="unit")).encode(pictures)
    np.testing.assert_allclose(np.linalg.norm(unit, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(unit, plain / np.linalg.norm(plain, axis=1)[:, None], rtol=1e-5)


def test_a_folder_without_weights_is_one_clear_error(tmp_path):
    with pytest.raises(ConfigError) as caught:
        Vision(VisionSettings(path=str(tmp_path)))
    assert str(tmp_path) in str(caught.value)
    with pytest.raises(ConfigError, match="does not exist"):
        Vision(VisionSettings(path=str(tmp_path / "nowhere")))


def test_registered():
    assert ENCODERS.get("vision") is Vision


def test_projected_tokens_begin_with_the_embedding(pictures):
    """Brain-Diffuser's 257 x 768: every token normalised and projected as the class token is."""
    embedding = Vision(VisionSettings(path="tiny/clip")).encode(pictures)
    tokens = Vision(VisionSettings(path="tiny/clip", output="tokens")).encode(pictures)
    assert tokens.shape == (5, 1 + 8 * 8, 128)
    np.testing.assert_allclose(tokens[:, 0], embedding, rtol=1e-4, atol=1e-5)
    scaled = Vision(VisionSettings(path="tiny/clip", output="tokens", normalise="pooled"))
    norm = np.linalg.norm(embedding, axis=1)[:, None, None]
    np.testing.assert_allclose(scaled.encode(pictures), tokens / norm, rtol=1e-4, atol=1e-5)
    patches = Vision(VisionSettings(path="tiny/clip", output="tokens", class_token=False))
    np.testing.assert_array_equal(patches.encode(pictures), tokens[:, 1:])
    with pytest.raises(ValueError, match="class_token: true"):
        VisionSettings(output="tokens", class_token=False, normalise="pooled")


def test_class_token_and_registers_are_left_out(tmp_path, pictures):
    from transformers import (
        BitImageProcessor,
        Dinov2WithRegistersConfig,
        Dinov2WithRegistersModel,
    )

    config = Dinov2WithRegistersConfig(
        hidden_size=24, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=14
    )
    Dinov2WithRegistersModel(config).save_pretrained(tmp_path)
    BitImageProcessor(
        size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}
    ).save_pretrained(tmp_path)
    whole = Vision(VisionSettings(path=str(tmp_path), output="tokens")).encode(pictures)
    patches = VisionSettings(path=str(tmp_path), output="tokens", class_token=False)
    assert whole.shape == (5, 1 + 4 + 4, 24)
    np.testing.assert_array_equal(Vision(patches).encode(pictures), whole[:, 5:])


def test_siglip_folders_of_both_towers_give_tokens_and_the_pooled_embedding(tmp_path, pictures):
    import torch
    from transformers import SiglipConfig, SiglipImageProcessor, SiglipModel

    size = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    torch.manual_seed(0)
    config = SiglipConfig(
        text_config={**size, "intermediate_size": 32, "vocab_size": 50},
        vision_config={**size, "intermediate_size": 32, "image_size": 28, "patch_size": 14},
    )
    model = SiglipModel(config).eval()
    model.save_pretrained(tmp_path)
    SiglipImageProcessor(size={"height": 28, "width": 28}).save_pretrained(tmp_path)
    encoder = Vision(VisionSettings(path=str(tmp_path)))
    pixels = encoder._processor(images=pictures, return_tensors="pt")["pixel_values"]
    with torch.inference_mode():
        theirs = model.vision_model(pixel_values=pixels)
    np.testing.assert_allclose(encoder.encode(pictures), theirs.pooler_output, atol=1e-5)
    tokens = Vision(VisionSettings(path=str(tmp_path), output="tokens")).encode(pictures)
    assert tokens.shape == (5, 4, 24)
    np.testing.assert_allclose(tokens, theirs.last_hidden_state, atol=1e-5)


def test_a_half_copied_folder_is_one_clear_error(tmp_path):
    import shutil

    from afterimage.resources import model_folder

    folder = shutil.copytree(model_folder("tiny/clip"), tmp_path / "clip")
    weights = folder / "model.safetensors"
    with weights.open("r+b") as file:
        file.truncate(weights.stat().st_size // 2)
    with pytest.raises(ConfigError, match="cannot be loaded") as caught:
        Vision(VisionSettings(path=str(folder)))
    assert str(folder) in str(caught.value)
    weights.unlink()
    with pytest.raises(ConfigError, match="cannot be loaded"):
        Vision(VisionSettings(path=str(folder)))
