"""Image embeddings of any local transformers vision folder.

Learning Transferable Visual Models From Natural Language Supervision (Radford et al. 2021,
arXiv:2103.00020) for CLIP; DINOv2 (Oquab et al. 2023, arXiv:2304.07193) and others through the same
code: the folder's own image processor prepares the picture, the folder's own class embeds it.

Sigmoid Loss for Language Image Pre-Training (Zhai et al. 2023, arXiv:2303.15343) and SigLIP 2
(Tschannen et al. 2025, arXiv:2502.14786) likewise, where the picture is a square of one size.

What differs: the features may come from any hidden layer, and may be averaged over views of the
picture (NeuroBridge, arXiv:2511.06836, where this gains most): what a brain tells of a picture
hardly depends on its exact crop, so neither should its target. Unlike there, the views are seeded,
and the same for every picture.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from afterimage.errors import ConfigError
from afterimage.features.registry import ENCODERS
from afterimage.resources import model_folder
from afterimage.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch


class VisionSettings(Settings):
    """An image encoder in transformers' on-disk form."""

    kind: Literal["vision"] = "vision"
    path: str = Field(
        "tiny/clip", description="local folder of a transformers vision model (CLIP, DINOv2, ...)"
    )
    output: Literal["embedding", "tokens"] = Field(
        "embedding", description="one vector an image, or all tokens of a layer"
    )
    layer: Literal["projection", "last"] | int = Field(
        "projection",
        description="what the features are made of: the model's own output (projected, or pooled; "
        "of tokens: every one normalised and projected as the class token is), its last tokens, or "
        "those of a hidden layer (0 the input, -1 the last); intermediate layers are often easier "
        "to decode",
    )
    class_token: bool = Field(
        True, description="output tokens: keep the class token (and registers) before the patches"
    )
    pooling: Literal["cls", "mean"] = Field(
        "mean", description="how tokens of a layer become one vector: the class token, or the mean"
    )
    n_augmentations: int = Field(
        0, ge=0, description="random views (crop, flip, blur) averaged with the picture itself"
    )
    normalise: Literal["none", "unit", "pooled"] = Field(
        "none",
        description="leave feature vectors as they are, scale every one to unit norm, or divide "
        "all tokens of a picture by the norm of its class token (as Versatile Diffusion does)",
    )
    random_state: int = Field(0, ge=0, description="seed of the views, the same for all pictures")
    batch_size: int = Field(64, ge=1, description="pictures a forward pass")

    @model_validator(mode="after")
    def _views_have_no_common_tokens(self) -> Self:
        if self.output == "tokens" and self.n_augmentations:
            raise ValueError(
                "n_augmentations needs output: embedding, for a token of another view shows "
                "another place"
            )
        if self.normalise == "pooled" and not (self.output == "tokens" and self.class_token):
            raise ValueError("normalise: pooled needs output: tokens with class_token: true")
        return self


