"""Correlation at the speed of the matrix product, and shrunk: against numpy and scikit-learn."""

from __future__ import annotations

import numpy as np

from afterimage.connectivity.correlation import Correlation, CorrelationSettings
from afterimage.signal.correlation import correlation_matrices, correlation_matrix, unit_columns


def test_it_equals_numpy_at_a_large_baseline() -> None:
    rng = np.random.default_rng(0)
    series = (450 + 0.3 * rng.standard_normal((234, 60))).astype(np.float32)
    expected = np.corrcoef(series.astype(np.float64), rowvar=False)
    found = correlation_matrix(series)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    np.testing.assert_array_equal(np.diag(found), 1)
    np.testing.assert_array_equal(found, found.T)


def test_many_recordings_of_different_length_are_read_one_by_one() -> None:
    rng = np.random.default_rng(1)
    series = [rng.standard_normal((n, 8)) for n in (50, 80, 31)]
    found = correlation_matrices((values for values in series), 3)
    for values, matrix in zip(series, found, strict=True):
        np.testing.assert_allclose(matrix, np.corrcoef(values, rowvar=False), atol=1e-6)


def test_columns_that_do_not_vary_are_zero() -> None:
    series = np.random.default_rng(2).standard_normal((40, 3)).astype(np.float32)
    series[:, 1] = 0.1
    scaled = unit_columns(series)
    np.testing.assert_array_equal(scaled[:, 1], 0)
    np.testing.assert_allclose(np.linalg.norm(scaled[:, [0, 2]], axis=0), 1, rtol=1e-6)
    assert correlation_matrix(series)[0, 1] == 0


def test_shrinkage_moves_correlations_towards_none() -> None:
    from sklearn.covariance import LedoitWolf

    series = np.random.default_rng(3).standard_normal((40, 5)).cumsum(axis=0)
    scaled = (series - series.mean(axis=0)) / series.std(axis=0)
    found = Correlation(CorrelationSettings(estimator="ledoit_wolf")).transform([series])[0]
    plain = Correlation(CorrelationSettings()).transform([series])[0]
    covariance = LedoitWolf().fit(scaled).covariance_
    spread = np.sqrt(np.diag(covariance))
    np.testing.assert_allclose(found, covariance / np.outer(spread, spread), atol=1e-6)
    below = np.tril_indices(5, -1)
    assert (np.abs(found[below]) < np.abs(plain[below])).all()
