"""A plain masked transformer over patches of parcels (BrainLM, doi:10.1101/2023.09.12.557460).

Ortega Caro et al. 2024. What differs: time enters through rotary positions; a patch holds all
parcels of a segment unless told otherwise, since patches of one parcel need far more training
before attention finds what happens at the same time. It is the yardstick of the other models.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from afterimage.errors import ConfigError
from afterimage.pretraining.masked_model import MaskedModel, MaskedSettings
from afterimage.pretraining.registry import MASKED_MODELS
from afterimage.training.masks import MaskSettings

if TYPE_CHECKING:
    from torch import nn


class ParcelPatchesSettings(MaskedSettings):
    """A plain transformer over patches of parcels, the yardstick."""

    kind: Literal["parcel_patches"] = Field("parcel_patches", description="Plain transformer.")
    mask: MaskSettings = Field(
        MaskSettings(kind="segments", low=0.25, high=0.25),
        description="What is hidden in training.",
    )
    regions_per_patch: int = Field(0, ge=0, description="Regions of a patch; 0: all of them.")
    hidden_weight: float = Field(
        1.0,
        ge=0,
        le=1,
        description="Weight of hidden samples in the loss; the rest: visible ones.",
    )


@MASKED_MODELS.register("parcel_patches", ParcelPatchesSettings)
class ParcelPatches(MaskedModel):
    """Patches of some regions by one segment, one transformer, one linear read-out a patch."""

    settings: ParcelPatchesSettings

    def new_network(self, n_regions: int) -> nn.Module:
        """Return an untrained `afterimage.networks.masked_series.PatchNetwork`."""
        from afterimage.networks.masked_series import PatchNetwork

        settings = self.settings
        size = settings.regions_per_patch or n_regions
        if n_regions % size:
            raise ConfigError(
                "patches do not fit the regions",
                found=f"{n_regions} regions, {size} a patch",
                expected="a divisor of the number of regions",
                fix="set regions_per_patch to 0 (all) or 1",
            )
        return PatchNetwork(
            n_regions,
            settings.segment_volumes,
            n_features=settings.n_features,
            n_layers=settings.n_layers,
            n_heads=settings.n_heads,
            regions_per_patch=size,
            hidden_weight=settings.hidden_weight,
        )
