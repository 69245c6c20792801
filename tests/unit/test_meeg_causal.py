"""Decoding from a stream: no sample of the future counts, blocks of any size give the same."""

from __future__ import annotations

import numpy as np
import pytest

from afterimage.errors import ConfigError
from afterimage.preprocess.meeg.causal import CausalSettings, CausalStream

RATE_HZ = 500.0
SETTINGS = CausalSettings(RATE_HZ, 0.5, 40.0, 50.0, 4)


def stream(
    signal: np.ndarray, onsets: list[int], size: int, settings: CausalSettings = SETTINGS
) -> dict[int, np.ndarray]:
    """Push a recording in blocks, marking each onset with the block it lies in."""
    causal = CausalStream(settings, signal.shape[1])
    found = {}
    for start in range(0, len(signal), size):
        for onset in onsets:
            if start <= onset < start + size:
                causal.mark(onset)
        found.update(causal.push(signal[start : start + size]))
    return found


def recording(seed: int = 0, n: int = 8000) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return 1e-5 * np.cumsum(rng.normal(size=(n, 5)), axis=0) * 0.05 + 1e-5 * rng.normal(
        size=(n, 5)
    )


ONSETS = [40, 900, 1003, 1400, 5001, 7000, 7900]


@pytest.mark.parametrize("size", [1, 7, 50, 1000])
def test_blocks_of_any_size_give_the_same(size: int) -> None:
    signal = recording()
    whole, parts = stream(signal, ONSETS, len(signal)), stream(signal, ONSETS, size)
    # The first began before the stream had enough past, the last has no end.
    assert list(whole) == list(parts) == ONSETS[1:-1]
    for onset, epoch in whole.items():
        np.testing.assert_allclose(parts[onset], epoch, rtol=1e-9, atol=1e-9)


def test_samples_of_the_future_change_nothing() -> None:
    signal = recording()
    for onset in ONSETS[1:-1]:
        end = onset + round(0.8 * RATE_HZ) + SETTINGS.decimate
        changed = signal.copy()
        changed[end:] = 1e3
        before, after = stream(signal, [onset], 20)[onset], stream(changed, [onset], 20)[onset]
        np.testing.assert_array_equal(before, after)
        changed = signal.copy()
        changed[end - 200] += 1e-3  # within the trial it does count
        assert not np.allclose(before, stream(changed, [onset], 20)[onset], rtol=1e-3)


def test_trial_leaves_with_its_last_sample() -> None:
    signal = recording()
    causal = CausalStream(CausalSettings(RATE_HZ), 5)
    causal.mark(1000)
    left = [n for n in range(2000) if list(causal.push(signal[n : n + 1]))]
    assert left == [1000 + round(0.8 * RATE_HZ)]


def test_filters_pass_what_they_should() -> None:
    times = np.arange(8000) / RATE_HZ
    waves = np.stack([np.sin(2 * np.pi * f * times) for f in (10, 50, 90, 0.02, 20)], axis=1)
    settings = CausalSettings(RATE_HZ, 0.5, 40.0, 50.0, 1, baseline_s=None, time_constant_s=None)
    power = stream(waves, [6000], 100, settings)[6000].std(axis=1) * np.sqrt(2)
    np.testing.assert_allclose(power[[0, 4]], 1, atol=0.05)
    assert power[[1, 2, 3]].max() < 0.06


def test_running_scale_follows_the_gain_and_baseline_is_zero() -> None:
    signal = recording()
    one, loud = stream(signal, [6000], 50)[6000], stream(1e4 * signal, [6000], 50)[6000]
    np.testing.assert_allclose(loud, one, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(one[:, :26].mean(axis=1), 0, atol=1e-9)
    assert 0.2 < one.std() < 3


def test_whitening_is_applied() -> None:
    signal = recording()
    matrix = np.random.default_rng(0).normal(size=(5, 5))
    causal = CausalStream(SETTINGS, 5, matrix)
    causal.mark(900)
    (found,) = [epoch for _, epoch in causal.push(signal)]
    np.testing.assert_allclose(found, matrix @ stream(signal, [900], 8000)[900], rtol=1e-9)


def test_decimation_needs_a_low_pass() -> None:
    with pytest.raises(ConfigError, match="without a low-pass"):
        CausalStream(CausalSettings(RATE_HZ, lowpass_hz=40.0, decimate=10), 5)
