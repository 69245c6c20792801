"""Windows, their decoders against a plain loop of scikit-learn, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from afterimage.errors import ConfigError, InputError
from afterimage.evaluation.gallery import COLUMNS
from afterimage.evaluation.generalisation import (
    bin_times,
    fit_times,
    predict_times,
    temporal_generalisation,
)
from afterimage.evaluation.scores import Resampling
from afterimage.evaluation.time_resolved import (
    Decoding,
    fit_windows,
    make_windows,
    unit_scale,
    window_curves,
    window_inputs,
    window_rows,
)
from afterimage.evaluation.time_summary import alarm_row, leak_alarm, peak_latency, peak_row

TIMES_S = np.arange(-10, 40) / 100.0
RESAMPLING = Resampling(n_bootstraps=120, n_permutations=120, random_state=2)


@pytest.fixture(scope="module")
def data() -> Decoding:
    rng = np.random.default_rng(0)
    names = np.array([f"image{number:02d}" for number in range(40)])
    features = rng.standard_normal((40, 6))
    pattern = rng.standard_normal((6, 5))
    course = np.exp(-(((TIMES_S - 0.15) / 0.04) ** 2))
    rows = np.repeat(np.arange(40), 3)
    trials = (features[rows] @ pattern)[:, :, None] * course
    trials = trials + rng.standard_normal(trials.shape)
    trials *= np.array([1, 10, 0.1, 1, 1])[:, None]
    train = rows < 28
    return Decoding(
        trials[train].astype(np.float32), features[rows[train]], names[rows[train]],
        trials[~train].astype(np.float32), names[rows[~train]], list(names[28:]), features[28:],
        TIMES_S,
    )  # fmt: skip


def test_sliding_windows_meet_at_the_onset():
    windows = make_windows(TIMES_S, 0.1, 0.05)
    assert [window.start_s for window in windows] == pytest.approx(np.arange(-0.1, 0.31, 0.05))
    assert {window.samples.stop - window.samples.start for window in windows} == {10}
    onset = windows[2]
    assert (TIMES_S[onset.samples] >= 0).all()
    assert TIMES_S[onset.samples][0] == 0.0
    assert (TIMES_S[windows[0].samples] < 0).all()


def test_growing_windows_start_at_the_onset():
    windows = make_windows(TIMES_S, 0.1, 0.1, "growing")
    assert {window.start_s for window in windows} == {0.0}
    assert [window.end_s for window in windows] == pytest.approx([0.1, 0.2, 0.3, 0.4])
    assert [window.samples.stop - 10 for window in windows] == [10, 20, 30, 40]


def test_a_window_longer_than_the_trial_is_refused():
    with pytest.raises(ConfigError, match="no window"):
        make_windows(TIMES_S, 0.8, 0.1)


def test_inputs_are_bins_of_samples_over_the_scale_of_units():
    responses = np.arange(2 * 3 * 50, dtype=float).reshape(2, 3, 50)
    window = make_windows(TIMES_S, 0.05, 0.1)[1]
    scale = np.array([1.0, 2.0, 4.0])[:, None]
    plain = window_inputs(responses, window, scale)
    np.testing.assert_allclose(plain, (responses[:, :, window.samples] / scale).reshape(2, -1))
    binned = window_inputs(responses, window, scale, 2).reshape(2, 3, 3)
    part = responses[:, :, window.samples] / scale
    np.testing.assert_allclose(binned[:, :, 0], part[:, :, :2].mean(axis=2))
    np.testing.assert_allclose(binned[:, :, 2], part[:, :, 4])


def test_windows_equal_a_loop_of_sklearn(data):
    from sklearn.linear_model import Ridge

    windows = make_windows(TIMES_S, 0.1, 0.05)
    scale = unit_scale(data.train)
    average = data.test.reshape(12, 3, 5, -1).mean(axis=1)
    fits = list(fit_windows(data, windows, alphas=(0.1, 1.0, 10.0)))
    assert len(fits) == len(windows)
    for window, (model, predicted) in zip(windows, fits, strict=True):
        inputs = (data.train / scale)[:, :, window.samples].reshape(len(data.train), -1)
        theirs = Ridge(model.penalty).fit(inputs.astype(np.float64), data.targets)
        asked = (average / scale)[:, :, window.samples].reshape(12, -1)
        np.testing.assert_allclose(predicted, theirs.predict(asked), atol=1e-6)


def test_generalisation_equals_a_loop_of_sklearn(data):
    from sklearn.linear_model import Ridge

    train, times_s = bin_times(data.train, TIMES_S, 0.05)
    test, _ = bin_times(data.test, TIMES_S, 0.05)
    assert times_s == pytest.approx(np.arange(-0.075, 0.4, 0.05))
    candidates = np.random.default_rng(3).standard_normal((9, 6))
    models = fit_times(train, data.targets, data.groups, alphas=(1.0,))
    centred = (test - train.mean(axis=0)).transpose(2, 0, 1)
    for t, model in enumerate(models):
        theirs = Ridge(model.penalty).fit(train[:, :, t], data.targets)
        ours = predict_times(model, centred, candidates)
        for other in range(len(times_s)):
            # sklearn takes the mean of the training time off; put that of the test time there.
            moved = test[:, :, other] - train[:, :, other].mean(0) + train[:, :, t].mean(0)
            expected = (theirs.predict(moved) - data.targets.mean(0)) @ candidates.T
            np.testing.assert_allclose(ours[other], expected, atol=1e-6)


def test_an_evoked_response_of_the_test_time_changes_no_score(data):
    shift = np.random.default_rng(1).standard_normal((5, len(TIMES_S))).astype(np.float32) * 50
    moved = Decoding(
        data.train + shift, data.targets, data.groups, data.test + shift, data.test_stimuli,
        data.gallery_names, data.gallery, TIMES_S,
    )  # fmt: skip
    one = temporal_generalisation(data, bin_s=0.1, alphas=(0.1,), resampling=RESAMPLING)
    two = temporal_generalisation(moved, bin_s=0.1, alphas=(0.1,), resampling=RESAMPLING)
    np.testing.assert_allclose(one.matrix("twoway"), two.matrix("twoway"), atol=0.02)


def test_bins_with_few_samples_are_left_out():
    times_s = np.arange(-12, 41) / 100.0  # -0.12 to 0.40: both ends cut a bin of 0.1
    binned, centres = bin_times(np.ones((1, 1, len(times_s))), times_s, 0.1)
    assert centres == pytest.approx([-0.05, 0.05, 0.15, 0.25, 0.35])
    np.testing.assert_allclose(binned, 1)


def test_rows_are_complete(data):
    windows = make_windows(TIMES_S, 0.1, 0.05)
    curves = window_curves(data, windows, resampling=RESAMPLING)
    rows = window_rows(
        curves, windows, subject="01", label="ridge", analysis="sliding", n_gallery=12,
        decoder="ridge",
    )  # fmt: skip
    assert len(rows) == len(windows) * 3
    alarm = leak_alarm(curves["twoway"], windows, RESAMPLING)
    assert alarm is not None
    assert (alarm.start_s, alarm.end_s, alarm.n_windows) == (-0.1, 0.0, 1)
    rows.append(alarm_row(alarm, curves["twoway"], subject="01", label="ridge", n_gallery=12))
    assert rows[-1]["alarm"] in {"rings", "quiet"}
    peak = peak_latency(curves["twoway"], windows, RESAMPLING)
    assert peak[0] == pytest.approx(0.15, abs=0.04)
    rows.append(
        peak_row(peak, curves["twoway"], windows, subject="01", label="ridge", n_gallery=12)
    )
    assert all(set(row) == set(COLUMNS) for row in rows)
    assert all("maximum statistic" in row["protocol"] for row in rows[:-2])


def test_no_alarm_without_windows_before_the_onset(data):
    windows = make_windows(TIMES_S, 0.1, 0.05)[3:]
    curve = window_curves(data, windows, resampling=RESAMPLING)["twoway"]
    assert leak_alarm(curve, windows, RESAMPLING) is None


def test_test_images_among_training_images_are_refused(data):
    with pytest.raises(InputError, match="among the training") as caught:
        Decoding(
            data.train, data.targets, data.groups, data.test,
            np.where(data.test_stimuli == "image30", "image02", data.test_stimuli),
            data.gallery_names, data.gallery, TIMES_S,
        )  # fmt: skip
    assert "image02" in str(caught.value)
    with pytest.raises(InputError, match="differ in units"):
        Decoding(
            data.train[:, :4], data.targets, data.groups, data.test, data.test_stimuli,
            data.gallery_names, data.gallery, TIMES_S,
        )  # fmt: skip
