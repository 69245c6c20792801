"""Covariances in tangent space and logistic regression."""

from __future__ import annotations

import numpy as np
import pytest

from afterimage.decoding.conditions.tangent_space import (
    TangentSpaceClassifier,
    TangentSpaceSettings,
)
from afterimage.errors import ConfigError

TIMES_S = np.arange(200) / 100


def rhythm(n: int = 40, hz: float = 12.0) -> tuple[np.ndarray, np.ndarray]:
    """Put a rhythm on channel 0 or 1, random in phase: no mean response tells the classes apart."""
    rng = np.random.default_rng(0)
    labels = np.arange(n) % 2
    trials = rng.normal(size=(n, 5, 200))
    for trial, label in zip(trials, labels, strict=True):
        trial[label] += 1.5 * np.sin(2 * np.pi * hz * TIMES_S + 2 * np.pi * rng.random())
    return trials, labels


def test_equals_a_plain_pyriemann_pipeline() -> None:
    from pyriemann.estimation import Covariances
    from pyriemann.tangentspace import TangentSpace
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    trials, labels = rhythm()
    settings = TangentSpaceSettings(low_hz=None, high_hz=None)
    ours = TangentSpaceClassifier(settings, TIMES_S, 0.5, 1.5).fit(trials[:30], labels[:30])
    plain = make_pipeline(
        Covariances("oas"),
        TangentSpace(),
        LogisticRegression(class_weight="balanced", max_iter=2000),
    )
    plain.fit(trials[:30, :, 50:151], labels[:30])
    expected = plain.predict_proba(trials[30:, :, 50:151])
    np.testing.assert_allclose(ours.predict_proba(trials[30:]), expected, atol=1e-6)


def test_only_the_band_counts() -> None:
    trials, labels = rhythm(hz=40.0)
    inside = TangentSpaceSettings(low_hz=30, high_hz=45)
    outside = TangentSpaceSettings(low_hz=8, high_hz=20)

    def right(settings: TangentSpaceSettings) -> float:
        fitted = TangentSpaceClassifier(settings, TIMES_S).fit(trials[:20], labels[:20])
        return float(np.mean(fitted.predict(trials[20:]) == labels[20:]))

    assert right(inside) == 1.0
    assert right(outside) < 0.85


def test_mixing_the_channels_hardly_matters() -> None:
    """The Riemannian metric is affine invariant; only the shrinkage is not."""
    trials, labels = rhythm()
    mixing = np.eye(5) + 0.3 * np.random.default_rng(1).normal(size=(5, 5))
    mixed = np.einsum("ij,njt->nit", mixing, trials)
    settings = TangentSpaceSettings()
    first = TangentSpaceClassifier(settings, TIMES_S).fit(trials, labels)
    second = TangentSpaceClassifier(settings, TIMES_S).fit(mixed, labels)
    a, b = first.decision_function(trials), second.decision_function(mixed)
    assert np.corrcoef(a, b)[0, 1] > 0.98


def test_a_band_above_half_the_rate_is_refused() -> None:
    trials, labels = rhythm()
    settings = TangentSpaceSettings(high_hz=60)
    with pytest.raises(ConfigError, match="half the sampling rate"):
        TangentSpaceClassifier(settings, TIMES_S).fit(trials, labels)
