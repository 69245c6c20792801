"""Jas et al. (2017), doi:10.1016/j.neuroimage.2017.06.030: stretches of a recording to leave out.

The idea that a limit of peak-to-peak amplitude is a property of the recording and not a number for
all is theirs; here it is the robust spread of windows over the recording in place of a
cross-validated limit, so that no trial and no label is looked at. Muscle activity is found by its
power above 60 Hz, summed over channels. Both look at one second at a time, so that they cost
little; `autoreject` on the epochs may follow.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

#: A peak-to-peak amplitude below this (SI units) is never called bad.
ALLOWED = {"eeg": 2e-4, "mag": 5e-12, "grad": 4e-10}
#: Seconds of one window; consecutive ones overlap by half.
WINDOW_S = 0.5


@dataclass
class BadSegments:
    """Stretches found bad.

    Attributes
    ----------
    mask : array of bool, shape (n_times,)
        Samples to leave out.
    segments : list of tuple (start_s, end_s, reason)
        By start, in s from the first sample.
    fractions : dict
        Reason to share of the samples; their union as ``any``.
    """

    mask: np.ndarray
    segments: list[tuple[float, float, str]] = field(default_factory=list)
    fractions: dict[str, float] = field(default_factory=dict)

    def add(self, mask: np.ndarray, reason: str, rate_hz: float) -> None:
        """Take in the samples that are bad for one reason."""
        edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.astype(np.int8), [0]])))
        for start, end in edges.reshape(-1, 2):
            self.segments.append((float(start / rate_hz), float(end / rate_hz), reason))
        self.segments.sort()
        self.mask = self.mask | mask
        self.fractions[reason] = float(mask.mean()) if len(mask) else 0.0
        self.fractions["any"] = float(self.mask.mean()) if len(mask) else 0.0


def given_segments(
    n_times: int, rate_hz: float, marks: list[tuple[float, float, str]]
) -> BadSegments:
    """Start from the stretches that the recording itself marks as bad.

    Parameters
    ----------
    n_times : int
    rate_hz : float
    marks : list of tuple (start_s, duration_s, description)
        Annotations whose description starts with "bad", in any case.

    Returns
    -------
    BadSegments
    """
    found = BadSegments(np.zeros(n_times, dtype=bool))
    mask = found.mask.copy()
    for start_s, duration_s, _ in marks:
        first = max(0, int(start_s * rate_hz))
        mask[first : int(np.ceil((start_s + duration_s) * rate_hz))] = True
    if mask.any():
        found.add(mask, "annotated", rate_hz)
    return found


def find_bad_segments(
    found: BadSegments,
    signal: np.ndarray,
    kind: np.ndarray,
    rate_hz: float,
    *,
    n_deviations: float = 6.0,
    limit: float | None = None,
    calibration_s: float | None = None,
) -> None:
    """Find windows in which some channel has too large an amplitude, and flat windows.

    Parameters
    ----------
    found : BadSegments
        Added to.
    signal : array of shape (n_units, n_times)
        Good channels, filtered, in SI units.
    kind : array of str, shape (n_units,)
        ``eeg``, ``mag`` or ``grad``.
    rate_hz : float
    n_deviations : float
        Robust deviations of the logarithm of the peak-to-peak amplitude above its median over
        windows from which on a window is bad.
    limit : float or None
        Peak-to-peak amplitude of EEG in V that is bad in any case.
    calibration_s : float or None
        Seconds from the start by which the median and deviation are found; None: the whole run.
    """
    n_window = max(2, round(WINDOW_S * rate_hz))
    starts = np.arange(0, max(1, signal.shape[1] - n_window + 1), max(1, n_window // 2))
    n_known = _n_calibration(starts, calibration_s, rate_hz)
    high = np.zeros(len(starts), dtype=bool)
    flat = np.zeros(len(starts), dtype=bool)
    for name in ("eeg", "mag", "grad"):
        rows = signal[kind == name]
        if not len(rows):
            continue
        span = np.array([np.ptp(rows[:, start : start + n_window], axis=1) for start in starts])
        log_span = np.log(np.maximum(span, 1e-30))
        middle = np.median(log_span[:n_known], axis=0)
        spread = 1.4826 * np.median(np.abs(log_span[:n_known] - middle), axis=0)
        top = np.maximum(np.exp(middle + n_deviations * np.maximum(spread, 0.1)), ALLOWED[name])
        if name == "eeg" and limit is not None:
            top = np.minimum(top, limit)
        high |= (span > top).any(axis=1)
        # Half of the channels without any signal at once: the amplifier was blocked or unplugged.
        flat |= (span < 1e-2 * np.exp(middle)).mean(axis=1) >= 0.5
    for windows, reason in ((high, "amplitude"), (flat, "flat")):
        if windows.any():
            found.add(_samples(windows, starts, n_window, signal.shape[1]), reason, rate_hz)


def find_muscle(
    found: BadSegments,
    signal: np.ndarray,
    rate_hz: float,
    *,
    n_deviations: float = 8.0,
    calibration_s: float | None = None,
) -> bool:
    """Find windows with muscle activity: power above 60 Hz in many channels.

    Parameters
    ----------
    found : BadSegments
        Added to.
    signal : array of shape (n_units, n_times)
        Good channels of one kind, before the low-pass.
    rate_hz : float
    n_deviations : float
        Robust deviations above the median over windows from which on a window is bad.
    calibration_s : float or None
        As for `find_bad_segments`.

    Returns
    -------
    bool
        Whether the sampling rate lets muscles be seen.
    """
    from scipy.signal import butter, sosfilt

    top = min(140.0, 0.45 * rate_hz)
    if top < 75 or signal.shape[1] < 4 * rate_hz:
        return False
    sos = butter(4, [62.0, top], "band", fs=rate_hz, output="sos")
    fast = sosfilt(sos, signal - signal[:, :1])
    deviation = 1.4826 * np.median(np.abs(fast), axis=1, keepdims=True)
    envelope = np.mean(np.abs(fast) / np.maximum(deviation, 1e-30), axis=0)
    n_window = max(2, round(WINDOW_S * rate_hz))
    starts = np.arange(0, signal.shape[1] - n_window + 1, max(1, n_window // 2))
    total = np.concatenate([[0.0], np.cumsum(envelope)])
    mean = (total[starts + n_window] - total[starts]) / n_window
    known = mean[: _n_calibration(starts, calibration_s, rate_hz)]
    middle = np.median(known)
    spread = max(1.4826 * float(np.median(np.abs(known - middle))), 0.05 * float(middle))
    bad = (mean - middle) / spread > n_deviations
    if bad.any():
        found.add(_samples(bad, starts, n_window, signal.shape[1]), "muscle", rate_hz)
    return True


def _n_calibration(starts: np.ndarray, calibration_s: float | None, rate_hz: float) -> int:
    """Return how many windows may inform the statistics."""
    if calibration_s is None:
        return len(starts)
    return max(1, int((starts < calibration_s * rate_hz).sum()))


def _samples(bad: np.ndarray, starts: np.ndarray, n_window: int, n_times: int) -> np.ndarray:
    """Return the samples of the bad windows, bool of shape (n_times,)."""
    mask = np.zeros(n_times, dtype=bool)
    for start in starts[bad]:
        mask[start : start + n_window] = True
    return mask
