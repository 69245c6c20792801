"""Trials on disk (`_trials.nc`): one subject's responses, dims (trial, unit[, time]).

They are stored as they are, or, where trials overlap in time (rapid EEG and MEG), as places in the
series they are cut from: a file and a first sample each, a baseline, and a whitening matrix. All
readers here give the same data for both forms.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from afterimage.errors import InputError
from afterimage.io.arrays import open_dataset
from afterimage.io.atomic import atomic_path, require_space
from afterimage.io.trial_readers import LazyReader, StoredReader, lazy_variable

if TYPE_CHECKING:
    import h5netcdf
    import xarray

#: Trials read at once where the caller does not say.
N_TRIALS_BATCH = 256


@dataclass(frozen=True)
class Layout:
    """What a decoder may know of the units and times of responses.

    Attributes
    ----------
    n_units, n_times : int
        ``n_times`` is 0 where the responses have no time axis.
    times_s : array of shape (n_times,), float64
        Seconds from onset.
    positions : array of shape (n_units, 3), float32
        In the unit of ``position_units`` (mm, m); NaN where unknown.
    kind : array of str, shape (n_units,)
        ``voxel``, ``eeg``, ``mag``, ``grad``, ...
    subject : str
        Label without ``sub-``.
    position_units : str
    """

    n_units: int
    n_times: int
    times_s: np.ndarray
    positions: np.ndarray
    kind: np.ndarray
    subject: str
    position_units: str = "mm"


def write_trials(
    path: Path,
    chunks: Iterable[np.ndarray],
    trial_coordinates: Mapping[str, np.ndarray],
    unit_coordinates: Mapping[str, np.ndarray],
    times_s: np.ndarray | None,
    attributes: Mapping[str, Any],
) -> None:
    """Write trials piece by piece, atomically.

    Parameters
    ----------
    path : Path
        The netCDF file to write.
    chunks : iterable of array of shape (k, n_units[, n_times]), float32
        Consecutive trials; together as many as the trial coordinates.
    trial_coordinates, unit_coordinates : dict of array
        Coordinates along ``trial`` and ``unit``; strings or numbers. Each has `stimulus` (trials)
        or `kind` (units) among them.
    times_s : array of shape (n_times,) or None
        Seconds from stimulus onset, where the responses have a time axis.
    attributes : dict
        Attributes of the file: units of the responses and of the positions.
    """
    import h5netcdf

    n_trials, n_units = len(trial_coordinates["stimulus"]), len(unit_coordinates["kind"])
    shape = (n_trials, n_units) + (() if times_s is None else (len(times_s),))
    columns = [*trial_coordinates.values(), *unit_coordinates.values()]
    path.parent.mkdir(parents=True, exist_ok=True)
    # 64 bytes hold a number, or a short text and its place in the heap.
    require_space(path.parent, 4 * math.prod(shape) + 64 * sum(map(len, columns)))
    with atomic_path(path) as temporary, h5netcdf.File(temporary, "w") as file:
        _write_coordinates(file, trial_coordinates, unit_coordinates, times_s, attributes)
        dimensions = ("trial", "unit", "time")[: len(shape)]
        responses = file.create_variable(
            "responses", dimensions, "float32", chunks=(min(64, shape[0]), *shape[1:])
        )
        names = [*trial_coordinates, *unit_coordinates]
        responses.attrs["coordinates"] = " ".join(names)
        row = 0
        for chunk in chunks:
            responses[row : row + len(chunk)] = chunk
            row += len(chunk)


def _write_coordinates(
    file: h5netcdf.File,
    trial_coordinates: Mapping[str, np.ndarray],
    unit_coordinates: Mapping[str, np.ndarray],
    times_s: np.ndarray | None,
    attributes: Mapping[str, Any],
) -> None:
    """Create the dimensions, the coordinates along them and the attributes of a file of trials."""
    import h5py

    sizes = {"trial": len(trial_coordinates["stimulus"]), "unit": len(unit_coordinates["kind"])}
    file.dimensions = sizes | ({} if times_s is None else {"time": len(times_s)})
    for dimension, coordinates in (("trial", trial_coordinates), ("unit", unit_coordinates)):
        for name, values in coordinates.items():
            text = values.dtype.kind in "UO"
            dtype = h5py.string_dtype() if text else values.dtype
            variable = file.create_variable(name, (dimension,), dtype)
            variable[:] = values.astype(object) if text else values
    if times_s is not None:
        variable = file.create_variable("time", ("time",), "float64")
        variable[:] = times_s
        variable.attrs["units"] = "s"
    for name, value in attributes.items():
        file.attrs[name] = value


@dataclass(frozen=True)
class Cuts:
    """Where the trials of a subject lie in its series, and what is done to them when read.

    A response is ``whitening[whitening_index] @ (signal - baseline)``.

    Attributes
    ----------
    series : sequence of Path
        ``_series.nc`` files.
    series_index : array of int, shape (n_trials,)
        File of each trial, by its place in ``series``.
    first_sample : array of int, shape (n_trials,)
        Sample of the series at the first time of the trial.
    columns : array of int, shape (n_units,)
        Units of the series that are units of the trials.
    baseline : array of shape (n_trials, n_units), float32
        Subtracted from each trial, in the units of the series; zeros for none.
    whitening : array of shape (n_fits, n_units, n_units), float32
        Identity, a diagonal of factors, or a whitening matrix; fitted on training trials.
    whitening_index : array of int, shape (n_trials,)
        Which of them is used for each trial.
    """

    series: Sequence[Path]
    series_index: np.ndarray
    first_sample: np.ndarray
    columns: np.ndarray
    baseline: np.ndarray
    whitening: np.ndarray
    whitening_index: np.ndarray


def write_lazy_trials(
    path: Path,
    cuts: Cuts,
    trial_coordinates: Mapping[str, np.ndarray],
    unit_coordinates: Mapping[str, np.ndarray],
    times_s: np.ndarray,
    attributes: Mapping[str, Any],
) -> None:
    """Write where trials lie in their series, atomically; no sample is copied.

    Parameters
    ----------
    path : Path
        The netCDF file to write; the series are named relative to its folder.
    cuts : Cuts
    trial_coordinates, unit_coordinates, times_s, attributes
        As for `write_trials`; ``times_s`` is needed, one step a sample of the series.
    """
    import h5netcdf
    import h5py

    n_trials, n_units = len(trial_coordinates["stimulus"]), len(unit_coordinates["kind"])
    expected = {
        "series_index": (n_trials,), "first_sample": (n_trials,), "columns": (n_units,),
        "baseline": (n_trials, n_units), "whitening_index": (n_trials,),
        "whitening": (len(cuts.whitening), n_units, n_units),
    }  # fmt: skip
    for name, shape in expected.items():
        if np.shape(getattr(cuts, name)) != shape:
            raise ValueError(f"{name} has shape {np.shape(getattr(cuts, name))}, not {shape}")
    path.parent.mkdir(parents=True, exist_ok=True)
    names = [*trial_coordinates, *unit_coordinates]
    require_space(path.parent, n_trials * (4 * n_units + 64 * len(names)) + cuts.whitening.nbytes)
    files = [os.path.relpath(file.resolve(), path.parent.resolve()) for file in cuts.series]
    with atomic_path(path) as temporary, h5netcdf.File(temporary, "w") as file:
        _write_coordinates(file, trial_coordinates, unit_coordinates, times_s, attributes)
        for name, size in (
            ("series", len(files)), ("fit", len(cuts.whitening)), ("unit_in", n_units)
        ):  # fmt: skip
            file.dimensions[name] = size
        variable = file.create_variable("series_file", ("series",), h5py.string_dtype())
        variable[:] = np.array([Path(name).as_posix() for name in files], dtype=object)
        for name, dimensions, dtype, values in (
            ("series_index", ("trial",), "int32", cuts.series_index),
            ("first_sample", ("trial",), "int64", cuts.first_sample),
            ("series_column", ("unit",), "int32", cuts.columns),
            ("baseline", ("trial", "unit"), "float32", cuts.baseline),
            ("whitening", ("fit", "unit", "unit_in"), "float32", cuts.whitening),
            ("whitening_index", ("trial",), "int32", cuts.whitening_index),
        ):
            variable = file.create_variable(name, dimensions, dtype)
            variable[...] = values
        file.attrs["coordinate_names"] = " ".join(names)


def open_trials(path: Path) -> xarray.Dataset:
    """Open trials as a dataset with ``responses`` (trial, unit[, time]); close it after use.

    Nothing of the responses is read before they are indexed and their values asked for. The
    dataset is the same for stored trials and for those cut from series.
    """
    dataset = open_dataset(path)
    if "responses" in dataset.variables:
        return dataset
    reader = _lazy_reader(dataset, path)
    names = str(dataset.attrs.pop("coordinate_names")).split()
    opened = dataset[[*names, "time"]].set_coords(names)
    opened = opened.assign(responses=lazy_variable(reader))

    def close() -> None:
        reader.close()
        dataset.close()

    opened.set_close(close)
    return opened


def open_reader(path: Path) -> LazyReader | StoredReader:
    """Open trials for reading any of them, many times; use it as a context manager.

    Returns
    -------
    reader
        With ``stimulus``, ``split`` (arrays of str, one a trial), ``times_s``, ``shape`` and
        ``read(rows, times=slice)``, which returns (n_rows, n_units[, n_times]) float32.
    """
    dataset = open_dataset(path)
    if "responses" in dataset.variables:
        return StoredReader(dataset, path)
    return _lazy_reader(dataset, path)


def _lazy_reader(dataset: xarray.Dataset, path: Path) -> LazyReader:
    """Return the reader of a file without stored responses; refuse what is no file of trials."""
    needed = ("series_file", "series_index", "first_sample", "series_column", "whitening")
    if not all(name in dataset.variables for name in needed):
        dataset.close()
        raise InputError(
            "a file holds no trials", where=str(path),
            found=f"the variables {', '.join(map(str, dataset.variables))}"[:300],
            expected="responses, or series and first samples",
            fix="delete it and run again",
        )  # fmt: skip
    return LazyReader(dataset, path)


def read_layout(path: Path) -> Layout:
    """Read what a decoder may know of the units and times of a file of trials."""
    with open_dataset(path) as dataset:
        n_units = dataset.sizes["unit"]
        positions = np.full((n_units, 3), np.nan, dtype=np.float32)
        for place, name in enumerate("xyz"):
            if name in dataset.variables:
                positions[:, place] = dataset[name].values
        times_s = np.asarray(dataset["time"].values if "time" in dataset.variables else [], float)
        return Layout(
            n_units=n_units,
            n_times=len(times_s),
            times_s=times_s,
            positions=positions,
            kind=dataset["kind"].values.astype(str),
            subject=str(dataset.attrs.get("subject", dataset["subject"].values[0])),
            position_units=str(dataset.attrs.get("position_units", "mm")),
        )


def iter_responses(
    path: Path,
    split: str,
    n_trials_batch: int = N_TRIALS_BATCH,
    tmin_s: float | None = None,
    tmax_s: float | None = None,
    *,
    order: np.ndarray | None = None,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Read the responses of one split batch by batch; memory does not grow with their number.

    Parameters
    ----------
    path : Path
        A ``_trials.nc`` file.
    split : str
        ``train``, ``val`` or ``test``.
    n_trials_batch : int
    tmin_s, tmax_s : float or None
        As for `read_responses`.
    order : array of int, optional
        Which trials of the split to read, in this order (a shuffled epoch, a subset); default all.

    Yields
    ------
    responses : array of shape (n_trials_batch, n_units[, n_times]), float32
        The last batch may be shorter.
    stimuli : array of str, shape (n_trials_batch,)
    """
    with open_reader(path) as reader:
        rows = np.flatnonzero(reader.split == split)
        if order is not None:
            rows = rows[order]
        times = reader.window(tmin_s, tmax_s)
        for start in range(0, len(rows), n_trials_batch):
            batch = rows[start : start + n_trials_batch]
            yield reader.read(batch, times=times), reader.stimulus[batch]


