"""Common spatial patterns and LDA."""

from __future__ import annotations

import numpy as np

from afterimage.decoding.conditions.classifier import band_pass
from afterimage.decoding.conditions.csp_lda import CSPLDA, CSPLDASettings

TIMES_S = np.arange(-50, 200) / 100


def mixed_sources(n: int = 40) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two 10 Hz sources seen by all channels; each class has more of one of them."""
    rng = np.random.default_rng(0)
    labels = np.arange(n) % 2
    mixing = rng.normal(size=(8, 2))
    phases = 2 * np.pi * rng.random((n, 2, 1))
    sources = np.sin(2 * np.pi * 10 * TIMES_S + phases)
    sources[np.arange(n), labels] *= 2
    trials = mixing @ sources + 1.0 * rng.normal(size=(n, 8, len(TIMES_S)))
    return trials, labels, mixing


def test_equals_pyriemann_and_scikit_learn() -> None:
    from pyriemann.estimation import Covariances
    from pyriemann.spatialfilters import CSP
    from sklearn.covariance import LedoitWolf
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
    from sklearn.pipeline import make_pipeline

    trials, labels, _ = mixed_sources()
    window = (TIMES_S >= 0.5) & (TIMES_S <= 1.5)
    filtered = band_pass(trials, 100.0, 8.0, 30.0)[:, :, window]
    plain = make_pipeline(
        Covariances("oas"),
        CSP(4, log=True),
        LinearDiscriminantAnalysis(solver="lsqr", covariance_estimator=LedoitWolf()),
    )
    expected = plain.fit(filtered[:30], labels[:30]).decision_function(filtered[30:])
    ours = CSPLDA(CSPLDASettings(), TIMES_S, 0.5, 1.5).fit(trials[:30], labels[:30])
    np.testing.assert_allclose(ours.decision_function(trials[30:]), expected, rtol=1e-5, atol=1e-6)


def test_filters_find_the_planted_sources() -> None:
    trials, labels, mixing = mixed_sources()
    settings = CSPLDASettings(n_components=2)
    fitted = CSPLDA(settings, TIMES_S, 0.0).fit(trials[:30], labels[:30])
    assert np.mean(fitted.predict(trials[30:]) == labels[30:]) >= 0.9
    patterns = fitted._model[0].patterns_[:2]
    for source in mixing.T:
        cosines = patterns @ source / np.linalg.norm(patterns, axis=1) / np.linalg.norm(source)
        assert np.abs(cosines).max() > 0.9


def test_band_pass_keeps_the_band_and_nothing_else() -> None:
    inside, outside = (np.sin(2 * np.pi * hz * np.arange(400) / 100) for hz in (15, 2))
    found = band_pass(np.stack([inside, outside])[None], 100.0, 8.0, 30.0)[0]
    middle = slice(100, 300)
    np.testing.assert_allclose(found[0, middle], inside[middle], atol=0.03)
    assert np.abs(found[1, middle]).max() < 0.02
    same = band_pass(found[None], 100.0, None, None)
    np.testing.assert_array_equal(same[0], found)
