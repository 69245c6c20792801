"""What measures in a band of frequencies have in common: windows, and the spectra of MNE.

Computed by mne-connectivity. What differs: a recording is cut into windows that hold no censored
sample, and these stand for trials.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from pydantic import Field, model_validator

from afterimage.connectivity.measures import Measure, MeasureSettings
from afterimage.errors import InputError


class SpectralSettings(MeasureSettings):
    """Settings of the measures in a band of frequencies."""

    units: Literal["parcels", "sensors", "all"] = Field(
        "sensors", description="recordings it is computed for: parcels, sensors, or all"
    )
    band_hz: tuple[float, float] = Field((8.0, 13.0), description="band of frequencies")
    window_s: float = Field(
        2.0, gt=0, description="length of the windows that the recording is cut into"
    )
    max_windows: int = Field(
        300, ge=2, description="windows used, spread evenly over the recording"
    )

    @model_validator(mode="after")
    def _is_possible(self) -> SpectralSettings:
        low, high = self.band_hz
        if not 0 < low < high:
            raise ValueError("band_hz must be two rising numbers above 0")
        if self.window_s * low < 3:
            raise ValueError("window_s must hold three cycles of the lower edge of band_hz")
        return self


def windows(
    series: np.ndarray, kept: np.ndarray | None, n_samples: int, max_windows: int
) -> np.ndarray:
    """Cut a recording into windows without censored samples.

    Parameters
    ----------
    series : array of shape (n_times, n_units)
    kept : array of bool, shape (n_times,), or None
    n_samples : int
        Length of a window. Windows do not overlap; each starts where the last one, or a censored
        stretch, ends.
    max_windows : int
        Where there are more, these many are taken at even steps.

    Returns
    -------
    array of shape (n_windows, n_units, n_samples), float64
    """
    used = np.ones(len(series), dtype=bool) if kept is None else np.asarray(kept, dtype=bool)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], used.astype(int), [0]])))
    starts = [
        start
        for first, stop in edges.reshape(-1, 2)
        for start in range(first, stop - n_samples + 1, n_samples)
    ]
    if len(starts) > max_windows:
        chosen = np.linspace(0, len(starts) - 1, max_windows).round().astype(int)
        starts = [starts[index] for index in chosen]
    if not starts:
        return np.empty((0, series.shape[1], n_samples))
    cut = [series[start : start + n_samples].T for start in starts]
    return np.stack(cut).astype(np.float64)


class SpectralMeasure(Measure):
    """A measure of mne-connectivity, averaged over the band.

    Attributes
    ----------
    method : str
        Its name there.
    """

    method = ""
    settings: SpectralSettings

    def _matrices(
        self, pairs: Sequence[tuple[np.ndarray, np.ndarray | None]], sampling_rate_hz: float
    ) -> np.ndarray:
        self._check_rate(sampling_rate_hz)
        return np.stack([self._matrix(v, mask, sampling_rate_hz) for v, mask in pairs])

    def _check_rate(self, sampling_rate_hz: float) -> None:
        high = self.settings.band_hz[1]
        if sampling_rate_hz < 2 * high:
            rate = f"{sampling_rate_hz:g} Hz" if sampling_rate_hz else "not known"
            raise InputError(
                "a band of frequencies is not in the series", found=f"sampling rate {rate}",
                expected=f"more than {2 * high:g} Hz for a band up to {high:g} Hz",
                fix="set another band_hz, or leave the measure out",
            )  # fmt: skip

    def _windows(
        self, series: np.ndarray, mask: np.ndarray | None, sampling_rate_hz: float
    ) -> np.ndarray:
        n_samples = round(self.settings.window_s * sampling_rate_hz)
        cut = windows(series, mask, n_samples, self.settings.max_windows)
        if len(cut) < 2:
            raise InputError(
                "a recording is too short for connectivity in a band",
                found=f"{len(cut)} windows of {self.settings.window_s:g} s without bad samples",
                expected="2 or more, better 50", fix="set a shorter window_s, or leave it out",
            )  # fmt: skip
        return cut

    def _matrix(
        self, series: np.ndarray, mask: np.ndarray | None, sampling_rate_hz: float
    ) -> np.ndarray:
        from mne_connectivity import spectral_connectivity_epochs

        cut = self._windows(series, mask, sampling_rate_hz)
        # Sensors in volts are near the smallest numbers that single precision can square.
        cut /= np.maximum(cut.std(axis=(0, 2), keepdims=True), 1e-300)
        low, high = self.settings.band_hz
        found = spectral_connectivity_epochs(
            cut, method=self.method, mode="multitaper", sfreq=sampling_rate_hz,
            fmin=low, fmax=high, faverage=True, verbose="error",
        )  # fmt: skip
        lower = np.abs(found.get_data(output="dense")[:, :, 0])
        return both_triangles(lower)


def both_triangles(lower: np.ndarray) -> np.ndarray:
    """Return a symmetric matrix from its lower triangle, the diagonal 0; float32."""
    lower = np.tril(np.nan_to_num(lower), -1)
    return np.asarray(lower + lower.T, dtype=np.float32)
