"""Short motifs of EEG at random times in 1 / f noise: signals whose vocabulary is known.

Spindles, spike-and-wave, alpha, K-complexes and the others follow what textbooks of clinical EEG
describe (for example Niedermeyer's Electroencephalography) in their rhythm, length and course.

What differs: every motif has one stated course in time and frequency, an electrode sees its own
source and a little of its neighbours', and noise is Gaussian. Two motifs, the rising and the
falling chirp, have the same spectrum and differ in time alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from afterimage.simulate.meeg_noise import CORNER_HZ, coloured

MOTIFS = (
    "spindle", "spike_wave", "alpha", "k_complex", "chirp_up", "chirp_down", "muscle", "theta",
)  # fmt: skip
#: Motifs that are more frequent in each state of a recording; the others make up the rest.
STATES = (
    ("spindle", "chirp_up"), ("alpha", "chirp_down"),
    ("k_complex", "spike_wave"), ("muscle", "theta"),
)  # fmt: skip
#: Electrodes stand on a circle of this radius.
RADIUS_M = 0.09
#: Shortest and longest motif.
SHORTEST_S, LONGEST_S = 1.0, 3.0
#: Root mean square of the noise of an average electrode.
NOISE_V = 10e-6


@dataclass(frozen=True, eq=False)
class PlantedMotifs:
    """Recordings and what was planted in them.

    Attributes
    ----------
    values : ndarray of float32, (n_recordings, n_channels, n_times)
        Volts.
    motifs : ndarray of int8, (n_recordings, n_channels, n_times)
        Motif of the electrode's own source at each sample: 0 none, else 1 + place in `MOTIFS`.
    states : ndarray of int64, (n_recordings,)
        Place in `STATES`.
    positions_m : ndarray of float64, (n_channels, 3)
    sfreq_hz : float
    """

    values: NDArray[np.float32]
    motifs: NDArray[np.int8]
    states: NDArray[np.int64]
    positions_m: NDArray[np.float64]
    sfreq_hz: float


def planted_motifs(
    n_recordings: int,
    *,
    duration_s: float = 10.0,
    sfreq_hz: float = 200.0,
    n_channels: int = 20,
    channels: Sequence[int] | None = None,
    neighbour: float = 0.0,
    reference: Literal["none", "electrode", "average"] = "none",
    snr_db: float = 0.0,
    pause_s: float = 0.6,
    preference: float = 0.7,
    montage_state: int = 0,
    random_state: int,
) -> PlantedMotifs:
    """Draw recordings with motifs at random times and amplitudes.

    Sources follow each other with pauses of random length (exponential). A motif's root mean square
    over its own time is that of the source's noise times a random factor from 0.7 to 1.4 at 0 dB.
    Noise falls with frequency by an exponent, and has a gain, that belong to the electrode.

    Parameters
    ----------
    n_recordings : int
    duration_s, sfreq_hz : float
    n_channels : int
        Electrodes on the circle.
    channels : sequence of int, optional
        Those that are returned; default all. The average reference is over all of the circle.
    neighbour : float
        Amplitude at which an electrode sees the source of the next one, squared for the second, ...
    reference : str
        None, one electrode with noise of its own at half the amplitude, or the average.
    snr_db : float
        Power of a motif over that of the noise, all frequencies together.
    pause_s : float
        Mean time between two motifs of a source.
    preference : float
        Share of the motifs of a state's own pair; 0.25 makes states alike.
    montage_state, random_state : int
        Seeds of the electrodes, and of the recordings.
    """
    rng = np.random.default_rng(random_state)
    electrodes = np.random.default_rng((montage_state, n_channels))
    exponents = electrodes.uniform(0.8, 1.3, n_channels)
    gains = electrodes.uniform(0.7, 1.4, n_channels)
    kept = np.arange(n_channels) if channels is None else np.asarray(channels)
    angles = 2 * np.pi * np.arange(n_channels) / n_channels
    positions = np.stack([np.cos(angles), np.sin(angles), np.zeros(n_channels)], 1) * RADIUS_M
    mixing = _mixing(n_channels, neighbour) * gains[:, None]
    n_times = round(duration_s * sfreq_hz)
    states = rng.permutation(np.arange(n_recordings) % len(STATES))
    values = np.empty((n_recordings, len(kept), n_times), np.float32)
    motifs = np.empty((n_recordings, len(kept), n_times), np.int8)
    for recording, state in enumerate(states):
        sources = noise(exponents, n_times, sfreq_hz, rng)
        planted = np.zeros((n_channels, n_times), np.int8)
        for source in range(n_channels):
            kinds = np.full(len(MOTIFS), (1 - preference) / (len(MOTIFS) - 2))
            kinds[[MOTIFS.index(name) for name in STATES[state]]] = preference / 2
            planted[source] = _plant(sources[source], kinds, sfreq_hz, snr_db, pause_s, rng)
        seen = mixing @ sources
        if reference == "average":
            seen -= seen.mean(0)
        elif reference == "electrode":
            seen -= 0.5 * noise(np.ones(1), n_times, sfreq_hz, rng)
        values[recording] = NOISE_V * seen[kept]
        motifs[recording] = planted[kept]
    return PlantedMotifs(values, motifs, states, positions[kept], sfreq_hz)


def noise(
    exponents: NDArray[np.float64], n_times: int, sfreq_hz: float, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Draw noise of power 1 / f^exponent, variance 1: (n_rows, n_times)."""

    def gain(hz: NDArray[np.float64]) -> NDArray[np.float64]:
        faded: NDArray[np.float64] = np.maximum(hz, CORNER_HZ) ** (-exponents[:, None] / 2)
        return faded

    return coloured(len(exponents), n_times, sfreq_hz, gain, rng)


