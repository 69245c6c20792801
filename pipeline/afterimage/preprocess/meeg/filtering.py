"""Widmann, Schroeger & Maess (2015), doi:10.1016/j.jneumeth.2014.08.002: filters of EEG and MEG.

Signals are resampled first, once and as a continuous recording, and filtered at the new rate: a
quarter of the work at a quarter of the rate. The band-pass is a windowed-sinc FIR filter, applied
without delay (zero phase), or causal: of minimum phase, so that no sample knows of later ones. The
causal path resamples by a minimum-phase low-pass and taking every k-th sample.
"""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    import mne

# Polyphase filters with larger factors than this are slower than the FFT.
_MAX_FACTOR = 200
# Edge of the low-pass before decimation, as a share of the new Nyquist frequency.
_CAUSAL_EDGE = 0.75


def resampled_rate(recorded_hz: float, wanted_hz: float | None, *, causal: bool = False) -> float:
    """Return the rate that a recording is brought to.

    Parameters
    ----------
    recorded_hz : float
    wanted_hz : float or None
        None keeps the rate; so does a recording no faster than this.
    causal : bool
        Only whole fractions of the recorded rate can be had without looking ahead: the lowest
        that is not below ``wanted_hz`` is taken.

    Returns
    -------
    float
    """
    if wanted_hz is None or recorded_hz <= wanted_hz:
        return recorded_hz
    if causal:
        return recorded_hz / max(1, int(recorded_hz / wanted_hz + 1e-9))
    return wanted_hz


def resample(raw: mne.io.BaseRaw, rate_hz: float, *, causal: bool = False) -> mne.io.BaseRaw:
    """Resample a continuous recording.

    Parameters
    ----------
    raw : mne.io.BaseRaw
        Loaded.
    rate_hz : float
        New rate; as `resampled_rate` returns it where ``causal``.
    causal : bool
        Whether no sample may depend on later ones.

    Returns
    -------
    mne.io.BaseRaw
        ``raw``, changed in place, or a new object of the new rate.
    """
    recorded = float(raw.info["sfreq"])
    if abs(recorded - rate_hz) < 1e-6 * recorded:
        return raw
    if causal:
        return _decimate(raw, round(recorded / rate_hz))
    ratio = Fraction(rate_hz / recorded).limit_denominator(1000)
    exact = abs(float(ratio) * recorded - rate_hz) < 1e-9 * rate_hz
    polyphase = exact and max(ratio.numerator, ratio.denominator) <= _MAX_FACTOR
    if not polyphase:
        return _resample_by_spectrum(raw, rate_hz)
    raw.resample(rate_hz, method="polyphase", npad="auto", verbose="error")
    return raw


def _resample_by_spectrum(raw: mne.io.BaseRaw, rate_hz: float) -> mne.io.BaseRaw:
    """Resample by any ratio.

    The spectrum can only be cut to a whole number of samples. Their times stay true where the
    recording is lengthened until its length at the new rate is nearly one; without that, samples at
    the end would be early or late by up to half a sample.
    """
    from scipy.fft import next_fast_len
    from scipy.signal import resample as resample_fft

    recorded, n_times = float(raw.info["sfreq"]), raw.n_times
    ratio = rate_hz / recorded
    shortest = next_fast_len(n_times + int(recorded))
    lengths = np.arange(shortest, shortest + 2000)
    n_padded = int(lengths[np.argmin(np.abs(lengths * ratio - np.round(lengths * ratio)))])
    # From the last value back to the first, so that the end does not ring into the start.
    fade = 0.5 - 0.5 * np.cos(np.linspace(0, np.pi, n_padded - n_times))
    n_new, n_kept = round(n_padded * ratio), max(1, round(n_times * ratio))
    signal = np.empty((len(raw.ch_names), n_kept))
    for row in range(len(signal)):
        values = raw.get_data(picks=[row])[0]
        end = values[-1] + fade * (values[0] - values[-1])
        signal[row] = resample_fft(np.concatenate([values, end]), n_new)[:n_kept]
    return _with_signal(raw, signal, rate_hz, rate_hz / 2)


