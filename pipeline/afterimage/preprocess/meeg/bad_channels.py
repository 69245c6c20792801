"""Bigdely-Shamlo et al. (2015), doi:10.3389/fninf.2015.00016: bad channels of a recording (PREP).

Seven criteria, robust over channels and windows of one second: no signal, deviating amplitude, no
correlation with any other channel, jumps that no other channel sees, high-frequency noise, slow
waves that no other channel sees, and no agreement with what random subsets of the others predict
(RANSAC, EEG with positions only). What differs from the paper: slow waves (0.1 to 1 Hz, windows of
4 s), which the high-pass filter of the other criteria hides and the filters of the cleaning keep;
the median over good channels is the reference until all bad ones are found; both limits of a robust
score must be passed by absolute ones too, so that a clean recording has no bad channel; and fewer
than `FEW` channels are judged by absolute amplitudes alone, since "deviating" means nothing among
four.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from afterimage.preprocess.meeg.quality import robust_deviation

if TYPE_CHECKING:
    import mne

#: With fewer channels of a kind than this there is no population to compare with.
FEW = 8
#: Amplitudes (SI units, robust deviation above 1 Hz) that the head cannot have: below the first
#: nothing is connected, above the second it is noise.
PLAUSIBLE = {"eeg": (5e-8, 3e-4), "mag": (1e-14, 2e-11), "grad": (5e-13, 1e-9)}

_MAX_WINDOWS = 300
_Z_DEVIATION = 5.0
_Z_NOISE = 5.0
_MIN_CORRELATION = 0.4
_MIN_RANSAC = 0.75
_MAX_JUMPS = 0.1
# Slow waves: their rate is kept low, so that they cost little; electrodes drift alone now and then.
_SLOW_HZ = 10.0
_SLOW_WINDOW_S = 4.0
_SLOW_RATIO = 4.0
_MAX_SLOW = 0.15


@dataclass
class BadChannels:
    """Channels found bad.

    Attributes
    ----------
    reasons : dict
        Name to why, reasons joined by ", ".
    scores : dict of dict
        Criterion to channel to value: ``deviation`` and ``noise`` (robust z), ``correlation`` (best
        one with another channel, median over windows), ``flat``, ``jumps`` and ``slow`` (share of
        windows) and ``ransac`` (share of windows that the others do not predict).
    """

    reasons: dict[str, str] = field(default_factory=dict)
    scores: dict[str, dict[str, float]] = field(default_factory=dict)

    def add(self, names: list[str], criterion: str, values: np.ndarray, bad: np.ndarray) -> None:
        """Take in the values of one criterion, and which of them are bad."""
        self.scores.setdefault(criterion, {}).update(zip(names, values.tolist(), strict=True))
        for name in np.array(names)[bad].tolist():
            reasons = self.reasons.get(name, "").split(", ")
            self.reasons[name] = ", ".join([*filter(None, reasons), criterion])


def find_bad_channels(
    raw: mne.io.BaseRaw, *, ransac: bool = True, random_state: int = 0
) -> BadChannels:
    """Find the channels of the brain that cannot be used.

    Parameters
    ----------
    raw : mne.io.BaseRaw
        Loaded, line noise taken out, in V, T and T/m; not changed. Channels in ``info["bads"]`` are
        taken as bad ("given") and inform no statistic.
    ransac : bool
        Whether channels are also predicted from subsets of the others.
    random_state : int
        Seed of the subsets.

    Returns
    -------
    BadChannels
    """
    import mne

    found = BadChannels()
    given = set(raw.info["bads"])
    rate_hz = float(raw.info["sfreq"])
    for kind in ("eeg", "mag", "grad"):
        chosen = {"eeg": kind == "eeg", "meg": kind if kind != "eeg" else False}
        picks = mne.pick_types(raw.info, **chosen, exclude=[])
        if not len(picks):
            continue
        names = [raw.ch_names[pick] for pick in picks]
        for name in names:
            if name in given:
                found.reasons[name] = "given"
        signal = raw.get_data(picks=picks)
        _without_signal(signal, names, kind, found)
        usable = np.array([name not in found.reasons for name in names])
        if not usable.any():
            continue
        broad = _high_pass(signal[usable], rate_hz)
        left = [name for name in names if name not in found.reasons]
        if len(left) < FEW:
            _implausible(broad, left, kind, found)
            continue
        _compare(broad, _slow_waves(signal[usable], rate_hz), left, kind, rate_hz, found)
        if ransac and kind == "eeg" and len(left) >= 2 * FEW:
            _predict(raw, broad, left, rate_hz, found, random_state)
    return found


def _high_pass(signal: np.ndarray, rate_hz: float) -> np.ndarray:
    """Take out what is slower than 1 Hz."""
    from scipy.signal import butter, sosfiltfilt

    if signal.shape[1] < 3 * rate_hz:
        return signal - signal.mean(axis=1, keepdims=True)
    filtered: np.ndarray = sosfiltfilt(butter(2, 1.0, "high", fs=rate_hz, output="sos"), signal)
    return filtered


def _slow_waves(signal: np.ndarray, rate_hz: float) -> np.ndarray | None:
    """Return 0.1 to 1 Hz at `_SLOW_HZ`; None where the recording is too short to see them."""
    from scipy.signal import butter, sosfiltfilt

    if signal.shape[1] < 5 * _SLOW_WINDOW_S * rate_hz:
        return None
    # Means over blocks are enough of a filter for what follows below 1 Hz.
    step = max(1, int(rate_hz / _SLOW_HZ))
    n_blocks = signal.shape[1] // step
    coarse = signal[:, : n_blocks * step].reshape(len(signal), n_blocks, step).mean(axis=2)
    sos = butter(2, [0.1, 1.0], "band", fs=rate_hz / step, output="sos")
    filtered: np.ndarray = sosfiltfilt(sos, coarse - coarse.mean(axis=1, keepdims=True))
    return filtered


def _without_signal(signal: np.ndarray, names: list[str], kind: str, found: BadChannels) -> None:
    """Find channels with values that are no numbers, or that do not vary."""
    finite = np.isfinite(signal).all(axis=1)
    n_windows = max(1, min(_MAX_WINDOWS, signal.shape[1] // 50))
    n_samples = signal.shape[1] // n_windows
    windows = signal[:, : n_windows * n_samples].reshape(len(signal), n_windows, n_samples)
    with np.errstate(invalid="ignore"):
        flat = (np.ptp(windows, axis=2) < 0.2 * PLAUSIBLE[kind][0]).mean(axis=1)
    fresh = np.array([name not in found.reasons for name in names])
    found.add(names, "not finite", (~finite).astype(float), ~finite & fresh)
    found.add(names, "flat", flat, (flat > 0.3) & finite & fresh)
    del found.scores["not finite"]


def _implausible(signal: np.ndarray, names: list[str], kind: str, found: BadChannels) -> None:
    """Judge each of few channels by its own amplitude, and by that of the others."""
    amplitude = robust_deviation(signal)
    low, high = PLAUSIBLE[kind]
    log_amplitude = np.log10(np.maximum(amplitude, 1e-30))
    # Ten times the amplitude of the others is no difference between places on the head.
    ratio = log_amplitude - np.median(log_amplitude)
    bad = (amplitude < low) | (amplitude > high) | (np.abs(ratio) > 1)
    found.add(names, "deviation", ratio, bad)


def _robust_z(values: np.ndarray, good: np.ndarray) -> np.ndarray:
    """Score values by median and interquartile range of the good ones."""
    low, middle, high = np.percentile(values[good], [25, 50, 75])
    z: np.ndarray = (values - middle) / max(0.7413 * (high - low), 1e-12)
    return z


def _compare(
    signal: np.ndarray,
    slow: np.ndarray | None,
    names: list[str],
    kind: str,
    rate_hz: float,
    found: BadChannels,
) -> None:
    """Compare each channel with all others: amplitude, noise, correlation, slow waves.

    The statistics of the others must not be spoiled by bad ones, so that all is done twice: the
    second time by what was good the first time.
    """
    from scipy.signal import butter, sosfiltfilt

    good = np.ones(len(names), dtype=bool)
    fast = None
    if rate_hz > 110:
        fast = sosfiltfilt(butter(4, 45.0, "high", fs=rate_hz, output="sos"), signal)
    for _ in range(3):
        referenced = signal - np.median(signal[good], axis=0) if kind == "eeg" else signal
        log_amplitude = np.log(np.maximum(robust_deviation(referenced), 1e-30))
        deviation = _robust_z(log_amplitude, good)
        apart = np.abs(log_amplitude - np.median(log_amplitude[good])) > np.log(2.0)
        low = deviation < 0
        loud = (np.abs(deviation) > _Z_DEVIATION) & apart
        best = _best_correlation(_below_40_hz(referenced, rate_hz), int(rate_hz), good)
        correlation = np.median(best, axis=0)
        lone = (correlation < _MIN_CORRELATION) | ((best < _MIN_CORRELATION).mean(axis=0) > 0.4)
        jumps = _jumps(referenced, int(rate_hz), good, best, _Z_DEVIATION, 3.0)
        # A quiet channel near the reference electrode agrees with the others; a dead one does not.
        loud &= ~low | (correlation < 0.7)
        noise, noisy = np.zeros(len(names)), np.zeros(len(names), dtype=bool)
        if fast is not None:
            share = _fast_share(referenced, fast, good, kind)
            noise = _robust_z(np.log(share), good)
            noisy = (noise > _Z_NOISE) & (share > 3 * np.median(share[good]))
        waves = np.zeros(len(names))
        if slow is not None:
            apart_slow = slow - np.median(slow[good], axis=0) if kind == "eeg" else slow
            n_window = int(_SLOW_WINDOW_S * _SLOW_HZ)
            alike = _best_correlation(apart_slow, n_window, good)
            waves = _jumps(apart_slow, n_window, good, alike, 0.0, _SLOW_RATIO)
        now = ~(loud | lone | noisy | (jumps > _MAX_JUMPS) | (waves > _MAX_SLOW))
        if now.sum() < FEW or (now == good).all():
            break
        good = now
    found.add(names, "deviation", deviation, loud)
    found.add(names, "correlation", correlation, lone)
    found.add(names, "jumps", jumps, jumps > _MAX_JUMPS)
    if slow is not None:
        found.add(names, "slow", waves, waves > _MAX_SLOW)
    if fast is not None:
        found.add(names, "noise", noise, noisy)


def _fast_share(
    referenced: np.ndarray, fast: np.ndarray, good: np.ndarray, kind: str
) -> np.ndarray:
    """Return the amplitude above 45 Hz over that of the whole, array of shape (n_channels,)."""
    if kind == "eeg":
        fast = fast - np.median(fast[good], axis=0)
    share: np.ndarray = robust_deviation(fast) / np.maximum(robust_deviation(referenced), 1e-30)
    return np.maximum(share, 1e-12)


def _windows(n_times: int, n_samples: int) -> list[slice]:
    """Return windows of a number of samples, spread over the recording."""
    n_windows = max(1, n_times // n_samples)
    chosen = np.unique(np.linspace(0, n_windows - 1, min(n_windows, _MAX_WINDOWS)).astype(int))
    return [slice(n * n_samples, (n + 1) * n_samples) for n in chosen.tolist()]


def _below_40_hz(signal: np.ndarray, rate_hz: float) -> np.ndarray:
    """Take out noise that all amplifiers have: what is asked for is agreement."""
    from scipy.signal import butter, sosfiltfilt

    if rate_hz <= 90 or signal.shape[1] <= 3 * rate_hz:
        return signal
    filtered: np.ndarray = sosfiltfilt(butter(4, 40.0, "low", fs=rate_hz, output="sos"), signal)
    return filtered


def _best_correlation(signal: np.ndarray, n_samples: int, good: np.ndarray) -> np.ndarray:
    """Return the correlation with the two most alike good channels, (n_windows, n_channels)."""
    best = []
    for window in _windows(signal.shape[1], n_samples):
        part = signal[:, window] - signal[:, window].mean(axis=1, keepdims=True)
        norm = np.linalg.norm(part, axis=1, keepdims=True)
        part = part / np.maximum(norm, 1e-30)
        matrix = np.abs(part @ part[good].T)
        matrix[np.flatnonzero(good), np.arange(int(good.sum()))] = 0
        best.append(np.partition(matrix, -2, axis=1)[:, -2:].mean(axis=1))
    return np.array(best)


def _jumps(
    signal: np.ndarray,
    n_samples: int,
    good: np.ndarray,
    correlation: np.ndarray,
    spreads: float,
    ratio: float,
) -> np.ndarray:
    """Return the share of windows in which a channel goes its own way, far from the others.

    Far is more than ``spreads`` robust deviations, and than ``ratio`` times the median, over
    channels. A blink is as large, but neighbours see it too.
    """
    windows = _windows(signal.shape[1], n_samples)
    span = np.log([np.ptp(signal[:, window], axis=1) + 1e-30 for window in windows])
    low, middle, high = np.percentile(span[:, good], [25, 50, 75], axis=1)[:, :, None]
    far = span - middle > np.maximum(spreads * 0.7413 * (high - low), np.log(ratio))
    share: np.ndarray = (far & (correlation < 0.8)).mean(axis=0)
    return share


def _predict(
    raw: mne.io.BaseRaw,
    signal: np.ndarray,
    names: list[str],
    rate_hz: float,
    found: BadChannels,
    random_state: int,
) -> None:
    """Find channels that random quarters of the others do not predict (RANSAC of autoreject)."""
    import mne
    from autoreject import Ransac

    good = np.array([name not in found.reasons for name in names])
    kept = [name for name, use in zip(names, good, strict=True) if use]
    places = np.array([raw.info["chs"][raw.ch_names.index(name)]["loc"][:3] for name in kept])
    if len(kept) < 2 * FEW or not np.isfinite(places).all() or not places.any(axis=1).all():
        return
    windows = _windows(signal.shape[1], int(rate_hz))
    windows = [windows[n] for n in np.unique(np.linspace(0, len(windows) - 1, 100).astype(int))]
    chosen = signal[good]
    chosen = chosen - np.median(chosen, axis=0)
    step = max(1, int(rate_hz / 100))
    data = np.stack([chosen[:, window][:, ::step] for window in windows])
    info = mne.create_info(kept, rate_hz / step, "eeg")
    montage = mne.channels.make_dig_montage(
        dict(zip(kept, places, strict=True)), coord_frame="head"
    )
    epochs = mne.EpochsArray(data, info, verbose="error")
    epochs.set_montage(montage, verbose="error")
    judge = Ransac(
        n_resample=50, min_channels=0.25, min_corr=_MIN_RANSAC, unbroken_time=0.4,
        random_state=random_state, verbose=False,
    )  # fmt: skip
    judge.fit(epochs)
    unlike = (judge.corr_ < _MIN_RANSAC).mean(axis=0)
    found.add(kept, "ransac", unlike, np.isin(kept, judge.bad_chs_))


def score_arrays(found: BadChannels, names: list[str]) -> Mapping[str, np.ndarray]:
    """Return the scores as arrays in the order of ``names``, NaN where one was not computed."""
    return {
        criterion: np.array([values.get(name, np.nan) for name in names])
        for criterion, values in found.scores.items()
    }
