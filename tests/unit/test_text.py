"""Captions as features: equal to the model called by hand, and one clear error without a caption."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from afterimage.errors import ConfigError, InputError
from afterimage.features.text import Text, TextSettings
from afterimage.io.arrays import block_shapes, read_blocks
from afterimage.io.images import write_png
from afterimage.io.tables import write_tsv
from afterimage.resources import model_folder
from afterimage.simulate.stimuli import draw_stimuli
from afterimage.stages.extract_features import Config, Inputs, Outputs, run


@pytest.fixture(scope="module")
def captions() -> list[str]:
    return list(draw_stimuli(7, random_state=5)[2])


def test_embedding_and_tokens_equal_the_model_called_by_hand(captions: list[str]) -> None:
    import torch
    from transformers import AutoTokenizer, CLIPModel

    folder = model_folder("tiny/clip")
    model = CLIPModel.from_pretrained(folder, dtype=torch.float32).eval()
    n_tokens = model.config.text_config.max_position_embeddings
    tokens = AutoTokenizer.from_pretrained(folder)(
        captions, padding="max_length", max_length=n_tokens, return_tensors="pt"
    )
    with torch.inference_mode():
        output = model.text_model(tokens["input_ids"], attention_mask=tokens["attention_mask"])
        pooled = model.text_projection(output.pooler_output).numpy()
        grid = model.text_projection(output.last_hidden_state).numpy()
    found = Text(TextSettings()).encode(captions)
    np.testing.assert_allclose(found, pooled, rtol=1e-4, atol=1e-5)
    found = Text(TextSettings(output="tokens", batch_size=2)).encode(captions)
    assert found.shape == (7, n_tokens, 128)
    np.testing.assert_allclose(found, grid, rtol=1e-4, atol=1e-5)
    scaled = Text(TextSettings(output="tokens", normalise="pooled")).encode(captions)
    norm = np.linalg.norm(pooled, axis=1)[:, None, None]
    np.testing.assert_allclose(scaled, grid / norm, rtol=1e-4, atol=1e-5)
    raw = Text(TextSettings(output="tokens", layer="last")).encode(captions)
    np.testing.assert_allclose(raw, output.last_hidden_state, rtol=1e-4, atol=1e-5)


def test_captions_of_one_category_are_nearer_than_others(captions: list[str]) -> None:
    _, attributes, texts = draw_stimuli(60, random_state=6)
    values = Text(TextSettings(normalise="unit")).encode(list(texts))
    same = attributes["category"][:, None] == attributes["category"][None]
    near = values @ values.T
    assert near[same].mean() > near[~same].mean() + 0.3


def test_another_folder_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "dinov2"}))
    with pytest.raises(ConfigError, match="text encoder") as caught:
        Text(TextSettings(path=str(tmp_path)))
    assert "dinov2" in str(caught.value)


def study(folder: Path, captions: list[str | None]) -> tuple[Inputs, Outputs]:
    images = draw_stimuli(len(captions), random_state=0)[0]
    rows = []
    for index, caption in enumerate(captions):
        write_png(folder / "stimuli" / f"{index}.png", images[index])
        row = {"stimulus_id": f"s{index}", "file": f"{index}.png", "split": "train"}
        rows.append({**row, "caption": caption})
    write_tsv(folder / "split.tsv", rows, list(rows[0]))
    (folder / "out").mkdir()
    for place in (folder, folder / "out"):
        (place / "dataset_description.json").write_text("{}")
    inputs = Inputs(split=folder / "split.tsv", dataset=folder / "dataset_description.json")
    return inputs, Outputs(features=folder / "out" / "features.nc")


def test_the_stage_reads_the_column(tmp_path: Path, captions: list[str]) -> None:
    inputs, outputs = study(tmp_path, list(captions))
    config = Config(encoders={"text": TextSettings(output="tokens")})
    run(inputs, outputs, config)
    _, blocks = read_blocks(outputs.features)
    assert block_shapes(outputs.features)["text"] == (24, 128)
    expected = Text(TextSettings(output="tokens")).encode(captions)
    np.testing.assert_array_equal(blocks["text"], expected.reshape(7, -1))


def test_a_stimulus_without_a_caption_is_named(tmp_path: Path, captions: list[str]) -> None:
    inputs, outputs = study(tmp_path, [*captions[:3], None])
    with pytest.raises(InputError, match="no caption") as caught:
        run(inputs, outputs, Config(encoders={"text": TextSettings()}))
    assert "s3" in str(caught.value)
    assert not outputs.features.exists()


def test_a_half_copied_folder_is_one_clear_error(tmp_path: Path) -> None:
    import shutil

    from afterimage.resources import model_folder

    folder = shutil.copytree(model_folder("tiny/clip"), tmp_path / "clip")
    weights = folder / "model.safetensors"
    with weights.open("r+b") as file:
        file.truncate(weights.stat().st_size // 2)
    with pytest.raises(ConfigError, match="cannot be loaded") as caught:
        Text(TextSettings(path=str(folder)))
    assert str(folder) in str(caught.value)
    weights.unlink()
    with pytest.raises(ConfigError, match="cannot be loaded"):
        Text(TextSettings(path=str(folder)))
