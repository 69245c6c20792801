"""The stage: rows and arrays for trials with a time axis, without one, and without pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray

from afterimage.errors import ConfigError, InputError
from afterimage.io.arrays import block_writer
from afterimage.io.tables import read_tsv, write_tsv
from afterimage.io.trials import write_trials
from afterimage.stages.evaluate_time import Config, Inputs, Outputs, run

TIMES_S = np.arange(-20, 60) / 100.0
IMAGES = np.array([f"image{number:02d}" for number in range(60)])
N_TRAIN, N_REPEATS = 48, 4
QUICK = Config(n_bootstraps=100, n_permutations=100, n_draws=3, k_values=(1, 2), random_state=5)


def make_study(
    folder: Path, *, timed: bool = True, n_test_features: int = 12, leak: bool = False
) -> tuple[Inputs, Outputs]:
    rng = np.random.default_rng(0)
    features = rng.standard_normal((60, 6)).astype(np.float32)
    rows = np.concatenate([np.tile(np.arange(48), 2), np.repeat(np.arange(48, 60), N_REPEATS)])
    responses = features[rows] @ rng.standard_normal((6, 8))
    if timed:
        course = np.exp(-(((TIMES_S - 0.15) / 0.04) ** 2)) + leak * (TIMES_S < 0)
        responses = responses[:, :, None] * course
    responses = responses + rng.standard_normal(responses.shape)
    trials = {
        "stimulus": IMAGES[rows],
        "subject": np.full(len(rows), "01"),
        "split": np.where(rows < N_TRAIN, "train", "test"),
        "repeat": np.zeros(len(rows), np.int64),
    }
    units = {"kind": np.full(8, "eeg"), "roi": np.full(8, "n/a")}
    inputs = Inputs(
        folder / "sub-01_trials.nc", folder / "train.nc", folder / "test.nc", folder / "split.tsv"
    )
    write_trials(
        inputs.trials, [responses.astype(np.float32)], trials, units, TIMES_S if timed else None,
        {"units": "uV"},
    )  # fmt: skip
    for path, names, values in (
        (inputs.features, IMAGES[:N_TRAIN], features[:N_TRAIN]),
        (
            inputs.test_features,
            IMAGES[N_TRAIN : N_TRAIN + n_test_features],
            features[N_TRAIN : N_TRAIN + n_test_features],
        ),
    ):
        with block_writer(path) as writer:
            writer.group("", names)
            writer.write("", "clip", [values], (6,), {"encoder": "{}"})
    split = [
        {"stimulus_id": name, "file": f"{name}.png", "split": "train" if i < 48 else "test"}
        for i, name in enumerate(IMAGES)
    ]
    write_tsv(inputs.split, split, ["stimulus_id", "file", "split"])
    return inputs, Outputs(folder / "sub-01_time.tsv", folder / "sub-01_time.nc")


@pytest.fixture(scope="module")
def timed(tmp_path_factory):
    inputs, outputs = make_study(tmp_path_factory.mktemp("timed"))
    run(inputs, outputs, QUICK)
    with xarray.open_dataset(outputs.arrays, engine="h5netcdf") as dataset:
        return inputs, outputs, read_tsv(outputs.table), dataset.load()


def test_rows_of_every_analysis(timed):
    _, _, rows, _ = timed
    assert {row["analysis"] for row in rows} == {
        *("repetitions", "sliding", "growing", "prestimulus", "peak_latency")
    }
    (alarm,) = [
        row for row in rows if row["analysis"] == "prestimulus" and row["metric"] == "twoway"
    ]
    assert alarm["alarm"] == "quiet"
    (peak,) = [
        row for row in rows if row["analysis"] == "peak_latency" and row["metric"] == "twoway"
    ]
    assert float(peak["value"]) == pytest.approx(0.15, abs=0.04)
    ks = {row["k"] for row in rows if row["analysis"] == "repetitions"}
    assert ks == {"1", "2", "4"}


def test_arrays_hold_what_the_head_of_the_module_names(timed):
    _, _, rows, dataset = timed
    assert list(dataset["metric"].values) == ["twoway", "retrieval_top1", "retrieval_top5"]
    assert dataset["repetitions_value"].dims == ("metric", "k")
    assert dataset["sliding_p_corrected"].dims == ("metric", "sliding")
    assert dataset["growing_value"].dims == ("metric", "growing")
    assert dataset["generalisation_value"].dims == ("metric", "train_time_s", "test_time_s")
    for name in (
        *("repetitions_n", "sliding_start_s", "growing_end_s", "generalisation_threshold"),
        *("generalisation_chance", "generalisation_p_corrected", "prestimulus_value"),
    ):
        assert np.isfinite(dataset[name].values).all(), name
    assert not dataset["prestimulus_rings"].values.any()
    twoway = dataset.sel(metric="twoway")
    assert twoway["peak_latency_ci_low_s"] <= twoway["peak_latency_s"]
    assert np.isnan(twoway["repetitions_expected"].values).all()
    generalised = twoway["generalisation_value"].sel(
        train_time_s=0.125, test_time_s=0.175, method="nearest"
    )
    assert generalised > twoway["generalisation_threshold"]
    assert dataset.attrs["has_time"] == 1
    assert dataset.attrs["n_training_trials"] == 96
    # Table and arrays say the same.
    table = [
        float(row["value"])
        for row in rows
        if row["analysis"] == "sliding" and row["metric"] == "twoway"
    ]
    np.testing.assert_allclose(dataset["sliding_value"].sel(metric="twoway"), table, rtol=1e-4)
    centres = (dataset["sliding_start_s"] + dataset["sliding_end_s"]) / 2
    best = float(centres[int(twoway["sliding_value"].values.argmax())])
    assert best == pytest.approx(0.15, abs=0.051)


def test_the_same_seed_gives_the_same_bytes(timed, tmp_path):
    inputs, outputs, _, _ = timed
    again = Outputs(tmp_path / "again.tsv", tmp_path / "again.nc")
    run(inputs, again, QUICK)
    assert again.table.read_bytes() == outputs.table.read_bytes()


def test_a_leak_before_the_onset_rings(tmp_path):
    inputs, outputs = make_study(tmp_path, leak=True)
    run(inputs, outputs, QUICK.model_copy(update={"generalisation": False}))
    alarms = [row for row in read_tsv(outputs.table) if row["analysis"] == "prestimulus"]
    assert [row["alarm"] for row in alarms if row["metric"] == "twoway"] == ["rings"]
    with xarray.open_dataset(outputs.arrays, engine="h5netcdf") as dataset:
        assert "generalisation_value" not in dataset


def test_without_a_time_axis_there_is_the_repetition_curve_only(tmp_path):
    inputs, outputs = make_study(tmp_path, timed=False)
    run(inputs, outputs, QUICK)
    rows = read_tsv(outputs.table)
    assert {row["analysis"] for row in rows} == {"repetitions"}
    best = [row for row in rows if row["metric"] == "twoway"][-1]
    assert float(best["value"]) > 0.8
    assert best["window_start_s"] in {"", "n/a"}
    with xarray.open_dataset(outputs.arrays, engine="h5netcdf") as dataset:
        assert dataset.attrs["has_time"] == 0
        assert "sliding_value" not in dataset


@pytest.mark.parametrize("n_test_features", [0, 1])
def test_without_test_pictures_the_table_is_empty_and_says_why(tmp_path, n_test_features):
    inputs, outputs = make_study(tmp_path, n_test_features=n_test_features)
    run(inputs, outputs, QUICK)
    assert read_tsv(outputs.table) == []
    with xarray.open_dataset(outputs.arrays, engine="h5netcdf") as dataset:
        assert "nothing scored" in dataset.attrs["notes"]


def test_few_training_trials_are_a_part_that_is_named(tmp_path):
    inputs, outputs = make_study(tmp_path, timed=False)
    run(inputs, outputs, QUICK.model_copy(update={"max_training_trials": 40}))
    with xarray.open_dataset(outputs.arrays, engine="h5netcdf") as dataset:
        assert dataset.attrs["n_training_trials"] == 40
        assert "40 of 96" in dataset.attrs["notes"]


def test_unknown_blocks_and_leaks_are_refused(tmp_path):
    inputs, outputs = make_study(tmp_path)
    with pytest.raises(ConfigError, match="feature block") as caught:
        run(inputs, outputs, QUICK.model_copy(update={"block": "dino"}))
    assert "clip" in str(caught.value)
    with xarray.open_dataset(inputs.trials, engine="h5netcdf") as dataset:
        changed = dataset.load()
    changed["split"].values[0] = "test"  # image00 is a training picture too
    changed.to_netcdf(inputs.trials, engine="h5netcdf")
    with block_writer(inputs.test_features) as writer:
        writer.group("", IMAGES[[0, *range(48, 60)]])
        writer.write("", "clip", [np.ones((13, 6), np.float32)], (6,), {"encoder": "{}"})
    with pytest.raises(InputError, match="held-out stimuli"):
        run(inputs, outputs, QUICK)
