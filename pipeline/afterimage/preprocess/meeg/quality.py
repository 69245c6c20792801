"""What a report shows of one cleaned EEG or MEG run: spectra, channels, segments, ICA.

`quality_dataset` puts together an ``xarray.Dataset``, written as ``_desc-meeg_quality.nc``:

=========================  ====================  =================================================
variable                   dims                  what
=========================  ====================  =================================================
``psd_before``             (unit, frequency)     power density as recorded, SI unit squared per Hz
``psd_after``              (unit, frequency)     the same after cleaning; NaN above its Nyquist rate
``bad``                    (unit)                uint8, 1 where the channel was bad
``bad_reason``             (unit)                str, reasons joined by ", "; "" where good
``repaired``               (unit)                str: "interpolated", "kept" or "" where good
``amplitude_before``       (unit)                robust deviation (1.4826 MAD), SI unit
``amplitude_after``        (unit)                the same after cleaning
``score_<criterion>``      (unit)                float, one a criterion of bad channels; NaN: not used
``bad_segments``           (segment, bound)      start and end in s from the start of the series
``bad_segment_reason``     (segment)             str
``bad_fraction``           (reason)              share of the run that is bad for this reason
``ica_label``              (component)           str: brain, eye blink, heart beat, muscle ... or other
``ica_probability``        (component)           certainty of the label, 0 to 1; NaN: by correlation
``ica_excluded``           (component)           uint8, 1 where it was taken out
``ica_explained_variance`` (component)           share of variance of the run
``ica_topography``         (component, unit)     mixing weights, SI unit; NaN for channels not used
=========================  ====================  =================================================

Coordinates: ``unit`` (name), ``kind`` (eeg, mag or grad), ``x y z`` (m, head frame; NaN unknown),
``frequency`` (Hz), ``reason`` (str). Without ICA there are 0 components. Attributes: ``source``,
``problem`` ("" unless the run was left out, then all dimensions have length 0), ``duration_s``,
``sampling_rate_hz``, ``recorded_rate_hz``, ``highpass_hz``, ``lowpass_hz``, ``line_freq_hz`` (0: none
known), ``reference``, ``ica_method`` ("" without), ``n_trials``, ``n_bad_channels``,
``bad_segment_fraction``, ``notes`` (sentences joined by ";").
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import xarray

    from afterimage.preprocess.meeg.ica import Components


@dataclass(frozen=True)
class Units:
    """The channels of a run.

    Attributes
    ----------
    name, kind : array of str, shape (n_units,)
        Kind is ``eeg``, ``mag`` or ``grad``.
    positions : array of shape (n_units, 3), float32
        In m, head frame; NaN where unknown.
    orientations : array of shape (n_units, 3), float32
        Unit vectors, head frame: what a magnetometer points along, what a planar gradiometer
        differentiates along; 0 for electrodes and where unknown.
    """

    name: np.ndarray
    kind: np.ndarray
    positions: np.ndarray
    orientations: np.ndarray

    def __len__(self) -> int:
        return len(self.name)

    @classmethod
    def empty(cls) -> Units:
        """Return no channels, for a run that was left out."""
        nowhere = np.zeros((0, 3), np.float32)
        return cls(np.zeros(0, "U1"), np.zeros(0, "U4"), nowhere, nowhere)


@dataclass
class Found:
    """What was found in a run; filled step by step while it is cleaned.

    Attributes
    ----------
    psd_before, psd_after : array of shape (n_units, n_frequencies)
    frequencies_hz : array of shape (n_frequencies,)
    amplitude_before, amplitude_after : array of shape (n_units,)
    reasons : dict
        Bad channel to the reasons why.
    repaired : dict
        Bad channel to ``interpolated`` or ``kept``.
    scores : dict of array of shape (n_units,)
        Criterion to its value for each channel.
    segments : list of tuple (start_s, end_s, reason)
    fractions : dict
        Reason to share of the run; their union as ``any``.
    components : Components or None
    """

    psd_before: np.ndarray
    psd_after: np.ndarray
    frequencies_hz: np.ndarray
    amplitude_before: np.ndarray
    amplitude_after: np.ndarray
    reasons: dict[str, str] = field(default_factory=dict)
    repaired: dict[str, str] = field(default_factory=dict)
    scores: dict[str, np.ndarray] = field(default_factory=dict)
    segments: list[tuple[float, float, str]] = field(default_factory=list)
    fractions: dict[str, float] = field(default_factory=dict)
    components: Components | None = None

    @classmethod
    def empty(cls) -> Found:
        """Return nothing, for a run that was left out."""
        none, table = np.zeros(0), np.zeros((0, 0))
        return cls(table, table, none, none, none)


def robust_deviation(signal: np.ndarray) -> np.ndarray:
    """Return 1.4826 times the median absolute deviation of each row of (n_units, n_times)."""
    if not signal.size:
        return np.zeros(len(signal))
    middle = np.median(signal, axis=1, keepdims=True)
    deviation: np.ndarray = 1.4826 * np.median(np.abs(signal - middle), axis=1)
    return deviation


def power_spectrum(
    signal: np.ndarray, sampling_rate_hz: float, frequencies_hz: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Estimate the power density of each channel by Welch's method, windows of 2 s, median.

    Parameters
    ----------
    signal : array of shape (n_units, n_times)
        In SI units.
    sampling_rate_hz : float
    frequencies_hz : array of shape (n_frequencies,) or None
        Frequencies to give the density at; None: those of the windows up to 200 Hz.

    Returns
    -------
    psd : array of shape (n_units, n_frequencies), float32
        SI unit squared per Hz; NaN above the Nyquist frequency.
    frequencies_hz : array of shape (n_frequencies,)
    """
    from scipy.signal import welch

    n_window = max(2, min(signal.shape[1], round(2 * sampling_rate_hz)))
    found, psd = welch(
        signal, sampling_rate_hz, nperseg=n_window, average="median", detrend="linear"
    )
    if frequencies_hz is None:
        keep = found <= 200
        return psd[:, keep].astype(np.float32), found[keep]
    at = [np.interp(frequencies_hz, found, row, right=np.nan) for row in psd]
    return np.array(at, dtype=np.float32).reshape(len(psd), -1), frequencies_hz


