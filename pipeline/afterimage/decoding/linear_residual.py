"""Linear-residual projection of EEG epochs (Zhang et al. 2025, NeuroBridge, arXiv:2511.06836).

The projector that leads THINGS-EEG2: flatten, linear, a residual of GELU, linear and dropout,
LayerNorm, embedding. What differs: subject layers; a smaller representation by default; image
features alone are normalised, which their ablation finds best; no choice by test scores.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from pydantic import Field

from afterimage.decoding.network_decoder import NetworkDecoder
from afterimage.decoding.network_settings import NetworkSettings
from afterimage.decoding.registry import DECODERS


class LinearResidualSettings(NetworkSettings):
    """Settings of the linear-residual decoder."""

    kind: Literal["linear_residual"] = Field(
        "linear_residual", description="Flatten, linear, residual, LayerNorm."
    )
    n_hidden: int = Field(256, ge=1, description="Size of the representation; 1024 published.")
    dropout: float = Field(0.5, ge=0, lt=1, description="Dropout of the residual.")
    input_dropout: float = Field(0.25, ge=0, lt=1, description="Dropout of single values.")


@DECODERS.register("linear_residual", LinearResidualSettings)
class LinearResidualDecoder(NetworkDecoder):
    """Linear projection with a residual, a contrastive and a regression head."""

    settings: LinearResidualSettings

    def _network(
        self, n_units: int, n_times: int, n_subjects: int, groups: np.ndarray, places: np.ndarray
    ) -> Any:
        from afterimage.networks.projectors import LinearResidual

        settings = self.settings
        return LinearResidual(
            n_units,
            n_times,
            n_subjects,
            n_hidden=settings.n_hidden,
            dropout=settings.dropout,
            input_dropout=settings.input_dropout,
        )
