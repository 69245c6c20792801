"""A small transformer that cleans image embeddings (DALL-E 2, Ramesh et al. 2022, arXiv:2204.06125).

It is told what a brain says of an image (the condition) and an embedding with noise in it, and says
what the embedding was. What differs: attention looks both ways, and the guess that the brain makes
of the embedding is added to the output, so that an untrained prior is that guess.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from afterimage.networks.transformer import Encoder, rotary_angles

N_TIMES = 1000.0  # the time of a path, 0..1, enters as angles of time steps 0..1000


class PriorTransformer(nn.Module):
    """Embeddings with noise in, embeddings without out.

    Parameters
    ----------
    n_tokens, n_features : int
        Tokens of an embedding, and features of a token.
    n_hidden, n_layers, n_heads : int
        Of the transformer; ``n_hidden`` a multiple of twice ``n_heads``.
    """

    def __init__(
        self, n_tokens: int, n_features: int, *, n_hidden: int, n_layers: int, n_heads: int
    ) -> None:
        super().__init__()
        self.n_tokens, self.n_features, self.n_hidden = n_tokens, n_features, n_hidden
        self.condition = nn.Linear(n_features, n_hidden)
        self.noisy = nn.Linear(n_features, n_hidden)
        self.time = nn.Sequential(nn.Linear(n_hidden, n_hidden), nn.SiLU())
        self.place = nn.Parameter(0.02 * torch.randn(2 * n_tokens + 1, n_hidden))
        self.unknown = nn.Parameter(0.02 * torch.randn(n_tokens, n_hidden))
        self.encoder = Encoder(n_hidden, n_layers, n_heads)
        self.read = nn.Linear(n_hidden, n_features)
        nn.init.zeros_(self.read.weight)
        nn.init.zeros_(self.read.bias)

    def forward(
        self, noisy: Tensor, condition: Tensor, time: Tensor, told: Tensor | None = None
    ) -> Tensor:
        """Guess the embeddings.

        Parameters
        ----------
        noisy, condition : Tensor, (n, n_tokens, n_features)
            Standardised: variance one over all.
        time : Tensor, (n,)
            Share of noise on the path, 0..1.
        told : Tensor of bool, (n,), optional
            Examples that are told the condition; default: all.

        Returns
        -------
        Tensor, (n, n_tokens, n_features)
        """
        angles = rotary_angles(time * N_TIMES, self.n_hidden, N_TIMES)
        clock = self.time(silu(torch.cat([angles.cos(), angles.sin()], dim=-1)))[:, None]
        known = self.condition(condition)
        if told is not None:
            known = torch.where(told[:, None, None], known, self.unknown)
            condition = condition * told[:, None, None]
        tokens = torch.cat([clock, known, self.noisy(noisy)], dim=1) + self.place
        cleaned: Tensor = self.read(self.encoder(tokens)[:, -self.n_tokens :])
        return condition + cleaned
