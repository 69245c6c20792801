"""Image tokens of GIT, as its text decoder reads them (Wang et al. 2022, arXiv:2205.14100).

Brain Captioning (Ferrante et al. 2023, arXiv:2305.11560) regresses the image tokens of GIT and lets
its text decoder write the caption.

What differs: the block is taken after the visual projection and its layer norm, the tensor that the
text decoder really reads, and neighbouring patches may be averaged, since 257 tokens of 1024 values
are 263,168 targets.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field

from afterimage.errors import ConfigError
from afterimage.features.registry import ENCODERS
from afterimage.networks.git import image_tokens, load_git, pool_tokens
from afterimage.resources import model_folder
from afterimage.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Sequence


class GitSettings(Settings):
    """A captioner in transformers' on-disk form."""

    kind: Literal["git"] = "git"
    path: str = Field("tiny/git", description="local folder of a transformers GIT model")
    pool: int = Field(
        1, ge=1, description="side, in patches, of squares averaged to one token; 1 keeps all"
    )
    batch_size: int = Field(64, ge=1, description="pictures a forward pass")


@ENCODERS.register("git", GitSettings)
class Git:
    """Turn pictures into the tokens from which GIT writes its caption.

    Parameters
    ----------
    settings : GitSettings
    device : str
        ``cpu`` or ``cuda``.
    """

    def __init__(self, settings: GitSettings, device: str = "cpu") -> None:
        from transformers import AutoImageProcessor

        folder = model_folder(settings.path)
        self._model = load_git(folder).to(device)
        try:
            self._processor = AutoImageProcessor.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False, backend="pil"
            )
        except (OSError, ValueError) as error:
            raise ConfigError(
                "a captioner has no image processor",
                where=str(folder),
                found=str(error).splitlines()[0],
                expected="preprocessor_config.json beside the weights",
                fix="copy the folder again",
            ) from None
        self._settings, self._device = settings, device

    def encode(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Encode pictures.

        Parameters
        ----------
        images : sequence of array (height, width, 3), uint8
            Sizes may differ.

        Returns
        -------
        array of shape (n_images, n_tokens, n_features), float32
            The class token first, then patches row by row.
        """
        import torch

        batches = []
        for start in range(0, len(images), self._settings.batch_size):
            part = list(images[start : start + self._settings.batch_size])
            pixels = self._processor(images=part, return_tensors="pt")["pixel_values"]
            with torch.inference_mode():
                tokens = image_tokens(self._model, pixels.to(self._device)).float().cpu().numpy()
            batches.append(pool_tokens(tokens, self._settings.pool))
        return np.concatenate(batches)
