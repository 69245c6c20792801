"""A transformer over grids of tokens, streams by steps (BrainOmni, Xiao et al. 2025, arXiv:2505.18185).

Half the heads of a block attend over the steps of their stream, with rotary positions, half over the
streams of their step. What differs: codes are read and guessed as the vectors of the tokenizer,
standardised, by a linear map of each stream: sources mix the same activity in ways of their own, and
what one tells of another cannot be found as long as all are read alike. Streams that a recording
does not have are left out by a mask, so that montages may be mixed in a batch.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import gelu, normalize, scaled_dot_product_attention

from afterimage.networks.transformer import rotary_angles, rotate


class SplitBlock(nn.Module):
    """Attention over steps and over streams, side by side, and a perceptron.

    Parameters
    ----------
    n_features : int
        Features of a token; a multiple of twice ``n_heads``.
    n_heads : int
        Even: half for the steps, half for the streams.
    longest : float
        See `afterimage.networks.transformer.rotary_angles`.
    """

    def __init__(self, n_features: int, n_heads: int, longest: float = 100.0) -> None:
        super().__init__()
        self.n_heads, self.longest = n_heads, longest
        self.norm_attention, self.norm_mlp = nn.RMSNorm(n_features), nn.RMSNorm(n_features)
        self.qkv = nn.Linear(n_features, 3 * n_features)
        self.project = nn.Linear(n_features, n_features)
        self.rise = nn.Linear(n_features, 4 * n_features)
        self.fall = nn.Linear(4 * n_features, n_features)

    def forward(self, tokens: Tensor, known: Tensor) -> Tensor:
        """Return tokens that know of each other.

        Parameters
        ----------
        tokens : Tensor, (n, n_streams, n_steps, n_features)
        known : Tensor of bool, (n, n_streams)
            Streams that are there.
        """
        n, _, n_steps, _ = tokens.shape
        parts = self.qkv(self.norm_attention(tokens)).unflatten(-1, (3, self.n_heads, -1))
        # (n, streams, steps, 3, heads, f), cut into the heads over steps and those over streams;
        # fused kernels of attention take four axes, no more.
        over_steps, over_streams = parts.chunk(2, dim=4)
        query, key, value = over_steps.flatten(0, 1).permute(2, 0, 3, 1, 4)
        times = torch.arange(n_steps, device=tokens.device)
        angles = rotary_angles(times, query.shape[-1], self.longest)
        along = scaled_dot_product_attention(rotate(query, angles), rotate(key, angles), value)
        along = along.transpose(1, 2).unflatten(0, (n, -1))  # (n, streams, steps, heads, f)
        query, key, value = over_streams.transpose(1, 2).flatten(0, 1).permute(2, 0, 3, 1, 4)
        seen = known.repeat_interleave(n_steps, dim=0)[:, None, None]
        alone = tokens.shape[1] == 1  # a stream alone has nothing to look at but itself
        across = value if alone else scaled_dot_product_attention(query, key, value, seen)
        across = across.permute(0, 2, 1, 3).unflatten(0, (n, -1)).transpose(1, 2)
        tokens = tokens + self.project(torch.cat([along, across], dim=3).flatten(3))
        return tokens + self.fall(gelu(self.rise(self.norm_mlp(tokens))))


class TokenGrid(nn.Module):
    """Codes in, what they could be out.

    Parameters
    ----------
    codebooks : ndarray of float, (n_stages, codebook_size, n_dimensions)
        The vectors of the codes, which stay as they are.
    n_names : int
        Streams with a vector of their own; stream 0 is any other.
    n_features, n_layers, n_heads : int
        Of the blocks.
    """

    codebooks: Tensor
    values: Tensor
    targets: Tensor

    def __init__(
        self,
        codebooks: NDArray[np.floating],
        n_names: int,
        *,
        n_features: int,
        n_layers: int,
        n_heads: int,
    ) -> None:
        super().__init__()
        vectors = torch.from_numpy(np.array(codebooks, np.float32))
        self.register_buffer("codebooks", vectors)
        # What all codes share says nothing: each stage without its mean, at a variance of 1.
        centred = vectors - vectors.mean(1, keepdim=True)
        scale = centred.square().mean((1, 2), keepdim=True).sqrt().clamp(min=1e-6)
        self.register_buffer("values", centred / scale[0], persistent=False)
        self.register_buffer("targets", centred / scale, persistent=False)
        n_stages, codebook_size, n_dimensions = vectors.shape
        self.n_stages = n_stages
        self.value = new_maps(n_names, n_dimensions, n_features)
        self.absent = nn.Parameter(0.02 * torch.randn(n_features))
        self.stream = nn.Embedding(n_names + 1, n_features)
        nn.init.normal_(self.stream.weight, std=0.5)
        self.blocks = nn.ModuleList(SplitBlock(n_features, n_heads) for _ in range(n_layers))
        self.norm = nn.RMSNorm(n_features)
        self.read = new_maps(n_names, n_features, n_stages * n_dimensions)
        self.frequency = nn.Parameter(torch.zeros(n_stages, codebook_size))

    def forward(
        self,
        codes: Tensor,
        hidden: Tensor,
        streams: Tensor,
        known: Tensor,
        wanted: Tensor | None = None,
    ) -> Tensor:
        """Return logits (n, n_streams, n_steps, n_stages, codebook_size); see `layers`.

        With ``wanted`` bool (n, n_streams, n_steps), (n_wanted, n_stages, codebook_size) of these.
        """
        found = self.layers(codes, hidden, streams, known)[-1]
        maps = self.read(streams).unflatten(-1, (found.shape[-1], -1))
        vectors = (self.norm(found) @ maps).unflatten(-1, (self.n_stages, -1))
        vectors = vectors if wanted is None else vectors[wanted]
        # How near a code is to the vector that is expected, and how frequent it is.
        near = torch.einsum("...sd,skd->...sk", vectors, self.targets)
        return near / self.targets.shape[-1] ** 0.5 + self.frequency

    def embed(self, codes: Tensor, hidden: Tensor, streams: Tensor, known: Tensor) -> Tensor:
        """Return what the last block but one makes of tokens, at length 1; see `layers`."""
        layers = self.layers(codes, hidden, streams, known)
        return normalize(layers[max(0, len(layers) - 2)].float(), dim=-1)

    def layers(
        self, codes: Tensor, hidden: Tensor, streams: Tensor, known: Tensor
    ) -> Sequence[Tensor]:
        """Return the tokens after each block, (n, n_streams, n_steps, n_features) each.

        Parameters
        ----------
        codes : Tensor of int64, (n, n_streams, n_steps, n_stages)
        hidden : Tensor of bool, (n, n_streams, n_steps)
            Tokens whose codes are not looked at.
        streams : Tensor of int64, (n, n_streams)
            Number of the name of each stream.
        known : Tensor of bool, (n, n_streams)
        """
        stages = zip(self.values, codes.unbind(-1), strict=True)
        vectors = torch.stack([book[stage] for book, stage in stages]).sum(0)
        maps = self.value(streams).unflatten(-1, (vectors.shape[-1], -1))
        tokens = torch.where(hidden[..., None], self.absent, vectors @ maps)
        tokens = tokens + self.stream(streams)[:, :, None]
        found = []
        for block in self.blocks:
            tokens = block(tokens, known)
            found.append(tokens)
        return found


def new_maps(n_names: int, n_in: int, n_out: int) -> nn.Embedding:
    """Return a linear map a stream, (n_names + 1, n_in * n_out), all alike at the start."""
    maps = nn.Embedding(n_names + 1, n_in * n_out)
    first = torch.randn(n_in * n_out) * (2 / (n_in + n_out)) ** 0.5
    with torch.no_grad():
        maps.weight.copy_(first.expand_as(maps.weight))
    return maps
