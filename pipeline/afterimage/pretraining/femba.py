"""FEMBA (Tegon et al. 2025, arXiv:2502.06438): bidirectional state spaces fill in hidden rectangles.

Rectangles of channels by segments are zeroed; smooth L1 loss of what is hidden alone. What differs:
each example has rectangles of its own; a learned vector says what is hidden, since 0 is a value like
any other; there is no table of positions, so that any length is taken, at a cost linear in it; each
patch is read out by one linear map instead of large convolutions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from afterimage.pretraining.masked_model import MaskedModel, MaskedSettings
from afterimage.pretraining.registry import MASKED_MODELS
from afterimage.training.masks import MaskSettings

if TYPE_CHECKING:
    from torch import nn


class FEMBASettings(MaskedSettings):
    """State spaces over segments of all channels, of the published base size.

    Published sizes as (n_layers, n_features): tiny (2, 35), base (12, 35), large (4, 79), huge
    (20, 79), for 22 channels at 256 Hz.
    """

    kind: Literal["femba"] = Field("femba", description="Bidirectional state spaces.")
    segment_volumes: int = Field(16, ge=1, description="Samples of a segment, the unit of time.")
    n_segments: int = Field(80, ge=2, description="Segments of a training example, at most.")
    mask: MaskSettings = Field(
        MaskSettings(kind="rectangles", low=0.6, high=0.6),
        description="What is hidden in training.",
    )
    n_features: int = Field(35, ge=4, description="Features of a patch.")
    n_layers: int = Field(12, ge=1, description="Blocks of the network.")
    channels_per_patch: int = Field(2, ge=1, description="Neighbouring channels of a patch.")
    n_states: int = Field(16, ge=1, description="Numbers that are kept of each inner feature.")
    expand: int = Field(4, ge=1, description="Inner features over features.")
    bidirectional: bool = Field(default=True, description="Look at what comes after, too.")
    learning_rate: float = Field(1e-3, gt=0, description="Highest learning rate of AdamW.")


@MASKED_MODELS.register("femba", FEMBASettings)
class FEMBA(MaskedModel):
    """Tokens of all channels, mixed over time by state spaces that run both ways."""

    settings: FEMBASettings

    def new_network(self, n_regions: int) -> nn.Module:
        """Return an untrained `afterimage.networks.masked_series.ScanNetwork`."""
        from afterimage.networks.masked_series import ScanNetwork

        settings = self.settings
        return ScanNetwork(
            n_regions,
            settings.segment_volumes,
            n_features=settings.n_features,
            n_layers=settings.n_layers,
            n_states=settings.n_states,
            expand=settings.expand,
            bidirectional=settings.bidirectional,
            channels_per_patch=settings.channels_per_patch,
        )
