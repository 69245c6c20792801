"""Cleaning a stream: blocks of any size give what cleaning the whole recording gives."""

from __future__ import annotations

from dataclasses import replace

import mne
import numpy as np
import pytest

from afterimage.errors import ConfigError
from afterimage.preprocess.meeg.causal import (
    LATE_S,
    CausalSettings,
    CausalStream,
    onset_sample,
)
from afterimage.preprocess.meeg.epochs import epoch_window
from afterimage.preprocess.meeg.filtering import band_pass, remove_line_noise, resample

RATE_HZ, N_UNITS = 500.0, 5
SETTINGS = CausalSettings(RATE_HZ, 125.0, 0.5, 40.0, 50.0, calibration_s=4.0)
ONSETS = [40, 900, 1003, 1400, 5001, 7000, 7900]
MATRIX = np.random.default_rng(3).normal(size=(4, N_UNITS))


def recording(seed: int = 0, n: int = 8000) -> np.ndarray:
    """Slow waves, white noise, mains and the offset of an amplifier, in V."""
    rng = np.random.default_rng(seed)
    slow = 5e-7 * np.cumsum(rng.normal(size=(n, N_UNITS)), axis=0)
    line = 1e-5 * np.sin(2 * np.pi * 50 * np.arange(n) / RATE_HZ)[:, None]
    return 2e-2 + slow + line + 1e-5 * rng.normal(size=(n, N_UNITS))


def stream(
    signal: np.ndarray,
    size: int,
    settings: CausalSettings = SETTINGS,
    seen: list[np.ndarray] | None = None,
) -> dict[int, np.ndarray | None]:
    """Push a recording in blocks, marking each onset with the block it lies in."""

    def find_matrix(start: np.ndarray) -> np.ndarray:
        if seen is not None:
            seen.append(start.copy())
        return MATRIX

    causal = CausalStream(settings, signal.shape[1], find_matrix)
    found: dict[int, np.ndarray | None] = {}
    for start in range(0, len(signal), size):
        for onset in ONSETS:
            if start <= onset < start + size:
                causal.mark(onset)
        found.update(causal.push(signal[start : start + size]))
    return found


def cleaned(signal: np.ndarray, *, band: bool = True) -> np.ndarray:
    """Clean the recording as a whole, by the functions that `clean_meeg` calls."""
    info = mne.create_info(N_UNITS, RATE_HZ, "eeg")
    raw = mne.io.RawArray(signal.T.copy(), info, verbose="error")
    raw = resample(raw, SETTINGS.rate_hz, causal=True)
    remove_line_noise(raw, 50.0, causal=True)
    if band:
        band_pass(raw, 0.5, 40.0, causal=True)
    return raw.get_data().T


@pytest.mark.parametrize("size", [1, 37, 8000])
def test_blocks_of_any_size_give_the_trials_of_the_whole_recording(size: int) -> None:
    signal = recording()
    seen: list[np.ndarray] = []
    found = stream(signal, size, seen=seen)
    # The first began before the stream had enough past, the last has no end.
    assert list(found) == ONSETS[:-1]
    assert found[ONSETS[0]] is None
    whole, window = cleaned(signal), epoch_window(125.0, -0.2, 0.8)
    for onset in ONSETS[1:-1]:
        first = round(onset / 4) + window.first
        rows = whole[first : first + window.n_times]
        rows = rows - rows[window.part(-0.2, 0.0)].mean(axis=0)
        expected = MATRIX @ rows.T
        np.testing.assert_allclose(found[onset], expected, atol=1e-6 * expected.std())
    (start,) = seen  # the calibration is what offline cleaning looks at: both ends included
    assert len(start) == 501
    np.testing.assert_allclose(start, cleaned(signal, band=False)[:501], rtol=1e-9)


def test_samples_of_the_future_change_nothing() -> None:
    signal = recording()
    before = stream(signal, 20)
    for onset in ONSETS[1:-1]:
        last = 4 * (round(onset / 4) + round(0.8 * 125))  # in samples of the input
        changed = signal.copy()
        changed[max(last + 1, 2001) :] = 1e3
        after = stream(changed, 20)[onset]
        np.testing.assert_array_equal(before[onset], after)
        changed = signal.copy()
        changed[last - 200] += 1e-3  # within the trial it does count
        assert not np.allclose(before[onset], stream(changed, 20)[onset], atol=1e-7)


def test_a_trial_leaves_with_its_last_sample_and_after_the_calibration() -> None:
    signal = recording()
    causal = CausalStream(SETTINGS, N_UNITS, lambda start: MATRIX)
    for onset in (3000, 900):
        causal.mark(onset)
    left = [n for n in range(4000) for _ in causal.push(signal[n : n + 1])]
    assert left == [2000, 3000 + round(0.8 * RATE_HZ)]


def test_marks_may_come_late() -> None:
    signal = recording()
    causal = CausalStream(SETTINGS, N_UNITS, lambda start: MATRIX)
    for start in range(0, 6000, 20):
        assert not list(causal.push(signal[start : start + 20]))
    late = 6000 - round((LATE_S + 0.7) * RATE_HZ)
    causal.mark(late)
    ((sample, epoch),) = causal.push(signal[6000:6020])
    assert sample == late
    before = CausalStream(SETTINGS, N_UNITS, lambda start: MATRIX)
    before.mark(late)
    ((_, expected),) = before.push(signal)
    assert epoch is not None and expected is not None
    np.testing.assert_allclose(epoch, expected, atol=1e-6 * expected.std())


def test_onsets_between_two_samples_are_rounded_as_those_of_a_table_of_events() -> None:
    settings = replace(SETTINGS, recorded_rate_hz=250.0)
    for sample in range(1, 60_000, 2):
        onset_s = float(f"{sample / 250:.3f}")  # as it is written, and read again
        assert onset_sample(sample, settings) == int(np.round(onset_s * 125.0))


def test_only_whole_fractions_of_the_rate() -> None:
    with pytest.raises(ConfigError, match="without looking ahead"):
        CausalStream(replace(SETTINGS, rate_hz=120.0), 5, lambda start: MATRIX)
