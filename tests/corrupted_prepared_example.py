"""Prepared responses, each copy corrupted in one way; every one must be refused by name.

Each entry corrupts the files of one subject, who stands beside healthy ones, and returns the name
that the message must say.
"""

from __future__ import annotations

import io
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

import numpy as np

common = SimpleNamespace(**runpy.run_path(str(Path(__file__).parent / "corrupted_example.py")))
SCRIPT, LONG = common.SCRIPT, common.LONG
flipped, half, swapped, content, rows = (
    common.flipped, common.half, common.swapped, common.content, common.rows
)  # fmt: skip
#: Takes the study and the label of a subject who is healthy till then; returns the name to be said.
Corruption = Callable[[Any, str], str]


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
