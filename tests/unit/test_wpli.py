"""The weighted phase lag index at its ends."""

from __future__ import annotations

import numpy as np

from afterimage.connectivity.wpli import WeightedPhaseLag, WeightedPhaseLagSettings


def found(lag: int) -> float:
    rng = np.random.default_rng(0)
    shared = rng.standard_normal(60_010)
    noise = 0.3 * rng.standard_normal((60_000, 2))
    series = np.column_stack([shared[10:60_010], shared[10 - lag : 60_010 - lag]]) + noise
    measure = WeightedPhaseLag(WeightedPhaseLagSettings(band_hz=(9.5, 10.5)))
    return float(measure.transform([series], sampling_rate_hz=100.0)[0, 0, 1])


def test_a_steady_lag_is_nearly_one_and_none_is_far_below() -> None:
    assert found(2) > 0.95
    assert found(0) < 0.3
