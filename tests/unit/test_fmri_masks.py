"""Masks: found on whole brains, slabs and single slices; brought to a grid, or refused."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from afterimage.errors import InputError
from afterimage.preprocess.fmri.masks import (
    brain_mask,
    intersect,
    roi_voxels,
    to_grid,
    voxel_coordinates,
)

AFFINE = np.diag([3.0, 3.0, 3.0, 1.0])


def ball(shape: tuple[int, ...], radius: float = 0.8) -> np.ndarray:
    """Return an ellipsoid that reaches ``radius`` of the way to each side; a disc on a slice."""
    scaled = [np.linspace(-1, 1, size) if size > 3 else np.zeros(size) for size in shape]
    axes = np.meshgrid(*scaled, indexing="ij")
    return np.asarray(np.sqrt(sum(axis**2 for axis in axes)) <= radius)


def mean_image(inside: np.ndarray) -> np.ndarray:
    rng = np.random.default_rng(0)
    image = np.where(inside, 800.0, 0) + np.abs(rng.normal(0, 20, inside.shape))
    return gaussian_filter(image, 0.5)


@pytest.mark.parametrize("shape", [(32, 34, 28), (24, 28, 16), (40, 20, 1), (30, 30, 3)])
def test_brain_is_found(shape: tuple[int, int, int]) -> None:
    inside = ball(shape)
    mask, notes = brain_mask(mean_image(inside), AFFINE)
    overlap = 2 * (mask & inside).sum() / (mask.sum() + inside.sum())
    assert overlap > 0.93
    assert bool(notes) == (min(shape) <= 4)


def test_no_brain_is_an_error() -> None:
    with pytest.raises(InputError, match="no brain can be found"):
        brain_mask(np.full((10, 10, 10), 5.0), AFFINE, where="sub-01")


def test_nearest_neighbour_to_another_grid() -> None:
    fine = np.zeros((20, 20, 20), dtype=np.int32)
    fine[4:10, 6:12, 8:16] = 2035
    half = np.diag([1.5, 1.5, 1.5, 1.0])
    half[:3, 3] = -0.75  # centre of the first coarse voxel = centre of eight fine ones
    found = to_grid(fine, half, (10, 10, 10), AFFINE, where="dseg.nii.gz")
    assert set(np.unique(found)) == {0, 2035}
    expected = np.zeros((10, 10, 10), dtype=np.int32)
    expected[2:5, 3:6, 4:8] = 2035
    np.testing.assert_array_equal(found, expected)


def test_a_mask_of_another_shape_is_named() -> None:
    with pytest.raises(InputError, match="another shape") as caught:
        to_grid(np.ones((10, 10, 9), dtype=np.uint8), AFFINE, (10, 10, 10), AFFINE, where="m.nii")
    assert caught.value.where == "m.nii"
    assert "(10, 10, 9)" in caught.value.found


def test_a_mask_elsewhere_is_named() -> None:
    far = AFFINE.copy()
    far[:3, 3] = 500
    with pytest.raises(InputError, match="does not overlap"):
        to_grid(np.ones((10, 10, 10), dtype=np.uint8), far, (10, 10, 10), AFFINE, where="m.nii")


def test_a_region_is_what_lies_above_zero() -> None:
    image = np.zeros((4, 4, 4), dtype=np.float32)
    image[0, 0, 0], image[1, 1, 1], image[2, 2, 2] = -1, 0.2, 3
    found = roi_voxels(image, AFFINE, (4, 4, 4), AFFINE, where="roi")
    np.testing.assert_array_equal(np.argwhere(found), [[1, 1, 1], [2, 2, 2]])


def test_intersection() -> None:
    first, second = ball((9, 9, 9)), np.zeros((9, 9, 9), dtype=np.uint8)
    second[:5] = 1
    np.testing.assert_array_equal(intersect([first, second], where=""), first & (second > 0))
    with pytest.raises(InputError, match="share no voxel"):
        intersect([first, ~first], where="sub-01")


def test_coordinates_in_c_order_and_in_scanner_space() -> None:
    mask = np.zeros((3, 4, 5), dtype=bool)
    mask[2, 1, 4] = mask[0, 3, 2] = True
    affine = np.array([[-3.0, 0, 0, 10], [0, 2, 0, -5], [0, 0, 4, 1], [0, 0, 0, 1]])
    found = voxel_coordinates(mask, affine)
    assert found["i"].tolist() == [0, 2]
    assert found["x"].tolist() == [10.0, 4.0]
    assert found["y"].tolist() == [1.0, -3.0]
    assert found["z"].tolist() == [9.0, 17.0]
    assert set(found["kind"]) == {"voxel"}
