"""Correlation of orthogonalised envelopes (Hipp 2012, doi:10.1038/nn.3101), by mne-connectivity.

What differs: envelopes are correlated within windows, whose correlations are averaged, and plain
envelopes are taken instead of the logarithm of power.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from afterimage.connectivity.registry import CONNECTIVITY
from afterimage.connectivity.spectral import SpectralMeasure, SpectralSettings, both_triangles


class EnvelopeSettings(SpectralSettings):
    """Settings of envelope correlation."""

    kind: Literal["envelope_correlation"] = Field(
        "envelope_correlation", description="Correlation of orthogonalised envelopes."
    )
    window_s: float = Field(
        10.0, gt=0, description="length of the windows that the recording is cut into"
    )


@CONNECTIVITY.register("envelope_correlation", EnvelopeSettings)
class EnvelopeCorrelation(SpectralMeasure):
    """corr(|z_i|, |Im(z_j z_i* / |z_i|)|), both ways, z the analytic signals; the diagonal is 0."""

    stat = "envelopecorrelation"
    settings: EnvelopeSettings

    def _matrix(
        self, series: np.ndarray, mask: np.ndarray | None, sampling_rate_hz: float
    ) -> np.ndarray:
        import mne
        from mne_connectivity import envelope_correlation

        low, high = self.settings.band_hz
        scaled = np.asarray(series, dtype=np.float64).T
        spread = scaled.std(axis=1, keepdims=True)
        scaled = (scaled - scaled.mean(axis=1, keepdims=True)) / np.maximum(spread, 1e-300)
        filtered = mne.filter.filter_data(scaled, sampling_rate_hz, low, high, verbose="error")
        cut = self._windows(filtered.T, mask, sampling_rate_hz)
        found = envelope_correlation(cut, orthogonalize="pairwise", verbose="error")
        matrix = found.combine("mean").get_data(output="dense")[:, :, 0]
        return both_triangles((matrix + matrix.T) / 2)
