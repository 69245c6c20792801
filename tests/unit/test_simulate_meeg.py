"""The parts of the simulated EEG and MEG, each against its definition."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from pydantic import ValidationError

from afterimage.simulate import meeg_noise as noise
from afterimage.simulate.meeg import (
    Recorder,
    Subject,
    dipole_courses,
    draw_subject,
    evoked_field,
    mean_evoked,
    simulate_run,
)
from afterimage.simulate.meeg_geometry import (
    CENTRE_M,
    ELECTRODES,
    draw_anatomy,
    draw_dipoles,
    electrode_info,
    helmet_directions,
    helmet_info,
    leadfield,
)
from afterimage.simulate.meeg_schedule import LEAD_S, TAIL_S, plan_recording
from afterimage.simulate.meeg_sources import draw_units
from afterimage.simulate.stimuli import draw_stimuli
from afterimage.simulate.visual_brain import EARLY, SELECTIVE, draw_brain
from afterimage.stages.simulate_meeg import Config, _recorder

RECORDER: Recorder = _recorder(Config())


def subject(modality: str, seed: int = 1, **changed) -> Subject:
    """Draw a subject who sees 60 pictures, 12 of them, for the test, three times."""
    images, attributes, _ = draw_stimuli(60, 0, size_px=32)
    runs = plan_recording(
        {"train": 48, "test": 12}, {"train": 1, "test": 3}, trials_per_run=48, trial_s=0.7,
        jitter_s=0.05, sampling_rate_hz=250.0, rng=np.random.default_rng(seed),
    )  # fmt: skip
    brain = draw_brain(120, 48, 0.8, seed)
    recorder = replace(RECORDER, **changed)
    return draw_subject(recorder, modality, brain, runs, images, attributes, (0, seed))


@pytest.fixture(scope="module", params=["eeg", "meg"])
def drawn(request: pytest.FixtureRequest) -> Subject:
    return subject(request.param)


@pytest.fixture(scope="module")
def eeg() -> Subject:
    return subject("eeg")


def test_pictures_appear_on_samples_and_test_pictures_have_their_own_runs(eeg: Subject) -> None:
    assert [run.split for run in eeg.runs] == ["train", "test"]
    assert sorted(eeg.runs[0].shown) == list(range(48))
    assert np.bincount(eeg.runs[1].shown, minlength=60)[48:].tolist() == [3] * 12
    for run in eeg.runs:
        steps_s = np.diff(run.first_samples) / 250
        assert steps_s.min() >= 0.6 - 1 / 250 - 1e-9
        assert steps_s.max() <= 0.8 + 1 / 250 + 1e-9
        assert np.std(steps_s) > 0.01
        assert run.first_samples[0] >= (LEAD_S - 0.06) * 250
        assert run.n_samples >= run.first_samples[-1] + TAIL_S * 250 - 1


def test_the_same_seed_gives_the_same_bytes_and_another_another_head(drawn: Subject) -> None:
    again = subject(drawn.modality)
    assert simulate_run(again, 1).tobytes() == simulate_run(drawn, 1).tobytes()
    other = subject(drawn.modality, seed=2)
    assert other.anatomy.radius_m != drawn.anatomy.radius_m
    assert np.abs(other.dipoles.place_m - drawn.dipoles.place_m).max() > 0.003
    assert not np.array_equal(other.leadfield, drawn.leadfield)


def test_channels_are_those_of_the_devices(drawn: Subject) -> None:
    import mne

    kinds = drawn.info.get_channel_types()
    assert kinds[-1] == "eog"
    if drawn.modality == "eeg":
        assert kinds[:-1] == ["eeg"] * 64
        known = mne.channels.make_standard_montage("colin27_1005").ch_names
        assert set(drawn.names) < set(known)
        return
    assert kinds.count("mag") == 102
    assert kinds.count("grad") == 204
    assert drawn.info["dev_head_t"]["trans"].shape == (4, 4)
    coils = {int(channel["coil_type"]) for channel in drawn.info["chs"][:-1]}
    assert coils == {3024, 3012}
    # Every coil is outside the head, and stands upright on its place.
    place = np.array([channel["loc"][:3] for channel in drawn.info["chs"][:-1]])
    to_head = drawn.info["dev_head_t"]["trans"]
    from_centre = place @ to_head[:3, :3].T + to_head[:3, 3] - CENTRE_M
    assert np.linalg.norm(from_centre, axis=1).min() > drawn.anatomy.radius_m + 0.005
    for channel in drawn.info["chs"][:-1]:
        frame = channel["loc"][3:].reshape(3, 3)
        np.testing.assert_allclose(frame @ frame.T, np.eye(3), atol=1e-6)
        assert frame[2] @ channel["loc"][:3] > 0
        assert np.linalg.det(frame) == pytest.approx(1, abs=1e-6)


def test_the_helmet_is_even_and_open_at_the_face() -> None:
    places = helmet_directions()
    assert len(places) == 102
    angles = np.degrees(np.arccos(np.clip(places @ places.T, -1, 1)))
    np.fill_diagonal(angles, 360)
    assert angles.min() > 10
    assert angles.min(axis=1).max() < 25
    assert places[places[:, 1] > 0.5, 2].min() > -0.1
    assert places[places[:, 1] < 0, 2].min() < -0.3


def test_values_are_volts_and_teslas_of_a_real_size(drawn: Subject) -> None:
    times_s = np.arange(0, 0.6, 0.004)
    evoked = mean_evoked(drawn, times_s)
    data = simulate_run(drawn, 0)
    good = [index for index, name in enumerate(drawn.names) if name not in drawn.bad]
    assert data.dtype == np.float32
    if drawn.modality == "eeg":
        assert 2e-6 < np.abs(evoked).max() < 15e-6
        referenced = evoked - evoked.mean(axis=0)
        assert np.abs(referenced).max() == pytest.approx(1e-6 * RECORDER.evoked_uv, rel=0.05)
        assert 8e-6 < np.median(data[good].std(axis=1)) < 60e-6
        return
    kinds = np.array(drawn.info.get_channel_types()[:-1])
    assert 5e-14 < np.abs(evoked[kinds == "mag"]).max() < 8e-13
    assert 1e-12 < np.abs(evoked[kinds == "grad"]).max() < 3e-11
    spread = data[:-1].std(axis=1)
    assert 3e-13 < np.median(spread[kinds == "mag"]) < 8e-12
    assert 3e-12 < np.median(spread[kinds == "grad"]) < 1e-10


def test_visual_dipoles_peak_at_the_back_of_the_head() -> None:
    rng = np.random.default_rng(5)
    anatomy = draw_anatomy(rng)
    dipoles = draw_dipoles(anatomy, rng)
    early = np.isin(dipoles.roi, EARLY)
    assert (dipoles.place_m[early, 1] < -0.03).all()
    assert set(dipoles.roi) == set(EARLY) | set(SELECTIVE)
    assert (dipoles.hemisphere[dipoles.roi == "VWFA"] == "L").all()
    offset = np.linalg.norm(dipoles.place_m - CENTRE_M, axis=1)
    assert offset.max() < 0.85 * anatomy.radius_m
    outwards = (dipoles.place_m - CENTRE_M) / offset[:, None]
    # A dipole that points outwards is seen by the electrode above it.
    scalp = electrode_info(anatomy, 250.0, ELECTRODES)
    seen = leadfield(anatomy, scalp, dipoles.place_m, outwards)
    places = np.array([channel["loc"][:3] for channel in scalp["chs"]]) - CENTRE_M
    above = places[np.argmax(seen, axis=0)] / anatomy.radius_m
    assert np.degrees(np.arccos((above * outwards).sum(axis=1)))[early].max() < 35
    assert (above[early, 1] < -0.5).all()
    # And by no coil: a sphere hides radial currents from magnetometers.
    helmet = helmet_info(anatomy, 250.0)
    radial = leadfield(anatomy, helmet, dipoles.place_m, outwards)
    real = leadfield(anatomy, helmet, dipoles.place_m, dipoles.direction)
    assert np.abs(radial).max() < 1e-3 * np.abs(real).max()
    strongest = helmet_directions()[np.abs(real[::3]).argmax(axis=0)]
    assert (strongest[early, 1] < 0.1).mean() > 0.95


def test_gradiometers_measure_the_slope_of_the_field() -> None:
    rng = np.random.default_rng(6)
    anatomy = draw_anatomy(rng)
    dipoles = draw_dipoles(anatomy, rng)
    helmet = helmet_info(anatomy, 250.0)
    field = leadfield(anatomy, helmet, dipoles.place_m, dipoles.direction)
    for coil in (1, 2):
        step_m = 0.0084  # half the baseline of the device
        sides = []
        for sign in (1, -1):
            moved = helmet.copy()
            for place in range(102):
                axis = moved["chs"][3 * place + coil]["loc"][3:6]
                moved["chs"][3 * place]["loc"][:3] += sign * step_m * axis
            sides.append(leadfield(anatomy, moved, dipoles.place_m, dipoles.direction)[::3])
        slope = (sides[0] - sides[1]) / (2 * step_m)
        assert np.corrcoef(slope.ravel(), field[coil::3].ravel())[0, 1] > 0.995
        assert slope.std() / field[coil::3].std() == pytest.approx(1, abs=0.1)


def test_units_have_the_dipoles_of_their_area_and_the_latencies_asked_for() -> None:
    rng = np.random.default_rng(7)
    dipoles = draw_dipoles(draw_anatomy(rng), rng)
    brain = draw_brain(240, 64, 0.8, 7)
    units = draw_units(brain, dipoles, (0.08, 0.15), (0.2, 0.4), rng)
    assert (dipoles.roi[units.dipole] == brain.roi).all()
    early = np.isin(brain.roi, EARLY)
    assert 0.08 <= units.latency_s[early].min() < 0.09
    assert 0.14 < units.latency_s[early].max() <= 0.15
    assert units.latency_s[~early].min() >= 0.2
    assert units.latency_s[~early].max() <= 0.4
    means = [units.latency_s[brain.roi == name].mean() for name in EARLY]
    assert means == sorted(means)
    # The left half of the brain sees the right half of the picture.
    left = dipoles.hemisphere[units.dipole[early]] == "L"
    assert (left == (brain.x[early] >= 0.5)).all()
    power = np.bincount(units.dipole, units.weight**2, len(dipoles.roi))
    np.testing.assert_allclose(power[power > 0], 1)


def test_responses_come_when_planted_and_add_up(eeg: Subject) -> None:
    still = subject("eeg", noise_scale=0.0, n_flat=0, n_noisy=0)
    data = simulate_run(still, 0)
    np.testing.assert_array_equal(data[:-1], evoked_field(still, 0))
    courses = dipole_courses(still, 0)
    # No current before the first picture; a dipole of V1 alone peaks at its units' latency.
    first = still.runs[0].first_samples[0]
    assert np.abs(courses[:first]).max() < 1e-3 * np.abs(courses).max()
    units, n_dipoles = still.units, len(still.dipoles.roi)
    number = int(
        np.flatnonzero((still.dipoles.roi == "V1") & (units.mixture(n_dipoles).any(0)))[0]
    )
    members = np.flatnonzero(units.dipole == number)
    after_s = np.arange(100) / 250
    expected = still.moment_am * sum(
        units.weight[unit] * still.planted[0][0, unit]
        * np.exp(-((after_s - units.latency_s[unit]) ** 2) / (2 * units.width_s[unit] ** 2))
        for unit in members
    )  # fmt: skip
    np.testing.assert_allclose(courses[first : first + 100, number], expected, atol=1e-12)
    # The mean over pictures of the field is the evoked response.
    run = still.runs[0]
    flat = replace(still, planted=(np.full_like(still.planted[0], 0.5),))
    lonely = replace(
        flat,
        runs=(replace(run, shown=run.shown[:1], first_samples=run.first_samples[:1]),),
        planted=(flat.planted[0][:1],),
    )
    single = evoked_field(lonely, 0)[:, first : first + 100]
    np.testing.assert_allclose(single, mean_evoked(still, after_s), atol=1e-9)


def test_blinks_are_large_at_the_forehead_and_where_they_were_planted(drawn: Subject) -> None:
    without = replace(drawn, blinks_s=tuple(np.zeros(0) for _ in drawn.runs), bad={})
    blink = simulate_run(replace(drawn, bad={}), 0)[:-1] - simulate_run(without, 0)[:-1]
    course = noise.blink_course(drawn.blinks_s[0], drawn.runs[0].n_samples, 250.0)
    assert len(drawn.blinks_s[0]) >= 3
    quiet = course == 0
    assert np.abs(blink[:, quiet]).max() < 1e-3 * np.abs(blink).max()
    strongest = int(np.abs(drawn.blink[:: 3 if drawn.modality == "meg" else 1]).argmax())
    if drawn.modality == "eeg":
        assert drawn.names[strongest] in {"Fp1", "Fpz", "Fp2", "AF7", "AF8", "AF3", "AF4"}
        # Recorded against the mastoid, calibrated against the average.
        assert (drawn.blink - drawn.blink.mean()).max() == pytest.approx(120e-6, rel=0.01)
        assert abs(drawn.blink[drawn.names.index("Oz")]) < 0.3 * drawn.blink[strongest]
    else:
        assert helmet_directions()[strongest, 1] > 0.2
    np.testing.assert_allclose(np.abs(blink).max(axis=0), np.abs(drawn.blink).max() * course,
                               atol=2e-3 * np.abs(drawn.blink).max())  # fmt: skip
    eye = simulate_run(drawn, 0)[-1]
    assert np.corrcoef(eye, course)[0, 1] > 0.9


def test_bad_channels_are_bad_in_every_run_and_no_other_is(drawn: Subject) -> None:
    assert sorted(drawn.bad.values()) == ["flat", "noisy", "noisy"]
    kinds = np.array(drawn.info.get_channel_types()[:-1])
    for number in range(len(drawn.runs)):
        data = simulate_run(drawn, number)[:-1].astype(np.float64)
        fast = np.diff(data, axis=1).std(axis=1)
        for kind in set(kinds):
            usual = np.median(fast[kinds == kind])
            for index in np.flatnonzero(kinds == kind):
                fault = drawn.bad.get(drawn.names[index])
                if fault == "flat":
                    assert fast[index] == 0
                elif fault == "noisy":
                    assert fast[index] > 4 * usual
                else:
                    assert 0.2 * usual < fast[index] < 4 * usual


def test_noise_has_the_spectra_stated() -> None:
    from scipy.signal import welch

    rng = np.random.default_rng(0)
    hz, power = welch(noise.background(40, 50_000, 250.0, rng), 250.0, nperseg=2000)
    power = power.mean(axis=0)
    inside = (hz > 2) & (hz < 80)
    slope = np.polyfit(np.log(hz[inside]), np.log(power[inside]), 1)[0]
    assert slope == pytest.approx(-1, abs=0.08)
    rhythm = noise.alpha(np.array([10.0, 11.0]), 50_000, 250.0, rng)
    assert rhythm.std(axis=1) == pytest.approx([1, 1], abs=0.15)
    hz, power = welch(rhythm, 250.0, nperseg=2000)
    np.testing.assert_allclose(hz[power.argmax(axis=1)], [10, 11], atol=0.5)
    drifts = noise.drift(5, 50_000, 250.0, rng)
    assert np.diff(drifts, axis=1).std() < 0.01
    hum = noise.mains(50.0, 25_000, 250.0, rng)
    assert hum.std() == pytest.approx(1, abs=0.01)
    spectrum = np.abs(np.fft.rfft(hum)) ** 2
    assert np.fft.rfftfreq(25_000, 1 / 250)[spectrum.argmax()] == pytest.approx(50)
    onsets = noise.blink_times(600, 12, rng)
    assert 70 < len(onsets) < 170
    assert np.diff(onsets).min() > noise.BLINK_S


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"stimulus_s": 0.65}, "stimulus_s"),
        ({"early_latency_s": (0.2, 0.1)}, "early_latency_s"),
        ({"line_hz": 130.0}, "sampling_rate_hz must be"),
        ({"n_subject": 2}, "Extra inputs"),
    ],
)
def test_impossible_settings_are_refused(changed, named) -> None:
    with pytest.raises(ValidationError, match=named):
        Config(**changed)
