"""Sidecars: the JSON files that apply to a recording, read as one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from afterimage.bids.entities import parse_name
from afterimage.bids.files import applicable, folder_files
from afterimage.errors import InputError
from afterimage.io.tables import read_json


def applicable_files(
    path: Path, root: Path, *, extension: str = ".json", suffix: str | None = None
) -> list[Path]:
    """Return the files of one extension that apply to ``path`` by inheritance, root first.

    Parameters
    ----------
    path : Path
        A recording or image below ``root``; it need not exist.
    root : Path
        Folder of the dataset.
    extension : str
        ``.json`` for sidecars, ``.tsv`` for tables such as that of a ``_dseg`` image.
    suffix : str or None
        Suffix of the files wanted; None takes the suffix of ``path``.

    Returns
    -------
    list of Path
        The last one is the closest: it wins, or is the only one to read for a table.

    Examples
    --------
    ``applicable_files(dseg, masks, extension=".tsv")[-1:]`` is the table of a ``_dseg`` image.
    """
    target = parse_name(path.name)
    if target is None:
        return []
    folder = path.parent
    folders = [folder, *(parent for parent in folder.parents if parent.is_relative_to(root))]
    levels = [
        [file for file in folder_files(str(level)) if file.name.extension == extension]
        for level in reversed(folders)
    ]
    return [Path(file.path) for file in applicable(levels, target, suffix or target.suffix)]


def read_sidecars(paths: Iterable[Path]) -> dict[str, Any]:
    """Read JSON files into one dict; a later file wins over an earlier one, key by key.

    Parameters
    ----------
    paths : iterable of Path
        Files from the root down, as `applicable_files` or the column ``sidecar`` of the units
        table lists them.

    Raises
    ------
    InputError
        If a file is missing or holds no JSON object; the message names it.
    """
    merged: dict[str, Any] = {}
    for path in paths:
        merged.update(read_json(path))
    return merged


def split_paths(cell: str, root: Path) -> list[Path]:
    """Return the paths in a cell of the units table, absolute; none for ``n/a``."""
    if cell == "n/a":
        return []
    return [root / part for part in cell.split(";")]


def join_paths(paths: Sequence[str]) -> str:
    """Join paths to one cell of the units table.

    Raises
    ------
    InputError
        If a path holds a character that the table uses itself.
    """
    for path in paths:
        if any(letter in path for letter in ";\t\n\r"):
            raise InputError(
                "a path cannot be written to the table of units", where=path,
                found="a semicolon, tab or end of line in the path", expected="none of these",
                fix="rename the folder",
            )  # fmt: skip
    return ";".join(paths) or "n/a"
