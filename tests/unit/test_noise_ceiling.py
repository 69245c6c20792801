"""Ceilings and reliability against planted ratios of signal to noise."""

import numpy as np
import pytest

from afterimage.preprocess import noise_ceiling as ceilings


def study(
    snr: float, n_stimuli: int = 200, n_repeats: int = 4, n_voxels: int = 40
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    signal = snr * rng.normal(size=(n_stimuli, n_voxels))
    order = np.concatenate([rng.permutation(n_stimuli) for _ in range(n_repeats)])
    betas = signal[order] + rng.normal(size=(len(order), n_voxels))
    runs = np.repeat(np.arange(n_repeats * 4), n_stimuli // 4)
    return betas, order.astype(str), runs


@pytest.mark.parametrize("snr", [0.3, 0.75, 2.0])
def test_planted_ratio_is_found(snr: float) -> None:
    betas, stimulus, runs = study(snr)
    assert np.median(ceilings.ncsnr(betas, stimulus)) == pytest.approx(snr, rel=0.1)
    expected = snr / np.sqrt(1 + snr**2)
    for given in (None, runs):
        found = ceilings.noise_ceiling(betas, stimulus, given)
        assert np.median(found) == pytest.approx(expected, abs=0.03)
    reliability = ceilings.split_half_reliability(betas, stimulus)
    halves = snr**2 / (snr**2 + 1 / 2)
    assert np.median(reliability) == pytest.approx(halves, abs=0.05)
    whole = ceilings.split_half_reliability(betas, stimulus, spearman_brown=True)
    assert np.median(whole) == pytest.approx(snr**2 / (snr**2 + 1 / 4), abs=0.05)


def test_errors_common_to_a_run_are_not_signal() -> None:
    """All repeats of a stimulus in one run, and all responses of a run too high or low."""
    rng = np.random.default_rng(1)
    stimulus = np.repeat(np.arange(160), 4).astype(str)
    runs = np.repeat(np.arange(8), 80)
    betas = rng.normal(size=(640, 50)) + 2 * rng.normal(size=(8, 50))[runs]
    assert np.median(ceilings.noise_ceiling(betas, stimulus)) > 0.8
    assert np.median(ceilings.noise_ceiling(betas, stimulus, runs)) < 0.2
    assert np.median(ceilings.split_half_reliability(betas, stimulus)) > 0.8
    assert abs(np.median(ceilings.split_half_reliability(betas, stimulus, runs))) < 0.1


def test_averages_reach_higher() -> None:
    snr = np.array([0.0, 0.5, 1.0, np.inf])
    single = ceilings.averaged_ceiling(snr, 1)
    np.testing.assert_allclose(single, [0, 0.4472136, 0.7071068, 1], rtol=1e-6)
    # Allen et al. 2022: (A/3 + B/2 + C/1) / (A + B + C) for A, B, C stimuli of 3, 2, 1 trials
    counts = np.array([3] * 5 + [2] * 3 + [1] * 2)
    expected = 0.25 / (0.25 + (5 / 3 + 3 / 2 + 2) / 10)
    found = ceilings.averaged_ceiling(snr, counts)
    assert found[1] == pytest.approx(np.sqrt(expected))
    betas, stimulus, _ = study(0.6)
    means = np.array([betas[stimulus == name].mean(axis=0) for name in np.unique(stimulus)])
    truth = 0.6 * np.random.default_rng(0).normal(size=(200, 40))
    truth = truth[np.unique(stimulus).astype(int)]
    reached = [np.corrcoef(a, b)[0, 1] for a, b in zip(means.T, truth.T, strict=True)]
    estimated = ceilings.averaged_ceiling(ceilings.ncsnr(betas, stimulus), 4)
    assert np.median(estimated) == pytest.approx(np.median(reached), abs=0.03)


def test_without_repeats_and_without_variance() -> None:
    betas, _, _ = study(1.0, n_stimuli=20)
    single = np.arange(len(betas)).astype(str)
    for estimate in (ceilings.noise_ceiling, ceilings.ncsnr, ceilings.split_half_reliability):
        assert np.isnan(estimate(betas, single)).all()
        constant = estimate(np.ones((80, 2)), np.repeat(np.arange(20), 4).astype(str))
        assert not constant.any()
    exact = np.repeat(np.random.default_rng(0).normal(size=(20, 1)), 4, axis=0)
    assert np.isinf(ceilings.ncsnr(exact, np.repeat(np.arange(20), 4).astype(str)))[0]


def test_same_seed_same_splits() -> None:
    betas, stimulus, _ = study(0.5, n_stimuli=40)
    first, second = (ceilings.split_half_reliability(betas, stimulus) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    other = ceilings.split_half_reliability(betas, stimulus, random_state=1)
    assert not np.array_equal(first, other)
