"""Sliding-window correlation (Hutchison et al. 2013, doi:10.1016/j.neuroimage.2013.05.079).

What differs: neighbouring windows share all but a few samples, so the scatter matrix of a window is
that of the window before, plus and minus one outer product a sample (Welford 1962,
doi:10.1080/00401706.1962.10490022). It is computed anew at the start of every chunk, in double
precision, so rounding cannot add up. Results come chunk by chunk: memory does not grow with the
length of the series. Windows should be no shorter than the longest period that is left in the series
(Leonardi and Van De Ville 2015, doi:10.1016/j.neuroimage.2014.09.007): `high_pass_to_window`.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np

from afterimage.errors import InputError

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
    floor = FLAT * np.square(values).sum(axis=0) / kept.sum()
    # Rolling costs a step's samples, a fresh product the window's.
    n_chunk = n_windows_chunk if 2 * step < width else 1
    plan, roll = _kernels()
    n_units = values.shape[1]
    buffer = np.empty((min(n_chunk, len(starts)), n_edges(n_units)), np.float32)
    borders = np.round(np.sqrt(np.linspace(0, 1, n_threads + 1)) * n_units).astype(int)
    parts = [(max(low, 1), high) for low, high in zip(borders[:-1], borders[1:], strict=True)]
    weights = kept.astype(np.float64)
    with ThreadPoolExecutor(n_threads) as pool:
        for first in range(0, len(starts), n_chunk):
            chunk = slice(first, min(first + n_chunk, len(starts)))
            out = buffer[: chunk.stop - first]
            begin = int(starts[first])
            inside = values[begin : begin + width][kept[begin : begin + width]]
            centred = inside - inside.mean(axis=0) if len(inside) else inside
            scatter = centred.T @ centred
            mean = inside.mean(axis=0) if len(inside) else np.zeros(n_units)
            planned = plan(
                values, weights, begin, width, step, len(out), mean, np.diag(scatter).copy(),
                float(len(inside)), floor, min_kept,
            )  # fmt: skip
            list(pool.map(lambda rows: roll(scatter, *planned, out, *rows, step), parts))  # noqa: B023
            yield chunk, out


@cache
def _kernels() -> tuple[Any, Any]:
    """Compile the loops: what is added and taken away a sample, and the rolling of the rows."""
    import numba

    compiled = numba.njit(nogil=True, fastmath={"contract"}, error_model="numpy")

    @compiled
    def plan(values, weights, begin, width, step, n_windows, mean, scatter, n, floor, min_kept):  # type: ignore[no-untyped-def]
        # Adding x to n samples of mean m adds n/(n+1) (x-m)(x-m)' to the scatter; taking away x
        # of n samples subtracts n/(n-1) (x-m)(x-m)'. Row t * step + k belongs to window t.
        n_units = values.shape[1]
        added = np.zeros((n_windows * step, n_units))
        gone = np.zeros((n_windows * step, n_units))
        inverse = np.empty((n_windows, n_units))
        for t in range(n_windows):
            for k in range(step if t else 0):
                row = t * step + k
                old = begin + (t - 1) * step + k
                if weights[old + width] > 0:
                    factor = np.sqrt(n / (n + 1))
                    for j in range(n_units):
                        difference = values[old + width, j] - mean[j]
                        added[row, j] = factor * difference
                        scatter[j] += added[row, j] ** 2
                        mean[j] += difference / (n + 1)
                    n += 1
                if weights[old] > 0:
                    factor = np.sqrt(n / (n - 1)) if n > 1 else 0.0
                    for j in range(n_units):
                        difference = values[old, j] - mean[j]
                        gone[row, j] = factor * difference
                        scatter[j] -= gone[row, j] ** 2
                        mean[j] -= difference / (n - 1) if n > 1 else mean[j]
                    n -= 1
            for j in range(n_units):
                good = scatter[j] > floor[j] * n and n >= min_kept
                inverse[t, j] = 1 / np.sqrt(scatter[j]) if good else np.nan
        return added, gone, inverse

    @compiled
    def update(row, added, gone, a, g):  # type: ignore[no-untyped-def]
        for j in range(row.size):
            row[j] = row[j] + a * added[j] - g * gone[j]

    @compiled
    def write(row, line, added, gone, inverse, a, g, scale):  # type: ignore[no-untyped-def]
        for j in range(row.size):
            value = row[j] + a * added[j] - g * gone[j]
            row[j] = value
            line[j] = value * (scale * inverse[j])

    @compiled
    def roll(scatter, added, gone, inverse, out, low, high, step):  # type: ignore[no-untyped-def]
        # Eight rows of the scatter at a time stay in the cache over all windows.
        for first in range(low, high, 8):
            for t in range(len(out)):
                last = t * step + step - 1
                for i in range(first, min(first + 8, high)):
                    row, edge = scatter[i, :i], i * (i - 1) // 2
                    for k in range(t * step, last):
                        update(row, added[k, :i], gone[k, :i], added[k, i], gone[k, i])
                    write(
                        row, out[t, edge : edge + i], added[last, :i], gone[last, :i],
                        inverse[t, :i], added[last, i], gone[last, i], inverse[t, i],
                    )  # fmt: skip

    return plan, roll
