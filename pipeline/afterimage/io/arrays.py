"""Arrays on disk: strict readers of .npy, and the netCDF files that pass between stages."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from afterimage.errors import AfterimageError, InputError, disk_full
from afterimage.io.atomic import atomic_path, require_space

if TYPE_CHECKING:
    import h5netcdf
    import xarray

#: Columns of one chunk of a wide block.
N_CHUNK_COLUMNS = 4096
#: A variable of fewer bytes is read whatever it was packed into; a larger one if it was packed by no
#: more than this, twice what deflate can do.
FREE_BYTES, MAX_RATIO = 2**26, 2000


def open_npy(path: Path) -> np.ndarray:
    """Open a numeric ``.npy`` file as a read-only memory map.

    Raises
    ------
    InputError
        If the file is missing, is no ``.npy`` file, is truncated, holds Python objects (which can
        run code when they are read) or anything that is not a real number.
    """
    if not path.is_file():
        raise InputError(
            "a responses file is missing", where=str(path), found="no such file",
            expected="an array saved by numpy.save", fix="write it, or remove the subject's folder",
        )  # fmt: skip
    try:
        array: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # noqa: BLE001  the header is read as Python, a zip as an archive
        objects = any(word in str(error) for word in ("Object arrays", "pickle", "Python objects"))
        raise InputError(
            "a responses file holds pickled objects" if objects else "an array cannot be read",
            where=str(path),
            found="an object array (reading it could run code)"
            if objects
            else str(error)[:300] or type(error).__name__,
            expected="a plain numeric array, for example float32",
            fix="save it again with numpy.save(path, array.astype('float32'))",
        ) from None
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiub":
        raise InputError(
            "a responses file is not numeric",
            where=str(path),
            found=f"dtype {getattr(array, 'dtype', type(array).__name__)}",
            expected="real numbers, for example float32",
            fix="save it again with numpy.save(path, array.astype('float32'))",
        )
    return array


@contextmanager
def open_hdf5(path: Path) -> Iterator[Any]:
    """Open a published HDF5 file for reading; what is damaged in it ends in one clear error."""
    import h5py

    with reading_hdf5(path), h5py.File(path, "r") as file:
        yield file


@contextmanager
def reading_hdf5(path: Path) -> Iterator[None]:
    """Turn what HDF5 raises on a damaged published file, of every kind, into one error of ours."""
    try:
        yield
    except (AfterimageError, MemoryError):
        raise
    except Exception as error:
        if disk_full(error):
            raise
        raise InputError(
            "an HDF5 file cannot be read", where=str(path),
            found=" ".join(str(error).split())[:300] or type(error).__name__,
            expected="a whole file, as it was published", fix="download it again",
        ) from error  # fmt: skip


def write_dataset(path: Path, dataset: xarray.Dataset) -> None:
    """Write an xarray Dataset as netCDF4, atomically, compressed lightly."""
    encoding = {
        str(name): {"zlib": True, "complevel": 1}
        for name, variable in dataset.variables.items()
        if variable.dtype.kind in "fiu" and variable.size > 4096
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    require_space(path.parent, dataset.nbytes)
    with atomic_path(path) as temporary:
        dataset.to_netcdf(temporary, engine="h5netcdf", encoding=encoding)


def open_dataset(path: Path, group: str | None = None) -> xarray.Dataset:
    """Open a netCDF file of this project lazily; close it, or use it as a context manager."""
    import xarray

    try:
        _check_sizes(path)
        return xarray.open_dataset(path, engine="h5netcdf", group=group)
    except Exception as error:  # noqa: BLE001
        raise _unreadable(path, error) from None


def _check_sizes(path: Path) -> None:
    """Refuse a file that announces far more values than packing could have made of its bytes."""
    import h5py

    def check(_: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            _check_size(item)

    with h5py.File(path) as file:
        file.visititems(check)


def _check_size(item: Any) -> None:
    announced = int(item.size or 0) * item.dtype.itemsize
    if announced > FREE_BYTES and announced > MAX_RATIO * item.id.get_storage_size():
        raise ValueError(
            f"{item.name} of shape {item.shape}, {item.id.get_storage_size()} bytes of it there"
        )


@contextmanager
def whole(path: Path) -> Iterator[None]:
    """Turn what HDF5 raises on a damaged file, of every kind, into one error of ours."""
    try:
        yield
    except (AfterimageError, MemoryError):
        raise
    except Exception as error:  # noqa: BLE001
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: Exception) -> InputError:
    return InputError(
        "an intermediate file cannot be read", where=str(path),
        found=" ".join(str(error).split())[:300] or type(error).__name__,
        expected="a netCDF file written by afterimage", fix="delete it and run again",
    )  # fmt: skip


def read_variables(path: Path, prefix: str) -> dict[str, tuple[str, np.ndarray]]:
    """Read the variables with one axis whose names start so; xarray would look at all there are.

    Parameters
    ----------
    path : Path
        A netCDF file of this project.
    prefix : str
        Start of the names.

    Returns
    -------
    dict of (str, array)
        Name of the axis, made up, and values.
    """
    import h5py

    with h5py.File(path) as file:
        found = {
            name: one.asstr()[()] if one.dtype.kind == "O" else one[()]
            for name, one in file.items()
            if name.startswith(prefix) and one.ndim == 1
        }
    return {name: (f"axis_{len(values)}", values) for name, values in found.items()}


@contextmanager
def block_writer(path: Path) -> Iterator[BlockWriter]:
    """Open a netCDF file to which blocks (arrays over stimuli) are written piece by piece.

    The file appears at ``path`` only when the context ends without an error.
    """
    import h5netcdf

    with atomic_path(path) as temporary, h5netcdf.File(temporary, "w") as file:
        yield BlockWriter(file)


class BlockWriter:
    """Write arrays of shape (n_stimuli, ...) into one netCDF file without holding them whole.

    Parameters
    ----------
    file : h5netcdf.File
        The file, open for writing.
    """

    def __init__(self, file: h5netcdf.File) -> None:
        self._file = file

    def group(self, name: str, stimuli: Iterable[str]) -> None:
        """Start a group (``""`` for the root) whose rows are ``stimuli``."""
        target = self._file.create_group(name) if name else self._file
        ids = np.array(list(stimuli), dtype=object)
        target.dimensions = {"stimulus": len(ids)}
        import h5py

        variable = target.create_variable("stimulus", ("stimulus",), h5py.string_dtype())
        if len(ids):
            variable[:] = ids

    def write(
        self,
        group: str,
        block: str,
        chunks: Iterable[np.ndarray],
        shape: tuple[int, ...],
        attributes: Mapping[str, Any],
        dtype: str = "float32",
    ) -> None:
        """Write one block; ``chunks`` are consecutive rows, ``shape`` is that of one row.

        The rows are stored flat, with their shape in the attribute ``shape``.
        """
        target = self._file[group] if group else self._file
        n_features = int(np.prod(shape))
        dimension = f"{block}_feature"
        target.dimensions[dimension] = n_features
        variable = target.create_variable(
            block,
            ("stimulus", dimension),
            dtype,
            compression="gzip",
            compression_opts=1,
            chunks=_chunks(target.dimensions["stimulus"].size, n_features),
        )
        variable.attrs["shape"] = np.array(shape, dtype=np.int64)
        for name, value in attributes.items():
            variable.attrs[name] = value
        row = 0
        for chunk in chunks:
            flat = np.asarray(chunk, dtype=dtype).reshape(len(chunk), n_features)
            require_space(Path(self._file.filename).parent, flat.nbytes)
            variable[row : row + len(flat)] = flat
            row += len(flat)


def _chunks(n_rows: int, n_features: int) -> tuple[int, int] | None:
    """Shape of a chunk: wide blocks are cut in columns too, so that columns can be read alone."""
    if not n_rows:
        return None
    if n_features <= N_CHUNK_COLUMNS:
        return max(1, min(256, n_rows)), n_features
    return min(64, n_rows), N_CHUNK_COLUMNS


@contextmanager
def open_blocks(path: Path, group: str = "") -> Iterator[dict[str, BlockColumns]]:
    """Open the blocks of a file of `BlockWriter` to read them by columns, or by rows."""
    import h5netcdf

    file = None
    try:
        file = h5netcdf.File(path, "r")
        home = file[group] if group else file
        blocks = {
            str(name): BlockColumns(variable)
            for name, variable in home.variables.items()
            if name != "stimulus"
        }
    except Exception as error:  # noqa: BLE001
        if file is not None:
            file.close()
        raise _unreadable(path, error) from None
    with file:
        yield blocks


class BlockColumns:
    """Columns, or rows, of one block on disk, read when asked for."""

    def __init__(self, variable: Any) -> None:
        self._variable = variable
        self.shape: tuple[int, int] = variable.shape

    def columns(self, part: slice) -> np.ndarray:
        """Read some columns of all stimuli, (n_stimuli, n_columns)."""
        return np.asarray(self._variable[:, part])

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> np.ndarray:
        """Read some stimuli, a slice or numbers in any order, (n, n_columns)."""
        wanted, place = np.unique(np.arange(len(self))[rows], return_inverse=True)
        if not len(wanted):
            return np.empty((0, self.shape[1]), self._variable.dtype)
        first, last = wanted[0], wanted[-1]
        if last - first < 2 * len(wanted):  # one piece is read faster than many rows
            values = self._variable[first : last + 1]
            return np.asarray(values[(wanted - first)[place]])
        return np.asarray(self._variable[wanted])[place]


def read_blocks(
    path: Path, group: str = "", names: Iterable[str] | None = None
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Read blocks written by `BlockWriter`.

    Returns
    -------
    stimuli : array of str, shape (n_stimuli,)
    blocks : dict of array, each (n_stimuli, n_features), float32 (or the stored dtype)
    """
    with _stored_blocks(path, group) as (stimuli, stored):
        blocks = {}
        for name in stored if names is None else names:
            _check_size(stored[name])
            blocks[str(name)] = np.asarray(stored[name][()])
        return stimuli.asstr()[()].astype(str), blocks


