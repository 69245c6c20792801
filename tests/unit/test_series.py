"""Series on disk: written by blocks, read by columns, whole or not there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray

from afterimage.errors import InputError
from afterimage.io.scratch import open_scratch
from afterimage.io.series import open_series, series_writer, write_series

ATTRIBUTES: dict[str, Any] = {
    "t_r_s": 1.5, "start_time_s": 0.75, "source": "raw", "affine": np.eye(4).ravel(),
    "shape": np.array([10, 10, 7]),
}  # fmt: skip


def units(n: int) -> dict[str, np.ndarray]:
    return {
        "i": np.arange(n, dtype=np.int32),
        "x": np.arange(n, dtype=np.float32) / 2,
        "kind": np.full(n, "voxel"),
    }


def test_round_trip_by_blocks_and_by_columns(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(23, 700)).astype(np.float32)
    censored = np.arange(23) % 7 == 3
    path = tmp_path / "sub-01_series.nc"
    write_series(path, np.array_split(values, 4), units(700), ATTRIBUTES, censored)
    with open_series(path) as series:
        assert (series.n_times, series.n_units) == (23, 700)
        np.testing.assert_array_equal(series.read(slice(500, 600)), values[:, 500:600])
        np.testing.assert_array_equal(series.read(times=slice(3, 9)), values[3:9])
        np.testing.assert_array_equal(series.censored, censored)
        np.testing.assert_allclose(series.times_s, 0.75 + 1.5 * np.arange(23))
        assert series.units["kind"][0] == "voxel"
        assert series.attrs["affine"].shape == (4, 4)
        assert series.attrs["shape"] == (10, 10, 7)
        assert series.attrs["problem"] == ""
        assert series.attrs["sampling_rate_hz"] == pytest.approx(1 / 1.5)


def test_xarray_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "series.nc"
    write_series(path, np.ones((4, 3)), units(3), ATTRIBUTES, np.array([0, 0, 1, 0], dtype=bool))
    with xarray.open_dataset(path, engine="h5netcdf") as dataset:
        assert dataset["signal"].dims == ("time", "unit")
        assert dataset["signal"].dtype == np.float32
        assert dataset["censored"].dtype == bool
        assert set(dataset.coords) == {"time", "censored", "i", "x", "kind"}


def test_columns_are_cheap(tmp_path: Path) -> None:
    import h5py

    path = tmp_path / "series.nc"
    write_series(path, np.zeros((40, 2000)), units(2000), ATTRIBUTES, np.zeros(40, dtype=bool))
    with h5py.File(path) as file:
        assert file["signal"].chunks == (40, 512)


def test_channels_have_a_rate_and_are_laid_out_by_times(tmp_path: Path) -> None:
    import h5py

    path = tmp_path / "sub-01_series.nc"
    values = np.random.default_rng(0).normal(size=(500, 3)).astype(np.float32)
    coordinates = {"name": np.array(["Fz", "Cz", "Oz"]), "kind": np.full(3, "eeg")}
    attributes = {"sampling_rate_hz": 250.0, "start_time_s": 0.0, "source": "raw"}
    write_series(path, values, coordinates, attributes, np.zeros(500, dtype=bool))
    with h5py.File(path) as file:
        assert file["signal"].chunks is None
    with open_series(path) as series:
        assert series.attrs["sampling_rate_hz"] == 250
        assert "t_r_s" not in series.attrs and "affine" not in series.attrs
        np.testing.assert_allclose(series.times_s, np.arange(500) / 250)
        np.testing.assert_array_equal(series.read(times=slice(100, 160)), values[100:160])
        assert series.units["name"].tolist() == ["Fz", "Cz", "Oz"]
    with pytest.raises(ValueError, match="sampling_rate_hz"):
        write_series(path, values, coordinates, {"start_time_s": 0.0, "source": "raw"}, values > 9)


def test_run_that_was_left_out(tmp_path: Path) -> None:
    path = tmp_path / "series.nc"
    attributes = {**ATTRIBUTES, "t_r_s": 0.0, "problem": "an image cannot be read"}
    write_series(path, np.zeros((0, 5)), units(5), attributes, np.zeros(0, dtype=bool))
    with open_series(path) as series:
        assert (series.n_times, series.n_units) == (0, 5)
        assert series.read().shape == (0, 5)
        assert series.attrs["problem"] == "an image cannot be read"


def test_nothing_is_left_of_a_failed_write(tmp_path: Path) -> None:
    path = tmp_path / "series.nc"
    with (
        pytest.raises(RuntimeError),
        series_writer(path, 4, units(3), ATTRIBUTES) as writer,
    ):
        writer.write(0, np.zeros((2, 3), dtype=np.float32))
        raise RuntimeError
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match="3 samples given, 4 expected"):
        write_series(path, np.zeros((3, 3)), units(3), ATTRIBUTES, np.zeros(4, dtype=bool))
    assert not path.exists()


def test_what_is_no_series_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "series.nc"
    with pytest.raises(InputError, match="a series cannot be read"):
        open_series(path)
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(InputError, match="a series cannot be read"):
        open_series(path)


def test_scratch_is_transposed_on_disk_and_removed(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(150, 5000)).astype(np.float32)
    with open_scratch(tmp_path, values.shape) as scratch:
        for row in range(0, 150, 64):
            scratch.write(values[row : row + 64], row=row)
        column = scratch.read(columns=slice(4000, 4700))
        np.testing.assert_array_equal(column, values[:, 4000:4700])
        scratch.write(-column, column=4000)
        np.testing.assert_array_equal(scratch.read(slice(60, 70))[:, 4000:4700], -column[60:70])
    assert not list(tmp_path.iterdir())
