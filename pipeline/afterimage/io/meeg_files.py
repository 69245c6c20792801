"""Raw EEG and MEG on disk: BrainVision and FIF with 16 bits a sample, and their BIDS tables."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from afterimage.io.atomic import write_json
from afterimage.io.tables import write_tsv

if TYPE_CHECKING:
    import mne

#: Smallest step of a channel of each kind: V, V, T, T/m. Values beyond 32,767 steps are clipped,
#: as an amplifier does.
STEPS = {"eeg": 1e-7, "eog": 1e-7, "mag": 1e-14, "grad": 5e-13}
_BIDS_TYPES = {"eeg": "EEG", "eog": "EOG", "mag": "MEGMAG", "grad": "MEGGRADPLANAR"}
_BIDS_UNITS = {"eeg": "µV", "eog": "µV", "mag": "T", "grad": "T/m"}


def write_brainvision(
    folder: Path, stem: str, info: mne.Info, data: np.ndarray, triggers: np.ndarray
) -> None:
    """Write ``stem.vhdr``, ``.vmrk`` and ``.eeg``; the same data give the same bytes.

    The header, by which a recording is found, comes into place last, and whole.

    Parameters
    ----------
    folder : Path
    stem : str
    info : Info
    data : array of shape (n_channels, n_samples)
        V.
    triggers : array of int, shape (n_triggers,)
        Samples; each becomes a marker ``S  1``.
    """
    import pybv

    triggers = np.asarray(triggers)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".writing-") as place:
        pybv.write_brainvision(
            data=_rounded(info, data),
            sfreq=info["sfreq"],
            ch_names=info["ch_names"],
            fname_base=stem,
            folder_out=place,
            events=np.column_stack([triggers, np.ones_like(triggers)]),
            resolution=STEPS["eeg"] * 1e6,
            unit="µV",
            fmt="binary_int16",
        )
        for suffix in (".eeg", ".vmrk", ".vhdr"):
            _move(Path(place) / f"{stem}{suffix}", folder)


def write_fif(path: Path, info: mne.Info, data: np.ndarray) -> None:
    """Write one FIF file, atomically.

    Parameters
    ----------
    path : Path
        Ends in ``_meg.fif``.
    info : Info
    data : array of shape (n_channels, n_samples)
        T, T/m or V.
    """
    import mne

    info = info.copy()
    for channel, kind in zip(info["chs"], info.get_channel_types(), strict=True):
        channel["cal"] = STEPS[kind]
    raw = mne.io.RawArray(_rounded(info, data), info, verbose="error")
    # MNE chooses by the whole name, so the temporary thing is a folder.
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".writing-") as place:
        raw.save(Path(place) / path.name, fmt="short", verbose="error")
        _move(Path(place) / path.name, path.parent)


def _move(file: Path, folder: Path) -> None:
    """Move a file that is written into its folder, content first."""
    with file.open("rb") as written:
        os.fsync(written.fileno())
    file.replace(folder / file.name)


def channel_rows(info: mne.Info) -> list[dict[str, Any]]:
    """Return the rows of ``_channels.tsv``; channels in ``info["bads"]`` are marked bad."""
    rows = []
    in_fif = "mag" in info.get_channel_types()
    for name, kind in zip(info["ch_names"], info.get_channel_types(), strict=True):
        rows.append(
            {
                "name": name,
                "type": _BIDS_TYPES[kind],
                # BrainVision holds microvolts in every channel, FIF volts.
                "units": "V" if kind == "eog" and in_fif else _BIDS_UNITS[kind],
                "low_cutoff": "n/a",
                "high_cutoff": info["sfreq"] / 2,
                "sampling_frequency": info["sfreq"],
                "status": "bad" if name in info["bads"] else "good",
            }
        )
    return rows


def write_positions(folder: Path, label: str, modality: str, info: mne.Info) -> None:
    """Write where the sensors of a subject are: electrodes, or the coordinates of a helmet."""
    from mne.io.constants import FIFF

    names = {
        FIFF.FIFFV_POINT_NASION: "NAS",
        FIFF.FIFFV_POINT_LPA: "LPA",
        FIFF.FIFFV_POINT_RPA: "RPA",
    }
    landmarks = {
        names[int(point["ident"])]: np.round(point["r"], 6).astype(float).tolist()
        for point in info["dig"]
        if point["kind"] == FIFF.FIFFV_POINT_CARDINAL
    }
    if modality == "meg":
        write_json(
            folder / f"{label}_coordsystem.json",
            {
                "MEGCoordinateSystem": "ElektaNeuromag",
                "MEGCoordinateUnits": "m",
                "HeadCoilCoordinateSystem": "ElektaNeuromag",
                "HeadCoilCoordinateUnits": "m",
                "DigitizedHeadPointsCoordinateSystem": "ElektaNeuromag",
                "DigitizedHeadPointsCoordinateUnits": "m",
                "AnatomicalLandmarkCoordinates": landmarks,
                "AnatomicalLandmarkCoordinateSystem": "ElektaNeuromag",
                "AnatomicalLandmarkCoordinateUnits": "m",
            },
        )
        return
    rows: list[dict[str, Any]] = []
    for channel, kind in zip(info["chs"], info.get_channel_types(), strict=True):
        place = np.round(channel["loc"][:3], 6).tolist() if kind == "eeg" else ["n/a"] * 3
        rows.append({"name": channel["ch_name"], **dict(zip("xyz", place, strict=True))})
    write_tsv(folder / f"{label}_space-CapTrak_electrodes.tsv", rows, list(rows[0]))
    write_json(
        folder / f"{label}_space-CapTrak_coordsystem.json",
        {
            "EEGCoordinateSystem": "CapTrak",
            "EEGCoordinateUnits": "m",
            "AnatomicalLandmarkCoordinates": landmarks,
            "AnatomicalLandmarkCoordinateSystem": "CapTrak",
            "AnatomicalLandmarkCoordinateUnits": "m",
        },
    )


def _rounded(info: mne.Info, data: np.ndarray) -> np.ndarray:
    """Bring data to whole steps of their channels, clipped."""
    steps = np.array([STEPS[kind] for kind in info.get_channel_types()])[:, None]
    whole = np.clip(np.round(data / steps), -32767, 32767)
    # The writers cut off what follows the point; a quarter of a step survives the division.
    rounded: np.ndarray = (whole + 0.25 * np.sign(whole)) * steps
    return rounded
