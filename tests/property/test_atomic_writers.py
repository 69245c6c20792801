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
from afterimage.io import arrays, atomic, images, meeg_files, nifti, series, tables, tokens, trials
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
    ("stages/train_decoder.py", "allocate"): "scratch in work/, removed in the end",
    ("datasets/alljoined.py", "_rename_channel"): "a copy in the temporary folder of its caller",
    ("io/weights.py", "_write_pieces"): "the temporary name of its caller",
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
