"""Trials cut from their series: small on disk, read in batches, refused where they do not fit."""

from __future__ import annotations

import runpy
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from afterimage.errors import InputError
from afterimage.io.series import write_series
from afterimage.io.trials import (
    Cuts,
    iter_responses,
    open_reader,
    open_trials,
    read_layout,
    read_responses,
    write_lazy_trials,
    write_trials,
)

example = runpy.run_path(str(Path(__file__).resolve().parents[1] / "lazy_example.py"))
write_both = example["write_both"]
RATE_HZ = example["RATE_HZ"]


def test_overlapping_trials_are_stored_once(tmp_path: Path) -> None:
    stored, lazy, _ = write_both(
        tmp_path, n_units=20, n_samples=(3000,), n_trials=600, n_times=100
    )
    series = next(tmp_path.glob("*_series.nc"))
    assert lazy.stat().st_size + series.stat().st_size < stored.stat().st_size / 5


def test_responses_of_a_split(tmp_path: Path) -> None:
    stored, lazy, responses = write_both(tmp_path)
    values, stimuli = read_responses(lazy, "test", -0.05, 0.1)
    expected, names = read_responses(stored, "test", -0.05, 0.1)
    assert values.shape == expected.shape and values.shape[1] == 5 * 16
    np.testing.assert_allclose(values, expected, atol=1e-4)
    np.testing.assert_array_equal(stimuli, names)
    assert len(values) < len(responses)
    assert read_responses(lazy, "val")[0].shape == (0, 5 * 30)


def test_batches_in_any_order(tmp_path: Path) -> None:
    _, lazy, responses = write_both(tmp_path)
    with open_trials(lazy) as dataset:
        rows = np.flatnonzero(dataset["split"].values == "train")
    order = np.random.default_rng(1).permutation(len(rows))
    batches = list(iter_responses(lazy, "train", 7, order=order))
    assert {len(values) for values, _ in batches[:-1]} == {7}
    found = np.concatenate([values for values, _ in batches])
    np.testing.assert_allclose(found, responses[rows[order]], atol=1e-4)


def test_dataset_reads_only_what_is_asked_for(tmp_path: Path) -> None:
    stored, lazy, responses = write_both(tmp_path, whiten=False)
    with open_trials(lazy) as dataset, open_trials(stored) as same:
        assert dataset["responses"].dims == same["responses"].dims
        assert set(dataset.variables) == set(same.variables)
        assert set(dataset.coords) == set(same.coords)
        assert dataset.sizes == same.sizes
        for key in (
            {"trial": 3}, {"unit": 2}, {"time": 4}, {"trial": [5, 2, 2], "unit": [4, 0]},
            {"time": slice(None, None, 3)}, {"time": [9, 3]}, {"time": slice(None, None, -1)},
            {"trial": slice(30, 3, -4), "time": 0}, {"trial": []},
        ):  # fmt: skip
            np.testing.assert_allclose(
                dataset["responses"].isel(key), same["responses"].isel(key), atol=1e-5
            )
        window = dataset["responses"].sel(time=slice(0, 0.1))
        assert window.shape == (40, 5, 11)
        np.testing.assert_allclose(dataset["responses"].mean(), responses.mean(), atol=1e-5)


def test_layout_is_that_of_stored_trials(tmp_path: Path) -> None:
    stored, lazy, _ = write_both(tmp_path)
    one, other = read_layout(lazy), read_layout(stored)
    assert (one.n_units, one.n_times, one.subject) == (5, 30, "01")
    assert one.position_units == other.position_units == "m"
    np.testing.assert_array_equal(one.times_s, other.times_s)
    np.testing.assert_array_equal(one.positions, other.positions)
    assert np.isfinite(one.positions[:, 0]).all() and np.isnan(one.positions[:, 1]).all()
    flat = tmp_path / "flat_trials.nc"
    trials = {"stimulus": np.array(["a"]), "split": np.array(["train"])}
    trials["subject"] = np.array(["01"])
    write_trials(flat, [np.ones((1, 2))], trials, {"kind": np.full(2, "voxel")}, None, {})
    assert read_layout(flat).n_times == 0
    np.testing.assert_array_equal(read_responses(flat, "train", 0.1, 0.2)[0], [[1, 1]])


def test_memory_does_not_grow_with_the_number_of_trials(tmp_path: Path) -> None:
    peaks = []
    for n_trials in (500, 8000):
        folder = tmp_path / str(n_trials)
        folder.mkdir()
        series = folder / "a_series.nc"
        units = {"kind": np.full(16, "eeg")}
        signal = np.zeros((50 * n_trials, 16), dtype=np.float32)
        attributes = {"sampling_rate_hz": RATE_HZ, "start_time_s": 0.0, "source": "raw"}
        write_series(series, signal, units, attributes, np.zeros(len(signal), dtype=bool))
        cuts = Cuts(
            [series], np.zeros(n_trials, int), 50 * np.arange(n_trials), np.arange(16),
            np.zeros((n_trials, 16), np.float32), np.eye(16)[None], np.zeros(n_trials, int),
        )  # fmt: skip
        ids = np.full(n_trials, "a")
        trials = {"stimulus": ids, "split": np.full(n_trials, "train")}
        path = folder / "sub-01_trials.nc"
        write_lazy_trials(path, cuts, trials, units, np.arange(50) / RATE_HZ, {})
        del signal, cuts
        total = sum(len(values) for values, _ in iter_responses(path, "train", 64))  # warm
        assert total == n_trials
        tracemalloc.start()
        for _ in iter_responses(path, "train", 64):
            pass
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # 16 times as many trials hold 16 times as many samples: 25 MB, of which little is in memory.
    assert peaks[1] < peaks[0] + 4e6


def test_series_that_changed_is_refused(tmp_path: Path) -> None:
    _, lazy, _ = write_both(tmp_path)
    series = tmp_path / "sub-01_run-0_desc-clean_series.nc"
    units = {"kind": np.full(6, "eeg")}
    attributes = {"sampling_rate_hz": RATE_HZ, "start_time_s": 0.0, "source": "raw"}
    write_series(series, np.zeros((50, 6)), units, attributes, np.zeros(50, dtype=bool))
    with pytest.raises(InputError, match="do not fit the series"):
        read_responses(lazy, "train")
    series.unlink()
    with pytest.raises(InputError, match="a series cannot be read"):
        read_responses(lazy, "train")
    with pytest.raises(InputError, match="holds no trials"):
        open_trials(tmp_path / "sub-01_run-1_desc-clean_series.nc")


def test_cuts_of_another_length_are_refused(tmp_path: Path) -> None:
    cuts = Cuts(
        [], np.zeros(2, int), np.zeros(3, int), np.arange(1), np.zeros((3, 1)), np.eye(1)[None],
        np.zeros(3, int),
    )  # fmt: skip
    ids = {"stimulus": np.array(["a", "b", "c"])}
    with pytest.raises(ValueError, match="series_index"):
        write_lazy_trials(
            tmp_path / "x.nc", cuts, ids, {"kind": np.array(["eeg"])}, np.zeros(3), {}
        )


def test_reader_reads_rows_in_their_order(tmp_path: Path) -> None:
    stored, lazy, responses = write_both(tmp_path, columns=np.array([5, 1, 3]))
    rows = np.array([39, 0, 7, 7, 12])
    for path in (stored, lazy):
        with open_reader(path) as reader:
            assert reader.shape == (40, 3, 30)
            found = reader.read(rows, times=reader.window(0.0, None))
            np.testing.assert_allclose(found, responses[rows][:, :, 10:], atol=1e-4)
