"""Regions of interest of NSD: volumes of numbers, and the names of the numbers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from afterimage.datasets.volumes import read_volume
from afterimage.errors import InputError

#: Names of the labels from 1 on, where the dataset's own label table is not there.
LABELS = {
    "prf-visualrois": ("V1v", "V1d", "V2v", "V2d", "V3v", "V3d", "hV4"),
    "floc-faces": ("OFA", "FFA-1", "FFA-2", "mTL-faces", "aTL-faces"),
    "floc-places": ("OPA", "PPA", "RSC"),
    "floc-bodies": ("EBA", "FBA-1", "FBA-2", "mTL-bodies"),
    "floc-words": ("OWFA", "VWFA-1", "VWFA-2", "mfs-words", "mTL-words"),
    "streams": (
        "early", "midventral", "midlateral", "midparietal", "ventral", "lateral", "parietal",
    ),
}  # fmt: skip
#: A voxel's ``roi`` comes from the first of these that labels it.
_ORDER = tuple(LABELS)


def roi_mask(folder: Path, names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return the voxels that any of the named volumes labels with a number above 0.

    Parameters
    ----------
    folder : Path
        ``nsddata/ppdata/subjXX/<space>/roi``.
    names : sequence of str
        Names of volumes: ``nsdgeneral``, ``streams``, ``prf-visualrois``, ...

    Returns
    -------
    mask : array of bool, shape (X, Y, Z)
    affine : array of shape (4, 4), mm
    """
    mask: np.ndarray | None = None
    affine = np.eye(4)
    for name in names:
        values, affine = read_roi(folder, name, None if mask is None else mask.shape)
        # -1 marks voxels outside the cortex: "not -1" would keep the whole brain.
        mask = values > 0 if mask is None else mask | (values > 0)
    if mask is None or not mask.any():
        raise InputError(
            "the region of interest is empty", where=str(folder), found=", ".join(names) or "none",
            expected="a volume with values above 0", fix="check the option roi",
        )  # fmt: skip
    return mask, affine


def read_roi(
    folder: Path, name: str, shape: tuple[int, ...] | None
) -> tuple[np.ndarray, np.ndarray]:
    """Read a ROI volume; ``lh.`` and ``rh.`` are joined where there is no joint one."""
    path = folder / f"{name}.nii.gz"
    halves = [folder / f"{side}.{name}.nii.gz" for side in ("lh", "rh")]
    if path.is_file():
        return read_volume(path, shape)
    if all(half.is_file() for half in halves):
        left, affine = read_volume(halves[0], shape)
        right, _ = read_volume(halves[1], left.shape)
        return np.maximum(left, right), affine
    there = sorted(p.name.removesuffix(".nii.gz") for p in folder.glob("*.nii.gz"))
    raise InputError(
        "a ROI volume is missing", where=str(path), found=", ".join(there[:12]) or "no volume",
        expected=path.name, fix=f"download {path.parent.name}/{path.name}, or name another roi",
    )  # fmt: skip


def label_voxels(source: Path, folder: Path, mask: np.ndarray) -> list[dict[str, str]]:
    """Name the regions of each voxel of a mask.

    Returns
    -------
    list of dict
        One a voxel: ``roi`` (V1, V2, V3, hV4, else a category-selective area, else a stream, else
        ``n/a``) and one column a ROI volume that is there, with its own label.
    """
    columns: dict[str, list[str]] = {}
    for name in _ORDER:
        try:
            values, _ = read_roi(folder, name, mask.shape)
        except InputError as error:
            if error.what == "a ROI volume is missing":
                continue
            raise
        names = _label_names(source, name)
        columns[name] = [names.get(int(value), "n/a") for value in values[mask]]
    rows = []
    for index in range(int(mask.sum())):
        labels = {name: column[index] for name, column in columns.items()}
        first = next((label for label in labels.values() if label != "n/a"), "n/a")
        whole = first[:-1] if first in LABELS["prf-visualrois"][:6] else first
        rows.append({"roi": whole, **labels})
    return rows


def _label_names(source: Path, name: str) -> dict[int, str]:
    """Read the label table of a ROI volume, or use the names known here."""
    for path in (
        source / f"nsddata/freesurfer/fsaverage/label/{name}.mgz.ctab",
        source / f"nsddata/freesurfer/subj01/label/{name}.mgz.ctab",
    ):
        if path.is_file():
            cells = [line.split() for line in path.read_text(encoding="utf-8").splitlines()]
            return {int(c[0]): c[1] for c in cells if len(c) >= 2 and c[0].isdigit() and int(c[0])}
    return dict(enumerate(LABELS[name], start=1))