def _with_signal(
    raw: mne.io.BaseRaw, signal: np.ndarray, rate_hz: float, lowpass_hz: float
) -> mne.io.BaseRaw:
    """Return a recording of the same channels and annotations with another signal and rate."""
    import mne

    info = raw.info.copy()
    with info._unlock():
        info["sfreq"] = rate_hz
        info["lowpass"] = min(float(info["lowpass"]), lowpass_hz)
    made = mne.io.RawArray(signal, info, verbose="error")
    return made.set_annotations(_from_start(raw), verbose="error")


def _decimate(raw: mne.io.BaseRaw, factor: int) -> mne.io.BaseRaw:
    """Low-pass by a filter of minimum phase and keep every ``factor``-th sample."""
    recorded = float(raw.info["sfreq"])
    taps, edge = decimation_taps(recorded, factor)
    signal = _convolve(raw.get_data(), taps)
    return _with_signal(raw, signal[:, ::factor], recorded / factor, edge)


def decimation_taps(recorded_hz: float, factor: int) -> tuple[list[np.ndarray], float]:
    """Return the causal filters before every ``factor``-th sample is kept, and their edge in Hz."""
    rate_hz = recorded_hz / factor
    edge = _CAUSAL_EDGE * rate_hz / 2
    return causal_taps(recorded_hz, None, edge, rate_hz / 2 - edge), edge


def _from_start(raw: mne.io.BaseRaw) -> mne.Annotations:
    """Return the annotations of a recording with onsets from its first sample."""
    import mne

    marks = raw.annotations
    offset = raw.first_time if marks.orig_time is not None else 0.0
    return mne.Annotations(marks.onset - offset, marks.duration, marks.description)


def remove_line_noise(
    raw: mne.io.BaseRaw,
    line_freq_hz: float,
    *,
    method: Literal["notch", "spectrum_fit"] = "notch",
    causal: bool = False,
) -> list[float]:
    """Take out the line frequency and its harmonics, in place.

    Parameters
    ----------
    raw : mne.io.BaseRaw
        Loaded.
    line_freq_hz : float
        50 or 60 in most places.
    method : str
        ``notch``: a narrow stop band; ``spectrum_fit``: sines found by their significance in
        windows of 10 s are subtracted, which keeps the spectrum whole but costs more time.
    causal : bool
        A second-order notch that runs forward only; ``method`` is not used.

    Returns
    -------
    list of float
        Frequencies that were taken out, in Hz; empty where the line lies above the Nyquist rate.
    """
    rate_hz = float(raw.info["sfreq"])
    harmonics = line_harmonics(line_freq_hz, rate_hz)
    if not len(harmonics):
        return []
    if causal:
        from scipy.signal import lfilter

        for b, a in causal_notches(line_freq_hz, rate_hz):
            raw.apply_function(
                lambda values, b=b, a=a: lfilter(b, a, values, axis=-1), channel_wise=False,
                picks="data", verbose="error",
            )  # fmt: skip
    elif method == "spectrum_fit":
        raw.notch_filter(
            harmonics, method="spectrum_fit", filter_length="10s", picks="data", verbose="error"
        )
    else:
        raw.notch_filter(harmonics, notch_widths=2.0, picks="data", verbose="error")
    return [float(value) for value in harmonics]


def line_harmonics(line_freq_hz: float, rate_hz: float) -> np.ndarray:
    """Return the line frequency and its harmonics that can be taken out, in Hz."""
    # A stop band that touches the Nyquist frequency cannot be built.
    return np.arange(line_freq_hz, rate_hz / 2 - 1.5, line_freq_hz)


