"""Correlation matrices of many recordings at the speed of the matrix product.

Series are scaled to columns of mean 0 and length 1 in blocks that fit the cache, then one product
a recording, X' X, gives all correlations. The values are float32; means are taken in float64, so
that a large baseline costs no digits.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np


def unit_columns(series: np.ndarray) -> np.ndarray:
    """Return the columns of a series with mean 0 and length 1, float32.

    Parameters
    ----------
    series : array of shape (n_times, n_units)

    Returns
    -------
    array of shape (n_times, n_units), float32
        A column that does not vary is 0.
    """
    values = np.asarray(series)
    mean = values.mean(axis=0, dtype=np.float64)
    centred = np.subtract(values, mean, dtype=np.result_type(values.dtype, np.float32))
    centred = centred.astype(np.float32, copy=False)
    # What rounding leaves of a constant column is no signal.
    floor = 1e-6 * np.abs(mean) * np.sqrt(len(values))
    length = np.sqrt(np.einsum("tu,tu->u", centred, centred))
    scale = np.where(length > np.maximum(floor, 1e-30), 1 / np.maximum(length, 1e-30), 0.0)
    centred *= scale.astype(np.float32)
    return centred


def correlation_matrix(series: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """Return the Pearson correlations of the units of one recording.

    Parameters
    ----------
    series : array of shape (n_times, n_units)
    out : array of shape (n_units, n_units), float32, optional
        Where to write them.

    Returns
    -------
    array of shape (n_units, n_units), float32
        Symmetric, the diagonal 1, values in -1..1; 0 for units that do not vary.
    """
    scaled = unit_columns(series)
    matrix = np.dot(scaled.T, scaled, out=out)  # one triangle is computed, the other copied
    np.clip(matrix, -1.0, 1.0, out=matrix)
    np.fill_diagonal(matrix, 1.0)
    return matrix


def correlation_matrices(
    series: Sequence[np.ndarray] | np.ndarray | Iterable[np.ndarray], n_recordings: int
) -> np.ndarray:
    """Return the correlation matrices of many recordings.

    Parameters
    ----------
    series : iterable of array of shape (n_times, n_units)
        One a recording; read one by one, so that a generator holds one in memory at a time.
    n_recordings : int
        How many there are.

    Returns
    -------
    array of shape (n_recordings, n_units, n_units), float32
    """
    result = np.empty((0, 0, 0), dtype=np.float32)
    for index, values in enumerate(series):
        if index == 0:
            n_units = values.shape[1]
            result = np.empty((n_recordings, n_units, n_units), dtype=np.float32)
        correlation_matrix(values, out=result[index])
    return result
