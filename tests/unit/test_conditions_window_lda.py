"""Shrinkage LDA on means over time."""

from __future__ import annotations

import numpy as np

from afterimage.decoding.conditions.classifier import time_bins
from afterimage.decoding.conditions.window_lda import WindowLDA, WindowLDASettings

TIMES_S = np.arange(50) / 100


def data(n: int = 40) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    labels = (np.arange(n) % 4 == 0).astype(int)
    trials = rng.normal(size=(n, 3, 50))
    trials[labels == 1, 1, 20:30] += 1
    return trials, labels


def test_bins_are_half_open_windows_of_time() -> None:
    ramp = np.arange(50.0)[None, None]
    window = np.floor(TIMES_S / 0.025 + 1e-9)
    expected = [ramp[0, 0, window == number].mean() for number in range(20)]
    np.testing.assert_allclose(time_bins(ramp, 100.0, 0.025)[0, 0], expected)
    assert time_bins(ramp, 100.0, 0.2).shape == (1, 1, 3)
    np.testing.assert_array_equal(time_bins(ramp, 100.0, 0.001), ramp)


def test_equals_plain_scikit_learn() -> None:
    """With more trials than features the space the trials span is that of the features."""
    from sklearn.covariance import LedoitWolf
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import RobustScaler

    trials, labels = data(60)
    settings = WindowLDASettings(bin_s=0.05, clip_sd=1e9)
    ours = WindowLDA(settings, TIMES_S).fit(trials, labels)
    plain = make_pipeline(
        RobustScaler(unit_variance=True),
        LinearDiscriminantAnalysis(
            solver="lsqr", covariance_estimator=LedoitWolf(), priors=[0.5, 0.5]
        ),
    )
    means = trials.reshape(60, 3, 10, 5).mean(axis=3).reshape(60, -1)
    expected = plain.fit(means, labels).decision_function(means)
    np.testing.assert_allclose(ours.decision_function(trials), expected, atol=1e-6)


def test_rare_class_counts_as_much() -> None:
    trials, labels = data(400)
    shares = WindowLDA(WindowLDASettings(), TIMES_S).fit(trials[::2], labels[::2])
    told = shares.predict(trials[1::2])
    recall = [np.mean(told[labels[1::2] == k] == k) for k in (0, 1) if (labels[1::2] == k).any()]
    assert min(recall) > 0.7


def test_one_artefact_does_not_set_the_scale() -> None:
    trials, labels = data(120)
    spoilt = trials.copy()
    spoilt[:4] += 1e4 * np.random.default_rng(1).normal(size=(4, 3, 1))
    asked, truth = data(120)[0][60:], labels[60:]

    def right(clip_sd: float) -> float:
        settings = WindowLDASettings(clip_sd=clip_sd)
        fitted = WindowLDA(settings, TIMES_S).fit(spoilt[:60], labels[:60])
        evidence = fitted.decision_function(asked)
        return float(np.mean(evidence[truth == 1][:, None] > evidence[truth == 0][None]))

    assert right(3.0) > 0.8
    assert right(3.0) > right(1e9) + 0.1
