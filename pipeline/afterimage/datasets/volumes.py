"""Volumes of published datasets: the grid checked, betas read only inside a mask."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from afterimage.errors import InputError
from afterimage.io import nifti


def read_volume(path: Path, shape: tuple[int, ...] | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Read one volume and check its grid.

    Parameters
    ----------
    path : Path
        A NIfTI file of one volume.
    shape : tuple of int, optional
        The grid it must have.

    Returns
    -------
    values : array of shape (X, Y, Z)
        Values that are not finite are 0.
    affine : array of shape (4, 4), mm

    Raises
    ------
    InputError
        If the file cannot be read or lies on another grid; a reversed grid is called so.
    """
    values, affine = nifti.read_volume(path)
    check_grid(path, values.shape, shape)
    return values, affine


def check_grid(path: Path, found: tuple[int, ...], expected: tuple[int, ...] | None) -> None:
    """Raise an error if a volume has another shape than the mask; say if it is transposed."""
    if expected is None or tuple(found) == tuple(expected):
        return
    turned = tuple(found) == tuple(expected)[::-1]
    raise InputError(
        "the axes of a volume are in reverse order" if turned
        else "a volume lies on another grid than the mask",
        where=str(path), found=f"shape {tuple(found)}",
        expected=f"shape {tuple(expected)} (X, Y, Z)",
        fix="take the file as it was published; do not transpose it" if turned
        else "take both from the same space and release",
    )  # fmt: skip


def count_volumes(path: Path, shape: tuple[int, ...] | None = None) -> tuple[int, np.dtype]:
    """Return the number of volumes of a NIfTI file and its stored dtype; check its grid."""
    file = nifti.open_bold(path, min_volumes=1)
    check_grid(path, file.shape, shape)
    return file.n_volumes, np.dtype(file.image.get_data_dtype())


def read_volumes(
    path: Path, mask: np.ndarray, volumes_per_block: int | None = None
) -> Iterator[np.ndarray]:
    """Read a NIfTI file from its beginning to its end, keeping the voxels of a mask.

    A compressed file is unpacked once, and memory holds one block of volumes.

    Parameters
    ----------
    path : Path
        A NIfTI file of shape (X, Y, Z, T).
    mask : array of bool, shape (X, Y, Z)
        The voxels to keep, in C order.
    volumes_per_block : int or None
        Volumes of one piece; None for blocks of 64 MB.

    Yields
    ------
    array of shape (k, n_voxels), float32
        Consecutive volumes, scaled as the header says; they may hold NaN.
    """
    file = nifti.open_bold(path, min_volumes=1)
    check_grid(path, file.shape, mask.shape)
    for _, block in file.blocks(volumes_per_block=volumes_per_block):
        yield block[mask].T


def voxel_positions(mask: np.ndarray, affine: np.ndarray) -> list[dict[str, float | int]]:
    """Return index and position of each voxel of a mask, in C order.

    Returns
    -------
    list of dict
        ``i j k`` (index in the volume) and ``x y z`` (mm, from the affine), one a voxel.
    """
    indices = np.argwhere(mask)
    positions = np.round(indices @ affine[:3, :3].T + affine[:3, 3], 3)
    return [
        dict(zip("ijkxyz", (*index, *place), strict=True))
        for index, place in zip(indices.tolist(), positions.tolist(), strict=True)
    ]
