"""The tangent space: its origin, its symmetry, its reference."""

from __future__ import annotations

import numpy as np

from afterimage.connectivity.tangent import Tangent, TangentSettings


def make_series(n: int = 4) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    mixing = np.eye(6) + 0.4 * rng.standard_normal((6, 6))
    return [rng.standard_normal((300, 6)) @ mixing for _ in range(n)]


def test_the_reference_itself_lies_at_the_origin() -> None:
    series = make_series(1)
    measure = Tangent(TangentSettings()).fit([series[0], series[0]])
    np.testing.assert_allclose(measure.transform(series)[0], 0, atol=1e-5)


def test_deviations_of_the_group_sum_to_nothing() -> None:
    series = make_series()
    found = Tangent(TangentSettings()).fit(series).transform(series)
    assert np.abs(found.mean(axis=0)).max() < 1e-4 < np.abs(found).max()


def test_it_is_the_logarithm_of_what_the_reference_whitens() -> None:
    from scipy.linalg import inv, logm, sqrtm

    series = make_series()
    measure = Tangent(TangentSettings(estimator="empirical", standardize=False)).fit(series[:3])
    whiten = inv(sqrtm(measure.reference_))
    expected = logm(whiten @ np.cov(series[3], rowvar=False, bias=True) @ whiten)
    np.testing.assert_allclose(measure.transform(series[3:])[0], expected.real, atol=1e-5)
