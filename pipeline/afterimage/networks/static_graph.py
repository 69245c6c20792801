"""Attention of regions that depends on who they are, not on what they do (BrainMAE, arXiv:2406.17086).

Yang, Mao, Liu & Liu 2024. What differs: the weights of one head are one matrix for the whole batch,
so mixing is a matrix product; hidden regions are left out by weighing and dividing once more.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu


class StaticGraphAttention(nn.Module):
    r"""Mix the regions of a segment by a graph made of their embeddings alone.

    .. math:: \alpha_{ij} \propto \exp(\langle W_q e_i, W_k e_j \rangle / \sqrt{d_h}),
        \quad \alpha_{ii} = 0

    Parameters
    ----------
    n_features : int
        Features of a region's token and of its embedding.
    n_heads : int
    """

    def __init__(self, n_features: int, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.query = nn.Linear(n_features, n_features)
        self.key = nn.Linear(n_features, n_features)
        for layer in (self.query, self.key):  # the graph starts as the similarity of embeddings
            nn.init.eye_(layer.weight)
            nn.init.zeros_(layer.bias)
        self.value = nn.Linear(n_features, n_features)
        self.project = nn.Linear(n_features, n_features)

    def graph(self, embedding: Tensor) -> Tensor:
        """Return the weights (n_heads, n_regions, n_regions): rows sum to 1, the diagonal is 0."""
        n_regions, n_features = embedding.shape
        shape = (n_regions, self.n_heads, n_features // self.n_heads)
        query, key = (
            layer(embedding).view(shape).transpose(0, 1) for layer in (self.query, self.key)
        )
        scores = query @ key.transpose(1, 2) / math.sqrt(shape[-1])
        own = torch.eye(n_regions, dtype=torch.bool, device=scores.device)
        return scores.masked_fill(own, -math.inf).softmax(-1)

    def forward(self, tokens: Tensor, embedding: Tensor, visible: Tensor) -> Tensor:
        """Mix tokens.

        Parameters
        ----------
        tokens : Tensor, (n, n_regions, n_features)
        embedding : Tensor, (n_regions, n_features)
        visible : Tensor of bool, (n, n_regions)
            Regions that may be looked at; a region that sees none gets 0.

        Returns
        -------
        Tensor, (n, n_regions, n_features)
        """
        n, n_regions, _ = tokens.shape
        alpha = self.graph(embedding)
        seen = visible.to(alpha.dtype)
        value = (self.value(tokens) * seen[..., None]).view(n, n_regions, self.n_heads, -1)
        mixed = torch.einsum("hij,njhd->nihd", alpha, value)
        weight = torch.einsum("hij,nj->nih", alpha, seen)[..., None]
        return self.project((mixed / weight.clamp(min=1e-6)).flatten(2))


class StaticGraphBlock(nn.Module):
    """`StaticGraphAttention` and a two-layer perceptron, each on normalised input, added to it.

    Parameters
    ----------
    n_features, n_heads : int
        See `StaticGraphAttention`.
    """

    def __init__(self, n_features: int, n_heads: int) -> None:
        super().__init__()
        self.norm_attention, self.norm_mlp = nn.LayerNorm(n_features), nn.LayerNorm(n_features)
        self.attention = StaticGraphAttention(n_features, n_heads)
        self.rise = nn.Linear(n_features, 2 * n_features)
        self.fall = nn.Linear(2 * n_features, n_features)

    def forward(self, tokens: Tensor, embedding: Tensor, visible: Tensor) -> Tensor:
        """Encode the regions of segments; see `StaticGraphAttention.forward`."""
        tokens = tokens + self.attention(self.norm_attention(tokens), embedding, visible)
        return tokens + self.fall(gelu(self.rise(self.norm_mlp(tokens))))
