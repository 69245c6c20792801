"""Shrunk covariance against the formula of Ledoit and Wolf."""

from __future__ import annotations

import numpy as np

from afterimage.connectivity.covariance import Covariance
from afterimage.connectivity.covariance import CovarianceOnlySettings as CovarianceSettings


def test_it_is_shrunk_towards_a_multiple_of_the_identity() -> None:
    from sklearn.covariance import ledoit_wolf_shrinkage

    rng = np.random.default_rng(0)
    series = rng.standard_normal((50, 20)) @ rng.standard_normal((20, 20)) * 3 + 100
    measured = np.cov(series, rowvar=False, bias=True)
    share = ledoit_wolf_shrinkage(series - series.mean(axis=0), assume_centered=True)
    expected = (1 - share) * measured + share * np.trace(measured) / 20 * np.eye(20)
    found = Covariance(CovarianceSettings(standardize=False)).transform([series])[0]
    assert 0 < share < 1
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-3)


def test_standardised_series_have_variances_of_one() -> None:
    series = np.random.default_rng(1).standard_normal((80, 6)) * np.arange(1, 7)
    found = Covariance(CovarianceSettings()).transform([series])[0]
    np.testing.assert_allclose(np.diag(found), 1, atol=1e-6)
