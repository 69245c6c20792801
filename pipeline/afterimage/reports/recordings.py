"""What a report says of EEG and MEG recordings: quality of each run, responses, decoding over time.

Signals are in SI units (V, T, T/m), positions in m in the head frame: right, front, up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from afterimage.reports.scans import SkippedRun

EMPTY = np.empty(0)


@dataclass(frozen=True, eq=False)
class Sensors:
    """The channels that the responses consist of.

    Parameters
    ----------
    names : sequence of str, shape (n_units,)
    kinds : sequence of str, shape (n_units,)
        ``"eeg"``, ``"mag"`` or ``"grad"``.
    positions : array of shape (n_units, 3)
        NaN where not known.
    """

    names: Sequence[str]
    kinds: Sequence[str]
    positions: np.ndarray

    def of_kind(self, kind: str) -> np.ndarray:
        """Return the numbers of the channels of one kind."""
        return np.flatnonzero(np.asarray(self.kinds, dtype=str) == kind)

    @property
    def known_kinds(self) -> list[str]:
        """The kinds there are, in the order of this list: eeg, mag, grad, others."""
        found = dict.fromkeys(str(kind) for kind in self.kinds)
        order = ("eeg", "mag", "grad")
        return sorted(found, key=lambda kind: order.index(kind) if kind in order else len(order))


@dataclass(frozen=True, eq=False)
class Component:
    """One independent component.

    Parameters
    ----------
    label : str
        What it was taken for: ``"eye blink"``, ``"brain"``, ...; empty where nothing told.
    probability : float
        Of that label, 0 to 1; NaN where not known.
    removed : bool
    variance : float
        Share of the variance of the run, 0 to 1; NaN where not known.
    topography : array of shape (n_units,), optional
        Its weight at every channel.
    """

    label: str
    probability: float = float("nan")
    removed: bool = False
    variance: float = float("nan")
    topography: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class RecordingRun:
    """Quality of one cleaned run.

    Parameters
    ----------
    name : str
        What tells it from the subject's other runs.
    duration_s : float
    sampling_rate_hz : float
        After cleaning.
    bad_channels : mapping of str to str
        Channel name: why it was found bad.
    repaired : mapping of str to str
        Channel name: what was done about it, ``"interpolated"`` or ``"kept"``.
    bad_segments : array of shape (n_segments, 2)
        Start and end (s) of stretches that take no part in any fit.
    bad_share : float
        Share of the run that they cover, 0 to 1.
    bad_reasons : mapping of str to float
        Reason: share of the run that is bad for it.
    frequency_hz : array of shape (n_frequencies,)
    psd_before, psd_after : array of shape (n_units, n_frequencies), optional
        Power spectral density in SI units squared a Hz, before and after cleaning.
    components : sequence of Component
        Of the independent component analysis; empty without one.
    highpass_hz, lowpass_hz, line_freq_hz : float
        NaN where not known or not used.
    reference : str
    notes : sequence of str
        What the stage did or could not do, in sentences.
    """

    name: str
    duration_s: float = float("nan")
    sampling_rate_hz: float = float("nan")
    bad_channels: Mapping[str, str] = field(default_factory=dict)
    repaired: Mapping[str, str] = field(default_factory=dict)
    bad_segments: np.ndarray = field(default_factory=lambda: np.empty((0, 2)))
    bad_share: float = 0.0
    bad_reasons: Mapping[str, float] = field(default_factory=dict)
    frequency_hz: np.ndarray = field(default_factory=lambda: EMPTY)
    psd_before: np.ndarray | None = None
    psd_after: np.ndarray | None = None
    components: Sequence[Component] = ()
    highpass_hz: float = float("nan")
    lowpass_hz: float = float("nan")
    line_freq_hz: float = float("nan")
    reference: str = ""
    notes: Sequence[str] = ()

    @property
    def n_removed(self) -> int:
        """Components taken out."""
        return sum(component.removed for component in self.components)


@dataclass(frozen=True, eq=False)
class EvokedResponses:
    """Responses averaged over trials, and how far trials can be trusted.

    Parameters
    ----------
    times_s : array of shape (n_times,)
        From the onset of the stimulus.
    conditions : sequence of str, shape (n_conditions,)
        ``"all"`` is the mean over all trials.
    sensors : Sensors, optional
        Of these responses; default those of the recording.
    evoked : array of shape (n_conditions, n_units, n_times)
        Mean over trials in SI units, before whitening.
    n_trials : sequence of int, shape (n_conditions,)
    ceiling : array of shape (n_units, n_times), optional
        Largest correlation that a model of single trials could reach, at every channel and time.
    eigenvalues : mapping of str to array of shape (n_units,)
        Of the noise covariance, by what they are: ``"measured"``, ``"after whitening"``.
    shrinkage : float
        NaN where not known.
    dropped : mapping of str to int
        Reason: trials left out.
    n_kept : int
        Trials used; 0 where not known.
    notes : sequence of str
    """

    times_s: np.ndarray
    conditions: Sequence[str] = ()
    sensors: Sensors | None = None
    evoked: np.ndarray | None = None
    n_trials: Sequence[int] = ()
    ceiling: np.ndarray | None = None
    eigenvalues: Mapping[str, np.ndarray] = field(default_factory=dict)
    shrinkage: float = float("nan")
    dropped: Mapping[str, int] = field(default_factory=dict)
    n_kept: int = 0
    notes: Sequence[str] = ()


@dataclass(frozen=True, eq=False)
class TimeCurve:
    """A score over time, or over the number of trials averaged.

    Parameters
    ----------
    metric : str
        As in ``metrics.tsv``.
    x : array of shape (n,)
        Seconds from onset (middle of a sliding window, end of a growing one), or numbers of trials.
    value, low, high : array of shape (n,)
        The score and its 95 % interval.
    chance, chance_low, chance_high : array of shape (n,)
        From permuted pairs.
    kind : str
        ``"sliding"``, ``"growing"`` or ``"repetitions"``.
    width_s : float
        Length of a sliding window.
    start_s : float
        Where growing windows begin.
    p_corrected : array of shape (n,)
        Corrected for all windows.
    expected : array of shape (n,)
        What independent noise would give: repetitions only.
    n : array of shape (n,)
        Images behind each point: repetitions only.
    peak_s : tuple of float, optional
        Where the curve peaks, with its interval.
    """

    metric: str
    x: np.ndarray
    value: np.ndarray
    low: np.ndarray = field(default_factory=lambda: EMPTY)
    high: np.ndarray = field(default_factory=lambda: EMPTY)
    chance: np.ndarray = field(default_factory=lambda: EMPTY)
    chance_low: np.ndarray = field(default_factory=lambda: EMPTY)
    chance_high: np.ndarray = field(default_factory=lambda: EMPTY)
    kind: str = "sliding"
    width_s: float = float("nan")
    start_s: float = float("nan")
    p_corrected: np.ndarray = field(default_factory=lambda: EMPTY)
    expected: np.ndarray = field(default_factory=lambda: EMPTY)
    n: np.ndarray = field(default_factory=lambda: EMPTY)
    peak_s: tuple[float, float, float] | None = None


@dataclass(frozen=True, eq=False)
class Generalisation:
    """Scores of decoders trained at one time and tested at another.

    Parameters
    ----------
    train_s, test_s : array of shape (n_train,), (n_test,)
    value : array of shape (n_train, n_test)
    metric : str
    chance : float
        NaN where not known.
    threshold : float
        Largest value of the whole matrix that 95 % of the permutations stay below; NaN where not
        known.
    """

    train_s: np.ndarray
    test_s: np.ndarray
    value: np.ndarray
    metric: str
    chance: float = float("nan")
    threshold: float = float("nan")


@dataclass(frozen=True)
class Alarm:
    """The score of a window before the stimulus, where there can be nothing to decode.

    Parameters
    ----------
    what : str
        What was decoded, for example ``"retrieval, ridge"``.
    rings : bool
        The score is above chance.
    detail : str
        The numbers, in words.
    metric : str
        Of the curve that it belongs to, where there is one.
    """

    what: str
    rings: bool
    detail: str = ""
    metric: str = ""


@dataclass(frozen=True, eq=False)
class TimeResolved:
    """What is known of decoding over time.

    Parameters
    ----------
    curves : sequence of TimeCurve
    matrices : sequence of Generalisation
    alarms : sequence of Alarm
    block : str
        Feature block that was decoded.
    n_gallery : int
        Pictures to choose from; 0 where not known.
    notes : sequence of str
    """

    curves: Sequence[TimeCurve] = ()
    matrices: Sequence[Generalisation] = ()
    alarms: Sequence[Alarm] = ()
    block: str = ""
    n_gallery: int = 0
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class ConditionScore:
    """One score of a classifier of conditions.

    Parameters
    ----------
    contrast : str
        What is told apart: ``"face against house"``.
    method : str
        ``tangent_space``, ``csp_lda``, ...
    metric : str
        ``"auc"``, ``"accuracy"``, ...
    value : float
    low, high, chance, chance_low, chance_high : float, optional
    p : float, optional
    n : int, optional
        Trials tested.
    left_out : str
        What cross-validation left out: ``"run"``, ``"session"``, ``"person"``; with a leak, what
        is on both sides instead.
    window : str
        When it was decoded: ``"0 to 0.6 s"``.
    before_stimulus : bool
        Nothing of the stimulus can be in the brain yet: a leak alarm.
    leaks : bool
        Trials are split at random on purpose, to show what that is worth.
    """

    contrast: str
    method: str
    metric: str
    value: float
    low: float | None = None
    high: float | None = None
    chance: float | None = None
    chance_low: float | None = None
    chance_high: float | None = None
    p: float | None = None
    n: int | None = None
    left_out: str = ""
    window: str = ""
    before_stimulus: bool = False
    leaks: bool = False

    @property
    def rings(self) -> bool:
        """Whether something is decoded from before the stimulus: the interval is above chance."""
        known = self.low is not None and self.chance is not None
        return self.before_stimulus and known and (self.low or 0.0) > (self.chance or 0.0)


@dataclass(frozen=True, eq=False)
class Recordings:
    """Everything about the EEG or MEG recordings of one subject.

    Parameters
    ----------
    modality : str
        ``"eeg"`` or ``"meg"``.
    sensors : Sensors, optional
    runs : sequence of RecordingRun
        In the order they were recorded.
    skipped : sequence of SkippedRun
    responses : EvokedResponses, optional
    """

    modality: str = "eeg"
    sensors: Sensors | None = None
    runs: Sequence[RecordingRun] = ()
    skipped: Sequence[SkippedRun] = ()
    responses: EvokedResponses | None = None

    @property
    def bad_counts(self) -> dict[str, int]:
        """In how many runs each bad channel was bad."""
        counts: dict[str, int] = {}
        for run in self.runs:
            for name in run.bad_channels:
                counts[name] = counts.get(name, 0) + 1
        return counts
