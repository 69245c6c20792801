"""Depth-guided generation through pipelines of the true classes with random weights."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from tests.depth_example import save_depth_model

from afterimage.errors import ConfigError, InputError
from afterimage.features.depth import Depth, DepthSettings
from afterimage.features.git import Git, GitSettings
from afterimage.features.vae import Vae, VaeSettings
from afterimage.reconstruction.depth_guided import DepthGuided, DepthGuidedSettings
from afterimage.reconstruction.registry import Material
from afterimage.simulate.stimuli import draw_stimuli


def save_pipeline(home, width=8):
    """Save a Stable Diffusion pipeline and its ControlNet of random weights."""
    import torch
    from diffusers import (
        AutoencoderKL,
        ControlNetModel,
        DDIMScheduler,
        StableDiffusionPipeline,
        UNet2DConditionModel,
    )
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    torch.manual_seed(0)
    words = [
        "<|startoftext|>",
        "<|endoftext|>",
        *(f"{c}</w>" for c in "abcdefghijklmnopqrstuvwxyz"),
    ]
    words += list("abcdefghijklmnopqrstuvwxyz")
    home.mkdir(parents=True, exist_ok=True)
    (home / "vocab.json").write_text(json.dumps({w: i for i, w in enumerate(words)}))
    (home / "merges.txt").write_text("#version: 0.2\n")
    vocabulary = (str(home / "vocab.json"), str(home / "merges.txt"))
    tokenizer = CLIPTokenizer(*vocabulary, model_max_length=77)
    text = CLIPTextConfig(
        vocab_size=len(words), hidden_size=width, intermediate_size=16, num_hidden_layers=1,
        num_attention_heads=2, max_position_embeddings=77, bos_token_id=0, eos_token_id=1,
    )  # fmt: skip
    unet = UNet2DConditionModel(
        sample_size=8, block_out_channels=(8, 16), norm_num_groups=4, layers_per_block=1,
        cross_attention_dim=width, attention_head_dim=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    )  # fmt: skip
    control = ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=(4, 8, 8, 8))
    with torch.no_grad():  # a new ControlNet adds nothing: its last layers are zero
        for layer in [*control.controlnet_down_blocks, control.controlnet_mid_block]:
            layer.weight.normal_(0, 0.3)
        control.controlnet_cond_embedding.conv_out.weight.normal_(0, 0.3)
    control.save_pretrained(home / "controlnet")
    StableDiffusionPipeline(
        vae=AutoencoderKL(
            block_out_channels=(4, 4, 8, 8), norm_num_groups=2,
            down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        ),
        text_encoder=CLIPTextModel(text), tokenizer=tokenizer, unet=unet,
        scheduler=DDIMScheduler(steps_offset=1, clip_sample=False), safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(home / "pipeline")  # fmt: skip
    return home


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    home = tmp_path_factory.mktemp("depth")
    return {
        "home": save_pipeline(home / "sd"), "depth": save_depth_model(home / "dpt"),
        "other": save_pipeline(home / "other", width=12),
    }  # fmt: skip


@pytest.fixture(scope="module")
def predicted(folders):
    images = list(draw_stimuli(3, 5)[0])
    blocks = {
        "git": Git(GitSettings()).encode(images), "vae": Vae(VaeSettings()).encode(images),
        "depth": Depth(DepthSettings(path=str(folders["depth"]), size_px=16)).encode(images),
    }  # fmt: skip
    shapes = {name: values.shape[1:] for name, values in blocks.items()}
    return {name: values.reshape(3, -1) for name, values in blocks.items()}, shapes


def generate(folders, predicted, rows=slice(0, 3), **changes):
    values, shapes = predicted
    settings = {
        "pipeline": str(folders["home"] / "pipeline"), "size_px": 64, "n_steps": 2,
        "controlnet": str(folders["home"] / "controlnet"), "depth_model": str(folders["depth"]),
    }  # fmt: skip
    method = DepthGuided(DepthGuidedSettings(**settings | changes))
    keys = ["a", "b", "c"][rows]
    material = Material(keys, 0, shapes, {}, lambda index: values["vae"][index], {})
    return method.reconstruct({name: block[rows] for name, block in values.items()}, material)


def test_every_part_has_its_say(folders, predicted):
    images, details = generate(folders, predicted)
    assert [image.shape for image in images] == [(64, 64, 3)] * 3
    assert all(detail["caption"].startswith("a ") for detail in details)
    apart, _ = generate(folders, predicted, rows=slice(1, 3), batch_size=1)  # whatever the batch
    assert np.abs(np.stack(apart).astype(int) - np.stack(images[1:])).max() <= 1
    for change in (
        {"depth_scale": 0.0},
        {"depth_model": "", "depth": "depth"},
        {"guidance_scale": 1.0, "strength": 1.0},
    ):
        other, _ = generate(folders, predicted, **change)
        assert not np.array_equal(np.stack(other), np.stack(images)), change


def test_bad_folders_and_blocks_are_refused(folders, predicted, tmp_path):
    with pytest.raises(ValueError, match="either depth"):
        DepthGuidedSettings(pipeline="a", controlnet="b")
    with pytest.raises(ConfigError, match=r"cross attention over 12 and 8"):
        generate(folders, predicted, controlnet=str(folders["other"] / "controlnet"))
    half = tmp_path / "half"
    shutil.copytree(folders["home"] / "pipeline", half)
    next((half / "unet").glob("*.safetensors")).unlink()
    with pytest.raises(InputError, match="cannot be loaded"):
        generate(folders, predicted, pipeline=str(half))
    with pytest.raises(ConfigError, match="not decoded"):
        generate(folders, predicted, tokens="absent")
