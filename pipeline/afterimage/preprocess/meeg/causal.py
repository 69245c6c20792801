"""Trials from a stream, without samples of the future: for decoding while the brain is recorded.

Offline cleaning filters forwards and backwards and looks at whole recordings. Here filters run
forwards only and carry their state from block to block, the scale of the channels is a running
one, and a trial leaves as soon as its last sample has come. So that it may be trained on what it
will meet, a decoder is fitted on epochs of `CausalStream` too: a recording pushed at once gives the
same epochs as the same recording in small blocks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from afterimage.errors import ConfigError
from afterimage.preprocess.meeg.epochs import epoch_window

#: Order of each Butterworth filter.
ORDER = 4
#: Quality of the notch at the line frequency: its width is the frequency over this.
NOTCH_Q = 30.0


@dataclass(frozen=True)
class CausalSettings:
    """What is done to a stream.

    Attributes
    ----------
    sampling_rate_hz : float
        Of what comes in.
    highpass_hz, lowpass_hz : float or None
        Edges of the filters; a low-pass below half of the rate after decimation is needed where
        ``decimate`` is above 1.
    line_freq_hz : float or None
        Notched out.
    decimate : int
        Every so manieth sample is kept, after the low-pass.
    tmin_s, tmax_s : float
        Limits of a trial from onset, both included.
    baseline_s : tuple of float or None
        Its mean is subtracted from the trial; not after ``tmax_s``.
    time_constant_s : float or None
        Each channel is divided by its running standard deviation over about this time; None: not.
    """

    sampling_rate_hz: float
    highpass_hz: float | None = 0.1
    lowpass_hz: float | None = 40.0
    line_freq_hz: float | None = None
    decimate: int = 1
    tmin_s: float = -0.2
    tmax_s: float = 0.8
    baseline_s: tuple[float, float] | None = (-0.2, 0.0)
    time_constant_s: float | None = 30.0


class CausalStream:
    """Filter blocks of samples as they come and give back trials as they end.

    Parameters
    ----------
    settings : CausalSettings
    n_units : int
    whitening : array of shape (n_units, n_units), optional
        Applied to every trial; fitted before.

    Attributes
    ----------
    times_s : array of shape (n_times,), float64
        Of a trial, from onset.
    n_samples : int
        Samples that came in.
    """

    def __init__(
        self, settings: CausalSettings, n_units: int, whitening: np.ndarray | None = None
    ) -> None:
        self._settings, self._n_units = settings, n_units
        self._whitening = whitening
        self._rate_hz = settings.sampling_rate_hz / settings.decimate
        self._window = epoch_window(self._rate_hz, settings.tmin_s, settings.tmax_s)
        self.times_s = self._window.times_s
        self._baseline = None if settings.baseline_s is None else self._window.part(
            *settings.baseline_s
        )  # fmt: skip
        self._filters = _design(settings)
        self._states: np.ndarray | None = None
        self._power: np.ndarray | None = None
        self.n_samples = self._n_kept = self._n_seen = 0
        # A trial is marked after its pre-stimulus time has passed: as much of the past is held.
        self._length = self._window.n_times + max(0, -self._window.first) + round(self._rate_hz)
        self._past = np.zeros((0, n_units))
        self._scales = np.zeros((0, n_units))
        self._waiting: deque[int] = deque()

    def mark(self, sample: int) -> None:
        """Say that a trial starts at a sample of the input, at most 1 s after it came.

        Parameters
        ----------
        sample : int
            Counted from the first sample pushed; later than those marked before.
        """
        self._waiting.append(sample)

    def push(self, block: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        """Take up samples and give back the trials that end in them.

        Parameters
        ----------
        block : array of shape (n_samples, n_units)

        Yields
        ------
        sample : int
            As it was marked.
        epoch : array of shape (n_units, n_times), float64
        """
        self._append(np.asarray(block, dtype=np.float64))
        while self._waiting:
            onset = round(self._waiting[0] / self._settings.decimate)
            first = onset + self._window.first
            if first + self._window.n_times > self._n_kept:
                return
            sample = self._waiting.popleft()
            start = first - (self._n_kept - len(self._past))
            if first < 0 or start < 0:
                continue  # it began before the stream, or was marked too late
            yield sample, self._epoch(start)

    def _append(self, block: np.ndarray) -> None:
        """Filter a block, keep every so manieth sample, and update the running scale."""
        if len(block) == 0:
            return
        from scipy.signal import sosfilt, sosfilt_zi

        if self._filters is not None:
            if self._states is None:
                # Started as if the first sample had lasted forever, so that no step rings.
                self._states = sosfilt_zi(self._filters)[:, :, None] * block[0]
            block, self._states = sosfilt(self._filters, block, axis=0, zi=self._states)
        phase = -self.n_samples % self._settings.decimate
        self.n_samples += len(block)
        kept = block[phase :: self._settings.decimate]
        self._n_kept += len(kept)
        scales = self._running_scale(kept)
        # Trials that wait for later samples need what has come since they began.
        held = max(self._length, self._n_kept - self._oldest())
        self._past = np.concatenate([self._past, kept])[-(held + len(kept)) :]
        self._scales = np.concatenate([self._scales, scales])[-(held + len(kept)) :]

    def _oldest(self) -> int:
        if not self._waiting:
            return self._n_kept
        return round(self._waiting[0] / self._settings.decimate) + self._window.first

    def _running_scale(self, kept: np.ndarray) -> np.ndarray:
        """Return the running root mean square at every sample, from samples up to it."""
        from scipy.signal import lfilter

        constant = self._settings.time_constant_s
        if constant is None or not len(kept):
            return np.ones_like(kept)
        if self._power is None:
            self._power = np.zeros((1, self._n_units))
        keep = np.exp(-1 / (constant * self._rate_hz))
        power, self._power = lfilter([1 - keep], [1, -keep], kept**2, axis=0, zi=self._power)
        seen = self._n_seen + 1 + np.arange(len(kept))
        self._n_seen += len(kept)
        # Early on the average is over few samples: weights that are missing are divided out.
        scale = np.sqrt(power / (1 - keep ** seen[:, None]))
        return np.where(scale > 0, scale, 1.0)

    def _epoch(self, start: int) -> np.ndarray:
        rows = slice(start, start + self._window.n_times)
        epoch = self._past[rows].T
        if self._baseline is not None:
            epoch = epoch - epoch[:, self._baseline].mean(axis=1, keepdims=True)
        # One scale for the whole trial, that of its last sample: it keeps the form of responses.
        epoch = epoch / self._scales[rows.stop - 1][:, None]
        return epoch if self._whitening is None else self._whitening @ epoch


def _design(settings: CausalSettings) -> np.ndarray | None:
    """Return the filters as second-order sections, or None for none."""
    from scipy.signal import butter, iirnotch, tf2sos

    rate_hz = settings.sampling_rate_hz
    half = rate_hz / settings.decimate / 2
    if settings.decimate > 1 and not (settings.lowpass_hz and settings.lowpass_hz < half):
        raise ConfigError(
            "samples are to be left out without a low-pass", where="lowpass_hz",
            found=f"{settings.lowpass_hz} Hz, 1 of {settings.decimate} samples of {rate_hz:g} Hz",
            expected=f"below {half:g} Hz", fix="lower lowpass_hz, or set decimate to 1",
        )  # fmt: skip
    sections = []
    if settings.highpass_hz:
        sections.append(butter(ORDER, settings.highpass_hz, "highpass", fs=rate_hz, output="sos"))
    if settings.line_freq_hz:
        sections.append(tf2sos(*iirnotch(settings.line_freq_hz, NOTCH_Q, fs=rate_hz)))
    if settings.lowpass_hz and settings.lowpass_hz < rate_hz / 2:
        sections.append(butter(ORDER, settings.lowpass_hz, "lowpass", fs=rate_hz, output="sos"))
    return np.concatenate(sections) if sections else None
