"""xDAWN covariances."""

from __future__ import annotations

import numpy as np

from afterimage.decoding.conditions.xdawn import XdawnClassifier, XdawnSettings

TIMES_S = np.arange(-20, 80) / 100


def evoked(n: int = 60) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Make a response of one topography whose latency differs between classes, in coloured noise."""
    rng = np.random.default_rng(0)
    labels = np.arange(n) % 2
    topography = rng.normal(size=8)
    course = np.stack([np.exp(-(((TIMES_S - t) / 0.04) ** 2)) for t in (0.17, 0.3)])
    artefact = rng.normal(size=(8, 1)) * 4 * np.cumsum(rng.normal(size=(n, 1, 100)), axis=2) / 10
    trials = 1.5 * topography[:, None] * course[labels][:, None] + artefact
    return trials + rng.normal(size=(n, 8, 100)), labels, topography


def test_equals_a_plain_pyriemann_pipeline() -> None:
    from pyriemann.estimation import XdawnCovariances
    from pyriemann.tangentspace import TangentSpace
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    trials, labels, _ = evoked()
    settings = XdawnSettings(n_filters=2, bin_s=0.01)
    ours = XdawnClassifier(settings, TIMES_S, 0.0, 0.6).fit(trials[:40], labels[:40])
    plain = make_pipeline(
        XdawnCovariances(2, estimator="oas", xdawn_estimator="oas"),
        TangentSpace(),
        LogisticRegression(class_weight="balanced", max_iter=2000),
    )
    plain.fit(trials[:40, :, 20:81], labels[:40])
    expected = plain.predict_proba(trials[40:, :, 20:81])
    np.testing.assert_allclose(ours.predict_proba(trials[40:]), expected, atol=1e-6)


def test_latency_is_told_apart_through_a_strong_artefact() -> None:
    trials, labels, _ = evoked(120)
    settings = XdawnSettings(bin_s=0.02)
    fitted = XdawnClassifier(settings, TIMES_S, 0.0).fit(trials[:80], labels[:80])
    assert np.mean(fitted.predict(trials[80:]) == labels[80:]) > 0.9


def test_first_filter_passes_the_response_and_not_the_artefact() -> None:
    trials, labels, topography = evoked(120)
    fitted = XdawnClassifier(XdawnSettings(n_filters=1), TIMES_S, 0.0).fit(trials, labels)
    weights = fitted._model[0].Xd_.filters_[0]
    noise = np.linalg.svd(np.concatenate(list(trials), axis=1), full_matrices=False)[0][:, 0]
    assert abs(weights @ topography) > 5 * abs(weights @ noise) * np.linalg.norm(topography) / 8
