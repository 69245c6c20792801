"""MAT files of version 5, checked before scipy reads them.

scipy's reader trusts the tags in the file: one flipped bit of a type code ends the process. Here all
tags are looked at first, so that only whole arrays of numbers reach it.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from afterimage.errors import InputError

#: A file, or what is packed in it, of more bytes is refused.
MAX_BYTES = 2**28
# Bytes of one value by the type code of an element, and the classes that are arrays of numbers.
_SIZES = {1: 1, 2: 1, 3: 2, 4: 2, 5: 4, 6: 4, 7: 4, 9: 8, 12: 8, 13: 8}
_NUMBERS = range(6, 16)
_INT8, _INT32, _UINT32, _MATRIX, _PACKED = 1, 5, 6, 14, 15


def read_mat(path: Path, names: Sequence[str]) -> dict[str, Any]:
    """Read arrays of numbers from a MAT file of version 5.

    Parameters
    ----------
    path : Path
    names : sequence of str
        Variables to read; those that are absent are left out.

    Returns
    -------
    dict of array

    Raises
    ------
    InputError
        If the file is damaged, of another version, too large, or one of the variables is no array
        of numbers.
    """
    from scipy.io import loadmat

    try:
        _check(path, names)
        return {k: v for k, v in loadmat(path, variable_names=list(names)).items() if k in names}
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001  scipy raises of every kind on damaged files
        raise InputError(
            "a MAT file cannot be read", where=str(path),
            found=str(error)[:200] or type(error).__name__,
            expected="a whole MAT file of version 5, with arrays of numbers", fix="download it again",
        ) from None  # fmt: skip


def _check(path: Path, names: Sequence[str]) -> None:
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"{path.stat().st_size} bytes; at most {MAX_BYTES} are read")
    data = path.read_bytes()
    order = {b"IM": "<", b"MI": ">"}.get(data[126:128])
    if order is None or 0 in data[:4]:
        raise ValueError("no header of version 5")
    place = 128
    while place < len(data):
        kind, length = struct.unpack_from(order + "2I", data, place)
        body = data[place + 8 : place + 8 + length]
        if len(body) < length:
            raise ValueError(f"an element of {length} bytes, of which {len(body)} are there")
        if kind == _PACKED:
            unpacker = zlib.decompressobj()
            body = unpacker.decompress(body, MAX_BYTES)
            kind, inner = struct.unpack_from(order + "2I", body)
            if not unpacker.eof or inner != len(body) - 8:
                raise ValueError("a packed element that is cut off or too large")
            body = body[8:]
        if kind != _MATRIX:
            raise ValueError(f"an element of type {kind}")
        _check_matrix(body, order, names)
        place += 8 + length


def _check_matrix(body: bytes, order: str, names: Sequence[str]) -> None:
    parts = _elements(body, order)
    flags, dims, name = next(parts), next(parts), next(parts)
    if (flags[0], dims[0], name[0]) != (_UINT32, _INT32, _INT8) or len(flags[1]) != 8:
        raise ValueError("a variable without flags, size or name")
    (word,) = struct.unpack_from(order + "I", flags[1])
    shape = struct.unpack(f"{order}{len(dims[1]) // 4}i", dims[1])
    if name[1].decode("latin-1") not in names:
        return
    if word & 0xFF not in _NUMBERS or not 2 <= len(shape) <= 32 or min(shape) < 0:
        raise ValueError(f"{name[1].decode('latin-1')} is no array of numbers")
    for _ in range(2 if word & 0x800 else 1):  # the imaginary part follows the real one
        kind, values = next(parts)
        if kind not in _SIZES or len(values) != math.prod(shape) * _SIZES[kind]:
            raise ValueError(f"{len(values)} bytes of type {kind} for an array of shape {shape}")


def _elements(body: bytes, order: str) -> Iterator[tuple[int, bytes]]:
    """Yield type code and content of the parts of a variable."""
    place = 0
    while place + 8 <= len(body):
        (word,) = struct.unpack_from(order + "I", body, place)
        if word >> 16:  # four bytes or less stand within the tag
            kind, length, start = word & 0xFFFF, word >> 16, place + 4
            if length > 4:
                raise ValueError("a short element of more than four bytes")
            following = place + 8
        else:
            kind, start = word, place + 8
            (length,) = struct.unpack_from(order + "I", body, place + 4)
            following = start + length + -length % 8
        if start + length > len(body):
            raise ValueError("an element longer than its variable")
        yield kind, body[start : start + length]
        place = following
    raise ValueError("a variable that is cut off")
