"""Confounds: displacement, CompCor, drift, and the nuisance part of a design."""

from __future__ import annotations

import numpy as np
import pytest
from nilearn.signal import high_variance_confounds

from afterimage.errors import ConfigError, InputError
from afterimage.preprocess.fmri.confounds import (
    censor_by_displacement,
    cosine_drift,
    framewise_displacement,
    high_variance_components,
    motion_columns,
    nuisance_regressors,
    read_columns,
    select_columns,
)
from afterimage.preprocess.fmri.motion import PARAMETERS
from afterimage.preprocess.fmri.quality import carpet_rows, run_quality


def test_displacement_by_hand() -> None:
    motion = np.zeros((4, 6))
    motion[1] = [0.1, -0.2, 0.3, 0.001, 0, -0.002]
    motion[2] = motion[1]
    found = framewise_displacement(motion)
    assert np.isnan(found[0])
    np.testing.assert_allclose(found[1:], [0.6 + 50 * 0.003, 0, 0.75])
    assert censor_by_displacement(found, 0.5).tolist() == [False, True, False, True]
    assert not censor_by_displacement(found, None).any()


def test_derivatives_are_backward_differences() -> None:
    motion = np.random.default_rng(0).normal(size=(10, 6))
    columns = motion_columns(motion)
    assert list(columns)[:6] == list(PARAMETERS)
    np.testing.assert_allclose(columns["rot_y_derivative1"][1:], np.diff(motion[:, 4]))
    assert np.isnan(columns["rot_y_derivative1"][0])


@pytest.mark.parametrize("batch", [37, 512, 5000])
def test_components_are_those_of_nilearn(batch: int) -> None:
    rng = np.random.default_rng(1)
    series = rng.normal(size=(80, 1000)) * rng.uniform(0.5, 4, 1000) + 100
    series[:, :40] += 9 * rng.normal(size=(80, 1))
    found = high_variance_components(
        lambda part: series[:, part], 1000, n_components=5, n_voxels_batch=batch
    )
    expected = high_variance_confounds(series, n_confounds=5, percentile=2.0)
    correlation = np.abs(np.diag(np.corrcoef(found.T, expected.T)[:5, 5:]))
    np.testing.assert_allclose(correlation, 1, atol=1e-8)


def test_constant_voxels_give_no_components() -> None:
    found = high_variance_components(lambda part: np.ones((20, 9))[:, part], 9)
    assert found.shape == (20, 0)


def test_drift_is_slow_and_without_constant() -> None:
    drift = cosine_drift(200, 2.0, 0.01)
    assert drift.shape == (200, 8)  # up to 2 * 400 s * 0.01 Hz half cycles
    np.testing.assert_allclose(drift.mean(axis=0), 0, atol=1e-12)
    assert cosine_drift(20, 1.0, 0.01).shape == (20, 0)


@pytest.mark.parametrize(
    ("n_volumes", "t_r_s", "high_pass_hz"), [(227, 2.0, 0.01), (300, 0.8, 0.128)]
)
def test_drift_is_that_of_nilearn(n_volumes, t_r_s, high_pass_hz) -> None:
    from nilearn.glm.first_level.design_matrix import create_cosine_drift

    expected = create_cosine_drift(high_pass_hz, np.arange(n_volumes) * t_r_s)[:, :-1]
    found = cosine_drift(n_volumes, t_r_s, high_pass_hz)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-14)


FMRIPREP = [
    "csf", "white_matter", "global_signal", "framewise_displacement", "cosine00",
    "a_comp_cor_00", "a_comp_cor_01", "a_comp_cor_02", "t_comp_cor_00",
    "trans_x", "trans_x_derivative1", "trans_x_power2", "trans_x_derivative1_power2", "rot_z",
]  # fmt: skip


