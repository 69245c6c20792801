"""Contrastive decoding of images from M/EEG (Benchetrit et al. 2023, arXiv:2310.19812).

The encoder is in `afterimage.networks.brain_module`, the loss in `afterimage.training.contrastive`.
What differs: a small encoder by default, which begins as a low-rank encoding model turned round
(`afterimage.decoding.low_rank`), not at random; responses are whitened; images are compared by the
likelihood of that model, not by cosine, with a size of their response for each subject; early
stopping by the mean log rank of held-out concepts of the training part; blocks other than the
target by ridge regression on the representation.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from pydantic import Field

from afterimage.decoding.network_decoder import NetworkDecoder
from afterimage.decoding.network_settings import NetworkSettings
from afterimage.decoding.registry import DECODERS


class ContrastiveSettings(NetworkSettings):
    """Settings of the contrastive decoder."""

    kind: Literal["contrastive"] = Field(
        "contrastive", description="Sensor attention, subject layers, dilated convolutions."
    )
    learning_rate: float = Field(
        3e-4, gt=0, description="Highest learning rate of AdamW; more undoes the start."
    )
    n_virtual: int = Field(
        320, ge=1, description="Virtual channels of the sensor attention, at most the sensors."
    )
    n_hidden: int = Field(
        32,
        ge=1,
        description="Channels of the convolutions, highest rank of the start; 320 published.",
    )
    n_blocks: int = Field(1, ge=0, description="Blocks of two dilated convolutions; 5 published.")
    kernel: int = Field(3, ge=1, description="Taps of a convolution.")
    n_cosines: int = Field(48, ge=1, description="Cosines of the weights over time.")
    dropout: float = Field(0.3, ge=0, lt=1, description="Dropout before each block.")
    dropout_radius: float = Field(
        0.0, ge=0, description="Sensors left out of a batch, within this many head widths."
    )


@DECODERS.register("contrastive", ContrastiveSettings)
class ContrastiveDecoder(NetworkDecoder):
    """Brain module with a contrastive and a regression head."""

    settings: ContrastiveSettings
    starts_low_rank = True

    def _network(
        self, n_units: int, n_times: int, n_subjects: int, groups: np.ndarray, places: np.ndarray
    ) -> Any:
        import torch

        from afterimage.networks.brain_module import BrainModule

        settings = self.settings
        return BrainModule(
            torch.from_numpy(groups.copy()),
            torch.from_numpy(places.copy()),
            n_times,
            n_subjects,
            n_virtual=settings.n_virtual,
            n_hidden=settings.n_hidden,
            n_blocks=settings.n_blocks,
            kernel=settings.kernel,
            n_cosines=settings.n_cosines,
            dropout=settings.dropout,
            dropout_radius=settings.dropout_radius,
        )
