"""Temporal-spatial convolution of EEG (Song et al. 2024, NICE, arXiv:2308.13234).

Temporal filters, a mean over time, spatial filters over all sensors, and a 1x1 convolution. What
differs: subject layers; norms are over a trial (GroupNorm), so that a trial's output depends on no
other trial; candidates are the images shown, not the centres of their classes.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from pydantic import Field

from afterimage.decoding.network_decoder import NetworkDecoder
from afterimage.decoding.network_settings import NetworkSettings
from afterimage.decoding.registry import DECODERS


class TemporalSpatialSettings(NetworkSettings):
    """Settings of the temporal-spatial convolution."""

    kind: Literal["temporal_spatial"] = Field(
        "temporal_spatial", description="Temporal, then spatial convolution."
    )
    n_filters: int = Field(16, ge=1, description="Temporal and spatial filters; 40 published.")
    kernel: int = Field(9, ge=1, description="Samples of a temporal filter; 25 published.")
    pool: int = Field(11, ge=1, description="Samples of the mean after it; 51 published.")
    stride: int = Field(5, ge=1, description="Samples between two means.")
    dropout: float = Field(0.5, ge=0, lt=1, description="Dropout before the last convolution.")


@DECODERS.register("temporal_spatial", TemporalSpatialSettings)
class TemporalSpatialDecoder(NetworkDecoder):
    """Small convolutional network with a contrastive and a regression head."""

    settings: TemporalSpatialSettings

    def _network(
        self, n_units: int, n_times: int, n_subjects: int, groups: np.ndarray, places: np.ndarray
    ) -> Any:
        from afterimage.networks.projectors import TemporalSpatial

        settings = self.settings
        return TemporalSpatial(
            n_units,
            n_times,
            n_subjects,
            n_filters=settings.n_filters,
            kernel=settings.kernel,
            pool=settings.pool,
            stride=settings.stride,
            dropout=settings.dropout,
        )
