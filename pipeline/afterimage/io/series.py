"""Series on disk (`_series.nc`): one run of continuous data, dims (time, unit), read in columns."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from afterimage.errors import InputError
from afterimage.io.arrays import whole
from afterimage.io.atomic import atomic_path, require_space

if TYPE_CHECKING:
    import h5netcdf

#: Units of one chunk on disk; a chunk holds all their samples.
UNITS_PER_CHUNK = 512
_REQUIRED = ("sampling_rate_hz", "start_time_s", "source", "problem")


class SeriesWriter:
    """Write blocks of consecutive samples of a series; made by `series_writer`.

    Parameters
    ----------
    file : h5netcdf.File
        Open for writing, with its dimensions and its variable ``signal``.
    """

    def __init__(self, file: h5netcdf.File) -> None:
        self._file = file

    def write(self, start: int, block: np.ndarray) -> None:
        """Write ``block`` of shape (k, n_units), float32, as the samples from ``start`` on."""
        self._file["signal"][start : start + len(block)] = block

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
        ``start_time_s``, ``source``, ``problem``, and either ``sampling_rate_hz`` (0 where it is
        not known: times then count samples) or
        ``t_r_s``, ``affine`` (16 floats, mm) and ``shape`` (3 ints) of images, whose
        ``sampling_rate_hz`` is added. Images are laid out for reading by units, EEG and MEG for
        reading by times.
    """
    import h5netcdf
    import h5py

    n_units = len(units["kind"])
    attributes = {"problem": "", **attributes}
    by_units = "t_r_s" in attributes
    if by_units:
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
        rate_hz = float(attributes["sampling_rate_hz"])
        time.attrs["units"] = "s" if rate_hz > 0 else "samples"
        censored = file.create_variable("censored", ("time",), "int8")
        censored.attrs["dtype"] = "bool"  # how xarray marks booleans in netCDF
        chunked = by_units and n_times and n_units
        chunks = (n_times, min(UNITS_PER_CHUNK, n_units)) if chunked else None
        signal = file.create_variable("signal", ("time", "unit"), "float32", chunks=chunks)
        signal.attrs["coordinates"] = " ".join([*units, "censored"])
        if n_times:
            steps = np.arange(n_times)
            # By the attribute that is exact: 1/3 s of images, 250 Hz of channels.
            since = steps * float(attributes["t_r_s"]) if by_units else steps / (rate_hz or 1.0)
            time[:] = float(attributes["start_time_s"]) + since
            censored[:] = np.zeros(n_times, dtype=np.int8)
        for name, value in attributes.items():
            file.attrs[name] = value
        yield SeriesWriter(file)


def write_series(
    path: Path,
    signal: np.ndarray | Iterable[np.ndarray],
    units: Mapping[str, np.ndarray],
    attributes: Mapping[str, Any],
    censored: np.ndarray,
) -> None:
    """Write a series, atomically.

    Parameters
    ----------
    path : Path
        The netCDF file to write.
    signal : array of shape (n_times, n_units), or iterable of blocks of its consecutive rows
        Values, written as float32.
    units, attributes : dict
        As for `series_writer`.
    censored : array of bool, shape (n_times,)
        Samples that an analysis should leave out.
    """
    with series_writer(path, len(censored), units, attributes) as writer:
        writer.censor(censored)
        row = 0
        for block in [signal] if isinstance(signal, np.ndarray) else signal:
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
    units : dict of array, each of shape (n_units,)
        ``kind``; for voxels ``i j k`` (indices) and ``x y z`` (mm), for channels ``name`` and
        ``x y z`` (m, NaN where unknown) and ``ox oy oz`` (unit vectors, 0 for electrodes).
    attrs : dict
        Attributes of the file; of images, ``affine`` as array of shape (4, 4), ``shape`` as tuple.
    """

    def __init__(self, file: h5netcdf.File, path: Path) -> None:
        self._file, self._path = file, path
        self._signal = file["signal"]
        self.n_times, self.n_units = (int(size) for size in self._signal.shape)
        self.units: dict[str, np.ndarray] = {}
        for name in str(self._signal.attrs["coordinates"]).split():
            if name != "censored":
                values = np.asarray(file[name][...])
                self.units[name] = values.astype(str) if values.dtype.kind == "O" else values
        self.attrs: dict[str, Any] = dict(file.attrs)
        if "affine" in self.attrs:
            self.attrs["affine"] = np.asarray(self.attrs["affine"], dtype=np.float64).reshape(4, 4)
            self.attrs["shape"] = tuple(int(size) for size in self.attrs["shape"])

    @cached_property
    def times_s(self) -> np.ndarray:
        """Time of each sample from the start of the run; (n_times,) float64."""
        with whole(self._path):
            return np.asarray(self._file["time"][...], dtype=np.float64)

    @cached_property
    def censored(self) -> np.ndarray:
        """Samples that an analysis should leave out; (n_times,) bool."""
        with whole(self._path):
            return np.asarray(self._file["censored"][...]).astype(bool)

    def read(self, units: slice = slice(None), times: slice = slice(None)) -> np.ndarray:
        """Read the samples ``times`` of ``units``; (n_times, n_units) float32."""
        with whole(self._path):
            return np.asarray(self._signal[times, units], dtype=np.float32)

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
        return Series(file, path)
    except Exception as error:  # noqa: BLE001
        if file is not None:
            file.close()
        raise InputError(
            "a series cannot be read", where=str(path),
            found=" ".join(str(error).split())[:200] or type(error).__name__,
            expected="a _series.nc file written by afterimage", fix="delete it and run again",
        ) from None  # fmt: skip
