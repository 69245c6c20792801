"""Copies of the inputs of a study, each corrupted in one way; every one must be refused by name.

Each entry corrupts the files of one subject, who stands beside healthy ones, and returns the name
that the message must say.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import re
import runpy
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel
import numpy as np

#: Takes the study and the label of a subject who is healthy till then; returns the name to be said.
Corruption = Callable[[Any, str], str]

made = SimpleNamespace(**runpy.run_path(str(Path(__file__).parent / "bad_recordings_example.py")))
LONG = "a" * 300
SCRIPT = "<script>alert(1)<script>"


def flipped(data: bytes, *places: int) -> bytes:
    """Turn all bits of some bytes, counted from the start or the end."""
    changed = bytearray(data)
    for place in places:
        changed[place] ^= 0xFF
    return bytes(changed)


def half(data: bytes) -> bytes:
    return data[: len(data) // 2]


def swapped(old: bytes, new: bytes) -> Callable[[bytes], bytes]:
    def change(data: bytes) -> bytes:
        assert old in data, old
        return data.replace(old, new, 1)

    return change


def content(new: bytes) -> Callable[[bytes], bytes]:
    return lambda data: new


def npy(values: Any) -> Callable[[bytes], bytes]:
    def change(data: bytes) -> bytes:
        stream = io.BytesIO()
        np.save(stream, values(np.load(io.BytesIO(data))), allow_pickle=True)
        return stream.getvalue()

    return change


def header(text: str) -> Callable[[bytes], bytes]:
    """Write another header over the one of a .npy file."""
    padded = text.encode().ljust(117) + b"\n"
    return content(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(padded)) + padded + b"\0" * 64)


def npz(data: bytes) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, responses=np.zeros((22, 12)))
    return stream.getvalue()


def prepared(suffix: str, change: Callable[[bytes], bytes]) -> Corruption:
    """Change the bytes of one file of prepared responses."""

    def corrupt(study: Any, label: str) -> str:
        path: Path = study.file(label, suffix)
        path.write_bytes(change(path.read_bytes() if path.is_file() else b""))
        return path.name

    return corrupt


def instead(suffix: str, put: Callable[[Path], Any]) -> Corruption:
    """Put something else where a file of prepared responses was."""

    def corrupt(study: Any, label: str) -> str:
        path: Path = study.file(label, suffix)
        path.unlink()
        put(path)
        return path.name

    return corrupt


def sidecar(text: str, n_times: int | None = 3) -> Corruption:
    def corrupt(study: Any, label: str) -> str:
        shutil.rmtree(study.folder / f"sub-{label}")
        study.subject(label, n_units=4, n_times=n_times)
        study.file(label, "responses.json").write_text(text)
        return f"sub-{label}_responses.json"

    return corrupt


def picture(file: str, make: Callable[[Path], Any] | None = None) -> Corruption:
    """Show the subject one more picture, which nobody else sees."""

    def corrupt(study: Any, label: str) -> str:
        study.add_stimulus(f"own{label}", file)
        if make:
            make(study.folder / "stimuli" / file)
        study.write_trials(label, [*study.trials_of(), f"own{label}"], {})
        path = study.file(label, "responses.npy")
        values = np.load(path)
        np.save(path, np.concatenate([values, values[:1] + 0.1]))
        return file.partition("\u202e")[0][:60]

    return corrupt


def drawn(change: Callable[[bytes], bytes]) -> Callable[[Path], Any]:
    def make(path: Path) -> None:
        from PIL import Image

        Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)).save(
            path, format="PNG"
        )
        path.write_bytes(change(path.read_bytes()))

    return make


def bomb(width: int, height: int) -> Callable[[Path], Any]:
    """Write a PNG of few bytes whose header announces very many pixels."""

    def make(path: Path) -> None:
        def chunk(kind: bytes, data: bytes) -> bytes:
            check = struct.pack(">I", zlib.crc32(kind + data))
            return struct.pack(">I", len(data)) + kind + data + check

        size = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
        pixels = zlib.compress(b"\0" * 10**6)
        data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", pixels)
        path.write_bytes(data + chunk(b"IEND", b""))

    return make


def link_out(path: Path) -> None:
    path.symlink_to(path.parents[2] / "outside.png")


def link_loop(path: Path) -> None:
    path.symlink_to(path.name)


def shown(trial: int, name: str) -> Callable[[bytes], bytes]:
    """Write another stimulus into one row of the trials."""

    def change(data: bytes) -> bytes:
        lines = data.decode().split("\n")
        lines[trial] = f"{name}\t1"
        return "\n".join(lines).encode()

    return change


def renamed(name: str) -> Corruption:
    """Give the folder of the subject a name that no label may have."""

    def corrupt(study: Any, label: str) -> str:
        os.rename(  # noqa: PTH104  (bytes that are no text)
            os.fsencode(study.folder / f"sub-{label}"),
            os.fsencode(study.folder) + b"/sub-" + name.encode("utf-8", "surrogateescape"),
        )
        return "found:    sub-" + re.sub(r"[^ -~].*", "", name)[:30]

    return corrupt


class Trap:
    """Pickled, it makes a folder when somebody reads the pickle."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("sprung-by-a-pickle",)


