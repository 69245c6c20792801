"""Correlation of envelopes: shared strength is found, one source in two sensors is not."""

from __future__ import annotations

import numpy as np

from afterimage.connectivity.envelope_correlation import EnvelopeCorrelation, EnvelopeSettings

N = 60_000


def rhythms() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two rhythms at 10 Hz of independent phase and one strength, and one of its own strength."""
    from scipy.ndimage import gaussian_filter1d

    rng = np.random.default_rng(0)
    strength = [
        np.exp(0.8 * s / s.std()) for s in gaussian_filter1d(rng.standard_normal((2, N)), 40)
    ]
    phases = 2 * np.pi * 10 * np.arange(N) / 100 + np.cumsum(rng.standard_normal((3, N)), 1) * 0.15
    a, b = strength[0] * np.sin(phases[:2])
    return a, b, strength[1] * np.sin(phases[2])


def compute(*series: np.ndarray) -> np.ndarray:
    measure = EnvelopeCorrelation(EnvelopeSettings())
    return np.asarray(measure.transform([np.column_stack(series)], sampling_rate_hz=100.0)[0])


def test_shared_strength_is_found() -> None:
    found = compute(*rhythms())
    assert found[0, 1] > 0.5
    assert abs(found[0, 2]) < 0.3
    assert abs(found[1, 2]) < 0.3


def test_one_source_in_two_sensors_is_no_connection() -> None:
    source, _, other = rhythms()
    found = compute(source, 0.8 * source + other)
    plain = np.corrcoef(source, 0.8 * source + other)[0, 1]
    assert plain > 0.5
    assert abs(found[0, 1]) < 0.3
