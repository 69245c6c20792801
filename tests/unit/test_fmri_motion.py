"""Head motion: conventions, geometry, and what happens where nothing can be estimated."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from afterimage.preprocess.fmri.finite import FiniteFilter
from afterimage.preprocess.fmri.motion import (
    MotionEstimator,
    MotionTracker,
    robust_mean,
    unsteady_volumes,
)
from afterimage.preprocess.fmri.resampling import (
    Resampler,
    apply,
    mass_center,
    matrix_to_parameters,
    parameters_to_matrix,
    smooth,
)

AFFINE = np.array([[-3.0, 0, 0, 40], [0, 3.0, 0, -35], [0, 0, 3.5, -20], [0, 0, 0, 1]])
SHAPE = (22, 24, 14)


def blob(seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    axes = np.meshgrid(*[np.linspace(-1, 1, size) for size in SHAPE], indexing="ij")
    inside = sum(axis**2 for axis in axes) < 0.8
    texture = gaussian_filter(rng.standard_normal(SHAPE), 1.3)
    return np.where(inside, 700 + 100 * texture / texture.std(), 10).astype(np.float32)


def test_parameters_round_trip() -> None:
    center = np.array([5.0, -20, 30])
    parameters = np.array([1.0, -2, 3, 0.1, -0.2, 0.3])
    matrix = parameters_to_matrix(parameters, center)
    np.testing.assert_allclose(matrix_to_parameters(matrix, center), parameters, atol=1e-12)
    np.testing.assert_allclose(matrix[:3, :3] @ matrix[:3, :3].T, np.eye(3), atol=1e-12)


def test_sign_convention() -> None:
    """A head that moves by +3 mm along x has trans_x = +3, also where voxels run backwards."""
    image = blob()
    moved = np.roll(image, -1, axis=0)  # one voxel of -3 mm: +3 mm
    estimator = MotionEstimator(image, AFFINE)
    fit = estimator.estimate(moved, AFFINE, [np.eye(4)], coarse=True)
    np.testing.assert_allclose(estimator.parameters(fit.matrix)[:3], [3, 0, 0], atol=0.02)
    assert fit.converged


def test_rotation_convention() -> None:
    """rot_z > 0 turns x towards y, about the centre of the grid."""
    turn = parameters_to_matrix(np.array([0, 0, 0, 0, 0, 0.1]), np.zeros(3))
    np.testing.assert_allclose(
        apply(turn, np.array([[1.0], [0], [0]]))[:, 0], [np.cos(0.1), np.sin(0.1), 0]
    )


def test_sampling_in_place_changes_nothing() -> None:
    image = blob()
    index = np.argwhere(image > 300)
    resampler = Resampler(index, AFFINE)
    np.testing.assert_array_equal(resampler.sample(image, AFFINE, np.eye(4)), image[image > 300])
    shifted = AFFINE.copy()
    shifted[:3, 3] = apply(AFFINE, np.array([[-2.0], [-3], [-1]]))[:, 0]
    larger = np.pad(image, ((2, 0), (3, 0), (1, 0)))  # the same head in a larger field of view
    np.testing.assert_allclose(
        resampler.sample(larger, shifted, np.eye(4)), image[image > 300], rtol=1e-4
    )
    assert resampler.covered(larger.shape, shifted, np.eye(4)).all()
    assert not resampler.covered((6, 6, 6), AFFINE, np.eye(4)).all()


def test_scale_does_not_matter() -> None:
    image, pose = blob(), np.array([0.4, -0.7, 0.3, 0.01, 0.005, -0.01])
    estimator = MotionEstimator(image, AFFINE)
    matrix = parameters_to_matrix(pose, estimator.center_mm)
    everywhere = Resampler(np.indices(SHAPE).reshape(3, -1).T, AFFINE)
    moved = everywhere.sample(image, AFFINE, np.linalg.inv(matrix)).reshape(SHAPE)
    for gain in (0.2, 1.0, 30.0):
        fit = estimator.estimate(gain * moved, AFFINE, [np.eye(4)])
        np.testing.assert_allclose(estimator.parameters(fit.matrix)[:3], pose[:3], atol=0.05)
        np.testing.assert_allclose(estimator.parameters(fit.matrix)[3:], pose[3:], atol=1e-3)


def test_empty_volumes_are_reported_not_followed() -> None:
    image = blob()
    tracker = MotionTracker(MotionEstimator(image, AFFINE), AFFINE)
    rng = np.random.default_rng(0)
    for volume in range(6):
        noisy = image + rng.normal(0, 10, SHAPE).astype(np.float32)
        tracker.add(np.zeros(SHAPE, dtype=np.float32) if volume == 3 else noisy)
    assert tracker.failed == [3]
    found = np.array([tracker.estimator.parameters(m) for m in tracker.matrices])
    assert np.abs(found).max() < 0.1


def test_an_empty_reference_is_survived() -> None:
    estimator = MotionEstimator(np.zeros(SHAPE, dtype=np.float32), AFFINE)
    tracker = MotionTracker(estimator, AFFINE)
    tracker.add(blob())
    np.testing.assert_array_equal(tracker.matrices[0], np.eye(4))


def test_unsteady_volumes() -> None:
    signal = 500 + np.random.default_rng(0).normal(0, 1, 60)
    assert unsteady_volumes(signal) == 0
    signal[:3] += [200, 60, 20]
    assert unsteady_volumes(signal) == 3
    signal[30] += 100  # a spike later is no steady state
    assert unsteady_volumes(signal) == 3


def test_reference_leaves_out_what_moved_and_what_was_bright() -> None:
    image, rng = blob(), np.random.default_rng(1)
    volumes = image[..., None] + rng.normal(0, 8, (*SHAPE, 20)).astype(np.float32)
    volumes[..., 0] *= 1.5
    volumes[..., 7] = np.roll(volumes[..., 7], 2, axis=1)
    reference, notes = robust_mean(volumes, AFFINE)
    inside = image > 300
    assert np.abs(reference - image)[inside].max() < 15
    assert notes == ["1 volumes before the steady state were left out of the reference"]


def test_geometry_helpers() -> None:
    image = np.zeros(SHAPE, dtype=np.float32)
    image[4:7, 10:13, 6:9] = 100
    np.testing.assert_allclose(
        mass_center(image, AFFINE), apply(AFFINE, np.array([[5.0], [11], [7]]))[:, 0], atol=1e-6
    )
    flat = np.random.default_rng(0).normal(size=(10, 10, 1))
    assert smooth(flat, AFFINE, 6.0).std() < 0.5 * flat.std()


@pytest.mark.parametrize("n_per_block", [1, 4, 30])
def test_values_that_are_not_finite_are_filled_and_counted(n_per_block: int) -> None:
    brain = np.zeros((4, 4, 4), dtype=bool)
    brain[1:3, 1:3, 1:3] = True
    run = np.random.default_rng(0).normal(100, 1, (4, 4, 4, 30)).astype(np.float32)
    broken = run.copy()
    broken[0, 0, 0] = np.nan  # a voxel outside, always
    broken[1, 1, 1, 5:7] = np.inf  # a voxel inside, twice
    broken[..., 20] = np.nan  # a whole volume
    finite = FiniteFilter(brain)
    blocks = [finite(broken[..., k : k + n_per_block]) for k in range(0, 30, n_per_block)]
    filled = np.concatenate(blocks, axis=3)
    assert np.isfinite(filled).all()
    np.testing.assert_array_equal(filled[1, 1, 1, 5:7], [run[1, 1, 1, 4]] * 2)
    np.testing.assert_array_equal(filled[2, 2, 2, 20], run[2, 2, 2, 19])
    np.testing.assert_array_equal(filled[0, 0, 0], np.zeros(30))
    untouched = np.isfinite(broken)
    np.testing.assert_array_equal(filled[untouched], run[untouched])
    assert np.flatnonzero(finite.damaged).tolist() == [5, 6, 20]  # one of eight voxels is 12 %
    assert finite.share == pytest.approx((2 + 8) / (8 * 30))
    assert len(finite.notes()) == 3
