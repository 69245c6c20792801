"""Fitted models on disk: safetensors and a JSON file beside it; never a pickle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from afterimage.errors import InputError
from afterimage.io.atomic import atomic_path, write_json
from afterimage.io.tables import read_json


def save_weights(path: Path, arrays: dict[str, np.ndarray], card: dict[str, Any]) -> None:
    """Write arrays to ``path`` (safetensors) and ``card`` to the JSON file beside it."""
    from safetensors.numpy import save_file

    with atomic_path(path) as temporary:
        save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, temporary)
    write_json(path.with_suffix(".json"), card)


def load_weights(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read what `save_weights` wrote: the arrays and the card."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        arrays = load_file(path)
    except (SafetensorError, OSError) as error:
        raise InputError(
            "a weights file cannot be read", where=str(path), found=str(error),
            expected="a safetensors file", fix="delete it and run again",
        ) from None  # fmt: skip
    return arrays, read_json(path.with_suffix(".json"))
