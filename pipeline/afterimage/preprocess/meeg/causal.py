"""Trials from a stream, without samples of the future: for decoding while the brain is recorded.

What `filtering` does to a whole recording in its causal mode is done here to blocks of samples as
they come: the same filters, their state carried from block to block, so that a recording pushed in
blocks of any size gives the trials that the same recording gave when a decoder was trained. What
mixes channels (reference, repair, whitening) is one matrix, found once, at the end of a calibration.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from afterimage.errors import ConfigError
from afterimage.preprocess.meeg.epochs import epoch_window
from afterimage.preprocess.meeg.filtering import causal_notches, causal_taps, decimation_taps

#: Outputs of a filter up to which they are computed one by one; more are convolved by FFT.
FEW_OUTPUTS = 64
#: A trial may be marked as long as this after its window has passed.
LATE_S = 5.0


@dataclass(frozen=True)
class CausalSettings:
    """What is done to a stream.

    Attributes
    ----------
    recorded_rate_hz, rate_hz : float
        Of what comes in, and of the trials: a whole fraction of it.
    highpass_hz, lowpass_hz : float or None
        Edges of the band-pass; None or 0 leaves an end open, as does a low-pass from half of the
        rate on.
    line_freq_hz : float or None
        Taken out, with its harmonics.
    tmin_s, tmax_s : float
        Limits of a trial from onset, both included.
    baseline_s : tuple of float or None
        Its mean is subtracted from the trial.
    calibration_s : float
        Start of the stream that `CausalStream` shows to what finds its matrix; trials that end in
        it come out at its end.
    """

    recorded_rate_hz: float
    rate_hz: float
    highpass_hz: float | None = 0.1
    lowpass_hz: float | None = 40.0
    line_freq_hz: float | None = None
    tmin_s: float = -0.2
    tmax_s: float = 0.8
    baseline_s: tuple[float, float] | None = (-0.2, 0.0)
    calibration_s: float = 0.0


class CausalStream:
    """Filter blocks of samples as they come and give back trials as they end.

    Parameters
    ----------
    settings : CausalSettings
    n_units : int
        Channels that come in.
    find_matrix : callable
        Called once with the calibration, resampled and without line noise, (n_samples, n_units);
        returns (n_out, n_units): what is done to the channels of every sample.

    Attributes
    ----------
    n_samples : int
        Samples that came in.
    calibrated : bool
    """

    def __init__(
        self,
        settings: CausalSettings,
        n_units: int,
        find_matrix: Callable[[np.ndarray], np.ndarray],
    ) -> None:
        self._find_matrix, self._settings = find_matrix, settings
        self.factor = _factor(settings)
        rate_hz = settings.rate_hz
        self._window = epoch_window(rate_hz, settings.tmin_s, settings.tmax_s)
        baseline = settings.baseline_s
        self._baseline = None if baseline is None else self._window.part(*baseline)
        first = (
            decimation_taps(settings.recorded_rate_hz, self.factor)[0] if self.factor > 1 else []
        )
        self._decimators = [
            _Fir(taps, n_units, self.factor if taps is first[-1] else 1) for taps in first
        ]
        line = settings.line_freq_hz
        self._notches = causal_notches(line, rate_hz) if line else []
        self._notch_states = [np.zeros((2, n_units)) for _ in self._notches]
        low = settings.lowpass_hz
        low = low if low and low < rate_hz / 2 else None
        self._band = [
            _Fir(taps, n_units) for taps in causal_taps(rate_hz, settings.highpass_hz or None, low)
        ]
        self._offset: np.ndarray | None = None
        # Both ends are included, as in the part of a recording by which it is judged.
        n_calibration = round(settings.calibration_s * rate_hz) + 1
        self._calibration: _Tail | None = _Tail(n_calibration, n_units)
        self._matrix: np.ndarray | None = None
        self._held = self._window.n_times + round(LATE_S * rate_hz)
        self._clean = _Tail(self._held, n_units)
        self._waiting: list[int] = []
        self.n_samples = 0

    @property
    def calibrated(self) -> bool:
        """Whether the matrix is known, so that a trial comes out with its last sample."""
        return self._matrix is not None

    def mark(self, sample: int) -> None:
        """Say that a trial starts at a sample of the input, counted from the first one pushed.

        It may lie ahead, or up to `LATE_S` behind the end of its trial.
        """
        insort(self._waiting, sample)

    def push(self, block: np.ndarray) -> Iterator[tuple[int, np.ndarray | None]]:
        """Take up samples and give back the trials that end in them.

        Parameters
        ----------
        block : array of shape (n_samples, n_units)

        Yields
        ------
        sample : int
            As it was marked.
        epoch : array of shape (n_out, n_times), float32, or None
            None where the trial began before the stream, or was marked too late.
        """
        if len(block):
            self._append(np.asarray(block, dtype=np.float64))
        if self._matrix is None:
            return
        while self._waiting:
            onset = onset_sample(self._waiting[0], self._settings)
            first = onset + self._window.first
            if first + self._window.n_times > self._clean.n_seen:
                return
            sample = self._waiting.pop(0)
            if first < self._clean.first:
                yield sample, None
                continue
            yield sample, self._epoch(self._clean.rows(first, first + self._window.n_times))

    def _append(self, block: np.ndarray) -> None:
        """Resample and filter a block; find the matrix where the calibration ends in it."""
        from scipy.signal import lfilter

        self.n_samples += len(block)
        for decimator in self._decimators:
            block = decimator.push(block)
        if not len(block):
            return
        for number, (b, a) in enumerate(self._notches):
            state = self._notch_states[number]
            block, self._notch_states[number] = lfilter(b, a, block, axis=0, zi=state)
        missing = 0
        if self._calibration is not None:
            missing = self._calibration.n_kept - self._calibration.n_seen
            self._calibration.append(block[:missing])
        if self._offset is None:
            # The offset of an amplifier would ring for as long as the filter lasts.
            self._offset = block[:1].copy()
        block = block - self._offset
        for band in self._band:
            block = band.push(block)
        # Until there is a matrix no trial leaves, and all that they need is held.
        self._clean.n_kept = self._held + (0 if self.calibrated else self._clean.n_seen)
        self._clean.append(block)
        if self._calibration is not None and missing <= len(block):
            start = self._calibration.rows(0, self._calibration.n_seen)
            self._matrix, self._calibration = self._find_matrix(start), None

    def _epoch(self, rows: np.ndarray) -> np.ndarray:
        """Mix channels and subtract the baseline; (n_times, n_units) to (n_out, n_times)."""
        assert self._matrix is not None  # noqa: S101  no trial leaves before
        if self._baseline is not None:
            rows = rows - rows[self._baseline].mean(axis=0)
        epoch: np.ndarray = (self._matrix @ rows.T).astype(np.float32)
        return epoch


def onset_sample(sample: int, settings: CausalSettings) -> int:
    """Return the sample of the trials nearest to a sample of the input, as tables of events have it.

    By way of seconds: an onset that lies half-way between two samples of the trials is rounded by
    the last bit of its time, and so it is offline.
    """
    return round(sample / settings.recorded_rate_hz * settings.rate_hz)


class _Tail:
    """The last rows of a stream, ``n_kept`` at least, in one array that is moved when it is full."""

    def __init__(self, n_kept: int, n_units: int) -> None:
        self.n_kept, self.n_seen = n_kept, 0
        self._array = np.zeros((2 * n_kept + 1024, n_units))
        self._stop = 0

    @property
    def first(self) -> int:
        """Number of the first row that is there, counted from the first that ever came."""
        return self.n_seen - self._stop

    def append(self, block: np.ndarray) -> None:
        if self._stop + len(block) > len(self._array):
            kept = self._array[max(0, self._stop - self.n_kept) : self._stop]
            array = np.zeros((2 * (len(kept) + len(block)) + 1024, self._array.shape[1]))
            array[: len(kept)] = kept
            self._array, self._stop = array, len(kept)
        self._array[self._stop : self._stop + len(block)] = block
        self._stop += len(block)
        self.n_seen += len(block)

    def rows(self, start: int, stop: int) -> np.ndarray:
        """Return rows by their numbers, (stop - start, n_units), a view."""
        shift = self._stop - self.n_seen
        return self._array[start + shift : stop + shift]


class _Fir:
    """A FIR filter that remembers its past; of its outputs every ``factor``-th is kept."""

    def __init__(self, taps: np.ndarray, n_units: int, factor: int = 1) -> None:
        self._taps, self._reversed = taps, taps[::-1].copy()
        self._factor, self._phase = factor, 0
        self._past = _Tail(len(taps) - 1, n_units)
        self._past.append(np.zeros((len(taps) - 1, n_units)))  # nothing before the stream

    def push(self, block: np.ndarray) -> np.ndarray:
        """Filter (n_samples, n_units); return what is kept of it."""
        from scipy.signal import oaconvolve

        n_taps, end = len(self._taps), self._past.n_seen
        self._past.append(block)
        signal = self._past.rows(end - n_taps + 1, end + len(block))
        outputs = np.arange(self._phase, len(block), self._factor)
        self._phase = (self._phase - len(block)) % self._factor
        if len(outputs) > FEW_OUTPUTS:
            whole: np.ndarray = oaconvolve(signal, self._taps[:, None], mode="valid", axes=0)
            return whole[outputs]
        filtered = np.empty((len(outputs), block.shape[1]))
        for row, output in enumerate(outputs):
            filtered[row] = self._reversed @ signal[output : output + n_taps]
        return filtered


def _factor(settings: CausalSettings) -> int:
    """Return how many samples come in for one that is kept."""
    ratio = settings.recorded_rate_hz / settings.rate_hz
    if abs(ratio - round(ratio)) > 1e-6 * ratio or ratio < 1 - 1e-6:
        raise ConfigError(
            "a stream cannot be brought to this rate without looking ahead",
            where="rate of the stream", found=f"{settings.recorded_rate_hz:g} Hz",
            expected=f"a multiple of {settings.rate_hz:g} Hz", fix="record at such a rate",
        )  # fmt: skip
    return round(ratio)
