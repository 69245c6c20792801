"""Ablin, Cardoso & Gramfort (2018), doi:10.1109/TSP.2018.2844203: independent components (Picard).

Components are found on a copy above 1 Hz, where blinks do not drift, and taken out of the recording
as it is. Which are artefacts is said by ICLabel (Pion-Tonachini et al. 2019,
doi:10.1016/j.neuroimage.2019.05.026) where it applies (at least 16 channels of EEG with positions,
referred to their average);
else, and for eyes in addition, by correlation with EOG channels, or with frontal EEG channels in
their place, and by phase locking with an ECG channel or what MEG shows of the heart.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import mne

#: With fewer good channels than this components mix brain and eyes.
MIN_CHANNELS = 12
#: Labels of ICLabel that are taken out.
ARTIFACTS = ("eye blink", "heart beat", "muscle artifact")
_FRONTAL = ("Fp1", "Fp2", "Fpz", "AF7", "AF8", "AFz")
_MIN_PROBABILITY = 0.7
# Slower recordings are enough to separate; more samples cost time and give nothing.
_MAX_SAMPLES = 30_000


@dataclass(frozen=True)
class Components:
    """Independent components of a run.

    Attributes
    ----------
    method : str
        How they were found and labelled.
    channels : list of str
        Channels they were found on, in the order of the topographies.
    labels : list of str
    probability : array of shape (n_components,)
        Certainty of the label; NaN where it comes from a correlation.
    excluded : array of bool, shape (n_components,)
    explained_variance : array of shape (n_components,)
        Share of the variance of the channels.
    topographies : array of shape (n_components, n_channels), float32
        Weights by which a component of unit variance reaches the channels, in SI units.
    """

    method: str
    channels: list[str]
    labels: list[str]
    probability: np.ndarray
    excluded: np.ndarray
    explained_variance: np.ndarray
    topographies: np.ndarray


def remove_artifacts(
    raw: mne.io.BaseRaw,
    bad: np.ndarray,
    *,
    n_components: int | None = None,
    random_state: int = 0,
) -> tuple[Components | None, list[str]]:
    """Take eyes, heart and muscles out of a recording, in place.

    Parameters
    ----------
    raw : mne.io.BaseRaw
        Loaded, filtered, EEG in its final reference, since what is taken out is known only in the
        one that components were found in; channels in ``info["bads"]`` are left as they are.
    bad : array of bool, shape (n_times,)
        Samples that inform nothing.
    n_components : int or None
        Components; None: as many as the rank of the recording, at most 30.
    random_state : int
        Seed.

    Returns
    -------
    components : Components or None
        None where there are too few channels.
    notes : list of str
    """
    import mne
    from mne.preprocessing import ICA

    kind = "meg" if "meg" in raw else "eeg"
    picks = mne.pick_types(raw.info, meg=kind == "meg", eeg=kind == "eeg")
    if len(picks) < MIN_CHANNELS:
        note = f"no ICA: it needs {MIN_CHANNELS} good channels, there are {len(picks)}"
        return None, [note]
    fitted = _prepared(raw, picks)
    n_rank = sum(mne.compute_rank(fitted, rank="info", verbose="error").values())
    # An average reference takes one dimension away, which the rank by info does not know of.
    n_components = min(n_components or 30, n_rank, len(picks) - 1)
    ica = ICA(
        n_components, method="picard", fit_params={"ortho": False, "extended": True, "tol": 1e-4},
        max_iter=200, random_state=random_state, verbose="error",
    )  # fmt: skip
    used = np.flatnonzero(~bad)
    if len(used) < 5 * n_components**2:
        return None, ["no ICA: too little of the run is good"]
    step = max(1, len(used) // _MAX_SAMPLES)
    good = mne.io.RawArray(fitted.get_data()[:, used[::step]], fitted.info, verbose="error")
    ica.fit(good, verbose="error")
    labels, probability, how = _label(ica, fitted, raw, kind)
    excluded = np.array([label in ARTIFACTS for label in labels])
    ica.exclude = np.flatnonzero(excluded).tolist()
    ica.apply(raw, verbose="error")
    variance = _explained_variance(ica, good)
    components = Components(
        f"picard, {how}", list(ica.ch_names), labels, probability, excluded, variance,
        np.ascontiguousarray(ica.get_components().T, dtype=np.float32),
    )  # fmt: skip
    return components, []


def _prepared(raw: mne.io.BaseRaw, picks: np.ndarray) -> mne.io.BaseRaw:
    """Return the good channels above 1 Hz."""
    fitted = raw.copy().pick(picks)
    fitted.filter(1.0, None, verbose="error")
    return fitted


def _label(
    ica: mne.preprocessing.ICA, fitted: mne.io.BaseRaw, raw: mne.io.BaseRaw, kind: str
) -> tuple[list[str], np.ndarray, str]:
    """Name each component; return names, certainties, and how they were found."""
    n_components = int(ica.n_components_)
    labels, probability = ["other"] * n_components, np.full(n_components, np.nan)
    how = "correlation with eyes and heart"
    named = _iclabel(ica, fitted) if kind == "eeg" else None
    if named is not None:
        how = "ICLabel and correlation with eyes"
        for number, (label, certain) in enumerate(zip(*named, strict=True)):
            doubtful = label in ARTIFACTS and certain < _MIN_PROBABILITY
            labels[number] = "other" if doubtful else label
            probability[number] = certain
    for number in _eyes(ica, raw, fitted, kind):
        if labels[number] not in ARTIFACTS:
            labels[number], probability[number] = "eye blink", np.nan
    for number in _heart(ica, raw, fitted, kind):
        if labels[number] not in ARTIFACTS:
            labels[number], probability[number] = "heart beat", np.nan
    return labels, probability, how


def _iclabel(
    ica: mne.preprocessing.ICA, fitted: mne.io.BaseRaw
) -> tuple[list[str], list[float]] | None:
    """Return labels and certainties of ICLabel; None where it cannot be used."""
    places = np.array([channel["loc"][:3] for channel in fitted.info["chs"]])
    signal = fitted.get_data(stop=min(fitted.n_times, 10_000))
    # It was trained on the average reference, and sees other ones wrongly.
    averaged = np.abs(signal.mean(axis=0)).max() < 1e-3 * np.abs(signal).max()
    if (
        not averaged
        or len(places) < 16
        or not np.isfinite(places).all()
        or not places.any(axis=1).all()
    ):
        return None
    try:
        from mne_icalabel.iclabel import iclabel_label_components
    except ImportError:
        return None
    import warnings

    names = (
        "brain", "muscle artifact", "eye blink", "heart beat", "line noise", "channel noise",
        "other",
    )  # fmt: skip
    with warnings.catch_warnings():
        # It asks for 1 to 100 Hz; the signal was low-passed as the user wanted it.
        warnings.simplefilter("ignore")
        found = np.asarray(iclabel_label_components(fitted, ica, inplace=False))
    best = found.argmax(axis=1)
    return [names[number] for number in best], found.max(axis=1).tolist()


def _eyes(
    ica: mne.preprocessing.ICA, raw: mne.io.BaseRaw, fitted: mne.io.BaseRaw, kind: str
) -> list[int]:
    """Return the components that follow the eyes."""
    if "eog" in raw:
        watched = raw.get_data(picks="eog")
    else:
        frontal = [name for name in _FRONTAL if name in fitted.ch_names]
        if kind != "eeg" or not frontal:
            return []
        # Both sides together: what one side has alone is no blink.
        watched = fitted.get_data(picks=frontal).mean(axis=0, keepdims=True)
    sources = ica.get_sources(fitted).get_data()
    rate_hz = float(raw.info["sfreq"])
    from scipy.signal import butter, sosfiltfilt

    sos = butter(3, [1.0, min(10.0, 0.4 * rate_hz)], "band", fs=rate_hz, output="sos")
    slow, watched = sosfiltfilt(sos, sources), sosfiltfilt(sos, watched)
    n = len(slow)
    correlation = np.abs(np.corrcoef(np.vstack([slow, watched]))[:n, n:]).max(axis=1)
    # Blinks are rare and large: a source that follows the eyes has heavy tails.
    centred = sources - sources.mean(axis=1, keepdims=True)
    kurtosis = (centred**4).mean(axis=1) / np.maximum((centred**2).mean(axis=1), 1e-30) ** 2 - 3
    sure = (correlation > 0.7) | ((correlation > 0.5) & (kurtosis > 3))
    return np.flatnonzero(sure & (kurtosis > 1)).tolist()


def _heart(
    ica: mne.preprocessing.ICA, raw: mne.io.BaseRaw, fitted: mne.io.BaseRaw, kind: str
) -> list[int]:
    """Return the components that are locked to the heart."""
    if "ecg" not in raw and "mag" not in raw:
        return []
    if raw.n_times < 10 * raw.info["sfreq"]:
        return []
    try:
        found, _ = ica.find_bads_ecg(raw, method="ctps", threshold="auto", verbose="error")
    except (RuntimeError, ValueError):
        return []  # no heart beat can be seen in the recording
    return [int(number) for number in found[:3]]


def _explained_variance(ica: mne.preprocessing.ICA, good: mne.io.BaseRaw) -> np.ndarray:
    """Return the share of variance that each component adds to the channels."""
    weights = ica.get_components()  # (n_channels, n_components)
    spread = ica.get_sources(good).get_data().var(axis=1)
    scale = np.maximum(good.get_data().var(axis=1), 1e-40)
    share: np.ndarray = ((weights**2) * spread / scale[:, None]).mean(axis=0)
    return share