def motif_course(
    name: str, duration_s: float, sfreq_hz: float, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Draw one instance of a motif: (n_times,), root mean square 1; phase and rate vary a little."""
    n_times = round(duration_s * sfreq_hz)
    times_s = np.arange(n_times) / sfreq_hz
    share = (np.arange(n_times) + 0.5) / n_times
    around = rng.uniform(0.93, 1.07)
    phase = rng.uniform(0, 2 * np.pi)
    bell = np.sin(np.pi * share) ** 2
    edge = np.minimum(1, 8 * np.minimum(share, 1 - share))  # soft ends
    if name == "spindle":
        course = bell * np.sin(2 * np.pi * 13.5 * around * times_s + phase)
    elif name == "alpha":
        course = edge * np.sin(2 * np.pi * 9.5 * around * times_s + phase)
    elif name == "theta":  # saw-toothed: with harmonics
        cycle = (5.5 * around * times_s + phase / (2 * np.pi)) % 1
        course = edge * (2 * cycle - 1)
    elif name == "spike_wave":
        cycle = (3.0 * around * times_s + phase / (2 * np.pi)) % 1
        course = edge * (2.0 * np.exp(-0.5 * ((cycle - 0.15) / 0.03) ** 2) - np.sin(np.pi * cycle))
        course -= course.mean()
    elif name == "k_complex":
        course = -np.exp(-0.5 * ((share - 0.35) / 0.08) ** 2)
        course += 0.8 * np.exp(-0.5 * ((share - 0.65) / 0.13) ** 2)
    elif name == "muscle":
        high_hz = min(90.0, 0.45 * sfreq_hz)

        def band(hz: NDArray[np.float64]) -> NDArray[np.float64]:
            return ((hz > 30) & (hz < high_hz)).astype(float)

        course = edge * coloured(1, n_times, sfreq_hz, band, rng)[0]
    else:
        # The rate goes from 4 to 32 Hz in equal ratios; a falling chirp is a rising one turned round.
        rise = np.log(32 / 4) / duration_s
        course = edge * np.sin(2 * np.pi * 4 * around * np.expm1(rise * times_s) / rise + phase)
        course = course[::-1] if name == "chirp_down" else course
    scaled: NDArray[np.float64] = course / np.sqrt(np.mean(course**2))
    return scaled


def frame_motifs(
    motifs: NDArray[np.int8], frame: int, hop: int, n_frames: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return what fills most of each frame: a motif, or 0 for none; and how much of the frame.

    Parameters
    ----------
    motifs : ndarray of int8, (..., n_times)
    frame, hop : int
        Samples of a frame, and from one to the next; the first begins at sample 0.
    n_frames : int

    Returns
    -------
    motif : ndarray of int64, (..., n_frames)
    filled : ndarray of float64, (..., n_frames)
        Share of the frame, above 1 / 9.
    """
    starts = np.arange(n_frames) * hop
    ends = np.minimum(starts + frame, motifs.shape[-1])
    counts = []
    for kind in range(len(MOTIFS) + 1):
        total = np.cumsum(motifs == kind, axis=-1, dtype=np.int64)
        total = np.concatenate([np.zeros_like(total[..., :1]), total], axis=-1)
        counts.append(total[..., ends] - total[..., starts])
    return np.argmax(counts, axis=0), np.max(counts, axis=0) / (ends - starts)


def _mixing(n_channels: int, neighbour: float) -> NDArray[np.float64]:
    """How each electrode sees each source: (n_channels, n_sources), by distance on the circle."""
    apart = np.abs(np.arange(n_channels)[:, None] - np.arange(n_channels))
    mixing: NDArray[np.float64] = neighbour ** np.minimum(apart, n_channels - apart)
    return mixing


def _plant(
    source: NDArray[np.float32], kinds: NDArray[np.float64], sfreq_hz: float, snr_db: float,
    pause_s: float, rng: np.random.Generator,
) -> NDArray[np.int8]:  # fmt: skip
    """Add motifs to one source of variance 1, in place; return which one is where (n_times,)."""
    planted = np.zeros(len(source), np.int8)
    # A start before the recording, so that its first second is like any other.
    onset = -round(2 * sfreq_hz) + round(rng.exponential(pause_s) * sfreq_hz)
    while onset < len(source):
        kind = int(rng.choice(len(kinds), p=kinds))
        course = motif_course(MOTIFS[kind], rng.uniform(SHORTEST_S, LONGEST_S), sfreq_hz, rng)
        course = course * 10 ** (snr_db / 20) * np.exp(rng.uniform(np.log(0.7), np.log(1.4)))
        first, last = max(onset, 0), min(onset + len(course), len(source))
        if last > first:
            source[first:last] += course[first - onset : last - onset]
            planted[first:last] = kind + 1
        onset += len(course) + round(rng.exponential(pause_s) * sfreq_hz)
    return planted
