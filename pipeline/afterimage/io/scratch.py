"""A matrix on disk for one run of a stage: written by rows, read by columns, larger than memory."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from afterimage.io.atomic import require_space

#: Rows of one chunk; blocks of rows should be a multiple of it.
ROWS_PER_CHUNK = 64
COLUMNS_PER_CHUNK = 4096


class Scratch:
    """A float32 matrix in a temporary file; made by `open_scratch`.

    Its chunks are short in both directions, so that rows and columns cost about the same.
    """

    def __init__(self, path: Path, shape: tuple[int, int]) -> None:
        import h5py

        self._file = h5py.File(path, "w")
        chunks = (min(ROWS_PER_CHUNK, shape[0]), min(COLUMNS_PER_CHUNK, shape[1]))
        self._data = self._file.create_dataset("values", shape, "float32", chunks=chunks)

    def write(self, values: np.ndarray, *, row: int = 0, column: int = 0) -> None:
        """Write a block of shape (n_rows, n_columns) at ``row`` and ``column``."""
        n_rows, n_columns = values.shape
        self._data[row : row + n_rows, column : column + n_columns] = values

    def read(self, rows: slice = slice(None), columns: slice = slice(None)) -> np.ndarray:
        """Read a block, (n_rows, n_columns) float32."""
        return np.asarray(self._data[rows, columns])

    def close(self) -> None:
        """Close the file."""
        self._file.close()


@contextmanager
def open_scratch(folder: Path, shape: tuple[int, int]) -> Iterator[Scratch]:
    """Open a matrix of ``shape`` in a file below ``folder`` that is removed in the end.

    Parameters
    ----------
    folder : Path
        Beside the output rather than the folder for temporary files: that one is often small, or
        held in memory.
    shape : tuple of int
        (n_rows, n_columns).
    """
    folder.mkdir(parents=True, exist_ok=True)
    require_space(folder, 4 * shape[0] * shape[1])
    with tempfile.TemporaryDirectory(dir=folder, prefix=".scratch-") as name:
        scratch = Scratch(Path(name) / "values.h5", shape)
        try:
            yield scratch
        finally:
            scratch.close()
