"""MindEye2 (Scotti et al. 2024, arXiv:2403.11207): a linear layer a subject before one shared network.

Behind a residual perceptron three heads: retrieval (BiMixCo for the first third of the steps, then
SoftCLIP), a prior that turns the guess into an embedding as images have them, and low-level latents
(absolute error and soft contrast). A new subject gets a new linear layer and nothing else is trained
(ridge-only adaptation, the prior's loss kept on), which with little data does better than to
train everything.

What differs: the prior is our own transformer (`networks.prior`), as diffusion or as rectified flow;
with ``prior: none`` a plain head by squared error takes its place. All samples of the prior begin
with the same noise, so that an image is predicted alike alone and among others. The retrieval head
is added to the guess; its blocks begin as the identity; the other heads do not see mixed trials. The
low-level head is a perceptron without convolutions, and its contrast is between the latents
themselves instead of features of a ConvNeXt. The rate falls linearly instead of by a cosine.
Features have variance one, so that the prior weighs 3 and the low level 3 (published: 30 and 0.5, with
features as they are): with 30 the shared layers learned nothing of the low level. Sizes
are by default for a laptop; as published: ``n_hidden`` 4096, ``n_blocks`` 4, ``n_tokens`` 256,
``prior_hidden`` 1664, ``prior_layers`` 6, ``prior_heads`` 32, ``temperature`` .006.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from afterimage.decoding.registry import SHARED_DECODERS
from afterimage.decoding.shared import SharedSettings
from afterimage.decoding.shared_decoder import SharedDecoder
from afterimage.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Self


class MindEyeSettings(SharedSettings):
    """Settings of MindEye2."""

    kind: Literal["mindeye"] = Field("mindeye", description="MindEye2.")
    learning_rate: float = Field(1e-3, gt=0, description="Highest learning rate of AdamW.")
    weight_decay: float = Field(0.3, ge=0, description="Decoupled weight decay of AdamW.")
    n_tokens: int = Field(1, ge=1, description="Tokens that the target's features are cut into.")
    low_level: str = Field(
        "vae", description="Block of the low-level head; empty, or not there: no such head."
    )
    prior: Literal["diffusion", "flow", "none"] = Field(
        "diffusion", description="Path of the prior; none: a head by squared error instead."
    )
    prior_hidden: int = Field(128, ge=8, description="Features of a token inside the prior.")
    prior_layers: int = Field(2, ge=1, description="Blocks of the prior.")
    prior_heads: int = Field(4, ge=1, description="Heads of attention of the prior.")
    prior_steps: int = Field(20, ge=1, description="Steps of sampling; 4 are enough for flow.")
    prior_dropout: float = Field(
        0.2, ge=0, lt=1, description="Share of examples in which the prior is told nothing."
    )
    n_samples: int = Field(1, ge=1, description="Samples of the prior that are averaged.")
    mix_share: float = Field(
        1 / 3, ge=0, le=1, description="Share of the steps with BiMixCo, before SoftCLIP."
    )
    mix_beta: float = Field(0.15, gt=0, description="Of the beta distribution of mixtures.")
    temperature_low: float = Field(0.2, gt=0, description="Of the contrast of the latents.")
    weight_prior: float = Field(3.0, ge=0, description="Weight of the prior's error.")
    weight_contrast: float = Field(1.0, ge=0, description="Weight of the contrast.")
    weight_low: float = Field(3.0, ge=0, description="Weight of the low-level head.")
    weight_low_contrast: float = Field(0.1, ge=0, description="Weight of its contrast therein.")

    @model_validator(mode="after")
    def _heads_fit(self) -> Self:
        if self.prior_hidden % (2 * self.prior_heads):
            raise ValueError(
                f"prior_hidden {self.prior_hidden} is no multiple of twice prior_heads "
                f"{self.prior_heads}"
            )
        return self


@SHARED_DECODERS.register("mindeye", MindEyeSettings)
class MindEyeDecoder(SharedDecoder):
    """Prior, contrast and low level, weighted; see the settings."""

    def _head_blocks(self, sizes: Mapping[str, int]) -> list[str]:
        low = [self.settings.low_level] if self.settings.low_level in sizes else []
        return [self.settings.target, *(name for name in low if name != self.settings.target)]

    def _network(self, n_targets: dict[str, int]) -> Any:
        from afterimage.training.mindeye import EyeSizes, MindEye

        own = self.settings
        n_target = n_targets[own.target]
        if n_target % own.n_tokens:
            raise ConfigError(
                "the target cannot be cut into so many tokens",
                found=f"{n_target} features, {own.n_tokens} tokens",
                expected="a number of tokens that divides the features",
                fix="set `n_tokens` of the decoder",
            )
        names = EyeSizes.__dataclass_fields__
        return MindEye(
            n_targets, EyeSizes(**{name: getattr(own, name) for name in names}), own.random_state
        )
