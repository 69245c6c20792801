"""Epochs are those of MNE, sample for sample; trials without all their samples are dropped."""

from __future__ import annotations

import numpy as np
import pytest

from afterimage.errors import ConfigError
from afterimage.preprocess.meeg.epochs import (
    baseline_means,
    epoch_window,
    peak_to_peak,
    place_epochs,
    strided_epochs,
)
from afterimage.preprocess.noise_ceiling import noise_ceiling
from afterimage.preprocess.reliability import Reliability, over_times


@pytest.mark.parametrize("rate_hz", [250.0, 100.0, 256.0, 1200.0 / 7])
def test_epochs_are_those_of_mne(rate_hz: float) -> None:
    import mne

    rng = np.random.default_rng(0)
    signal = rng.normal(size=(3000, 4))
    info = mne.create_info(4, rate_hz, "eeg")
    raw = mne.io.RawArray(signal.T, info, verbose="error")
    samples = np.sort(rng.choice(np.arange(300, 2500), 40, replace=False))
    events = np.column_stack([samples, np.zeros(40, int), np.ones(40, int)])
    theirs = mne.Epochs(
        raw, events, tmin=-0.2, tmax=0.8, baseline=(-0.2, 0), preload=True, verbose="error"
    )
    window = epoch_window(rate_hz, -0.2, 0.8)
    placed = place_epochs(samples, len(signal), window)
    ours = strided_epochs(signal, placed.first_samples, window.n_times)
    ours = ours - baseline_means(signal, placed.first_samples, window, (-0.2, 0))[:, :, None]
    np.testing.assert_allclose(window.times_s, theirs.times, atol=1e-12)
    np.testing.assert_allclose(ours, theirs.get_data(copy=False), atol=1e-6)


def test_trials_without_all_samples_are_dropped_and_counted() -> None:
    window = epoch_window(10.0, -0.5, 1.0)
    censored = np.zeros(100, dtype=bool)
    censored[50] = True
    samples = np.array([4, 5, 39, 40, 55, 56, 89, 90, 400])
    placed = place_epochs(samples, 100, window, censored)
    assert placed.kept.tolist() == [
        False, True, True, False, False, True, True, False, False
    ]  # fmt: skip
    assert (placed.n_outside, placed.n_censored) == (3, 2)
    np.testing.assert_array_equal(placed.first_samples, [0, 34, 51, 84])
    assert not place_epochs(np.array([], int), 100, window).kept.size


def test_even_trials_are_a_view() -> None:
    signal = np.random.default_rng(0).normal(size=(1000, 3))
    even = strided_epochs(signal, np.arange(0, 800, 20), 120)
    assert np.shares_memory(even, signal)
    uneven = strided_epochs(signal, np.array([7, 1, 1]), 120)
    assert not np.shares_memory(uneven, signal)
    np.testing.assert_array_equal(even[3], signal[60:180].T)
    np.testing.assert_array_equal(uneven[0], signal[7:127].T)
    ranges = peak_to_peak(signal, np.array([7, 1]), 120)
    np.testing.assert_array_equal(ranges[0], np.ptp(signal[7:127], axis=0))


def test_windows_that_make_no_sense() -> None:
    with pytest.raises(ConfigError, match="ends before it starts"):
        epoch_window(100, 0.5, 0.1)
    with pytest.raises(ConfigError, match="no part of the epoch"):
        epoch_window(100, -0.1, 0.5).part(-0.2, 0)


def test_ceilings_are_those_of_whole_arrays_and_of_the_planted_signal() -> None:
    rng = np.random.default_rng(3)
    stimuli = np.repeat(np.arange(200), 4).astype(str)
    signal = rng.normal(size=(200, 2, 3)) * np.array([2.0, 1.0, 0.0])
    epochs = np.repeat(signal, 4, axis=0) + rng.normal(size=(800, 2, 3))
    sums = Reliability((2, 3))
    for start in range(0, 800, 7):  # stimuli cross the ends of batches
        sums.update(epochs[start : start + 7], stimuli[start : start + 7])
    ceiling = sums.noise_ceiling()
    whole = noise_ceiling(epochs.reshape(800, 6), stimuli).reshape(2, 3)
    np.testing.assert_allclose(ceiling, whole, atol=1e-5)
    np.testing.assert_allclose(ceiling[:, 0], np.sqrt(4 / 5), atol=0.03)
    half = sums.split_half()
    np.testing.assert_allclose(half[:, 0], 4 / (4 + 0.5), atol=0.04)
    assert np.abs(half[:, 2]).max() < 0.25
    expected = np.corrcoef(
        epochs.reshape(200, 4, 6)[:, ::2].mean(1)[:, 0], epochs.reshape(200, 4, 6)[:, 1::2].mean(1)[:, 0]
    )[0, 1]  # fmt: skip
    assert half[0, 0] == pytest.approx(expected, abs=1e-5)
    times = np.array([-0.1, 0.0, 0.1])
    np.testing.assert_allclose(
        over_times(ceiling, times), np.sqrt((ceiling[:, 1:] ** 2).mean(axis=1)), rtol=1e-5
    )


def test_odd_repeats_and_none() -> None:
    rng = np.random.default_rng(0)
    epochs = rng.normal(size=(9, 1, 1))
    sums = Reliability((1, 1))
    sums.update(epochs, np.repeat(["a", "b", "c"], 3))
    pairs = epochs.reshape(3, 3)
    assert sums.split_half()[0, 0] == pytest.approx(
        np.corrcoef(pairs[:, 0], pairs[:, 1])[0, 1], abs=1e-5
    )
    alone = Reliability((1, 1))
    alone.update(epochs, np.arange(9).astype(str))
    assert np.isnan(alone.noise_ceiling()).all() and np.isnan(alone.split_half()).all()
