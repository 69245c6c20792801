"""Residual perceptrons that several subjects share, with the norm before or behind the linear layer."""

from __future__ import annotations

from torch import Tensor, nn


class ResidualMLP(nn.Module):
    """Blocks of linear layers, each added to its input.

    Parameters
    ----------
    n_features, n_blocks : int
    dropout : float
        Share of values that a block hides in training.
    norm_first : bool
        LayerNorm, linear, GELU, dropout, linear (MindEye2, Scotti et al. 2024, arXiv:2403.11207), or
        linear, LayerNorm, GELU, dropout (MindBridge, Wang et al. 2024, arXiv:2404.07850).
    """

    def __init__(
        self, n_features: int, n_blocks: int, dropout: float, *, norm_first: bool
    ) -> None:
        super().__init__()

        def block() -> nn.Module:
            rest = [nn.GELU(), nn.Dropout(dropout)]
            if not norm_first:
                norm = nn.LayerNorm(n_features)
                return nn.Sequential(nn.Linear(n_features, n_features), norm, *rest)
            last = nn.Linear(n_features, n_features)
            # A block begins as the identity: what it adds has to be worth it.
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
            first = [nn.LayerNorm(n_features), nn.Linear(n_features, n_features)]
            return nn.Sequential(*first, *rest, last)

        self.blocks = nn.ModuleList(block() for _ in range(n_blocks))

    def forward(self, values: Tensor) -> Tensor:
        """Map (n, n_features) to (n, n_features)."""
        for block in self.blocks:
            values = values + block(values)
        return values
