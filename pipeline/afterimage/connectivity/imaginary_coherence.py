"""Imaginary part of coherency (Nolte 2004, doi:10.1016/j.clinph.2004.04.029), by mne-connectivity.

What differs: its absolute value, so that the matrix is symmetric.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from afterimage.connectivity.registry import CONNECTIVITY
from afterimage.connectivity.spectral import SpectralMeasure, SpectralSettings


class ImaginaryCoherenceSettings(SpectralSettings):
    """Settings of imaginary coherence."""

    kind: Literal["imaginary_coherence"] = Field(
        "imaginary_coherence", description="Imaginary coherence."
    )


@CONNECTIVITY.register("imaginary_coherence", ImaginaryCoherenceSettings)
class ImaginaryCoherence(SpectralMeasure):
    """|Im E[X_i X_j*]| / sqrt(E[|X_i|^2] E[|X_j|^2]): blind to what reaches sensors at once."""

    stat, method = "imaginarycoherence", "imcoh"
