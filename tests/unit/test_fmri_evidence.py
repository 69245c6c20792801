"""The marginal likelihood against its definition, and what it chooses."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.linalg import null_space
from scipy.stats import multivariate_normal

from afterimage.errors import InputError
from afterimage.preprocess.fmri import evidence
from afterimage.preprocess.fmri.design import RunDesign, trial_regressors
from afterimage.preprocess.fmri.hrf import canonical_hrf, hrf_library


def runs(n_runs: int = 2, n_trials: int = 12, n_volumes: int = 60) -> list[RunDesign]:
    rng = np.random.default_rng(0)
    return [
        RunDesign(
            np.arange(n_volumes) * 1.5,
            np.sort(rng.uniform(0, 80, n_trials)),
            np.full(n_trials, 1.0),
            np.array([f"s{i}" for i in range(n_trials)]),
            np.ones(n_trials, bool),
            np.column_stack([np.ones(n_volumes), np.linspace(-1, 1, n_volumes)]),
        )
        for _ in range(n_runs)
    ]


def test_gain_is_the_log_likelihood_of_gaussian_amplitudes() -> None:
    designs = runs()
    library = canonical_hrf()
    signal = np.random.default_rng(1).normal(size=(2, 60))
    parts = [evidence.decompose_training(design, library) for design in designs]
    cleaned = [part.clean(y[:, None]) for part, y in zip(parts, signal, strict=True)]
    total = np.array([sum(float((block**2).sum()) for block in cleaned)])
    misfit, penalty, mean = evidence._misfit(parts, cleaned, 0, total)
    misfit = misfit * total
    degrees = sum(part.degrees for part in parts)
    outside = [null_space(design.nuisance.T) for design in designs]
    for row in (0, 6, 14):
        snr, mu = evidence.SNR_GRID[row], mean[row, 0]
        variance = misfit[row, 0] / degrees
        expected = 0.0
        for design, y, q in zip(designs, signal, outside, strict=True):
            x = q.T @ trial_regressors(design, library)[0]
            covariance = variance * (np.eye(len(x)) + snr * x @ x.T)
            expected += multivariate_normal.logpdf(q.T @ y, mu * x.sum(axis=1), covariance)
        constant = -0.5 * degrees * (np.log(2 * np.pi / degrees) + 1)
        found = -0.5 * (degrees * np.log(misfit[row, 0]) + penalty[row]) + constant
        assert found == pytest.approx(expected, rel=1e-9)


def test_shape_noise_and_mean_are_recovered() -> None:
    designs = runs(n_runs=6, n_trials=30, n_volumes=80)
    library = hrf_library()
    rng = np.random.default_rng(2)
    planted = np.array([4, 31, 55])
    signal = []
    for design in designs:
        regressors = trial_regressors(design, library)[planted]
        amplitudes = 1.0 + 0.5 * rng.normal(size=(3, 30))
        clean = np.einsum("hvt,ht->vh", regressors, amplitudes)
        signal.append(clean + 0.3 * rng.normal(size=clean.shape))
    parts = [evidence.decompose_training(design, library) for design in designs]
    cleaned = [part.clean(y) for part, y in zip(parts, signal, strict=True)]
    found = evidence.choose(parts, cleaned)
    assert np.abs(library.peaks_s[found.hrf] - library.peaks_s[planted]).max() <= 0.25
    np.testing.assert_allclose(found.mean, 1, atol=0.3)
    assert ((found.snr > 0.9) & (found.snr < 8)).all()  # planted: 0.25 / 0.09


def test_constant_voxels_have_no_response() -> None:
    designs = runs()
    parts = [evidence.decompose_training(design, hrf_library()) for design in designs]
    found = evidence.choose(parts, [np.zeros((60, 2), np.float32)] * 2)
    assert not found.mean.any()
    assert np.isfinite(found.gain).all()


def test_trials_held_out_leave_no_trace() -> None:
    design = runs(1, n_volumes=120)[0]
    design = replace(design, training=np.arange(12) % 4 > 0)
    library = hrf_library()
    part = evidence.decompose_training(design, library)
    assert part.right.shape[2] == 9
    shown = trial_regressors(design, library)[:, :, ~design.training]
    for kernel in range(0, len(library), 5):
        left = part.clean(shown[kernel])
        assert (left**2).sum() < 0.012 * (shown[kernel] ** 2).sum()


def test_no_training_trial_is_named() -> None:
    design = replace(runs(1)[0], training=np.zeros(12, bool))
    with pytest.raises(InputError, match="no trial is marked for training"):
        evidence.training_runs([design])


def test_decompositions_beyond_memory_are_made_again() -> None:
    designs, made = runs(3), []

    def make(run: int) -> evidence.Decomposition:
        made.append(run)
        return evidence.decompose_training(designs[run], canonical_hrf())

    size = make(0).left.nbytes
    made.clear()
    some = evidence.Decompositions(make, 3, max_bytes=2 * size)
    for _ in range(2):
        for run in range(3):
            assert some[run].left.shape == (1, 60, 12)
    assert made == [0, 1, 2, 2]
