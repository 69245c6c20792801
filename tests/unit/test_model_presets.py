"""Presets of published models: known to the configuration, and their sizes those of the architectures."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.generator_example import REDUX, TRUE, new_part

from afterimage.config.load import load_config
from afterimage.features.registry import ENCODERS
from afterimage.reconstruction.registry import RECONSTRUCTIONS
from afterimage.resources import resource_root

NAMES = (
    "brain_diffuser", "clip_bigg", "dinov2", "siglip2", "sdxl_ip_adapter", "sdxl_ip_adapter_plus",
    "stable_unclip", "kandinsky", "flux_redux",
)  # fmt: skip


@pytest.fixture(scope="module")
def models() -> dict[str, Any]:
    known = yaml.safe_load((resource_root() / "data" / "models.yaml").read_text())
    assert isinstance(known, dict)
    return known


def named(values: Any) -> list[str]:
    """Return names of the folders of models in a configuration."""
    if isinstance(values, dict):
        return [name for value in values.values() for name in named(value)]
    return [values.split("/")[1]] if str(values).startswith("models/") else []


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_is_a_configuration_that_says_folder_memory_and_licence(
    name: str, models: dict[str, Any]
) -> None:
    text = (resource_root() / "workflows" / "presets" / f"{name}.yaml").read_text()
    values = yaml.safe_load(text)
    config = load_config([Path("presets") / name])
    about = re.sub(r"\s*\n# ?", " ", text[: text.index("\nextract_features")])
    assert "Memory:" in about
    folders = set(named(values))
    assert folders
    for folder in folders:
        assert f"models/{folder}" in about
        assert models[folder]["licence"].split(" (")[0] in about
    for block in (values.get("reconstruct") or {}).get("methods", {}).values():
        if block and "embedding" in block:
            assert block["embedding"] in config.extract_features.encoders
        if block:  # latents are decoded by the autoencoder that made them
            assert block["generator"] == config.extract_features.encoders["vae"].path
    # several may be laid over each other
    both = load_config([Path("presets") / name, Path("presets/dinov2")])
    assert set(both.extract_features.encoders) >= {*config.extract_features.encoders, "dinov2"}


def test_memory_follows_from_the_published_architectures(models: dict[str, Any]) -> None:
    import torch

    def count(entry: Any) -> float:
        with torch.device("meta"):
            return sum(p.numel() for p in new_part(entry, tiny=False).parameters()) / 1e6

    parts = {kind: {k: count(v) for k, v in part.items()} for kind, part in TRUE.items()}
    for name, model in models.items():
        own = model["parameters_millions"]
        if model["kind"] in parts and name not in ("IP-Adapter", "FLUX.1-Redux-dev"):
            for part, millions in own.items():
                assert parts[model["kind"]][part] == pytest.approx(millions, abs=0.06), name
            assert set(own) <= set(RECONSTRUCTIONS.get(model["kind"]).parts)
    redux = models["FLUX.1-Redux-dev"]["parameters_millions"]["image_embedder"]
    assert count(REDUX["image_embedder"]) == pytest.approx(redux, abs=0.06)
    assert count(TRUE["stable_unclip"]["vae"]) == pytest.approx(
        models["sd-vae-ft-mse"]["parameters_millions"]["vae"], abs=0.06
    )
    adapters = models["IP-Adapter"]["parameters_millions"]
    totals = {
        "sdxl_ip_adapter": [2567.5, 83.7, adapters["ip-adapter_sdxl_vit-h"]],
        "sdxl_ip_adapter_plus": [2567.5, 83.7, adapters["ip-adapter-plus_sdxl_vit-h"]],
        "stable_unclip": [870.2, 83.7, 340.4],
        "kandinsky": [1253.1, 67.8],
        "flux_redux": [11901.4, 83.8, 64.5],
    }
    for preset, millions in totals.items():
        text = (resource_root() / "workflows" / "presets" / f"{preset}.yaml").read_text()
        whole, largest = (2 * n / 1e3 for n in (sum(millions), max(millions)))
        words = f"Memory: {whole:.1f} GB on a GPU ({largest:.1f} GB with memory: parts)"
        assert words in re.sub(r"\s*\n# ?", " ", text)


def test_encoders_have_the_published_sizes(models: dict[str, Any]) -> None:
    import torch
    import transformers

    def clip(width: int, depth: int, projection: int, **more: int) -> Any:
        config = transformers.CLIPVisionConfig(
            hidden_size=width, num_hidden_layers=depth, num_attention_heads=16, patch_size=14,
            projection_dim=projection, **({"intermediate_size": 4 * width} | more),
        )  # fmt: skip
        return transformers.CLIPVisionModelWithProjection(config)

    def siglip() -> Any:
        return transformers.SiglipVisionModel(
            transformers.SiglipVisionConfig(
                hidden_size=1152, intermediate_size=4304, num_hidden_layers=27,
                num_attention_heads=16, image_size=384, patch_size=14,
            )
        )  # fmt: skip

    def text() -> Any:
        config = transformers.CLIPTextConfig(
            hidden_size=768, intermediate_size=3072, num_hidden_layers=12,
            num_attention_heads=12, projection_dim=768, vocab_size=49408,
        )  # fmt: skip
        return transformers.CLIPTextModelWithProjection(config)

    def dinov2() -> Any:
        return transformers.Dinov2Model(
            transformers.Dinov2Config(
                hidden_size=1024, num_hidden_layers=24, num_attention_heads=16,
                image_size=518, patch_size=14,
            )
        )  # fmt: skip

    made = {
        ("clip-vit-large-patch14", "vision"): lambda: clip(1024, 24, 768),
        ("clip-vit-large-patch14", "text"): text,
        ("CLIP-ViT-H-14-laion2B-s32B-b79K", "vision"): lambda: clip(1280, 32, 1024),
        ("CLIP-ViT-bigG-14-laion2B-39B-b160k", "vision"): lambda: clip(
            1664, 48, 1280, intermediate_size=8192
        ),
        ("dinov2-large", "vision"): dinov2,
        ("siglip2-so400m-patch14-384", "vision"): siglip,
        ("siglip-so400m-patch14-384", "vision"): siglip,
    }
    for (name, part), make in made.items():
        with torch.device("meta"):
            millions = sum(p.numel() for p in make().parameters()) / 1e6
        assert models[name]["parameters_millions"][part] == pytest.approx(millions, abs=0.06), name
    assert {name for name, _ in made} == {
        name for name, model in models.items() if model["kind"] == "encoder"
    }
    assert ENCODERS.names()


def test_the_page_of_generators_names_every_model(models: dict[str, Any]) -> None:
    page = (resource_root() / "docs" / "generators.md").read_text()
    for name, model in models.items():
        assert name in page
        assert model["licence"] in page
    for name in NAMES:
        assert f"presets/{name}" in page
