"""Surrogates keep what is static and forget what changes."""

from __future__ import annotations

import numpy as np
import pytest

from afterimage.errors import InputError
from afterimage.signal.surrogates import filled, p_above, phase_randomised


@pytest.mark.parametrize("n_times", [200, 201])
def test_connectivity_and_lagged_covariance_stay(n_times: int) -> None:
    rng = np.random.default_rng(0)
    values = np.cumsum(rng.standard_normal((n_times, 5)), 0) @ rng.standard_normal((5, 5)) + 40
    found = phase_randomised(values, 1)
    np.testing.assert_allclose(np.corrcoef(found.T), np.corrcoef(values.T), atol=1e-9)
    np.testing.assert_allclose(found.mean(0), values.mean(0), atol=1e-9)
    for lag in (1, 4):  # circular, which is what a spectrum keeps
        shifted = np.roll(values, lag, 0).T @ values
        np.testing.assert_allclose(np.roll(found, lag, 0).T @ found, shifted, rtol=1e-9)
    assert np.abs(np.corrcoef(found[:, 0], values[:, 0])[0, 1]) < 0.9


def test_they_differ_from_each_other_and_repeat_with_the_seed() -> None:
    values = np.random.default_rng(0).standard_normal((100, 3))
    rng = np.random.default_rng(3)
    first, second = phase_randomised(values, rng), phase_randomised(values, rng)
    assert not np.allclose(first, second)
    np.testing.assert_array_equal(phase_randomised(values, 3), first)


def test_gaps_are_bridged() -> None:
    values = np.arange(12.0)[:, None]
    kept = np.ones(12, bool)
    kept[[0, 5, 6, 11]] = False
    bridged = filled(np.where(kept[:, None], values, np.nan), kept)
    np.testing.assert_allclose(bridged[1:11], values[1:11])
    np.testing.assert_allclose(bridged[[0, 11], 0], [1, 10])
    with pytest.raises(InputError, match="censored"):
        filled(values, np.zeros(12, bool))


def test_bad_series_are_refused_and_p_counts_the_observed() -> None:
    with pytest.raises(InputError, match="not finite"):
        phase_randomised(np.full((10, 2), np.nan), 0)
    assert p_above(5.0, np.arange(9.0)) == pytest.approx(0.5)
    assert p_above(500.0, np.arange(99.0)) == pytest.approx(0.01)
