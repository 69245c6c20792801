"""Sliding-window correlation (Hutchison et al. 2013, doi:10.1016/j.neuroimage.2013.05.079).

What differs: neighbouring windows share all but a few samples, so the scatter matrix of a window is
that of the window before, plus and minus one outer product a sample (Welford 1962,
doi:10.1080/00401706.1962.10490022). A chunk starts from a matrix computed anew in double precision;
what has changed since then is kept apart in single precision, and a chunk ends early where a unit
has become much quieter, so rounding stays below 1e-6. Results come chunk by chunk: memory does not
grow with the length of the series. Windows should be no shorter than the longest period that is
left in the series (Leonardi and Van De Ville 2015, doi:10.1016/j.neuroimage.2014.09.007):
`high_pass_to_window`.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np

from afterimage.errors import InputError

#: A chunk ends where the variance of a unit falls below its peak in the chunk divided by this.
MAX_FALL = 4.0
#: Columns of the scatter matrix that are worked on at a time, for the cache.
TILE = 1024
#: A unit whose variance in a window is below this share of its variance overall is constant there.
FLAT = 1e-9


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
    n_windows_chunk: int = 64,
    n_threads: int = 1,
) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield the correlations of all pairs of units in all windows, chunk by chunk.

    Parameters
    ----------
    series : array of shape (n_times, n_units)
    width, step : int
        Samples of a window, and between the starts of two windows.
    kept : array of bool, shape (n_times,), optional
        False: the sample takes part in no window.
    min_kept : int
        Windows with fewer samples than this are NaN.
    n_windows_chunk : int
        Windows in memory at once.
    n_threads : int

    Yields
    ------
    windows : slice
        Which windows these are.
    correlations : array of shape (n, n_edges), float32
        Pairs in the order of ``np.tril_indices(n_units, -1)``; NaN where a unit does not vary in a
        window. The memory is used again for the next chunk: copy what you keep.
    """
    values = np.asarray(series, dtype=np.float64)
    kept = np.ones(len(values), bool) if kept is None else np.asarray(kept, dtype=bool)
    starts = window_starts(len(values), width, step)
    if not np.isfinite(values[kept]).all():
        raise InputError(
            "a series holds values that are not finite",
            found=f"{int((~np.isfinite(values[kept])).sum())} values", expected="finite numbers",
            fix="censor these samples or leave out these units",
        )  # fmt: skip
    if not kept.any():
        raise InputError("all samples of a series are censored", fix="leave this recording out")
    values = np.where(kept[:, None], values - values[kept].mean(axis=0), 0.0)
    spread = np.sqrt(np.square(values).sum(axis=0) / kept.sum())
    values /= np.where(spread > 0, spread, 1.0)
    # Rolling costs a step's samples, a fresh product the window's.
    n_chunk = n_windows_chunk if 2 * step < width else 1
    plan, roll = _kernels()
    n_units = values.shape[1]
    buffer = np.empty((min(n_chunk, len(starts)), n_edges(n_units)), np.float32)
    borders = np.round(np.sqrt(np.linspace(0, 1, n_threads + 1)) * n_units).astype(int)
    parts = [(max(low, 1), high) for low, high in pairwise(borders)]
    weights, first = kept.astype(np.float64), 0
    with ThreadPoolExecutor(n_threads) as pool:
        while first < len(starts):
            begin = int(starts[first])
            inside = values[begin : begin + width][kept[begin : begin + width]]
            mean = inside.mean(axis=0) if len(inside) else np.zeros(n_units)
            scatter = (inside - mean).T @ (inside - mean)
            added, gone, inverse, n = plan(
                values, weights, begin, width, step, min(n_chunk, len(starts) - first), mean,
                np.diag(scatter).copy(), float(len(inside)), min_kept,
            )  # fmt: skip
            anchor, out = scatter.astype(np.float32), buffer[:n]
            jobs = [
                pool.submit(roll, anchor, added, gone, inverse, out, low, high, step)
                for low, high in parts
            ]
            for job in jobs:
                job.result()
            yield slice(first, first + n), out
            first += n


