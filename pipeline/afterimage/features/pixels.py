"""Pixels as features (Miyawaki et al. 2008, doi:10.1016/j.neuron.2008.11.004).

The image itself, resized. What a decoder predicts here is a picture without any further model: the
baseline of reconstruction.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field

from afterimage.errors import InputError
from afterimage.features.registry import ENCODERS
from afterimage.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Sequence


def resize_images(images: Sequence[np.ndarray], size_px: int) -> np.ndarray:
    """Resize RGB images to squares with antialiasing (triangle filter).

    Parameters
    ----------
    images : sequence of uint8, each (height, width, 3)
    size_px : int
        Height and width of the result.

    Returns
    -------
    float32, (n, size_px, size_px, 3), 0 to 1
    """
    from PIL import Image

    resized = np.empty((len(images), size_px, size_px, 3), np.float32)
    for row, image in enumerate(images):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise InputError(
                "an image is not 8-bit RGB",
                where=f"image {row} of the list",
                found=f"{image.dtype} {image.shape}",
                expected="uint8 (height, width, 3)",
                fix="convert the stimulus to RGB before encoding",
            )
        if image.shape[:2] != (size_px, size_px):
            picture = Image.fromarray(image)
            image = np.asarray(picture.resize((size_px, size_px), Image.Resampling.BILINEAR))
        resized[row] = image
    return resized / np.float32(255)


class PixelsSettings(Settings):
    """Settings of the pixel block."""

    kind: Literal["pixels"] = Field("pixels", description="Resized RGB pixels.")
    size_px: int = Field(32, ge=4, le=1024, description="Height and width of the block in pixels.")


@ENCODERS.register("pixels", PixelsSettings)
class PixelsEncoder:
    """RGB values between 0 and 1 of the resized image."""

    def __init__(self, settings: PixelsSettings, device: str = "cpu") -> None:
        self.settings = settings

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one stimulus' features: (size_px, size_px, 3)."""
        return (self.settings.size_px, self.settings.size_px, 3)

    def encode(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Return float32 (n, size_px, size_px, 3) for a list of uint8 (height, width, 3)."""
        return resize_images(images, self.settings.size_px)
