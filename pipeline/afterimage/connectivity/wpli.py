"""Weighted phase lag index (Vinck 2011, doi:10.1016/j.neuroimage.2011.01.055), by mne-connectivity.

The plain index: it is above 0 for independent signals, the more so the fewer windows there are.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from afterimage.connectivity.registry import CONNECTIVITY
from afterimage.connectivity.spectral import SpectralMeasure, SpectralSettings


class WeightedPhaseLagSettings(SpectralSettings):
    """Settings of the weighted phase lag index."""

    kind: Literal["wpli"] = Field("wpli", description="Weighted phase lag index.")


@CONNECTIVITY.register("wpli", WeightedPhaseLagSettings)
class WeightedPhaseLag(SpectralMeasure):
    """|E[Im S_ij]| / E[|Im S_ij|] with S_ij = X_i X_j* of one window; the diagonal is 0."""

    stat, method = "wpli", "wpli"
