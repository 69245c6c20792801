"""Planted head motion is recovered: within 0.1 mm and 0.1 degrees, spikes and all."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, gaussian_filter1d, map_coordinates
from scipy.spatial.transform import Rotation

from afterimage.preprocess.fmri.motion import (
    MotionEstimator,
    MotionTracker,
    place_run,
    robust_mean,
)
from afterimage.preprocess.fmri.resampling import Resampler, grid_center, parameters_to_matrix

STEP_MM = 1.5
VOXEL_MM = 3.0


def head(seed: int = 0) -> np.ndarray:
    """Return a head at 1.5 mm: folds, ventricles, skull, uneven brightness and signal dropout."""
    rng = np.random.default_rng(seed)
    shape = (128, 146, 106)
    x, y, z = np.meshgrid(
        *[(np.arange(size) - (size - 1) / 2) * STEP_MM for size in shape], indexing="ij"
    )
    radius = np.sqrt((x / 66) ** 2 + (y / 82) ** 2 + (z / 60) ** 2)
    folds = gaussian_filter(rng.standard_normal(shape), 2)
    image = np.where(radius < 1, 700 + 120 * np.tanh(2 * folds / folds.std()), 0.0)
    image = np.where(
        ((abs(x) - 9) / 6) ** 2 + ((y + 5) / 28) ** 2 + ((z - 8) / 10) ** 2 < 1, 1100, image
    )
    image = np.where((radius >= 1.06) & (radius < 1.13), 180, image)
    image *= 1 + 0.25 * (z / 60) - 0.15 * (y / 82)
    dropout = np.exp(-((x / 18) ** 2 + ((y - 60) / 18) ** 2 + ((z + 40) / 14) ** 2))
    return gaussian_filter(image * (1 - 0.8 * dropout), 0.8).astype(np.float32)


def scan(
    anatomy: np.ndarray, shape: tuple[int, int, int], affine: np.ndarray, matrix: np.ndarray
) -> np.ndarray:
    """Sample the head, moved, on a coarse grid: the mean of eight points of every voxel."""
    index = np.indices(shape).reshape(3, -1)
    middle = (np.array(anatomy.shape)[:, None] - 1) / 2
    back = np.linalg.inv(matrix) @ affine
    volume = np.zeros(index.shape[1], dtype=np.float32)
    for corner in np.array(np.meshgrid(*[[-0.25, 0.25]] * 3)).reshape(3, -1).T:
        points = back[:3, :3] @ (index + corner[:, None]) + back[:3, 3:]
        volume += map_coordinates(anatomy, points / STEP_MM + middle, order=1) / 8
    return volume.reshape(shape)


def planted(n_volumes: int, rng: np.random.Generator) -> np.ndarray:
    """Return slow drift, spikes of up to 1.5 mm and 1.4 degrees, and one lasting jump."""
    steps = rng.standard_normal((n_volumes, 6)) * np.r_[[0.04] * 3, [0.0006] * 3]
    motion = gaussian_filter1d(np.cumsum(steps, axis=0), 1.5, axis=0)
    for volume in range(5, n_volumes, 12):
        motion[volume] += rng.uniform(-1, 1, 6) * np.r_[[1.5] * 3, [0.025] * 3]
    motion[n_volumes // 2 :] += [0.8, -0.5, 1.0, 0.01, -0.008, 0.006]
    motion[0] = 0
    return motion


def centered(shape: tuple[int, int, int]) -> np.ndarray:
    affine = np.diag([VOXEL_MM, VOXEL_MM, VOXEL_MM, 1.0])
    affine[:3, 3] = -(np.array(shape) - 1) / 2 * VOXEL_MM
    return affine


def errors(found: list[np.ndarray], truth: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return the error of each volume: mm at the centre of the head, and degrees."""
    left = [np.linalg.inv(true) @ matrix for matrix, true in zip(found, truth, strict=True)]
    degrees = [np.degrees(Rotation.from_matrix(error[:3, :3]).magnitude()) for error in left]
    return np.array([np.linalg.norm(error[:3, 3]) for error in left]), np.array(degrees)


