"""The stages of dynamic connectivity and of switching couplings, on series on disk."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from afterimage.errors import InputError
from afterimage.io.arrays import open_dataset
from afterimage.io.tables import read_tsv
from afterimage.reports.dynamic import dynamic_finding
from afterimage.reports.figures.dynamic import dynamic_panels
from afterimage.stages import connect_dynamic, couple_states
from afterimage.stages.report_dynamic import read_dynamic
from afterimage.stages.series_files import write_recording

sys.path.insert(0, str(Path(__file__).parents[1] / "truth"))
from switching_example import stationary, switching

QUICK = {"n_surrogates": 19, "n_hidden_surrogates": 0, "n_hidden_states": (), "n_restarts": 2}


def write(folder: Path, run: int, values: np.ndarray, rate_hz: float = 0.5, censored=None) -> Path:
    n_units = values.shape[1]
    path = folder / "func" / f"sub-01_task-rest_run-{run}_seg-toy_desc-denoised_series.nc"
    units = {
        "kind": np.full(n_units, "parcel"), "roi": np.array([f"R{i}" for i in range(n_units)]),
        **{axis: np.full(n_units, np.nan) for axis in "xyz"},
    }  # fmt: skip
    censored = np.zeros(len(values), bool) if censored is None else censored
    attributes = {"sampling_rate_hz": rate_hz, "start_time_s": 0.0, "source": "simulated"}
    write_recording(
        path, path.with_name(path.name.replace("_series.nc", "_timeseries.tsv")), values, censored,
        units, attributes,
    )  # fmt: skip
    return path


def run_dynamic(folder: Path, *series: Path, **settings):
    outputs = connect_dynamic.Outputs(
        folder / "connectivity" / "sub-01_seg-toy_dynamic.nc",
        folder / "connectivity" / "sub-01_seg-toy_states.tsv",
    )
    config = connect_dynamic.Config(**(QUICK | settings))
    connect_dynamic.run(connect_dynamic.Inputs(series), outputs, config)
    with open_dataset(outputs.dynamic) as dataset:
        return dataset.load(), read_tsv(outputs.states)


def test_planted_states_stand_out_and_a_censored_run_takes_part(tmp_path: Path) -> None:
    values, labels = switching(0, n_times=600, n_units=9)
    censored = np.random.default_rng(0).random(600) < 0.1
    spoilt = values.copy()
    spoilt[censored] += 1e3
    folder = tmp_path / "sub-01"
    paths = write(folder, 1, values), write(folder, 2, spoilt, censored=censored)
    dataset, rows = run_dynamic(folder, *paths, n_hidden_states=(3,), n_components=9)
    assert dataset.attrs["width"] == 30
    assert dataset.attrs["step"] == 8
    assert dataset.attrs["overlap"] == pytest.approx(1 - 8 / 30)
    variances = [row for row in rows if row["quantity"] == "variance"]
    assert [row["recording"] for row in variances] == ["task-rest_run-1", "task-rest_run-2"]
    assert all(float(row["p"]) == pytest.approx(0.05) for row in variances)
    explained = next(row for row in rows if row["quantity"].startswith("explained_by"))
    assert float(explained["value"]) > float(explained["chance_high"])
    hidden = dataset["hidden_state"].values
    assert (hidden[600:][censored] == -1).all()
    assert (hidden[:600] >= 0).all()
    agree = max((hidden[:600] == i)[labels == 0].mean() for i in range(3))
    assert agree > 0.9
    assert dataset["mean"].shape == (2, 9, 9)
    assert np.allclose(np.diagonal(dataset["sd"].values, axis1=1, axis2=2), 0)
    np.testing.assert_allclose(dataset["mean"].values[0], dataset["mean"].values[1], atol=0.2)
    found = folder / "connectivity"
    report = read_dynamic(found / "sub-01_seg-toy_dynamic.nc", found / "sub-01_seg-toy_states.tsv")
    assert report.null_variance.shape == (19, 2)
    assert len(report.window_state) == len(report.window_start)
    assert dynamic_finding(report).state == "yes"
    panels = dynamic_panels(report)
    assert {"Hidden states", "States of windows"} <= {panel.title for panel in panels}


def test_a_recording_too_short_is_left_out_and_the_other_goes_on(tmp_path: Path) -> None:
    folder = tmp_path / "sub-01"
    flat = stationary(0, n_times=300)
    flat[:, 3] = 5.0
    good, short = write(folder, 1, flat), write(folder, 2, stationary(1, n_times=20))
    dataset, rows = run_dynamic(folder, good, short, window_samples=25)
    assert list(dataset["recording"].values) == ["task-rest_run-1"]
    assert "R3" not in dataset["roi"].values
    assert "run-2 is left out" in dataset.attrs["notes"]
    records = list(tmp_path.rglob("*_skipped.json"))
    assert len(records) == 1
    assert float(next(r for r in rows if r["quantity"] == "variance")["p"]) <= 1


def test_an_unknown_rate_and_windows_smaller_than_units_are_said(tmp_path: Path) -> None:
    folder = tmp_path / "sub-01"
    path = write(folder, 1, stationary(0, n_times=200, n_units=35), rate_hz=0.0)
    dataset, _ = run_dynamic(folder, path)
    assert "sampling rate is not known" in dataset.attrs["notes"]
    assert "cannot be inverted" in dataset.attrs["notes"]


def test_nothing_to_use_is_an_error_that_says_why(tmp_path: Path) -> None:
    folder = tmp_path / "sub-01"
    path = write(folder, 1, stationary(0, n_times=100), censored=np.ones(100, bool))
    with pytest.raises(InputError, match="too few windows"):
        run_dynamic(folder, path)


def test_couplings_of_series_are_scored_on_held_out_sequences(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    weights = np.array([[[0.7, 0.5], [-0.5, 0.7]], [[0.7, -0.5], [0.5, 0.7]]])
    values, states = np.zeros((800, 2)), np.repeat(np.arange(16) % 2, 50)
    for t in range(1, 800):
        values[t] = values[t - 1] @ weights[states[t]].T + rng.standard_normal(2)
    folder = tmp_path / "sub-01"
    outputs = couple_states.Outputs(folder / "coupling.nc", folder / "coupling.tsv")
    config = couple_states.Config(
        priors=("none",), n_states=2, n_lags=1, n_restarts=2, n_iterations=12, n_samples=100
    )
    couple_states.run(couple_states.Inputs((write(folder, 1, values),)), outputs, config)
    (row,) = read_tsv(outputs.scores)
    assert float(row["ci_low"]) > 0
    with open_dataset(outputs.coupling) as dataset:
        found = dataset["weights"].values[0]
        posterior = dataset["posterior"].values.argmax(1)
    assert max((posterior == states).mean(), (posterior != states).mean()) > 0.85
    assert found.shape == (2, 2, 2)
    with pytest.raises(InputError, match="too few sequences"):
        couple_states.run(couple_states.Inputs((write(folder, 1, values[:300]),)), outputs, config)
