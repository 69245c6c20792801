"""Layers that let subjects share one network (Defossez et al. 2023, doi:10.1038/s42256-023-00714-5)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class SubjectLayers(nn.Module):
    """One matrix over channels a subject, the identity to begin with.

    Parameters
    ----------
    n_subjects, n_channels : int
    """

    def __init__(self, n_subjects: int, n_channels: int) -> None:
        super().__init__()
        self.matrices = nn.ParameterList(
            nn.Parameter(torch.eye(n_channels)) for _ in range(n_subjects)
        )

    def forward(self, signals: Tensor, subjects: Tensor) -> Tensor:
        """Mix channels: (n, n_channels, n_times) with subject numbers (n,) to the same shape."""
        if len(self.matrices) == 1:
            return self.matrices[0] @ signals
        return torch.stack(list(self.matrices))[subjects] @ signals

    def add_subject(self) -> nn.Parameter:
        """Add the matrix of a new subject, the mean of those known; return it."""
        with torch.no_grad():
            mean = torch.stack(list(self.matrices)).mean(0)
        self.matrices.append(nn.Parameter(mean))
        return self.matrices[-1]
