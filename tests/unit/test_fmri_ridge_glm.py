"""The single-trial ridge model: what informs its choices, and what it does without repeats."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter1d

from afterimage.errors import InputError
from afterimage.preprocess.fmri.design import RunDesign, trial_regressors
from afterimage.preprocess.fmri.hrf import hrf_library
from afterimage.preprocess.fmri.registry import ESTIMATORS

Study = tuple[list[RunDesign], list[np.ndarray], np.ndarray]


def study(
    n_runs: int = 6,
    n_trials: int = 30,
    n_stimuli: int = 60,
    n_voxels: int = 40,
    noise: float = 0.5,
    shared: float = 0.0,
) -> Study:
    """Trials 4 s apart with rests; half of the voxels respond; noise, part of it shared."""
    rng = np.random.default_rng(0)
    library = hrf_library()
    shape = rng.integers(len(library), size=n_voxels)
    amplitudes = 1 + 0.6 * rng.normal(size=(n_stimuli, n_voxels))
    amplitudes[:, n_voxels // 2 :] = 0
    n_rounds = -(-n_runs * n_trials // n_stimuli)
    order = np.concatenate([rng.permutation(n_stimuli) for _ in range(n_rounds)])
    designs, bold, truth = [], [], []
    for number in range(n_runs):
        shown = order[number * n_trials : (number + 1) * n_trials]
        slots = np.sort(rng.permutation(int(1.2 * n_trials))[:n_trials])
        times = np.arange(int((4.8 * n_trials + 24) / 1.6)) * 1.6
        drift = np.cos(np.pi * (np.arange(len(times)) + 0.5)[:, None] * np.arange(3) / len(times))
        names = np.array([f"image{i:03d}" for i in shown])
        design = RunDesign(
            times, 6 + 4.0 * slots, np.full(n_trials, 2.0), names, np.ones(n_trials, bool),
            drift, "1", str(number + 1),
        )  # fmt: skip
        regressors = trial_regressors(design, library)[shape]
        signal = np.einsum("hvt,th->vh", regressors, amplitudes[shown])
        common = gaussian_filter1d(rng.normal(size=(len(times), 2)), 1.5, axis=0)
        common = 2 * shared * common @ rng.normal(size=(2, n_voxels))
        noisy = signal + common + noise * rng.normal(size=signal.shape)
        designs.append(design)
        bold.append((100 + noisy).astype(np.float32))
        truth.append(amplitudes[shown])
    return designs, bold, np.concatenate(truth)


def fit(
    designs: list[RunDesign], bold: list[np.ndarray], **settings: Any
) -> tuple[np.ndarray, dict[str, np.ndarray], dict[str, Any]]:
    estimator = ESTIMATORS.get("ridge_glm")(ESTIMATORS.settings("ridge_glm")(**settings))
    n_voxels = bold[0].shape[1]
    parts = list(estimator.estimate(designs, lambda run, v: bold[run][:, v], n_voxels))
    maps = {key: np.concatenate([part.maps[key] for part in parts]) for key in parts[0].maps}
    return np.concatenate([part.betas for part in parts], axis=1), maps, estimator.summary_


def correlation(found: np.ndarray, truth: np.ndarray) -> np.ndarray:
    found, truth = found - found.mean(axis=0), truth - truth.mean(axis=0)
    norm = np.sqrt((found**2).sum(axis=0) * (truth**2).sum(axis=0))
    return np.asarray((found * truth).sum(axis=0) / norm)


def assert_same(first: tuple[Any, ...], second: tuple[Any, ...]) -> None:
    """Choices are bit-identical."""
    for key in ("hrf_peak_s", "fraction"):
        np.testing.assert_array_equal(first[1][key], second[1][key])
    assert first[2] == second[2]


@pytest.mark.parametrize("max_noise_components", [0, 6])
def test_signal_of_runs_without_training_trials_changes_no_choice(
    max_noise_components: int,
) -> None:
    designs, bold, _ = study(n_voxels=120, shared=0.6)
    designs[4:] = [replace(d, training=np.zeros(30, bool)) for d in designs[4:]]
    rng = np.random.default_rng(1)
    changed = bold[:4] + [
        (100 + 3 * rng.normal(size=block.shape)).astype(np.float32) for block in bold[4:]
    ]
    settings = {"max_noise_components": max_noise_components}
    first, second = fit(designs, bold, **settings), fit(designs, changed, **settings)
    assert_same(first, second)
    np.testing.assert_array_equal(first[0][:120], second[0][:120])
    assert not np.allclose(first[0][120:], second[0][120:])
    if max_noise_components:
        assert first[2]["n_noise_components"] > 0


def test_stimuli_of_trials_held_out_are_never_looked_at() -> None:
    designs, bold, _ = study()
    training = np.arange(30) % 5 > 0
    designs = [replace(design, training=training) for design in designs]
    renamed = [
        replace(design, stimulus=np.where(training, design.stimulus, "image000"))
        for design in designs
    ]
    first, second = fit(designs, bold), fit(renamed, bold)
    assert_same(first, second)
    np.testing.assert_array_equal(first[0], second[0])


def test_amplitudes_of_trials_held_out_hardly_reach_a_choice() -> None:
    designs, bold, _ = study()
    training = np.arange(30) % 5 > 0
    designs = [replace(design, training=training) for design in designs]
    rng = np.random.default_rng(2)
    library = hrf_library()
    louder = []
    for design, block in zip(designs, bold, strict=True):
        shown = trial_regressors(design, library)[:, :, ~training][::4].sum(axis=0) / 16
        louder.append(block + (shown @ rng.normal(size=(6, 40))).astype(np.float32))
    first, second = (fit(designs, signal, max_noise_components=0) for signal in (bold, louder))
    moved = np.abs(first[1]["hrf_peak_s"] - second[1]["hrf_peak_s"])[:20]
    assert np.quantile(moved, 0.9) <= 0.5
    ratio = np.log(first[1]["fraction"] / second[1]["fraction"])[:20]
    assert np.median(np.abs(ratio)) < 0.2
    # while the responses to them follow
    held_out = np.tile(~training, 6)
    assert np.abs(first[0] - second[0])[held_out].mean() > 0.3


@pytest.mark.parametrize("hrf", ["canonical", "library"])
def test_fraction_one_is_least_squares(hrf: str) -> None:
    designs, bold, _ = study()
    settings = {"hrf": hrf, "fractions": (1.0,), "max_noise_components": 0}
    found, maps, summary = fit(designs, bold, **settings)
    lsa = ESTIMATORS.get("lsa")(ESTIMATORS.settings("lsa")(hrf=hrf))
    parts = list(lsa.estimate(designs, lambda run, v: bold[run][:, v], 40))
    atol = 1e-5 if hrf == "canonical" else 1e-4  # libraries are decomposed in single precision
    np.testing.assert_allclose(found, parts[0].betas, atol=atol)
    np.testing.assert_array_equal(maps["fraction"], 1)
    assert summary["fraction_criterion"] == "fixed"


def test_a_fixed_fraction_is_kept_and_responses_keep_their_size() -> None:
    designs, bold, truth = study(noise=0.2)
    found, maps, _ = fit(designs, bold, fractions=(0.5,), max_noise_components=0)
    np.testing.assert_allclose(maps["fraction"], 0.5, atol=0.01)
    for voxel in range(20):
        assert np.polyfit(truth[:, voxel], found[:, voxel], 1)[0] == pytest.approx(1, abs=0.2)


def test_shared_noise_is_removed_and_none_invented() -> None:
    designs, bold, truth = study(n_voxels=120, shared=0.6)
    plain, _, none = fit(designs, bold, max_noise_components=0)
    cleaned, _, summary = fit(designs, bold)
    assert none["n_noise_components"] == 0
    assert 1 <= summary["n_noise_components"] <= 6
    gain = correlation(cleaned[:, :60], truth[:, :60]) - correlation(plain[:, :60], truth[:, :60])
    assert np.median(gain) > 0.05
    designs, bold, _ = study(n_voxels=120)
    assert fit(designs, bold)[2]["n_noise_components"] == 0


@pytest.mark.parametrize("shared", [0.0, 0.6])
def test_without_repeats_the_marginal_likelihood_decides(shared: float) -> None:
    designs, bold, truth = study(n_stimuli=180, n_voxels=80, shared=shared)
    found, maps, summary = fit(designs, bold)
    assert summary["fraction_criterion"] == "marginal likelihood"
    assert summary["n_repeated_training_trials"] == 0
    if shared:
        assert summary["noise_components_criterion"] == "mean response across runs"
        assert summary["n_noise_components"] > 0
    least_squares = fit(designs, bold, fractions=(1.0,))[0]
    ours = correlation(found[:, :40], truth[:, :40])
    assert np.median(ours - correlation(least_squares[:, :40], truth[:, :40])) > 0.03
    assert ((maps["fraction"] > 0) & (maps["fraction"] < 1)).all()


def test_one_run_is_enough() -> None:
    designs, bold, truth = study(n_runs=1, n_trials=60)
    found, _, summary = fit(designs, bold)
    assert summary["fraction_criterion"] == "marginal likelihood"
    assert np.median(correlation(found[:, :20], truth[:, :20])) > 0.5


def test_no_training_trial_is_an_error() -> None:
    designs, bold, _ = study(n_runs=2)
    with pytest.raises(InputError, match="no trial is marked for training"):
        fit([replace(d, training=np.zeros(30, bool)) for d in designs], bold)


def test_wrong_fractions() -> None:
    for wrong in ((0.0, 0.5), (1.2,)):
        with pytest.raises(ValueError, match="above 0 and not above 1"):
            ESTIMATORS.settings("ridge_glm")(fractions=wrong)
