"""SDXL with an IP-Adapter: vectors and tokens, the prompt, and the scale of the adapter."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.generator_example import (
    LATENTS,
    N,
    adapter_weights,
    folders,
    material,
    predictions,
    stack,
    tiny_method,
)

from afterimage.errors import ConfigError


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("generator")


def test_tokens_through_an_adapter_plus_and_no_text(root: Path, tmp_path: Path) -> None:
    from diffusers import UNet2DConditionModel
    from safetensors.torch import save_file

    kind = "sdxl_ip_adapter"
    unet = UNet2DConditionModel.from_pretrained(Path(folders(root, kind)["pipeline"]) / "unet")
    save_file(adapter_weights(unet, 24, tokens=True), tmp_path / "plus.safetensors")
    known = predictions(kind) | {"clip": np.random.default_rng(0).normal(size=(N, 5 * 24))}
    known = {key: value.astype(np.float32) for key, value in known.items()}
    shapes = {"shapes": {"clip": (5, 24), "vae": LATENTS}}
    shapes["embed"] = {"clip": lambda images: np.ones((len(images), 120), np.float32)}
    values = {"adapter": str(tmp_path), "adapter_file": "plus.safetensors", "prompt": None}
    painter = tiny_method(root, kind, strength=1.0, **values)
    first = painter.reconstruct(known, material(kind, **shapes))
    other = painter.reconstruct(known | {"clip": -known["clip"]}, material(kind, **shapes))
    assert np.abs(stack(other) - stack(first)).mean() > 0.2
    with pytest.raises(ConfigError, match="image embedding"):
        painter.reconstruct(predictions(kind), material(kind))
    with pytest.raises(ConfigError, match="not safetensors"):
        tiny_method(root, kind, adapter_file="ip-adapter.bin")
    low = folders(root, kind)["pipeline"] + "/vae"
    with pytest.raises(ConfigError, match="no IP-Adapter"):
        name = "diffusion_pytorch_model.safetensors"
        tiny_method(root, kind, adapter=low, adapter_file=name)


def test_the_prompt_and_the_scale_of_the_adapter_matter(root: Path) -> None:
    kind, made = "sdxl_ip_adapter", []
    for changes in ({}, {"prompt": "a red face"}, {"adapter_scale": 0.0}):
        painter = tiny_method(root, kind, strength=1.0, **changes)
        made.append(stack(painter.reconstruct(predictions(kind), material(kind))))
    assert np.abs(made[1] - made[0]).max() > 0
    assert np.abs(made[2] - made[0]).mean() > 0.2
    changed = predictions(kind) | {"clip": -predictions(kind)["clip"]}
    blind = stack(
        tiny_method(root, kind, strength=1.0, adapter_scale=0.0).reconstruct(
            changed, material(kind)
        )
    )
    assert np.array_equal(blind, made[2])  # without the adapter the embedding is not seen
