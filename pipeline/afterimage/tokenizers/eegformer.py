"""EEGFormer: codes of spectral patches of single channels (Chen et al. 2024, arXiv:2401.10278).

What differs: codebooks follow running averages and start from k-means after some steps without
codes, spectra are standardised bin by bin, time enters through rotary positions. No code of the
authors was found; sizes are settings.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from afterimage.tokenizers.quantiser import new_quantiser
from afterimage.tokenizers.registry import TOKENIZERS
from afterimage.tokenizers.spectral import SpectralSettings, SpectralTokenizer

if TYPE_CHECKING:
    from torch import nn


class EegformerSettings(SpectralSettings):
    """Spectral patches of single channels."""

    kind: Literal["eegformer"] = Field("eegformer", description="EEGFormer.")


@TOKENIZERS.register("eegformer", EegformerSettings)
class Eegformer(SpectralTokenizer):
    """One transformer over the spectra of a channel; a shallow decoder of spectra."""

    settings: EegformerSettings

    def new_network(self) -> nn.Module:
        """Return an untrained `afterimage.networks.time_frequency.FormerNetwork`."""
        from afterimage.networks.time_frequency import FormerNetwork

        settings = self.settings
        return FormerNetwork(
            self.new_frames(),
            new_quantiser(settings.n_code_features, settings.quantiser),
            n_features=settings.n_features,
            n_layers=settings.n_layers,
            n_code_features=settings.n_code_features,
            n_decoder_layers=settings.n_decoder_layers,
            n_heads=settings.n_heads,
            reach=settings.reach_frames,
            free_steps=settings.free_steps,
        )
