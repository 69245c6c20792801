"""Fitted models on disk: safetensors and a JSON file beside it; never a pickle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from afterimage.errors import InputError
from afterimage.io.atomic import atomic_path, require_space, write_json
from afterimage.io.tables import read_json

#: Values written at once.
N_PIECE = 1 << 22
_KINDS = {
    "<f2": "F16", "<f4": "F32", "<f8": "F64", "<i4": "I32", "<i8": "I64", "|u1": "U8", "|b1": "BOOL",
}  # fmt: skip


def save_weights(path: Path, arrays: Mapping[str, np.ndarray], card: dict[str, Any]) -> None:
    """Write arrays to ``path`` (safetensors) and ``card`` to the JSON file beside it.

    An array that is mapped from disk is written piece by piece: models may be larger than memory,
    and the library's own writer makes a copy of all of them first.
    """
    from safetensors.numpy import save_file

    mapped = any(isinstance(array, np.memmap) for array in arrays.values())
    path.parent.mkdir(parents=True, exist_ok=True)
    require_space(path.parent, sum(array.nbytes for array in arrays.values()))
    with atomic_path(path) as temporary:
        if mapped:
            _write_pieces(temporary, arrays)
        else:
            save_file({k: np.ascontiguousarray(v) for k, v in arrays.items()}, temporary)
    write_json(path.with_suffix(".json"), card)


def _write_pieces(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write the format of safetensors: length of the header, the header, the data."""
    header, offset = {}, 0
    names = sorted(arrays, key=lambda name: (-arrays[name].itemsize, name))  # keeps data aligned
    for name in names:
        array = arrays[name]
        end = offset + array.nbytes
        kind = _KINDS[array.dtype.str]
        header[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in names:
            flat = arrays[name].reshape(-1)
            for start in range(0, len(flat), N_PIECE):
                file.write(np.ascontiguousarray(flat[start : start + N_PIECE]).tobytes())


def load_weights(
    path: Path, *, mapped: bool = False
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read what `save_weights` wrote: the arrays and the card.

    With ``mapped`` the arrays are views of the file, read when they are used.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        arrays = _map_file(path) if mapped else load_file(path)
    except (SafetensorError, OSError, ValueError, LookupError, TypeError, AttributeError,
            RecursionError, OverflowError) as error:  # fmt: skip
        raise InputError(
            "a weights file cannot be read", where=str(path), found=str(error)[:300],
            expected="a safetensors file", fix="delete it and run again",
        ) from None  # fmt: skip
    return arrays, read_json(path.with_suffix(".json"))


def _map_file(path: Path) -> dict[str, np.ndarray]:
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if 8 + length > path.stat().st_size:
            raise ValueError(f"a header of {length} bytes in a file of {path.stat().st_size}")
        header = json.loads(file.read(length))
    data = np.memmap(path, np.uint8, "r", offset=8 + length)
    dtypes = {kind: dtype for dtype, kind in _KINDS.items()}
    return {
        name: data[slice(*entry["data_offsets"])]
        .view(dtypes[entry["dtype"]])
        .reshape(entry["shape"])
        for name, entry in header.items()
        if name != "__metadata__"
    }