def read_responses(
    path: Path, split: str, tmin_s: float | None = None, tmax_s: float | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Read the responses of one split, flattened over units and times.

    Parameters
    ----------
    path : Path
        A ``_trials.nc`` file.
    split : str
        ``train``, ``val`` or ``test``.
    tmin_s, tmax_s : float or None
        Window of the time axis, in seconds from onset; None for all. Ignored without a time axis.

    Returns
    -------
    responses : array of shape (n_trials, n_units * n_times), float32
    stimuli : array of str, shape (n_trials,)
    """
    with open_reader(path) as reader:
        rows = np.flatnonzero(reader.split == split)
        times = reader.window(tmin_s, tmax_s)
        shape = reader.read(rows[:0], times=times).shape[1:]
        values = np.empty((len(rows), math.prod(shape)), dtype=np.float32)
        for start in range(0, len(rows), N_TRIALS_BATCH):
            part = rows[start : start + N_TRIALS_BATCH]
            values[start : start + len(part)] = reader.read(part, times=times).reshape(
                len(part), -1
            )
        return values, reader.stimulus[rows]


def read_averages(
    path: Path, split: str, tmin_s: float | None = None, tmax_s: float | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Average the trials of each stimulus of one split, without reading them all at once.

    Parameters
    ----------
    path, split, tmin_s, tmax_s
        As for `read_responses`.

    Returns
    -------
    averages, names, counts
        As of `average_repeats`, the same numbers.
    """
    with open_reader(path) as reader:
        rows = np.flatnonzero(reader.split == split)
        names, place, counts = np.unique(
            reader.stimulus[rows], return_inverse=True, return_counts=True
        )
        n_values = math.prod(reader.read(rows[:0], times=reader.window(tmin_s, tmax_s)).shape[1:])
    sums = np.zeros((len(names), n_values))
    start = 0
    for batch, _ in iter_responses(path, split, tmin_s=tmin_s, tmax_s=tmax_s):
        _add_rows(sums, place[start : start + len(batch)], batch.reshape(len(batch), -1))
        start += len(batch)
    return _means(sums, counts), names, counts


def average_repeats(
    responses: np.ndarray, stimuli: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Average the trials of each stimulus.

    Returns
    -------
    averages : array of shape (n_stimuli, n_features), float32
    names : array of str, shape (n_stimuli,), sorted
    counts : array of int, shape (n_stimuli,)
    """
    names, inverse, counts = np.unique(stimuli, return_inverse=True, return_counts=True)
    sums = np.zeros((len(names), responses.shape[1]), dtype=np.float64)
    _add_rows(sums, inverse, responses)
    return _means(sums, counts), names, counts


def _add_rows(sums: np.ndarray, places: np.ndarray, rows: np.ndarray) -> None:
    """Add each row to that of its place; `numpy.add.at` takes twenty times as long for long rows."""
    for place, row in zip(places.tolist(), rows, strict=True):
        sums[place] += row


def _means(sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Divide sums, which are used up, by their counts: float32, without another float64 copy."""
    sums /= counts[:, None]
    return sums.astype(np.float32)
