"""Tab-separated tables as BIDS writes them, read strictly."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from afterimage.errors import InputError
from afterimage.io.atomic import write_text

Row = dict[str, str]

#: A text file of more bytes, or a cell of more characters, is refused: one long cell in a column
#: makes an array as wide for all its rows.
MAX_TEXT_BYTES = 2**30
MAX_CELL = 10_000
# Strings of JSON that no file takes: NUL (as json.dumps writes it), and halves of pairs.
_UNWRITABLE = re.compile(r"\\u0000|[\ud800-\udfff]")


def read_text(path: Path) -> str:
    """Read a UTF-8 text file; an error names the first offending byte.

    A file of more than `MAX_TEXT_BYTES`, or with a NUL, is refused.
    """
    if not path.is_file():
        raise InputError(
            "a file is missing",
            where=str(path),
            found="no such file",
            expected="a readable file",
            fix="put it there",
        )
    if (size := path.stat().st_size) > MAX_TEXT_BYTES:
        raise InputError(
            "a text file is too large", where=str(path), found=f"{size} bytes",
            expected=f"at most {MAX_TEXT_BYTES} bytes", fix="check that it is the right file",
        )  # fmt: skip
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            "a text file is not UTF-8",
            where=f"{path}, byte {error.start}",
            found=f"byte 0x{error.object[error.start]:02x}",
            expected="UTF-8 text",
            fix="save the file as UTF-8 (in a spreadsheet: export as 'Unicode text, UTF-8')",
        ) from None
    if "\0" in text:
        raise InputError(
            "a text file holds a NUL", where=f"{path}, line {text[: text.index(chr(0))].count(chr(10)) + 1}",
            found="a character of code 0", expected="UTF-8 text",
            fix="save the file as UTF-8; it is binary, damaged, or UTF-16",
        )  # fmt: skip
    return text


def read_tsv(path: Path, required: Sequence[str] = ()) -> list[Row]:
    """Read a tab-separated table with a header line.

    Parameters
    ----------
    path : Path
        The file. UTF-8, one header line, tabs between cells.
    required : sequence of str
        Columns that must be there.

    Returns
    -------
    list of dict
        One dict a row, in file order; every value a string, ``n/a`` kept as it is.

    Raises
    ------
    InputError
        If the file is missing, is not UTF-8, has no tabs, lacks a required column, or has a row
        with the wrong number of cells.
    """
    # Not splitlines(): a caption may hold characters that it takes for the end of a line.
    lines = read_text(path).replace("\r\n", "\n").replace("\r", "\n").split("\n")
    while lines and not lines[-1].strip():
        lines.pop()
    if not lines:
        raise InputError(
            "a table is empty",
            where=str(path),
            found="no line with text",
            expected=f"a header with {', '.join(required)}" if required else "a header line",
            fix="write the table again",
        )
    header = [name.strip() for name in lines[0].split("\t")]
    missing = [name for name in required if name not in header]
    if missing:
        no_tabs = "\t" not in lines[0] and missing[0] in re.split(r"[,; ]+", lines[0])
        raise InputError(
            "a table has no tabs" if no_tabs else "a table lacks a column",
            where=f"{path}, line 1",
            found=lines[0][:120].strip() or "an empty line",
            expected=f"tab-separated columns, among them {', '.join(required)}",
            fix="separate the columns by tabs" if no_tabs else f"add: {', '.join(missing)}",
        )
    if len(set(header)) != len(header):
        twice = next(name for name in header if header.count(name) > 1)
        raise InputError(
            "a table has the same column twice", where=f"{path}, line 1", found=twice,
            expected="each column once", fix="rename or remove one",
        )  # fmt: skip
    rows = []
    for number, line in enumerate(lines[1:], start=2):
        cells = line.split("\t")
        if len(cells) != len(header):
            raise InputError(
                "a row of a table has the wrong number of cells",
                where=f"{path}, line {number}",
                found=f"{len(cells)} cells",
                expected=f"{len(header)} cells ({', '.join(header)})",
                fix="separate cells by single tabs; write n/a for a missing value",
            )
        if len(line) > MAX_CELL and (longest := max(map(len, cells))) > MAX_CELL:
            raise InputError(
                "a cell of a table is too long", where=f"{path}, line {number}",
                found=f"{longest} characters", expected=f"at most {MAX_CELL}",
                fix="shorten the cell; a quote or a tab may be missing",
            )  # fmt: skip
        rows.append(dict(zip(header, map(str.strip, cells), strict=True)))
    return rows


def whole_number(row: Mapping[str, str | None], column: str, where: str) -> int:
    """Return the whole number in a cell, as ``3`` or ``3.0``; ``where`` names the table."""
    text = row.get(column)
    try:
        value = float(text or "")
        if not value.is_integer():
            raise ValueError(text)
    except (ValueError, OverflowError):
        raise InputError(
            "a cell of a table is no whole number", where=f"{where}, column {column}",
            found="no such column" if text is None else text[:200] or "an empty cell",
            expected="a whole number", fix="correct the cell, or copy the table again",
        ) from None  # fmt: skip
    return int(value)


def format_cell(value: Any) -> str:
    """Write one value as BIDS does: ``n/a`` for what is missing, floats at 9 digits."""
    if isinstance(value, float | np.floating):
        return f"{value:.9g}" if math.isfinite(value) else "n/a"
    text = "" if value is None else str(value)
    if not text.isprintable():  # tables of units have a million cells, all of them printable
        # Names of files may hold bytes that are no text.
        text = text.encode("utf-8", "backslashreplace").decode()
        text = re.sub(r"[\t\r\n\0]", " ", text)
    return text.strip() or "n/a"


def write_tsv(path: Path, rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> None:
    """Write rows as a tab-separated table, atomically; absent values become ``n/a``."""
    lines = ["\t".join(columns)]
    lines += ["\t".join(format_cell(row.get(name)) for name in columns) for row in rows]
    write_text(path, "\n".join(lines) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object, with a clear error where it is not one."""
    try:
        text = read_text(path)
        value = json.loads(text, parse_int=_whole_number)
    except RecursionError:
        raise InputError(
            "a JSON file cannot be read", where=str(path), found="objects nested too deeply",
            expected="a JSON object", fix="write the file again",
        ) from None  # fmt: skip
    except json.JSONDecodeError as error:
        raise InputError(
            "a JSON file cannot be read",
            where=f"{path}, line {error.lineno}",
            found=error.msg,
            expected="a JSON object",
            fix="check commas and quotes",
        ) from None
    if not isinstance(value, dict):
        raise InputError(
            "a JSON file does not hold an object", where=str(path),
            found=type(value).__name__, expected="an object { ... }", fix="write the file again",
        )  # fmt: skip
    if "\\u" in text and _UNWRITABLE.search(json.dumps(value, ensure_ascii=False)):
        raise InputError(
            "a JSON file holds a character that is none", where=str(path),
            found="the code of NUL, or half of a pair (\\ud800 to \\udfff)",
            expected="text that can be written again", fix="correct the strings with \\u in them",
        )  # fmt: skip
    return value


def _whole_number(text: str) -> int | float:
    """Read a whole number of JSON; one that no array holds becomes a float, perhaps infinite."""
    return int(text) if len(text) < 19 else float(text)