def test_columns_by_strategy() -> None:
    assert select_columns(FMRIPREP, ["motion"]) == ["trans_x", "rot_z"]
    assert select_columns(FMRIPREP, ["compcor"], 2) == ["a_comp_cor_00", "a_comp_cor_01"]
    assert select_columns(["t_comp_cor_00"], ["compcor"]) == ["t_comp_cor_00"]
    both = select_columns(FMRIPREP, ["global_signal", "motion_derivatives", "wm_csf"])
    assert both == ["csf", "white_matter", "global_signal", "trans_x_derivative1"]
    squares = select_columns(FMRIPREP, ["motion_squares"])
    assert squares == ["trans_x_power2", "trans_x_derivative1_power2"]
    # The 36 regressors of Satterthwaite 2013: nine signals, their derivatives, squares of both.
    signals = [*PARAMETERS, "csf", "white_matter", "global_signal"]
    endings = ("", "_derivative1", "_power2", "_derivative1_power2")
    groups = ["motion", "motion_derivatives", "motion_squares", "wm_csf", "global_signal",
              "signal_derivatives", "signal_squares"]  # fmt: skip
    table = [f"{name}{ending}" for name in signals for ending in endings]
    assert select_columns([*FMRIPREP[3:9], *table], groups) == table
    with pytest.raises(ConfigError, match="unknown confounds strategy"):
        select_columns(FMRIPREP, ["aroma"])


def test_nuisance_has_drift_spikes_and_a_constant() -> None:
    rng = np.random.default_rng(0)
    table = motion_columns(rng.normal(size=(100, 6)))
    table["trans_y"] = np.full(100, 3.0)  # says nothing, and is left out
    censored = np.arange(100) == 41
    found = nuisance_regressors(table, 100, 2.0, censored=censored)
    assert found.values.shape == (100, len(found.names))
    assert found.names[-1] == "constant"
    assert "spike_0041" in found.names
    assert "trans_y" not in found.names
    assert sum(name.startswith("cosine") for name in found.names) == 4
    assert np.isfinite(found.values).all()
    # a spike takes its volume out of the fit, whatever its value
    spoiled = rng.normal(size=(100, 1))
    residual = [
        y - found.values @ np.linalg.lstsq(found.values, y, rcond=None)[0]
        for y in (spoiled, np.where(censored[:, None], 1e4, spoiled))
    ]
    np.testing.assert_allclose(residual[0], residual[1], atol=1e-6)


def test_nuisance_of_another_length_is_refused() -> None:
    table = read_columns([{"trans_x": "0.1", "name": "a"}, {"trans_x": "n/a", "name": "b"}], "t")
    assert list(table) == ["trans_x"]
    assert np.isnan(table["trans_x"][1])
    with pytest.raises(InputError, match="another length") as caught:
        nuisance_regressors(table, 3, 2.0, where="sub-01, confounds.tsv")
    assert caught.value.found == "2 rows"
    assert nuisance_regressors({}, 30, 2.0, high_pass_hz=0).names == ("constant",)
    with pytest.raises(InputError, match="no numbers"):
        read_columns([], "t")


@pytest.mark.parametrize("batch", [7, 4096])
def test_quality_of_a_run(batch: int) -> None:
    rng = np.random.default_rng(2)
    mask = np.zeros((9, 9, 9), dtype=bool)
    mask[1:8, 1:8, 1:8] = True
    series = 1000 + 10 * rng.normal(size=(150, mask.sum())) + np.linspace(0, 50, 150)[:, None]
    series[60] += 40
    series[:, 5] = 700
    rows = carpet_rows(mask, 20)
    assert rows.max() == 19
    assert set(rows[np.argwhere(mask)[:, 0] == 1]) <= set(range(5, 20))  # the edge comes last
    found = run_quality(lambda part: series[:, part], rows, n_voxels_batch=batch)
    assert found.n_constant == 1
    assert found.tsnr[5] == 0
    assert np.median(found.tsnr) == pytest.approx(1025 / np.hypot(10, 40 / np.sqrt(150)), rel=0.05)
    np.testing.assert_allclose(found.mean, series.mean(axis=0), rtol=1e-6)
    steps = np.diff(series, axis=0)
    expected = np.sqrt((steps**2).mean(axis=1)) / np.median(series.mean(axis=0)) * 100
    np.testing.assert_allclose(found.dvars[1:], expected, rtol=1e-5)
    assert np.isnan(found.dvars[0])
    assert np.argmax(np.abs(found.carpet.mean(axis=0))) == 60
    assert found.carpet.shape == (20, 150)


def test_carpet_of_a_single_slice() -> None:
    mask = np.zeros((12, 12, 1), dtype=bool)
    mask[2:10, 2:10] = True
    rows = carpet_rows(mask, 8)
    index = np.argwhere(mask)
    middle = (np.abs(index[:, :2] - 5.5) < 2).all(axis=1)
    assert rows[middle].max() < rows[(index[:, 0] == 2)].min() + 3
    assert np.bincount(rows).tolist() == [8] * 8
