"""LSA: unbiased where trials can be told apart, finite where they cannot."""

import numpy as np

from afterimage.preprocess.fmri.registry import ESTIMATORS


def weights(regressors: np.ndarray) -> np.ndarray:
    return ESTIMATORS.get("lsa")(ESTIMATORS.settings("lsa")()).weights(regressors)


def test_recovers_amplitudes_exactly_without_noise() -> None:
    rng = np.random.default_rng(0)
    regressors, amplitudes = rng.normal(size=(60, 20)), rng.normal(size=(20, 3))
    np.testing.assert_allclose(weights(regressors) @ regressors @ amplitudes, amplitudes)


def test_trials_at_the_same_time_share_the_response() -> None:
    rng = np.random.default_rng(1)
    regressors = rng.normal(size=(60, 5))
    twice = np.column_stack([regressors, regressors[:, 2]])
    found = weights(twice) @ (3 * regressors[:, 2])
    np.testing.assert_allclose(found, [0, 0, 1.5, 0, 0, 1.5], atol=1e-9)
