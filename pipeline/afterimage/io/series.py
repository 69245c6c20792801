"""Series on disk (`_series.nc`): one run of continuous data, dims (time, unit), read in columns."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from afterimage.errors import InputError
from afterimage.io.atomic import atomic_path, require_space

if TYPE_CHECKING:
    import h5netcdf

#: Units of one chunk on disk; a chunk holds all their samples.
UNITS_PER_CHUNK = 512
_REQUIRED = ("sampling_rate_hz", "t_r_s", "start_time_s", "source", "affine", "shape", "problem")


class SeriesWriter:
    """Write blocks of consecutive samples of a series; made by `series_writer`.

    Parameters
    ----------
    file : h5netcdf.File
        Open for writing, with its dimensions and its variable ``bold``.
    """

    def __init__(self, file: h5netcdf.File) -> None:
        self._file = file

    def write(self, start: int, block: np.ndarray) -> None:
        """Write ``block`` of shape (k, n_units), float32, as the samples from ``start`` on."""
        self._file["bold"][start : start + len(block)] = block

    def censor(self, censored: np.ndarray) -> None:
        """Say which samples are censored, array of bool of shape (n_times,)."""
        if len(censored):
            self._file["censored"][:] = np.asarray(censored, dtype=np.int8)


@contextmanager
def series_writer(
    path: Path, n_times: int, units: Mapping[str, np.ndarray], attributes: Mapping[str, Any]
) -> Iterator[SeriesWriter]:
    """Open a series for writing block by block; it appears at ``path`` when all went well.

    Parameters
    ----------
    path : Path
        The netCDF file to write.
    n_times : int
        Samples; 0 for a run that was left out, with the reason in ``attributes["problem"]``.
    units : dict of array, each of shape (n_units,)
        Coordinates of the units, among them ``kind``.
    attributes : dict
        ``t_r_s``, ``start_time_s``, ``source``, ``affine`` (16 floats, mm), ``shape`` (3 ints),
        ``problem``; ``sampling_rate_hz`` is added.
    """
    import h5netcdf
    import h5py

    n_units = len(units["kind"])
    attributes = {"problem": "", **attributes}
    t_r_s = float(attributes["t_r_s"])
    attributes["sampling_rate_hz"] = 1 / t_r_s if t_r_s > 0 else 0.0
    if missing := [name for name in _REQUIRED if name not in attributes]:
        raise ValueError(f"a series needs the attributes {', '.join(missing)}")
    path.parent.mkdir(parents=True, exist_ok=True)
    require_space(path.parent, 4 * n_times * n_units + 64 * n_units * len(units))
    with atomic_path(path) as temporary, h5netcdf.File(temporary, "w") as file:
        file.dimensions = {"time": n_times, "unit": n_units}
        for name, values in units.items():
            text = values.dtype.kind in "UO"
            dtype = h5py.string_dtype() if text else values.dtype
            coordinate = file.create_variable(name, ("unit",), dtype)
            if n_units:
                coordinate[:] = values.astype(object) if text else values
        time = file.create_variable("time", ("time",), "float64")
        time.attrs["units"] = "s"
        censored = file.create_variable("censored", ("time",), "int8")
        censored.attrs["dtype"] = "bool"  # how xarray marks booleans in netCDF
        chunks = (n_times, min(UNITS_PER_CHUNK, n_units)) if n_times and n_units else None
        bold = file.create_variable("bold", ("time", "unit"), "float32", chunks=chunks)
        bold.attrs["coordinates"] = " ".join([*units, "censored"])
        if n_times:
            time[:] = float(attributes["start_time_s"]) + np.arange(n_times) * t_r_s
            censored[:] = np.zeros(n_times, dtype=np.int8)
        for name, value in attributes.items():
            file.attrs[name] = value
        yield SeriesWriter(file)


def write_series(
    path: Path,
    bold: np.ndarray | Iterable[np.ndarray],
    units: Mapping[str, np.ndarray],
    attributes: Mapping[str, Any],
    censored: np.ndarray,
) -> None:
    """Write a series, atomically.

    Parameters
    ----------
    path : Path
        The netCDF file to write.
    bold : array of shape (n_times, n_units), or iterable of blocks of its consecutive rows
        Values, written as float32.
    units, attributes : dict
        As for `series_writer`.
    censored : array of bool, shape (n_times,)
        Samples that an analysis should leave out.
    """
    with series_writer(path, len(censored), units, attributes) as writer:
        writer.censor(censored)
        row = 0
        for block in [bold] if isinstance(bold, np.ndarray) else bold:
            if len(block):
                writer.write(row, np.asarray(block, dtype=np.float32))
            row += len(block)
        if row != len(censored):
            raise ValueError(f"{row} samples given, {len(censored)} expected")


class Series:
    """A series on disk, open for reading; made by `open_series`, used as a context manager.

    Attributes
    ----------
    n_times, n_units : int
        Its size; ``n_times`` is 0 for a run that was left out (see ``attrs["problem"]``).
    times_s : array of shape (n_times,), float64
        Time of each sample from the start of the run.
    censored : array of bool, shape (n_times,)
        Samples that an analysis should leave out.
    units : dict of array, each of shape (n_units,)
        ``i j k`` (voxel indices), ``x y z`` (mm) and ``kind``.
    attrs : dict
        Attributes of the file; ``affine`` as array of shape (4, 4), ``shape`` as tuple.
    """

    def __init__(self, file: h5netcdf.File) -> None:
        self._file = file
        self._bold = file["bold"]
        self.n_times, self.n_units = (int(size) for size in self._bold.shape)
        self.times_s = np.asarray(file["time"][...], dtype=np.float64)
        self.censored = np.asarray(file["censored"][...]).astype(bool)
        self.units: dict[str, np.ndarray] = {}
        for name in str(self._bold.attrs["coordinates"]).split():
            if name != "censored":
                values = np.asarray(file[name][...])
                self.units[name] = values.astype(str) if values.dtype.kind == "O" else values
        self.attrs: dict[str, Any] = dict(file.attrs)
        self.attrs["affine"] = np.asarray(self.attrs["affine"], dtype=np.float64).reshape(4, 4)
        self.attrs["shape"] = tuple(int(size) for size in self.attrs["shape"])

    def read(self, units: slice = slice(None), times: slice = slice(None)) -> np.ndarray:
        """Read the samples ``times`` of ``units``; (n_times, n_units) float32."""
        return np.asarray(self._bold[times, units], dtype=np.float32)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def open_series(path: Path) -> Series:
    """Open a ``_series.nc`` file; nothing of its values is read before they are asked for.

    Raises
    ------
    InputError
        If the file is missing or was not written by `series_writer`.
    """
    import h5netcdf

    file = None
    try:
        file = h5netcdf.File(path, "r")
        return Series(file)
    except (OSError, KeyError, ValueError) as error:
        if file is not None:
            file.close()
        raise InputError(
            "a series cannot be read", where=str(path), found=str(error).splitlines()[0][:200],
            expected="a _series.nc file written by afterimage", fix="delete it and run again",
        ) from None  # fmt: skip
