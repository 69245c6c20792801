"""Slice-timing effects and their correction (Sladky 2011, doi:10.1016/j.neuroimage.2011.06.078).

Each slice is shifted in time to the middle of the acquisition of its volume. What differs: the
interpolator is a B-spline of order five instead of a Fourier shift, so that a spike stays where it
is and the ends of the run do not wrap around.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from afterimage.errors import InputError

#: Order of the interpolating B-spline.
ORDER = 5
_AXES = {"i": 0, "j": 1, "k": 2}


@dataclass(frozen=True)
class SliceTiming:
    """When the slices of a volume were acquired.

    Attributes
    ----------
    axis : int
        Axis of the image along which the slices lie.
    times_s : array of shape (n_slices,)
        Acquisition of each slice from the start of its volume, in the order of the axis.
    reference_s : float
        The time all slices are brought to: midway between the first and the last.
    """

    axis: int
    times_s: np.ndarray
    reference_s: float

    @property
    def needed(self) -> bool:
        """Whether any slice has to be shifted by more than a millisecond."""
        return bool(np.abs(self.times_s - self.reference_s).max() > 1e-3)


def read_slice_timing(
    sidecar: Mapping[str, Any], shape: Sequence[int], t_r_s: float, where: str
) -> SliceTiming | None:
    """Read and check the slice timing of a run.

    Parameters
    ----------
    sidecar : dict
        With ``SliceTiming`` (seconds) and optionally ``SliceEncodingDirection`` (default ``k``; a
        minus sign reverses the order).
    shape : sequence of int
        Of one volume.
    t_r_s : float
        Repetition time in seconds.
    where : str
        The run, for error messages.

    Returns
    -------
    SliceTiming or None
        None where the sidecar has none.

    Raises
    ------
    InputError
        If the times do not fit the image or the repetition time.
    """
    times = sidecar.get("SliceTiming")
    if times is None or times == "n/a":
        return None
    direction = str(sidecar.get("SliceEncodingDirection", "k"))
    axis = _AXES.get(direction.rstrip("-"))
    if axis is None:
        raise InputError(
            "the direction of slices is unknown", where=where, found=repr(direction),
            expected="i, j, k, i-, j- or k-", fix="correct SliceEncodingDirection",
        )  # fmt: skip
    try:
        values = np.atleast_1d(np.asarray(times, dtype=np.float64))
    except (TypeError, ValueError):
        values = np.full(1, np.nan)
    if len(values) != shape[axis] or values.ndim != 1:
        raise InputError(
            "the slice timing has the wrong length", where=where,
            found=f"{values.size} times, {shape[axis]} slices along {direction}",
            expected="one time a slice",
            fix="correct SliceTiming or SliceEncodingDirection, or set clean_bold.slice_timing "
            "to false",
        )  # fmt: skip
    # Half a millisecond more than a repetition time can come from rounding.
    if not np.isfinite(values).all() or values.min() < 0 or values.max() > t_r_s + 5e-4:
        raise InputError(
            "the slice timing does not fit the repetition time", where=where,
            found=f"times from {np.min(values):g} to {np.max(values):g}, "
            f"a repetition time of {t_r_s:g} s",
            expected=f"seconds between 0 and {t_r_s:g}",
            fix="write SliceTiming in seconds, not milliseconds; or set clean_bold.slice_timing "
            "to false",
        )  # fmt: skip
    if direction.endswith("-"):
        values = values[::-1]
    return SliceTiming(axis, values, float(values.min() + values.max()) / 2)


def shift_in_time(series: np.ndarray, shift_s: float, t_r_s: float) -> np.ndarray:
    """Return what series would have been, sampled later by ``shift_s``.

    Parameters
    ----------
    series : array of shape (n_volumes, n_voxels)
        Evenly sampled; the ends are mirrored.
    shift_s : float
        How much later (negative: earlier) than the given samples, in seconds; less than one
        repetition time.
    t_r_s : float
        Repetition time in seconds.

    Returns
    -------
    array of shape (n_volumes, n_voxels), float32

    Notes
    -----
    With c the B-spline coefficients of the series, the shifted value at n is
    sum_k c[n - k] B(k + shift / t_r) over the six k where the spline B of order five is not zero.
    """
    from scipy.interpolate import BSpline
    from scipy.ndimage import correlate1d, spline_filter1d

    if abs(shift_s) < 1e-6 or len(series) < 2:
        return np.asarray(series, dtype=np.float32)
    basis = BSpline.basis_element(np.arange(ORDER + 2) - (ORDER + 1) / 2, extrapolate=False)
    reach = ORDER // 2 + 2
    offsets = np.arange(-reach, reach + 1)
    weights = np.nan_to_num(basis(shift_s / t_r_s - offsets))
    # A constant would otherwise cost digits: the filter runs in float64 on what varies.
    middle = series.mean(axis=0, dtype=np.float64)
    coefficients = spline_filter1d(
        series - middle, ORDER, axis=0, output=np.float64, mode="mirror"
    )
    shifted = correlate1d(coefficients, weights, axis=0, mode="mirror") + middle
    return shifted.astype(np.float32)
