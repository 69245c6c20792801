"""Pre-norm transformer encoder (Vaswani et al. 2017, arXiv:1706.03762; Xiong et al. 2020, arXiv:2002.04745).

What differs: time enters through rotary positions (Su et al. 2021, arXiv:2104.09864), so that "the
token before" looks the same anywhere in a recording and recordings may differ in length; tokens of
one time, such as patches of several regions, share their position.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, scaled_dot_product_attention


def rotary_angles(times: Tensor, n_features: int, longest: float) -> Tensor:
    """Angles of rotary positions: wavelengths in geometric steps from 2 pi to ``2 pi longest``.

    Parameters
    ----------
    times : Tensor, (n_tokens,)
        Position of each token, in tokens.
    n_features : int
        Features of a head, even.
    longest : float
        Longest wavelength over 2 pi.

    Returns
    -------
    Tensor, (n_tokens, n_features // 2)
    """
    half = n_features // 2
    rates = longest ** (-torch.arange(half, device=times.device) / max(half - 1, 1))
    return times[:, None].float() * rates


def rotate(values: Tensor, angles: Tensor) -> Tensor:
    """Turn pairs of features by the angles of their tokens: (..., n_tokens, n_features), same shape."""
    first, second = values.chunk(2, dim=-1)
    cos, sin = angles.cos().to(values.dtype), angles.sin().to(values.dtype)
    return torch.cat([first * cos - second * sin, first * sin + second * cos], dim=-1)


class EncoderBlock(nn.Module):
    """Self-attention and a two-layer perceptron, each on normalised input, added to it.

    Parameters
    ----------
    n_features : int
        Features of a token; a multiple of twice ``n_heads``.
    n_heads : int
    longest : float
        See `rotary_angles`.
    """

    def __init__(self, n_features: int, n_heads: int, longest: float = 100.0) -> None:
        super().__init__()
        self.n_heads, self.longest = n_heads, longest
        self.norm_attention, self.norm_mlp = nn.LayerNorm(n_features), nn.LayerNorm(n_features)
        self.qkv = nn.Linear(n_features, 3 * n_features)
        self.project = nn.Linear(n_features, n_features)
        self.rise = nn.Linear(n_features, 4 * n_features)
        self.fall = nn.Linear(4 * n_features, n_features)

    def forward(
        self, tokens: Tensor, times: Tensor | None = None, seen: Tensor | None = None
    ) -> Tensor:
        """Return tokens that know of each other.

        Parameters
        ----------
        tokens : Tensor, (n, n_tokens, n_features)
        times : Tensor, (n_tokens,), optional
            Rotary position of each token; without it the order of tokens means nothing.
        seen : Tensor of bool, (n, 1, 1, n_tokens), optional
            Tokens that others may look at; default: all.

        Returns
        -------
        Tensor, (n, n_tokens, n_features)
        """
        n, n_tokens, n_features = tokens.shape
        parts = self.qkv(self.norm_attention(tokens)).view(n, n_tokens, 3, self.n_heads, -1)
        query, key, value = parts.permute(2, 0, 3, 1, 4)  # each (n, n_heads, n_tokens, n_each)
        if times is not None:
            angles = rotary_angles(times, query.shape[-1], self.longest)
            query, key = rotate(query, angles), rotate(key, angles)
        mixed = scaled_dot_product_attention(query, key, value, seen)
        tokens = tokens + self.project(mixed.transpose(1, 2).reshape(n, n_tokens, n_features))
        return tokens + self.fall(gelu(self.rise(self.norm_mlp(tokens))))


class Encoder(nn.Module):
    """A stack of `EncoderBlock` with a norm at the end.

    Parameters
    ----------
    n_features, n_heads : int
        See `EncoderBlock`.
    n_layers : int
        0 or more.
    norm : bool
        Without it the size of a token is kept.
    """

    def __init__(self, n_features: int, n_layers: int, n_heads: int, *, norm: bool = True) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(EncoderBlock(n_features, n_heads) for _ in range(n_layers))
        self.norm = nn.LayerNorm(n_features) if norm else nn.Identity()

    def forward(self, tokens: Tensor, times: Tensor | None = None) -> Tensor:
        """Encode tokens (n, n_tokens, n_features); same shape."""
        encoded: Tensor = self.norm([tokens, *self.layers(tokens, times)][-1])
        return encoded

    def layers(self, tokens: Tensor, times: Tensor | None = None) -> list[Tensor]:
        """Return the tokens after each block, (n, n_tokens, n_features) each."""
        found = []
        for block in self.blocks:
            tokens = block(tokens, times)
            found.append(tokens)
        return found
