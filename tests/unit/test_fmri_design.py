"""Regressors at true onsets, and nuisance of any rank."""

from dataclasses import replace

import numpy as np
import pytest
from nilearn.glm.first_level import compute_regressor

from afterimage.errors import InputError
from afterimage.preprocess.fmri.design import (
    RunDesign,
    orthonormal_basis,
    residual,
    trial_regressors,
)
from afterimage.preprocess.fmri.hrf import canonical_hrf, hrf_library


def run(
    onsets: list[float], durations: list[float], n_volumes: int = 80, tr_s: float = 1.3
) -> RunDesign:
    n = len(onsets)
    return RunDesign(
        np.arange(n_volumes) * tr_s + 0.4,
        np.array(onsets),
        np.array(durations),
        np.array([f"s{i}" for i in range(n)]),
        np.ones(n, bool),
        np.ones((n_volumes, 1)),
    )


def test_brief_trial_off_the_grid_is_the_response_itself() -> None:
    library = hrf_library()
    design = run([11.237], [0.0])
    found = trial_regressors(design, library)[:, :, 0]
    times = np.arange(library.kernels.shape[1]) * library.dt_s
    for row, kernel in zip(found, library.kernels, strict=True):
        expected = np.interp(design.volume_times_s - 11.237, times, kernel, left=0, right=0)
        np.testing.assert_allclose(row, expected, atol=1e-12)


@pytest.mark.parametrize("duration_s", [0.1, 0.5, 2.0, 8.0, 20.0])
def test_long_trial_is_the_convolution(duration_s: float) -> None:
    library = canonical_hrf(dt_s=0.02)
    fine = canonical_hrf(dt_s=0.005)
    design = run([10.013], [duration_s])
    found = trial_regressors(design, library)[0, :, 0]
    boxcar = np.ones(round(duration_s / 0.005))
    full = np.convolve(fine.kernels[0], boxcar)
    expected = np.interp(
        design.volume_times_s - 10.013, np.arange(len(full)) * 0.005, full, left=0
    )
    np.testing.assert_allclose(found, expected / full.max(), atol=0.02)


def test_same_shape_as_nilearn() -> None:
    design = run([4.21, 30.7], [3.0, 3.0])
    together = trial_regressors(design, canonical_hrf())[0].sum(axis=1)
    condition = np.array([design.onsets_s, design.durations_s, [1, 1]])
    theirs = compute_regressor(condition, "spm", design.volume_times_s, oversampling=200)[0][:, 0]
    assert np.corrcoef(together, theirs)[0, 1] > 0.99995


def test_moving_everything_changes_nothing() -> None:
    design = run([5.5, 9.5, 40.1], [1.0, 2.0, 1.0])
    moved = replace(
        design,
        onsets_s=design.onsets_s + 123.4,
        volume_times_s=design.volume_times_s + 123.4,
    )
    library = hrf_library()
    np.testing.assert_allclose(
        trial_regressors(moved, library), trial_regressors(design, library), atol=1e-9
    )


def test_trials_outside_the_run_and_no_trials() -> None:
    library = hrf_library()
    assert not trial_regressors(run([500.0], [1.0]), library).any()
    assert trial_regressors(run([], []), library).shape == (len(library), 80, 0)


def test_maximum_is_one_whatever_the_duration() -> None:
    design = run([5.0, 5.0, 5.0, 5.0], [0.0, 1.0, 4.0, 12.0], n_volumes=4000, tr_s=0.01)
    peaks = trial_regressors(design, hrf_library()).max(axis=1)
    np.testing.assert_allclose(peaks, 1, atol=1e-4)


def test_basis_of_dependent_columns_of_any_scale() -> None:
    rng = np.random.default_rng(0)
    columns = rng.normal(size=(50, 3)) * [1e-6, 1, 1e6]
    deficient = np.column_stack([columns, columns @ [1e6, 1, 1e-6], np.zeros(50)])
    basis = orthonormal_basis(deficient)
    assert basis.shape == (50, 3)
    np.testing.assert_allclose(basis.T @ basis, np.eye(3), atol=1e-12)
    left = residual(columns / [1e-6, 1, 1e6], orthonormal_basis(deficient))
    assert np.abs(left).max() < 1e-9
    assert orthonormal_basis(np.zeros((50, 0))).shape == (50, 0)


def test_projection_is_the_residual_of_least_squares() -> None:
    rng = np.random.default_rng(1)
    nuisance, values = rng.normal(size=(40, 5)), rng.normal(size=(40, 7))
    expected = values - nuisance @ np.linalg.lstsq(nuisance, values)[0]
    np.testing.assert_allclose(residual(values, orthonormal_basis(nuisance)), expected, atol=1e-12)


def test_parts_that_do_not_belong_together() -> None:
    good = run([1.0, 2.0], [1.0, 1.0])
    for change in (
        {"durations_s": np.ones(3)},
        {"nuisance": np.ones((79, 1))},
        {"onsets_s": np.array([1.0, np.nan])},
        {"nuisance": np.full((80, 1), np.inf)},
    ):
        with pytest.raises(InputError, match="do not belong together") as error:
            replace(good, session="2", run="07", **change)
        assert "session 2, run 07" in error.value.where
