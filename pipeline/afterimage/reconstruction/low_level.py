"""Low-level reconstruction: autoencoder latents predicted linearly, decoded.

High-resolution image reconstruction with latent diffusion models from human brain activity
(Takagi and Nishimoto 2023, doi:10.1109/CVPR52729.2023.01389): their image ``X_z``, decoded without
any diffusion.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
from pydantic import Field

from afterimage.networks.autoencoder import decode, load_autoencoder
from afterimage.reconstruction.registry import RECONSTRUCTIONS, Material, Result
from afterimage.resources import model_folder
from afterimage.settings import Settings


class LowLevelSettings(Settings):
    """Decode the predicted latents."""

    kind: Literal["low_level"] = "low_level"
    generator: str = Field(
        "tiny/generator", description="diffusers folder whose autoencoder made the latents"
    )
    latents: str = Field("vae", description="the block of predicted latents")
    batch_size: int = Field(32, ge=1, description="pictures decoded at once")


@RECONSTRUCTIONS.register("low_level", LowLevelSettings)
class LowLevel:
    """Decode predicted latents into pictures.

    Parameters
    ----------
    settings : LowLevelSettings
    device : str
    """

    def __init__(self, settings: LowLevelSettings, device: str = "cpu") -> None:
        self._vae = load_autoencoder(model_folder(settings.generator))
        self._settings, self._device = settings, device

    def reconstruct(self, predicted: Mapping[str, np.ndarray], material: Material) -> Result:
        """Return the decoded pictures."""
        latents = predicted[self._settings.latents]
        latents = latents.reshape(-1, *material.shapes[self._settings.latents])
        pictures = decode(self._vae, latents, device=self._device, batch=self._settings.batch_size)
        images = np.rint(pictures * 255.0).astype(np.uint8)
        return list(images), [{} for _ in images]
