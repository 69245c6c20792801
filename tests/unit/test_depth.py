"""Depth maps of a transformers folder: those of the model called by hand, between 0 and 1."""

from __future__ import annotations

import numpy as np
import pytest
from tests.depth_example import save_depth_model

from afterimage.errors import ConfigError, InputError
from afterimage.features.depth import Depth, DepthSettings
from afterimage.networks.depth import unit_range
from afterimage.simulate.stimuli import draw_stimuli


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_depth_model(tmp_path_factory.mktemp("depth"))


def test_map_is_that_of_the_model_from_farthest_to_nearest(folder):
    import torch
    from transformers import AutoImageProcessor, DPTForDepthEstimation

    images = list(draw_stimuli(3, 5)[0])
    ours = Depth(DepthSettings(path=str(folder), size_px=32, batch_size=2)).encode(images)
    model = DPTForDepthEstimation.from_pretrained(folder).eval()
    processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
    pixels = processor(images=images, return_tensors="pt")["pixel_values"]
    with torch.inference_mode():
        theirs = model(pixels).predicted_depth.numpy()
    assert ours.shape == theirs.shape == (3, 32, 32)
    for one, other in zip(ours, theirs, strict=True):
        expected = (other - other.min()) / (other.max() - other.min())
        np.testing.assert_allclose(one, expected, atol=1e-4)


def test_constant_maps_become_zero():
    np.testing.assert_array_equal(unit_range(np.full((2, 3, 3), 5.0)), np.zeros((2, 3, 3)))


def test_wrong_folders_are_refused(folder, tmp_path):
    import shutil

    from safetensors.torch import load_file, save_file

    with pytest.raises(ConfigError, match="depth estimator cannot be loaded"):
        Depth(DepthSettings(path="tiny/clip"))
    half = tmp_path / "half"
    shutil.copytree(folder, half)
    weights = load_file(half / "model.safetensors")
    weights.pop(sorted(weights)[0])
    save_file(weights, half / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match="1 missing"):
        Depth(DepthSettings(path=str(half)))
