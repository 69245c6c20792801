"""FLUX Redux from decoded SigLIP tokens (Black Forest Labs 2024, FLUX.1 Tools).

Rectified flow (Liu et al. 2022, arXiv:2209.03003; Esser et al. 2024, arXiv:2403.03206) in a
transformer that reads image tokens as if they were text: Redux projects the tokens of SigLIP so400m
(729 x 1152) into the space of its text tokens. What differs: the tokens come from the brain, text
tokens are zero, as Redux itself has it without text encoders, and the start is the low-level picture.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from afterimage.reconstruction.generator import Generator, GeneratorSettings
from afterimage.reconstruction.pipeline_folder import Part, check_pipeline
from afterimage.reconstruction.registry import RECONSTRUCTIONS
from afterimage.resources import model_folder

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Generator as Noise
    from torch import Tensor

N_TEXT_TOKENS = 512  # of T5, all zero
_TEXT = ("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2")


class FluxReduxSettings(GeneratorSettings):
    """Paint with FLUX.1 under SigLIP tokens."""

    kind: Literal["flux_redux"] = "flux_redux"
    redux: str = Field(description="local folder of FLUX.1 Redux, with image_embedder/")
    embedding: str = Field(default="siglip", description="the block of tokens that guides it")
    guidance_scale: float = Field(default=2.5, ge=0, description="guidance, which FLUX has learnt")
    n_steps: int = Field(default=28, ge=1, description="steps of the sampler at strength 1")
    size_px: int = Field(default=1024, ge=16, description="square that the generator paints")
    batch_size: int = Field(default=2, ge=1, description="images made at once; halved when short")


@RECONSTRUCTIONS.register("flux_redux", FluxReduxSettings)
class FluxRedux(Generator):
    """Reconstruct pictures with FLUX.1 and the image embedder of Redux."""

    classes: ClassVar[tuple[str, ...]] = ("FluxPipeline", "FluxImg2ImgPipeline")
    parts: ClassVar[tuple[str, ...]] = ("transformer", "vae")

    def _extra_parts(self) -> dict[str, Part]:
        self._redux = model_folder(self._settings.redux)
        found = check_pipeline(
            self._redux, ["FluxPriorReduxPipeline"], ["image_embedder"], self._settings.variant
        )
        return {"redux": found["image_embedder"]}

    def _condition_shape(self) -> tuple[int | None, ...]:
        path = self._redux / "image_embedder" / "config.json"
        config = json.loads(path.read_text(encoding="utf-8"))
        return (None, int(config.get("redux_dim", 1152)))

    def _load(self) -> Any:
        from diffusers import FluxImg2ImgPipeline
        from diffusers.pipelines.flux.modeling_flux import ReduxImageEncoder

        self._embedder = self._read(ReduxImageEncoder, self._redux / "image_embedder")
        self._embedder.to(self._device)
        return self._place(self._read(FluxImg2ImgPipeline, **dict.fromkeys(_TEXT)))

    def _paint(
        self, condition: Tensor, nothing: Tensor | None, start: Tensor, noise: list[Noise]
    ) -> NDArray[np.float32]:
        import torch

        settings, n = self._settings, len(condition)
        config = self._pipeline.transformer.config
        tokens = self._embedder(condition).image_embeds
        text = tokens.new_zeros(n, N_TEXT_TOKENS, config.joint_attention_dim)
        made = self._pipeline(
            prompt_embeds=torch.cat([text, tokens], dim=1),
            pooled_prompt_embeds=tokens.new_zeros(n, config.pooled_projection_dim),
            image=start.expand(n, -1, -1, -1),
            height=settings.size_px,
            width=settings.size_px,
            strength=settings.strength,
            num_inference_steps=settings.n_steps,
            guidance_scale=settings.guidance_scale,
            generator=noise,
            output_type="np",
        )
        return np.asarray(made.images)