@cache
def _kernels() -> tuple[Any, Any]:
    """Compile the loops: what is added and taken away a sample, and the rolling of the rows."""
    import numba

    compiled = numba.njit(nogil=True, fastmath={"contract"}, error_model="numpy")

    @compiled
    def plan(values, weights, begin, width, step, n_windows, mean, scatter, n, min_kept):  # type: ignore[no-untyped-def]
        # Adding x to n samples of mean m adds n/(n+1) (x-m)(x-m)' to the scatter; taking away x
        # of n samples subtracts n/(n-1) (x-m)(x-m)'. Row t * step + k belongs to window t.
        n_units = values.shape[1]
        added = np.zeros((n_windows * step, n_units), np.float32)
        gone = np.zeros((n_windows * step, n_units), np.float32)
        inverse = np.empty((n_windows, n_units), np.float32)
        peak = scatter.copy()
        for t in range(n_windows):
            for k in range(step if t else 0):
                row, old = t * step + k, begin + (t - 1) * step + k
                if weights[old + width] > 0:
                    factor = np.sqrt(n / (n + 1))
                    for j in range(n_units):
                        difference = values[old + width, j] - mean[j]
                        added[row, j] = factor * difference
                        scatter[j] += (factor * difference) ** 2
                        peak[j] = max(peak[j], scatter[j])
                        mean[j] += difference / (n + 1)
                    n += 1
                if weights[old] > 0:
                    factor = np.sqrt(n / (n - 1)) if n > 1 else 0.0
                    for j in range(n_units):
                        difference = values[old, j] - mean[j]
                        gone[row, j] = factor * difference
                        scatter[j] -= (factor * difference) ** 2
                        mean[j] -= difference / (n - 1) if n > 1 else mean[j]
                    n -= 1
            for j in range(n_units):
                good = scatter[j] > FLAT * n and n >= min_kept
                if good and t and peak[j] > MAX_FALL * scatter[j]:
                    return added[: t * step], gone[: t * step], inverse[:t], t
                inverse[t, j] = 1 / np.sqrt(scatter[j]) if good else np.nan
        return added, gone, inverse, n_windows

    @compiled
    def update(state, added, gone, a, g):  # type: ignore[no-untyped-def]
        for j in range(added.size):
            state[TILE + j] = state[TILE + j] + a * added[j] - g * gone[j]

    @compiled
    def write(state, line, added, gone, inverse, a, g, scale):  # type: ignore[no-untyped-def]
        # The state is the anchor, then what has changed since: one array, whose parts the
        # compiler can tell apart.
        for j in range(line.size):
            changed = state[TILE + j] + a * added[j] - g * gone[j]
            state[TILE + j] = changed
            line[j] = (state[j] + changed) * (scale * inverse[j])

    @compiled
    def roll(anchor, added, gone, inverse, out, low, high, step):  # type: ignore[no-untyped-def]
        # Eight rows at a time stay in the cache over all windows of the chunk.
        states = np.empty((8, 2 * TILE), np.float32)
        for left in range(0, high, TILE):
            for first in range(max(low, left + 1), high, 8):
                last = min(first + 8, high)
                for i in range(first, last):
                    right = min(i, left + TILE)
                    states[i - first, : right - left] = anchor[i, left:right]
                    states[i - first, TILE:] = 0
                for t in range(len(out)):
                    final = t * step + step - 1
                    for i in range(first, last):
                        right, edge = min(i, left + TILE), i * (i - 1) // 2
                        state = states[i - first]
                        for k in range(t * step, final):
                            update(
                                state, added[k, left:right], gone[k, left:right],
                                added[k, i], gone[k, i],
                            )  # fmt: skip
                        write(
                            state, out[t, edge + left : edge + right], added[final, left:right],
                            gone[final, left:right], inverse[t, left:right], added[final, i],
                            gone[final, i], inverse[t, i],
                        )  # fmt: skip

    return plan, roll


def windowed_correlation(series: np.ndarray, length: int, step: int) -> np.ndarray:
    """Correlate units in windows, all windows in memory at once: for the few of a training batch.

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
    matrices: np.ndarray = (values @ values.swapaxes(1, 2)).astype(np.float32)
    units = np.arange(matrices.shape[1])
    matrices[:, units, units] = 1.0
    return matrices
