"""Epochs of a continuous signal, sample-exact and as strided views.

The signal was resampled once, as a whole, so that epochs have no edges to filter and trials that
overlap share their samples. Limits of epochs are as in MNE-Python: both ends are included, each
rounded to the nearest sample.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from afterimage.errors import ConfigError

#: Epochs that are copied at once where only a summary of each is needed.
N_EPOCHS_BATCH = 256


@dataclass(frozen=True)
class Window:
    """Samples of an epoch, counted from that of the onset.

    Attributes
    ----------
    first, n_times : int
        First sample (negative before the onset) and number of samples.
    sampling_rate_hz : float
    """

    first: int
    n_times: int
    sampling_rate_hz: float

    @property
    def times_s(self) -> np.ndarray:
        """Seconds from onset, (n_times,) float64."""
        return (self.first + np.arange(self.n_times)) / self.sampling_rate_hz

    def part(self, tmin_s: float, tmax_s: float) -> slice:
        """Return the samples of the epoch from ``tmin_s`` to ``tmax_s``, both included."""
        inner = epoch_window(self.sampling_rate_hz, tmin_s, tmax_s)
        start = inner.first - self.first
        if start < 0 or start + inner.n_times > self.n_times:
            raise ConfigError(
                "the baseline is no part of the epoch", where="baseline_s",
                found=f"{tmin_s:g} to {tmax_s:g} s",
                expected=f"within {self.times_s[0]:g} to {self.times_s[-1]:g} s",
                fix="change baseline_s, tmin_s or tmax_s",
            )  # fmt: skip
        return slice(start, start + inner.n_times)


def epoch_window(sampling_rate_hz: float, tmin_s: float, tmax_s: float) -> Window:
    """Return the samples from ``tmin_s`` to ``tmax_s``, both included."""
    first, last = (round(limit * sampling_rate_hz) for limit in (tmin_s, tmax_s))
    if last < first:
        raise ConfigError(
            "an epoch ends before it starts", where="tmin_s, tmax_s",
            found=f"{tmin_s:g} to {tmax_s:g} s", expected="tmin_s below tmax_s",
            fix="change tmin_s or tmax_s",
        )  # fmt: skip
    return Window(first, last - first + 1, sampling_rate_hz)


@dataclass(frozen=True)
class Placement:
    """Which trials have a whole epoch of good samples.

    Attributes
    ----------
    kept : array of bool, shape (n_trials,)
    first_samples : array of int64, shape (n_kept,)
        First sample of the epoch of each kept trial.
    n_outside, n_censored : int
        Trials dropped because they leave the recording, or touch censored samples.
    """

    kept: np.ndarray
    first_samples: np.ndarray
    n_outside: int
    n_censored: int


def place_epochs(
    samples: np.ndarray, n_samples: int, window: Window, censored: np.ndarray | None = None
) -> Placement:
    """Find the epochs around onsets; drop those without all of their samples.

    Parameters
    ----------
    samples : array of int, shape (n_trials,)
        Sample of each onset.
    n_samples : int
        Length of the recording.
    window : Window
    censored : array of bool, shape (n_samples,), optional
        Bad samples.

    Returns
    -------
    Placement
    """
    first = np.asarray(samples, dtype=np.int64) + window.first
    inside = (first >= 0) & (first + window.n_times <= n_samples)
    kept = inside.copy()
    if censored is not None and np.any(censored):
        n_bad = np.concatenate([[0], np.cumsum(censored)])
        start = np.where(inside, first, 0)
        stop = np.minimum(start + window.n_times, n_samples)
        kept &= n_bad[stop] == n_bad[start]
    return Placement(kept, first[kept], int((~inside).sum()), int((inside & ~kept).sum()))


def strided_epochs(signal: np.ndarray, first_samples: np.ndarray, n_times: int) -> np.ndarray:
    """Return epochs of a signal, (n_epochs, n_units, n_times).

    Parameters
    ----------
    signal : array of shape (n_samples, n_units)
    first_samples : array of int, shape (n_epochs,)
    n_times : int

    Returns
    -------
    array
        A read-only view where the epochs follow each other in even steps, as in rapid
        presentation; else a copy of these epochs alone.
    """
    windows = np.lib.stride_tricks.sliding_window_view(signal, n_times, axis=0)
    first = np.asarray(first_samples, dtype=np.int64)
    steps = np.unique(np.diff(first))
    if len(first) and len(steps) < 2 and (not len(steps) or steps[0] > 0):
        step = int(steps[0]) if len(steps) else 1
        view: np.ndarray = windows[first[0] : first[-1] + 1 : step]
        return view
    return np.asarray(windows[first])


def baseline_means(
    signal: np.ndarray, first_samples: np.ndarray, window: Window, baseline_s: tuple[float, float]
) -> np.ndarray:
    """Return the mean of each epoch over its baseline, (n_epochs, n_units) float32.

    Parameters
    ----------
    signal : array of shape (n_samples, n_units)
    first_samples : array of int, shape (n_epochs,)
    window : Window
    baseline_s : tuple of float
        First and last time, both included.
    """
    part = window.part(*baseline_s)
    means = np.empty((len(first_samples), signal.shape[1]), dtype=np.float32)
    for start in range(0, len(means), N_EPOCHS_BATCH):
        batch = slice(start, start + N_EPOCHS_BATCH)
        first = np.asarray(first_samples[batch]) + part.start
        epochs = strided_epochs(signal, first, part.stop - part.start)
        means[batch] = epochs.mean(axis=2, dtype=np.float64)
    return means


def peak_to_peak(signal: np.ndarray, first_samples: np.ndarray, n_times: int) -> np.ndarray:
    """Return the range of each epoch and unit, (n_epochs, n_units), of the dtype of the signal."""
    ranges = np.empty((len(first_samples), signal.shape[1]), dtype=signal.dtype)
    for start in range(0, len(ranges), N_EPOCHS_BATCH):
        batch = slice(start, start + N_EPOCHS_BATCH)
        epochs = strided_epochs(signal, first_samples[batch], n_times)
        ranges[batch] = epochs.max(axis=2) - epochs.min(axis=2)
    return ranges
