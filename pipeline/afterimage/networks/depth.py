"""Depth of pictures, by any transformers depth-estimation folder (MiDaS, DPT, Depth Anything, ...).

Towards Robust Monocular Depth Estimation (Ranftl et al. 2020, arXiv:1907.01341).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from afterimage.errors import ConfigError, InputError

if TYPE_CHECKING:
    from collections.abc import Sequence


class DepthEstimator:
    """Tell near from far.

    Parameters
    ----------
    folder : str or Path
        Image processor, ``config.json`` and safetensors weights.
    device : str
        ``cpu`` or ``cuda``.
    """

    def __init__(self, folder: str | Path, device: str = "cpu") -> None:
        import torch
        from safetensors import SafetensorError
        from transformers import AutoImageProcessor, AutoModelForDepthEstimation

        try:
            model, report = AutoModelForDepthEstimation.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False, use_safetensors=True,
                dtype=torch.float32, output_loading_info=True,
            )  # fmt: skip
            self._processor = AutoImageProcessor.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False, backend="pil"
            )
        except (OSError, ValueError, SafetensorError) as error:
            raise ConfigError(
                "a depth estimator cannot be loaded",
                where=str(folder),
                found=str(error).splitlines()[0],
                expected="config.json, model.safetensors and preprocessor_config.json",
                fix="give the folder of a depth-estimation model, such as dpt-hybrid-midas; "
                "weights in pickle form (.bin) are not read "
                "(docs/safety.md: how to convert them)",
            ) from None
        if missing := sorted(report["missing_keys"]):
            raise InputError(
                "a depth estimator lacks weights", where=str(folder),
                found=f"{len(missing)} missing, the first {missing[0]}",
                expected="all weights of its config.json", fix="copy the folder again",
            )  # fmt: skip
        self._model = model.eval().requires_grad_(False).to(device)
        self._device = device

    def estimate(self, images: Sequence[np.ndarray], size_px: int) -> np.ndarray:
        """Return inverse depth, 0 the farthest and 1 the nearest of each picture.

        Parameters
        ----------
        images : sequence of array (height, width, 3), uint8
        size_px : int
            Side of the square maps returned.

        Returns
        -------
        ndarray of float32, (n, size_px, size_px)
            0 everywhere where all is equally far.
        """
        import torch

        pixels = self._processor(images=list(images), return_tensors="pt")["pixel_values"]
        with torch.inference_mode():
            depth = self._model(pixels.to(self._device)).predicted_depth.float()  # (n, h, w)
            depth = torch.nn.functional.interpolate(
                depth[:, None], (size_px, size_px), mode="bilinear", antialias=True
            )[:, 0]
        return unit_range(depth.cpu().numpy())


def unit_range(depth: np.ndarray) -> np.ndarray:
    """Stretch each map (n, ...) to 0..1; a constant map becomes 0."""
    flat = depth.reshape(len(depth), -1)
    low, reach = flat.min(1, keepdims=True), np.ptp(flat, axis=1, keepdims=True)
    stretched = (flat - low) / np.where(reach > 0, reach, 1)
    return stretched.reshape(depth.shape).astype(np.float32)