#: Prepared responses: arrays, tables, sidecars, pictures, names of folders.
PREPARED: dict[str, Corruption] = {
    "array cut in its header": prepared("responses.npy", lambda data: data[:40]),
    "array cut in its values": prepared("responses.npy", lambda data: data[:-100]),
    "array with a flipped magic": prepared("responses.npy", lambda data: flipped(data, 1)),
    "array with a flipped header": prepared("responses.npy", lambda data: flipped(data, 15, 30)),
    "array with a flipped length of its header": prepared(
        "responses.npy", lambda data: flipped(data, 8, 9)
    ),
    "array that announces 8 TB": prepared(
        "responses.npy",
        header("{'descr': '<f8', 'fortran_order': False, 'shape': (22, 45000000000), }"),
    ),
    "array of negative size": prepared(
        "responses.npy", header("{'descr': '<f8', 'fortran_order': False, 'shape': (22, -12), }")
    ),
    "array whose header is deeply nested": prepared(
        "responses.npy", header("{'descr': " + "(" * 90)
    ),
    "array of complex numbers": prepared("responses.npy", npy(lambda x: x.astype(complex))),
    "array of dates": prepared("responses.npy", npy(lambda x: x.astype("datetime64[s]"))),
    "array of records": prepared("responses.npy", npy(lambda x: np.zeros(22, "i4,f8"))),
    "array with one axis": prepared("responses.npy", npy(lambda x: x[:, 0])),
    "array with four axes": prepared("responses.npy", npy(lambda x: x[:, :, None, None])),
    "array transposed": prepared("responses.npy", npy(lambda x: x.T)),
    "array without units": prepared("responses.npy", npy(lambda x: x[:, :0])),
    "array of constants": prepared("responses.npy", npy(lambda x: 0 * x + 3)),
    "array of overflowing numbers": prepared("responses.npy", npy(lambda x: np.float64(x) * 1e300)),
    "array with one infinity": prepared(
        "responses.npy", npy(lambda x: np.where(np.arange(x.size).reshape(x.shape) == 30, np.inf, x))
    ),
    "array with a trap": prepared("responses.npy", npy(lambda x: np.array([Trap()] * 22, object))),
    "zip in place of an array": prepared("responses.npy", npz),
    "broken zip in place of an array": prepared("responses.npy", lambda data: half(npz(data))),
    "text in place of an array": prepared("responses.npy", content(b"1,2,3\n4,5,6\n")),
    "folder in place of an array": instead("responses.npy", Path.mkdir),
    "dangling link in place of an array": instead(
        "responses.npy", lambda path: path.symlink_to("nowhere.npy")
    ),
    "pipe in place of an array": instead("responses.npy", os.mkfifo),
    "trials missing": instead("trials.tsv", lambda path: None),
    "pipe in place of trials": instead("trials.tsv", os.mkfifo),
    "trials cut": prepared("trials.tsv", lambda data: half(data)[:-3]),
    "trials in binary": prepared("trials.tsv", content(bytes(range(256)) * 20)),
    "trials in UTF-16": prepared("trials.tsv", lambda data: data.decode().encode("utf-16")),
    "trials in UTF-16 without mark": prepared(
        "trials.tsv", lambda data: data.decode().encode("utf-16-le")
    ),
    "trials with a NUL": prepared("trials.tsv", swapped(b"train_03", b"train\x0003")),
    "trials without stimuli": prepared("trials.tsv", swapped(b"stimulus_id", b"picture")),
    "trials with a column twice": prepared("trials.tsv", swapped(b"run", b"stimulus_id")),
    "trials twice": prepared("trials.tsv", lambda data: data + data.split(b"\n", 1)[1]),
    "trials with a script": prepared("trials.tsv", shown(3, SCRIPT)),
    "trials with a very long name": prepared("trials.tsv", shown(3, LONG * 1000)),
    "trials with a path": prepared("trials.tsv", shown(3, "../../../etc/passwd")),
    "trials in the wrong split": prepared(
        "trials.tsv", lambda data: data.replace(b"run", b"split", 1)
    ),
    "units cut": prepared("units.tsv", content(b"kind\tx\nvoxel\t1\nvoxel")),
    "units in binary": prepared("units.tsv", content(b"\x80\x81\x82")),
    "units without kind": prepared("units.tsv", content(b"x\n" + b"1\n" * 12)),
    "units at an infinite place": prepared(
        "units.tsv", content(b"kind\tx\n" + b"voxel\tinf\n" * 12)
    ),
    "units with text as place": prepared(
        "units.tsv", content(b"kind\tx\n" + b"voxel\t1 mm\n" * 12)
    ),
    "sidecar cut": sidecar('{"sampling_rate_hz": 100, "tmin'),
    "sidecar is a list": sidecar("[1, 2]"),
    "sidecar is empty": sidecar(""),
    "sidecar is deeply nested": sidecar("[" * 100_000),
    "sidecar with a huge number": sidecar('{"sampling_rate_hz": ' + "9" * 10_000 + "}"),
    "sidecar with a rate too large": sidecar('{"sampling_rate_hz": 1' + "0" * 400 + "}"),
    "sidecar with a rate as text": sidecar('{"sampling_rate_hz": "100 Hz"}'),
    "sidecar with a negative rate": sidecar('{"sampling_rate_hz": -100}'),
    "sidecar with no number": sidecar('{"sampling_rate_hz": NaN}'),
    "sidecar with a NUL": sidecar('{"sampling_rate_hz": 100, "units": "a\\u0000b"}'),
    "picture missing": picture("gone.png"),
    "picture missing, hostile name": picture(SCRIPT + ".png"),
    "picture missing, name beyond ASCII": picture("gesicht_ü_\u202e顔.png"),
    "picture missing, very long name": picture(LONG + ".png"),
    "picture cut": picture("cutpicture.png", drawn(half)),
    "picture with a flipped chunk": picture("flipped.png", drawn(lambda d: flipped(d, 20, 60))),
    "picture empty": picture("empty.png", drawn(content(b""))),
    "picture of another kind": picture(
        "program.png", drawn(content(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EOF\n"))
    ),
    "picture is a page": picture("page.png", drawn(content(b"<svg onload='alert(1)'></svg>"))),
    "picture of 3.6 billion pixels": picture("bomb.png", bomb(60_000, 60_000)),
    "picture of 100 million pixels": picture("large.png", bomb(10_000, 10_000)),
    "picture of no pixels": picture("nopixels.png", bomb(0, 0)),
    "folder in place of a picture": picture("folder.png", Path.mkdir),
    "pipe in place of a picture": picture("pipe.png", os.mkfifo),
    "picture behind a link out": picture("linkout.png", link_out),
    "picture behind a link to itself": picture("loop.png", link_loop),
    "picture above the dataset": picture("../../outside.png"),
    "picture by an absolute path": picture("/etc/hostname"),
    "picture with Windows' path": picture("C:\\windows\\win.png"),
    "subject named by a script": renamed(SCRIPT),
    "subject named with a new line": renamed("new\nline"),
    "subject named with two points": renamed(".."),
    "subject without a name": renamed(""),
    "subject named in bytes that are no text": renamed("b\udcff\udcfe"),
    "subject named in Greek": renamed("αβγ"),
    "subject with a very long name": renamed("x" * 240),
    "subject named with a wildcard": renamed("{subject}"),
    "subject named with a command": renamed("$(touch sprung)"),
}  # fmt: skip


# ----------------------------------------------------------------------------------- BOLD
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


def rows(change: Callable[[list[dict[str, str]]], Any]) -> Callable[[bytes], bytes]:
    """Change the rows of a table, in place or as what is returned."""

    def changed(data: bytes) -> bytes:
        lines = [line.split("\t") for line in data.decode().rstrip("\n").split("\n")]
        table = [dict(zip(lines[0], line, strict=True)) for line in lines[1:]]
        found = change(table)
        table = table if found is None else found
        text = ["\t".join(lines[0]), *("\t".join(row.values()) for row in table)]
        return ("\n".join(text) + "\n").encode()

    return changed


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


# ------------------------------------------------------------------------------ EEG and MEG
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
