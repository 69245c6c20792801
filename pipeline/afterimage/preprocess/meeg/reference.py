"""Taulu & Kajola (2005), doi:10.1063/1.1935742: signal space separation, and references of EEG.

Signal space separation (SSS) keeps what comes from within the helmet; it needs the fine calibration
of the machine, and is not done twice. Projections that a recording stores are applied. EEG is
referred to the average of its good channels or to the mastoids; with few channels, an average
would take out what is looked for, so that the recorded reference stays.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    import mne

#: Fewer channels of EEG than this are no average of the head.
MIN_AVERAGE = 16
_MASTOIDS = ("M1", "M2", "TP9", "TP10", "A1", "A2", "T9", "T10")


def set_reference(
    raw: mne.io.BaseRaw, reference: Literal["auto", "average", "mastoids", "none"]
) -> tuple[str, list[str]]:
    """Refer EEG anew, in place; channels in ``info["bads"]`` are in no average.

    Parameters
    ----------
    raw : mne.io.BaseRaw
        Loaded.
    reference : str
        ``auto``: the average where there are at least `MIN_AVERAGE` channels, bad ones among them,
        so that runs of one cap get one reference whatever is broken in each.

    Returns
    -------
    reference : str
        What was done: ``average``, ``mastoids: M1, M2`` or ``as recorded``.
    notes : list of str
    """
    import mne

    good = [raw.ch_names[pick] for pick in mne.pick_types(raw.info, eeg=True)]
    if "eeg" not in raw or reference == "none":
        return "as recorded", []
    if reference == "mastoids":
        known = {name.upper(): name for name in good}
        for left, right in zip(_MASTOIDS[::2], _MASTOIDS[1::2], strict=True):
            if left in known and right in known:
                pair = [known[left], known[right]]
                raw.set_eeg_reference(pair, verbose="error")
                return "mastoids: " + ", ".join(pair), []
        return "as recorded", [
            "there are no good mastoid channels (M1 and M2, TP9 and TP10, A1 and A2, T9 and T10): "
            "the recorded reference is kept"
        ]
    n_channels = len(mne.pick_types(raw.info, eeg=True, exclude=[]))
    if reference == "auto" and n_channels < MIN_AVERAGE:
        note = f"{n_channels} channels are no average of the head: the recorded reference is kept"
        return "as recorded", [note]
    if len(good) < 2:
        return "as recorded", ["an average needs two good channels: the recorded one is kept"]
    raw.set_eeg_reference("average", verbose="error")
    return "average", []


def apply_projections(raw: mne.io.BaseRaw) -> list[str]:
    """Apply the projections that a recording stores, in place, but for an average reference.

    Returns
    -------
    list of str
        A note where something was applied.
    """
    kept = []
    for number, projection in reversed(list(enumerate(raw.info["projs"]))):
        average = "Average EEG reference" in str(projection["desc"])
        if average and not projection["active"]:
            raw.del_proj(number)
        elif not projection["active"]:
            kept.append(str(projection["desc"]))
    if not kept:
        return []
    raw.apply_proj(verbose="error")
    return [f"{len(kept)} stored projections were applied: " + ", ".join(sorted(kept))]


def separate_signal_space(
    raw: mne.io.BaseRaw, calibration: Path | None, cross_talk: Path | None
) -> tuple[mne.io.BaseRaw, list[str]]:
    """Keep what comes from within the helmet (SSS), where the recording allows.

    Parameters
    ----------
    raw : mne.io.BaseRaw
        Loaded, with bad channels marked, since one of them would spread over all.
    calibration, cross_talk : Path or None
        Files of the machine; without a calibration nothing is done.

    Returns
    -------
    raw : mne.io.BaseRaw
    notes : list of str
    """
    import mne

    if "meg" not in raw:
        return raw, []
    if calibration is None:
        # Only machines with both kinds of sensors come with a calibration.
        megin = "mag" in raw and "grad" in raw
        return raw, ["no SSS: there is no calibration of the machine"] if megin else []
    done = [step for step in raw.info["proc_history"] if step.get("max_info", {}).get("sss_info")]
    if done:
        return raw, ["the recording was separated (SSS) before: not done twice"]
    if raw.info["dev_head_t"] is None:
        return raw, ["no SSS: the position of the head in the helmet is not known"]
    try:
        separated = mne.preprocessing.maxwell_filter(
            raw, calibration=str(calibration), cross_talk=str(cross_talk) if cross_talk else None,
            st_duration=None, verbose="error",
        )  # fmt: skip
    except (ValueError, RuntimeError, AttributeError, OSError) as error:
        # A damaged file of the machine is met as any of these.
        return raw, [f"no SSS: {' '.join(str(error).split())[:200]}"]
    return separated, ["the signal space was separated (SSS) with the calibration of the machine"]


def interpolate_bads(
    raw: mne.io.BaseRaw, max_fraction: float = 0.25
) -> tuple[list[str], list[str]]:
    """Replace bad channels by what the good ones predict, in place, kind by kind.

    Parameters
    ----------
    raw : mne.io.BaseRaw
        Loaded; ``info["bads"]`` names the bad channels and loses those that were replaced.
    max_fraction : float
        A larger share of bad channels is not interpolated: too little is known.

    Returns
    -------
    interpolated, kept : list of str
        Names of channels that were replaced, and that stay as they are.
    """
    import mne

    interpolated: list[str] = []
    kept: list[str] = []
    for kind in ("eeg", "meg"):
        picks = mne.pick_types(raw.info, eeg=kind == "eeg", meg=kind == "meg", exclude=[])
        bads = [raw.ch_names[pick] for pick in picks if raw.ch_names[pick] in raw.info["bads"]]
        if not bads:
            continue
        places = np.array([raw.info["chs"][pick]["loc"][:3] for pick in picks])
        known = np.isfinite(places).all() and places.any(axis=1).all()
        enough = len(picks) - len(bads) >= 8 and len(bads) <= max_fraction * len(picks)
        if known and enough:
            others = [name for name in raw.info["bads"] if name not in bads]
            raw.info["bads"] = bads
            raw.interpolate_bads(reset_bads=True, verbose="error")
            raw.info["bads"] = others
            interpolated += bads
        else:
            kept += bads
    return interpolated, kept
