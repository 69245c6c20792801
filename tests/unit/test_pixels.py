"""Checks of the pixel block."""

import numpy as np
import pytest

from afterimage.errors import InputError
from afterimage.features.pixels import PixelsEncoder, PixelsSettings


def test_native_size_is_kept_exactly() -> None:
    image = np.random.default_rng(0).integers(0, 256, (8, 8, 3)).astype(np.uint8)
    found = PixelsEncoder(PixelsSettings(size_px=8)).encode([image])
    np.testing.assert_array_equal(found[0], image.astype(np.float32) / np.float32(255))
    assert found.dtype == np.float32


def test_halving_keeps_position_colour_and_mean() -> None:
    image = np.zeros((16, 16, 3), np.uint8)
    image[:8, 8:, 0] = 200
    encoder = PixelsEncoder(PixelsSettings(size_px=4))
    found = encoder.encode([image, image[::-1]])
    assert found.shape == (2, *encoder.shape)
    assert found[0, 0, 3, 0] > 0.7
    assert found[0, 3].max() == 0
    assert found[0, ..., 1:].max() == 0
    np.testing.assert_allclose(found[..., 0].mean((1, 2)), 50 / 255, atol=0.01)
    np.testing.assert_allclose(found[1], found[0, ::-1], atol=0.005)


@pytest.mark.parametrize(
    "image", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((4, 4, 4), np.uint8)]
)
def test_anything_but_rgb_bytes_is_refused(image: np.ndarray) -> None:
    with pytest.raises(InputError, match="8-bit RGB"):
        PixelsEncoder(PixelsSettings()).encode([image])
