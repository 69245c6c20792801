"""Encoder of M/EEG for any set of sensors (Defossez et al. 2023, doi:10.1038/s42256-023-00714-5).

As used for images by Benchetrit et al. 2023 (arXiv:2310.19812), who add the learned temporal
aggregation. What differs: sensors of different kinds, or that share a place, are attended to with
weights of their own; virtual channels begin as small windows around the sensors instead of at
random; the 1x1 convolution is part of the subject layer, which mixes virtual channels into hidden
ones; convolutions add to what they are given and begin with nothing, so that the network begins as
a linear one; norms are over channels of a trial (GroupNorm), so that a trial's output depends on no
other trial; every channel has its own weights over time, which are a sum of slow cosines, since
single trials are too noisy to learn one weight a sample.
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
    places : Tensor, (n_units, 2)
        Where the sensors of the fit are, NaN where unknown: windows begin around them.
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
        places: Tensor,
        *,
        n_harmonics: int = 16,
        dropout_radius: float = 0.0,
        sharpness: float = 16.0,
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
        # windows: a smooth bump around a sensor, for its group; the other groups start far below
        index = torch.arange(n_virtual)
        around = index % len(groups)
        if n_virtual < len(groups):  # spread over the sensors
            around = (index * len(groups)) // n_virtual
        known = torch.isfinite(places).all(1)
        decay = torch.exp(-waves.square().sum(1) / (2 * (n_harmonics / 2) ** 2))
        bump = self._basis(torch.nan_to_num(places[around], nan=0.5)) * torch.cat([decay, decay])
        bump = sharpness * bump / decay.sum()
        self.coefficients = nn.Parameter(bump[None].repeat(n_groups, 1, 1))
        offset = torch.full((n_groups, n_virtual), -4.0)
        offset[groups[around], index] = 0.0
        self.offset = nn.Parameter(offset)
        if not known.all():
            free = torch.zeros(n_virtual, len(groups))
            free[index, around] = math.log(4 * len(groups))
            self.free = nn.Parameter(free)

    def _basis(self, places: Tensor) -> Tensor:
        """Cosines and sines at places (..., 2), to (..., 2 * n_waves)."""
        inside = (places + self.margin) / (1 + 2 * self.margin)
        phase = 2 * math.pi * inside @ self.waves.T
        return torch.cat([phase.cos(), phase.sin()], -1)

    def logits(self, places: Tensor) -> Tensor:
        """Logits (n_virtual, n_units) at places (n_units, 2), NaN where unknown."""
        known = torch.isfinite(places).all(1)
        basis = self._basis(torch.nan_to_num(places, nan=0.5))
        logits = torch.einsum("uvw,uw->vu", self.coefficients[self.groups], basis)
        logits = logits + self.offset[self.groups].T
        return logits if not hasattr(self, "free") else torch.where(known, logits, self.free)

    def forward(self, places: Tensor) -> Tensor:
        """Weights of the sensors at places (n_units, 2) in virtual channels: (n_virtual, n_units)."""
        logits = self.logits(places)
        if self.training and self.dropout_radius > 0:
            far = (places - torch.rand(2, device=places.device)).norm(dim=1)
            dropped = far <= self.dropout_radius  # never true where the place is unknown
            if not dropped.all():
                logits = logits.masked_fill(dropped, -torch.inf)
        return softmax(logits, -1)


class ResidualBlock(nn.Module):
    """Two dilated convolutions with residuals, then a gated linear unit; added to what goes in."""

    def __init__(self, n_channels: int, kernel: int, dilations: tuple[int, int]) -> None:
        super().__init__()
        self.first = self._convolution(n_channels, kernel, dilations[0])
        self.second = self._convolution(n_channels, kernel, dilations[1])
        self.gate = nn.Conv1d(n_channels, 2 * n_channels, 1)
        nn.init.zeros_(self.gate.weight)
        nn.init.zeros_(self.gate.bias)

    @staticmethod
    def _convolution(n_channels: int, kernel: int, dilation: int) -> nn.Sequential:
        convolution = nn.Conv1d(n_channels, n_channels, kernel, padding="same", dilation=dilation)
        return nn.Sequential(convolution, nn.GroupNorm(1, n_channels), nn.GELU())

    def forward(self, signals: Tensor) -> Tensor:
        """(n, n_channels, n_times) to the same shape."""
        hidden = self.first(signals) + signals
        hidden = hidden + self.second(hidden)
        return signals + glu(self.gate(hidden), dim=1)


class BrainModule(nn.Module):
    """Spatial attention, subject layer, dilated convolutions, weights over time.

    Parameters
    ----------
    groups : Tensor of int64, (n_units,)
    places : Tensor, (n_units, 2)
        See `SpatialAttention`.
    n_times, n_subjects : int
    n_virtual, n_hidden, n_blocks, kernel : int
        Virtual channels; channels of the convolutions; residual blocks; taps of a convolution.
    n_cosines : int
        Cosines of the weights over time, from the slowest.
    """

    def __init__(
        self,
        groups: Tensor,
        places: Tensor,
        n_times: int,
        n_subjects: int,
        *,
        n_virtual: int,
        n_hidden: int,
        n_blocks: int,
        kernel: int,
        n_cosines: int,
        dropout: float,
        dropout_radius: float,
    ) -> None:
        super().__init__()
        n_virtual = min(n_virtual, len(groups))
        self.attention = SpatialAttention(n_virtual, groups, places, dropout_radius=dropout_radius)
        self.subjects = SubjectLayers(n_subjects, n_virtual, n_hidden)
        self.blocks = nn.ModuleList(
            ResidualBlock(n_hidden, kernel, (2 ** (2 * b % 5), 2 ** ((2 * b + 1) % 5)))
            for b in range(n_blocks)
        )
        cosines = cosine_basis(min(n_cosines, n_times), n_times)
        self.register_buffer("cosines", cosines, persistent=False)
        self.over_time = nn.Parameter(torch.randn(n_hidden, len(cosines)) / len(cosines) ** 0.5)
        self.dropout = nn.Dropout(dropout)
        self.n_representation = n_hidden

    def forward(self, signals: Tensor, subjects: Tensor, places: Tensor) -> Tensor:
        """Encode.

        Parameters
        ----------
        signals : Tensor, (n, n_units, n_times)
        subjects : Tensor of int64, (n,)
        places : Tensor, (n_units, 2)

        Returns
        -------
        Tensor, (n, n_hidden)
        """
        hidden = self.subjects(signals, subjects, before=self.attention(places))
        for block in self.blocks:
            hidden = block(self.dropout(hidden))
        return torch.einsum("nct,ct->nc", hidden, self.over_time @ self.cosines)

    @torch.no_grad()
    def start(self, space: Tensor, time: Tensor, places: Tensor) -> None:
        """Begin with given filters in the first channels; the others are left as they are.

        Parameters
        ----------
        space : Tensor, (n_subjects, n_units, rank)
            Weights of the sensors, rank at most n_hidden.
        time : Tensor, (n_cosines, rank)
            Weights of the cosines.
        """
        rank = space.shape[2]
        for number in range(len(space)):
            self.start_subject(number, space[number], places)
        self.over_time[:rank] = time.T

    @torch.no_grad()
    def start_subject(self, number: int, space: Tensor, places: Tensor) -> None:
        """Begin with given weights of the sensors, (n_units, rank), in one subject's layer.

        Virtual channels that overlap cannot give any weights: they are met by least squares.
        """
        training = self.attention.training
        windows = self.attention.eval()(places).double()  # (n_virtual, n_units)
        self.attention.train(training)
        gram = windows @ windows.T
        gram += 1e-4 * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
        mixing = torch.linalg.solve(gram, windows @ space.double()).T
        self.subjects.matrices[number][: len(mixing)] = mixing.to(self.over_time.dtype)


def cosine_basis(n_cosines: int, n_times: int) -> Tensor:
    """Orthonormal cosines over the times, from the slowest: (n_cosines, n_times)."""
    moment = (torch.arange(n_times) + 0.5) / n_times
    cosines = torch.cos(math.pi * torch.arange(n_cosines)[:, None] * moment)
    return cosines / cosines.norm(dim=1, keepdim=True)
