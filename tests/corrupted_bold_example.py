"""Scans, each copy corrupted in one way; every one must be refused by name.

Each entry corrupts the files of one subject, who stands beside healthy ones, and returns the name
that the message must say.
"""

from __future__ import annotations

import gzip
import json
import os
import runpy
import struct
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel
import numpy as np

common = SimpleNamespace(**runpy.run_path(str(Path(__file__).parent / "corrupted_example.py")))
SCRIPT, LONG = common.SCRIPT, common.LONG
flipped, half, swapped, content, rows = (
    common.flipped, common.half, common.swapped, common.content, common.rows
)  # fmt: skip
#: Takes the study and the label of a subject who is healthy till then; returns the name to be said.
Corruption = Callable[[Any, str], str]


def bold_file(study: Any, label: str, ending: str = "_bold.nii.gz") -> Path:
    (path,) = (study.folder / f"sub-{label}").rglob(f"*{ending}")
    return Path(path)


def image(change: Callable[[bytes], bytes], packed: bool = False) -> Corruption:
    """Change the bytes of an image: of what is packed, or of the packed file itself."""

    def corrupt(study: Any, label: str) -> str:
        path = bold_file(study, label)
        data = path.read_bytes()
        path.write_bytes(
            change(data) if packed else gzip.compress(change(gzip.decompress(data)), 1)
        )
        return path.name

    return corrupt


def field(at: int, form: str, *values: Any) -> Callable[[bytes], bytes]:
    """Write one field of the header of NIfTI."""

    def change(data: bytes) -> bytes:
        new = struct.pack("<" + form, *values)
        return data[:at] + new + data[at + len(new) :]

    return change


def voxels(change: Callable[[np.ndarray], np.ndarray]) -> Corruption:
    def corrupt(study: Any, label: str) -> str:
        path = bold_file(study, label)
        found = nibabel.load(path)
        data = change(np.asarray(found.dataobj, dtype=np.float32))
        new = nibabel.Nifti1Image(data, found.affine)
        new.header.set_xyzt_units("mm", "sec")
        if data.ndim > 3:
            new.header.set_zooms((*found.header.get_zooms()[:3], 2.0))
        path.unlink()
        nibabel.save(new, path)
        return path.name

    return corrupt


def bold_sidecar(text: str) -> Corruption:
    """Write a sidecar beside the image, which wins over that of the dataset."""

    def corrupt(study: Any, label: str) -> str:
        path = bold_file(study, label)
        name = path.name.replace(".nii.gz", ".json")
        path.with_name(name).write_text(text)
        return path.name.removesuffix(".nii.gz")

    return corrupt


def bold_events(change: Callable[[bytes], bytes]) -> Corruption:
    def corrupt(study: Any, label: str) -> str:
        path = bold_file(study, label, "_events.tsv")
        path.write_bytes(change(path.read_bytes()))
        return path.name

    return corrupt


def bold_moved(change: Callable[[Path], Any]) -> Corruption:
    def corrupt(study: Any, label: str) -> str:
        path = bold_file(study, label)
        return change(path) or path.name

    return corrupt


def unpacked_too(path: Path) -> None:
    path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))


def misnamed(path: Path) -> str:
    name = path.name.replace("_bold", "_bold_" + SCRIPT)
    path.rename(path.with_name(name))
    return name[:60]


def of_another(path: Path) -> str:
    name = "sub-9" + path.name[5:]
    path.rename(path.with_name(name))
    return name


def zeros(path: Path) -> None:
    """Pack 200 MB of zeros behind a header that announces 20 GB."""
    head = gzip.decompress(path.read_bytes())[:352]
    head = field(40, "8h", 4, 1000, 1000, 1000, 10, 1, 1, 1)(head)
    with gzip.open(path, "wb", 9) as stream:
        stream.write(head)
        for _ in range(200):
            stream.write(b"\0" * 10**6)


def dangling(path: Path) -> None:
    path.unlink()
    path.symlink_to(".git/annex/objects/gone.nii.gz")


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def remove_events(path: Path) -> None:
    path.with_name(path.name.replace("_bold.nii.gz", "_events.tsv")).unlink()


def events_pipe(path: Path) -> str:
    place = path.with_name(path.name.replace("_bold.nii.gz", "_events.tsv"))
    pipe(place)
    return place.name


