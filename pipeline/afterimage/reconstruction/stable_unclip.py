"""Stable unCLIP from a decoded CLIP embedding (Ramesh et al. 2022, arXiv:2204.06125).

Stable Diffusion 2.1 fine-tuned to take the image embedding of CLIP ViT-H/14 (1024 values), with as
much noise on it as ``noise_level`` says. What differs: the embedding comes from the brain, and the
first steps are left out and the low-level picture, noised, put in their place.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from afterimage.reconstruction.generator import Generator, GeneratorSettings
from afterimage.reconstruction.registry import RECONSTRUCTIONS

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Generator as Noise
    from torch import Tensor


class StableUnclipSettings(GeneratorSettings):
    """Paint with Stable unCLIP under an image embedding."""

    kind: Literal["stable_unclip"] = "stable_unclip"
    size_px: int = Field(default=768, ge=16, description="square that the generator paints")
    prompt: str = Field(default="", description="text beside the embedding")
    noise_level: int = Field(
        default=0, ge=0, le=999, description="noise on the embedding, for one that is not exact"
    )


@RECONSTRUCTIONS.register("stable_unclip", StableUnclipSettings)
class StableUnclip(Generator):
    """Reconstruct pictures with Stable unCLIP."""

    classes: ClassVar[tuple[str, ...]] = ("StableUnCLIPImg2ImgPipeline",)
    parts: ClassVar[tuple[str, ...]] = ("unet", "vae", "image_normalizer", "text_encoder")

    def _condition_shape(self) -> tuple[int | None, ...]:
        config = json.loads((self._folder / "unet" / "config.json").read_text(encoding="utf-8"))
        # the level of the noise is embedded in as many values beside it
        return (int(config["projection_class_embeddings_input_dim"]) // 2,)

    def _load(self) -> Any:
        from diffusers import DDIMScheduler, StableUnCLIPImg2ImgPipeline

        encoders = {"image_encoder": None, "feature_extractor": None}
        pipeline = self._read(StableUnCLIPImg2ImgPipeline, **encoders)
        # the pipeline asks its image encoder for the type of embeddings, and for nothing else
        pipeline.image_encoder = pipeline.image_normalizer
        pipeline.scheduler = DDIMScheduler.from_config(
            pipeline.scheduler.config, clip_sample=False
        )
        return self._place(pipeline)

    def _paint(
        self, condition: Tensor, nothing: Tensor | None, start: Tensor, noise: list[Noise]
    ) -> NDArray[np.float32]:
        settings, pipeline = self._settings, self._pipeline
        scheduler = pipeline.scheduler
        first = settings.n_steps - int(settings.n_steps * settings.strength)
        latents = None if not first else self._noised(start, noise, first)
        every = type(scheduler).set_timesteps

        def last_ones(n_steps: int, device: Any = None) -> None:
            every(scheduler, n_steps, device=device)
            scheduler.timesteps = scheduler.timesteps[first:]

        scheduler.set_timesteps = last_ones  # the pipeline itself knows no strength
        made = pipeline(
            prompt=[settings.prompt] * len(condition),
            image_embeds=condition,
            noise_level=settings.noise_level,
            latents=latents,
            height=settings.size_px,
            width=settings.size_px,
            num_inference_steps=settings.n_steps,
            guidance_scale=settings.guidance_scale,
            generator=noise,
            output_type="np",
        )
        return np.asarray(made.images)

    def _noised(self, start: Tensor, noise: list[Noise], first: int) -> Tensor:
        """Latents of the start with the noise of step ``first``, (m, c, h, w)."""
        import torch

        pipeline = self._pipeline
        vae, scheduler = pipeline.vae, pipeline.scheduler
        pictures = (2 * start - 1).to(self._device, self.dtype)
        clean = torch.cat([vae.encode(one[None]).latent_dist.mean for one in pictures])
        clean = clean.float() * vae.config.scaling_factor
        drawn = torch.stack([torch.randn(clean.shape[1:], generator=one) for one in noise])
        type(scheduler).set_timesteps(scheduler, self._settings.n_steps)
        step = scheduler.timesteps[first : first + 1].to(self._device)
        latents: Tensor = scheduler.add_noise(
            clean, drawn.to(clean.device), step.repeat(len(noise))
        )
        return latents.to(self.dtype)