def quality_dataset(
    units: Units, found: Found, notes: Sequence[str], attributes: Mapping[str, Any]
) -> xarray.Dataset:
    """Put together what a report shows of a run.

    Parameters
    ----------
    units : Units
    found : Found
    notes : sequence of str
        Sentences for the report.
    attributes : dict
        The other attributes of the module's description.

    Returns
    -------
    xarray.Dataset
        As the module's description says.
    """
    import xarray

    names = units.name.tolist()
    fractions = {name: share for name, share in found.fractions.items() if name != "any"}
    bounds = np.array([part[:2] for part in found.segments], dtype=np.float64).reshape(-1, 2)
    variables: dict[str, Any] = {
        "psd_before": (("unit", "frequency"), found.psd_before),
        "psd_after": (("unit", "frequency"), found.psd_after),
        "bad": ("unit", np.array([name in found.reasons for name in names], dtype=np.uint8)),
        "bad_reason": ("unit", _text(found.reasons.get(name, "") for name in names)),
        "repaired": ("unit", _text(found.repaired.get(name, "") for name in names)),
        "amplitude_before": ("unit", found.amplitude_before),
        "amplitude_after": ("unit", found.amplitude_after),
        "bad_segments": (("segment", "bound"), bounds),
        "bad_segment_reason": ("segment", _text(part[2] for part in found.segments)),
        "bad_fraction": ("reason", np.array(list(fractions.values()), dtype=np.float64)),
        **{f"score_{name}": ("unit", values) for name, values in found.scores.items()},
        **_component_variables(units, found.components),
    }
    coordinates = {
        "unit": _text(names),
        "kind": ("unit", _text(units.kind)),
        **{axis: ("unit", units.positions[:, n]) for n, axis in enumerate("xyz")},
        "frequency": found.frequencies_hz,
        "reason": _text(fractions),
    }
    return xarray.Dataset(
        variables,
        coordinates,
        {
            **attributes,
            "n_bad_channels": len(found.reasons),
            "bad_segment_fraction": float(found.fractions.get("any", 0.0)),
            "ica_method": found.components.method if found.components else "",
            "notes": ";".join(note.replace(";", ",") for note in notes),
        },
    )


def _text(values: Any) -> np.ndarray:
    """Return texts as an array that netCDF writes as strings, also where there are none."""
    return np.array([str(value) for value in values], dtype=np.str_)


def _component_variables(units: Units, components: Components | None) -> dict[str, Any]:
    """Return the variables of the independent components; of length 0 without ICA."""
    n_components = len(components.labels) if components else 0
    topography = np.full((n_components, len(units)), np.nan, dtype=np.float32)
    if components is None:
        labels, share, probability = [], np.zeros(0), np.zeros(0)
        excluded = np.zeros(0, dtype=np.uint8)
    else:
        column = {name: number for number, name in enumerate(units.name.tolist())}
        for number, name in enumerate(components.channels):
            if name in column:
                topography[:, column[name]] = components.topographies[:, number]
        labels, share = list(components.labels), components.explained_variance
        probability = components.probability
        excluded = components.excluded.astype(np.uint8)
    return {
        "ica_label": ("component", _text(labels)),
        "ica_probability": ("component", probability),
        "ica_excluded": ("component", excluded),
        "ica_explained_variance": ("component", share),
        "ica_topography": (("component", "unit"), topography),
    }
