"""TFM-Tokenizer: codes of time-frequency motifs of single channels (arXiv:2502.16060).

Pradeepkumar et al. 2025. What differs: what is hidden of time and frequency is hidden from the path
of the raw frame too, each example has a mask of its own, the commitment loss moves the encoder (in
the published code its gradient and the codebook's cancel), codes start from k-means after some
steps without them, spectra are standardised bin by bin, attention is not linear, the learning rate
falls. ``mask_time_path: false`` and ``shared_masks: true`` are the published masks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from afterimage.errors import ConfigError
from afterimage.tokenizers.quantiser import new_quantiser
from afterimage.tokenizers.registry import TOKENIZERS
from afterimage.tokenizers.spectral import SpectralSettings, SpectralTokenizer

if TYPE_CHECKING:
    from torch import nn


class TfmSettings(SpectralSettings):
    """Time-frequency motifs of single channels."""

    kind: Literal["tfm"] = Field("tfm", description="TFM-Tokenizer.")
    band_hz: float = Field(10.0, gt=0, description="Width of a band seen or hidden as one, Hz.")
    span_frames: int = Field(4, ge=1, description="Neighbouring frames seen or hidden as one.")
    mask_time_path: bool = Field(
        default=True,
        description="Hide from the path of raw frames what is hidden of their spectra; false: "
        "published, where the path sees all that is to be filled in.",
    )
    shared_masks: bool = Field(
        default=False, description="One mask for all examples of a step, as published."
    )


@TOKENIZERS.register("tfm", TfmSettings)
class Tfm(SpectralTokenizer):
    """Dual path over frames of one channel; see `afterimage.networks.time_frequency`."""

    settings: TfmSettings

    @property
    def n_bins(self) -> int:
        """Bins of a spectrum, whole bands."""
        settings = self.settings
        whole = super().n_bins
        band = self.band_bins
        if band < 1 or whole < 2 * band:
            raise ConfigError(
                "spectra of a frame do not hold two bands",
                found=f"{whole} bins of {1 / settings.frame_s:g} Hz, bands of {settings.band_hz:g} Hz",
                expected="a band of one bin or more, and two bands below half the rate",
                fix="set band_hz to one bin or more, and to a quarter of sfreq_hz or less",
            )
        return whole - whole % band

    @property
    def band_bins(self) -> int:
        """Bins of a band."""
        return round(self.settings.band_hz * self.settings.frame_s)

    def new_network(self) -> nn.Module:
        """Return an untrained `afterimage.networks.time_frequency.MotifNetwork`."""
        from afterimage.networks.time_frequency import MotifNetwork

        settings = self.settings
        return MotifNetwork(
            self.new_frames(),
            new_quantiser(settings.n_code_features, settings.quantiser),
            n_features=settings.n_features,
            n_layers=settings.n_layers,
            n_code_features=settings.n_code_features,
            n_decoder_layers=settings.n_decoder_layers,
            n_heads=settings.n_heads,
            reach=settings.reach_frames,
            free_steps=settings.free_steps,
            band=self.band_bins,
            span=settings.span_frames,
            mask_time_path=settings.mask_time_path,
            shared_masks=settings.shared_masks,
        )
