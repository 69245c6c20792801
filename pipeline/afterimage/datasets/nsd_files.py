"""The large files of NSD: single-trial betas and the pictures, read piece by piece."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from afterimage.datasets.nsd_design import TRIALS_A_SESSION, stimulus_id
from afterimage.datasets.volumes import count_volumes, read_volumes
from afterimage.errors import InputError
from afterimage.io.arrays import open_hdf5
from afterimage.io.images import write_png

#: Published integers are percent signal change times this.
SCALE = 300.0
#: Bytes of betas that are read at once.
_SLAB_BYTES = 128 * 2**20


def read_betas(path: Path, mask: np.ndarray) -> Iterator[np.ndarray]:
    """Read one session's betas inside a mask, as stored (300 times percent signal change).

    Parameters
    ----------
    path : Path
        ``betas_sessionNN.hdf5`` or ``.mat`` (trials, Z, Y, X) or ``.nii.gz`` (X, Y, Z, trials).
    mask : array of bool, shape (X, Y, Z)

    Yields
    ------
    array of shape (k, n_voxels), float32
        Consecutive trials; together 750.
    """
    if path.name.endswith(".nii.gz"):
        _check_betas(path, *count_volumes(path, mask.shape))
        yield from read_volumes(path, mask)
    else:
        yield _read_hdf5(path, mask)


def _check_betas(path: Path, n_trials: int, dtype: np.dtype) -> None:
    if n_trials != TRIALS_A_SESSION:
        raise InputError(
            "a session has the wrong number of trials", where=str(path),
            found=f"{n_trials} trials", expected=f"{TRIALS_A_SESSION}",
            fix="download the file again",
        )  # fmt: skip
    if dtype.kind != "i" or dtype.itemsize != 2:
        raise InputError(
            "betas are not the published 16-bit integers", where=str(path), found=str(dtype),
            expected=f"int16, {SCALE:g} times percent signal change",
            fix="take the file as it was published; a converted copy has an unknown scale",
        )  # fmt: skip


def _read_hdf5(path: Path, mask: np.ndarray) -> np.ndarray:
    """Read slab after slab of slices: the chunks on disk go along the trials."""
    with open_hdf5(path) as file:
        if not hasattr(file.get("betas"), "shape"):
            raise InputError(
                "a file of betas has no betas", where=str(path), found=", ".join(file) or "nothing",
                expected="a dataset named betas", fix="download it again",
            )  # fmt: skip
        betas = file["betas"]
        _check_betas(path, betas.shape[0], betas.dtype)
        if betas.shape[1:] != mask.shape[::-1]:
            same = betas.shape[1:] == mask.shape
            raise InputError(
                "the axes of betas are X, Y, Z" if same else "betas lie on another grid",
                where=str(path), found=f"(trials, ...) = {betas.shape}",
                expected=f"(750, Z, Y, X) = {(TRIALS_A_SESSION, *mask.shape[::-1])}",
                fix="take the file as it was published" if same
                else "take betas and ROI volumes of the same subject and space",
            )  # fmt: skip
        numbers = np.full(mask.shape, -1)
        numbers[mask] = np.arange(int(mask.sum()))
        numbers = numbers.transpose(2, 1, 0)
        (z0, z1), (y0, y1), (x0, x1) = _box(numbers >= 0)
        slice_bytes = 2 * TRIALS_A_SESSION * (y1 - y0) * (x1 - x0)
        step = max(1, _SLAB_BYTES // slice_bytes)
        values = np.empty((TRIALS_A_SESSION, int(mask.sum())), dtype=np.float32)
        for start in range(z0, z1, step):
            stop = min(z1, start + step)
            part = numbers[start:stop, y0:y1, x0:x1]
            slab = betas[:, start:stop, y0:y1, x0:x1]
            values[:, part[part >= 0]] = slab[:, part >= 0]
        return values


def _box(inside: np.ndarray) -> list[tuple[int, int]]:
    """Return first and last (exclusive) index of the voxels inside, along each axis."""
    return [(int(axis.min()), int(axis.max()) + 1) for axis in np.nonzero(inside)]


def write_pictures(path: Path, folder: Path, numbers: Sequence[int]) -> None:
    """Write images of ``nsd_stimuli.hdf5`` as PNG, one at a time; those that exist are kept."""
    with open_hdf5(path) as file:
        if not hasattr(file.get("imgBrick"), "shape"):
            raise InputError(
                "the file of pictures has no pictures", where=str(path), found=", ".join(file),
                expected="a dataset named imgBrick", fix="download it again",
            )  # fmt: skip
        brick = file["imgBrick"]
        right = brick.ndim == 4 and brick.shape[3] == 3 and brick.dtype == np.uint8
        if not right or len(brick) <= numbers[-1]:
            raise InputError(
                "the pictures have another form than published", where=f"{path}, imgBrick",
                found=f"{brick.shape}, {brick.dtype}",
                expected=f"(73000, 425, 425, 3), uint8, with image {numbers[-1]} (from 0)",
                fix="download the file again",
            )  # fmt: skip
        for number in numbers:
            picture = folder / f"{stimulus_id(number)}.png"
            if not picture.is_file():
                write_png(picture, brick[number])
