"""Predicted pixels are shown as they are, clipped; other methods of one picture a row likewise."""

from __future__ import annotations

import numpy as np

from afterimage.reconstruction.linear_pixels import LinearPixels, LinearPixelsSettings
from afterimage.reconstruction.registry import Material


def test_pixels_are_clipped_and_rounded():
    predicted = np.array([[-0.2, 0.5, 1.4] * 4], dtype=np.float32)
    material = Material(["a"], 0, {"pixels": (2, 2, 3)}, {}, lambda index: np.zeros(0), {})
    images, details = LinearPixels(LinearPixelsSettings()).reconstruct(
        {"pixels": predicted}, material
    )
    assert images[0].dtype == np.uint8
    np.testing.assert_array_equal(images[0], np.tile([0, 128, 255], (2, 2, 1)))
    assert details == [{}]
