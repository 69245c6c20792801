"""Texts to vectors: CLIP's own, and the mean over words of a sentence encoder, as called by hand."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from afterimage.errors import ConfigError, InputError
from afterimage.networks.text_encoder import TextEncoder
from afterimage.resources import resource_root

CLIP = resource_root() / "data" / "tiny" / "clip"
TEXTS = ["a small red face", "a large blue tool with stripes", "a small red face"]


@pytest.fixture(scope="module")
def sentences(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save a BERT of random weights with the tokenizer of the small CLIP."""
    import torch
    from transformers import BertConfig, BertModel

    folder = tmp_path_factory.mktemp("sentences")
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=45, hidden_size=12, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16, max_position_embeddings=24,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(CLIP / file, folder)
    return folder


def test_clip_texts_are_those_of_the_model() -> None:
    import torch
    from transformers import AutoTokenizer, CLIPModel

    ours = TextEncoder(CLIP).embed(TEXTS, batch_size=1)
    model = CLIPModel.from_pretrained(CLIP, dtype=torch.float32).eval()
    tokens = AutoTokenizer.from_pretrained(CLIP)(TEXTS, padding=True, return_tensors="pt")
    with torch.inference_mode():
        pooled = model.text_model(
            input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]
        ).pooler_output
        theirs = model.text_projection(pooled).numpy()
    theirs /= np.linalg.norm(theirs, axis=1, keepdims=True)
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    np.testing.assert_array_equal(ours[0], ours[2])


def test_sentences_are_the_mean_over_their_words(sentences: Path) -> None:
    import torch
    from transformers import AutoTokenizer, BertModel

    ours = TextEncoder(sentences).embed(TEXTS)
    model = BertModel.from_pretrained(sentences).eval()
    tokenizer = AutoTokenizer.from_pretrained(sentences)
    for text, vector in zip(TEXTS, ours, strict=True):  # one by one: padding must not count
        ids = tokenizer(text, return_tensors="pt")["input_ids"]
        with torch.inference_mode():
            mean = model(input_ids=ids).last_hidden_state[0].mean(0).numpy()
        np.testing.assert_allclose(vector, mean / np.linalg.norm(mean), atol=1e-5)


def test_wrong_folders_are_refused(sentences: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    with pytest.raises(ConfigError, match="text encoder cannot be loaded"):
        TextEncoder(tmp_path)
    half = tmp_path / "half"
    shutil.copytree(sentences, half)
    weights = load_file(half / "model.safetensors")
    weights.pop("encoder.layer.0.attention.self.query.weight")
    save_file(weights, half / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match="1 missing"):
        TextEncoder(half)
