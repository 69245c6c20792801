"""Correlation in sliding windows, all windows in a few matrix products."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def windowed_correlation(
    series: NDArray[np.floating], length: int, step: int
) -> NDArray[np.float32]:
    """Correlate units in windows.

    Parameters
    ----------
    series : ndarray, (n_times, n_units)
    length, step : int
        Samples of a window, and from one window to the next.

    Returns
    -------
    ndarray of float32, (n_windows, n_units, n_units)
        A unit that does not change in a window correlates 0 with all, and 1 with itself.
    """
    windows = np.lib.stride_tricks.sliding_window_view(series, length, axis=0)[::step]
    values = windows - windows.mean(-1, keepdims=True, dtype=np.float64)  # (w, n_units, length)
    norm = np.linalg.norm(values, axis=-1, keepdims=True)
    values = np.divide(values, norm, out=np.zeros_like(values), where=norm > 1e-12)
    matrices: NDArray[np.float32] = (values @ values.swapaxes(1, 2)).astype(np.float32)
    units = np.arange(matrices.shape[1])
    matrices[:, units, units] = 1.0
    return matrices
