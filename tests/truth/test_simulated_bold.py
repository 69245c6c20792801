"""The simulated scanner: what was planted is really in the images, and nothing else is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from afterimage.simulate.bold import Scanner, Subject, draw_subject, simulate_run
from afterimage.simulate.head_motion import rigid_matrix
from afterimage.simulate.hemodynamics import trial_regressors
from afterimage.simulate.scanning import plan_runs
from afterimage.simulate.stimuli import draw_stimuli
from afterimage.simulate.visual_brain import draw_brain

STILL = Scanner(
    shape=(22, 24, 16), voxel_size_mm=3.0, t_r_s=2.0, stimulus_s=3.0, response_percent=1.5,
    mean_response=1.0, peak_range_s=(4.5, 7.5), noise_scale=1.0, drift_percent=1.0,
    motion_mm=0.0, n_spikes=0, spike_mm=0.0, session_shift_mm=0.0,
)  # fmt: skip
MOVING = replace(STILL, motion_mm=0.3, n_spikes=3, spike_mm=2.0, session_shift_mm=1.0)


def subject(scanner: Scanner, seed: int = 1, ceiling: float = 0.6) -> Subject:
    """Draw a subject with 200 units who sees 150 pictures, a third of them twice."""
    images, attributes, _ = draw_stimuli(150, 0, size_px=48)
    runs = plan_runs(
        {"train": 120, "test": 30}, {"train": 2, "test": 2}, repeated_share=0.25,
        trials_per_run=50, n_sessions=2, trial_s=4.0, jitter_s=0.4, blank_share=0.08,
        t_r_s=scanner.t_r_s, rng=np.random.default_rng(seed),
    )  # fmt: skip
    brain = draw_brain(150, 50, ceiling, seed)
    return draw_subject(scanner, brain, runs, images, attributes, (0, seed))


def unit_series(drawn: Subject, number: int) -> np.ndarray:
    """Scan one run and return the signals of the units, (n_volumes, n_units)."""
    volumes = simulate_run(drawn, number)
    return volumes[tuple(drawn.placement.unit_voxels.T)].T.astype(np.float64)


def fit(
    drawn: Subject, number: int, series: np.ndarray, nuisance: np.ndarray, slice_timing=True
) -> tuple[np.ndarray, np.ndarray]:
    """Fit one coefficient a trial by plain least squares, with each unit's true response.

    Returns the coefficients (n_trials, n_units) and the squared residuals, summed, (n_units,).
    """
    run = drawn.runs[number]
    times = drawn.scanner.times_s(run.n_volumes)
    found = np.empty((len(run.onsets_s), series.shape[1]))
    residual = np.empty(series.shape[1])
    for unit in range(series.shape[1]):
        read_at = times[:, drawn.unit_slices[unit]] if slice_timing else times[:, 0]
        table = drawn.responses.tables[unit : unit + 1]
        regressors = trial_regressors(table, run.onsets_s, read_at)[0].astype(np.float64)
        design = np.column_stack([regressors, nuisance])
        solution, rest, *_ = np.linalg.lstsq(design, series[:, unit], rcond=None)
        found[:, unit], residual[unit] = solution[: len(run.onsets_s)], rest[0]
    return found, residual


def cosines(n_volumes: int) -> np.ndarray:
    wave = np.arange(int(2 * n_volumes * 2.0 / 128) + 1)
    return np.cos(np.pi * (np.arange(n_volumes)[:, None] + 0.5) / n_volumes * wave)


def column_correlation(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    one, other = one - one.mean(axis=0), other - other.mean(axis=0)
    return (one * other).sum(axis=0) / np.sqrt((one**2).sum(axis=0) * (other**2).sum(axis=0))


def test_without_noise_least_squares_gives_back_what_was_planted() -> None:
    drawn = subject(replace(STILL, noise_scale=0.0))
    np.testing.assert_allclose(drawn.ceiling, 1)
    series = unit_series(drawn, 0)
    constant = np.ones((len(series), 1))
    found, residual = fit(drawn, 0, series, constant)
    baseline = np.median(series[:4], axis=0)  # before the first picture
    planted = drawn.planted[0] * baseline / 100
    # Images hold whole numbers: an error of 0.3 units of about 1,000.
    assert np.abs(found - planted).max() < 4
    strong = planted.std(axis=0) > 2
    assert strong.mean() > 0.8
    assert column_correlation(found, planted)[strong].min() > 0.97
    assert np.median(column_correlation(found, planted)) > 0.998
    # The slices were really read one after the other: the time of the first fits the others badly.
    _, untimed = fit(drawn, 0, series, constant, slice_timing=False)
    late = drawn.unit_slices >= 8
    assert np.median(untimed[late] / residual[late]) > 3


@pytest.mark.parametrize("ceiling", [0.6, 0.85])
def test_single_trials_reach_the_planted_ceiling(ceiling: float) -> None:
    drawn = subject(STILL, ceiling=ceiling)
    np.testing.assert_allclose(drawn.ceiling, drawn.brain.ceiling, atol=1e-6)
    assert abs(np.median(drawn.ceiling) - ceiling) < 0.03
    spread = np.concatenate(drawn.planted).std(axis=0)
    assert abs(np.median(spread) - 1.5) < 0.01
    estimates = []
    for number, run in enumerate(drawn.runs):
        series = unit_series(drawn, number)
        estimates.append(fit(drawn, number, series, cosines(run.n_volumes))[0])
    found = column_correlation(np.concatenate(estimates), np.concatenate(drawn.planted))
    assert abs(np.median(found - drawn.ceiling)) < 0.02
    assert abs(found.mean() - drawn.ceiling.mean()) < 0.02
    assert np.abs(found - drawn.ceiling).mean() < 0.08
    assert column_correlation(found[:, None], drawn.ceiling[:, None])[0] > 0.8


def test_every_volume_is_the_resting_head_moved_by_its_matrix() -> None:
    """Against an interpolation of the resting volume, which the simulation does not use."""
    from scipy.ndimage import affine_transform

    drawn = subject(replace(MOVING, noise_scale=0.0))
    run = len(drawn.runs) - 1
    drawn = replace(drawn, planted=tuple(0 * planted for planted in drawn.planted))
    rest = simulate_run(replace(drawn, motion=tuple(0 * m for m in drawn.motion)), run)[..., 0]
    volumes = simulate_run(drawn, run)
    motion, affine = drawn.motion[run], drawn.head.affine
    furthest = int(np.abs(motion @ np.diag([1.0] * 3 + [50.0] * 3)).sum(axis=1).argmax())
    for volume in (0, furthest):
        assert np.abs(motion[volume, :3]).max() > 0.3
        matrix = rigid_matrix(motion[volume], drawn.head.centre_mm)

        def interpolated(to_rest: np.ndarray) -> np.ndarray:
            indices = np.linalg.inv(affine) @ to_rest @ affine
            return affine_transform(rest.astype(np.float64), indices, order=5, mode="nearest")

        inner = np.zeros(rest.shape, dtype=bool)
        inner[2:-2, 2:-2, 2:-2] = True
        seen = volumes[..., volume][inner].astype(np.float64)

        def error(to_rest: np.ndarray) -> float:
            difference = interpolated(to_rest)[inner] - seen  # noqa: B023
            return float(np.sqrt((difference**2).mean()))

        moved, unmoved, backwards = (
            error(to_rest) for to_rest in (np.linalg.inv(matrix), np.eye(4), matrix)
        )
        assert moved < 0.25 * unmoved
        assert moved < 0.25 * backwards


def test_signals_move_with_the_head() -> None:
    """Evoked signals of a moved head lie where its voxels went."""
    drawn = subject(replace(STILL, noise_scale=0.0))
    shift = np.zeros(6)
    shift[1] = 3.0  # one voxel towards the front
    moved = replace(drawn, motion=tuple(m + shift for m in drawn.motion))
    still, shifted = simulate_run(drawn, 0), simulate_run(moved, 0)
    difference = shifted[:, 3:-2].astype(int) - still[:, 2:-3]
    assert np.abs(difference).max() <= 1
    assert still[:, 2:-3].std(axis=-1).max() > 10


def test_the_same_seed_gives_the_same_scans_and_another_other_ones() -> None:
    one, same, other = subject(MOVING), subject(MOVING), subject(MOVING, seed=2)
    last = len(one.runs) - 1
    scan = simulate_run(one, last)
    # Runs do not depend on each other: the last is made without the others.
    np.testing.assert_array_equal(scan, simulate_run(same, last))
    np.testing.assert_array_equal(one.planted[0], same.planted[0])
    assert not np.array_equal(scan[..., 0], simulate_run(one, 0)[..., 0])
    assert not np.array_equal(scan[..., 0], simulate_run(other, last)[..., 0])
    assert not np.array_equal(one.motion[0][50], other.motion[0][50])
    assert not np.array_equal(one.placement.unit_voxels, other.placement.unit_voxels)
    assert np.abs(one.responses.peaks_s - other.responses.peaks_s).mean() > 0.2


def test_runs_carry_on_from_each_other_and_sessions_do_not() -> None:
    drawn = subject(MOVING)
    assert not drawn.motion[0][0].any()
    sessions = [run.session for run in drawn.runs]
    for number in range(1, len(drawn.runs)):
        before, after = drawn.motion[number - 1][-1], drawn.motion[number][0]
        if sessions[number] == sessions[number - 1]:
            np.testing.assert_allclose(after, 0.5 * before)
        else:
            assert np.abs(after[:3]).max() <= 1.0
            assert np.abs(after).max() > 0
