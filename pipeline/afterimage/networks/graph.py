"""Graph isomorphism layers on dense graphs (GIN; Xu et al. 2019, arXiv:1810.00826).

What differs: layers are normalised a node (LayerNorm), so that a graph's output depends on no
other graph of the batch. `GraphNetwork` fills in hidden nodes, edges and whole windows of a
sequence of graphs (Choi et al. 2023, arXiv:2312.01994).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from afterimage.networks.masked_series import new_predictor


class DenseGIN(nn.Module):
    r"""Sum the neighbours and itself, then a two-layer perceptron.

    .. math:: H' = \mathrm{MLP}((A + (1 + \epsilon) I) H)

    Parameters
    ----------
    n_inputs, n_outputs : int
        Features of a node before and after.
    """

    def __init__(self, n_inputs: int, n_outputs: int) -> None:
        super().__init__()
        self.epsilon = nn.Parameter(torch.zeros(()))
        self.mlp = nn.Sequential(
            nn.Linear(n_inputs, n_outputs),
            nn.LayerNorm(n_outputs),
            nn.GELU(),
            nn.Linear(n_outputs, n_outputs),
            nn.LayerNorm(n_outputs),
            nn.GELU(),
        )

    def aggregate(self, nodes: Tensor, adjacency: Tensor) -> Tensor:
        """Return (A + (1 + eps) I) H; adjacency (..., n_nodes, n_nodes) has no self-loops."""
        return adjacency @ nodes + (1 + self.epsilon) * nodes

    def forward(self, nodes: Tensor, adjacency: Tensor) -> Tensor:
        """Encode nodes (..., n_nodes, n_inputs) to (..., n_nodes, n_outputs)."""
        encoded: Tensor = self.mlp(self.aggregate(nodes, adjacency))
        return encoded


class GraphNetwork(nn.Module):
    """Graphs of windows to embeddings of their nodes, and back to edges and node features.

    Tokens are (n, n_windows, n_regions, n_regions + n_inputs): a node's row of the adjacency, then
    its features. Edges between two hidden nodes are taken away; a window of which all nodes are
    hidden is interpolated from the embeddings of the windows before and after it.

    Parameters
    ----------
    n_regions, n_inputs : int
        Nodes, and features of a node.
    n_features, n_layers : int
        Features of an embedding; layers of graph convolution.
    temporal_weight : float
        Weight of interpolated windows in the loss; the rest is for hidden nodes and edges.
    """

    def __init__(
        self,
        n_regions: int,
        n_inputs: int,
        *,
        n_features: int,
        n_layers: int,
        temporal_weight: float,
    ) -> None:
        super().__init__()
        self.n_regions, self.temporal_weight = n_regions, temporal_weight
        self.embedding = nn.Parameter(torch.randn(n_regions, n_features) / n_features**0.5)
        self.value = nn.Linear(n_inputs, n_features)
        self.absent = nn.Parameter(0.02 * torch.randn(n_features))
        self.layers = nn.ModuleList(DenseGIN(n_features, n_features) for _ in range(n_layers))
        self.between = nn.Sequential(
            nn.Linear(2 * n_features, 2 * n_features),
            nn.GELU(),
            nn.Linear(2 * n_features, n_features),
        )
        self.edge = nn.Linear(n_features, n_features)
        self.offset = nn.Parameter(torch.zeros(()))
        self.read = nn.Linear(n_features, n_inputs)
        self.predict = new_predictor(n_features)

    def encode(self, tokens: Tensor, hidden: Tensor) -> Tensor:
        """Return embeddings of nodes (n, n_windows, n_regions, n_features)."""
        adjacency, inputs = tokens[..., : self.n_regions], tokens[..., self.n_regions :]
        adjacency = adjacency.masked_fill(hidden[..., None] & hidden[..., None, :], 0.0)
        values = self.value(inputs.masked_fill(hidden[..., None], 0.0))
        nodes = torch.where(hidden[..., None], self.absent.to(values.dtype), values)
        nodes = nodes + self.embedding
        for layer in self.layers:
            nodes = nodes + layer(nodes, adjacency)
        before = torch.cat([nodes[:, :1], nodes[:, :-1]], dim=1)
        after = torch.cat([nodes[:, 1:], nodes[:, -1:]], dim=1)
        filled = self.between(torch.cat([before, after], dim=-1)) + (before + after) / 2
        return torch.where(hidden.all(-1)[..., None, None], filled, nodes)

    def decode(self, latents: Tensor) -> Tensor:
        """Return logits of edges and features of nodes, as tokens are."""
        nodes = self.edge(latents)
        logits = nodes @ nodes.transpose(-1, -2) / nodes.shape[-1] ** 0.5 + self.offset
        return torch.cat([logits, self.read(latents)], dim=-1)

    def embed(self, tokens: Tensor, hidden: Tensor) -> Tensor:
        """Return the embedding of each graph (n, n_windows, n_features ** 2).

        The outer products of every node's own embedding with its latent, averaged: a mean of the
        latents alone would not tell which node has which.
        """
        latents = self.encode(tokens, hidden)
        pooled = torch.einsum("rd,nwre->nwde", self.embedding, latents) / self.n_regions
        return pooled.flatten(2)

    def loss(self, predicted: Tensor, tokens: Tensor, hidden: Tensor, known: Tensor) -> Tensor:
        """Cross-entropy of hidden edges plus squared error of hidden nodes, in space and in time."""
        n_regions = self.n_regions
        own = torch.eye(n_regions, dtype=torch.bool, device=tokens.device)
        hidden = hidden & known
        pairs = hidden[..., None] & hidden[..., None, :] & ~own
        edges = binary_cross_entropy_with_logits(
            predicted[..., :n_regions].float(), tokens[..., :n_regions], reduction="none"
        )
        nodes = (predicted[..., n_regions:].float() - tokens[..., n_regions:]).square().mean(-1)
        whole = hidden.all(-1)[..., None]
        parts = []
        for here in (whole, ~whole):
            inside, at = pairs & here[..., None], hidden & here
            loss = (edges * inside).sum() / inside.sum().clamp(min=1)
            parts.append(loss + (nodes * at).sum() / at.sum().clamp(min=1))
        return self.temporal_weight * parts[0] + (1 - self.temporal_weight) * parts[1]
