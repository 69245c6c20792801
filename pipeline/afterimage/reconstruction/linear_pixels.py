"""The linear baseline: pixels predicted from responses, shown as they are.

Linear reconstruction of perceived images from human brain activity (Schoenmakers et al. 2013,
doi:10.1016/j.neuroimage.2013.07.043): no prior beyond the training images, no generator.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
from pydantic import Field

from afterimage.reconstruction.registry import RECONSTRUCTIONS, Material, Result
from afterimage.settings import Settings


class LinearPixelsSettings(Settings):
    """Show the predicted pixels."""

    kind: Literal["linear_pixels"] = "linear_pixels"
    pixels: str = Field("pixels", description="the block of predicted pixels")


@RECONSTRUCTIONS.register("linear_pixels", LinearPixelsSettings)
class LinearPixels:
    """Clip predicted pixels to 0..1 and show them.

    Parameters
    ----------
    settings : LinearPixelsSettings
    device : str
        Not used: there is nothing to compute.
    """

    def __init__(self, settings: LinearPixelsSettings, device: str = "cpu") -> None:
        self._settings, self._device = settings, device

    def reconstruct(self, predicted: Mapping[str, np.ndarray], material: Material) -> Result:
        """Return the predicted pixels as pictures."""
        shape = material.shapes[self._settings.pixels]
        pixels = predicted[self._settings.pixels].reshape(-1, *shape)
        images = np.rint(np.clip(pixels, 0.0, 1.0) * 255.0).astype(np.uint8)
        return list(images), [{} for _ in images]