@contextmanager
def _stored_blocks(path: Path, group: str) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Open a file of `BlockWriter`: the stimuli, and the blocks by name, as they lie on disk.

    By h5py: xarray looks at every variable first, which takes seven times as long for a set of
    pictures (`tests/benchmarks/bench_read_blocks.py`).
    """
    import h5py

    with whole(path), h5py.File(path, "r") as file:
        home = file[group] if group else file
        stimuli = home["stimulus"]
        _check_size(stimuli)
        blocks = {
            name: item
            for name, item in home.items()
            if isinstance(item, h5py.Dataset) and "shape" in item.attrs
        }
        yield stimuli, blocks


def block_means(path: Path, names: Iterable[str] | None = None) -> dict[str, np.ndarray]:
    """Return the mean over stimuli of every block, (n_features,) each, read some columns at a time."""
    wanted = None if names is None else set(names)
    means = {}
    with open_blocks(path) as blocks:
        for name, block in blocks.items():
            if wanted is not None and name not in wanted:
                continue
            n_columns = block.shape[1]
            pieces = [
                block.columns(slice(start, min(start + N_CHUNK_COLUMNS, n_columns))).mean(axis=0)
                for start in range(0, n_columns, N_CHUNK_COLUMNS)
            ]
            means[name] = np.concatenate(pieces)
    return means


def block_shapes(path: Path, group: str = "") -> dict[str, tuple[int, ...]]:
    """Return the shape of one row of every block in a file of `BlockWriter`."""
    with _stored_blocks(path, group) as (_, blocks):
        return {
            name: tuple(int(size) for size in np.atleast_1d(item.attrs["shape"]))
            for name, item in blocks.items()
        }


def groups_of(path: Path) -> list[str]:
    """Return the names of the groups of a netCDF file, in their order of creation."""
    import h5py

    with whole(path), h5py.File(path, "r") as file:
        return [str(name) for name, item in file.items() if isinstance(item, h5py.Group)]
