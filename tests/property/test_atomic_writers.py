"""Whatever writes a file writes it whole: seen in the source, and by stopping every writer."""

from __future__ import annotations

import ast
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray

import afterimage
from afterimage.io.arrays import block_writer, write_dataset
from afterimage.io.atomic import atomic_folder, write_json, write_text
from afterimage.io.images import write_png
from afterimage.io.meeg_files import write_brainvision, write_fif
from afterimage.io.nifti import write_nifti
from afterimage.io.series import write_series
from afterimage.io.tables import write_tsv
from afterimage.io.tokens import RecordedTokens, write_tokens
from afterimage.io.trials import write_trials
from afterimage.io.weights import save_weights

#: Names of calls that write to a path, of libraries and of ours that are not atomic themselves.
WRITERS = {
    "write_text", "write_bytes", "save", "savez", "savez_compressed", "save_file", "to_netcdf",
    "to_csv", "open_memmap", "save_pretrained", "copyfile", "copytree", "move", "tofile", "savetxt",
    "write_brainvision",
}  # fmt: skip
#: What gives a temporary name, and moves or removes it in the end.
SHELTERS = {"atomic_path", "atomic_folder", "TemporaryDirectory", "BytesIO"}
#: Functions that write without, and why that is right.
ALLOWED = {
    ("record.py", "finish_run"): "the note of a job, in place on a full disk",
    ("launch.py", "_only_run"): "the lock",
    ("launch.py", "_execute"): "the log, which grows",
    ("warm.py", "_become"): "a pipe",
    (
        "training/loop.py",
        "save_checkpoint",
    ): "a partial name of its own: rooms of maths know no io",
    ("stages/fit_responses.py", "run"): "scratch in work/, removed in the end",
    ("stages/checkpoints.py", "allocate"): "scratch in work/, removed in the end",
    ("datasets/alljoined.py", "_rename_channel"): "a copy in the temporary folder of its caller",
    ("io/weights.py", "_write_pieces"): "the temporary name of its caller",
    ("io/live_streams.py", "__init__"): "a stream, which grows while others read it",
    ("io/live_streams.py", "write"): "a stream, which grows while others read it",
}


def unsheltered() -> Iterator[tuple[str, str, int, str]]:
    """Yield the calls that write and stand in no shelter: file, function, line, call."""
    root = Path(afterimage.__file__).parent
    for path in sorted(root.rglob("*.py")):
        name = path.relative_to(root).as_posix()
        yield from _calls(ast.parse(path.read_text(encoding="utf-8")), name, "", False)


def _calls(
    node: ast.AST, file: str, function: str, sheltered: bool
) -> Iterator[tuple[str, str, int, str]]:
    if isinstance(node, ast.FunctionDef):
        function, sheltered = node.name, False
    if isinstance(node, ast.With):
        given = [called(item.context_expr) for item in node.items]
        sheltered = sheltered or bool(SHELTERS & set(given))
    if isinstance(node, ast.Call) and not sheltered:
        name = called(node)
        opens = name == "open" and any(
            isinstance(a, ast.Constant) and isinstance(a.value, str) and set(a.value) & set("wax+")
            and len(a.value) < 4
            for a in [*node.args, *(keyword.value for keyword in node.keywords)]
        )  # fmt: skip
        own = isinstance(node.func, ast.Name) and name in ("write_text", "write_brainvision")
        if opens or (name in WRITERS and not own):
            yield file, function, node.lineno, name
    for child in ast.iter_child_nodes(node):
        yield from _calls(child, file, function, sheltered)


def called(node: ast.AST) -> str:
    """Return the last part of the name of what is called."""
    function = node.func if isinstance(node, ast.Call) else node
    return getattr(function, "attr", getattr(function, "id", ""))


def test_every_writer_in_the_source_is_sheltered() -> None:
    found = list(unsheltered())
    new = [one for one in found if one[:2] not in ALLOWED]
    assert not new


def info() -> Any:
    import mne

    return mne.create_info(["a", "b"], 100.0, "eeg")


def write_blocks(path: Path) -> None:
    with block_writer(path) as writer:
        writer.group("", ["s1", "s2"])
        writer.write("", "block", [np.ones((2, 3), np.float32)], (3,), {})


def write_folder(path: Path) -> None:
    with atomic_folder(path) as folder:
        (folder / "part").mkdir()
        (folder / "part" / "file").write_bytes(b"new")


VALUES = np.arange(8, dtype=np.float32).reshape(4, 2)
UNITS = {"kind": np.array(["eeg", "eeg"]), "roi": np.array(["a", "b"])}
ABOUT = {"sampling_rate_hz": 1.0, "start_time_s": 0.0, "source": "x"}
TRIALS = {"stimulus": np.array(list("abcd")), "split": np.array(["train"] * 4)}
TOKENS = RecordedTokens(np.zeros((1, 4, 1), np.int16), np.array(["a"]), np.ones(4, bool), {})
#: Every writer of the room, and the name of its file: what stages write, they write with these.
ROOM: dict[str, Callable[[Path], object]] = {
    "text.txt": lambda path: write_text(path, "new"),
    "value.json": lambda path: write_json(path, {"new": 1}),
    "rows.tsv": lambda path: write_tsv(path, [{"a": 1}], ["a"]),
    "picture.png": lambda path: write_png(path, np.zeros((2, 2, 3), np.uint8)),
    "image.nii.gz": lambda path: write_nifti(path, np.zeros((2, 2, 2)), np.eye(4)),
    "data.nc": lambda path: write_dataset(path, xarray.Dataset({"a": ("b", [1.0])})),
    "blocks.nc": write_blocks,
    "series.nc": lambda path: write_series(path, VALUES, UNITS, ABOUT, np.zeros(4, bool)),
    "trials.nc": lambda path: write_trials(path, [VALUES], TRIALS, UNITS, None, {}),
    "weights.safetensors": lambda path: save_weights(path, {"a": VALUES}, {}),
    "tokens.npz": lambda path: write_tokens(path, path.with_suffix(".json"), [TOKENS], {}),
    "run_eeg.vhdr": lambda path: write_brainvision(
        path.parent, path.stem, info(), np.zeros((2, 50)), np.array([5])
    ),
    "run_meg.fif": lambda path: write_fif(path, info(), np.zeros((2, 50))),
    "folder": write_folder,
}


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize("name", list(ROOM))
@pytest.mark.parametrize("old", [False, True], ids=["new", "over-old"])
def test_a_writer_that_is_stopped_leaves_what_was_there(
    name: str, old: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped when all is written and nothing moved, which is the last moment before it counts."""
    path = tmp_path / name
    if old and name == "folder":
        path.mkdir()
        (path / "file").write_bytes(b"old")
    elif old:
        path.write_bytes(b"old")
    before = contents(tmp_path)

    def stop(_descriptor: int) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", stop)
        with pytest.raises(KeyboardInterrupt):
            ROOM[name](path)
    assert contents(tmp_path) == before
    assert not list(tmp_path.glob(".writing-*"))
    ROOM[name](path)
    after = contents(tmp_path)
    assert any(key.startswith(name) and after[key] != before.get(key) for key in after)
    assert not [key for key in after if key.startswith(".writing-")]
