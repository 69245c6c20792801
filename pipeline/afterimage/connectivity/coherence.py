"""Coherence of sensors (Nunez 1997, doi:10.1016/S0013-4694(97)00066-7), by mne-connectivity.

Fields of one source reach many sensors at once and give coherence that is no connection: read it
beside its imaginary part.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from afterimage.connectivity.registry import CONNECTIVITY
from afterimage.connectivity.spectral import SpectralMeasure, SpectralSettings


class CoherenceSettings(SpectralSettings):
    """Settings of coherence."""

    kind: Literal["coherence"] = Field("coherence", description="Coherence.")


@CONNECTIVITY.register("coherence", CoherenceSettings)
class Coherence(SpectralMeasure):
    """|E[X_i X_j*]| / sqrt(E[|X_i|^2] E[|X_j|^2]), E the mean over windows; the diagonal is 0."""

    stat, method = "coherence", "coh"
