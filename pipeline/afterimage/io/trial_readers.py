"""Read trials by row and time, stored as they are or cut from their series when asked for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from afterimage.errors import InputError
from afterimage.io.series import Series, open_series

if TYPE_CHECKING:
    import xarray

#: How far a limit of a window may lie from a sample, in s, and still include it.
TIME_TOLERANCE_S = 1e-9


class StoredReader:
    """Trials that are stored as they are.

    Parameters
    ----------
    dataset : xarray.Dataset
        Opened file with ``responses``; closed with the reader.
    path : Path
        The file.

    Attributes
    ----------
    stimulus, split : array of str, shape (n_trials,)
    times_s : array of shape (n_times,) or None
    shape : tuple of int
        (n_trials, n_units[, n_times])
    """

    def __init__(self, dataset: xarray.Dataset, path: Path) -> None:
        self._dataset, self._path = dataset, path
        self._file: Any = None  # opened at the first reading
        self._responses: Any = None
        self.stimulus = dataset["stimulus"].values.astype(str)
        self.split = dataset["split"].values.astype(str)
        has_times = "time" in dataset.variables
        self.times_s = np.asarray(dataset["time"].values, dtype=float) if has_times else None
        sizes = (len(self.stimulus), dataset.sizes["unit"])
        self.shape = sizes + (() if self.times_s is None else (len(self.times_s),))

    def window(self, tmin_s: float | None, tmax_s: float | None) -> slice:
        """Return the samples from ``tmin_s`` to ``tmax_s``, both included; None for no limit."""
        if self.times_s is None:
            return slice(None)
        low = -np.inf if tmin_s is None else tmin_s - TIME_TOLERANCE_S
        high = np.inf if tmax_s is None else tmax_s + TIME_TOLERANCE_S
        return slice(
            int(np.searchsorted(self.times_s, low)),
            int(np.searchsorted(self.times_s, high, side="right")),
        )

    def read(
        self, rows: np.ndarray, units: Any = slice(None), times: slice = slice(None)
    ) -> np.ndarray:
        """Read trials ``rows`` in this order; (n_rows, n_units[, n_times]) float32."""
        rows = np.asarray(rows, dtype=np.int64)
        if self._responses is None:
            # xarray looks up every dimension at every access, which takes longer than the reading.
            import h5py

            self._file = h5py.File(self._path, "r")
            self._responses = self._file["responses"]
        rest = (slice(None), *((times,) if self.times_s is not None else ()))
        none = np.empty((0, *self.shape[1:]), np.float32)[(slice(None), *rest)]
        values = np.empty((len(rows), *none.shape[1:]), dtype=np.float32)
        order = np.argsort(rows, kind="stable")
        # Rows that follow each other are read as one block: a list of rows is slow in HDF5.
        for part in np.split(order, np.flatnonzero(np.diff(rows[order]) > 1) + 1):
            if len(part):
                first, stop = int(rows[part[0]]), int(rows[part[-1]]) + 1
                block = self._responses[(slice(first, stop), *rest)]
                values[part] = block[rows[part] - first]
        return values[:, units]

    def close(self) -> None:
        """Close the file."""
        self._dataset.close()
        if self._file is not None:
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class LazyReader(StoredReader):
    """Trials that are cut from their series, baseline subtracted and whitened, when read.

    Parameters
    ----------
    dataset : xarray.Dataset
        Opened file of `afterimage.io.trials.write_lazy_trials`; closed with the reader.
    path : Path
        The file; the series are named relative to its folder.
    """

    def __init__(self, dataset: xarray.Dataset, path: Path) -> None:
        super().__init__(dataset, path)
        assert self.times_s is not None  # noqa: S101  written with them
        self._files = [path.parent / name for name in dataset["series_file"].values.astype(str)]
        self._series: dict[int, Series] = {}
        self._series_index = dataset["series_index"].values
        self._first_sample = dataset["first_sample"].values.astype(np.int64)
        self._columns = dataset["series_column"].values
        self._whitening = np.asarray(dataset["whitening"].values, dtype=np.float32)
        self._fit = dataset["whitening_index"].values
        diagonals = [np.diagonal(matrix) for matrix in self._whitening]
        self._diagonal = [
            diagonal.copy() if np.array_equal(matrix, np.diag(diagonal)) else None
            for matrix, diagonal in zip(self._whitening, diagonals, strict=True)
        ]

    def read(
        self, rows: np.ndarray, units: Any = slice(None), times: slice = slice(None)
    ) -> np.ndarray:
        """Read trials ``rows`` in this order; (n_rows, n_units, n_times) float32."""
        rows = np.asarray(rows, dtype=np.int64)
        n_times = len(self.times_s if self.times_s is not None else ())
        skip, stop, _ = times.indices(n_times)
        length = max(0, stop - skip)
        chosen = np.arange(self.shape[1])[units]
        values = np.empty((len(rows), len(chosen), length), dtype=np.float32)
        if not values.size:
            return values
        baseline = self._baseline(rows)
        for place, fit, part in self._segments(rows, skip, length):
            first = self._first_sample[rows[part]] + skip
            start, end = int(first.min()), int(first.max()) + length
            block = self._block(place, start, end)
            scale = self._diagonal[fit]
            if scale is None:
                matrix = self._whitening[fit][chosen]
                block, shift = block @ matrix.T, baseline[part] @ matrix.T
            else:
                block = block[:, chosen] * scale[chosen]
                shift = baseline[part][:, chosen] * scale[chosen]
            windows = np.lib.stride_tricks.sliding_window_view(block, length, axis=0)
            values[part] = windows[first - start]
            values[part] -= shift[:, :, None]
        return values

    def _segments(
        self, rows: np.ndarray, skip: int, length: int
    ) -> Iterator[tuple[int, int, np.ndarray]]:
        """Yield file, whitening and places in ``rows`` of trials that are read as one block.

        Trials of one file and whitening that overlap, or lie less than a trial apart, are read
        together, so that a sample that several trials share is read and whitened once.
        """
        place, fit = self._series_index[rows], self._fit[rows]
        first = self._first_sample[rows]
        order = np.lexsort((first, fit, place))
        same = (np.diff(place[order]) == 0) & (np.diff(fit[order]) == 0)
        near = np.diff(first[order]) <= 2 * length
        for part in np.split(order, np.flatnonzero(~(same & near)) + 1):
            yield int(place[part[0]]), int(fit[part[0]]), part

    def _baseline(self, rows: np.ndarray) -> np.ndarray:
        """Read the baselines of ``rows``, (n_rows, n_units) float32."""
        low, high = int(rows.min()), int(rows.max()) + 1
        stored = self._dataset["baseline"]
        # A block of rows is quick to read; far apart, all of them are read once and kept.
        if high - low <= 4 * len(rows):
            return np.asarray(stored[low:high].values)[rows - low]
        if not hasattr(self, "_all_baselines"):
            self._all_baselines = np.asarray(stored.values)
        return np.asarray(self._all_baselines[rows])

    def _block(self, place: int, start: int, end: int) -> np.ndarray:
        """Read the samples from ``start`` to ``end`` of one series; (n_samples, n_units)."""
        if place not in self._series:
            self._series[place] = open_series(self._files[place])
        series = self._series[place]
        if start < 0 or end > series.n_times or self._columns.max() >= series.n_units:
            raise InputError(
                "trials do not fit the series they are cut from",
                where=f"{self._path} and {self._files[place]}",
                found=f"samples {start} to {end} of {series.n_times}, {series.n_units} units",
                expected="the series as it was when the trials were cut",
                fix="delete the file of trials and run again",
            )  # fmt: skip
        block = series.read(times=slice(start, end))
        whole = len(self._columns) == series.n_units
        if whole and np.array_equal(self._columns, np.arange(series.n_units)):
            return block
        return block[:, self._columns]

    def close(self) -> None:
        """Close the file and its series."""
        for series in self._series.values():
            series.close()
        self._series.clear()
        super().close()


def lazy_variable(reader: LazyReader) -> xarray.Variable:
    """Return ``responses`` of a reader as a variable that reads what is indexed, when it is used."""
    import xarray
    from xarray.backends import BackendArray
    from xarray.core import indexing

    class Responses(BackendArray):
        shape = reader.shape
        dtype = np.dtype(np.float32)

        def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
            return indexing.explicit_indexing_adapter(
                key, self.shape, indexing.IndexingSupport.OUTER, self._read
            )

        def _read(self, key: tuple[Any, ...]) -> np.ndarray:
            trial, unit, time = key
            rows = np.arange(self.shape[0])[trial]
            values = reader.read(np.atleast_1d(rows), _at_least_1d(unit), _span(time))
            picked = values[:, :, _within(time)]
            if isinstance(unit, int | np.integer):
                picked = picked[:, 0]
            return picked[0] if np.ndim(rows) == 0 else picked

    data = indexing.LazilyIndexedArray(Responses())
    return xarray.Variable(("trial", "unit", "time"), data)


def _at_least_1d(key: Any) -> Any:
    return [int(key)] if isinstance(key, int | np.integer) else key


def _span(key: Any) -> slice:
    """Return the block of times that holds those of an index."""
    if isinstance(key, slice):
        if key.step is None or key.step > 0:
            return slice(key.start, key.stop)
        return slice(None)
    places = np.atleast_1d(key)
    return slice(int(places.min()), int(places.max()) + 1) if len(places) else slice(0, 0)


def _within(key: Any) -> Any:
    """Return the index into the block of `_span`."""
    if isinstance(key, slice):
        return slice(None, None, key.step) if key.step is None or key.step > 0 else key
    if isinstance(key, int | np.integer):
        return 0
    places = np.asarray(key)
    return places - places.min() if len(places) else places
