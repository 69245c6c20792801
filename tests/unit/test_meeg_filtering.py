"""Resampling, line noise and band-pass of continuous recordings."""

from __future__ import annotations

import mne
import numpy as np
import pytest

from afterimage.preprocess.meeg.filtering import (
    band_pass,
    remove_line_noise,
    resample,
    resampled_rate,
)

RATE_HZ = 1000.0


def make(signal: np.ndarray, rate_hz: float = RATE_HZ) -> mne.io.BaseRaw:
    info = mne.create_info(len(signal), rate_hz, "eeg")
    return mne.io.RawArray(signal.copy(), info, verbose="error")


def sines(
    *frequencies_hz: float, duration_s: float = 40.0, rate_hz: float = RATE_HZ
) -> np.ndarray:
    times_s = np.arange(int(duration_s * rate_hz)) / rate_hz
    return np.array([np.sin(2 * np.pi * frequency * times_s) for frequency in frequencies_hz])


def middle(raw: mne.io.BaseRaw) -> np.ndarray:
    signal = raw.get_data()
    quarter = signal.shape[1] // 4
    return signal[:, quarter:-quarter]


@pytest.mark.parametrize("rate_hz", [250.0, 240.0, 123.456])
def test_resampling_keeps_the_signal_and_its_times(rate_hz: float) -> None:
    raw = resample(make(sines(7.0)), rate_hz)
    assert raw.info["sfreq"] == pytest.approx(rate_hz)
    times_s = np.arange(raw.n_times) / rate_hz
    inner = slice(raw.n_times // 4, -raw.n_times // 4)
    expected = np.sin(2 * np.pi * 7 * times_s)[inner]
    assert np.abs(raw.get_data()[0, inner] - expected).max() < 5e-3


def test_resampling_lets_nothing_fold_back() -> None:
    assert np.abs(middle(resample(make(sines(210.0)), 250.0))).max() < 0.02
    assert np.abs(middle(resample(make(sines(210.0)), 250.0, causal=True))).max() < 0.02


def test_rates() -> None:
    assert resampled_rate(1000, 250) == 250
    assert resampled_rate(160, 250) == 160
    assert resampled_rate(1000, None) == 1000
    assert resampled_rate(1000, 300, causal=True) == pytest.approx(1000 / 3)
    assert resampled_rate(256, 250, causal=True) == 256


@pytest.mark.parametrize("options", [{}, {"method": "spectrum_fit"}, {"causal": True}])
def test_the_line_is_taken_out_and_the_rest_stays(options: dict[str, object]) -> None:
    line = sines(50.0, rate_hz=250.0)
    signal = sines(10.0, rate_hz=250.0)
    raw = make(np.vstack([line, signal, line + signal]), 250.0)
    assert remove_line_noise(raw, 50.0, **options) == [50.0, 100.0]  # type: ignore[arg-type]
    left = middle(raw)
    assert left[0].std() < 0.05
    assert left[1].std() == pytest.approx(np.sqrt(0.5), rel=0.03)
    assert remove_line_noise(make(line, 90.0), 50.0) == []


@pytest.mark.parametrize("causal", [False, True])
def test_the_pass_band_passes(causal: bool) -> None:
    raw = make(sines(0.02, 0.5, 10.0, 30.0, 60.0, rate_hz=250.0, duration_s=120), 250.0)
    assert band_pass(raw, 0.1, 40.0, causal=causal) == []
    gain = middle(raw).std(axis=1) * np.sqrt(2)
    assert gain[0] < 0.1
    np.testing.assert_allclose(gain[1:4], 1, atol=0.03)
    assert gain[4] < 0.02


def test_causal_filters_do_not_look_ahead() -> None:
    signal = np.zeros((1, 40_000))
    signal[0, 20_000:] = 1.0
    raw = make(signal)
    raw = resample(raw, 250.0, causal=True)
    remove_line_noise(raw, 50.0, causal=True)
    band_pass(raw, 0.1, 40.0, causal=True)
    found = raw.get_data()[0]
    assert np.abs(found[:4990]).max() < 1e-12
    # The step is seen soon: a filter of linear phase would take half its length, 16 s.
    assert np.abs(found[5000:5025]).max() > 0.5
    raw = make(signal[:, ::4], 250.0)
    band_pass(raw, 0.1, 40.0)
    assert np.abs(raw.get_data()[0, :4990]).max() > 1e-3


def test_filters_that_cannot_be_had_are_said() -> None:
    raw = make(sines(5.0, duration_s=8.0, rate_hz=100.0), 100.0)
    notes = band_pass(raw, 0.1, 60.0)
    assert "no low-pass at 60 Hz" in notes[0]
    assert "lasts 8.0 s" in notes[1]
    np.testing.assert_array_equal(raw.get_data(), sines(5.0, duration_s=8.0, rate_hz=100.0))
