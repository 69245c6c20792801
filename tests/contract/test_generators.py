"""What every large generator must do: pipelines of the true classes, tiny, with random weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.generator_example import (
    LATENTS,
    SIZE,
    N,
    folders,
    material,
    predictions,
    stack,
    tiny_method,
)

from afterimage.errors import ConfigError, InputError
from afterimage.reconstruction import pipeline_folder
from afterimage.reconstruction.candidates import noise_seed
from afterimage.reconstruction.pipeline_folder import Part, choose_placement, read_header
from afterimage.reconstruction.registry import RECONSTRUCTIONS

KINDS = ("sdxl_ip_adapter", "stable_unclip", "kandinsky", "flux_redux")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("generators")


@pytest.mark.parametrize("kind", KINDS)
def test_the_embedding_and_the_key_change_the_picture_and_nothing_else_does(
    root: Path, kind: str
) -> None:
    painter, known = tiny_method(root, kind, strength=1.0, n_candidates=2), predictions(kind)
    first = painter.reconstruct(known, material(kind))
    assert stack(first).shape == (N, SIZE, SIZE, 3)
    again = tiny_method(root, kind, strength=1.0, n_candidates=2).reconstruct(
        known, material(kind)
    )
    assert np.array_equal(stack(again), stack(first))  # the same bytes
    assert again[1] == first[1]
    other = painter.reconstruct(known | {"clip": -known["clip"]}, material(kind))
    assert np.abs(stack(other) - stack(first)).mean() > 0.5
    keys = ["stimulus-0", "another", "stimulus-2"]
    moved = painter.reconstruct(known, material(kind, keys=keys))
    same = np.abs(stack(moved) - stack(first)).max((1, 2, 3)) <= 1
    assert same.tolist() == [True, False, True]
    for row, detail in enumerate(first[1]):
        assert detail["candidate"] == int(np.argmax(detail["scores"]))
        assert detail["seed"] == noise_seed(3, f"stimulus-{row}", detail["candidate"])
    # the start is forgotten, but for what the last step of the schedule leaves of it
    blank = painter.reconstruct(known | {"vae": -known["vae"]}, material(kind))
    assert np.abs(stack(blank) - stack(first)).mean() < np.abs(stack(other) - stack(first)).mean()


@pytest.mark.parametrize("kind", KINDS)
def test_strength_keeps_the_start(root: Path, kind: str) -> None:
    known = predictions(kind)
    start = tiny_method(root, kind, strength=0.0).reconstruct(known, material(kind))
    low = RECONSTRUCTIONS.get("low_level")(
        RECONSTRUCTIONS.settings("low_level")(generator=str(root / "low"))
    )
    shown = low.reconstruct(known, material(kind))
    assert stack(shown).shape[1:3] == stack(start).shape[1:3]  # 4 x 4 latents are 32 px
    assert np.array_equal(stack(start), stack(shown))
    # half of the way still depends on the start
    painter = tiny_method(root, kind, strength=0.5)
    half = painter.reconstruct(known, material(kind))
    other = painter.reconstruct(known | {"vae": 3 * known["vae"][::-1]}, material(kind))
    assert np.abs(stack(other) - stack(half)).max() > 3


@pytest.mark.parametrize("kind", KINDS)
def test_batches_and_scarce_memory_change_nothing(
    root: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = predictions(kind)
    whole = tiny_method(root, kind, batch_size=8).reconstruct(known, material(kind))
    scarce, sizes = tiny_method(root, kind, batch_size=8), []
    paint = scarce._paint

    def limited(condition: Any, *rest: Any) -> Any:
        sizes.append(len(condition))
        if len(condition) > 1:
            raise torch.OutOfMemoryError
        return paint(condition, *rest)

    monkeypatch.setattr(scarce, "_paint", limited)
    parts = scarce.reconstruct(known, material(kind))
    assert sizes == [3, 2, 1, 1, 1]
    assert np.abs(stack(parts) - stack(whole)).max() <= 1


@pytest.mark.parametrize("kind", KINDS)
def test_missing_and_half_copied_folders(root: Path, kind: str, tmp_path: Path) -> None:
    source = folders(root, kind)
    with pytest.raises(ConfigError, match="does not exist"):
        tiny_method(root, kind, pipeline=str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match="no diffusers pipeline"):
        tiny_method(root, kind, pipeline=str(tmp_path))
    copy = shutil.copytree(source["pipeline"], tmp_path / "copy")
    part = RECONSTRUCTIONS.get(kind).parts[0]
    weights = copy / part / "diffusion_pytorch_model.safetensors"
    size = weights.stat().st_size
    with weights.open("r+b") as file:
        file.truncate(size - 100)
    with pytest.raises(InputError, match="not whole") as caught:
        tiny_method(root, kind, pipeline=str(copy))
    assert f"{size} bytes" in str(caught.value)
    weights.rename(copy / part / "diffusion_pytorch_model.bin")
    with pytest.raises(InputError, match="no weights") as caught:
        tiny_method(root, kind, pipeline=str(copy))
    assert "pickle" in str(caught.value)
    shutil.rmtree(copy / part)
    with pytest.raises(InputError, match="no complete generator") as caught:
        tiny_method(root, kind, pipeline=str(copy))
    assert f"no {part}/" in str(caught.value)


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_of_another_architecture_is_named(root: Path, kind: str) -> None:
    other = KINDS[KINDS.index(kind) - 1]
    with pytest.raises(ConfigError, match="another architecture") as caught:
        tiny_method(root, kind, pipeline=folders(root, other)["pipeline"])
    index = json.loads((Path(folders(root, other)["pipeline"]) / "model_index.json").read_text())
    assert index["_class_name"] in str(caught.value)
    assert RECONSTRUCTIONS.get(kind).classes[0] in str(caught.value)


@pytest.mark.parametrize("kind", KINDS)
def test_wrong_features_are_one_clear_error(root: Path, kind: str) -> None:
    painter, known = tiny_method(root, kind), predictions(kind)
    with pytest.raises(ConfigError, match="not decoded"):
        painter.reconstruct({"vae": known["vae"]}, material(kind))
    with pytest.raises(ConfigError, match="not decoded"):
        painter.reconstruct({"clip": known["clip"]}, material(kind))
    with pytest.raises(ConfigError, match="image embedding") as caught:
        wide = known | {"clip": np.zeros((N, 99), np.float32)}
        painter.reconstruct(wide, material(kind, shapes={"clip": (99,), "vae": LATENTS}))
    assert "24" in str(caught.value)
    with pytest.raises(ConfigError, match="not of this autoencoder"):
        painter.reconstruct(
            known,
            material(kind, shapes={"clip": material(kind).shapes["clip"], "vae": (16, 2, 2)}),
        )
    with pytest.raises(ConfigError, match="nothing to start from"):
        tiny_method(root, kind, latents="").reconstruct(known, material(kind))
    alone = tiny_method(root, kind, latents="", strength=1.0)
    assert len(alone.reconstruct({"clip": known["clip"]}, material(kind))[0]) == N


def test_too_little_memory_says_what_would_fit(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = {"unet": Part(2_567_000_000, 26_000_000), "vae": Part(84_000_000, 2_400_000)}
    free = {"cuda": 80e9, "cpu": 64e9}
    monkeypatch.setattr(pipeline_folder, "free_bytes", lambda device: free[device])

    def place(wanted: Any = "auto", device: str = "cuda") -> str:
        return choose_placement(sizes, 2, wanted, device, "folder")

    assert place() == "whole"
    free["cuda"] = 6.0e9
    assert place() == "parts"
    free["cuda"] = 1.0e9
    assert place() == "layers"
    for wanted in ("whole", "parts"):
        with pytest.raises(ConfigError, match="too little memory") as caught:
            place(wanted)
        assert "memory: layers would fit" in str(caught.value)
        assert "6.10 GB for memory: whole" in str(caught.value)
    free["cpu"] = 4e9  # the weights wait there
    with pytest.raises(ConfigError, match="none of these fits"):
        place()
    with pytest.raises(ConfigError, match="too little memory") as caught:
        choose_placement(sizes, 4, "auto", "cpu", "folder")
    assert "4.00 GB free on cpu" in str(caught.value)
    free["cpu"] = 1e5  # before anything is loaded
    with pytest.raises(ConfigError, match="too little memory"):
        tiny_method(root, "kandinsky")


def test_parameters_are_counted_from_the_headers(root: Path, tmp_path: Path) -> None:
    from diffusers import UNet2DConditionModel

    folder = Path(folders(root, "kandinsky")["pipeline"]) / "unet"
    unet = UNet2DConditionModel.from_pretrained(folder)
    sizes = [value.numel() for value in unet.state_dict().values()]
    found = pipeline_folder.read_part(folder)
    assert (found.n_parameters, found.n_largest) == (sum(sizes), max(sizes))
    unet.save_pretrained(tmp_path / "shards", max_shard_size="100kB")
    assert pipeline_folder.read_part(tmp_path / "shards") == found
    next((tmp_path / "shards").glob("*-00002-*")).unlink()
    with pytest.raises(InputError, match="not whole") as caught:
        pipeline_folder.read_part(tmp_path / "shards")
    assert "no such file" in str(caught.value)
    unet.save_pretrained(tmp_path / "half", variant="fp16")
    assert pipeline_folder.read_part(tmp_path / "half", "fp16") == found
    with pytest.raises(InputError, match="no weights") as caught:
        pipeline_folder.read_part(tmp_path / "half")
    assert "variant: fp16" in str(caught.value)
    (tmp_path / "text.safetensors").write_text("not weights at all")
    with pytest.raises(InputError, match="not whole"):
        read_header(tmp_path / "text.safetensors")


@pytest.mark.gpu
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("memory", ["parts", "layers"])
def test_every_placement_paints_the_same_on_a_gpu(root: Path, kind: str, memory: str) -> None:
    made = [
        stack(
            tiny_method(root, kind, "cuda", memory=placement).reconstruct(
                predictions(kind), material(kind)
            )
        )
        for placement in ("whole", memory)
    ]
    assert np.abs(made[0] - made[1]).mean() < 2