#: BOLD: images, headers, sidecars, events; each subject has one run.
BOLD: dict[str, Corruption] = {
    "image cut": image(half, packed=True),
    "image cut within its header": image(lambda data: data[:100], packed=False),
    "image with flipped packed bytes": image(
        lambda data: flipped(data, len(data) // 2, len(data) // 3), packed=True
    ),
    "image with a flipped check sum": image(lambda data: flipped(data, -5, -6), packed=True),
    "image with a flipped length": image(lambda data: flipped(data, -1, -2), packed=True),
    "image not packed": image(gzip.decompress, packed=True),
    "image empty": image(content(b""), packed=True),
    "image of text": image(content(b"<html>404 not found</html>" * 50)),
    "image with a flipped number of axes": image(lambda data: flipped(data, 40, 41)),
    "image of 32767 voxels an axis": image(field(40, "8h", 4, 32767, 32767, 32767, 100, 1, 1, 1)),
    "image of no voxels": image(field(40, "8h", 4, 0, 18, 10, 50, 1, 1, 1)),
    "image of negative size": image(field(40, "8h", 4, -16, 18, 10, 50, 1, 1, 1)),
    "image of zeros without end": bold_moved(zeros),
    "image of unknown values": image(field(70, "hh", 9999, 16)),
    "image of complex values": image(field(70, "hh", 32, 64)),
    "image of colours": image(field(70, "hh", 128, 24)),
    "image whose data begin far behind": image(field(108, "f", 1e18)),
    "image whose data begin nowhere": image(field(108, "f", float("nan"))),
    "image without orientation": image(
        lambda data: field(252, "hh", 0, 1)(field(280, "12f", *[0.0] * 12)(data))
    ),
    "image in another unit of time": image(field(92, "f", 33.0)),
    "image with another repetition time": image(field(92, "f", 1.25)),
    "image of one volume": voxels(lambda data: data[..., :1]),
    "image of three axes": voxels(lambda data: data[..., 0]),
    "image of no numbers": voxels(lambda data: np.full_like(data, np.nan)),
    "image of zeros": voxels(lambda data: 0 * data),
    "image twice": bold_moved(unpacked_too),
    "image misnamed": bold_moved(misnamed),
    "image of another subject": bold_moved(of_another),
    "image not fetched": bold_moved(dangling),
    "pipe in place of an image": bold_moved(pipe),
    "sidecar cut": bold_sidecar('{"RepetitionTime": 2.0, '),
    "sidecar is a number": bold_sidecar("2"),
    "sidecar deeply nested": bold_sidecar('{"RepetitionTime":' * 50_000),
    "sidecar of a NUL": bold_sidecar("\x00"),
    "repetition time as text": bold_sidecar('{"RepetitionTime": "2 s"}'),
    "repetition time in ms": bold_sidecar('{"RepetitionTime": 2000}'),
    "repetition time without end": bold_sidecar('{"RepetitionTime": Infinity}'),
    "repetition time negative": bold_sidecar('{"RepetitionTime": -2}'),
    "times of volumes as text": bold_sidecar(
        '{"RepetitionTime": null, "VolumeTiming": ["a", "b"]}'
    ),
    "times of volumes nested": bold_sidecar(
        '{"RepetitionTime": null, "VolumeTiming": {"a": [1, [2]]}}'
    ),
    "slice times as text": bold_sidecar('{"SliceTiming": ["a", "b", {}]}'),
    "slice times too few": bold_sidecar('{"SliceTiming": [0.0, 0.1]}'),
    "slice times in ms": bold_sidecar(json.dumps({"SliceTiming": [n * 200.0 for n in range(10)]})),
    "events missing": bold_moved(remove_events),
    "pipe in place of events": bold_moved(events_pipe),
    "events empty": bold_events(content(b"")),
    "events cut": bold_events(lambda data: half(data)[:-2]),
    "events in binary": bold_events(lambda data: gzip.compress(data)),
    "events in ms": bold_events(
        rows(lambda table: [row | {"onset": f"{1e5 + 1e3 * float(row['onset'])}"} for row in table])
    ),
    "events without onsets": bold_events(swapped(b"onset", b"begin")),
    "events with an onset that is no number": bold_events(
        rows(lambda table: table[2].update(onset="1e999"))
    ),
    "events with a comma as point": bold_events(
        rows(lambda table: table[2].update(onset=table[2]["onset"].replace(".", ",")))
    ),
    "events that last a negative time": bold_events(
        rows(lambda table: table[2].update(duration="-3"))
    ),
    "events with a picture above the dataset": bold_events(
        rows(lambda table: table[2].update(stim_file="../../../../etc/passwd.png"))
    ),
    "events with a picture by an absolute path": bold_events(
        rows(lambda table: table[2].update(stim_file="/etc/passwd.png"))
    ),
    "events at one time": bold_events(
        rows(lambda table: table[3].update(onset=table[2]["onset"]))
    ),
}  # fmt: skip
