"""What tokenizers are given: one recording with its sensors, at one rate, on one scale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from afterimage.errors import InputError

UnknownPositions = Literal["skip", "template", "fail"]
Kind = Literal["eeg", "mag", "grad", "ieeg"]
#: Standardised values beyond this many deviations are clipped: what is there is no brain.
CLIP = 20.0
#: A channel whose deviation is below this share of the typical one of its kind is flat.
FLAT = 1e-3


@dataclass(frozen=True, eq=False)
class Signal:
    """A recording, or a window of one. Made by `new_signal`, which checks it.

    Attributes
    ----------
    values : ndarray of float32, (n_channels, n_times)
        V, T or T/m; without unit after `standardise`.
    sfreq_hz : float
    positions_m : ndarray of float32, (n_channels, 3)
        Where the sensors are, in m, head frame; NaN where unknown.
    orientations : ndarray of float32, (n_channels, 3)
        Unit vectors that magnetic sensors point along; 0 for electrodes and where unknown.
    kinds : ndarray of str, (n_channels,)
        ``eeg``, ``mag``, ``grad`` or ``ieeg``.
    names, regions : ndarray of str, (n_channels,)
        Name of the channel, and of the brain region it lies in; ``""`` where unknown.
    """

    values: NDArray[np.float32]
    sfreq_hz: float
    positions_m: NDArray[np.float32]
    orientations: NDArray[np.float32]
    kinds: NDArray[np.str_]
    names: NDArray[np.str_]
    regions: NDArray[np.str_]

    @property
    def n_channels(self) -> int:
        """Number of channels."""
        return len(self.values)

    @property
    def n_times(self) -> int:
        """Number of samples."""
        return self.values.shape[1]

    def crop(self, start: int, stop: int) -> Signal:
        """Return the samples from ``start`` to before ``stop``; nothing is copied."""
        return replace(self, values=self.values[:, start:stop])

    def pick(self, channels: NDArray[np.integer] | NDArray[np.bool_] | Sequence[int]) -> Signal:
        """Return some channels, by index or by a mask, in the order given."""
        at = np.asarray(channels)
        return replace(
            self, values=self.values[at], positions_m=self.positions_m[at],
            orientations=self.orientations[at], kinds=self.kinds[at], names=self.names[at],
            regions=self.regions[at],
        )  # fmt: skip


def new_signal(
    values: NDArray[np.floating],
    sfreq_hz: float,
    names: Sequence[str] | NDArray[np.str_],
    kinds: str | Sequence[str] | NDArray[np.str_] = "eeg",
    *,
    positions_m: NDArray[np.floating] | None = None,
    orientations: NDArray[np.floating] | None = None,
    regions: Sequence[str] | NDArray[np.str_] | None = None,
    where: str = "",
) -> Signal:
    """Make a signal, and refuse one that cannot be tokenised.

    Parameters
    ----------
    values : ndarray, (n_channels, n_times)
    sfreq_hz : float
    names : sequence of str, (n_channels,)
    kinds : str or sequence of str, (n_channels,)
        See `Signal`; one for all, or one a channel.
    positions_m, orientations : ndarray, (n_channels, 3), optional
        Default: unknown.
    regions : sequence of str, (n_channels,), optional
        Default: unknown.
    where : str
        Name of the recording, for messages.

    Raises
    ------
    InputError
        Shapes that do not agree, samples that are not finite, no channel, no rate, unknown kinds.
    """
    array = np.asarray(values, np.float32)
    n_channels = len(array)
    unknown = np.full((n_channels, 3), np.nan, np.float32)
    signal = Signal(
        values=array,
        sfreq_hz=float(sfreq_hz),
        positions_m=unknown if positions_m is None else np.asarray(positions_m, np.float32),
        orientations=np.zeros((n_channels, 3), np.float32)
        if orientations is None
        else np.nan_to_num(np.asarray(orientations, np.float32)),
        kinds=np.full(n_channels, kinds) if isinstance(kinds, str) else np.asarray(kinds, str),
        names=np.asarray(names, str),
        regions=np.full(n_channels, "") if regions is None else np.asarray(regions, str),
    )
    lengths = {len(getattr(signal, name)) for name in ("kinds", "names", "regions")}
    places = {signal.positions_m.shape, signal.orientations.shape}
    problem = ""
    if array.ndim != 2 or not array.size:
        problem = f"an array of shape {array.shape}"
    elif lengths != {n_channels} or places != {(n_channels, 3)}:
        problem = f"{n_channels} channels, but names, kinds or positions of another number"
    elif not np.isfinite(array).all():
        bad = signal.names[~np.isfinite(array).all(axis=1)]
        problem = f"values that are not finite in {', '.join(bad[:8].tolist())}"
    elif not (np.isfinite(sfreq_hz) and sfreq_hz > 0):
        problem = f"a sampling rate of {sfreq_hz} Hz"
    elif other := sorted(set(signal.kinds.tolist()) - set(get_args(Kind))):
        problem = f"channels of kind {', '.join(other)}"
    if problem:
        raise InputError(
            "a signal cannot be tokenised", where=where, found=problem,
            expected="channels by times of finite values, at a rate, of kind eeg, mag, grad or ieeg",
            fix="clean the recording first, or leave these channels out",
        )  # fmt: skip
    return signal


def place(signal: Signal, unknown: UnknownPositions) -> Signal:
    """Settle channels whose position is not known.

    Parameters
    ----------
    signal : Signal
    unknown : str
        ``skip``: leave them out; ``template``: EEG by name from the 10-05 system on an average
        head, others left out; ``fail``: refuse the recording.

    Raises
    ------
    InputError
        With ``fail``, or where no channel is left.
    """
    known: NDArray[np.bool_] = np.atleast_1d(np.isfinite(signal.positions_m).all(axis=1))
    if known.all():
        return signal
    lost = ", ".join(signal.names[~known][:8].tolist())
    if unknown == "template":
        positions = np.where(known[:, None], signal.positions_m, _template(signal))
        signal = replace(signal, positions_m=positions.astype(np.float32))
        known = np.atleast_1d(np.isfinite(positions).all(axis=1))
    if unknown == "fail" or not known.any():
        raise InputError(
            "positions of sensors are not known", found=lost,
            expected="a position for every channel, or for some where the rest may be left out",
            fix="give electrodes.tsv, or set unknown_positions to template or skip",
        )  # fmt: skip
    return signal if known.all() else signal.pick(known)


def _template(signal: Signal) -> NDArray[np.float64]:
    """Return positions by name on an average head, (n_channels, 3), m; NaN where there is none."""
    import mne

    montage = mne.channels.make_standard_montage("standard_1005")
    unique = [f"{number}" for number in range(signal.n_channels)]
    template = {name.lower(): name for name in montage.ch_names}
    positions = np.full((signal.n_channels, 3), np.nan)
    wanted = {
        template[name.lower()]: own
        for own, name, kind in zip(unique, signal.names.tolist(), signal.kinds, strict=True)
        if kind == "eeg" and name.lower() in template
    }
    if wanted:
        info = mne.create_info(list(wanted), 1.0, "eeg")
        info.set_montage(montage)  # brings the template to the head frame
        for channel in info["chs"]:
            positions[int(wanted[channel["ch_name"]])] = channel["loc"][:3]
    return positions


def rate_ratio(sfreq_hz: float, wanted_hz: float) -> Fraction:
    """Return the ratio of two rates: as many samples up, as many down."""
    return Fraction(wanted_hz / sfreq_hz).limit_denominator(1000)


def resample(signal: Signal, sfreq_hz: float) -> Signal:
    """Bring a signal to another rate, by a polyphase filter.

    Returns
    -------
    Signal
        ``ceil(n_times * sfreq_hz / signal.sfreq_hz)`` samples; the same signal at the same rate.
    """
    from scipy.signal import resample_poly

    if abs(signal.sfreq_hz - sfreq_hz) < 1e-6 * sfreq_hz:
        return signal
    ratio = rate_ratio(signal.sfreq_hz, sfreq_hz)
    values = resample_poly(signal.values, ratio.numerator, ratio.denominator, axis=1)
    return replace(signal, values=values.astype(np.float32), sfreq_hz=float(sfreq_hz))


def robust_scale(values: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return median and deviation (1.48 median absolute deviations) of each channel.

    They are taken from at most 20 000 samples, evenly spread.

    Returns
    -------
    centre, deviation : ndarray of float32, (n_channels,)
    """
    few = values[:, :: max(1, values.shape[1] // 20_000)]
    centre = np.median(few, axis=1)
    deviation = 1.4826 * np.median(np.abs(few - centre[:, None]), axis=1)
    return centre.astype(np.float32), deviation.astype(np.float32)


def scaling(signal: Signal) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return what `standardise` subtracts from each channel and divides it by.

    Channels are divided by the median deviation of those of their kind, so that ratios between
    them are kept.

    Returns
    -------
    centre, scale : ndarray of float32, (n_channels,)
        The scale of a flat channel is 0.

    Raises
    ------
    InputError
        If all channels are flat.
    """
    centre, deviation = robust_scale(signal.values)
    scale = np.zeros(signal.n_channels, np.float32)
    for kind in np.unique(signal.kinds):
        here = signal.kinds == kind
        moving = deviation[here][deviation[here] > 0]
        if len(moving):
            typical = np.median(moving)
            scale[here] = np.where(deviation[here] > FLAT * typical, typical, 0.0)
    if not scale.any():
        raise InputError(
            "a signal cannot be tokenised", found="flat channels only",
            expected="one channel or more that changes",
            fix="leave the recording out",
        )  # fmt: skip
    return centre, scale


def standardise(
    signal: Signal, how: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None
) -> Signal:
    """Bring a recording to one scale a sensor kind; ratios between its channels are kept.

    Values are clipped at 20; a flat channel is 0 throughout.

    Parameters
    ----------
    signal : Signal
    how : tuple of ndarray, (n_channels,), optional
        What `scaling` returned of the whole recording, for a window of it.
    """
    centre, scale = scaling(signal) if how is None else how
    values = (signal.values - centre[:, None]) / np.where(scale > 0, scale, 1.0)[:, None]
    values = np.clip(values, -CLIP, CLIP) * (scale > 0)[:, None]
    return replace(signal, values=values.astype(np.float32))


def window_starts(n_times: int, width: int, overlap: float = 0.0) -> NDArray[np.int64]:
    """Return the first samples of windows of ``width`` samples that share a part with the next.

    Raises
    ------
    InputError
        If the signal is shorter than one window.
    """
    if n_times < width:
        raise InputError(
            "a signal is shorter than a window", found=f"{n_times} samples",
            expected=f"{width} samples or more",
            fix="set a shorter window_s, or leave the recording out",
        )  # fmt: skip
    step = max(1, round(width * (1 - overlap)))
    return np.arange(0, n_times - width + 1, step, dtype=np.int64)


class WindowSource(Protocol):
    """Training windows, wherever they are: what a tokenizer is fitted on."""

    def __len__(self) -> int:
        """Return the number of windows."""

    def read(self, indices: NDArray[np.integer]) -> list[Signal]:
        """Return some windows, standardised by their recordings, at the tokenizer's rate."""


class ListSource:
    """Windows of signals in memory.

    Parameters
    ----------
    signals : sequence of Signal
        Standardised, at the tokenizer's rate.
    width : int
        Samples of a window.
    overlap : float
        Share of a window that the next one has too, from 0 to below 1.
    """

    def __init__(self, signals: Sequence[Signal], width: int, overlap: float = 0.0) -> None:
        self.signals, self.width = signals, width
        self._places = [
            (number, int(start))
            for number, signal in enumerate(signals)
            for start in window_starts(signal.n_times, width, overlap)
        ]

    def __len__(self) -> int:
        return len(self._places)

    def read(self, indices: NDArray[np.integer]) -> list[Signal]:
        """Return some windows; nothing is copied."""
        chosen = [self._places[int(index)] for index in indices]
        return [self.signals[number].crop(at, at + self.width) for number, at in chosen]
