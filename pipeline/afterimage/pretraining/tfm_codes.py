"""TFM-Encoder: masked tokens of all channels together (Pradeepkumar et al. 2025, arXiv:2502.16060).

What differs: half of the tokens of every channel is hidden, where the paper throws a coin for each;
attention is exact and there is no token of the whole sequence, see
`afterimage.networks.token_sequence`. Frames of the tokenizer overlap, so that the neighbours of a
token were made of some of its samples: ``mask: {block_steps: 4}`` hides them with it.
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


class TfmCodesSettings(MaskedTokenSettings):
    """A transformer over the tokens of all channels as one sequence, of the published size."""

    kind: Literal["tfm_codes"] = Field("tfm_codes", description="TFM-Encoder.")
    mask: TokenMaskSettings = Field(
        TokenMaskSettings(share=0.5, random_share=0.0, symmetric=True),
        description="What is hidden: half, then the other half.",
    )
    n_features: int = Field(64, ge=4, description="Features of a token.")
    n_layers: int = Field(4, ge=1, description="Blocks of the network.")
    context_steps: int = Field(32, ge=2, description="Steps of a training example, at most.")
    learning_rate: float = Field(1e-3, gt=0, description="Highest learning rate of AdamW.")


@TOKEN_MODELS.register("tfm_codes", TfmCodesSettings)
class TfmCodes(MaskedTokenModel):
    """Every token looks at all tokens of all channels."""

    settings: TfmCodesSettings

    def new_network(self, codebooks: NDArray[np.floating], n_names: int) -> nn.Module:
        """Return an untrained `afterimage.networks.token_sequence.TokenSequence`."""
        from afterimage.networks.token_sequence import TokenSequence

        settings = self.settings
        if settings.n_features % (2 * settings.n_heads):
            raise ConfigError(
                "heads of attention do not share the features",
                found=f"{settings.n_heads} heads, {settings.n_features} features",
                expected="features a multiple of twice the heads",
                fix="set n_heads or n_features",
            )
        return TokenSequence(
            codebooks,
            n_names,
            n_features=settings.n_features,
            n_layers=settings.n_layers,
            n_heads=settings.n_heads,
        )
