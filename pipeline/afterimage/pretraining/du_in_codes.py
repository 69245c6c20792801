"""Masked codes of Du-IN (Zheng et al. 2024, arXiv:2405.11459): half of the tokens tell the other half.

What differs: several regions may be looked at together, by half the heads of attention, so that one
region tells of another; the tokens themselves are what is seen, not the signal that they were made
from. Each token is hidden in one of two looks at an example.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from afterimage.pretraining.brain_omni import token_grid
from afterimage.pretraining.masked_tokens import (
    MaskedTokenModel,
    MaskedTokenSettings,
    TokenMaskSettings,
)
from afterimage.pretraining.registry import TOKEN_MODELS

if TYPE_CHECKING:
    from torch import nn


class DuINCodesSettings(MaskedTokenSettings):
    """A transformer over tokens of regions, of the published size."""

    kind: Literal["du_in_codes"] = Field("du_in_codes", description="Tokens of regions.")
    mask: TokenMaskSettings = Field(
        TokenMaskSettings(share=0.5, random_share=0.0, symmetric=True),
        description="What is hidden: half, then the other half.",
    )
    n_features: int = Field(160, ge=4, description="Features of a token.")
    n_layers: int = Field(8, ge=1, description="Blocks of the network.")


@TOKEN_MODELS.register("du_in_codes", DuINCodesSettings)
class DuINCodes(MaskedTokenModel):
    """Attention over the tokens of a region and over regions."""

    settings: DuINCodesSettings

    def new_network(self, codebooks: NDArray[np.floating], n_names: int) -> nn.Module:
        """Return an untrained `afterimage.networks.token_grid.TokenGrid`."""
        return token_grid(self.settings, codebooks, n_names)
