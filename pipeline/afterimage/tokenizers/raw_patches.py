"""Vector-quantised patches of single channels (van den Oord et al. 2017, arXiv:1711.00937).

What differs: the encoder and decoder are small perceptrons of one patch, and the codebooks follow
running averages. It is the yardstick of the other tokenizers: it knows nothing of sensors,
neighbours or spectra.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from afterimage.tokenizers.quantiser import new_quantiser
from afterimage.tokenizers.registry import TOKENIZERS
from afterimage.tokenizers.signals import Signal
from afterimage.tokenizers.tokenizer import SignalTokenizer, TokenizerSettings

if TYPE_CHECKING:
    from torch import Tensor, nn


class RawPatchesSettings(TokenizerSettings):
    """Plain patches of single channels, the yardstick."""

    kind: Literal["raw_patches"] = Field("raw_patches", description="Patches of raw signal.")
    patch_s: float = Field(0.1, gt=0, description="Length of a patch, s.")
    n_features: int = Field(64, ge=2, description="Features of a patch, and of its code.")
    n_hidden: int = Field(128, ge=2, description="Units of the hidden layers.")
    channels_per_window: int = Field(
        8, ge=1, description="Channels drawn of a window in training, at most."
    )


@TOKENIZERS.register("raw_patches", RawPatchesSettings)
class RawPatches(SignalTokenizer):
    """One token a patch of one channel."""

    settings: RawPatchesSettings

    @property
    def step_samples(self) -> int:
        """Samples of a patch."""
        return max(2, round(self.settings.patch_s * self.settings.sfreq_hz))

    def new_network(self) -> nn.Module:
        """Return an untrained network of patches (n, patch_samples)."""
        from torch import nn
        from torch.nn.functional import mse_loss

        settings, n_samples = self.settings, self.step_samples

        class PatchQuantiser(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.encoder = nn.Sequential(
                    nn.Linear(n_samples, settings.n_hidden), nn.GELU(),
                    nn.Linear(settings.n_hidden, settings.n_features),
                )  # fmt: skip
                self.quantiser = new_quantiser(settings.n_features, settings.quantiser)
                self.decoder = nn.Sequential(
                    nn.Linear(settings.n_features, settings.n_hidden), nn.GELU(),
                    nn.Linear(settings.n_hidden, n_samples),
                )  # fmt: skip

            def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
                patches = batch["patches"]
                quantised, _, commitment = self.quantiser(self.encoder(patches))
                error = mse_loss(self.decoder(quantised).float(), patches)
                return {"loss": error + commitment, "error": error, "commitment": commitment}

            def encode(self, patches: Tensor) -> Tensor:
                codes: Tensor = self.quantiser(self.encoder(patches))[1]
                return codes

            def decode(self, codes: Tensor) -> Tensor:
                patches: Tensor = self.decoder(self.quantiser.lookup(codes))
                return patches

        return PatchQuantiser()

    def batch_of(
        self, windows: Sequence[Signal], generator: np.random.Generator
    ) -> dict[str, NDArray[Any]]:
        """Return the patches of some channels of each window, (n, patch_samples)."""
        parts = []
        for window in windows:
            n_drawn = min(self.settings.channels_per_window, window.n_channels)
            drawn = generator.choice(window.n_channels, n_drawn, replace=False)
            parts.append(window.values[drawn].reshape(-1, self.step_samples))
        return {"patches": np.concatenate(parts)}

    def codes_of(self, windows: Sequence[Signal]) -> Tensor:
        """Return the codes, (n_windows, n_channels, n_patches, n_stages)."""
        import torch

        values = torch.from_numpy(np.stack([window.values for window in windows]))
        codes: Tensor = self.network_.encode(values.unflatten(-1, (-1, self.step_samples)))
        return codes

    def signals_of(self, codes: Tensor, like: Signal) -> Tensor:
        """Return the signals, (n_windows, n_channels, n_samples)."""
        patches: Tensor = self.network_.decode(codes)  # (n_windows, n_channels, n_patches, patch)
        return patches.flatten(-2)
