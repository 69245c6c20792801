"""Depth maps of any local transformers depth-estimation folder, as a block to decode.

Brain Captioning (Ferrante et al. 2023, arXiv:2305.11560) decodes the depth map of MiDaS (Ranftl et
al. 2020, arXiv:1907.01341) at 64 x 64 for ControlNet.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field

from afterimage.features.registry import ENCODERS
from afterimage.networks.depth import DepthEstimator
from afterimage.resources import model_folder
from afterimage.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Sequence


class DepthSettings(Settings):
    """A depth estimator in transformers' on-disk form."""

    kind: Literal["depth"] = "depth"
    path: str = Field(description="local folder of a transformers depth-estimation model")
    size_px: int = Field(64, ge=4, description="height and width of the map")
    batch_size: int = Field(32, ge=1, description="pictures a forward pass")


@ENCODERS.register("depth", DepthSettings)
class Depth:
    """Estimate how near everything in a picture is.

    Parameters
    ----------
    settings : DepthSettings
    device : str
        ``cpu`` or ``cuda``.
    """

    def __init__(self, settings: DepthSettings, device: str = "cpu") -> None:
        self._estimator = DepthEstimator(model_folder(settings.path), device)
        self._settings = settings

    def encode(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Return inverse depth 0..1, float32 (n, size_px, size_px), of uint8 (height, width, 3)."""
        size, step = self._settings.size_px, self._settings.batch_size
        starts = range(0, len(images), step)
        parts = [self._estimator.estimate(images[i : i + step], size) for i in starts]
        return np.concatenate(parts)
