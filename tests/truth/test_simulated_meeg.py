"""The simulated EEG and MEG: what was planted is really in the recordings, when it was planted."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from afterimage.simulate.meeg import Recorder, Subject, dipole_courses, draw_subject, simulate_run
from afterimage.simulate.meeg_schedule import plan_recording
from afterimage.simulate.stimuli import draw_stimuli
from afterimage.simulate.visual_brain import SELECTIVE, draw_brain
from afterimage.stages.simulate_meeg import Config, _recorder

RECORDER: Recorder = _recorder(Config())
N_TRAINING, N_TEST = 240, 40
RATE_HZ, BEFORE, AFTER = 250, 25, 150  # samples around a picture: -0.1 to 0.6 s
PICTURES = draw_stimuli(N_TRAINING + N_TEST, 0, size_px=48)


def record(modality: str, **changed) -> Subject:
    images, attributes, _ = PICTURES
    runs = plan_recording(
        {"train": N_TRAINING, "test": N_TEST}, {"train": 1, "test": 6}, trials_per_run=240,
        trial_s=0.7, jitter_s=0.05, sampling_rate_hz=RATE_HZ, rng=np.random.default_rng(3),
    )  # fmt: skip
    brain = draw_brain(240, 64, 0.8, 3)
    recorder = replace(RECORDER, **changed)
    return draw_subject(recorder, modality, brain, runs, images, attributes, (0, 3))


def epochs(drawn: Subject) -> tuple[np.ndarray, np.ndarray]:
    """Filter, cut, take the baseline off; return (n_trials, n_channels, n_times) and pictures."""
    import mne

    good = [index for index, name in enumerate(drawn.names) if name not in drawn.bad]
    cut, shown = [], []
    for number, run in enumerate(drawn.runs):
        data = simulate_run(drawn, number)[good].astype(np.float64)
        data = mne.filter.filter_data(data, RATE_HZ, 0.5, 40.0, method="iir", verbose="error")
        for first in run.first_samples:
            trial = data[:, first - BEFORE : first + AFTER]
            cut.append((trial - trial[:, :BEFORE].mean(axis=1, keepdims=True)).astype("f4"))
        shown.append(run.shown)
    stacked, pictures = np.array(cut), np.concatenate(shown)
    stacked /= stacked[pictures < N_TRAINING].std(axis=(0, 2), keepdims=True)
    return stacked, pictures


def category_accuracy(trials: np.ndarray, pictures: np.ndarray, average: bool) -> float:
    """Train shrinkage LDA on training pictures, test it on the others; whitened by training."""
    from sklearn.covariance import LedoitWolf
    from sklearn.decomposition import PCA
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
    from sklearn.pipeline import make_pipeline

    category = PICTURES[1]["category"].astype(str)
    training = pictures < N_TRAINING
    samples = trials[training].transpose(0, 2, 1).reshape(-1, trials.shape[1])[::5]
    values, vectors = np.linalg.eigh(LedoitWolf().fit(samples).covariance_)
    whitener = (vectors / np.sqrt(values)) @ vectors.T
    flat = np.einsum("cd,ndt->nct", whitener, trials, optimize=True).reshape(len(trials), -1)
    n_components = min(100, flat.shape[1])
    model = make_pipeline(
        PCA(n_components, random_state=0),
        LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto"),
    )
    model.fit(flat[training], category[pictures[training]])
    if not average:
        return float(model.score(flat[~training], category[pictures[~training]]))
    test = np.arange(N_TRAINING, N_TRAINING + N_TEST)
    means = np.array([flat[pictures == picture].mean(axis=0) for picture in test])
    return float(model.score(means, category[test]))


@pytest.fixture(scope="module", params=["eeg", "meg"])
def recorded(request: pytest.FixtureRequest) -> tuple[Subject, np.ndarray, np.ndarray]:
    drawn = record(request.param)
    return drawn, *epochs(drawn)


def binned(trials: np.ndarray, start_s: float, stop_s: float, n_bins: int) -> np.ndarray:
    """Mean within each of ``n_bins`` windows between two times after the picture."""
    edges = np.linspace(start_s, stop_s, n_bins + 1)
    samples = BEFORE + np.round(edges * RATE_HZ).astype(int)
    return np.stack(
        [trials[..., low:high].mean(axis=-1) for low, high in pairwise(samples)],
        axis=-1,
    )


def test_averaged_test_pictures_tell_their_category(recorded) -> None:
    _, trials, pictures = recorded
    whole = binned(trials, 0.0, 0.6, 20)
    averaged = category_accuracy(whole, pictures, average=True)
    single = category_accuracy(whole, pictures, average=False)
    assert averaged >= 0.75
    assert 0.3 < single < averaged


def test_before_the_picture_and_with_shuffled_labels_nothing_is_decoded(recorded) -> None:
    _, trials, pictures = recorded
    # 240 single trials at a chance of about 1 in 8: four standard errors are 0.085.
    before = binned(trials, -0.1, 0.0, 4)
    assert category_accuracy(before, pictures, average=False) < 0.125 + 0.085 + 0.03
    shuffled = pictures.copy()
    rng = np.random.default_rng(0)
    shuffled[:N_TRAINING] = rng.permutation(pictures[:N_TRAINING])
    whole = binned(trials, 0.0, 0.6, 20)
    assert category_accuracy(whole, shuffled, average=False) < 0.125 + 0.085 + 0.03


def test_categories_are_decoded_when_they_were_planted(recorded) -> None:
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    drawn, trials, pictures = recorded
    category = PICTURES[1]["category"].astype(str)[pictures]
    # Windows of 20 ms: the course of each category's own region, one against the others.
    times_s = np.arange(-0.06, 0.54, 0.02)
    windows = binned(trials, -0.06, 0.54, len(times_s))
    half = np.arange(len(trials)) % 2 == 0
    errors_s = []
    for roi, name in SELECTIVE.items():
        latencies_s = drawn.units.latency_s[drawn.brain.roi == roi]
        # A region whose units are spread out has no one peak.
        if np.ptp(latencies_s) > 0.06:
            continue
        course = []
        for index in range(len(times_s)):
            model = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")
            values = []
            for part in (half, ~half):
                model.fit(windows[part, :, index], category[part] == name)
                found = model.decision_function(windows[~part, :, index])
                known = category[~part] == name
                gap = found[known].mean() - found[~known].mean()
                values.append(gap / found.std())
            course.append(np.mean(values))
        smooth = np.convolve(course, [0.25, 0.5, 0.25], mode="same")
        errors_s.append(times_s[np.argmax(smooth)] + 0.01 - latencies_s.mean())
    assert len(errors_s) >= 4
    assert np.median(np.abs(errors_s)) <= 0.03


def test_without_noise_the_leadfield_gives_back_every_dipole_that_can_be_told_apart() -> None:
    # More coils than dipoles: what the helmet sees has one explanation, but for radial currents.
    drawn = record("meg", noise_scale=0.0, n_flat=0, n_noisy=0)
    data = simulate_run(drawn, 1)[:-1].astype(np.float64)
    planted = dipole_courses(drawn, 1).T
    kinds = np.array(drawn.info.get_channel_types()[:-1])
    scale = np.where(kinds == "mag", 1e13, 1e12)[:, None]
    found = np.linalg.lstsq(scale * drawn.leadfield, scale * data, rcond=1e-6)[0]
    used = planted.std(axis=1) > 0
    assert used.mean() > 0.9
    agreement = [np.corrcoef(a, b)[0, 1] for a, b in zip(found[used], planted[used], strict=True)]
    assert np.median(agreement) > 0.99


def test_both_modalities_see_the_same_head_and_the_same_currents() -> None:
    eeg, meg = record("eeg"), record("meg")
    np.testing.assert_array_equal(eeg.dipoles.place_m, meg.dipoles.place_m)
    np.testing.assert_array_equal(dipole_courses(eeg, 0), dipole_courses(meg, 0))
    assert eeg.moment_am == meg.moment_am
    assert 1e-9 < eeg.moment_am < 5e-8  # tens of nanoampere metres, as of an evoked response
