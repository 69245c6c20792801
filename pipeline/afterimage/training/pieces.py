"""Tables too large for memory, worked on some rows or columns at a time."""

from __future__ import annotations

from collections.abc import Iterator

#: Of double-precision values that are worked on together.
PIECE_BYTES = 1 << 27


def pieces(
    n_rows: int, n_columns: int, step: int = 64, n_bytes: int | None = None
) -> Iterator[slice]:
    """Cut rows into pieces of about so many bytes; a table that is smaller is one piece.

    Parameters
    ----------
    n_rows, n_columns : int
        Of the table; the other way round to cut columns.
    step : int
        Pieces are a multiple of so many rows: files are cut so, too.
    n_bytes : int, optional
        Default: `PIECE_BYTES`.
    """
    n_bytes = PIECE_BYTES if n_bytes is None else n_bytes
    n_each = max(1, n_bytes // (8 * step * max(1, n_columns))) * step
    for start in range(0, n_rows, n_each):
        yield slice(start, min(start + n_each, n_rows))
