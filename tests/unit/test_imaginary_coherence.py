"""The imaginary part of coherency against its closed form."""

from __future__ import annotations

import numpy as np

from afterimage.connectivity.imaginary_coherence import (
    ImaginaryCoherence,
    ImaginaryCoherenceSettings,
)


def found(lag: int) -> float:
    rng = np.random.default_rng(0)
    shared = rng.standard_normal(60_010)
    noise = rng.standard_normal((60_000, 2))
    series = np.column_stack([shared[10:60_010], shared[10 - lag : 60_010 - lag]]) + noise
    measure = ImaginaryCoherence(ImaginaryCoherenceSettings(band_hz=(9.5, 10.5)))
    return float(measure.transform([series], sampling_rate_hz=100.0)[0, 0, 1])


def test_what_arrives_at_once_is_not_seen() -> None:
    assert found(0) < 0.08


def test_a_lag_gives_coherence_times_the_sine_of_the_phase() -> None:
    """At 10 Hz, 10 ms are 36 degrees and 20 ms are 72; coherence is 1 / 2."""
    assert abs(found(1) - 0.5 * np.sin(np.deg2rad(36))) < 0.06
    assert abs(found(2) - 0.5 * np.sin(np.deg2rad(72))) < 0.06
