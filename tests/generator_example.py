"""Pipelines of the generators' true classes with random weights: at their true size, or tiny.

The configurations are those of the published folders, so that sizes and speed are theirs; tiny ones
differ in widths and depths only.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from afterimage.reconstruction.registry import RECONSTRUCTIONS, Material

#: By generator: the parts of its folder, as (class, published configuration, what a tiny one changes).
Parts = dict[str, tuple[str, dict[str, Any], dict[str, Any]]]

_VAE = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "latent_channels": 4,
    "layers_per_block": 2,
}
_TINY_VAE = {
    "block_out_channels": (16, 16),
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
    "layers_per_block": 1,
    "norm_num_groups": 8,
}
_TINY_TEXT = {
    "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32,
    "projection_dim": 32, "vocab_size": 41, "max_position_embeddings": 77,
    "bos_token_id": 1, "eos_token_id": 3, "pad_token_id": 0,
}  # fmt: skip

TRUE: dict[str, Parts] = {
    "sdxl_ip_adapter": {
        "unet": (
            "UNet2DConditionModel",
            {
                "sample_size": 128,
                "block_out_channels": (320, 640, 1280),
                "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
                "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
                "attention_head_dim": (5, 10, 20),
                "transformer_layers_per_block": (1, 2, 10),
                "cross_attention_dim": 2048,
                "use_linear_projection": True,
                "addition_embed_type": "text_time",
                "addition_time_embed_dim": 256,
                "projection_class_embeddings_input_dim": 2816,
            },
            {
                "sample_size": 16,
                "block_out_channels": (32, 64),
                "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
                "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
                "attention_head_dim": (2, 4),
                "transformer_layers_per_block": (1, 1),
                "cross_attention_dim": 64,
                "addition_time_embed_dim": 8,
                "projection_class_embeddings_input_dim": 80,
                "layers_per_block": 1,
                "norm_num_groups": 8,
            },
        ),
        "vae": ("AutoencoderKL", _VAE | {"scaling_factor": 0.13025}, _TINY_VAE),
        "text_encoder": (
            "CLIPTextModel",
            {
                "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12,
                "intermediate_size": 3072, "vocab_size": 49408, "projection_dim": 768,
            },
            _TINY_TEXT,
        ),
        "text_encoder_2": (
            "CLIPTextModelWithProjection",
            {
                "hidden_size": 1280, "num_hidden_layers": 32, "num_attention_heads": 20,
                "intermediate_size": 5120, "vocab_size": 49408, "projection_dim": 1280,
            },
            _TINY_TEXT,
        ),
    },
    "stable_unclip": {
        "unet": (
            "UNet2DConditionModel",
            {
                "sample_size": 96,
                "block_out_channels": (320, 640, 1280, 1280),
                "attention_head_dim": (5, 10, 20, 20),
                "cross_attention_dim": 1024,
                "use_linear_projection": True,
                "class_embed_type": "projection",
                "projection_class_embeddings_input_dim": 2048,
            },
            {
                "sample_size": 16,
                "block_out_channels": (32, 64),
                "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
                "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
                "attention_head_dim": (2, 4),
                "cross_attention_dim": 32,
                "projection_class_embeddings_input_dim": 48,
                "layers_per_block": 1,
                "norm_num_groups": 8,
            },
        ),
        "vae": ("AutoencoderKL", _VAE | {"scaling_factor": 0.18215}, _TINY_VAE),
        "image_normalizer": (
            "StableUnCLIPImageNormalizer", {"embedding_dim": 1024}, {"embedding_dim": 24},
        ),
        "text_encoder": (
            "CLIPTextModel",
            {
                "hidden_size": 1024, "num_hidden_layers": 23, "num_attention_heads": 16,
                "intermediate_size": 4096, "vocab_size": 49408, "projection_dim": 512,
            },
            _TINY_TEXT,
        ),
    },
    "kandinsky": {
        "unet": (
            "UNet2DConditionModel",
            {
                "sample_size": 64,
                "out_channels": 8,
                "block_out_channels": (384, 768, 1152, 1536),
                "down_block_types": (
                    "ResnetDownsampleBlock2D", *("SimpleCrossAttnDownBlock2D",) * 3,
                ),
                "up_block_types": (*("SimpleCrossAttnUpBlock2D",) * 3, "ResnetUpsampleBlock2D"),
                "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
                "layers_per_block": 3,
                "attention_head_dim": 64,
                "cross_attention_dim": 768,
                "encoder_hid_dim": 1280,
                "encoder_hid_dim_type": "image_proj",
                "addition_embed_type": "image",
                "resnet_time_scale_shift": "scale_shift",
            },
            {
                "sample_size": 16,
                "block_out_channels": (32, 64),
                "down_block_types": ("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
                "up_block_types": ("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
                "layers_per_block": 1,
                "attention_head_dim": 16,
                "cross_attention_dim": 32,
                "encoder_hid_dim": 24,
                "norm_num_groups": 8,
            },
        ),
        "movq": (
            "VQModel",
            {
                "block_out_channels": (128, 256, 256, 512),
                "down_block_types": (*("DownEncoderBlock2D",) * 3, "AttnDownEncoderBlock2D"),
                "up_block_types": ("AttnUpDecoderBlock2D", *("UpDecoderBlock2D",) * 3),
                "latent_channels": 4,
                "layers_per_block": 2,
                "norm_type": "spatial",
                "num_vq_embeddings": 16384,
                "vq_embed_dim": 4,
            },
            {
                "block_out_channels": (32, 32),
                "down_block_types": ("DownEncoderBlock2D", "AttnDownEncoderBlock2D"),
                "up_block_types": ("AttnUpDecoderBlock2D", "UpDecoderBlock2D"),
                "layers_per_block": 1,
                "num_vq_embeddings": 32,
                "norm_num_groups": 8,
            },
        ),
    },
    "flux_redux": {
        "transformer": (
            "FluxTransformer2DModel",
            {"guidance_embeds": True},  # all else is the default of the class
            {
                "in_channels": 64, "num_layers": 1, "num_single_layers": 1,
                "attention_head_dim": 16, "num_attention_heads": 2, "joint_attention_dim": 32,
                "pooled_projection_dim": 16, "axes_dims_rope": (4, 6, 6),
            },
        ),
        "vae": (
            "AutoencoderKL",
            _VAE | {
                "latent_channels": 16, "scaling_factor": 0.3611, "shift_factor": 0.1159,
                "use_quant_conv": False, "use_post_quant_conv": False,
            },
            _TINY_VAE,
        ),
    },
}  # fmt: skip
REDUX: Parts = {
    "image_embedder": ("ReduxImageEncoder", {}, {"redux_dim": 24, "txt_in_features": 32})
}
#: Shape of the embedding that the tiny and the true generators take.
TINY_SHAPES = {
    "sdxl_ip_adapter": (24,), "stable_unclip": (24,), "kandinsky": (24,), "flux_redux": (6, 24),
}  # fmt: skip
TRUE_SHAPES = {
    "sdxl_ip_adapter": (1024,), "stable_unclip": (1024,), "kandinsky": (1280,),
    "flux_redux": (729, 1152),
}  # fmt: skip


def new_part(entry: tuple[str, dict[str, Any], dict[str, Any]], *, tiny: bool) -> Any:
    """Make one part with random weights."""
    import diffusers
    import transformers
    from diffusers.pipelines.flux.modeling_flux import ReduxImageEncoder
    from diffusers.pipelines.stable_diffusion.stable_unclip_image_normalizer import (
        StableUnCLIPImageNormalizer,
    )

    name, config, changes = entry
    values = config | (changes if tiny else {})
    if name.startswith("CLIPText"):
        return getattr(transformers, name)(transformers.CLIPTextConfig(**values)).eval()
    own = {
        "ReduxImageEncoder": ReduxImageEncoder,
        "StableUnCLIPImageNormalizer": StableUnCLIPImageNormalizer,
    }
    made = (own.get(name) or getattr(diffusers, name))(**values)
    return made.eval() if hasattr(made, "eval") else made


def adapter_weights(unet: Any, width: int, *, tokens: bool = False) -> dict[str, Any]:
    """Random weights of an IP-Adapter for a U-Net, in the form in which they are published."""
    import torch

    cross, hidden = unet.config.cross_attention_dim, 64 if tokens else 0
    weights: dict[str, Any] = {}
    shapes: dict[str, tuple[int, ...]]
    if tokens:  # the resampler of the adapters "plus"
        shapes = {
            "latents": (1, 4, hidden), "proj_in.weight": (hidden, width), "proj_in.bias": (hidden,),
            "proj_out.weight": (cross, hidden), "proj_out.bias": (cross,),
            "norm_out.weight": (cross,), "norm_out.bias": (cross,),
        }  # fmt: skip
        for layer in range(4):
            for name, shape in {
                "0.norm1.weight": (hidden,), "0.norm1.bias": (hidden,),
                "0.norm2.weight": (hidden,), "0.norm2.bias": (hidden,),
                "0.to_q.weight": (hidden, hidden), "0.to_kv.weight": (2 * hidden, hidden),
                "0.to_out.weight": (hidden, hidden), "1.0.weight": (hidden,), "1.0.bias": (hidden,),
                "1.1.weight": (4 * hidden, hidden), "1.3.weight": (hidden, 4 * hidden),
            }.items():  # fmt: skip
                shapes[f"layers.{layer}.{name}"] = shape
    else:
        shapes = {
            "proj.weight": (4 * cross, width), "proj.bias": (4 * cross,),
            "norm.weight": (cross,), "norm.bias": (cross,),
        }  # fmt: skip
    for name, shape in shapes.items():
        weights[f"image_proj.{name}"] = torch.randn(shape) * 0.2
    number = 1
    modules = dict(unet.named_modules())
    for name in unet.attn_processors:
        if name.endswith("attn2.processor"):
            inner = modules[name.removesuffix(".processor")].to_k.out_features
            for side in ("k", "v"):
                weights[f"ip_adapter.{number}.to_{side}_ip.weight"] = (
                    torch.randn(inner, cross) * 0.2
                )
            number += 2
    return weights


def write(
    folder: Path, kind: str, *, tiny: bool = True, seed: int = 0, dtype: Any = None
) -> dict[str, Any]:
    """Write the folders of one generator; return the settings that name them."""
    import diffusers
    import torch
    from safetensors.torch import save_file
    from transformers import AutoTokenizer

    from afterimage.resources import model_folder

    torch.manual_seed(seed)
    home = folder / kind
    parts = {name: new_part(entry, tiny=tiny).to(dtype) for name, entry in TRUE[kind].items()}
    ddim = diffusers.DDIMScheduler(
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, clip_sample=False
    )
    tokenizer = AutoTokenizer.from_pretrained(model_folder("tiny/clip"))
    tokenizer.model_max_length = 77
    settings: dict[str, Any] = {"pipeline": str(home)}
    if kind == "sdxl_ip_adapter":
        made: Any = diffusers.StableDiffusionXLPipeline(
            **parts, scheduler=ddim, tokenizer=tokenizer, tokenizer_2=tokenizer
        )
        (folder / "adapter").mkdir(parents=True, exist_ok=True)
        weights = adapter_weights(parts["unet"], TINY_SHAPES[kind][0] if tiny else 1024)
        save_file(weights, folder / "adapter" / "a.safetensors")
        settings |= {"adapter": str(folder / "adapter"), "adapter_file": "a.safetensors"}
    elif kind == "stable_unclip":
        made = diffusers.StableUnCLIPImg2ImgPipeline(
            **parts, scheduler=ddim, tokenizer=tokenizer, feature_extractor=None,
            image_encoder=None,
            image_noising_scheduler=diffusers.DDPMScheduler(beta_schedule="squaredcos_cap_v2"),
        )  # fmt: skip
    elif kind == "kandinsky":
        made = diffusers.KandinskyV22Pipeline(
            **parts, scheduler=diffusers.DDPMScheduler(variance_type="learned_range")
        )
    else:
        made = diffusers.FluxPipeline(
            **parts, scheduler=diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
            text_encoder=None, tokenizer=None, text_encoder_2=None, tokenizer_2=None,
        )  # fmt: skip
        redux = folder / "redux"
        embedder = new_part(REDUX["image_embedder"], tiny=tiny).to(dtype)
        embedder.save_pretrained(redux / "image_embedder")
        (redux / "model_index.json").write_text('{"_class_name": "FluxPriorReduxPipeline"}')
        settings["redux"] = str(redux)
    made.save_pretrained(home)
    return settings


#: Pictures of the tiny studies, their size, and the shape of their latents.
N, SIZE, LATENTS = 3, 32, (4, 4, 4)
_WRITTEN: dict[tuple[Path, str], dict[str, Any]] = {}


def folders(root: Path, kind: str) -> dict[str, Any]:
    """Return settings that name the folders of a tiny generator below ``root``, written once."""
    import torch

    from afterimage.training.generative import new_autoencoder

    if not (root / "low").exists():
        torch.manual_seed(1)
        low = new_autoencoder(channels=(16, 16), latent_channels=4)
        low.save_pretrained(root / "low" / "vae")
    if (root, kind) not in _WRITTEN:
        _WRITTEN[root, kind] = write(root, kind)
    return _WRITTEN[root, kind]


def tiny_method(root: Path, kind: str, device: str = "cpu", **changes: Any) -> Any:
    """Make a tiny generator."""
    values = {
        **folders(root, kind), "generator": str(root / "low"), "embedding": "clip", "n_steps": 4,
        "size_px": SIZE, "output_px": SIZE, "guidance_scale": 3.0,
    }  # fmt: skip
    return RECONSTRUCTIONS.get(kind)(RECONSTRUCTIONS.settings(kind)(**values | changes), device)


def predictions(kind: str, seed: int = 0) -> dict[str, np.ndarray]:
    """Random predictions of N pictures."""
    rng = np.random.default_rng(seed)
    size = int(np.prod(TINY_SHAPES[kind]))
    return {
        "clip": rng.standard_normal((N, size)).astype(np.float32),
        "vae": rng.standard_normal((N, int(np.prod(LATENTS)))).astype(np.float32),
    }


def material(kind: str, **changes: Any) -> Material:
    """Make what a method is given; pictures are embedded by means and spreads of their colours."""
    shape = TINY_SHAPES[kind]
    project = np.random.default_rng(9).standard_normal((6, int(np.prod(shape))))

    def embed(images: Any) -> np.ndarray:
        rows = [np.r_[i.mean((0, 1)), i.std((0, 1))] / 64 - 1 for i in images]
        return (np.stack(rows) @ project).astype(np.float32)

    values: dict[str, Any] = {
        "keys": [f"stimulus-{i}" for i in range(N)], "random_state": 3,
        "shapes": {"clip": shape, "vae": LATENTS}, "training": {},
        "training_image": lambda _: np.zeros((16, 16, 3), np.uint8), "embed": {"clip": embed},
    }  # fmt: skip
    return Material(**(values | changes))


def stack(made: Any) -> np.ndarray:
    """Pictures of a result, as integers: (n, height, width, 3)."""
    return np.stack(made[0]).astype(int)
