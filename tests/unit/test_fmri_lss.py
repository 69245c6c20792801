"""LSS in closed form against one fitted model a trial, and degenerate designs."""

import numpy as np

from afterimage.preprocess.fmri.registry import ESTIMATORS


def weights(regressors: np.ndarray) -> np.ndarray:
    return ESTIMATORS.get("lss")(ESTIMATORS.settings("lss")()).weights(regressors)


def one_model_a_trial(regressors: np.ndarray, signal: np.ndarray) -> np.ndarray:
    found = []
    for trial in range(regressors.shape[1]):
        rest = regressors.sum(axis=1) - regressors[:, trial]
        pair = np.column_stack([regressors[:, trial], rest])
        found.append(np.linalg.lstsq(pair, signal)[0][0])
    return np.array(found)


def test_equals_the_loop_of_fits() -> None:
    rng = np.random.default_rng(0)
    regressors, signal = rng.normal(size=(90, 30)) + 0.3, rng.normal(size=(90, 8))
    np.testing.assert_allclose(
        weights(regressors) @ signal, one_model_a_trial(regressors, signal), atol=1e-12
    )


def test_degenerate_designs_take_the_least_norm() -> None:
    rng = np.random.default_rng(1)
    x, signal = rng.normal(size=50), rng.normal(size=(50, 4))
    for columns in ([x], [x, x], [x, 2 * x, -0.5 * x], [x, np.zeros(50)]):
        regressors = np.column_stack(columns)
        np.testing.assert_allclose(
            weights(regressors) @ signal, one_model_a_trial(regressors, signal), atol=1e-9
        )


def test_nothing_shown() -> None:
    assert weights(np.zeros((20, 0))).shape == (0, 20)
    assert not weights(np.zeros((20, 3))).any()
