"""BrainMAE (Yang, Mao, Liu & Liu 2024, arXiv:2406.17086): region embeddings, states of segments.

Regions are hidden in each segment at a ratio of their own. What differs: the state of a segment is
read from several weighted sums of its regions, the weights linear in the embeddings (softmax means
all start alike and part slowly); attention starts as the similarity of embeddings; time enters the
transformer over segments through rotary positions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from afterimage.pretraining.masked_model import MaskedModel, MaskedSettings
from afterimage.pretraining.registry import MASKED_MODELS

if TYPE_CHECKING:
    from torch import nn


class BrainMAESettings(MaskedSettings):
    """BrainMAE: attention by region embeddings, states of segments in context."""

    kind: Literal["brain_mae"] = Field("brain_mae", description="BrainMAE.")
    n_layers: int = Field(2, ge=1, description="Layers of the transformer over segments.")
    mixing: Literal["static", "adaptive"] = Field(
        "static",
        description="Blocks over regions: three static ones, or two of self-attention and one.",
    )
    hidden_weight: float = Field(
        0.75, ge=0, le=1, description="Weight of hidden samples in the loss; the rest: visible."
    )


@MASKED_MODELS.register("brain_mae", BrainMAESettings)
class BrainMAE(MaskedModel):
    """Regions mixed by a graph of their embeddings, pooled to states, states read in context."""

    settings: BrainMAESettings

    def new_network(self, n_regions: int) -> nn.Module:
        """Return an untrained `afterimage.networks.masked_series.StateNetwork`."""
        from afterimage.networks.masked_series import StateNetwork

        settings = self.settings
        return StateNetwork(
            n_regions,
            settings.segment_volumes,
            n_features=settings.n_features,
            n_layers=settings.n_layers,
            n_heads=settings.n_heads,
            adaptive=settings.mixing == "adaptive",
            hidden_weight=settings.hidden_weight,
        )

    def region_embedding(self) -> NDArray[np.float32]:
        """Return the learned embedding of each region, (n_regions, n_features)."""
        values: NDArray[np.float32] = self.network_.embedding.detach().float().numpy().copy()
        return values
