"""EEG and MEG recordings of a BIDS dataset, opened by mne-bids and checked for completeness."""

from __future__ import annotations

import math
import re
import struct
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from afterimage.errors import InputError
from afterimage.io.tables import read_tsv

if TYPE_CHECKING:
    import mne

# Bytes of one value in the binary formats of BrainVision.
_BRAINVISION_BYTES = {"INT_16": 2, "UINT_16": 2, "INT_32": 4, "IEEE_FLOAT_32": 4}
# Sampling rates of a header and a sidecar that differ by more than this share contradict each other.
_RATE_TOLERANCE = 0.01
#: Channels of one recording.
MAX_CHANNELS = 10_000


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
        What the JSON files that apply to it say; ``RecordingDuration`` and ``SamplingFrequency``
        are checked.
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
    if not path.is_dir():
        if not path.is_file():
            raise InputError(
                "a recording is no file", where=where, found="a pipe or device",
                expected="the recording", fix="put the file there",
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
        raise _unreadable(error, place, where) from error
    _check_sidecar(raw, sidecar, where)
    files = {}
    if "meg" in raw:
        for key in ("meg_calibration_fpath", "meg_crosstalk_fpath"):
            try:
                found = getattr(place, key)
            except ValueError:
                found = None
            files[key] = Path(found.fpath if hasattr(found, "fpath") else found) if found else None
    return Recording(raw, files.get("meg_calibration_fpath"), files.get("meg_crosstalk_fpath"))


def _unreadable(error: Exception, place: Any, where: str) -> InputError:
    text = " ".join(str(error).split())[:300] or type(error).__name__
    if "Channel mismatch" in text:
        table = Path(place.copy().update(suffix="channels", extension=".tsv").fpath)
        return InputError(
            "the table of channels does not fit its recording", where=f"{where}, {table.name}",
            found=_mismatch(table, place), expected="the names of the recording, in its order",
            fix="correct channels.tsv, or rename the channels of the recording",
        )  # fmt: skip
    return InputError(
        "a recording cannot be read", where=where, found=f"the reader says: {text}",
        expected="a complete recording in a format of BIDS",
        fix="copy the file again from its source; it may be cut off or damaged",
    )  # fmt: skip


def _mismatch(table: Path, place: Any) -> str:
    """Say which names only the recording, or only its table of channels, has."""
    import warnings

    import mne_bids

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        raw = mne_bids.read_raw_bids(place, on_ch_mismatch="warn", verbose="error")
    listed = [row["name"] for row in read_tsv(table, required=("name",))]
    sides = {
        "only in channels.tsv": [name for name in listed if name not in raw.ch_names],
        "only in the recording": [name for name in raw.ch_names if name not in listed],
    }
    said = [f"{side}: {', '.join(names[:8])}" for side, names in sides.items() if names]
    return "; ".join(said) or "the same names in another order"


def _check_size(path: Path, where: str) -> None:
    """Raise if a file is shorter than its header says."""
    size = path.stat().st_size
    if path.suffix == ".vhdr":
        _check_brainvision(path, where)
    elif size == 0:
        raise InputError(
            "a recording is empty", where=where, found="a file of 0 bytes",
            expected="a recording", fix="copy the file again from its source",
        )  # fmt: skip
    elif path.suffix in (".edf", ".bdf", ".fif"):
        expected = _fif_bytes(path) if path.suffix == ".fif" else _edf_bytes(path)
        if expected is not None and size < expected:
            more = "at least " * (path.suffix == ".fif")
            raise _truncated(f"{size} bytes", f"{more}{expected} bytes, as its header says", where)


def _check_brainvision(path: Path, where: str) -> None:
    """Raise if a header lacks what it must say, or what it names is absent or cut off."""
    text = path.read_text(encoding="utf-8", errors="replace")
    needed = ("DataFile", "NumberOfChannels", "SamplingInterval")
    said = {key: re.search(rf"^{key}=[ \t]*(\S.*)$", text, flags=re.M) for key in needed}
    values = {key: found[1].strip() for key, found in said.items() if found}
    if missing := [key for key in needed if key not in values]:
        raise InputError(
            "the header of a recording is incomplete", where=where,
            found=f"no {', '.join(missing)}", expected=f"a line for each of {', '.join(needed)}",
            fix="copy the .vhdr file again from its source; it may be cut off or damaged",
        )  # fmt: skip
    marker = re.search(r"^MarkerFile=[ \t]*(\S.*)$", text, flags=re.M)
    named = {"DataFile": values["DataFile"]} | (
        {"MarkerFile": marker[1].strip()} if marker else {}
    )
    for key, name in named.items():
        named[key] = name = name.replace("$b", path.stem)
        if not name or re.search(r"[/\\\0]|^\.\.?$", name):
            raise InputError(
                "a file of a recording lies elsewhere", where=where,
                found=f"{key}={name[:200]} in the header", expected="the name of a file beside it",
                fix=f"put the file beside the header, and correct {key}",
            )  # fmt: skip
        # No file has a name of more bytes, and the system refuses to look for one.
        if len(name.encode()) > 255 or not (path.parent / name).is_file():
            raise InputError(
                "a file of a recording is missing", where=where,
                found=f"no {name[:200]}, which the header names as its {key}",
                expected="the file, beside the header",
                fix=f"add the file; if it was renamed, correct {key} in the header",
            )  # fmt: skip
    data = path.parent / named["DataFile"]
    size = data.stat().st_size
    if not size:
        raise InputError(
            "a recording is empty", where=where, found=f"no data in {data.name}",
            expected="samples of every channel", fix="copy the file again from its source",
        )  # fmt: skip
    form = re.search(r"^BinaryFormat=\s*(\w+)", text, flags=re.M)
    n_channels = re.match(r"\d+", values["NumberOfChannels"])
    # The reader makes room for all channels before it looks at the samples.
    if not n_channels or not 1 <= int(n_channels[0][:9]) <= MAX_CHANNELS:
        raise InputError(
            "the number of channels of a recording is not possible", where=where,
            found=f"NumberOfChannels={values['NumberOfChannels'][:50]}",
            expected=f"1 to {MAX_CHANNELS}", fix="copy the .vhdr file again from its source",
        )  # fmt: skip
    if form and form[1] in _BRAINVISION_BYTES:
        one = int(n_channels[0]) * _BRAINVISION_BYTES[form[1]]
        if size % one:
            raise _truncated(
                f"{data.name} of {size} bytes",
                f"a multiple of {one} bytes, one sample of {n_channels[0]} channels", where,
            )  # fmt: skip


def _fif_bytes(path: Path) -> int | None:
    """Return the least size in bytes of a FIF file by its chain of tags; None if there is none."""
    end = path.stat().st_size
    place = 0
    with path.open("rb") as file:
        while True:
            file.seek(place)
            head = file.read(16)
            if len(head) < 16:
                return place + 16
            kind, _, size, following = struct.unpack(">4i", head)
            if size < 0 or (place == 0 and kind != 100):  # the first tag is the id of the file
                return None
            if place + 16 + size > end:
                return place + 16 + size
            if following < 0:
                return place + 16 + size
            if 0 < following <= place:
                return None
            place = following or place + 16 + size


def _edf_bytes(path: Path) -> int | None:
    """Return the size in bytes that the header of an EDF or BDF file promises; None if unknown."""
    with path.open("rb") as file:
        head = file.read(256)
        try:
            n_header, n_records = int(head[184:192]), int(head[236:244])
            n_signals = int(head[252:256])
            if not 1 <= n_signals <= MAX_CHANNELS:
                return None  # the reader says what is wrong
            file.seek(256 + n_signals * 216)
            counts = [int(file.read(8)) for _ in range(n_signals)]
        except ValueError:
            return None
    if n_records < 0:
        return None  # written as unknown while recording
    return n_header + n_records * sum(counts) * (3 if path.suffix == ".bdf" else 2)


def _check_sidecar(raw: mne.io.BaseRaw, sidecar: Mapping[str, Any], where: str) -> None:
    """Raise if a recording has another rate, or is much shorter, than its sidecar says."""
    rate_hz, stated_hz = float(raw.info["sfreq"]), sidecar.get("SamplingFrequency")
    if (
        isinstance(stated_hz, int | float)
        and not abs(rate_hz - stated_hz) <= _RATE_TOLERANCE * rate_hz
    ):
        raise InputError(
            "a recording and its sidecar have different sampling rates", where=where,
            found=f"{rate_hz:g} Hz in the recording, {stated_hz:g} Hz as SamplingFrequency",
            expected="one rate, since onsets are placed by it",
            fix="correct SamplingFrequency in the JSON file, or the header of the recording",
        )  # fmt: skip
    stated = sidecar.get("RecordingDuration")
    lasts = raw.n_times / rate_hz
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
    wanted = set(names)
    return {
        row["units"]
        for table in tables
        if table.name.endswith("_channels.tsv")
        for row in read_tsv(table, required=("name",))
        if row["name"] in wanted and row.get("units", "n/a") not in ("n/a", "")
    }


def listed_channels(tables: Iterable[Path]) -> list[str]:
    """Check the tables of channels and electrodes of a recording; return the channels listed.

    Parameters
    ----------
    tables : iterable of Path
        Files that come with a recording; others than ``_channels.tsv`` and ``_electrodes.tsv`` are
        passed over.

    Raises
    ------
    InputError
        If one is no table, names a channel twice, or has a position that is no number.
    """
    listed: list[str] = []
    for table in tables:
        if table.name.endswith("_channels.tsv"):
            listed = [row["name"] for row in read_tsv(table, required=("name", "type"))]
            if twice := [name for name, count in Counter(listed).items() if count > 1]:
                raise InputError(
                    "a table of channels names a channel twice", where=str(table),
                    found=", ".join(twice[:8]), expected="each channel once",
                    fix="correct or remove the row",
                )  # fmt: skip
        elif table.name.endswith("_electrodes.tsv"):
            for line, row in enumerate(read_tsv(table, required=("name", *"xyz")), start=2):
                for axis in "xyz":
                    if row[axis].lower() != "n/a" and not _is_finite(row[axis]):
                        raise InputError(
                            "the position of an electrode is not a number",
                            where=f"{table}, line {line}, column {axis}", found=row[axis] or "an empty cell",
                            expected="a number, or n/a", fix="correct the cell",
                        )  # fmt: skip
    return listed


def _is_finite(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
