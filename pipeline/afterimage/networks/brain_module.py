"""Encoder of M/EEG for any set of sensors (Defossez et al. 2023, doi:10.1038/s42256-023-00714-5).

As used for images by Benchetrit et al. 2023 (arXiv:2310.19812), who add the learned temporal
aggregation. What differs: sensors of different kinds, or that share a place, are attended to with
weights of their own; virtual channels begin as windows spread over the head, each with one of
these sensor sets, instead of at random; norms are over channels of a trial (GroupNorm), so that a
trial's output depends on no other trial; every channel has its own weights over time, which are a
sum of slow cosines, since single trials are too noisy to learn one weight a sample.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import glu, softmax

from afterimage.networks.subject_layers import SubjectLayers


class SpatialAttention(nn.Module):
    """Mix sensors into virtual channels, by weights that are a function of their positions.

    The logit of virtual channel j at position (x, y) is a Fourier series in two dimensions; weights
    are its softmax over the sensors. Sensors of unknown position take free logits.

    Parameters
    ----------
    n_virtual : int
        Virtual channels.
    groups : Tensor of int64, (n_units,)
        Sensors that share one Fourier series a channel.
    n_known : int
        Number of sensors whose position is known.
    n_harmonics : int
        Harmonics in x, and in y.
    dropout_radius : float
        Radius, in widths of the head, of the disc of sensors left out of each training batch.
    """

    margin = 0.2  # of the period around the head, so that opposite edges are told apart

    def __init__(
        self,
        n_virtual: int,
        groups: Tensor,
        n_known: int,
        *,
        n_harmonics: int = 8,
        dropout_radius: float = 0.1,
        sharpness: float = 8.0,
    ) -> None:
        super().__init__()
        self.dropout_radius = dropout_radius
        n_groups = int(groups.max()) + 1
        frequency = torch.arange(n_harmonics)
        grid = torch.meshgrid(
            frequency, torch.arange(-n_harmonics + 1, n_harmonics), indexing="ij"
        )
        waves = torch.stack([part.ravel() for part in grid], 1).float()
        self.register_buffer("waves", waves, persistent=False)
        self.register_buffer("groups", groups, persistent=False)
        # windows: a smooth bump around a point, for one group; the other groups start far below
        golden = (1 + 5**0.5) / 2
        index = torch.arange(n_virtual)
        radius = 0.5 * ((index + 0.5) / n_virtual).sqrt()
        angle = 2 * math.pi * index / golden
        centres = 0.5 + torch.stack([radius * angle.cos(), radius * angle.sin()], 1)
        decay = torch.exp(-waves.square().sum(1) / (2 * (n_harmonics / 2) ** 2))
        bump = self._basis(centres) * torch.cat([decay, decay])
        bump = sharpness * bump / decay.sum().sqrt()
        coefficients = bump[None].repeat(n_groups, 1, 1)
        self.coefficients = nn.Parameter(coefficients)
        offset = torch.full((n_groups, n_virtual), -4.0)
        offset[index % n_groups, index] = 0.0
        self.offset = nn.Parameter(offset)
        if n_known < len(groups):
            self.free = nn.Parameter(torch.randn(n_virtual, len(groups)) * 2)

    def _basis(self, places: Tensor) -> Tensor:
        """Cosines and sines at places (..., 2), to (..., 2 * n_waves)."""
        inside = (places + self.margin) / (1 + 2 * self.margin)
        phase = 2 * math.pi * inside @ self.waves.T
        return torch.cat([phase.cos(), phase.sin()], -1)

    def weights(self, places: Tensor) -> Tensor:
        """Logits (n_virtual, n_units) at places (n_units, 2), NaN where unknown."""
        known = torch.isfinite(places).all(1)
        basis = self._basis(torch.nan_to_num(places, nan=0.5))
        logits = torch.einsum("uvw,uw->vu", self.coefficients[self.groups], basis)
        logits = logits + self.offset[self.groups].T
        return logits if not hasattr(self, "free") else torch.where(known, logits, self.free)

    def forward(self, signals: Tensor, places: Tensor) -> Tensor:
        """Mix: (n, n_units, n_times) at places (n_units, 2) to (n, n_virtual, n_times)."""
        logits = self.weights(places)
        if self.training and self.dropout_radius > 0:
            far = (places - torch.rand(2, device=places.device)).norm(dim=1)
            dropped = far <= self.dropout_radius  # never true where the place is unknown
            if not dropped.all():
                logits = logits.masked_fill(dropped, -torch.inf)
        return softmax(logits, -1) @ signals


class ResidualBlock(nn.Module):
    """Two dilated convolutions with residuals, then a gated linear unit."""

    def __init__(self, n_in: int, n_out: int, kernel: int, dilations: tuple[int, int]) -> None:
        super().__init__()
        self.first = self._convolution(n_in, n_out, kernel, dilations[0])
        self.second = self._convolution(n_out, n_out, kernel, dilations[1])
        self.gate = nn.Conv1d(n_out, 2 * n_out, 1)
        self.same = n_in == n_out

    @staticmethod
    def _convolution(n_in: int, n_out: int, kernel: int, dilation: int) -> nn.Sequential:
        convolution = nn.Conv1d(n_in, n_out, kernel, padding="same", dilation=dilation)
        return nn.Sequential(convolution, nn.GroupNorm(1, n_out), nn.GELU())

    def forward(self, signals: Tensor) -> Tensor:
        """(n, n_in, n_times) to (n, n_out, n_times)."""
        hidden = self.first(signals) + signals if self.same else self.first(signals)
        hidden = hidden + self.second(hidden)
        return glu(self.gate(hidden), dim=1)


class BrainModule(nn.Module):
    """Spatial attention, 1x1, subject layer, dilated convolutions, weights over time.

    Parameters
    ----------
    groups : Tensor of int64, (n_units,)
        See `SpatialAttention`.
    n_known : int
        Sensors of known position.
    n_times, n_subjects : int
    n_virtual, n_hidden, n_blocks, kernel : int
        Virtual channels; channels of the convolutions; residual blocks; taps of a convolution.
    n_aggregates : int
        Weighted means over time that are kept of each channel.
    n_cosines : int
        Cosines of these weights, from the slowest.
    """

    def __init__(
        self,
        groups: Tensor,
        n_known: int,
        n_times: int,
        n_subjects: int,
        *,
        n_virtual: int,
        n_hidden: int,
        n_blocks: int,
        kernel: int,
        n_aggregates: int,
        n_cosines: int,
        dropout: float,
        dropout_radius: float,
    ) -> None:
        super().__init__()
        self.attention = SpatialAttention(
            n_virtual, groups, n_known, dropout_radius=dropout_radius
        )
        self.mix = nn.Conv1d(n_virtual, n_hidden, 1)
        self.subjects = SubjectLayers(n_subjects, n_hidden)
        self.blocks = nn.ModuleList(
            ResidualBlock(n_hidden, n_hidden, kernel, (2 ** (2 * b % 5), 2 ** ((2 * b + 1) % 5)))
            for b in range(n_blocks)
        )
        n_cosines = min(n_cosines, n_times)
        moment = (torch.arange(n_times) + 0.5) / n_times
        cosines = torch.cos(math.pi * torch.arange(n_cosines)[:, None] * moment)
        self.register_buffer("cosines", cosines * (2 / n_times) ** 0.5, persistent=False)
        scale = n_cosines**-0.5
        self.over_time = nn.Parameter(scale * torch.randn(n_hidden, n_aggregates, n_cosines))
        self.dropout = nn.Dropout(dropout)
        self.n_representation = n_hidden * n_aggregates

    def forward(self, signals: Tensor, subjects: Tensor, places: Tensor) -> Tensor:
        """Encode.

        Parameters
        ----------
        signals : Tensor, (n, n_units, n_times)
        subjects : Tensor of int64, (n,)
        places : Tensor, (n_units, 2)

        Returns
        -------
        Tensor, (n, n_hidden * n_aggregates)
        """
        hidden = self.subjects(self.mix(self.attention(signals, places)), subjects)
        for block in self.blocks:
            hidden = block(self.dropout(hidden))
        return torch.einsum("nct,cat->nca", hidden, self.over_time @ self.cosines).flatten(1)
