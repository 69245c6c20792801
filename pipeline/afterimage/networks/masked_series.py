"""Networks that fill in hidden parts of region series: patches, and regions that form a state.

`PatchNetwork` is a plain transformer over patches (after BrainLM, doi:10.1101/2023.09.12.557460);
`StateNetwork` is that of BrainMAE (Yang et al. 2024, arXiv:2406.17086); `ScanNetwork` that of FEMBA
(Tegon et al. 2025, arXiv:2502.06438). All answer to `afterimage.training.masked.MaskedNetwork`;
tokens are (n, n_segments, n_regions, n_samples).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, pad, smooth_l1_loss

from afterimage.networks.state_space import StateSpaceBlock
from afterimage.networks.static_graph import StaticGraphBlock
from afterimage.networks.transformer import Encoder, EncoderBlock


class SeriesNetwork(nn.Module):
    """What networks of series share: the loss of their samples, and a predictor of latents.

    Parameters
    ----------
    n_features : int
        Features of a latent.
    hidden_weight : float
        Weight of hidden tokens in the loss; the rest is that of visible ones.
    """

    def __init__(self, n_features: int, hidden_weight: float) -> None:
        super().__init__()
        self.hidden_weight = hidden_weight
        self.predict = new_predictor(n_features)

    def loss(self, predicted: Tensor, tokens: Tensor, hidden: Tensor, known: Tensor) -> Tensor:
        """Weighted mean squared error: w times that of hidden tokens, plus 1 - w times the rest.

        Parameters
        ----------
        predicted, tokens : Tensor, (n, n_segments, n_regions, n_samples)
        hidden, known : Tensor of bool, (n, n_segments, n_regions)
        """
        error = (predicted.float() - tokens).square().mean(-1)
        parts = []
        for counted in (hidden & known, ~hidden & known):
            parts.append((error * counted).sum() / counted.sum().clamp(min=1))
        return self.hidden_weight * parts[0] + (1 - self.hidden_weight) * parts[1]


class PatchNetwork(SeriesNetwork):
    """A transformer whose tokens are patches: ``regions_per_patch`` regions by one segment.

    Hidden samples are 0 and a learned vector a region says so, so that a wholly hidden patch is
    one learned token, and a patch may also be hidden in part.

    Parameters
    ----------
    n_regions, n_samples : int
        Regions, and samples of a segment.
    n_features, n_layers, n_heads : int
        Of the transformer.
    regions_per_patch : int
        A divisor of ``n_regions``.
    hidden_weight : float
        See `SeriesNetwork`.
    """

    def __init__(
        self,
        n_regions: int,
        n_samples: int,
        *,
        n_features: int,
        n_layers: int,
        n_heads: int,
        regions_per_patch: int,
        hidden_weight: float = 1.0,
    ) -> None:
        super().__init__(n_features, hidden_weight)
        self.regions_per_patch = regions_per_patch
        n_places = n_regions // regions_per_patch
        self.value = nn.Linear(regions_per_patch * n_samples, n_features)
        self.absent = nn.Linear(regions_per_patch, n_features, bias=False)
        self.place = nn.Parameter(0.02 * torch.randn(n_places, n_features))
        self.encoder = Encoder(n_features, n_layers, n_heads)
        self.read = nn.Linear(n_features, regions_per_patch * n_samples)

    def encode(self, tokens: Tensor, hidden: Tensor) -> Tensor:
        """Return latents (n, n_segments, n_places, n_features)."""
        encoded = self.encoder(*self._patches(tokens, hidden))
        return encoded.unflatten(1, (tokens.shape[1], -1))

    def embed(self, tokens: Tensor, hidden: Tensor) -> Tensor:
        """Return what all blocks make of each segment (n, n_segments, n_layers * n_features).

        The mean over its places. What it takes to fill in is found in the middle of the network;
        the last block has little more than the prediction.
        """
        layers = torch.cat(self.encoder.layers(*self._patches(tokens, hidden)), dim=-1)
        return layers.unflatten(1, (tokens.shape[1], -1)).mean(2)

    def _patches(self, tokens: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Return the tokens of the transformer, and their times."""
        n, n_segments, n_regions, _ = tokens.shape
        grid = (n, n_segments, n_regions // self.regions_per_patch)
        values = tokens.masked_fill(hidden[..., None], 0.0).reshape(*grid, -1)
        patches = self.value(values) + self.absent(hidden.reshape(*grid, -1).to(values.dtype))
        times = torch.arange(n_segments, device=tokens.device).repeat_interleave(grid[2])
        return (patches + self.place).flatten(1, 2), times

    def decode(self, latents: Tensor) -> Tensor:
        """Return all tokens as the latents say (n, n_segments, n_regions, n_samples)."""
        n, n_segments, n_places, _ = latents.shape
        return self.read(latents).view(n, n_segments, n_places * self.regions_per_patch, -1)


class StateNetwork(SeriesNetwork):
    """Regions of a segment, mixed by a graph of their embeddings, form one state a segment.

    Parameters
    ----------
    n_regions, n_samples : int
        Regions, and samples of a segment.
    n_features, n_layers, n_heads : int
        Of the tokens; ``n_layers`` is the depth of the transformer over segments.
    adaptive : bool
        Two ordinary self-attention blocks come before one static-graph block, instead of three
        static-graph blocks.
    hidden_weight : float
        See `SeriesNetwork`.
    """

    n_pools = 8  # weighted sums of the regions a state is read from

    def __init__(
        self,
        n_regions: int,
        n_samples: int,
        *,
        n_features: int,
        n_layers: int,
        n_heads: int,
        adaptive: bool,
        hidden_weight: float = 0.75,
    ) -> None:
        super().__init__(n_features, hidden_weight)
        self.embedding = nn.Parameter(0.3 * torch.randn(n_regions, n_features))
        self.value = nn.Linear(n_samples, n_features)
        self.absent = nn.Parameter(0.02 * torch.randn(n_features))
        n_adaptive, n_static = (2, 1) if adaptive else (0, 3)
        self.mixing = nn.ModuleList(EncoderBlock(n_features, n_heads) for _ in range(n_adaptive))
        self.graph = nn.ModuleList(StaticGraphBlock(n_features, n_heads) for _ in range(n_static))
        self.gather = nn.Linear(n_features, self.n_pools, bias=False)
        self.state = nn.Linear(self.n_pools * n_features, n_features)
        self.context = Encoder(n_features, n_layers, n_heads)
        self.from_state = nn.Linear(n_features, 4 * n_features)
        self.from_region = nn.Linear(n_features, 4 * n_features)
        self.read = nn.Linear(4 * n_features, n_samples)

    def encode(self, tokens: Tensor, hidden: Tensor) -> Tensor:
        """Return the states of segments in context (n, n_segments, 1, n_features)."""
        return self.context(*self._states(tokens, hidden))[:, :, None]

    def embed(self, tokens: Tensor, hidden: Tensor) -> Tensor:
        """Return what all blocks make of the states (n, n_segments, n_layers * n_features)."""
        return torch.cat(self.context.layers(*self._states(tokens, hidden)), dim=-1)

    def _states(self, tokens: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Return the state of each segment by itself, and their times."""
        n, n_segments, n_regions, _ = tokens.shape
        values = self.value(tokens.masked_fill(hidden[..., None], 0.0))
        values = torch.where(hidden[..., None], self.absent.to(values.dtype), values)
        regions = (values + self.embedding).flatten(
            0, 1
        )  # (n * n_segments, n_regions, n_features)
        for mix in self.mixing:
            regions = mix(regions)
        visible = ~hidden.flatten(0, 1)
        for block in self.graph:
            regions = block(regions, self.embedding, visible)
        weights = self.gather(self.embedding) * (10 / n_regions) ** 0.5  # (n_regions, n_pools)
        pooled = torch.einsum("rp,nrf->npf", weights, regions).flatten(1)
        states = self.state(pooled).view(n, n_segments, -1)
        return states, torch.arange(n_segments, device=tokens.device)

    def decode(self, latents: Tensor) -> Tensor:
        """Return all tokens from states and embeddings (n, n_segments, n_regions, n_samples)."""
        inner = self.from_state(latents) + self.from_region(self.embedding)
        return self.read(gelu(inner))


class ScanNetwork(SeriesNetwork):
    """State spaces over time; a token is all patches of a segment, of a few channels each.

    Parameters
    ----------
    n_channels, n_samples : int
        Channels, and samples of a segment.
    n_features : int
        Features of a patch.
    n_layers, n_states, expand, bidirectional
        See `afterimage.networks.state_space.StateSpaceBlock`.
    channels_per_patch : int
    """

    def __init__(
        self,
        n_channels: int,
        n_samples: int,
        *,
        n_features: int,
        n_layers: int,
        n_states: int,
        expand: int,
        bidirectional: bool,
        channels_per_patch: int,
    ) -> None:
        n_patches, n_each = -(-n_channels // channels_per_patch), channels_per_patch * n_samples
        n_wide = n_patches * n_features
        super().__init__(n_wide, 1.0)
        self.n_channels, self.shape = n_channels, (n_patches, channels_per_patch, n_samples)
        self.value = nn.Linear(n_each, n_features)
        self.absent = nn.Linear(channels_per_patch, n_features, bias=False)
        self.blocks = nn.ModuleList(
            StateSpaceBlock(n_wide, n_states=n_states, expand=expand, bidirectional=bidirectional)
            for _ in range(n_layers)
        )
        self.read = nn.Linear(n_features, n_each)

    def _layers(self, tokens: Tensor, hidden: Tensor) -> list[Tensor]:
        """Return the tokens after each block (n, n_segments, n_patches, n_features)."""
        n_patches, size, _ = self.shape
        missing = n_patches * size - self.n_channels
        values = pad(tokens.masked_fill(hidden[..., None], 0.0), (0, 0, 0, missing))
        patches = self.value(values.unflatten(2, (n_patches, size)).flatten(3))
        flags = pad(hidden.to(patches.dtype), (0, missing)).unflatten(2, (n_patches, size))
        found = (patches + self.absent(flags)).flatten(2)  # (n, n_segments, n_wide)
        layers = []
        for block in self.blocks:
            found = block(found)
            layers.append(found.unflatten(2, (n_patches, -1)))
        return layers

    def encode(self, tokens: Tensor, hidden: Tensor) -> Tensor:
        """Return latents (n, n_segments, 1, n_patches * n_features)."""
        return self._layers(tokens, hidden)[-1].flatten(2)[:, :, None]

    def embed(self, tokens: Tensor, hidden: Tensor) -> Tensor:
        """Return what all blocks make of each segment, mean over its patches.

        Returns
        -------
        Tensor, (n, n_segments, n_layers * n_features)
        """
        return torch.cat([layer.mean(2) for layer in self._layers(tokens, hidden)], dim=-1)

    def decode(self, latents: Tensor) -> Tensor:
        """Return all tokens as the latents say (n, n_segments, n_channels, n_samples)."""
        patches = self.read(latents[:, :, 0].unflatten(2, (self.shape[0], -1)))
        return patches.unflatten(3, self.shape[1:]).flatten(2, 3)[:, :, : self.n_channels]

    def loss(self, predicted: Tensor, tokens: Tensor, hidden: Tensor, known: Tensor) -> Tensor:
        """Mean smooth L1 loss of hidden tokens; see `SeriesNetwork.loss`."""
        counted = hidden & known
        error = smooth_l1_loss(predicted.float(), tokens, reduction="none").mean(-1)
        return (error * counted).sum() / counted.sum().clamp(min=1)


def new_predictor(n_features: int) -> nn.Sequential:
    """Return the two-layer perceptron that predicts a teacher's latents."""
    return nn.Sequential(
        nn.Linear(n_features, 2 * n_features), nn.GELU(), nn.Linear(2 * n_features, n_features)
    )
