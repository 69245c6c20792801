"""Channels of a recording: their units checked, their names agreed, their positions found."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import numpy as np

from afterimage.errors import ConfigError, InputError
from afterimage.preprocess.meeg.quality import Units, robust_deviation

if TYPE_CHECKING:
    import mne

# Robust deviation (SI units) of the median channel above 1 Hz: a million times too large or too
# small is a wrong unit; the head itself varies by less than a factor of 100 around 10 microvolt.
_SANE = {"eeg": (1e-7, 3e-3), "mag": (1e-15, 1e-9), "grad": (1e-14, 1e-8)}
_MICRO = {"µV", "μV", "uV", "microvolt", "microvolts"}
#: The template of EEG positions, by the names that releases of MNE have for it.
TEMPLATES = ("colin27_1005", "standard_1005")


def check_units(raw: mne.io.BaseRaw, declared: Collection[str], where: str) -> list[str]:
    """Check that values are in V, T and T/m; correct microvolt that were read as volt, in place.

    Parameters
    ----------
    raw : mne.io.BaseRaw
        Loaded.
    declared : collection of str
        Units of the channels by their table.
    where : str
        Subject and file, for messages.

    Returns
    -------
    list of str
        A note where values were corrected.

    Raises
    ------
    InputError
        If all channels are flat, or the values cannot be in their unit.
    """
    import mne

    notes: list[str] = []
    for kind in ("eeg", "mag", "grad"):
        picks = mne.pick_types(raw.info, eeg=kind == "eeg", meg=kind if kind != "eeg" else False,
                               exclude=[])  # fmt: skip
        if not len(picks):
            continue
        step = max(1, raw.n_times // 20_000)
        # Differences of one sample would miss slow signals; those of a tenth of a second do not.
        lag = max(1, round(0.1 * raw.info["sfreq"] / step))
        values = raw.get_data(picks=picks)[:, ::step]
        finite = np.isfinite(values)
        values = np.where(finite, values, 0.0)
        amplitude = robust_deviation(values[:, lag:] - values[:, :-lag])
        if not finite.all(axis=1).any():
            raise InputError(
                "all channels have values that are not finite", where=where,
                found=f"{1 - finite.mean():.1%} of the values are no numbers",
                expected="numbers throughout, in some channels at least",
                fix="export the recording again, cut where it was interrupted",
            )  # fmt: skip
        if not (amplitude > 0).any():
            raise InputError(
                "all channels are flat", where=where, found=f"{len(picks)} channels without signal",
                expected="channels that vary", fix="check the export of the recording",
            )  # fmt: skip
        typical = float(np.median(amplitude[amplitude > 0]))
        low, high = _SANE[kind]
        if low <= typical <= high:
            continue
        unit = {"eeg": "V", "mag": "T", "grad": "T/m"}[kind]
        sane = low <= typical * 1e-6 <= high
        hint = ""
        if kind == "eeg" and (sane or low <= typical * 1e6 <= high):
            hint = ": it looks like microvolt read as volt"
            if not sane:
                hint = ": it looks like volt read as microvolt"
        if kind == "eeg" and sane and declared and set(declared) <= _MICRO:
            raw.apply_function(lambda x: x * 1e-6, picks=picks, verbose="error")
            notes.append(
                f"values of about {typical:.3g} were read as V; channels.tsv says microvolt: "
                "divided by a million"
            )
            continue
        raise InputError(
            f"the values of {kind.upper() if kind == 'eeg' else kind} channels are not in {unit}",
            where=where,
            found=f"a typical deviation of {typical:.3g} {unit}"
            + (f"; channels.tsv says {', '.join(sorted(declared))}" if declared else ""),
            expected=f"{low:g} to {high:g} {unit}" + hint,
            fix="write the right unit in the header of the recording"
            + (", or microvolt in channels.tsv" if kind == "eeg" and sane else ""),
        )
    return notes


def _plain(name: str) -> str:
    """Return a channel name without what devices add: "EEG FP1-REF" and "Fp1." are "fp1"."""
    name = re.sub(r"^(EEG|MEG)\s+", "", name.strip(), flags=re.I)
    name = re.sub(r"[-_ ](REF|LE|AVG|A1|A2|M1|M2)$", "", name, flags=re.I)
    return name.strip(". ").lower()


def agree_on_channels(
    raw: mne.io.BaseRaw, modality: str, common: Sequence[str], where: str
) -> list[str]:
    """Bring the channels of a run to those, and the order, of its subject's other runs, in place.

    Parameters
    ----------
    raw : mne.io.BaseRaw
        Loaded.
    modality : str
        ``eeg`` or ``meg``; channels of the eyes and the heart stay, all others are dropped.
    common : sequence of str
        Channels of most runs; empty where that is not known.
    where : str
        Subject and file, for messages.

    Returns
    -------
    list of str
        Notes on what was renamed or dropped.

    Raises
    ------
    InputError
        If there is no channel of the modality, or channels are missing or have other names.
    """
    import mne

    picks = mne.pick_types(raw.info, eeg=modality == "eeg", meg=modality == "meg", exclude=[])
    names = [raw.ch_names[pick] for pick in picks]
    if not names:
        kinds = sorted(set(raw.get_channel_types()))
        raise InputError(
            f"a recording has no {modality.upper()} channels", where=where, found=", ".join(kinds),
            expected=f"channels of type {modality.upper()}",
            fix="correct the column type of channels.tsv",
        )  # fmt: skip
    notes: list[str] = []
    if common:
        names, notes = _match(raw, names, list(common), where)
    beside = mne.pick_types(raw.info, eog=True, ecg=True, exclude=[])
    kept = [*names, *(raw.ch_names[pick] for pick in beside)]
    if raw.ch_names != kept:
        raw.pick(kept, exclude=(), verbose="error")
        raw.reorder_channels(kept)
    return notes


def _match(
    raw: mne.io.BaseRaw, names: list[str], common: list[str], where: str
) -> tuple[list[str], list[str]]:
    """Return the names of the common channels in the recording, renamed where only spelled apart."""
    notes = []
    missing = [name for name in common if name not in names]
    extra = {_plain(name): name for name in names if name not in common}
    spelled = {extra[_plain(name)]: name for name in missing if _plain(name) in extra}
    if spelled:
        raw.rename_channels(spelled, verbose="error")
        pairs = ", ".join(f"{old} is {new}" for old, new in list(spelled.items())[:6])
        notes.append(f"{len(spelled)} channels were spelled apart from other runs: {pairs}")
        names = [spelled.get(name, name) for name in names]
    missing = [name for name in common if name not in names]
    added = [name for name in names if name not in common]
    if missing:
        raise InputError(
            "channels of a run are missing" + (" or renamed" if added else ""), where=where,
            found=f"no {', '.join(missing[:8])}" + (f"; but {', '.join(added[:8])}" if added else ""),
            expected=f"the {len(common)} channels of most runs of the subject, by their channels.tsv",
            fix="rename the channels as in the other runs, correct their channels.tsv, or leave the "
            "run out",
        )  # fmt: skip
    if added:
        notes.append(f"channels that other runs do not have are dropped: {', '.join(added[:8])}")
    return common, notes


def set_positions(raw: mne.io.BaseRaw, montage: str | None, where: str) -> list[str]:
    """Give EEG channels positions, in place.

    Parameters
    ----------
    raw : mne.io.BaseRaw
    montage : str or None
        Name of a template of MNE, put in place of what the recording has; None: 10-05 where the
        recording has no positions.
    where : str
        Subject and file, for messages.

    Returns
    -------
    list of str
        Notes on positions taken from a template, or not known.

    Raises
    ------
    ConfigError
        If there is no template of the name.
    InputError
        If the template asked for has no such channels.
    """
    import mne

    picks = mne.pick_types(raw.info, eeg=True, exclude=[])
    places = np.array([raw.info["chs"][pick]["loc"][:3] for pick in picks]).reshape(-1, 3)
    unknown = [
        raw.ch_names[pick]
        for pick, place in zip(picks, places, strict=True)
        if not np.isfinite(place).all() or not place.any()
    ]
    if not len(picks) or (montage is None and not unknown):
        return []
    known_templates = mne.channels.get_builtin_montages()
    if montage is not None and montage not in (*known_templates, *TEMPLATES):
        raise ConfigError(
            "there is no montage of this name", where="clean_meeg.montage", found=montage,
            expected=", ".join(known_templates), fix="name one of these, or null",
        )  # fmt: skip
    if montage in (None, *TEMPLATES):
        montage_name = next(name for name in TEMPLATES if name in known_templates)
    else:
        montage_name = montage
    template = mne.channels.make_standard_montage(montage_name)
    names = {name.lower() for name in template.ch_names}
    strange = [raw.ch_names[pick] for pick in picks if raw.ch_names[pick].lower() not in names]
    if strange and montage is not None:
        raise InputError(
            "the montage does not have these channels", where=where, found=", ".join(strange[:8]),
            expected=f"names of {montage}", fix="rename the channels, or set montage to null",
        )  # fmt: skip
    if montage is None and len(unknown) < len(picks):
        return [
            f"the positions of {len(unknown)} channels are not known: {', '.join(unknown[:8])}"
        ]
    raw.set_montage(template, match_case=False, on_missing="ignore", verbose="error")
    notes = []
    if len(strange) < len(picks):
        notes.append(
            f"positions are those of the template {montage or TEMPLATES[-1]}, not measured"
        )
    if strange:
        notes.append(
            f"the montage is not known: no position of {len(strange)} channels "
            f"({', '.join(strange[:8])})"
        )
    return notes


def describe_units(raw: mne.io.BaseRaw) -> Units:
    """Return name, kind, position (m) and orientation, head frame, of the channels of the brain."""
    import mne

    picks = mne.pick_types(raw.info, eeg=True, meg=True, ref_meg=False, exclude=[])
    kinds = [mne.channel_type(raw.info, pick) for pick in picks]
    places = np.array([raw.info["chs"][pick]["loc"][:3] for pick in picks]).reshape(-1, 3)
    magnetic = np.array([kind != "eeg" for kind in kinds], dtype=bool)
    # A planar gradiometer differentiates along its x, a magnetometer measures along its z.
    axes = [slice(3, 6) if kind == "grad" else slice(9, 12) for kind in kinds]
    turned = np.array(
        [raw.info["chs"][pick]["loc"][axis] for pick, axis in zip(picks, axes, strict=True)]
    ).reshape(-1, 3)
    turned[~magnetic] = 0.0
    to_head = raw.info["dev_head_t"]
    if to_head is not None and magnetic.any():
        places[magnetic] = mne.transforms.apply_trans(to_head, places[magnetic])
        turned[magnetic] = mne.transforms.apply_trans(to_head, turned[magnetic], move=False)
    places[~places.any(axis=1)] = np.nan
    length = np.linalg.norm(turned, axis=1, keepdims=True)
    turned = np.where(np.isfinite(length) & (length > 0), turned / np.maximum(length, 1e-12), 0.0)
    names = [raw.ch_names[pick] for pick in picks]
    return Units(
        np.array(names), np.array(kinds), places.astype(np.float32), turned.astype(np.float32)
    )
