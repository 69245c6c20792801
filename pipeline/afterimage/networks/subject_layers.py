"""Layers that let subjects share one network (Defossez et al. 2023, doi:10.1038/s42256-023-00714-5)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class SubjectLayers(nn.Module):
    """One matrix over channels a subject; to begin with the identity, or the same for all.

    Parameters
    ----------
    n_subjects, n_channels : int
    n_out : int, optional
        Channels given out; default: as many as go in, and the identity to begin with.
    """

    def __init__(self, n_subjects: int, n_channels: int, n_out: int | None = None) -> None:
        super().__init__()
        first = torch.eye(n_channels)
        if n_out is not None:
            first = torch.randn(n_out, n_channels) / n_channels**0.5
        self.matrices = nn.ParameterList(nn.Parameter(first.clone()) for _ in range(n_subjects))

    def forward(self, signals: Tensor, subjects: Tensor, before: Tensor | None = None) -> Tensor:
        """Mix channels: (n, n_channels, n_times) with subject numbers (n,) to (n, n_out, n_times).

        A matrix ``before`` that all subjects share, (n_channels, n_units), is applied first, at
        the cost of one product a subject instead of one a trial.
        """
        if len(self.matrices) == 1:
            alone = self.matrices[0]
            return (alone if before is None else alone @ before) @ signals
        each = torch.stack(list(self.matrices))
        return (each if before is None else each @ before)[subjects] @ signals

    def add_subject(self) -> nn.Parameter:
        """Add the matrix of a new subject, the mean of those known; return it."""
        with torch.no_grad():
            mean = torch.stack(list(self.matrices)).mean(0)
        self.matrices.append(nn.Parameter(mean))
        return self.matrices[-1]
