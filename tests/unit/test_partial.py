"""Partial correlation against its closed form."""

from __future__ import annotations

import numpy as np

from afterimage.connectivity.partial import Partial, PartialSettings


def test_a_chain_has_no_link_between_its_ends() -> None:
    """A -> b -> c: a and c correlate, and not once b is known."""
    rng = np.random.default_rng(0)
    a = rng.standard_normal(20_000)
    b = a + rng.standard_normal(20_000)
    c = b + rng.standard_normal(20_000)
    series = np.column_stack([a, b, c])
    found = Partial(PartialSettings(estimator="empirical")).transform([series])[0]
    residuals = series[:, [0, 2]] - np.outer(b, b @ series[:, [0, 2]] / (b @ b))
    assert np.corrcoef(a, c)[0, 1] > 0.5
    assert abs(found[0, 2]) < 0.03
    assert abs(found[0, 2] - np.corrcoef(residuals.T)[0, 1]) < 1e-3
    np.testing.assert_allclose(np.diag(found), 1, atol=1e-6)


def test_shrinkage_makes_more_regions_than_volumes_possible() -> None:
    series = np.random.default_rng(1).standard_normal((30, 60))
    found = Partial(PartialSettings()).transform([series])[0]
    assert np.isfinite(found).all()
    assert np.abs(found[np.tril_indices(60, -1)]).max() < 0.9
