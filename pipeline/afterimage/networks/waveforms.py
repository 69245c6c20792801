"""Convolutions from waveforms to features at a slower rate, and back (SEANet, arXiv:2009.02095).

Tagliasacchi et al. 2020; as used by EnCodec (Défossez et al. 2022, arXiv:2210.13438) and BrainOmni.
What differs: no LSTM and no weight norm; edges are mirrored, and each series is by itself, so that
channels of any number, order and kind may stand in one batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from torch import Tensor, nn
from torch.nn.functional import elu


class ResidualConvolution(nn.Module):
    """Two convolutions at a constant rate, added to their input.

    Parameters
    ----------
    n_filters : int
    """

    def __init__(self, n_filters: int) -> None:
        super().__init__()
        half = max(1, n_filters // 2)
        self.narrow = nn.Conv1d(n_filters, half, 3, padding=1, padding_mode="reflect")
        self.widen = nn.Conv1d(half, n_filters, 1)

    def forward(self, series: Tensor) -> Tensor:
        """(n, n_filters, n_times), same shape."""
        mixed: Tensor = self.widen(elu(self.narrow(elu(series))))
        return series + mixed


class WaveformEncoder(nn.Module):
    """From series to features: each level doubles the filters and divides the rate.

    Parameters
    ----------
    n_features : int
        Features of a step.
    n_filters : int
        Filters at the full rate.
    ratios : sequence of int
        By how much each level divides the rate; even numbers.
    kernel_size : int
        Samples of the first and steps of the last convolution, odd.
    """

    def __init__(
        self, n_features: int, n_filters: int, ratios: Sequence[int], kernel_size: int = 5
    ) -> None:
        super().__init__()
        self.step_samples = prod(ratios)
        edge, mirror = kernel_size // 2, "reflect"
        self.first = nn.Conv1d(1, n_filters, kernel_size, padding=edge, padding_mode=mirror)
        levels: list[nn.Module] = []
        for ratio in ratios:
            levels += [
                ResidualConvolution(n_filters), nn.ELU(),
                nn.Conv1d(n_filters, 2 * n_filters, 2 * ratio, ratio, ratio // 2, padding_mode=mirror),
            ]  # fmt: skip
            n_filters *= 2
        self.levels = nn.Sequential(*levels)
        self.last = nn.Conv1d(n_filters, n_features, kernel_size, padding=edge)

    def forward(self, series: Tensor) -> Tensor:
        """Encode (n, n_times), a multiple of ``step_samples``, to (n, n_steps, n_features)."""
        encoded: Tensor = self.last(elu(self.levels(self.first(series[:, None]))))
        return encoded.transpose(1, 2)


class WaveformDecoder(nn.Module):
    """The mirror image of `WaveformEncoder`, with the same parameters."""

    def __init__(
        self, n_features: int, n_filters: int, ratios: Sequence[int], kernel_size: int = 5
    ) -> None:
        super().__init__()
        edge, wide = kernel_size // 2, n_filters * 2 ** len(ratios)
        self.first = nn.Conv1d(n_features, wide, kernel_size, padding=edge)
        levels: list[nn.Module] = []
        for ratio in reversed(ratios):
            levels += [
                nn.ELU(), nn.ConvTranspose1d(wide, wide // 2, 2 * ratio, ratio, ratio // 2),
                ResidualConvolution(wide // 2),
            ]  # fmt: skip
            wide //= 2
        self.levels = nn.Sequential(*levels)
        self.last = nn.Conv1d(wide, 1, kernel_size, padding=edge, padding_mode="reflect")

    def forward(self, features: Tensor) -> Tensor:
        """Decode (n, n_steps, n_features) to (n, n_times)."""
        series: Tensor = self.last(elu(self.levels(self.first(features.transpose(1, 2)))))
        return series[:, 0]
