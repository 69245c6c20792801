"""Stretches of a recording that are left out."""

from __future__ import annotations

import numpy as np
import pytest

from afterimage.preprocess.meeg.bad_segments import (
    find_bad_segments,
    find_muscle,
    given_segments,
)

RATE_HZ = 250.0


def noise(seed: int = 0, n_units: int = 20, duration_s: float = 120.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return 10e-6 * rng.standard_normal((n_units, int(duration_s * RATE_HZ)))


def eeg(signal: np.ndarray) -> np.ndarray:
    return np.full(len(signal), "eeg")


def test_a_clean_run_has_no_bad_segment() -> None:
    found = given_segments(30_000, RATE_HZ, [])
    find_bad_segments(found, noise(), eeg(noise()), RATE_HZ)
    assert find_muscle(found, noise(), RATE_HZ)
    assert found.mask.mean() == 0
    assert found.segments == []


def test_large_amplitudes_are_found_where_they_are() -> None:
    signal = noise()
    signal[3, 5000:5250] += 600e-6 * np.hanning(250)
    found = given_segments(30_000, RATE_HZ, [])
    find_bad_segments(found, signal, eeg(signal), RATE_HZ)
    assert found.mask[5060:5190].all()
    assert found.mask.mean() < 0.02
    ((start_s, end_s, reason),) = found.segments
    assert reason == "amplitude"
    assert 19 < start_s < 20.3
    assert 20.7 < end_s < 22
    assert found.fractions["any"] == pytest.approx(found.mask.mean())


def test_a_limit_holds_in_any_case() -> None:
    signal = noise()
    signal[0, 1000:1100] += 100e-6
    found = given_segments(30_000, RATE_HZ, [])
    find_bad_segments(found, signal, eeg(signal), RATE_HZ)
    assert not found.mask.any()
    find_bad_segments(found, signal, eeg(signal), RATE_HZ, limit=120e-6)
    assert found.mask[1000:1100].all()


def test_a_blocked_amplifier_is_flat() -> None:
    signal = noise()
    signal[:15, 10_000:10_500] = signal[:15, 10_000:10_001]
    found = given_segments(30_000, RATE_HZ, [])
    find_bad_segments(found, signal, eeg(signal), RATE_HZ)
    assert found.mask[10_130:10_370].all()
    assert set(found.fractions) == {"any", "flat"}


def test_muscles_are_fast_and_in_many_channels() -> None:
    signal = noise()
    rng = np.random.default_rng(1)
    times_s = np.arange(500) / RATE_HZ
    burst = 40e-6 * np.sin(2 * np.pi * 85 * times_s) * rng.uniform(0.5, 1.5, (20, 1))
    signal[:, 20_000:20_500] += burst
    found = given_segments(30_000, RATE_HZ, [])
    assert find_muscle(found, signal, RATE_HZ)
    assert found.mask[20_100:20_400].all()
    assert found.mask.mean() < 0.04
    assert not find_muscle(found, signal, 128.0)  # too slow to see them


def test_marks_of_the_recording_count() -> None:
    found = given_segments(1000, 100.0, [(2.0, 1.0, "BAD_move"), (9.5, 5.0, "bad")])
    assert np.flatnonzero(found.mask)[[0, -1]].tolist() == [200, 999]
    assert found.mask.sum() == 150
    assert found.fractions == {"annotated": 0.15, "any": 0.15}


def test_causal_limits_come_from_the_start_only() -> None:
    signal = noise()
    later = signal.copy()
    later[:, 20_000:] *= 6
    masks = []
    for one in (signal, later):
        found = given_segments(30_000, RATE_HZ, [])
        find_bad_segments(found, one, eeg(one), RATE_HZ, calibration_s=20)
        find_muscle(found, one, RATE_HZ, calibration_s=20)
        masks.append(found.mask)
    np.testing.assert_array_equal(masks[0][:19_500], masks[1][:19_500])
    assert masks[1][20_200:].mean() > 0.9
