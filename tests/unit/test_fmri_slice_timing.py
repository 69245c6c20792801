"""Slice timing: read strictly; shifting a smooth signal gives what it was at the other time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from afterimage.errors import InputError
from afterimage.preprocess.fmri.slice_timing import read_slice_timing, shift_in_time

SHAPE = (8, 9, 4)
TIMES = [0.0, 1.0, 0.5, 1.5]


def signal(times_s: np.ndarray) -> np.ndarray:
    """Two slow waves, well below the Nyquist frequency of a repetition time of 2 s."""
    return 100 + 5 * np.sin(2 * np.pi * 0.05 * times_s) + 2 * np.cos(2 * np.pi * 0.12 * times_s)


@pytest.mark.parametrize("shift_s", [-0.99, -0.3, 0.25, 0.5, 1.0, 1.9])
def test_shift_matches_the_signal_at_the_other_time(shift_s: float) -> None:
    times_s = 2.0 * np.arange(120)
    series = np.column_stack([signal(times_s), signal(times_s + 7)])
    found = shift_in_time(series, shift_s, 2.0)
    expected = np.column_stack([signal(times_s + shift_s), signal(times_s + 7 + shift_s)])
    assert found.dtype == np.float32
    assert np.abs(found - expected)[4:-4].max() < 0.05  # of waves of 7


def test_shift_by_whole_repetition_times_and_by_nothing() -> None:
    series = np.random.default_rng(0).normal(size=(30, 3)) + 500
    np.testing.assert_array_equal(shift_in_time(series, 0.0, 2.0), series.astype(np.float32))
    moved = shift_in_time(series, 2.0, 2.0)
    np.testing.assert_allclose(moved[:-4], series[1:-3], atol=1e-3)
    np.testing.assert_allclose(shift_in_time(np.full((20, 2), 7.0), 0.7, 2.0), 7.0, rtol=1e-6)


def test_a_spike_stays_where_it_is() -> None:
    series = np.zeros((60, 1))
    series[30] = 1.0
    found = shift_in_time(series, 0.6, 2.0)[:, 0]
    assert np.argmax(found) == 30
    assert np.abs(np.delete(found, np.arange(25, 36))).max() < 0.01


def test_timing_is_read() -> None:
    timing = read_slice_timing({"SliceTiming": TIMES}, SHAPE, 2.0, "run")
    assert timing is not None
    assert (timing.axis, timing.reference_s, timing.needed) == (2, 0.75, True)
    np.testing.assert_array_equal(timing.times_s, TIMES)
    back = read_slice_timing(
        {"SliceTiming": TIMES, "SliceEncodingDirection": "k-"}, SHAPE, 2.0, "run"
    )
    assert back is not None
    np.testing.assert_array_equal(back.times_s, TIMES[::-1])
    along = {"SliceTiming": [0.2] * 8, "SliceEncodingDirection": "i"}
    same = read_slice_timing(along, SHAPE, 2.0, "run")
    assert same is not None
    assert (same.axis, same.needed) == (0, False)
    assert read_slice_timing({}, SHAPE, 2.0, "run") is None


@pytest.mark.parametrize(
    ("sidecar", "message"),
    [
        ({"SliceTiming": TIMES[:3]}, "wrong length"),
        ({"SliceTiming": TIMES, "SliceEncodingDirection": "j"}, "wrong length"),
        ({"SliceTiming": [0, 500, 1000, 1500]}, "does not fit the repetition time"),
        ({"SliceTiming": [0, 0.5, -0.1, 1]}, "does not fit the repetition time"),
        ({"SliceTiming": TIMES, "SliceEncodingDirection": "z"}, "direction of slices"),
    ],
)
def test_impossible_timing_is_refused(sidecar: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        read_slice_timing(sidecar, SHAPE, 2.0, "sub-01, bold.nii.gz")
    assert caught.value.where == "sub-01, bold.nii.gz"
