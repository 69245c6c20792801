"""Made-up EEG whose sources, blinks and responses are known, for tests of cleaning."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

NAMES = [
    "Fp1", "Fp2", "F7", "F3", "Fz", "F4", "F8", "FC5", "FC1", "FC2", "FC6", "T7",
    "C3", "Cz", "C4", "T8", "CP5", "CP1", "CP2", "CP6", "P7", "P3", "Pz", "P4",
    "P8", "PO3", "PO4", "O1", "Oz", "O2", "AF3", "AF4",
]  # fmt: skip


def template() -> Any:
    """Return 10-05 positions; MNE renamed them."""
    import mne

    new = "colin27_1005" in mne.channels.get_builtin_montages()
    return mne.channels.make_standard_montage("colin27_1005" if new else "standard_1005")


def positions(names: list[str]) -> np.ndarray:
    """Template positions, (n_channels, 3) in m."""
    places = template().get_positions()["ch_pos"]
    return np.array([places[name] for name in names])


def topography(places: np.ndarray, at: np.ndarray, width_m: float) -> np.ndarray:
    """Weights of a source below ``at``."""
    return np.exp(-((places - at) ** 2).sum(axis=1) / (2 * width_m**2))


def make_eeg(
    seed: int = 0, duration_s: float = 120.0, rate_hz: float = 250.0, blinks: bool = True
) -> SimpleNamespace:
    """Return EEG as ``raw`` and its parts: ``background``, ``blink``, ``evoked``, and ``onsets_s``.

    Thirty sources with 1/f spectra and an alpha rhythm at the back, blinks of 150 microvolt about
    every 4 s, a response of 5 microvolt at the back 0.1 to 0.3 s after each onset, sensor noise.
    """
    import mne

    rng = np.random.default_rng(seed)
    places, n_times = positions(NAMES), int(duration_s * rate_hz)
    frequency = np.fft.rfftfreq(n_times, 1 / rate_hz)
    shape = 1 / np.maximum(frequency, 0.5) ** 0.75
    noise = np.fft.rfft(rng.standard_normal((30, n_times))) * shape
    sources = np.fft.irfft(noise, n_times)
    sources /= sources.std(axis=1, keepdims=True)
    mixing = np.array(
        [topography(places, places[rng.integers(len(places))], 0.05) for _ in range(30)]
    ).T * rng.choice([-1, 1], (1, 30))  # fmt: skip
    background = 5e-6 * mixing @ sources
    times_s = np.arange(n_times) / rate_hz
    alpha = np.sin(2 * np.pi * 10 * times_s) * np.abs(np.sin(2 * np.pi * 0.1 * times_s))
    back = topography(places, places[NAMES.index("Oz")], 0.04)
    background += 8e-6 * np.outer(back, alpha)
    blink_s = np.cumsum(rng.uniform(2.5, 5.5, int(duration_s / 4)))
    blink_s = blink_s[blink_s < duration_s - 1]
    course = sum(np.exp(-((times_s - at) ** 2) / (2 * 0.07**2)) for at in blink_s)
    front = topography(places, places[[0, 1]].mean(axis=0), 0.045)
    blink = 150e-6 * np.outer(front / front.max(), course) * blinks
    onsets_s = np.arange(1.0, duration_s - 1.5, 0.9) + rng.uniform(0, 0.1)
    wave = sum(
        np.exp(-((times_s - at - 0.17) ** 2) / (2 * 0.03**2))
        * np.sin(2 * np.pi * 6 * (times_s - at - 0.1))
        for at in onsets_s
    )
    evoked = 5e-6 * np.outer(topography(places, places[NAMES.index("PO4")], 0.05), wave)
    signal = background + blink + evoked + 1e-6 * rng.standard_normal(background.shape)
    raw = mne.io.RawArray(signal, mne.create_info(NAMES, rate_hz, "eeg"), verbose="error")
    raw.set_montage(template())
    return SimpleNamespace(
        raw=raw, background=background, blink=blink, evoked=evoked, onsets_s=onsets_s,
        course=course, wave=wave,
    )  # fmt: skip


def add_artifacts(eeg: SimpleNamespace, seed: int = 0) -> dict[str, np.ndarray]:
    """Add blinks, glances to the side, a heart and a jaw to made-up EEG; return their courses.

    Every event has its own size. Glances are steps of the eyes' dipole that end where they began.
    """
    from scipy.signal import butter, sosfiltfilt
    from scipy.special import expit

    raw, rng = eeg.raw, np.random.default_rng([seed, 7])
    rate_hz, n_times = float(raw.info["sfreq"]), raw.n_times
    times_s, last_s = np.arange(n_times) / rate_hz, n_times / rate_hz - 1
    places = positions(NAMES)

    def moments(pauses_s: np.ndarray) -> np.ndarray:
        at = np.cumsum(pauses_s)
        return at[at < last_s]

    def bell(at: float, width_s: float) -> np.ndarray:
        return np.exp(-((times_s - at) ** 2) / (2 * width_s**2))

    def near(name: str, width_m: float, outside: float = 1.0) -> np.ndarray:
        return topography(places, places[NAMES.index(name)] * outside, width_m)

    n = int(last_s)
    blink = sum(rng.uniform(0.6, 1.4) * bell(at, 0.07) for at in moments(rng.uniform(2.5, 5.5, n)))
    gaze = np.zeros(n_times)
    for start in moments(0.9 + rng.exponential(2.5, n)):
        length_s, size = rng.uniform(0.3, 0.8), rng.uniform(0.4, 1.0) * rng.choice([-1, 1])
        gaze += size * expit((times_s - start) / 0.008)
        gaze -= size * expit((times_s - start - length_s) / 0.008)
    heart = sum(
        rng.uniform(0.8, 1.2) * (bell(at, 0.012) - 0.25 * bell(at + 0.03, 0.015))
        + 0.2 * bell(at + 0.25, 0.04)
        for at in moments(rng.normal(0.9, 0.06, 2 * n))
    )
    jaw = sosfiltfilt(
        butter(4, [20, 100], "band", fs=rate_hz, output="sos"), rng.standard_normal(n_times)
    )
    jaw *= sum(bell(at, 0.5) for at in rng.uniform(0, last_s, n // 8)) / jaw.std()
    front = topography(places, places[[0, 1]].mean(axis=0), 0.045)
    neck = places @ np.array([0.6, -0.3, -0.8])
    planted = {
        "blink": (blink, 150e-6, front),
        "gaze": (gaze, 60e-6, near("F8", 0.04, 1.05) - near("F7", 0.04, 1.05)),
        "heart": (heart, 12e-6, neck - neck.mean()),
        "jaw": (jaw, 25e-6, near("T7", 0.03, 1.1)),
    }
    for course, size_v, weights in planted.values():
        raw._data += size_v * np.outer(weights / np.abs(weights).max(), course)
    return {name: course for name, (course, _, _) in planted.items()}


def write_bids(root: Path, raw: object, run: str, onsets_s: np.ndarray, **options: object) -> Path:
    """Write a run as BIDS with events of two kinds; return the recording."""
    import mne
    import mne_bids

    raw = raw.copy()  # type: ignore[attr-defined]
    raw.set_annotations(
        mne.Annotations(onsets_s, 0.1, [f"kind{n % 2}" for n in range(len(onsets_s))])
    )
    raw.info["line_freq"] = 50
    place = mne_bids.BIDSPath(root=root, subject="01", task="view", run=run, datatype="eeg")
    settings = {"format": "BrainVision", "overwrite": True} | options
    written = mne_bids.write_raw_bids(raw, place, allow_preload=True, verbose="error", **settings)
    return Path(written.fpath)
