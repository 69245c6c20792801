"""What EEG and MEG show beside the evoked response: background, alpha, blinks, mains, broken sensors.

Background activity falls with frequency as reviewed by He 2014 (doi:10.1016/j.tics.2014.04.003);
alpha waxes and wanes (Berger 1929, doi:10.1007/BF01797193); the course of a blink follows Iwasaki
et al. 2005 (doi:10.1016/j.clinph.2004.09.001) in its length and its place, not in every detail.

What differs: every part is a Gaussian process with a stated spectrum, or a fixed shape at times
that are known, so that what a cleaning step removes can be compared with what was planted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

#: Length of a blink, and how much faster the lid closes than it opens.
BLINK_S = 0.35
BLINK_CLOSING = 0.4
#: Shortest time between two blinks.
BLINK_PAUSE_S = 0.8
#: Slower waves than this are flat in the spectrum of the background.
CORNER_HZ = 0.5
DRIFT_HZ = 0.2


def coloured(
    n_rows: int,
    n_samples: int,
    sampling_rate_hz: float,
    gain: Callable[[np.ndarray], np.ndarray],
    rng: np.random.Generator,
) -> np.ndarray:
    """Draw Gaussian noise with given spectra.

    Parameters
    ----------
    n_rows, n_samples : int
    sampling_rate_hz : float
    gain : callable
        Amplitude at each frequency: takes Hz (n_frequencies,), returns (n_frequencies,) or
        (n_rows, n_frequencies).
    rng : Generator

    Returns
    -------
    array of shape (n_rows, n_samples), float32
        Every row has a variance of 1 in expectation.
    """
    from scipy.fft import irfft, next_fast_len, rfft, rfftfreq

    n_padded = next_fast_len(n_samples, real=True)
    amplitude = np.atleast_2d(gain(rfftfreq(n_padded, 1 / sampling_rate_hz)))
    amplitude[:, 0] = 0
    # Variance of white noise after the gain: the mean of its square over the whole spectrum.
    power = 2 * (amplitude**2).sum(axis=1) - (n_padded % 2 == 0) * amplitude[:, -1] ** 2
    amplitude = (amplitude / np.sqrt(power / n_padded)[:, None]).astype(np.float32)
    white = rng.standard_normal((n_rows, n_padded), dtype=np.float32)
    drawn: np.ndarray = irfft(rfft(white, axis=1) * amplitude, n_padded, axis=1)
    return drawn[:, :n_samples]


def background(
    n_rows: int, n_samples: int, sampling_rate_hz: float, rng: np.random.Generator
) -> np.ndarray:
    """Draw activity whose power falls as 1 / f above `CORNER_HZ`; see `coloured`."""

    def gain(hz: np.ndarray) -> np.ndarray:
        return 1 / np.sqrt(np.maximum(hz, CORNER_HZ))

    return coloured(n_rows, n_samples, sampling_rate_hz, gain, rng)


def drift(
    n_rows: int, n_samples: int, sampling_rate_hz: float, rng: np.random.Generator
) -> np.ndarray:
    """Draw slow drift, nearly all of it below `DRIFT_HZ`; see `coloured`."""

    def gain(hz: np.ndarray) -> np.ndarray:
        return np.exp(-0.5 * (hz / (DRIFT_HZ / 2)) ** 2)

    return coloured(n_rows, n_samples, sampling_rate_hz, gain, rng)


def alpha(
    peaks_hz: np.ndarray, n_samples: int, sampling_rate_hz: float, rng: np.random.Generator
) -> np.ndarray:
    """Draw waxing and waning rhythms.

    Parameters
    ----------
    peaks_hz : array of shape (n_rows,)
        Frequency of each; its bandwidth (standard deviation) is 0.6 Hz.
    n_samples : int
    sampling_rate_hz : float
    rng : Generator

    Returns
    -------
    array of shape (n_rows, n_samples), float32
        Variance 1 in expectation.
    """

    def gain(hz: np.ndarray) -> np.ndarray:
        return np.exp(-0.5 * ((hz - np.asarray(peaks_hz)[:, None]) / 0.6) ** 2)

    return coloured(len(peaks_hz), n_samples, sampling_rate_hz, gain, rng)


def blink_times(duration_s: float, per_minute: float, rng: np.random.Generator) -> np.ndarray:
    """Draw when the lid begins to close, s; blinks do not overlap and end within the run."""
    if per_minute <= 0:
        return np.zeros(0)
    pause_s = BLINK_S + BLINK_PAUSE_S
    mean_s = max(60 / per_minute - pause_s, 0.05)
    n_most = int(duration_s / pause_s) + 2
    onsets = np.cumsum(pause_s + rng.exponential(mean_s, n_most)) - pause_s
    return np.round(onsets[onsets < duration_s - BLINK_S], 3)


def blink_course(onsets_s: np.ndarray, n_samples: int, sampling_rate_hz: float) -> np.ndarray:
    """Return the lid's course, (n_samples,): 0 when open, 1 when closed; it closes faster."""
    course = np.zeros(n_samples)
    for onset_s in onsets_s:
        first = int(np.ceil(onset_s * sampling_rate_hz))
        last = min(int((onset_s + BLINK_S) * sampling_rate_hz) + 1, n_samples)
        share = (np.arange(first, last) / sampling_rate_hz - onset_s) / BLINK_S
        closing = share / BLINK_CLOSING
        opening = (1 - share) / (1 - BLINK_CLOSING)
        lid = np.clip(np.minimum(closing, opening), 0, 1)
        course[first:last] = np.sin(np.pi / 2 * lid) ** 2
    return course


def mains(
    line_hz: float, n_samples: int, sampling_rate_hz: float, rng: np.random.Generator
) -> np.ndarray:
    """Return the hum of the mains and its first harmonic, (n_samples,), variance 1."""
    times_s = np.arange(n_samples) / sampling_rate_hz
    phases = rng.uniform(0, 2 * np.pi, 2)
    hum = np.sqrt(2) * np.sin(2 * np.pi * line_hz * times_s + phases[0])
    if 2 * line_hz < sampling_rate_hz / 2:
        hum += 0.2 * np.sqrt(2) * np.sin(4 * np.pi * line_hz * times_s + phases[1])
    scaled: np.ndarray = hum / np.sqrt(1 + (2 * line_hz < sampling_rate_hz / 2) * 0.04)
    return scaled


def break_channels(
    data: np.ndarray,
    bad: dict[int, str],
    sampling_rate_hz: float,
    rng: np.random.Generator,
) -> None:
    """Break channels in place: ``flat`` ones stand still, ``noisy`` ones are 8 to 12 times louder.

    Parameters
    ----------
    data : array of shape (n_channels, n_samples)
    bad : dict of int to str
        Channel to what is wrong with it.
    sampling_rate_hz : float
    rng : Generator
    """
    for channel, fault in sorted(bad.items()):
        if fault == "flat":
            data[channel] = data[channel, 0]
            continue
        loud = coloured(1, data.shape[1], sampling_rate_hz, _crackle, rng)[0]
        data[channel] += rng.uniform(8, 12) * data[channel].std() * loud


def _crackle(hz: np.ndarray) -> np.ndarray:
    """Gain of a loose contact: louder below 5 Hz, and loud everywhere."""
    return 1 + 2 / (1 + (hz / 5) ** 2)
