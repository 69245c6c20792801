"""Time of one rapid EEG session: resampled once and cut by views, against epochs.resample.

63 channels, 1 kHz, 10 minutes, 3,000 overlapping trials of 1.2 s, one every 0.2 s, to 250 Hz with a
baseline. The usual way makes epochs at 1 kHz and resamples each; ours resamples the recording and
cuts it. Both resample by MNE-Python, epochs by FFT as they must. Run: python tests/benchmarks/bench_epochs.py
"""

from __future__ import annotations

import sys
import time

import numpy as np

from afterimage.preprocess.meeg.epochs import (
    baseline_means,
    epoch_window,
    place_epochs,
    strided_epochs,
)
from afterimage.preprocess.meeg.filtering import resample

N_UNITS, RATE_HZ, NEW_RATE_HZ, N_TRIALS = 63, 1000.0, 250.0, 3000
# A whole number of samples at both rates, or resampling would stretch the epochs.
TMIN_S, TMAX_S, BASELINE_S = -0.2, 0.999, (-0.2, 0.0)
#: Ratio that has to be reached.
FASTER = 5.0


def record() -> tuple[np.ndarray, np.ndarray]:
    """Return 10 minutes of low-passed noise, (n_units, n_samples) in V, and the onsets."""
    rng = np.random.default_rng(0)
    n = int(600 * RATE_HZ)
    spectrum = np.fft.rfft(rng.normal(size=(N_UNITS, n)), axis=1)
    frequencies = np.fft.rfftfreq(n, 1 / RATE_HZ)
    spectrum *= np.where(frequencies > 0.1, 1 / np.sqrt(np.maximum(frequencies, 0.1)), 0)
    spectrum *= np.exp(-((frequencies / 50) ** 4))
    signal = np.fft.irfft(spectrum, n, axis=1)
    samples = 400 + np.arange(N_TRIALS) * 196
    return 1e-5 * signal / signal.std(), samples


def usual(signal: np.ndarray, samples: np.ndarray) -> np.ndarray:
    """Epoch at 1 kHz, then resample the epochs."""
    import mne

    raw = mne.io.RawArray(signal, mne.create_info(N_UNITS, RATE_HZ, "eeg"))
    events = np.column_stack([samples, np.zeros(len(samples), int), np.ones(len(samples), int)])
    epochs = mne.Epochs(raw, events, tmin=TMIN_S, tmax=TMAX_S, baseline=BASELINE_S, preload=True)
    return np.asarray(epochs.resample(NEW_RATE_HZ).get_data(copy=False))


def ours(signal: np.ndarray, samples: np.ndarray) -> np.ndarray:
    """Resample once, then cut; the responses are copied out whole, as the usual way holds them."""
    import mne

    raw = mne.io.RawArray(signal, mne.create_info(N_UNITS, RATE_HZ, "eeg"))
    resampled = resample(raw, NEW_RATE_HZ).get_data().T.astype(np.float32)
    window = epoch_window(NEW_RATE_HZ, TMIN_S, TMAX_S - 0.003)
    placed = place_epochs(
        np.round(samples * NEW_RATE_HZ / RATE_HZ).astype(int), len(resampled), window
    )
    baseline = baseline_means(resampled, placed.first_samples, window, BASELINE_S)
    epochs = strided_epochs(resampled, placed.first_samples, window.n_times)
    return np.asarray(epochs - baseline[:, :, None])


def main() -> int:
    """Print both times, their ratio and the difference; 1 where the ratio is not reached."""
    import mne

    mne.set_log_level("error")
    signal, samples = record()
    seconds, found = {}, {}
    for name, function in (("ours", ours), ("usual", usual)):
        start = time.perf_counter()
        found[name] = function(signal.copy(), samples)
        seconds[name] = time.perf_counter() - start
    n = min(values.shape[2] for values in found.values())
    # The ends of resampled epochs ring: 50 ms of each are left out of the comparison.
    inner = slice(round(0.05 * NEW_RATE_HZ), n - round(0.05 * NEW_RATE_HZ))
    difference = np.abs(found["ours"][:, :, :n] - found["usual"][:, :, :n])
    scale = found["usual"].std()
    ratio = seconds["usual"] / seconds["ours"]
    print(
        f"ours {seconds['ours']:.1f} s, epochs.resample {seconds['usual']:.1f} s, {ratio:.1f} times; "
        f"largest difference {difference[:, :, inner].max() / scale:.3g} of the standard deviation "
        f"(median {np.median(difference[:, :, inner]) / scale:.2g}), "
        f"{difference.max() / scale:.3g} with the ends"
    )
    return int(ratio < FASTER)


if __name__ == "__main__":
    sys.exit(main())
