"""A transformer over the tokens of all channels as one sequence, as in TFM-Tokenizer (arXiv:2502.16060).

What differs: attention is exact, time enters through rotary positions, so that recordings may be
longer than those trained on, there is no token of the whole sequence, and streams that a recording
does not have are left out by a mask, so that montages may be mixed in a batch.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import normalize

from afterimage.networks.transformer import EncoderBlock


class TokenSequence(nn.Module):
    """Codes in, what they could be out; see `afterimage.networks.token_grid.TokenGrid`.

    Parameters
    ----------
    codebooks : ndarray of float, (n_stages, codebook_size, n_dimensions)
        Where the vectors of tokens begin; they are learned.
    n_names : int
        Streams with a vector of their own; stream 0 is any other.
    n_features, n_layers, n_heads : int
        Of the blocks.
    """

    codebooks: Tensor

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
        n_stages, codebook_size, n_dimensions = vectors.shape
        self.n_stages = n_stages
        # What all codes share says nothing; what is left begins at a variance of 1.
        centred = vectors - vectors.mean(1, keepdim=True)
        self.code = nn.Parameter(centred / centred.square().mean().sqrt().clamp(min=1e-6))
        self.widen = nn.Linear(n_dimensions, n_features)
        self.absent = nn.Parameter(0.02 * torch.randn(n_features))
        self.stream = nn.Embedding(n_names + 1, n_features)
        nn.init.normal_(self.stream.weight, std=0.5)
        self.blocks = nn.ModuleList(EncoderBlock(n_features, n_heads) for _ in range(n_layers))
        self.norm = nn.LayerNorm(n_features)
        self.read = nn.Linear(n_features, n_stages * codebook_size)

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
        found = found if wanted is None else found[wanted]
        logits: Tensor = self.read(self.norm(found)).unflatten(-1, (self.n_stages, -1))
        return logits

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
        shape = codes.shape[1:3]
        stages = zip(self.code, codes.unbind(-1), strict=True)
        vectors = torch.stack([book[stage] for book, stage in stages]).sum(0)
        tokens = torch.where(hidden[..., None], self.absent, self.widen(vectors))
        tokens = (tokens + self.stream(streams)[:, :, None]).flatten(1, 2)
        times = torch.arange(shape[1], device=codes.device).repeat(shape[0])
        seen = None
        if not bool(known.all()):
            seen = known.repeat_interleave(shape[1], dim=1)[:, None, None]
        found = []
        for block in self.blocks:
            tokens = block(tokens, times, seen)
            found.append(tokens.unflatten(1, shape))
        return found
