"""Sliding windows against numpy.corrcoef, with censoring, steps, chunks and threads."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from afterimage.errors import InputError
from afterimage.signal.windows import (
    high_pass_to_window,
    kept_in_windows,
    n_edges,
    sliding_correlations,
    window_starts,
)


def series(n_times: int = 150, n_units: int = 13) -> np.ndarray:
    rng = np.random.default_rng(0)
    mixed = rng.standard_normal((n_times, 3)) @ rng.standard_normal((3, n_units))
    return mixed + rng.standard_normal((n_times, n_units))


def collected(values: np.ndarray, width: int, step: int = 1, **settings) -> np.ndarray:
    found = [part.copy() for _, part in sliding_correlations(values, width, step, **settings)]
    return np.concatenate(found)


@pytest.mark.parametrize(
    ("width", "step", "chunk", "threads"),
    [
        (30, 1, 64, 1),
        (30, 1, 7, 2),
        (25, 4, 9, 1),
        (20, 15, 4, 1),
        (150, 1, 4, 3),
        (8, 3, 5, 1),
        (10, 17, None, 1),
    ],
)
def test_equals_corrcoef(width: int, step: int, chunk: int | None, threads: int) -> None:
    values = 450 + 3 * series()
    found = collected(values, width, step, n_windows_chunk=chunk, n_threads=threads)
    starts = window_starts(len(values), width, step)
    lower = np.tril_indices(13, -1)
    expected = [np.corrcoef(values[s : s + width], rowvar=False)[lower] for s in starts]
    assert found.shape == (len(starts), n_edges(13))
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("step", [1, 3, 20])
def test_censored_samples_take_no_part(step: int) -> None:
    values, kept = series(), np.random.default_rng(1).random(150) > 0.3
    kept[60:75] = False
    values[~kept] = np.nan
    found = collected(values, 24, step, kept=kept, min_kept=12, n_windows_chunk=10)
    lower = np.tril_indices(13, -1)
    inside = kept_in_windows(kept, 24, step)
    assert (inside < 12).any()
    for row, start in enumerate(window_starts(150, 24, step)):
        part = values[start : start + 24][kept[start : start + 24]]
        if inside[row] < 12:
            assert np.isnan(found[row]).all()
        else:
            np.testing.assert_allclose(
                found[row], np.corrcoef(part, rowvar=False)[lower], atol=1e-6
            )


def test_a_wholly_censored_window_is_nan_and_the_next_ones_recover() -> None:
    values, kept = series(), np.ones(150, bool)
    kept[50:90] = False
    found = collected(values, 30, kept=kept, min_kept=10, n_windows_chunk=200)
    assert np.isnan(found[55]).all()
    expected = np.corrcoef(values[100:130], rowvar=False)[np.tril_indices(13, -1)]
    np.testing.assert_allclose(found[100], expected, atol=1e-6)


def test_loud_samples_leave_no_trace_behind() -> None:
    values = series()
    values[40:43] *= 1e4
    found = collected(values, 30, n_windows_chunk=200)
    expected = np.corrcoef(values[80:110], rowvar=False)[np.tril_indices(13, -1)]
    np.testing.assert_allclose(found[80], expected, atol=1e-6)


def test_a_drift_far_larger_than_what_varies_in_a_window_costs_no_digits() -> None:
    values = series() + 300 * np.linspace(-1, 1, 150)[:, None] ** 3
    values[75:] += 1000
    found = collected(values, 30)
    lower = np.tril_indices(13, -1)
    for row in (0, 40, 60, 100, 120):
        expected = np.corrcoef(values[row : row + 30], rowvar=False)[lower]
        np.testing.assert_allclose(found[row], expected, atol=1e-6)


def test_a_unit_that_is_constant_in_a_window_is_nan_there_only() -> None:
    values = series()
    values[20:80, 4] = 7.0
    found = collected(values, 30)
    edges = np.array([4 in pair for pair in zip(*np.tril_indices(13, -1), strict=True)])
    assert np.isnan(found[30, edges]).all()
    assert np.isfinite(found[30, ~edges]).all()
    assert np.isfinite(found[100]).all()


def test_memory_is_that_of_a_chunk() -> None:
    values = series(600, 80)
    collected(values[:60], 30)  # compiled
    tracemalloc.start()
    for _ in sliding_correlations(values, 30, n_windows_chunk=8):
        pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 600 * n_edges(80) * 4 / 3


@pytest.mark.parametrize(
    ("values", "width", "kept", "message"),
    [
        (series(20), 30, None, "windows do not fit"),
        (series(), 2, None, "windows do not fit"),
        (np.full((50, 3), np.nan), 20, None, "not finite"),
        (series(50), 20, np.zeros(50, bool), "censored"),
    ],
)
def test_bad_series_are_refused(
    values: np.ndarray, width: int, kept: np.ndarray | None, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        next(sliding_correlations(values, width, kept=kept))


def test_high_pass_takes_out_what_is_slower_than_a_window_and_leaves_the_rest() -> None:
    times = np.arange(400)
    slow = np.sin(2 * np.pi * times / 200)[:, None]
    fast = np.sin(2 * np.pi * times / 12)[:, None]
    kept = np.ones(400, bool)
    kept[100:140] = False
    spoilt = slow + fast + 5
    spoilt[100:140] += 1e3
    cleaned = high_pass_to_window(spoilt, 60, kept)
    assert np.abs(cleaned[kept] - fast[kept]).std() < 0.1
    assert np.abs(high_pass_to_window(fast, 60) - fast)[40:-40].max() < 0.05
    with pytest.raises(InputError, match="too few samples"):
        high_pass_to_window(spoilt, 5, np.arange(400) < 40)
