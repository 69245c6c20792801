"""Precision is the inverse of the covariance."""

from __future__ import annotations

import numpy as np

from afterimage.connectivity.covariance import Covariance, CovarianceOnlySettings
from afterimage.connectivity.precision import Precision, PrecisionSettings


def test_it_inverts_the_covariance() -> None:
    rng = np.random.default_rng(0)
    series = rng.standard_normal((200, 8)) @ rng.standard_normal((8, 8))
    for estimator in ("ledoit_wolf", "empirical"):
        found = Precision(PrecisionSettings(estimator=estimator)).transform([series])[0]
        shrunk = Covariance(CovarianceOnlySettings(estimator=estimator)).transform([series])[0]
        np.testing.assert_allclose(found @ shrunk, np.eye(8), atol=1e-4)
