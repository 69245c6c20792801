"""Tiles give what one call gives; matrices as large as NSD's and THINGS' end, with two threads."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from afterimage.signal import large_matrices
from afterimage.signal.large_matrices import add_row_products, cholesky_in_place, row_products

CODE = """
import numpy as np
from afterimage.signal.large_matrices import cholesky_in_place, row_products

n = 16_540  # training pictures of THINGS-EEG2; one call of NumPy or SciPy dies from about 15,500 on
rows = np.random.default_rng(0).standard_normal((n, 2048), dtype=np.float32)
some = np.array([0, 1, 4095, 4096, 9000, n - 1])
found = row_products(rows)
np.testing.assert_allclose(found[np.ix_(some, some)], rows[some] @ rows[some].T.copy(), atol=1e-2)
matrix = found.astype(float)
del found
matrix[np.diag_indices(n)] += n
asked = matrix[np.ix_(some, some)]
lower = cholesky_in_place(matrix)
np.testing.assert_allclose(lower[some] @ lower[some].T.copy(), asked, rtol=1e-9)
print("whole")
"""


@pytest.fixture
def tiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(large_matrices, "N_LARGE", 20)
    monkeypatch.setattr(large_matrices, "N_TILE", 8)


@pytest.mark.parametrize("n", [20, 21, 24, 45])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_products_in_tiles(tiled: None, n: int, dtype: type) -> None:
    rows = np.random.default_rng(n).standard_normal((n, 5)).astype(dtype)
    expected = rows.astype(np.float64) @ rows.astype(np.float64).T
    tolerance = 1e-5 if dtype is np.float32 else 1e-12
    found = row_products(rows)
    assert found.dtype == dtype
    np.testing.assert_allclose(found, expected, atol=tolerance)
    np.testing.assert_array_equal(found, found.T)
    add_row_products(found, rows)
    np.testing.assert_allclose(found, 2 * expected, atol=2 * tolerance)


@pytest.mark.parametrize("n", [20, 21, 24, 45])
@pytest.mark.parametrize("order", ["C", "F"])
def test_cholesky_in_tiles(tiled: None, n: int, order: str) -> None:
    rows = np.random.default_rng(n).standard_normal((n, 5))
    matrix = np.asarray(rows @ rows.T + np.eye(n), order=order)
    expected = np.linalg.cholesky(matrix)
    found = cholesky_in_place(matrix)
    np.testing.assert_allclose(found, expected, atol=1e-12)
    assert found.flags.f_contiguous and np.shares_memory(found, matrix)


def test_a_matrix_that_has_no_factor(tiled: None) -> None:
    matrix = np.eye(30)
    matrix[25, 25] = -1
    with pytest.raises(np.linalg.LinAlgError):
        cholesky_in_place(matrix)


@pytest.mark.slow
def test_sizes_of_the_field_with_two_threads() -> None:
    threads = {"OMP_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "2"}
    done = subprocess.run(
        [sys.executable, "-c", CODE], capture_output=True, text=True, env={**os.environ, **threads}
    )
    assert (done.returncode, done.stdout) == (0, "whole\n"), done.stderr