@ENCODERS.register("vision", VisionSettings)
class Vision:
    """Embed pictures with a transformers vision model.

    For CLIP-like models the embedding is the projected ``image_embeds``; for others the pooled
    output, or the mean over tokens where the model pools nothing. With a layer in the settings it
    is the pooled tokens of that layer.

    Parameters
    ----------
    settings : VisionSettings
    device : str
        ``cpu`` or ``cuda``.
    """

    def __init__(self, settings: VisionSettings, device: str = "cpu") -> None:
        import torch
        from safetensors import SafetensorError
        from transformers import (
            AutoConfig,
            AutoImageProcessor,
            AutoModel,
            CLIPVisionModelWithProjection,
            SiglipVisionModel,
        )

        folder = model_folder(settings.path)
        try:
            kind = AutoConfig.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            ).model_type
            # folders of both towers: the one for images is taken out
            loader = AutoModel
            if kind.startswith("clip"):
                loader = CLIPVisionModelWithProjection
            elif kind in ("siglip", "siglip_vision_model"):
                loader = SiglipVisionModel
            elif kind.startswith("siglip2"):
                raise ValueError("SigLIP 2 with pictures of any shape (NaFlex): no fixed tokens")
            model = loader.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False, use_safetensors=True,
                dtype=torch.float32,
            )  # fmt: skip
            self._processor = AutoImageProcessor.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False, backend="pil"
            )
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            raise ConfigError(
                "an image encoder cannot be loaded",
                where=str(folder),
                found=str(error).splitlines()[0],
                expected="config.json, model.safetensors and preprocessor_config.json of a model "
                "for pictures of one size",
                fix="copy the folder again, or save the model and its processor with "
                "save_pretrained(folder); weights in pickle form (.bin) are not read (docs/safety.md: how to "
                "convert them)",
            ) from None
        # Models with a class token name it among their weights.
        self._has_class_token = any(
            name.endswith(("cls_token", "class_embedding")) for name, _ in model.named_parameters()
        )
        self._model = model.eval().requires_grad_(False).to(device)
        self._settings, self._device = settings, device

    def encode(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Embed pictures.

        Parameters
        ----------
        images : sequence of array (height, width, 3), uint8
            Sizes may differ.

        Returns
        -------
        array of shape (n_images, n_features) or (n_images, n_tokens, n_features), float32
        """
        batches = []
        for start in range(0, len(images), self._settings.batch_size):
            pictures = list(images[start : start + self._settings.batch_size])
            values = self._forward(pictures)
            if self._settings.n_augmentations:
                total = values.astype(np.float64)
                for number in range(self._settings.n_augmentations):
                    seed = (self._settings.random_state, number)
                    total += self._forward([random_view(picture, seed) for picture in pictures])
                values = (total / (1 + self._settings.n_augmentations)).astype(np.float32)
            batches.append(values)
        features = np.concatenate(batches)
        if self._settings.normalise != "none":
            by = features[:, :1] if self._settings.normalise == "pooled" else features
            norm = np.linalg.norm(by, axis=-1, keepdims=True)
            features = features / np.maximum(norm, np.finfo(np.float32).tiny)
        return features

    def _forward(self, pictures: Sequence[np.ndarray]) -> np.ndarray:
        """Features of pictures as they are, float32."""
        import torch

        pixels = self._processor(images=list(pictures), return_tensors="pt")["pixel_values"]
        with torch.inference_mode():
            output = self._model(pixels.to(self._device), output_hidden_states=True)
        settings = self._settings
        if settings.output == "tokens":
            values = self._tokens(output)
            if not settings.class_token and self._has_class_token:
                n_registers = getattr(self._model.config, "num_register_tokens", 0)
                values = values[:, 1 + n_registers :]
        elif settings.layer != "projection":
            values = self._pooled(self._tokens(output))
        elif getattr(output, "image_embeds", None) is not None:
            values = output.image_embeds
        elif getattr(output, "pooler_output", None) is not None:
            values = output.pooler_output
        else:
            values = output.last_hidden_state.mean(dim=1)
        return np.asarray(values.float().cpu().numpy())

    def _tokens(self, output: Any) -> torch.Tensor:
        """Tokens of the layer, (n_images, n_tokens, n_features)."""
        layer = self._settings.layer
        if layer in ("last", "projection"):
            tokens = output.last_hidden_state
            if layer == "projection" and hasattr(self._model, "visual_projection"):
                norm = self._model.vision_model.post_layernorm
                tokens = self._model.visual_projection(norm(tokens))
        else:
            hidden = output.hidden_states
            number = int(layer)
            if not -len(hidden) <= number < len(hidden):
                raise ConfigError(
                    "an image encoder has no such layer", where=str(self._settings.path),
                    found=f"layer {number}", expected=f"{-len(hidden)} to {len(hidden) - 1}",
                )  # fmt: skip
            tokens = hidden[number]
        # Convolutional models keep a map of features: each place is a token.
        return tokens.flatten(2).transpose(1, 2) if tokens.ndim == 4 else tokens

    def _pooled(self, tokens: torch.Tensor) -> torch.Tensor:
        if self._settings.pooling == "mean":
            return tokens.mean(dim=1)
        if not self._has_class_token:
            raise ConfigError(
                "an image encoder has no class token", where=str(self._settings.path),
                found="pooling: cls", expected="pooling: mean",
            )  # fmt: skip
        return tokens[:, 0]


def random_view(picture: np.ndarray, seed: int | tuple[int, ...]) -> np.ndarray:
    """Crop, perhaps mirror and perhaps blur a picture, the same way for the same seed.

    Parameters
    ----------
    picture : array (height, width, 3), uint8
    seed : int or tuple of int
        The same seed takes the same part of every picture, whatever its size.

    Returns
    -------
    array (height, width, 3), uint8
        The crop (half to all of the area) at the size of the picture.
    """
    from PIL import Image, ImageFilter

    generator = np.random.default_rng(seed)
    side = np.sqrt(generator.uniform(0.5, 1.0))
    left, top = generator.uniform(0, 1 - side, size=2)
    mirrored, blurred = generator.random(2) < 0.5
    radius = generator.uniform(0.002, 0.015)
    height, width = picture.shape[:2]
    box = (left * width, top * height, (left + side) * width, (top + side) * height)
    image = Image.fromarray(picture).resize((width, height), Image.Resampling.BICUBIC, box=box)
    if mirrored:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if blurred:
        image = image.filter(ImageFilter.GaussianBlur(radius * max(height, width)))
    return np.asarray(image)
