"""What every registered estimator of single-trial responses must do."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from afterimage.errors import InputError
from afterimage.preprocess.fmri.design import RunDesign, trial_regressors
from afterimage.preprocess.fmri.hrf import canonical_hrf
from afterimage.preprocess.fmri.registry import ESTIMATORS, Estimates

Study = tuple[list[RunDesign], list[np.ndarray], np.ndarray]


def study(n_trials: tuple[int, ...] = (16, 20, 16), noise: float = 0.05) -> Study:
    """Blocks of 6 s every 12 s in runs of two kinds of volumes, 12 stimuli, 9 voxels."""
    rng = np.random.default_rng(0)
    amplitudes = 1 + 0.5 * rng.normal(size=(12, 9))
    designs, bold, truth = [], [], []
    for number, n in enumerate(n_trials):
        tr_s = 1.3 if number % 2 else 2.0
        times = np.arange(int((12 * n + 30) / tr_s)) * tr_s + tr_s / 2
        shown = rng.permutation(np.resize(np.arange(12), n))
        drift = np.cos(np.pi * (np.arange(len(times)) + 0.5)[:, None] * np.arange(3) / len(times))
        design = RunDesign(
            times,
            4.37 + 12 * np.arange(n),
            np.full(n, 6.0),
            np.array([f"image{i:02d}" for i in shown], dtype=str),
            np.ones(n, bool),
            drift,
            "1",
            str(number + 1),
        )
        signal = trial_regressors(design, canonical_hrf())[0] @ amplitudes[shown]
        signal += noise * rng.normal(size=signal.shape)
        designs.append(design)
        bold.append(signal.astype(np.float32))
        truth.append(amplitudes[shown])
    return designs, bold, np.concatenate(truth)


def run(
    name: str, designs: list[RunDesign], bold: list[np.ndarray], n_voxels_batch: int = 2048
) -> tuple[np.ndarray, list[Estimates], dict[str, Any]]:
    estimator = ESTIMATORS.get(name)(ESTIMATORS.settings(name)())
    parts = list(
        estimator.estimate(
            designs,
            lambda number, voxels: bold[number][:, voxels],
            bold[0].shape[1],
            n_voxels_batch=n_voxels_batch,
        )
    )
    return np.concatenate([part.betas for part in parts], axis=1), parts, estimator.summary_


pytestmark = pytest.mark.parametrize("name", ESTIMATORS.names())


def test_shapes_types_and_order_of_voxels(name: str) -> None:
    designs, bold, _ = study()
    betas, parts, summary = run(name, designs, bold, n_voxels_batch=4)
    assert betas.shape == (52, 9)
    assert betas.dtype == np.float32
    assert np.isfinite(betas).all()
    assert [part.voxels for part in parts] == [slice(0, 4), slice(4, 8), slice(8, 9)]
    for part in parts:
        for values in part.maps.values():
            assert values.shape == (part.betas.shape[1],)
            assert values.dtype == np.float32
            assert np.isfinite(values).all()
    assert json.loads(json.dumps(summary)) == summary
    assert summary["n_trials"] == 52


def test_planted_responses_are_found(name: str) -> None:
    designs, bold, truth = study()
    betas, _, _ = run(name, designs, bold)
    for voxel in range(9):
        assert np.corrcoef(betas[:, voxel], truth[:, voxel])[0, 1] > 0.85
    if name != "block_average":  # which averages, and has no baseline to measure from
        assert betas.mean() == pytest.approx(truth.mean(), rel=0.1)
        assert betas.std() == pytest.approx(truth.std(), rel=0.15)


def test_batches_do_not_matter(name: str) -> None:
    designs, bold, _ = study()
    together, alone = (run(name, designs, bold, size)[0] for size in (9, 1))
    np.testing.assert_allclose(together, alone, atol=1e-4)


def test_same_bytes_twice_and_inputs_untouched(name: str) -> None:
    designs, bold, _ = study()
    before = [block.copy() for block in bold]
    first, second = (run(name, designs, bold)[0] for _ in range(2))
    np.testing.assert_array_equal(first, second)
    for block, kept in zip(bold, before, strict=True):
        np.testing.assert_array_equal(block, kept)


def test_units_of_the_signal_carry_over(name: str) -> None:
    designs, bold, _ = study()
    betas, louder = (run(name, designs, [c * b for b in bold])[0] for c in (1.0, 8.0))
    np.testing.assert_allclose(louder, 8 * betas, atol=2e-3)


def test_nuisance_does_not_matter(name: str) -> None:
    designs, bold, _ = study()
    rng = np.random.default_rng(3)
    moved = [
        block + 100 + (design.nuisance @ rng.normal(size=(3, 9))).astype(np.float32)
        for design, block in zip(designs, bold, strict=True)
    ]
    twice = [
        replace(d, nuisance=np.concatenate([d.nuisance, d.nuisance[:, :2] * 50], axis=1))
        for d in designs
    ]
    np.testing.assert_allclose(run(name, twice, moved)[0], run(name, designs, bold)[0], atol=2e-3)


def test_a_run_without_trials_adds_nothing(name: str) -> None:
    designs, bold, _ = study((16, 0, 20))
    assert designs[1].n_trials == 0
    betas, _, _ = run(name, designs, bold)
    without = run(name, [designs[0], designs[2]], [bold[0], bold[2]])[0]
    np.testing.assert_allclose(betas, without, atol=1e-4)


def test_constant_voxels_are_zero(name: str) -> None:
    designs, bold, _ = study()
    for block in bold:
        block[:, 4], block[:, 7] = 0.0, 100.0
    betas, parts, _ = run(name, designs, bold)
    assert np.abs(betas[:, [4, 7]]).max() < 1e-4
    assert all(np.isfinite(values).all() for values in parts[0].maps.values())


def test_trials_that_cannot_be_told_apart_stay_finite(name: str) -> None:
    designs, bold, truth = study()
    onsets = designs[0].onsets_s.copy()
    onsets[3] = onsets[2]  # two at once
    onsets[5] = designs[0].volume_times_s[-1] + 50  # one after the end
    designs[0] = replace(designs[0], onsets_s=onsets)
    betas, _, _ = run(name, designs, bold)
    assert np.isfinite(betas).all()
    assert np.abs(betas[[2, 3]]).max() < 3 * np.abs(truth).max()


def test_as_many_confounds_as_volumes(name: str) -> None:
    designs, bold, _ = study((4, 16, 16))
    full = np.eye(designs[0].n_volumes)
    betas, _, _ = run(name, [replace(designs[0], nuisance=full), *designs[1:]], bold)
    assert np.isfinite(betas).all()
    assert np.abs(betas[:4]).max() < 3


def test_single_trial_in_the_study(name: str) -> None:
    designs, bold, _ = study((1,))
    betas, _, _ = run(name, designs, bold)
    assert betas.shape == (1, 9)
    assert np.isfinite(betas).all()


@pytest.mark.parametrize("broken", ["nan", "rows"])
def test_wrong_signal_is_named(name: str, broken: str) -> None:
    designs, bold, _ = study()
    if broken == "nan":
        bold[1][5, 2] = np.nan
    else:
        bold[1] = bold[1][:-1]
    with pytest.raises(InputError, match="signal of a run") as error:
        run(name, designs, bold)
    assert "run 2" in error.value.where


def test_saved_settings_name_the_method(name: str) -> None:
    settings = ESTIMATORS.settings(name)
    assert settings().model_dump()["kind"] == name
    assert all(field.description for field in settings.model_fields.values())