def causal_notches(line_freq_hz: float, rate_hz: float) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return numerator and denominator of the causal notch at each harmonic of the line."""
    from scipy.signal import iirnotch

    return [iirnotch(f, f / 2, fs=rate_hz) for f in line_harmonics(line_freq_hz, rate_hz)]


def band_pass(
    raw: mne.io.BaseRaw,
    highpass_hz: float | None,
    lowpass_hz: float | None,
    *,
    causal: bool = False,
) -> list[str]:
    """Filter the channels of the brain, eyes and heart, in place.

    Parameters
    ----------
    raw : mne.io.BaseRaw
        Loaded.
    highpass_hz, lowpass_hz : float or None
        Edges of the pass band; None leaves the end open. A low-pass at or above the Nyquist
        frequency is left out.
    causal : bool
        Filters of minimum phase, which delay the signal, in place of zero phase.

    Returns
    -------
    list of str
        Notes on what could not be done as asked.
    """
    rate_hz = float(raw.info["sfreq"])
    duration_s = raw.n_times / rate_hz
    notes = []
    if lowpass_hz is not None and lowpass_hz >= rate_hz / 2:
        notes.append(
            f"no low-pass at {lowpass_hz:g} Hz: the Nyquist frequency is {rate_hz / 2:g} Hz"
        )
        lowpass_hz = None
    # The default transition of the FIR filter asks for 3.3 periods of its width.
    if highpass_hz and 3.3 / min(max(highpass_hz / 4, 2.0), highpass_hz) > duration_s:
        notes.append(f"no high-pass at {highpass_hz:g} Hz: the recording lasts {duration_s:.1f} s")
        highpass_hz = None
    if not highpass_hz and lowpass_hz is None:
        return notes
    kinds = ["eeg", "meg", "eog", "ecg"]
    picks = [kind for kind in kinds if kind in raw]
    if not causal:
        raw.filter(highpass_hz or None, lowpass_hz, picks=picks, verbose="error")
        return notes

    def filter_(values: np.ndarray) -> np.ndarray:
        # The offset of an amplifier would ring for as long as the filter lasts.
        values = values - values[..., :1]
        return _convolve(values, causal_taps(rate_hz, highpass_hz or None, lowpass_hz))

    raw.apply_function(filter_, channel_wise=False, picks=picks, verbose="error")
    return notes


def causal_taps(
    rate_hz: float,
    highpass_hz: float | None,
    lowpass_hz: float | None,
    transition_hz: float | None = None,
) -> list[np.ndarray]:
    """Return FIR filters of minimum phase, to be applied one after the other.

    Parameters
    ----------
    rate_hz : float
    highpass_hz, lowpass_hz : float or None
        Edges of the pass band; None leaves the end open.
    transition_hz : float, optional
        Width of the transition; default: as MNE-Python chooses it.

    Returns
    -------
    list of array of shape (n_taps,)
    """
    from scipy.signal import firwin, minimum_phase

    filters = []
    for edge_hz, low in ((highpass_hz, False), (lowpass_hz, True)):
        if edge_hz is None:
            continue
        width = transition_hz or (min(max(edge_hz / 4, 2.0), edge_hz))
        if low and transition_hz is None:
            width = min(width, rate_hz / 2 - edge_hz)
        middle = edge_hz + width / 2 if low else edge_hz - width / 2
        n_taps = int(np.ceil(3.3 / width * rate_hz)) | 1
        linear = firwin(n_taps, middle, pass_zero=low, fs=rate_hz)
        # With half the taps of the linear one the response keeps its magnitude in the pass band.
        taps = minimum_phase(linear, half=False, n_fft=max(4096, 8 * n_taps))
        filters.append(taps / (np.abs(taps.sum()) if low else _gain_at_end(taps)))
    return filters


def _convolve(signal: np.ndarray, filters: list[np.ndarray]) -> np.ndarray:
    """Filter rows of ``signal`` (n_channels, n_times) forward, from nothing before them."""
    from scipy.signal import oaconvolve

    n_times = signal.shape[1]
    for taps in filters:
        signal = oaconvolve(signal, taps[None], axes=1)[:, :n_times]
    return signal


def _gain_at_end(taps: np.ndarray) -> float:
    """Return the gain of a filter at the Nyquist frequency."""
    return float(abs((taps * (-1.0) ** np.arange(len(taps))).sum()))
