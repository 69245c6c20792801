"""Coherence against its closed form."""

from __future__ import annotations

import numpy as np

from afterimage.connectivity.coherence import Coherence, CoherenceSettings


def test_a_signal_in_as_much_noise_gives_a_half() -> None:
    """X = s + a, y = s + b of equal power: |S_xy| / sqrt(S_xx S_yy) = 1 / 2."""
    rng = np.random.default_rng(0)
    shared = rng.standard_normal(60_000)
    series = np.column_stack([shared + rng.standard_normal(60_000) for _ in range(2)])
    measure = Coherence(CoherenceSettings())
    found = measure.transform([series], sampling_rate_hz=100.0)[0]
    assert abs(found[0, 1] - 0.5) < 0.05
    np.testing.assert_array_equal(np.diag(found), 0)
