"""SDXL guided by decoded CLIP features through an IP-Adapter (Ye et al. 2023, arXiv:2308.06721).

Stable Diffusion XL (Podell et al. 2023, arXiv:2307.01952), with cross-attention of its own for image
features: the embedding of CLIP ViT-H/14 or ViT-bigG/14, or, of the adapters "plus", the 257 tokens
of its last layer but one. What differs: the features come from the brain, and the start is the
low-level picture.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from afterimage.errors import ConfigError
from afterimage.reconstruction.generator import Generator, GeneratorSettings
from afterimage.reconstruction.pipeline_folder import Part, read_header, read_part, read_weights
from afterimage.reconstruction.registry import RECONSTRUCTIONS
from afterimage.resources import model_folder

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Generator as Noise
    from torch import Tensor

    from afterimage.reconstruction.registry import Material

_TEXT = ("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2")


class SdxlIpAdapterSettings(GeneratorSettings):
    """Paint with SDXL under image features."""

    kind: Literal["sdxl_ip_adapter"] = "sdxl_ip_adapter"
    adapter: str = Field(description="local folder of the IP-Adapter's weights")
    adapter_file: str = Field(
        default="ip-adapter_sdxl_vit-h.safetensors", description="file of weights in that folder"
    )
    adapter_scale: float = Field(
        default=1.0, ge=0, description="weight of image features beside the text"
    )
    prompt: str | None = Field(
        default="",
        description="text beside the features; null: none, and text encoders are not needed",
    )
    size_px: int = Field(default=1024, ge=16, description="square that the generator paints")
    batch_size: int = Field(default=4, ge=1, description="images made at once; halved when short")


@RECONSTRUCTIONS.register("sdxl_ip_adapter", SdxlIpAdapterSettings)
class SdxlIpAdapter(Generator):
    """Reconstruct pictures with SDXL and an IP-Adapter."""

    classes: ClassVar[tuple[str, ...]] = (
        "StableDiffusionXLPipeline",
        "StableDiffusionXLImg2ImgPipeline",
    )
    parts: ClassVar[tuple[str, ...]] = ("unet", "vae")
    slices_attention: ClassVar[bool] = False

    def _extra_parts(self) -> dict[str, Part]:
        self._adapter = model_folder(self._settings.adapter) / self._settings.adapter_file
        if self._adapter.suffix != ".safetensors":
            raise ConfigError(
                "an adapter's weights are not safetensors", where=str(self._adapter.parent),
                found=self._adapter.name, expected="a file that ends in .safetensors",
                fix="the adapters are published in both forms; pickles are not read",
            )  # fmt: skip
        header = read_header(self._adapter)
        # names of the two kinds: one vector into a few tokens, or tokens through a resampler
        whole, tokens = (header.get(f"image_proj.{k}.weight") for k in ("proj", "proj_in"))
        if not (whole or tokens) or not any(name.startswith("ip_adapter.") for name in header):
            raise ConfigError(
                "a file of weights is no IP-Adapter", where=str(self._adapter),
                found=", ".join(sorted({name.split(".")[0] for name in header})),
                expected="image_proj.proj or image_proj.proj_in, and ip_adapter",
            )  # fmt: skip
        self._takes_tokens = whole is None
        self._width = int((whole or tokens or {})["shape"][1])
        found = {"adapter": read_weights([self._adapter])}
        if self._settings.prompt is not None:  # loaded before all else, and dropped
            for part in ("text_encoder", "text_encoder_2"):
                read_part(self._folder / part, self._settings.variant)
        return found

    def _condition_shape(self) -> tuple[int | None, ...]:
        return (None, self._width) if self._takes_tokens else (self._width,)

    def _load(self) -> Any:
        from diffusers import StableDiffusionXLImg2ImgPipeline as Pipeline

        self._text = None
        if self._settings.prompt is not None:
            texts = self._read(Pipeline, unet=None, vae=None)
            self._text = texts.encode_prompt(
                prompt=self._settings.prompt, device="cpu", do_classifier_free_guidance=True
            )
            del texts

        pipeline = self._read(Pipeline, **dict.fromkeys(_TEXT))
        pipeline.load_ip_adapter(
            str(self._adapter.parent),
            subfolder="",
            weight_name=self._adapter.name,
            image_encoder_folder=None,
            local_files_only=True,
        )
        pipeline.set_ip_adapter_scale(self._settings.adapter_scale)
        return self._place(pipeline)

    def _unconditional(self, material: Material) -> Tensor | None:
        # one vector: zeros; tokens: those of a picture of the mean colour, as the adapter learnt
        return self._embedding_of_nothing(material) if self._takes_tokens else None

    def _paint(
        self, condition: Tensor, nothing: Tensor | None, start: Tensor, noise: list[Noise]
    ) -> NDArray[np.float32]:
        import torch

        settings, n = self._settings, len(condition)
        without = torch.zeros_like(condition) if nothing is None else nothing.expand_as(condition)
        features = torch.cat([without, condition])
        if settings.guidance_scale <= 1:
            features = condition
        # one picture each; the pipeline itself would give every one the features of all
        one_each = [features[:, None]]
        self._pipeline.prepare_ip_adapter_image_embeds = lambda *_: one_each
        made = self._pipeline(
            **self._texts(n),
            ip_adapter_image_embeds=one_each,
            image=start.expand(n, -1, -1, -1),
            strength=settings.strength,
            num_inference_steps=settings.n_steps,
            guidance_scale=settings.guidance_scale,
            generator=noise,
            output_type="np",
        )
        return np.asarray(made.images)

    def _texts(self, n: int) -> dict[str, Tensor]:
        """Text features of n pictures: of the prompt, and of none."""
        import torch

        names = ("prompt_embeds", "negative_prompt_embeds")
        pooled = ("pooled_prompt_embeds", "negative_pooled_prompt_embeds")
        if self._text is not None:
            values = dict(zip(names + pooled, self._text, strict=True))
        else:
            config = self._pipeline.unet.config
            tokens = torch.zeros(1, 77, config.cross_attention_dim)
            n_ids = 6 * config.addition_time_embed_dim  # sizes and crops stand beside the text
            width = config.projection_class_embeddings_input_dim - n_ids
            values = dict.fromkeys(names, tokens) | dict.fromkeys(pooled, torch.zeros(1, width))
        return {
            key: value.to(self._device, self.dtype).expand(n, *value.shape[1:])
            for key, value in values.items()
        }
