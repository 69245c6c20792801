"""Sliding-window correlation (Hutchison et al. 2013, doi:10.1016/j.neuroimage.2013.05.079).

What differs: neighbouring windows share all but a few samples, so the sums of products of a window
are those of the window before, plus what comes in, minus what goes out. Series have mean 0 and
variance 1 and sums are double precision, so rounding stays far below 1e-6 and nothing has to start
anew. Results come chunk by chunk: memory does not grow with the length of the series. Windows
should be no shorter than the longest period that is left in the series (Leonardi and Van De Ville
2015, doi:10.1016/j.neuroimage.2014.09.007): `high_pass_to_window`.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np

from afterimage.errors import InputError

#: A unit whose variance in a window is below this share of its variance overall is constant there.
FLAT = 1e-8
#: Bytes of a chunk where the caller does not say how many windows: about what caches hold.
CHUNK_BYTES = 2**22
#: Rows of pairs that are rolled together.
ROWS = 4


def window_starts(n_times: int, width: int, step: int = 1) -> np.ndarray:
    """Return the first sample of every whole window, (n_windows,) int.

    Raises
    ------
    InputError
        If the series holds no whole window, or a window fewer than three samples.
    """
    if not 3 <= width <= n_times or step < 1:
        raise InputError(
            "windows do not fit the series", found=f"{width} samples every {step}",
            expected=f"3 to {n_times} samples, a step of at least 1",
            fix="use shorter windows, or leave this recording out",
        )  # fmt: skip
    return np.arange(0, n_times - width + 1, step)


def kept_in_windows(kept: np.ndarray, width: int, step: int = 1) -> np.ndarray:
    """Return the number of samples of every window that are not censored, (n_windows,) int."""
    total = np.concatenate([[0], np.cumsum(kept)])
    starts = window_starts(len(kept), width, step)
    result: np.ndarray = total[starts + width] - total[starts]
    return result


def high_pass_to_window(
    series: np.ndarray, width: int, kept: np.ndarray | None = None
) -> np.ndarray:
    """Take out what is slower than one period a window, by least squares on cosines.

    Parameters
    ----------
    series : array of shape (n_times, n_units)
    width : int
        Samples of a window; cosines of less than 1 / width cycles a sample are removed.
    kept : array of bool, shape (n_times,), optional
        Samples the cosines are fitted to; they are subtracted everywhere.

    Returns
    -------
    array of shape (n_times, n_units), float64
    """
    n_times = len(series)
    kept = np.ones(n_times, bool) if kept is None else kept
    # Cosine k has k / 2n cycles a sample; the constant is among them.
    orders = np.arange(int(np.ceil(2 * n_times / width)))
    cosines = np.cos(np.pi * np.outer(np.arange(n_times) + 0.5, orders) / n_times)
    values = np.asarray(series, dtype=np.float64)
    if kept.sum() <= len(orders):
        raise InputError(
            "too few samples for a high-pass matched to the window",
            found=f"{int(kept.sum())} samples, {len(orders)} cosines", expected="more samples",
            fix="use longer windows, or leave this recording out",
        )  # fmt: skip
    coefficients = np.linalg.lstsq(cosines[kept], values[kept], rcond=None)[0]
    result: np.ndarray = values - cosines @ coefficients
    return result


def n_edges(n_units: int) -> int:
    """Return the number of pairs of units."""
    return n_units * (n_units - 1) // 2


def sliding_correlations(
    series: np.ndarray,
    width: int,
    step: int = 1,
    *,
    kept: np.ndarray | None = None,
    min_kept: int = 3,
    n_windows_chunk: int | None = None,
    n_threads: int = 1,
) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield the correlations of all pairs of units in all windows, chunk by chunk.

    With S the sum of x_i x_j over the n samples of a window that are kept, and m their means,
    r_ij = (S - n m_i m_j) / (s_i s_j), where s is the root of the same for i = j.

    Parameters
    ----------
    series : array of shape (n_times, n_units)
    width, step : int
        Samples of a window, and between the starts of two windows.
    kept : array of bool, shape (n_times,), optional
        False: the sample takes part in no window.
    min_kept : int
        Windows with fewer samples than this are NaN.
    n_windows_chunk : int, optional
        Windows in memory at once; by default as many as stay in the cache.
    n_threads : int

    Yields
    ------
    windows : slice
        Which windows these are.
    correlations : array of shape (n, n_edges), float32
        Pairs in the order of ``np.tril_indices(n_units, -1)``; NaN where a unit does not vary in a
        window. The memory is used again for the next chunk: copy what you keep.
    """
    values = np.array(series, dtype=np.float64)
    kept = np.ones(len(values), bool) if kept is None else np.asarray(kept, dtype=bool)
    n = kept_in_windows(kept, width, step)[:, None]  # (n_windows, 1)
    if not kept.any():
        raise InputError("all samples of a series are censored", fix="leave this recording out")
    values[~kept] = 0.0  # they add nothing to any sum
    if not np.isfinite(values).all():
        raise InputError(
            "a series holds values that are not finite",
            found=f"{int((~np.isfinite(values)).sum())} values", expected="finite numbers",
            fix="censor these samples or leave out these units",
        )  # fmt: skip
    values -= values.sum(axis=0) / kept.sum()
    values[~kept] = 0.0
    spread = np.sqrt(np.einsum("tu,tu->u", values, values) / kept.sum())
    values /= np.where(spread > 0, spread, 1.0)
    roll_units, roll_pairs = _kernels()
    centre, scatter = roll_units(values, width, step)  # (n_windows, n_units)
    centre /= np.sqrt(np.maximum(n, 1))
    scatter -= centre * centre
    scatter[(scatter <= FLAT * n) | (n < min_kept)] = np.nan
    inverse = 1 / np.sqrt(scatter)
    centre *= inverse

    n_units = values.shape[1]
    n_chunk = n_windows_chunk or max(1, CHUNK_BYTES // (4 * max(1, n_edges(n_units))))
    buffer = np.empty((min(n_chunk, len(n)), n_edges(n_units)), np.float32)
    sums = np.zeros(n_edges(n_units))
    borders = np.round(np.sqrt(np.linspace(0, 1, n_threads + 1)) * n_units).astype(int)
    with ThreadPoolExecutor(n_threads) as pool:
        for first in range(0, len(n), n_chunk):
            out = buffer[: len(n) - first]
            given: tuple[Any, ...] = (values, sums, centre, inverse, out, first, width, step)
            jobs = [pool.submit(roll_pairs, *given, *rows) for rows in pairwise(borders)]
            for job in jobs:
                job.result()
            yield slice(first, first + len(out)), out


@cache
def _kernels() -> tuple[Any, Any]:
    """Compile the loops over windows: sums of each unit, and correlations of all pairs."""
    import numba

    compiled = numba.njit(nogil=True, fastmath={"contract"}, error_model="numpy")
    index = np.uint64  # with signed indices, which may count from the end, loops stay scalar

    @compiled
    def roll_units(values, width, step):  # type: ignore[no-untyped-def]
        # Sums of x and of its square in every window.
        n_times, n_units = values.shape
        totals = np.empty(((n_times - width) // step + 1, n_units))
        squares = np.empty_like(totals)
        total, square = np.zeros(n_units), np.zeros(n_units)
        for new in range(n_times):
            for j in range(n_units):
                x, gone = values[new, j], values[new - width, j] if new >= width else 0.0
                total[j] += x - gone
                square[j] += x * x - gone * gone
            start = new - width + 1
            if start >= 0 and start % step == 0:
                totals[start // step], squares[start // step] = total, square
        return totals, squares

    @compiled
    def roll_pairs(values, sums, centre, inverse, out, first, width, step, low, high):  # type: ignore[no-untyped-def]
        # A few rows stay in the nearest cache over all windows of the chunk, and share what comes
        # in and goes out.
        for top in range(low, high, ROWS):
            for t in range(index(len(out))):
                window = index(first) + t
                # The first window starts from nothing: all its samples are new.
                n_new = index(min(width, step) if window else width)
                new = window * index(step) + index(width) - n_new
                old = (window - index(1)) * index(step) if window else index(0)
                for row in range(top, min(top + ROWS, high)):
                    i, edge = index(row), index(row * (row - 1) // 2)
                    for k in range(n_new):
                        a, b = values[new + k, i], values[old + k, i] if window else 0.0
                        for j in range(i):
                            sums[edge + j] = (
                                sums[edge + j] + a * values[new + k, j] - b * values[old + k, j]
                            )
                    scale, own = inverse[window, i], centre[window, i]
                    for j in range(i):
                        out[t, edge + j] = (
                            sums[edge + j] * (scale * inverse[window, j]) - own * centre[window, j]
                        )

    return roll_units, roll_pairs
