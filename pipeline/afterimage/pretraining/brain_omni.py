"""BrainOmni (Xiao et al. 2025, arXiv:2505.18185): masked tokens of latent sources of EEG and MEG.

What differs: hidden are whole windows of a source, not single steps, since the steps of a window
were encoded together; layers normalise without a bias as in the paper, and activations are GELU.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from afterimage.errors import ConfigError
from afterimage.pretraining.masked_tokens import (
    MaskedTokenModel,
    MaskedTokenSettings,
    TokenMaskSettings,
)
from afterimage.pretraining.registry import TOKEN_MODELS

if TYPE_CHECKING:
    from torch import nn


class BrainOmniSettings(MaskedTokenSettings):
    """A transformer over sources and time, each with half the heads."""

    kind: Literal["brain_omni"] = Field("brain_omni", description="Split attention.")
    mask: TokenMaskSettings = Field(
        TokenMaskSettings(block_steps=8), description="What is hidden; a window has 8 steps."
    )


@TOKEN_MODELS.register("brain_omni", BrainOmniSettings)
class BrainOmni(MaskedTokenModel):
    """Split space-time attention over tokens of sources."""

    settings: BrainOmniSettings

    def new_network(self, codebooks: NDArray[np.floating], n_names: int) -> nn.Module:
        """Return an untrained `afterimage.networks.token_grid.TokenGrid`."""
        return token_grid(self.settings, codebooks, n_names)


def token_grid(
    settings: MaskedTokenSettings, codebooks: NDArray[np.floating], n_names: int
) -> nn.Module:
    """Return an untrained `afterimage.networks.token_grid.TokenGrid` of the size in settings."""
    from afterimage.networks.token_grid import TokenGrid

    if settings.n_heads % 2 or settings.n_features % (2 * settings.n_heads):
        raise ConfigError(
            "heads of attention do not share the features",
            found=f"{settings.n_heads} heads, {settings.n_features} features",
            expected="an even number of heads, and features a multiple of twice the heads",
            fix="set n_heads or n_features",
        )
    return TokenGrid(
        codebooks,
        n_names,
        n_features=settings.n_features,
        n_layers=settings.n_layers,
        n_heads=settings.n_heads,
    )
