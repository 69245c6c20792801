"""Where the training of a stage, and what it needs, is kept until its outputs are written."""

from __future__ import annotations

import hashlib
import json
import math
import os
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from afterimage.bids.names import derivative_root, unit_of
from afterimage.io.atomic import require_space

if TYPE_CHECKING:
    from afterimage.decoding.linear import Allocate
    from afterimage.settings import StageConfig

#: Arrays of a decoder from this size on are kept on disk while it is fitted.
LARGE_BYTES = 1 << 28


def checkpoint_folder(
    stage: str, version: int, config: StageConfig, inputs: Any, output: Path
) -> Path:
    """Return the folder of one training run: ``work/<stage>/<job>/<digest>`` of the output dataset.

    It lies outside all declared outputs, so Snakemake does not remove it when a job is killed. The
    digest is of all that the training follows from: a run that was killed is never resumed with
    other settings, another version of the stage, or inputs that were made anew meanwhile. Remove
    the parent of the folder when the outputs are written.

    Parameters
    ----------
    stage : str
        Its name.
    version : int
        Its ``VERSION``.
    config : StageConfig
        Its settings.
    inputs : dataclass
        Its inputs, fields of one path or several; known by their size and time, as Snakemake does.
    output : Path
        Its first output.
    """
    root = derivative_root(output)
    told: list[Any] = [version, config.model_dump(mode="json")]
    for field in fields(inputs):
        value = getattr(inputs, field.name)
        for path in value if isinstance(value, tuple) else (value,):
            if path is not None:
                about = path.stat()
                place = os.path.relpath(path.resolve(), root)
                told.append([field.name, place, about.st_size, about.st_mtime_ns])
    digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]
    return root / "work" / stage / f"{unit_of(output)}_{output.name.split('.')[0]}" / digest


def on_disk(folder: Path) -> Allocate:
    """Make arrays too large for memory as files in ``folder``, which is removed in the end."""

    def allocate(name: str, shape: tuple[int, ...]) -> np.ndarray:
        if 4 * math.prod(shape) < LARGE_BYTES:
            return np.empty(shape, np.float32)
        folder.mkdir(parents=True, exist_ok=True)
        require_space(folder, 4 * math.prod(shape))
        file = folder / f"{hashlib.sha256(name.encode()).hexdigest()[:16]}.npy"
        return np.lib.format.open_memmap(file, "w+", np.float32, shape)

    return allocate
