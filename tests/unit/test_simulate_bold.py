"""The parts of the simulated scanner, each against its definition."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from afterimage.errors import ConfigError
from afterimage.simulate.head import (
    ANCHORS,
    T1W_INTENSITY,
    Head,
    brightness,
    draw_anatomy,
    draw_head,
    grid_mm,
    place_units,
    tissue_shares,
)
from afterimage.simulate.head_motion import draw_motion, framewise_displacement, rigid_matrix
from afterimage.simulate.hemodynamics import (
    STEP_S,
    draw_responses,
    response_tables,
    trial_regressors,
)
from afterimage.simulate.scanner_noise import (
    HEARTBEAT_HZ,
    SHARES,
    add_thermal_noise,
    draw_noise_maps,
    drift,
    tissue_noise,
)
from afterimage.simulate.scanning import LEAD_S, TAIL_S, plan_runs
from afterimage.simulate.visual_brain import EARLY, SELECTIVE, draw_brain
from afterimage.stages.simulate_bold import Config

SHAPE = (26, 32, 18)


@pytest.fixture(scope="module")
def head() -> Head:
    return draw_head(SHAPE, 3.0, np.random.default_rng(0))


def plan(**changed):
    settings = {
        "repeated_share": 0.25, "trials_per_run": 30, "n_sessions": 2, "trial_s": 4.0,
        "jitter_s": 0.4, "blank_share": 0.1, "t_r_s": 2.0, "rng": np.random.default_rng(1),
    }  # fmt: skip
    return plan_runs({"train": 120, "test": 20}, {"train": 2, "test": 3}, **settings | changed)


def test_repeats_lie_in_different_runs_and_test_pictures_in_their_own() -> None:
    runs = plan()
    training = [run for run in runs if run.split == "train"]
    test = [run for run in runs if run.split == "test"]
    assert len(training) == 5
    assert len(test) == 2
    shown = np.bincount(np.concatenate([run.shown for run in runs]), minlength=140)
    assert (shown[:120] == 2).sum() == 30
    assert (shown[:120] == 1).sum() == 90
    assert (shown[120:] == 3).all()
    for run in training:
        assert len(np.unique(run.shown)) == len(run.shown)
        assert run.shown.max() < 120
    assert all(run.shown.min() >= 120 for run in test)
    assert {run.session for run in training} == {run.session for run in test} == {1, 2}
    for session in (1, 2):
        numbers = [run.run for run in runs if run.session == session]
        assert numbers == list(range(1, len(numbers) + 1))


def test_pictures_are_jittered_off_the_grid_and_end_before_the_run() -> None:
    for run in plan():
        assert (np.diff(run.onsets_s) >= 4.0 - 0.8 - 1e-9).all()
        steps = np.diff(run.onsets_s)
        assert (np.abs(steps - 4) > 1e-3).mean() > 0.9
        # Blank trials leave gaps of two trials or more.
        assert (steps > 6).sum() >= 1
        assert run.onsets_s[0] >= LEAD_S - 0.4
        assert run.n_volumes * 2.0 >= run.onsets_s[-1] + TAIL_S
    still = plan(jitter_s=0.0, blank_share=0.0)[0]
    np.testing.assert_allclose(still.onsets_s, LEAD_S + 4.0 * np.arange(len(still.shown)))


def test_tissues_fill_the_head_and_leave_air_around_it(head: Head) -> None:
    shares = tissue_shares(head, grid_mm(head.shape, head.affine))
    total = sum(shares.values())
    assert total.max() < 1.01
    assert min(share.min() for share in shares.values()) > -0.01
    image = brightness(head, grid_mm(head.shape, head.affine)).reshape(head.shape)
    middle = tuple(n // 2 for n in head.shape)
    assert image[middle] > 500
    for corner in (image[0, 0, 0], image[-1, -1, -1]):
        assert corner < 5
    volume_ml = sum(shares[name].sum() for name in ("grey", "white", "csf")) * 27 / 1000
    ellipsoid_ml = 4 / 3 * np.pi * np.prod(head.half_axes_mm + 1.0) / 1000
    assert abs(volume_ml / ellipsoid_ml - 1) < 0.08


def test_anatomy_and_bold_show_the_same_head(head: Head) -> None:
    image, affine = draw_anatomy(head, 1.5, 0.0, np.random.default_rng(0))
    corner_mm, end_mm = affine[:3, 3], affine[:3, :3] @ (np.array(image.shape) - 1) + affine[:3, 3]
    np.testing.assert_allclose((corner_mm + end_mm) / 2, head.centre_mm)
    expected = brightness(head, grid_mm(image.shape, affine), T1W_INTENSITY, 1.5)
    np.testing.assert_allclose(image.ravel(), expected, atol=0.51)
    assert T1W_INTENSITY["white"] > T1W_INTENSITY["grey"] > T1W_INTENSITY["csf"]


def test_a_unit_has_a_grey_voxel_of_its_own_in_the_patch_of_its_area(head: Head) -> None:
    brain = draw_brain(300, 80, 0.7, 3)
    placement = place_units(head, brain, np.random.default_rng(2))
    assert len(np.unique(placement.unit_voxels, axis=0)) == 380
    assert placement.grey[tuple(placement.unit_voxels.T)].all()
    assert (placement.grey & ~placement.brain).sum() == 0
    patches = {roi: {tuple(v) for v in voxels} for roi, voxels in placement.patches.items()}
    assert set(patches) == set(EARLY) | set(SELECTIVE)
    assert sum(map(len, patches.values())) == len(set.union(*patches.values()))
    for voxel, roi in zip(placement.unit_voxels, brain.roi, strict=True):
        assert tuple(voxel) in patches[roi]
    for roi, voxels in placement.patches.items():
        n_units = (brain.roi == roi).sum()
        assert 0.7 <= n_units / len(voxels) <= 0.8
        right, front, up = (voxels / np.array(SHAPE) - 0.5).mean(axis=0)
        assert abs(right) < 0.2 or roi == "VWFA"
        assert front < 0.05
        assert abs(up - ANCHORS[roi][2] / 2) < 0.25


def test_the_right_half_of_the_brain_sees_the_left_half_of_the_picture(head: Head) -> None:
    brain = draw_brain(300, 0, 0.7, 3)
    placement = place_units(head, brain, np.random.default_rng(2))
    for roi in EARLY:
        units = brain.roi == roi
        i, _, k = placement.unit_voxels[units].T
        assert np.corrcoef(i, brain.x[units])[0, 1] < -0.8
        assert np.corrcoef(k, brain.y[units])[0, 1] > 0.6


def test_a_head_that_cannot_be_drawn_is_refused(head: Head) -> None:
    with pytest.raises(ConfigError, match="field of view is too small"):
        draw_head((8, 20, 20), 3.0, np.random.default_rng(0))
    with pytest.raises(ConfigError, match="too small for its units"):
        place_units(head, draw_brain(3000, 100, 0.7, 0), np.random.default_rng(0))


def test_rigid_matrix_turns_about_the_centre_in_the_stated_order() -> None:
    centre = np.array([1.0, -20.0, 8.0])
    quarter = rigid_matrix(np.array([0, 0, 0, np.pi / 2, 0, 0]), centre)
    moved = quarter @ np.append(centre + np.array([0, 1, 0]), 1)
    np.testing.assert_allclose(moved[:3], centre + np.array([0, 0, 1]), atol=1e-12)
    parameters = np.array([1.0, -2.0, 3.0, 0.1, -0.2, 0.3])
    matrix = rigid_matrix(parameters, centre)

    def turn(axis: int) -> np.ndarray:
        angles = np.zeros(6)
        angles[3 + axis] = parameters[3 + axis]
        return rigid_matrix(angles, np.zeros(3))[:3, :3]

    np.testing.assert_allclose(matrix[:3, :3], turn(2) @ turn(1) @ turn(0), atol=1e-12)
    np.testing.assert_allclose((matrix @ np.append(centre, 1))[:3], centre + parameters[:3])


def test_motion_drifts_from_its_start_and_has_the_spikes_asked_for() -> None:
    start = np.array([0.5, 0, -1, 0.01, 0, 0])
    rng = np.random.default_rng(0)
    slow = draw_motion(300, 2.0, start, 0.3, 0, 1.5, rng)
    np.testing.assert_allclose(slow[0], start)
    displacement = framewise_displacement(slow)
    assert np.isnan(displacement[0])
    assert np.nanmax(displacement) < 0.5
    spiky = framewise_displacement(draw_motion(300, 2.0, start, 0.02, 4, 1.5, rng))
    # A spike is there and back: one displacement of its full size, and one of that or of half.
    assert 4 <= (spiky > 0.6).sum() <= 8
    assert 1.3 < np.nanmax(spiky) < 3.2
    still = draw_motion(300, 2.0, np.zeros(6), 0.0, 0, 0.0, rng)
    assert not still.any()


def test_haemodynamic_responses_equal_a_convolution() -> None:
    from scipy.stats import gamma

    tables, peaks = response_tables(np.array([6.0]), np.array([0.9]), np.array([0.15]), 3.0)
    times = np.arange(tables.shape[1]) * STEP_S
    brief = gamma.pdf(times, 1 + 6 / 0.9, scale=0.9) - 0.15 * gamma.pdf(times, 17)
    boxcar = np.ones(round(3.0 / STEP_S))
    expected = np.convolve(brief, boxcar)[: len(times)]
    np.testing.assert_allclose(tables[0], expected / expected.max(), atol=5e-3)
    assert abs(peaks[0] - times[brief.argmax()]) <= 2 * STEP_S
    assert tables.max() == 1


def test_peaks_vary_smoothly_within_their_range() -> None:
    places = np.random.default_rng(0).uniform(-40, 40, (800, 3))
    peaks = draw_responses(places, (4.5, 7.5), 3.0, np.random.default_rng(1)).peaks_s
    assert peaks.min() > 4.4
    assert peaks.max() < 7.6
    assert peaks.std() > 0.5
    distance = np.linalg.norm(places[:, None] - places[None], axis=-1)
    near, far = (distance > 0) & (distance < 5), distance > 40
    difference = np.abs(peaks[:, None] - peaks[None])
    assert difference[near].mean() < 0.7 * difference[far].mean()


def test_trial_regressors_are_read_off_at_the_true_times() -> None:
    tables, _ = response_tables(np.array([5.0, 7.0]), np.ones(2), np.full(2, 0.15), 3.0)
    onsets, times = np.array([1.237, 5.5]), np.arange(30) * 1.3 + 0.71
    regressors = trial_regressors(tables, onsets, times)
    assert regressors.shape == (2, 30, 2)
    grid = np.arange(tables.shape[1]) * STEP_S
    for unit in range(2):
        for trial in range(2):
            expected = np.interp(times - onsets[trial], grid, tables[unit], left=0, right=0)
            np.testing.assert_allclose(regressors[unit, :, trial], expected, atol=1e-5)


@pytest.fixture(scope="module")
def noise():
    """Noise of 1,500 volumes in a small brain, and when its slices were read."""
    mask = np.zeros((12, 12, 8), dtype=bool)
    mask[2:10, 2:10, 1:7] = True
    n_voxels = int(mask.sum())
    rng = np.random.default_rng(0)
    maps = draw_noise_maps(mask, np.ones(n_voxels), np.ones(n_voxels), 3.0, rng)
    times = np.arange(1500)[:, None] * 2.0 + np.arange(8) * 0.25
    slices = np.nonzero(mask)[2]
    return maps, times, slices, tissue_noise(maps, times, slices, 2.0, rng)


def test_noise_has_its_variance_autocorrelation_and_shared_part(noise) -> None:
    _, _, _, series = noise
    assert abs(series.var(axis=0).mean() - (1 - SHARES["thermal"])) < 0.05
    lagged = (series[1:] * series[:-1]).mean(axis=0) / series.var(axis=0)
    assert 0.1 < lagged.mean() < 0.6
    correlation = np.corrcoef(series.T)[np.triu_indices(series.shape[1], 1)]
    assert np.abs(correlation).mean() > 0.1


def test_the_heartbeat_is_folded_by_the_repetition_time(noise) -> None:
    maps, times, slices, _ = noise
    rng = np.random.default_rng(1)
    only = type(maps)(0 * maps.networks, 0 * maps.breathing, maps.heartbeat, maps.drift)
    beating = tissue_noise(only, times, slices, 2.0, rng)
    quiet = type(maps)(0 * maps.networks, 0 * maps.breathing, 0 * maps.heartbeat, maps.drift)
    pulse = beating - tissue_noise(quiet, times, slices, 2.0, np.random.default_rng(1))
    assert abs(pulse.var(axis=0).mean() - SHARES["heartbeat"]) < 0.02
    spectrum = (np.abs(np.fft.rfft(pulse, axis=0)) ** 2).mean(axis=1)
    hz = np.fft.rfftfreq(1500, 2.0)
    folded = abs(HEARTBEAT_HZ - 2 * 0.5)  # to the nearest multiple of the sampling rate
    share = spectrum[np.abs(hz - folded) < 0.08].sum() / spectrum.sum()
    assert share > 0.6
    # Slices see the same beat at different times.
    first, last = (pulse[:, slices == number] for number in (slices.min(), slices.max()))
    assert abs(np.corrcoef(first[:, 0], last[:, 0])[0, 1]) < 0.95


def test_drift_is_what_a_high_pass_filter_removes(noise) -> None:
    maps, _, _, _ = noise
    drifting = drift(maps, 300, 2.0, np.random.default_rng(3))
    wave = np.arange(int(2 * 600 / 128) + 1)
    basis = np.cos(np.pi * (np.arange(300)[:, None] + 0.5) / 300 * wave)
    rest = drifting - basis @ np.linalg.lstsq(basis, drifting, rcond=None)[0]
    assert drifting.std() > 0.3
    assert np.abs(rest).max() < 1e-4


def test_thermal_noise_is_that_of_a_magnitude_image() -> None:
    rng = np.random.default_rng(0)
    bright = add_thermal_noise(np.full(100_000, 1000, np.float32), 8.0, rng)
    assert bright.dtype == np.int16
    assert abs(bright.std() - 8) < 0.1
    dark = add_thermal_noise(np.zeros(100_000, np.float32), 8.0, rng)
    assert abs(dark.mean() - 8 * np.sqrt(np.pi / 2)) < 0.1
    exact = add_thermal_noise(np.array([3.4, -2.0, 1e6], np.float32), 0.0, rng)
    assert exact.tolist() == [3, 0, 32767]


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"trial_s": 2.0, "stimulus_s": 1.0}, "trial_s must be"),
        ({"stimulus_s": 3.9}, "stimulus_s"),
        ({"hrf_peak_s": (7.0, 5.0)}, "hrf_peak_s"),
        ({"n_subject": 2}, "Extra inputs"),
    ],
)
def test_impossible_settings_are_refused(changed, named) -> None:
    with pytest.raises(ValidationError, match=named):
        Config(**changed)
