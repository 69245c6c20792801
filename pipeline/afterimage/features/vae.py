"""Latents of any local diffusers autoencoder folder.

High-Resolution Image Synthesis with Latent Diffusion Models (Rombach et al. 2022, arXiv:2112.10752):
the posterior mean of the autoencoder, standardised as its generator expects it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field

from afterimage.features.registry import ENCODERS
from afterimage.networks.autoencoder import encode, load_autoencoder
from afterimage.resources import model_folder
from afterimage.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Sequence


class VaeSettings(Settings):
    """An autoencoder in diffusers' on-disk form."""

    kind: Literal["vae"] = "vae"
    path: str = Field(
        "tiny/generator", description="local folder of a diffusers autoencoder, or one with vae/"
    )
    size_px: int = Field(64, ge=8, description="pictures are resized to this square first")
    batch_size: int = Field(32, ge=1, description="pictures a forward pass")


@ENCODERS.register("vae", VaeSettings)
class Vae:
    """Encode pictures to the latents of an autoencoder.

    Parameters
    ----------
    settings : VaeSettings
    device : str
        ``cpu`` or ``cuda``.
    """

    def __init__(self, settings: VaeSettings, device: str = "cpu") -> None:
        self._vae = load_autoencoder(model_folder(settings.path))
        self._settings, self._device = settings, device

    def encode(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Encode pictures.

        Parameters
        ----------
        images : sequence of array (height, width, 3), uint8
            Sizes may differ; each is resized to a square (bilinear, antialiased).

        Returns
        -------
        array of shape (n_images, channels, height, width), float32
            Standardised latents.
        """
        from PIL import Image

        size = self._settings.size_px
        pixels = np.empty((len(images), size, size, 3), dtype=np.float32)
        for index, image in enumerate(images):
            picture = Image.fromarray(image)
            if picture.size != (size, size):
                picture = picture.resize((size, size), Image.Resampling.BILINEAR)
            pixels[index] = np.asarray(picture, dtype=np.float32) / 255.0
        return encode(self._vae, pixels, device=self._device, batch=self._settings.batch_size)
