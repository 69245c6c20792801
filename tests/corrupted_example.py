"""How bytes of a file are corrupted: what the copies of `corrupted_*_example.py` share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

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
