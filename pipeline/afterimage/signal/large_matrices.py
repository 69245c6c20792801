"""Products and Cholesky factors of large matrices, in tiles.

OpenBLAS, which the wheels of NumPy and SciPy bring, writes past its buffers in the symmetric product
(``A @ A.T``) and in what is made of it (Cholesky) when several threads share a matrix of more than
some 15,000 rows, and the process dies (numpy/numpy#19685; seen with OpenBLAS 0.3.31, two threads and
15,724 rows). That is the size of NSD's voxels and of THINGS-EEG2's pictures. Tiles are below it, and
of a symmetric product only half are computed. Smaller matrices go to the library in one piece.
"""

from __future__ import annotations

import numpy as np

#: Rows of a tile, and rows from which on there are tiles.
N_TILE, N_LARGE = 4096, 8192


def row_products(rows: np.ndarray) -> np.ndarray:
    """Products of all rows with each other, ``rows @ rows.T``: (n, m) to (n, n), of the same dtype."""
    n = len(rows)
    if n <= N_LARGE:
        return np.asarray(rows @ rows.T)
    found = np.zeros((n, n), rows.dtype)
    add_row_products(found, rows)
    return found


def add_row_products(total: np.ndarray, rows: np.ndarray) -> None:
    """Add ``rows @ rows.T`` to ``total``, (n, n), in place."""
    n = len(rows)
    if n <= N_LARGE:
        total += rows @ rows.T
        return
    for top in range(0, n, N_TILE):
        upper = slice(top, top + N_TILE)
        for left in range(0, top + 1, N_TILE):
            lower = slice(left, left + N_TILE)
            tile = rows[upper] @ rows[lower].T
            total[upper, lower] += tile
            if left < top:
                total[lower, upper] += tile.T


def cholesky_in_place(matrix: np.ndarray) -> np.ndarray:
    """Lower Cholesky factor of a symmetric matrix, with zeros above it: (n, n), float64.

    Tile by tile (Golub & Van Loan 2013, section 4.2.9), in the memory of ``matrix``, column after
    column as LAPACK wants it.

    Raises
    ------
    numpy.linalg.LinAlgError
        If the matrix is not positive definite.
    """
    from scipy.linalg import cholesky, solve_triangular

    n = len(matrix)
    matrix = matrix.T if matrix.flags.c_contiguous else matrix  # the same, as it is symmetric
    if n <= N_LARGE:
        return np.asarray(cholesky(matrix, lower=True, overwrite_a=True, check_finite=False))
    for top in range(0, n, N_TILE):
        end = min(top + N_TILE, n)
        own = cholesky(matrix[top:end, top:end], lower=True, check_finite=False)
        matrix[top:end, top:end] = own
        matrix[top:end, end:] = 0
        for start in range(end, n, N_TILE):
            rows = slice(start, start + N_TILE)
            below = solve_triangular(own, matrix[rows, top:end].T, lower=True, check_finite=False)
            matrix[rows, top:end] = below.T
            for left in range(end, start + 1, N_TILE):
                other = matrix[left : left + N_TILE, top:end]
                matrix[rows, left : left + N_TILE] -= below.T @ other.T
    return matrix
