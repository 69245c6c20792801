"""Encoders of single trials that `afterimage.training.readout.fit_readout` puts a linear head on."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from afterimage.networks.projectors import TemporalSpatial


class GridTrials(nn.Module):
    """A network over grids of codes, and its mean output over the tokens of a trial.

    Parameters
    ----------
    grid : torch.nn.Module
        With ``embed(codes, hidden, streams, known)``, such as
        `afterimage.networks.token_grid.TokenGrid`.
    """

    def __init__(self, grid: Any) -> None:
        super().__init__()
        self.grid = grid

    def embed(self, values: Tensor, unknown: Tensor) -> Tensor:
        """Return (n, 1, n_features).

        Parameters
        ----------
        values : Tensor of int64, (n, n_streams, n_steps, n_stages + 1)
            Codes, and the number of the name of the stream behind them.
        unknown : Tensor of bool, (n, n_streams, n_steps)
            Streams that a trial does not have.
        """
        known = ~unknown[:, :, 0]
        hidden = torch.zeros_like(unknown)
        found = self.grid.embed(values[..., :-1], hidden, values[:, :, 0, -1], known)
        weights = known[:, :, None, None] / known.sum(1).clamp(min=1)[:, None, None, None]
        pooled: Tensor = (found * weights).sum(1).mean(1)  # over streams, then steps
        return pooled[:, None]


class ConvolutionTrials(nn.Module):
    """A small convolution over time and channels of a trial.

    Parameters
    ----------
    n_units, n_times : int
    sfreq_hz : float
        Filters last 0.1 s, means over time 0.2 s, every 0.05 s, as published.
    n_filters : int
    """

    def __init__(self, n_units: int, n_times: int, sfreq_hz: float, n_filters: int = 16) -> None:
        super().__init__()
        self.network = TemporalSpatial(
            n_units,
            n_times,
            1,
            n_filters=n_filters,
            kernel=2 * round(0.05 * sfreq_hz) + 1,
            pool=max(1, round(0.2 * sfreq_hz)),
            stride=max(1, round(0.05 * sfreq_hz)),
            dropout=0.5,
        )

    def embed(self, values: Tensor, _unknown: Tensor) -> Tensor:
        """Return (n, 1, n_features) of signals (n, n_units, n_times)."""
        subjects = torch.zeros(len(values), dtype=torch.int64, device=values.device)
        found: Tensor = self.network(values, subjects, values)
        return found[:, None]
