"""Captions from image tokens are those of the pictures; what is shrunk gets its spread back."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from afterimage.errors import ConfigError, InputError
from afterimage.features.git import Git, GitSettings
from afterimage.networks.git import image_tokens, load_git, pool_tokens, texts_from_tokens
from afterimage.reconstruction.git_caption import GitCaptioner, layer_norm_again
from afterimage.resources import resource_root

TINY = resource_root() / "data" / "tiny"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Save a GIT of random weights with the tokenizer of the small one."""
    import torch
    from transformers import CLIPImageProcessor, GitConfig, GitForCausalLM

    home = tmp_path_factory.mktemp("git")
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(TINY / "clip" / file, home)
    vision = {
        "image_size": 24, "patch_size": 6, "hidden_size": 20, "intermediate_size": 32,
        "num_hidden_layers": 1, "num_attention_heads": 2,
    }  # fmt: skip
    config = GitConfig(
        vision_config=vision, vocab_size=45, hidden_size=16, intermediate_size=24,
        num_hidden_layers=2, num_attention_heads=2, max_position_embeddings=20,
        pad_token_id=0, bos_token_id=1, eos_token_id=3,
    )  # fmt: skip
    torch.manual_seed(5)
    model = GitForCausalLM(config)
    norm = model.git.visual_projection.visual_projection[1]
    with torch.no_grad():  # weights that are not those of a new layer, and captions that differ
        norm.weight.uniform_(0.5, 2)
        norm.bias.normal_()
        for layer in model.git.encoder.layer:
            for matrix in (layer.attention.self.value, layer.attention.output.dense):
                matrix.weight.normal_(0, 1)
        model.output.weight.normal_(0, 1)
    model.save_pretrained(home)
    CLIPImageProcessor(
        size={"shortest_edge": 24}, crop_size={"height": 24, "width": 24}
    ).save_pretrained(home)
    return home


@pytest.fixture(scope="module")
def pictures():
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (24 + i, 24 + i, 3)).astype(np.uint8) for i in range(6)]


@pytest.mark.parametrize("n_beams", [1, 3])
def test_tokens_give_the_caption_of_the_picture(folder, pictures, n_beams):
    import torch
    from transformers import AutoImageProcessor, AutoTokenizer, GitForCausalLM

    tokens = Git(GitSettings(path=str(folder), batch_size=4)).encode(pictures)
    assert tokens.shape == (6, 17, 16)
    captions, scores = GitCaptioner(str(folder)).caption(
        tokens, n_beams=n_beams, max_words=8, batch_size=4
    )
    model = GitForCausalLM.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
    pixels = processor(images=pictures, return_tensors="pt")["pixel_values"]
    with torch.inference_mode():
        ids = model.generate(
            pixel_values=pixels, do_sample=False, num_beams=n_beams, max_new_tokens=8
        )
    assert captions == tokenizer.batch_decode(ids, skip_special_tokens=True)
    assert len(set(captions)) > 1  # so that equality says something
    assert np.isfinite(scores).all()
    assert (scores < 0).all()


def test_log_probability_is_that_of_the_words(folder, pictures):
    import torch
    from transformers import AutoTokenizer

    model, tokenizer = load_git(folder), AutoTokenizer.from_pretrained(folder)
    tokens = Git(GitSettings(path=str(folder))).encode(pictures[:1])
    _, scores = texts_from_tokens(model, tokenizer, tokens, max_words=5)
    pixels_free = torch.from_numpy(tokens)
    from afterimage.networks.git import _reading

    ids = torch.tensor([[1]])
    total, n_words = 0.0, 0
    with torch.inference_mode(), _reading(model, 17):
        while n_words < 5 and (not n_words or ids[0, -1] != 3):
            logits = model(input_ids=ids, pixel_values=pixels_free[:, None]).logits[0, -1]
            word = logits.argmax()
            total += float(logits.log_softmax(-1)[word])
            ids, n_words = torch.cat([ids, word[None, None]], 1), n_words + 1
    assert scores[0] == pytest.approx(total / n_words, abs=1e-5)


def test_model_is_left_as_it_was(folder, pictures):
    import torch
    from transformers import AutoTokenizer

    model, tokenizer = load_git(folder), AutoTokenizer.from_pretrained(folder)
    pixels = torch.randn(2, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    before = image_tokens(model, pixels)
    texts_from_tokens(model, tokenizer, pool_tokens(before.numpy(), 2), max_words=3)
    assert torch.equal(before, image_tokens(model, pixels))
    assert model.git.encoder.layer[0].attention.self.image_patch_tokens == 17


def test_layer_norm_again_keeps_true_tokens_and_mends_shrunken_ones(folder, pictures):
    model = load_git(folder)
    norm = model.git.visual_projection.visual_projection[1]
    weight, bias = norm.weight.numpy(), norm.bias.numpy()
    tokens = Git(GitSettings(path=str(folder))).encode(pictures)
    # up to the constant under the root of the layer norm
    np.testing.assert_allclose(layer_norm_again(tokens, weight, bias), tokens, atol=0.02)
    shrunk = weight * (0.3 * (tokens - bias) / weight) + bias
    np.testing.assert_allclose(layer_norm_again(shrunk, weight, bias), tokens, atol=0.02)


def test_pooling_averages_squares_of_patches():
    tokens = np.arange(17, dtype=np.float32).reshape(1, 17, 1)
    pooled = pool_tokens(tokens, 2)[0, :, 0]
    np.testing.assert_allclose(pooled, [0, 3.5, 5.5, 11.5, 13.5])
    assert pool_tokens(tokens, 1) is tokens
    with pytest.raises(ConfigError, match="divisor of 4"):
        pool_tokens(tokens, 3)


def test_wrong_folders_are_refused(folder, tmp_path):
    from safetensors.torch import load_file, save_file

    with pytest.raises(ConfigError, match="type clip"):
        Git(GitSettings(path="tiny/clip"))
    half = tmp_path / "half"
    shutil.copytree(folder, half)
    (half / "model.safetensors").unlink()
    with pytest.raises(InputError, match="cannot be loaded"):
        Git(GitSettings(path=str(half)))
    weights = load_file(folder / "model.safetensors")
    weights.pop("output.weight")
    save_file(weights, half / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match=r"1 missing.*output\.weight"):
        GitCaptioner(str(half))
    with pytest.raises(ConfigError, match="does not read"):
        GitCaptioner(str(folder)).caption(np.zeros((2, 17, 7), np.float32))
