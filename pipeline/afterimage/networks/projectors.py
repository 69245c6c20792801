"""Small encoders of M/EEG epochs: a residual projector and a temporal-spatial convolution."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from afterimage.networks.subject_layers import SubjectLayers


class LinearResidual(nn.Module):
    """Subject layer over sensors, flatten, linear, residual of GELU-linear-dropout, LayerNorm.

    Parameters
    ----------
    n_units, n_times, n_subjects : int
    n_hidden : int
        Size of the representation.
    dropout : float
        In the residual; a first dropout takes single values of the input.
    """

    def __init__(
        self,
        n_units: int,
        n_times: int,
        n_subjects: int,
        *,
        n_hidden: int,
        dropout: float,
        input_dropout: float,
    ) -> None:
        super().__init__()
        self.subjects = SubjectLayers(n_subjects, n_units)
        self.inputs = nn.Dropout(input_dropout)
        self.linear = nn.Linear(n_units * n_times, n_hidden)
        self.residual = nn.Sequential(
            nn.GELU(), nn.Linear(n_hidden, n_hidden), nn.Dropout(dropout)
        )
        self.norm = nn.LayerNorm(n_hidden)
        self.n_representation = n_hidden

    def forward(self, signals: Tensor, subjects: Tensor, _places: Tensor) -> Tensor:
        """Encode (n, n_units, n_times) of subjects (n,) to (n, n_hidden)."""
        hidden = self.linear(self.inputs(self.subjects(signals, subjects)).flatten(1))
        encoded: Tensor = self.norm(hidden + self.residual(hidden))
        return encoded


class TemporalSpatial(nn.Module):
    """Subject layer, temporal convolution, mean over time, spatial convolution, 1x1.

    Parameters
    ----------
    n_units, n_times, n_subjects : int
    n_filters : int
        Temporal filters, and spatial ones.
    kernel, pool, stride : int
        Samples of a temporal filter, of the mean after it, and between two means.
    """

    def __init__(
        self,
        n_units: int,
        n_times: int,
        n_subjects: int,
        *,
        n_filters: int,
        kernel: int,
        pool: int,
        stride: int,
        dropout: float,
    ) -> None:
        super().__init__()
        # an odd kernel keeps the number of samples without a copy
        kernel, pool = min(kernel, n_times - (n_times + 1) % 2), min(pool, n_times)
        self.subjects = SubjectLayers(n_subjects, n_units)
        self.temporal = nn.Conv2d(1, n_filters, (1, kernel), padding="same")
        self.pool = nn.AvgPool2d((1, pool), (1, stride))
        self.spatial = nn.Conv2d(n_filters, n_filters, (n_units, 1))
        self.norms = nn.ModuleList([nn.GroupNorm(1, n_filters), nn.GroupNorm(1, n_filters)])
        self.point = nn.Conv2d(n_filters, n_filters, 1)
        self.dropout = nn.Dropout(dropout)
        self.n_representation = n_filters * ((n_times - pool) // stride + 1)

    def forward(self, signals: Tensor, subjects: Tensor, _places: Tensor) -> Tensor:
        """Encode (n, n_units, n_times) of subjects (n,) to (n, n_filters * n_windows)."""
        mixed = self.subjects(signals, subjects)[:, None]
        hidden = torch.nn.functional.elu(self.norms[0](self.pool(self.temporal(mixed))))
        hidden = torch.nn.functional.elu(self.norms[1](self.spatial(hidden)))
        return self.point(self.dropout(hidden)).flatten(1)
