"""Image embeddings of any local transformers vision folder.

Learning Transferable Visual Models From Natural Language Supervision (Radford et al. 2021,
arXiv:2103.00020) for CLIP; DINOv2 (Oquab et al. 2023, arXiv:2304.07193) and others through the same
code: the folder's own image processor prepares the picture, the folder's own class embeds it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field

from afterimage.errors import ConfigError
from afterimage.features.registry import ENCODERS
from afterimage.resources import model_folder
from afterimage.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Sequence


class VisionSettings(Settings):
    """An image encoder in transformers' on-disk form."""

    kind: Literal["vision"] = "vision"
    path: str = Field(
        "tiny/clip", description="local folder of a transformers vision model (CLIP, DINOv2, ...)"
    )
    output: Literal["embedding", "tokens"] = Field(
        "embedding", description="one vector an image, or all tokens of a layer"
    )
    layer: int = Field(
        -1, description="hidden layer that tokens are taken from; -1 is the last, 0 the input"
    )
    batch_size: int = Field(64, ge=1, description="pictures a forward pass")


@ENCODERS.register("vision", VisionSettings)
class Vision:
    """Embed pictures with a transformers vision model.

    For CLIP-like models the embedding is the projected ``image_embeds``; for others the pooled
    output, or the mean over tokens where the model pools nothing.

    Parameters
    ----------
    settings : VisionSettings
    device : str
        ``cpu`` or ``cuda``.
    """

    def __init__(self, settings: VisionSettings, device: str = "cpu") -> None:
        import torch
        from transformers import (
            AutoConfig,
            AutoImageProcessor,
            AutoModel,
            CLIPVisionModelWithProjection,
        )

        folder = model_folder(settings.path)
        try:
            kind = AutoConfig.from_pretrained(folder, local_files_only=True).model_type
            loader = CLIPVisionModelWithProjection if kind.startswith("clip") else AutoModel
            model = loader.from_pretrained(
                folder, local_files_only=True, use_safetensors=True, dtype=torch.float32
            )
            self._processor = AutoImageProcessor.from_pretrained(
                folder, local_files_only=True, backend="pil"
            )
        except (OSError, ValueError) as error:
            raise ConfigError(
                "an image encoder cannot be loaded",
                where=str(folder),
                found=str(error).splitlines()[0],
                expected="config.json, model.safetensors and preprocessor_config.json",
                fix="save the model with save_pretrained(folder, safe_serialization=True)",
            ) from None
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
        import torch

        batches = []
        for start in range(0, len(images), self._settings.batch_size):
            pictures = list(images[start : start + self._settings.batch_size])
            pixels = self._processor(images=pictures, return_tensors="pt")["pixel_values"]
            with torch.inference_mode():
                output = self._model(pixels.to(self._device), output_hidden_states=True)
            if self._settings.output == "tokens":
                values = output.hidden_states[self._settings.layer]
            elif getattr(output, "image_embeds", None) is not None:
                values = output.image_embeds
            elif getattr(output, "pooler_output", None) is not None:
                values = output.pooler_output
            else:
                values = output.last_hidden_state.mean(dim=1)
            batches.append(values.float().cpu().numpy())
        return np.concatenate(batches)