@pytest.mark.parametrize(
    ("shape", "tsnr", "n_volumes"),
    [((24, 28, 16), 50, 40), ((24, 28, 16), 100, 40), ((64, 64, 30), 50, 16)],
)
def test_planted_motion(shape: tuple[int, int, int], tsnr: int, n_volumes: int) -> None:
    rng = np.random.default_rng(tsnr)
    anatomy, affine, motion = head(), centered(shape), planted(n_volumes, rng)
    truth = [parameters_to_matrix(pose, np.zeros(3)) for pose in motion]
    run = np.stack([scan(anatomy, shape, affine, matrix) for matrix in truth], axis=-1)
    run += rng.standard_normal(run.shape).astype(np.float32) * run[run > 300].mean() / tsnr
    estimator = MotionEstimator(run[..., 0], affine)
    tracker = MotionTracker(estimator, affine)
    for volume in range(n_volumes):
        tracker.add(np.ascontiguousarray(run[..., volume]))
    away_mm, turned = errors(tracker.matrices, truth)
    # measured: at most .03 mm and .05 degrees root mean square
    assert np.sqrt((away_mm**2).mean()) < 0.05
    assert np.sqrt((turned**2).mean()) < 0.08
    assert np.mean((away_mm < 0.1) & (turned < 0.1)) >= 0.95
    assert not tracker.failed
    found = np.array([estimator.parameters(matrix) for matrix in tracker.matrices])
    assert np.sqrt(((found - motion)[:, :3] ** 2).mean()) < 0.05


def test_correction_undoes_motion() -> None:
    shape, rng = (24, 28, 16), np.random.default_rng(3)
    anatomy, affine = head(), centered(shape)
    motion = planted(30, rng)
    volumes = np.stack(
        [scan(anatomy, shape, affine, parameters_to_matrix(p, np.zeros(3))) for p in motion], -1
    )
    volumes += rng.standard_normal(volumes.shape).astype(np.float32) * 7
    reference, _ = robust_mean(volumes, affine)
    estimator = MotionEstimator(reference, affine)
    tracker = MotionTracker(estimator, affine)
    index = np.argwhere(np.ones(shape, dtype=bool))[:, :]
    inner = index[((index >= 2) & (index < np.array(shape) - 2)).all(axis=1)]
    resampler = Resampler(inner, affine)
    corrected = np.array(
        [
            resampler.sample(volumes[..., k], affine, tracker.add(volumes[..., k]))
            for k in range(30)
        ]
    )
    before = volumes[tuple(inner.T)].std(axis=1)
    assert np.median(corrected.std(axis=0)) < 0.6 * np.median(before)
    assert np.median(corrected.std(axis=0)) < 12  # noise of 7, smoothed by interpolation


def test_single_slice_moves_within_its_plane() -> None:
    shape, rng = (40, 20, 1), np.random.default_rng(5)
    anatomy = head()
    affine = centered(shape)
    motion = planted(30, rng)
    motion[:, [2, 3, 4]] = 0  # across the slice: cannot be seen
    truth = [parameters_to_matrix(pose, np.zeros(3)) for pose in motion]
    run = np.stack([scan(anatomy, shape, affine, matrix) for matrix in truth], axis=-1)
    run += rng.standard_normal(run.shape).astype(np.float32) * run[run > 300].mean() / 80
    estimator = MotionEstimator(run.mean(axis=-1), affine)
    assert estimator.in_plane_only
    tracker = MotionTracker(estimator, affine)
    for volume in range(30):
        tracker.add(np.ascontiguousarray(run[..., volume]))
    found = np.array([estimator.parameters(matrix) for matrix in tracker.matrices])
    assert np.abs(found[:, [2, 3, 4]]).max() < 1e-9
    # against a moving mean, so up to one constant
    error = (found - motion) - (found - motion).mean(axis=0)
    assert np.sqrt((error[:, :2] ** 2).mean()) < 0.1
    assert np.degrees(np.sqrt((error[:, 5] ** 2).mean())) < 0.15


@pytest.mark.parametrize("right", [True, False])
def test_runs_of_another_grid(right: bool) -> None:
    """A shifted field of view is followed; a wrongly written header is found out."""
    shape, anatomy = (30, 34, 20), head()
    affine = centered(shape)
    reference = scan(anatomy, shape, affine, np.eye(4))
    estimator = MotionEstimator(reference, affine)
    shifted = affine.copy()
    shifted[:3, 3] += [12, -9, 6]
    pose = parameters_to_matrix(np.array([0.5, -0.4, 0.3, 0.01, 0, -0.01]), np.zeros(3))
    volume = scan(anatomy, shape, shifted if right else affine, pose)
    header = shifted if right else affine + np.c_[np.zeros((4, 3)), [60, -45, 30, 0]]
    place, start, notes = place_run(estimator, volume, header)
    # Where a reference voxel is found in the volume must be where the head really is.
    found = np.linalg.inv(place) @ start @ affine
    true = np.linalg.inv(shifted if right else affine) @ pose @ affine
    center = np.r_[(np.array(shape) - 1) / 2, 1]
    assert np.linalg.norm(((found - true) @ center)[:3]) * VOXEL_MM < 0.1
    assert len(notes) == (1 if right else 2)
    assert np.allclose(grid_center(shape, affine), 0)
