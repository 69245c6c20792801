"""EEG and MEG, each copy corrupted in one way; every one must be refused by name.

Each entry corrupts the files of one subject, who stands beside healthy ones, and returns the name
that the message must say.
"""

from __future__ import annotations

import json
import re
import runpy
import struct
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

common = SimpleNamespace(**runpy.run_path(str(Path(__file__).parent / "corrupted_example.py")))
SCRIPT, LONG = common.SCRIPT, common.LONG
flipped, half, swapped, content, rows = (
    common.flipped, common.half, common.swapped, common.content, common.rows
)  # fmt: skip
#: Takes the study and the label of a subject who is healthy till then; returns the name to be said.
Corruption = Callable[[Any, str], str]
made = SimpleNamespace(**runpy.run_path(str(Path(__file__).parent / "bad_recordings_example.py")))


def recorded(ending: str, change: Callable[[bytes], bytes]) -> Corruption:
    """Change the bytes of a file of a recording."""

    def corrupt(study: Any, label: str) -> str:
        (path,) = (study.folder / f"sub-{label}").rglob(f"*{ending}")
        path.write_bytes(change(path.read_bytes()))
        is_table = path.suffix == ".tsv" or "_space-" in path.name
        return path.name if is_table else f"sub-{label}_task-pictures_run-01"

    return corrupt


def edf(change: Callable[[bytes], bytes]) -> Corruption:
    def corrupt(study: Any, label: str) -> str:
        path = made.in_edf(study, study.folder / f"sub-{label}" / "eeg", 0)
        path.write_bytes(change(path.read_bytes()))
        return str(path.name)

    return corrupt


def value(key: str, new: str) -> Callable[[bytes], bytes]:
    """Write another value of a key into a header of BrainVision."""
    return lambda data: re.sub(rf"(?m)^{key}=.*$".encode(), f"{key}={new}".encode(), data)


def json_value(**values: Any) -> Callable[[bytes], bytes]:
    return lambda data: json.dumps(json.loads(data) | values).encode()


def tag(kind: int, change: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    """Change the content of the first tag of a kind in a FIF file."""

    def changed(data: bytes) -> bytes:
        at = 0
        while True:
            found, _, size, following = struct.unpack(">4i", data[at : at + 16])
            if found == kind:
                return data[: at + 16] + change(data[at + 16 : at + 16 + size]) + data[
                    at + 16 + size :
                ]  # fmt: skip
            at = following or at + 16 + size

    return changed


#: EEG: headers, samples, markers, sidecars, tables; each subject has one run.
EEG: dict[str, Corruption] = {
    "header in binary": recorded("_eeg.vhdr", content(bytes(range(256)))),
    "header with samples elsewhere": recorded("_eeg.vhdr", value("DataFile", "../../../x.eeg")),
    "header with samples by an absolute path": recorded(
        "_eeg.vhdr", value("DataFile", "/etc/hostname")
    ),
    "header with a billion channels": recorded(
        "_eeg.vhdr", value("NumberOfChannels", "1000000000")
    ),
    "header with no channels": recorded("_eeg.vhdr", value("NumberOfChannels", "0")),
    "header with a negative interval": recorded("_eeg.vhdr", value("SamplingInterval", "-4000")),
    "header with no interval": recorded("_eeg.vhdr", value("SamplingInterval", "0")),
    "header with an interval in s": recorded("_eeg.vhdr", value("SamplingInterval", "0.004")),
    "header with unknown values": recorded("_eeg.vhdr", value("BinaryFormat", "INT_64")),
    "header with other values": recorded("_eeg.vhdr", value("BinaryFormat", "IEEE_FLOAT_32")),
    "samples cut": recorded("_eeg.eeg", half),
    "samples flat": recorded("_eeg.eeg", lambda data: b"\0" * len(data)),
    "markers in binary": recorded("_eeg.vmrk", content(b"\xff\xfe\x00" * 500)),
    "sidecar cut": recorded("_eeg.json", half),
    "sidecar deeply nested": recorded("_eeg.json", content(b'{"a":' * 100_000)),
    "sidecar with another rate": recorded("_eeg.json", json_value(SamplingFrequency=1000)),
    "sidecar with a longer recording": recorded("_eeg.json", json_value(RecordingDuration=4000)),
    "channels cut": recorded("_channels.tsv", lambda data: half(data)[:-3]),
    "channels twice": recorded("_channels.tsv", lambda data: data + data.split(b"\n", 1)[1]),
    "channels with a script": recorded("_channels.tsv", swapped(b"Cz", SCRIPT.encode())),
    "electrodes with text": recorded(
        "_electrodes.tsv", rows(lambda table: table[1].update(x="here"))
    ),
    "electrodes in binary": recorded("_electrodes.tsv", content(b"\xff\x00\xff")),
    "coordinates cut": recorded("_coordsystem.json", half),
    "events cut": recorded("_events.tsv", lambda data: half(data)[:-2]),
    "events in samples": recorded(
        "_events.tsv",
        rows(lambda table: [row | {"onset": str(1000 * float(row["onset"]))} for row in table]),
    ),
    "events without duration": recorded("_events.tsv", swapped(b"duration", b"length")),
    "events with a picture above the dataset": recorded(
        "_events.tsv", rows(lambda table: table[2].update(stim_file="../../../secret.png"))
    ),
    "EDF cut within its header": edf(lambda data: data[:200]),
    "EDF with a flipped header": edf(lambda data: flipped(data, *range(184, 192))),
    "EDF with a billion records": edf(lambda data: data[:236] + b"99999999" + data[244:]),
    "EDF with a negative number of signals": edf(lambda data: data[:252] + b"-999" + data[256:]),
    "EDF empty": edf(content(b"")),
}  # fmt: skip

#: MEG: one file a run, and what stands beside it.
MEG: dict[str, Corruption] = {
    "FIF cut": recorded("_meg.fif", half),
    "FIF cut within its first tag": recorded("_meg.fif", lambda data: data[:10]),
    "FIF of noise": recorded("_meg.fif", content(bytes(range(256)) * 100)),
    "FIF with a flipped first tag": recorded("_meg.fif", lambda data: flipped(data, 0, 1, 2, 3)),
    "FIF with a flipped tag": recorded("_meg.fif", lambda data: flipped(data, 40, 41, 44, 45)),
    "FIF with a billion channels": recorded(
        "_meg.fif", tag(200, lambda old: struct.pack(">i", 10**9))
    ),
    "FIF with no rate": recorded("_meg.fif", tag(201, lambda old: struct.pack(">f", 0.0))),
    "FIF with a rate that is no number": recorded(
        "_meg.fif", tag(201, lambda old: struct.pack(">f", float("nan")))
    ),
    "sidecar is a list": recorded("_meg.json", content(b"[]")),
    "events are missing": lambda study, label: (
        next((study.folder / f"sub-{label}").rglob("*_events.tsv")).unlink()
        or f"sub-{label}_task-pictures_run-01"
    ),
}  # fmt: skip
