"""EEG and MEG recordings of a BIDS dataset, opened by mne-bids and checked for completeness."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from afterimage.errors import InputError

if TYPE_CHECKING:
    import mne

# Bytes of one value in the binary formats of BrainVision.
_BRAINVISION_BYTES = {"INT_16": 2, "UINT_16": 2, "INT_32": 4, "IEEE_FLOAT_32": 4}


@dataclass
class Recording:
    """A recording that can be read.

    Attributes
    ----------
    raw : mne.io.BaseRaw
        Loaded, with the types, bad channels and positions that the tables beside it say.
    calibration, cross_talk : Path or None
        Files of a MEGIN machine, for signal space separation.
    """

    raw: mne.io.BaseRaw
    calibration: Path | None = None
    cross_talk: Path | None = None


def open_recording(path: Path, sidecar: Mapping[str, Any], where: str) -> Recording:
    """Read a recording and the tables of channels and electrodes beside it.

    Parameters
    ----------
    path : Path
        The file or folder that mne-bids reads: .vhdr, .edf, .bdf, .set, .fif, .ds and others.
    sidecar : dict
        What the JSON files that apply to it say; ``RecordingDuration`` is checked.
    where : str
        Subject and file, for messages.

    Returns
    -------
    Recording

    Raises
    ------
    InputError
        If the file is missing, truncated, of no format that can be read, or contradicts its table
        of channels.
    """
    import warnings

    import mne_bids

    if not path.exists():
        raise InputError(
            "a recording is missing", where=where, found="no such file", expected="the recording",
            fix="add the file; fetch it if it is a link, for example with: datalad get",
        )  # fmt: skip
    _check_size(path, where)
    place = mne_bids.get_bids_path_from_fname(path, check=False, verbose="error")
    # Recordings with internal active shielding are read as they are; SSS may follow.
    extra = {"allow_maxshield": "yes"} if path.suffix == ".fif" else None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            raw = mne_bids.read_raw_bids(place, extra_params=extra, verbose="error")
            raw.load_data(verbose="error")
    except MemoryError:
        raise
    except Exception as error:
        raise _unreadable(error, where) from error
    _check_duration(raw, sidecar, where)
    files = {}
    if "meg" in raw:
        for key in ("meg_calibration_fpath", "meg_crosstalk_fpath"):
            try:
                found = getattr(place, key)
            except ValueError:
                found = None
            files[key] = Path(found.fpath if hasattr(found, "fpath") else found) if found else None
    return Recording(raw, files.get("meg_calibration_fpath"), files.get("meg_crosstalk_fpath"))


def _unreadable(error: Exception, where: str) -> InputError:
    text = " ".join(str(error).split())[:300] or type(error).__name__
    if ("channel" in text.lower() and "mismatch" in text.lower()) or "channels.tsv" in text:
        return InputError(
            "the table of channels does not fit its recording", where=where, found=text,
            expected="the names of the recording, in its order, in channels.tsv",
            fix="correct channels.tsv, or rename the channels of the recording",
        )  # fmt: skip
    return InputError(
        "a recording cannot be read", where=where, found=text,
        expected="a complete recording in a format of BIDS",
        fix="copy the file again from its source; it may be cut off or damaged",
    )  # fmt: skip


def _check_size(path: Path, where: str) -> None:
    """Raise if a file is shorter than its header says."""
    if path.is_dir():
        return
    if path.suffix in (".edf", ".bdf"):
        expected, found = _edf_bytes(path), path.stat().st_size
        if expected is not None and found < expected:
            raise _truncated(f"{found} bytes", f"{expected} bytes, as its header says", where)
    elif path.suffix == ".vhdr":
        text = path.read_text(encoding="utf-8", errors="replace")
        name = re.search(r"^DataFile=(.+)$", text, flags=re.M)
        channels = re.search(r"^NumberOfChannels=\s*(\d+)", text, flags=re.M)
        form = re.search(r"^BinaryFormat=\s*(\w+)", text, flags=re.M)
        if name and channels and form and form[1] in _BRAINVISION_BYTES:
            data = path.parent / name[1].strip().replace("$b", path.stem)
            size = data.stat().st_size if data.is_file() else 0
            one = int(channels[1]) * _BRAINVISION_BYTES[form[1]]
            if not size or size % one:
                raise _truncated(
                    f"{data.name} of {size} bytes" if size else f"no data in {data.name}",
                    f"a multiple of {one} bytes, one sample of {channels[1]} channels", where,
                )  # fmt: skip


def _edf_bytes(path: Path) -> int | None:
    """Return the size in bytes that the header of an EDF or BDF file promises; None if unknown."""
    with path.open("rb") as file:
        head = file.read(256)
        try:
            n_header, n_records = int(head[184:192]), int(head[236:244])
            n_signals = int(head[252:256])
            file.seek(256 + n_signals * 216)
            counts = [int(file.read(8)) for _ in range(n_signals)]
        except ValueError:
            return None
    if n_records < 0:
        return None  # written as unknown while recording
    return n_header + n_records * sum(counts) * (3 if path.suffix == ".bdf" else 2)


def _check_duration(raw: mne.io.BaseRaw, sidecar: Mapping[str, Any], where: str) -> None:
    """Raise if a recording is much shorter than its sidecar says."""
    stated = sidecar.get("RecordingDuration")
    lasts = raw.n_times / float(raw.info["sfreq"])
    if isinstance(stated, int | float) and lasts < 0.99 * stated - 1:
        raise _truncated(f"{lasts:.1f} s", f"{stated:.1f} s, the RecordingDuration", where)


def _truncated(found: str, expected: str, where: str) -> InputError:
    return InputError(
        "a recording is cut off", where=where, found=found, expected=expected,
        fix="copy the file again from its source",
    )  # fmt: skip


def table_units(tables: Iterable[Path], names: Iterable[str]) -> set[str]:
    """Return the units that a table of channels gives to the named channels.

    Parameters
    ----------
    tables : iterable of Path
        Files that come with a recording; those that are no ``_channels.tsv`` are passed over.
    names : iterable of str
        Channels.
    """
    from afterimage.io.tables import read_tsv

    wanted = set(names)
    return {
        row["units"]
        for table in tables
        if table.name.endswith("_channels.tsv")
        for row in read_tsv(table, required=("name",))
        if row["name"] in wanted and row.get("units", "n/a") not in ("n/a", "")
    }
