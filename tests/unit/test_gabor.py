"""Checks of the structural block: tuning, determinism, speed of one image."""

import numpy as np
import pytest

from afterimage.features.gabor import GaborEncoder, GaborSettings, pool_to_grid


@pytest.fixture(scope="module")
def encoder() -> GaborEncoder:
    return GaborEncoder(GaborSettings())


def grating(cycles: float, angle_rad: float, size: int = 64, contrast: float = 0.4) -> np.ndarray:
    y, x = np.mgrid[:size, :size] / size
    wave = np.cos(2 * np.pi * cycles * (x * np.cos(angle_rad) + y * np.sin(angle_rad)))
    grey = np.round(255 * (0.5 + contrast * wave)).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


def luminance_energy(features: np.ndarray) -> np.ndarray:
    """Energies (n, frequency, orientation, grid, grid)."""
    return features[:, :32].reshape(len(features), 4, 8, 8, 8)


@pytest.mark.parametrize("frequency", range(3))
@pytest.mark.parametrize("orientation", range(8))
def test_grating_drives_its_own_channel_most(
    encoder: GaborEncoder, frequency: int, orientation: int
) -> None:
    cycles = encoder.settings.frequencies_cycles_per_image[frequency]
    image = grating(cycles, np.pi * orientation / 8)
    energy = luminance_energy(encoder.encode([image]))[0, :, :, 2:6, 2:6].mean((2, 3))
    assert np.unravel_index(energy.argmax(), energy.shape) == (frequency, orientation)
    opposite = energy[frequency, (orientation + 4) % 8]
    assert energy[frequency, orientation] > 2 * opposite


def test_energy_stands_where_the_pattern_stands(encoder: GaborEncoder) -> None:
    image = np.full((64, 64, 3), 128, np.uint8)
    image[8:16, 40:48] = grating(12, 0)[8:16, 40:48]
    energy = luminance_energy(encoder.encode([image]))[0, 2, 0]
    assert np.unravel_index(energy.argmax(), energy.shape) == (1, 5)
    assert energy[1, 5] > 5 * energy[5:].mean()


def test_phase_does_not_matter_where_contrast_does(encoder: GaborEncoder) -> None:
    first, inverse = grating(6, 0.4), 255 - grating(6, 0.4)
    weak = grating(6, 0.4, contrast=0.1)
    found = luminance_energy(encoder.encode([first, inverse, weak]))
    np.testing.assert_allclose(found[0], found[1], atol=0.02)
    assert found[2].max() < 0.8 * found[0].max()


def test_blank_image_has_no_energy_and_its_luminance(encoder: GaborEncoder) -> None:
    features = encoder.encode([np.full((30, 40, 3), 51, np.uint8)])[0]
    np.testing.assert_allclose(features[:56], 0, atol=1e-3)
    np.testing.assert_allclose(features[56], 0.2 * encoder.settings.grid_gain, rtol=1e-5)
    np.testing.assert_allclose(features[57:], 0, atol=1e-6)


def test_colour_gratings_drive_their_own_channels(encoder: GaborEncoder) -> None:
    wave = grating(6, 0)[..., 0].astype(int) - 128
    red_green = np.stack([128 + wave, 128 - wave, 128 + 0 * wave], -1).astype(np.uint8)
    blue_yellow = np.stack([128 - wave // 2, 128 - wave // 2, 128 + wave], -1).astype(np.uint8)
    found = encoder.encode([red_green, blue_yellow])
    luminance, red, yellow = (
        found[:, start:stop].max((1, 2, 3)) for start, stop in ((0, 32), (32, 44), (44, 56))
    )
    assert red[0] > 2 * luminance[0]
    assert red[0] > 2 * yellow[0]
    assert yellow[1] > 2 * luminance[1]
    assert yellow[1] > 2 * red[1]


def test_the_batch_does_not_change_an_image(encoder: GaborEncoder) -> None:
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (50, 70, 3)).astype(np.uint8) for _ in range(35)]
    together = encoder.encode(images)
    assert together.shape == (35, *encoder.shape)
    assert together.dtype == np.float32
    np.testing.assert_array_equal(encoder.encode(images), together)
    np.testing.assert_allclose(encoder.encode([images[33]])[0], together[33], atol=1e-5)


def test_grid_means_when_the_size_does_not_divide() -> None:
    maps = np.arange(10.0)[None, :] + np.zeros((10, 1))
    pooled = pool_to_grid(maps, 4)
    np.testing.assert_allclose(pooled[0], [0.5, 3.0, 6.0, 8.5])
    np.testing.assert_allclose(pool_to_grid(maps, 10), maps)


def test_without_colour_channels() -> None:
    settings = GaborSettings(color_frequencies_cycles_per_image=(), n_grid=4, size_px=32)
    encoder = GaborEncoder(settings)
    assert encoder.encode([grating(3, 0)]).shape == (1, *encoder.shape) == (1, 35, 4, 4)
