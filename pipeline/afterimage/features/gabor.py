"""A Gabor energy pyramid with colour (Kay et al. 2008, doi:10.1038/nature06713).

What differs: log-Gabor filters (Field 1987, doi:10.1364/JOSAA.4.002379) applied in the Fourier
domain instead of space, energy of two colour-opponent images beside luminance, the three images
themselves on the same grid, and logarithmic compression. No filter is fitted to data.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field

from afterimage.features.pixels import resize_images
from afterimage.features.registry import ENCODERS
from afterimage.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Sequence

BATCH_IMAGES = 32  # images filtered together: bounds the memory, does not change the result


class GaborSettings(Settings):
    """Settings of the structural block."""

    kind: Literal["gabor"] = Field("gabor", description="Oriented energy, colour and luminance.")
    size_px: int = Field(64, ge=16, le=512, description="Images are resized to this square.")
    n_grid: int = Field(8, ge=1, le=64, description="Cells along each side of the pooling grid.")
    frequencies_cycles_per_image: tuple[float, ...] = Field(
        (3.0, 6.0, 12.0, 22.0), min_length=1, description="Centre frequencies for luminance."
    )
    n_orientations: int = Field(8, ge=1, le=32, description="Orientations for luminance.")
    color_frequencies_cycles_per_image: tuple[float, ...] = Field(
        (3.0, 6.0, 12.0), description="Centre frequencies for red-green and yellow-blue."
    )
    n_color_orientations: int = Field(4, ge=1, le=32, description="Orientations for colour.")
    energy_floor: float = Field(
        0.01, gt=0, description="Energy at which the logarithmic compression sets in."
    )
    color_gain: float = Field(0.55, ge=0, description="Weight of the colour energies.")
    grid_gain: float = Field(8.0, ge=0, description="Weight of the luminance and colour grid.")


def log_gabor_filters(size_px: int, wavelengths_px: np.ndarray, n_orientations: int) -> np.ndarray:
    """Transfer functions of analytic log-Gabor filters on a square FFT grid.

    A filter passes half the plane, so its output is complex and the modulus is the amplitude of a
    quadrature pair: G(r, t) = 2 exp(-ln(r / f)^2 / (2 s^2)) exp(-d(t)^2 / (2 b^2)), with
    s = -ln(0.55) (about two octaves) and b = 0.7 pi / n_orientations. Orientation k has its
    frequency vector at angle pi k / n_orientations from the x axis: 0 answers to vertical bars.

    Returns
    -------
    float32, (n_wavelengths, n_orientations, size_px, size_px)
    """
    freq = np.fft.fftfreq(size_px)
    radius = np.hypot(freq[:, None], freq[None])
    radius[0, 0] = 1.0  # the mean is removed below
    angle = np.arctan2(freq[:, None], freq[None])
    centres = 1.0 / np.asarray(wavelengths_px, float)[:, None, None]
    radial = np.exp(-(np.log(radius / centres) ** 2) / (2 * np.log(0.55) ** 2))
    radial[:, 0, 0] = 0.0
    orientations = np.pi * np.arange(n_orientations)[:, None, None] / n_orientations
    away = np.arctan2(np.sin(angle - orientations), np.cos(angle - orientations))
    angular = np.exp(-(away**2) / (2 * (0.7 * np.pi / n_orientations) ** 2))
    return (2 * radial[:, None] * angular[None]).astype(np.float32)


def pool_to_grid(maps: np.ndarray, n_grid: int) -> np.ndarray:
    """Mean of each cell: (..., size, size) to (..., n_grid, n_grid); cells may differ by 1 px."""
    size = maps.shape[-1]
    edges = np.round(np.linspace(0, size, n_grid + 1)).astype(int)
    averaging = np.zeros((n_grid, size), maps.dtype)
    for cell, (start, stop) in enumerate(pairwise(edges)):
        averaging[cell, start:stop] = 1 / (stop - start)
    return averaging @ maps @ averaging.T


def opponent_channels(images: np.ndarray) -> np.ndarray:
    """Luminance, red-green and yellow-blue: float32 (n, h, w, 3) to (n, 3, h, w)."""
    red, green, blue = np.moveaxis(images, -1, 0)
    yellow = (red + green) / 2
    return np.stack([(red + green + blue) / 3, red - green, yellow - blue], axis=1)


@ENCODERS.register("gabor", GaborSettings)
class GaborEncoder:
    """Log-compressed oriented energy of luminance and colour, and their means, on one grid."""

    def __init__(self, settings: GaborSettings, device: str = "cpu") -> None:
        self.settings = settings
        self._margin_px = settings.size_px // 4
        self._filters = self._make(settings.frequencies_cycles_per_image, settings.n_orientations)
        self._color_filters = self._make(
            settings.color_frequencies_cycles_per_image, settings.n_color_orientations
        )

    def _make(self, frequencies: tuple[float, ...], n_orientations: int) -> np.ndarray:
        wavelengths_px = self.settings.size_px / np.asarray(frequencies, float)
        padded_px = self.settings.size_px + 2 * self._margin_px
        return log_gabor_filters(padded_px, wavelengths_px, n_orientations)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one stimulus' features: (n_channels, n_grid, n_grid).

        Channels in order: luminance energy (frequency, then orientation), red-green energy,
        yellow-blue energy (likewise), luminance, red-green, yellow-blue.
        """
        settings = self.settings
        n_energy = len(settings.frequencies_cycles_per_image) * settings.n_orientations
        n_color = len(settings.color_frequencies_cycles_per_image) * settings.n_color_orientations
        return (n_energy + 2 * n_color + 3, settings.n_grid, settings.n_grid)

    def encode(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Return float32 (n, n_channels, n_grid, n_grid) for a list of uint8 (h, w, 3)."""
        features = np.empty((len(images), *self.shape), np.float32)
        for start in range(0, len(images), BATCH_IMAGES):
            batch = resize_images(images[start : start + BATCH_IMAGES], self.settings.size_px)
            features[start : start + len(batch)] = self._encode_batch(batch)
        return features

    def _encode_batch(self, batch: np.ndarray) -> np.ndarray:
        settings = self.settings
        channels = opponent_channels(batch)
        grid = pool_to_grid(channels, settings.n_grid) * settings.grid_gain
        energies = [self._energy(channels[:, 0], self._filters)]
        if settings.color_frequencies_cycles_per_image:
            for channel in (1, 2):
                energy = self._energy(channels[:, channel], self._color_filters)
                energies.append(energy * settings.color_gain)
        return np.concatenate([*energies, grid], axis=1)

    def _energy(self, channel: np.ndarray, filters: np.ndarray) -> np.ndarray:
        """Pooled log amplitude, (n, n_frequencies * n_orientations, n_grid, n_grid)."""
        from scipy.fft import fft2, ifft2

        margin, n_grid = self._margin_px, self.settings.n_grid
        # mirrored borders: a zero border would be an edge at every photograph's rim
        mirrored = np.pad(channel, ((0, 0), (margin, margin), (margin, margin)), mode="reflect")
        spectra = fft2(mirrored - mirrored.mean((1, 2), keepdims=True))
        pooled = np.empty((len(channel), *filters.shape[:2], n_grid, n_grid), np.float32)
        for row, spectrum in enumerate(spectra):
            amplitude = np.abs(ifft2(spectrum * filters))
            pooled[row] = pool_to_grid(amplitude[..., margin:-margin, margin:-margin], n_grid)
        compressed = np.log1p(pooled / np.float32(self.settings.energy_floor))
        return compressed.reshape(len(channel), -1, n_grid, n_grid)
