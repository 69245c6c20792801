"""The network of Du-IN (Zheng et al. 2024, arXiv:2405.11459): one code a step of a whole region.

Channels of a region are mixed by weights of their own, segments are convolved each by itself, a
transformer lets the segments of a window know of each other; the way back is the mirror image. What
differs: heads share the features; positions are rotary; convolutions have no norm, which would hide
how strong a segment is.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu

from afterimage.networks.transformer import Encoder


class RegionNetwork(nn.Module):
    """Codes of regions, and their channels from codes.

    Parameters
    ----------
    quantiser : nn.Module
        Of vectors of ``n_out * step_samples / stride``; see `afterimage.tokenizers.quantiser`.
    n_columns : int
        Channels with weights of their own.
    step_samples, stride : int
        Samples of a step, and of a place of the convolutions; a divisor.
    n_mixed, n_filters, n_out : int
        Series that channels are mixed to, filters inside, and filters of the last convolution.
    n_layers, n_back_layers, n_heads : int
        Blocks of the transformers on the way in and on the way back.
    """

    def __init__(
        self,
        quantiser: nn.Module,
        n_columns: int,
        *,
        step_samples: int,
        stride: int,
        n_mixed: int,
        n_filters: int,
        n_out: int,
        n_layers: int,
        n_back_layers: int,
        n_heads: int,
    ) -> None:
        super().__init__()
        self.quantiser, self.step_samples = quantiser, step_samples
        self.places = (n_out, step_samples // stride)
        n_features = n_out * self.places[1]
        self.enter = nn.Parameter(torch.randn(n_columns, n_mixed) / n_mixed**0.5)
        self.leave = nn.Parameter(torch.randn(n_columns, n_mixed) / n_mixed**0.5)
        width = 2 * stride - 1
        self.inwards = nn.Sequential(
            nn.Conv1d(n_mixed, n_filters, width, stride, stride - 1), nn.GELU(),
            nn.Conv1d(n_filters, n_filters, 3, padding=1), nn.GELU(),
            nn.Conv1d(n_filters, n_out, 3, padding=1),
        )  # fmt: skip
        self.encoder = Encoder(n_features, n_layers, n_heads)
        self.decoder = Encoder(n_features, n_back_layers, n_heads)
        self.outwards = nn.Sequential(
            nn.Conv1d(n_out, n_filters, 3, padding=1), nn.GELU(),
            nn.Conv1d(n_filters, n_filters, 3, padding=1), nn.GELU(),
            nn.ConvTranspose1d(n_filters, n_mixed, width, stride, stride - 1, stride - 1),
        )  # fmt: skip

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the loss of regions: ``values`` (n, n_channels, n_times), ``columns``, ``known``.

        ``columns`` int64 and ``known`` bool are (n, n_channels): the weights of each channel, and
        whether it is there.
        """
        values, columns, known = batch["values"], batch["columns"], batch["known"]
        quantised, _, commitment = self.quantiser(self.latents(values, columns))
        error = (self.series(quantised, columns).float() - values).square().mean(-1)
        error = (error * known).sum() / known.sum().clamp(min=1)
        return {"loss": error + commitment, "error": error, "commitment": commitment}

    def latents(self, values: Tensor, columns: Tensor) -> Tensor:
        """Return what is to be coded (n, n_steps, n_features); absent channels are 0."""
        mixed = self.enter[columns].transpose(1, 2) @ values  # (n, n_mixed, n_times)
        segments = mixed.unflatten(2, (-1, self.step_samples)).transpose(1, 2)
        found = self.inwards(segments.flatten(0, 1)).unflatten(0, segments.shape[:2]).flatten(2)
        encoded: Tensor = self.encoder(found, torch.arange(found.shape[1], device=found.device))
        return encoded

    def series(self, quantised: Tensor, columns: Tensor) -> Tensor:
        """Return the channels of codes' vectors (n, n_steps, n_features): (n, n_channels, n_times)."""
        times = torch.arange(quantised.shape[1], device=quantised.device)
        found = gelu(self.decoder(quantised, times)).unflatten(2, self.places)
        segments = self.outwards(found.flatten(0, 1)).unflatten(0, found.shape[:2])
        mixed = segments.transpose(1, 2).flatten(2)  # (n, n_mixed, n_times)
        return self.leave[columns] @ mixed
