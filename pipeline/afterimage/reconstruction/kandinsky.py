"""Kandinsky 2.2 from a decoded CLIP embedding (Razzhigaev et al. 2023, arXiv:2310.03502).

The decoder of the pipeline, which takes the image embedding of CLIP ViT-bigG/14 (1280 values) where
the published one gets it from a text by a prior. What differs: the embedding comes from the brain,
and the start is the low-level picture.
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

    from afterimage.reconstruction.registry import Material


class KandinskySettings(GeneratorSettings):
    """Paint with Kandinsky 2.2 under an image embedding."""

    kind: Literal["kandinsky"] = "kandinsky"
    guidance_scale: float = Field(default=4.0, ge=0, description="weight of the embedding")


@RECONSTRUCTIONS.register("kandinsky", KandinskySettings)
class Kandinsky(Generator):
    """Reconstruct pictures with the decoder of Kandinsky 2.2."""

    classes: ClassVar[tuple[str, ...]] = ("KandinskyV22Pipeline", "KandinskyV22Img2ImgPipeline")
    parts: ClassVar[tuple[str, ...]] = ("unet", "movq")

    def _condition_shape(self) -> tuple[int | None, ...]:
        config = json.loads((self._folder / "unet" / "config.json").read_text(encoding="utf-8"))
        return (int(config["encoder_hid_dim"]),)

    def _load(self) -> Any:
        from diffusers import KandinskyV22Img2ImgPipeline

        return self._place(self._read(KandinskyV22Img2ImgPipeline))

    def _unconditional(self, material: Material) -> Tensor:
        return self._embedding_of_nothing(material)

    def _paint(
        self, condition: Tensor, nothing: Tensor | None, start: Tensor, noise: list[Noise]
    ) -> NDArray[np.float32]:
        settings = self._settings
        assert nothing is not None  # noqa: S101 -- see _unconditional
        made = self._pipeline(
            image_embeds=condition,
            negative_image_embeds=nothing.expand_as(condition),
            image=start.expand(len(condition), -1, -1, -1),
            height=settings.size_px,
            width=settings.size_px,
            strength=settings.strength,
            num_inference_steps=settings.n_steps,
            guidance_scale=settings.guidance_scale,
            generator=noise,
            output_type="np",
        )
        return np.asarray(made.images)
