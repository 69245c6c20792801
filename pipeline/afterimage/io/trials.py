"""Trials on disk (`_trials.nc`): one subject's responses, dims (trial, unit[, time])."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from afterimage.io.arrays import open_dataset
from afterimage.io.atomic import atomic_path, require_space


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
    import h5py

    dimensions = {
        "trial": len(trial_coordinates["stimulus"]),
        "unit": len(unit_coordinates["kind"]),
    }
    if times_s is not None:
        dimensions["time"] = len(times_s)
    columns = [*trial_coordinates.values(), *unit_coordinates.values()]
    path.parent.mkdir(parents=True, exist_ok=True)
    # 64 bytes hold a number, or a short text and its place in the heap.
    require_space(path.parent, 4 * math.prod(dimensions.values()) + 64 * sum(map(len, columns)))
    with atomic_path(path) as temporary, h5netcdf.File(temporary, "w") as file:
        file.dimensions = dimensions
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
        shape = tuple(dimensions.values())
        responses = file.create_variable(
            "responses", tuple(dimensions), "float32", chunks=(min(64, shape[0]), *shape[1:])
        )
        names = [*trial_coordinates, *unit_coordinates]
        responses.attrs["coordinates"] = " ".join(names)
        row = 0
        for chunk in chunks:
            responses[row : row + len(chunk)] = chunk
            row += len(chunk)
        for name, value in attributes.items():
            file.attrs[name] = value


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
    with open_dataset(path) as dataset:
        rows = np.flatnonzero(dataset["split"].values.astype(str) == split)
        responses = dataset["responses"].isel(trial=rows)
        if "time" in responses.dims:
            responses = responses.sel(time=slice(tmin_s, tmax_s))
        values = np.asarray(responses.values, dtype=np.float32)
        stimuli = dataset["stimulus"].values[rows].astype(str)
    return values.reshape(len(values), math.prod(values.shape[1:])), stimuli


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
    np.add.at(sums, inverse, responses)
    return (sums / counts[:, None]).astype(np.float32), names, counts
