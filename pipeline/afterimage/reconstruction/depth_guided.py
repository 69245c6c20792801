"""Pictures from a decoded caption, a low-level image and its depth (Ferrante et al. 2023).

Brain Captioning, arXiv:2305.11560: Stable Diffusion from the low-level image, under the caption
that GIT reads in predicted tokens and, by ControlNet (Zhang et al. 2023, arXiv:2302.05543), under a
depth map.

What differs: depth is a decoded block where there is one, and otherwise estimated from the low-level
image; the seen picture is never consulted for either.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from afterimage.errors import ConfigError, InputError
from afterimage.networks.autoencoder import decode, load_autoencoder
from afterimage.networks.depth import DepthEstimator, unit_range
from afterimage.reconstruction.candidates import noise_seed
from afterimage.reconstruction.git_caption import GitCaptioner
from afterimage.reconstruction.registry import RECONSTRUCTIONS, Material, Result
from afterimage.resources import model_folder
from afterimage.settings import Settings


class DepthGuidedSettings(Settings):
    """Stable Diffusion with ControlNet-depth, from local diffusers folders."""

    kind: Literal["depth_guided"] = "depth_guided"
    pipeline: str = Field(description="diffusers folder of a Stable Diffusion 1 or 2 pipeline")
    controlnet: str = Field(description="diffusers folder of its ControlNet for depth")
    depth_model: str = Field(
        "", description="transformers depth-estimation folder, for the low-level image"
    )
    depth: str = Field("", description="a decoded block of depth maps instead of the estimate")
    captioner: str = Field("tiny/git", description="GIT folder that made the block of tokens")
    tokens: str = Field("git", description="the block of predicted image tokens")
    generator: str = Field(
        "tiny/generator", description="diffusers folder whose autoencoder made the latents"
    )
    latents: str = Field("vae", description="the block of predicted latents: the low-level image")
    size_px: int = Field(512, ge=8, description="height and width of the pictures made")
    strength: float = Field(
        0.8, ge=0, le=1, description="noise on the low-level image: 0 keeps it, 1 ignores it"
    )
    guidance_scale: float = Field(7.5, ge=1, description="weight of the caption; 1 is no guidance")
    depth_scale: float = Field(0.8, ge=0, description="weight of the depth map")
    n_steps: int = Field(30, ge=1, description="steps of the sampler at strength 1")
    batch_size: int = Field(4, ge=1, description="pictures made at once")

    @model_validator(mode="after")
    def _depth_comes_from_somewhere(self) -> Self:
        if bool(self.depth) == bool(self.depth_model):
            raise ValueError("name either depth (a decoded block) or depth_model (a folder)")
        return self


@RECONSTRUCTIONS.register("depth_guided", DepthGuidedSettings)
class DepthGuided:
    """Reconstruct pictures from predicted tokens of a caption, latents, and depth.

    Parameters
    ----------
    settings : DepthGuidedSettings
    device : str
        ``cpu`` (float32) or ``cuda`` (bfloat16).
    """

    def __init__(self, settings: DepthGuidedSettings, device: str = "cpu") -> None:
        self._settings, self._device = settings, device
        self._pipeline = load_pipeline(settings.pipeline, settings.controlnet, device)
        self._vae = load_autoencoder(model_folder(settings.generator))
        self._captioner = GitCaptioner(settings.captioner, device)
        self._estimator = (
            DepthEstimator(model_folder(settings.depth_model), device)
            if settings.depth_model
            else None
        )

    def reconstruct(self, predicted: Mapping[str, np.ndarray], material: Material) -> Result:
        """Make one picture for each row of the predicted features.

        The noise of a row follows from the random state and its own key, whatever the batches.

        Parameters
        ----------
        predicted : mapping of block name to ndarray of float32
            Image tokens, standardised latents and perhaps depth maps, flat or not.
        material : Material

        Returns
        -------
        images : list of ndarray of uint8, (size_px, size_px, 3)
        details : list of dict
            ``seed`` and ``caption``.
        """
        import torch

        settings = self._settings
        wanted = [settings.tokens, settings.latents, *([settings.depth] if settings.depth else [])]
        for block in wanted:
            if block not in predicted or block not in material.shapes:
                raise ConfigError(
                    "depth-guided generation needs a feature block that was not decoded",
                    found=", ".join(sorted(predicted)),
                    expected=", ".join(wanted),
                    fix="add the block to the features, or name another one in the settings",
                )
        blocks = {name: predicted[name].reshape(-1, *material.shapes[name]) for name in wanted}
        captions, _ = self._captioner.caption(blocks[settings.tokens])
        low_level = decode(self._vae, blocks[settings.latents], device=self._device)
        start = resized(np.rint(low_level * 255).astype(np.uint8), settings.size_px)
        seeds = [noise_seed(material.random_state, key, 0) for key in material.keys]
        images: list[np.ndarray] = []
        for first in range(0, len(captions), settings.batch_size):
            part = slice(first, first + settings.batch_size)
            made = self._pipeline(
                prompt=captions[part],
                image=torch.from_numpy(start[part]).movedim(-1, 1).float() / 255,
                control_image=torch.from_numpy(self._depth(blocks, start, part)),
                strength=settings.strength,
                num_inference_steps=settings.n_steps,
                guidance_scale=settings.guidance_scale,
                controlnet_conditioning_scale=settings.depth_scale,
                generator=[torch.Generator().manual_seed(seed) for seed in seeds[part]],
                output_type="np",
            ).images
            images += list(np.rint(made * 255).astype(np.uint8))
        details = [
            {"seed": seed, "caption": caption}
            for seed, caption in zip(seeds, captions, strict=True)
        ]
        return images, details

    def _depth(
        self, blocks: Mapping[str, np.ndarray], start: np.ndarray, part: slice
    ) -> np.ndarray:
        """Return the depth maps as ControlNet takes them, (n, 3, size_px, size_px), 0..1."""
        size = self._settings.size_px
        if self._estimator is not None:
            depth = self._estimator.estimate(list(start[part]), size)
        else:
            maps = unit_range(blocks[self._settings.depth][part])
            depth = resized(np.rint(maps * 255).astype(np.uint8), size).astype(np.float32) / 255
        return np.repeat(depth[:, None], 3, axis=1)


def resized(pictures: np.ndarray, size_px: int) -> np.ndarray:
    """Resize pictures (n, height, width[, 3]), uint8, to squares (bilinear, antialiased)."""
    from PIL import Image

    small = [
        np.asarray(Image.fromarray(p).resize((size_px, size_px), Image.Resampling.BILINEAR))
        for p in pictures
    ]
    return np.stack(small) if small else np.zeros((0, size_px, size_px, 3), np.uint8)


def load_pipeline(folder: str, controlnet: str, device: str) -> Any:
    """Load a Stable Diffusion pipeline with a ControlNet from two local folders, safetensors only."""
    import torch
    from diffusers import ControlNetModel, StableDiffusionControlNetImg2ImgPipeline

    home, dtype = model_folder(folder), torch.float32 if device == "cpu" else torch.bfloat16
    try:
        control = ControlNetModel.from_pretrained(
            str(model_folder(controlnet)), local_files_only=True, use_safetensors=True,
            dtype=dtype,
        )  # fmt: skip
        pipeline = StableDiffusionControlNetImg2ImgPipeline.from_pretrained(
            str(home), controlnet=control, safety_checker=None, requires_safety_checker=False,
            local_files_only=True, use_safetensors=True, dtype=dtype,
        )  # fmt: skip
    except (OSError, ValueError, TypeError) as error:
        raise InputError(
            "a Stable Diffusion pipeline with ControlNet cannot be loaded",
            where=f"{home} with {controlnet}",
            found=str(error).splitlines()[0],
            expected="a pipeline folder with vae/, unet/, text_encoder/, tokenizer/, scheduler/, and "
            "a folder of a ControlNetModel, as safetensors",
            fix="copy the folders again; weights in pickle form (.bin) are not read (docs/safety.md: how to "
            "convert them)",
        ) from error
    widths = control.config.cross_attention_dim, pipeline.unet.config.cross_attention_dim
    if widths[0] != widths[1]:
        raise ConfigError(
            "a ControlNet does not belong to its pipeline", where=f"{home} with {controlnet}",
            found=f"cross attention over {widths[0]} and {widths[1]} values", expected="the same",
            fix="use the ControlNet made for this version of Stable Diffusion",
        )  # fmt: skip
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(device)
