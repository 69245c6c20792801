"""Which volumes a block averages."""

import numpy as np
import pytest

from afterimage.preprocess.fmri.design import RunDesign
from afterimage.preprocess.fmri.registry import ESTIMATORS


def run(onsets: list[float], duration_s: float = 8.0, censored: tuple[int, ...] = ()) -> RunDesign:
    n, n_volumes = len(onsets), 60
    spikes = [(np.arange(n_volumes) == volume).astype(float) for volume in censored]
    return RunDesign(
        np.arange(n_volumes) * 2.0,
        np.array(onsets),
        np.full(n, duration_s),
        np.array([f"s{i}" for i in range(n)]),
        np.ones(n, bool),
        np.column_stack([np.ones(n_volumes), *spikes]),
    )


def responses(design: RunDesign, signal: np.ndarray, **settings: float) -> np.ndarray:
    estimator = ESTIMATORS.get("block_average")(ESTIMATORS.settings("block_average")(**settings))
    parts = list(estimator.estimate([design], lambda _, v: signal[:, v], signal.shape[1]))
    responses.summary = estimator.summary_  # type: ignore[attr-defined]
    return np.concatenate([part.betas for part in parts], axis=1)


def test_deeprecon_window() -> None:
    """Blocks of 8 s at 2 s: the volumes 4, 6, 8 and 10 s after onset."""
    signal = np.random.default_rng(0).normal(size=(60, 3))
    found = responses(run([10.0, 18.0]), signal)
    centred = signal - signal.mean(axis=0)
    expected = [centred[[7, 8, 9, 10]].mean(axis=0), centred[[11, 12, 13, 14]].mean(axis=0)]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_onsets_off_the_grid_windows_and_delays() -> None:
    signal = np.random.default_rng(0).normal(size=(60, 3))
    centred = signal - signal.mean(axis=0)
    found = responses(run([10.7]), signal, delay_s=5.0, window_s=4.0)  # 15.7 to 19.7
    np.testing.assert_allclose(found[0], centred[[8, 9]].mean(axis=0), atol=1e-6)
    found = responses(run([10.7], duration_s=0.5), signal)  # no volume in 14.7 to 15.2
    np.testing.assert_allclose(found[0], centred[7], atol=1e-6)


def test_censored_volumes_do_not_count() -> None:
    signal = np.random.default_rng(0).normal(size=(60, 3))
    spiky = signal.copy()
    spiky[8] += 1000
    found = responses(run([10.0], censored=(8,)), spiky)
    kept = np.delete(signal, 8, axis=0).mean(axis=0)
    np.testing.assert_allclose(found[0], signal[[7, 9, 10]].mean(axis=0) - kept, atol=1e-4)


def test_a_block_that_is_censored_whole_is_zero_and_counted() -> None:
    signal = np.random.default_rng(0).normal(size=(60, 3))
    found = responses(run([10.0, 40.0], censored=(7, 8, 9, 10)), signal)
    assert not found[0].any()
    assert found[1].any()
    assert responses.summary["n_trials_without_volumes"] == 1  # type: ignore[attr-defined]


def test_wrong_settings() -> None:
    with pytest.raises(ValueError, match="greater than"):
        ESTIMATORS.settings("block_average")(window_s=0)
