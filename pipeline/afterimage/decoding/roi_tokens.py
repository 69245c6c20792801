"""ROITok (CVPR 2026): a token for each region of a brain, half of them hidden in training.

Every region of a subject is embedded linearly into a token; in each trial some tokens are hidden,
all are cut short at random (nested embeddings), and one residual perceptron says from the rest what
was seen: the target by SoftCLIP and squared error, low-level latents by absolute error. It also
says what the hidden regions did, which makes it a masked autoencoder. Since it learned to do without
any region, whole networks can be hidden afterwards (`without`) and what is lost be measured.

What differs: no code of it is public; tokens are joined by one linear layer with a learned vector
where a region is hidden or not known of a subject; the filling in of hidden regions is ours; while
a new subject is adapted nothing is hidden, since it has few trials as it is. Sizes are by default
for a laptop; as published: ``n_token`` 400, ``n_blocks`` 8.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from afterimage.decoding.registry import SHARED_DECODERS
from afterimage.decoding.shared import SharedSettings, SubjectData
from afterimage.decoding.shared_decoder import SharedDecoder
from afterimage.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from typing import Self


class RoiTokensSettings(SharedSettings):
    """Settings of region tokens."""

    kind: Literal["roi_tokens"] = Field("roi_tokens", description="A token a region (ROITok).")
    low_level: str = Field(
        "vae", description="Block of the low-level head; empty, or not there: no such head."
    )
    n_token: int = Field(64, ge=8, description="Features of a region's token.")
    mask_share: float = Field(0.5, ge=0, lt=1, description="Share of regions hidden in training.")
    nested: bool = Field(True, description="Cut tokens short at random (nested embeddings).")
    weight_error: float = Field(
        1.0, ge=0, description="Weight of the squared error of the target."
    )
    weight_low: float = Field(1.0, ge=0, description="Weight of the error of the latents.")
    weight_fill: float = Field(0.1, ge=0, description="Weight of filling in hidden regions.")


@SHARED_DECODERS.register("roi_tokens", RoiTokensSettings)
class RoiTokensDecoder(SharedDecoder):
    """SoftCLIP and squared error from the tokens of the regions that are shown."""

    @property
    def regions(self) -> list[str]:
        """Names of the regions, in the order of their tokens."""
        return [key.split("/", 2)[2] for key in self._state if key.startswith("region/")]

    def without(self, regions: Collection[str]) -> Self:
        """Return a copy that does not look at these regions, of any subject."""
        if unknown := sorted(set(regions) - set(self.regions)):
            raise InputError(
                "regions that the decoder does not know",
                where="decoder without",
                found=", ".join(unknown),
                expected=", ".join(self.regions),
            )
        import torch

        other = type(self).from_state(self.settings, self._state)
        shown = [name not in set(regions) for name in self.regions]
        other._model.shown = torch.tensor(shown)
        return other

    def _scale(self, name: str, data: SubjectData) -> None:
        super()._scale(name, data)
        n_units = data.responses.shape[1]
        own = np.full(n_units, "n/a") if data.regions is None else np.asarray(data.regions, str)
        if not self._model:  # before the fit: every region of every subject has its token
            for region in sorted(set(own.tolist()) - set(self.regions)):
                self._state[f"region/{len(self.regions):04d}/{region}"] = np.ones(1, np.float32)
        number = {region: i for i, region in enumerate(self.regions)}
        self._state[f"unit_region/{name}"] = np.array([number.get(r, -1) for r in own], np.float32)

    def _add(self, model: Any, subject: str) -> None:
        import torch

        super()._add(model, subject)
        numbers = self._state[f"unit_region/{subject}"].astype(np.int64)
        model.layers(subject).region.copy_(torch.from_numpy(numbers))

    def _head_blocks(self, sizes: Mapping[str, int]) -> list[str]:
        low = [self.settings.low_level] if self.settings.low_level in sizes else []
        return [self.settings.target, *(name for name in low if name != self.settings.target)]

    def _network(self, n_targets: dict[str, int]) -> Any:
        from afterimage.training.roi_tokens import RoiTokens, TokenSizes

        names = TokenSizes.__dataclass_fields__
        sizes = TokenSizes(**{name: getattr(self.settings, name) for name in names})
        return RoiTokens(n_targets, len(self.regions), sizes)
