"""The tables of THINGS-fMRI: responses (pandas HDF5), stimuli and voxels (comma or tab separated)."""

from __future__ import annotations

import contextlib
import csv
import io
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from afterimage.datasets.volumes import read_volume
from afterimage.errors import InputError
from afterimage.io.arrays import open_hdf5, reading_hdf5
from afterimage.io.tables import read_text, whole_number

#: Columns of the table of voxels that are no region of interest.
_NO_ROI = ("voxel_", "nc_", "prf-", "splithalf_", "subject_id", "Unnamed", "glasser-")
_INSIDE = ("1", "1.0", "True")
_KEPT = ("nc_singletrial", "nc_testset")


class ResponseTable:
    """A pandas table of voxels by trials in HDF5 (fixed format), read without PyTables.

    The values lie in blocks of one type: the responses, and the column ``voxel_id``. The names
    of the trials are pickled in the file and are not read; trials are in the order of the table
    of stimuli.

    Parameters
    ----------
    path : Path
        ``sub-XX_ResponseData.h5`` or ``..._voxel-wise-responses.h5``.
    n_trials : int
        Rows of the table of stimuli.
    """

    def __init__(self, path: Path, n_trials: int) -> None:
        self._path = path
        self._ids: np.ndarray | None = None
        with contextlib.ExitStack() as stack:
            self._file = stack.enter_context(open_hdf5(path))
            self._values = self._find_values()
            found = self._values.shape[1] if self._values.ndim == 2 else -1
            if found != n_trials:
                raise InputError(
                    "responses and stimuli differ in number", where=str(path),
                    found=f"{found} columns of responses, {n_trials} rows of stimuli",
                    expected="one column a row of the table of stimuli",
                    fix="take both tables of the same subject and release",
                )  # fmt: skip
            self._stack = stack.pop_all()

    def _find_values(self) -> Any:
        """Return the block of the responses; note the ids of voxels where another block has them."""
        groups = [item for item in self._file.values() if hasattr(item, "keys")]
        group = next((item for item in groups if "block0_values" in item), None)
        if group is None:
            raise InputError(
                "a table of responses has another form than published", where=str(self._path),
                found=", ".join(self._file.keys()) or "no fixed-format table",
                expected="a pandas table in the fixed format (block0_values, ...)",
                fix="take the file as it was published",
            )  # fmt: skip
        values = group["block0_values"]
        for name in sorted(key for key in group if key.endswith("_values")):
            items = group[name.replace("_values", "_items")]
            if items.dtype.kind == "S" and b"voxel_id" in items[()].tolist():
                column = items[()].tolist().index(b"voxel_id")
                self._ids = group[name][:, column]
            else:
                values = group[name]
        return values

    def __enter__(self) -> ResponseTable:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self._stack.close()

    def check_voxels(self, ids: Sequence[int], table: Path) -> None:
        """Raise an error unless rows of the responses are the rows of the table of voxels."""
        with reading_hdf5(self._path):
            same = len(ids) == self._values.shape[0] and (
                self._ids is None or np.array_equal(self._ids, ids)
            )
        if not same:
            raise InputError(
                "responses and voxels do not belong together", where=f"{self._path} and {table}",
                found=f"{self._values.shape[0]} rows of responses, {len(ids)} voxels, or other ids",
                expected="the same voxel_id in the same order",
                fix="take both tables of the same subject and release",
            )  # fmt: skip

    def read(self, rows: np.ndarray) -> np.ndarray:
        """Return the responses of some voxels (ascending rows); (n, n_trials), float32."""
        first, last = int(rows[0]), int(rows[-1])
        with reading_hdf5(self._path):
            if last - first < 4 * len(rows):  # one stretch is quicker than many rows
                return self._values[first : last + 1][rows - first].astype(np.float32)
            return self._values[rows].astype(np.float32)


def read_rows(path: Path, required: Sequence[str]) -> list[dict[str, str]]:
    """Read a table separated by commas or tabs, whatever its name ends in."""
    text = read_text(path)
    head = text.split("\n", 1)[0]
    delimiter = "\t" if head.count("\t") >= head.count(",") else ","
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        rows = [dict(row) for row in reader]
    except csv.Error as error:
        raise InputError(
            "a table cannot be read", where=f"{path}, line {reader.line_num}", found=str(error),
            expected="cells separated by commas or tabs", fix="download the table again",
        ) from None  # fmt: skip
    if absent := [name for name in required if name not in (reader.fieldnames or ())]:
        raise InputError(
            "a table lacks a column", where=f"{path}, line 1", found=head[:120],
            expected=", ".join(absent), fix="download the table again",
        )  # fmt: skip
    for number, row in enumerate(rows, start=2):
        if None in row or None in row.values():
            raise InputError(
                "a row of a table has the wrong number of cells", where=f"{path}, row {number}",
                found=f"{sum(cell is not None for cell in row.values())} cells",
                expected=f"{len(reader.fieldnames or ())} cells", fix="download the table again",
            )  # fmt: skip
    return rows


def unit_rows(
    voxels: Sequence[dict[str, str]],
    names: Sequence[str],
    folder: Path,
    subject: str,
    notes: list[str],
) -> list[dict[str, Any]]:
    """Return one row a kept voxel: kind, roi, position, published noise ceilings, ``row``.

    Parameters
    ----------
    voxels : list of dict
        Rows of the table of voxels.
    names : sequence of str
        Regions to keep; empty means all regions, ``("all",)`` the whole brain.
    folder : Path
        Where the tables lie; brain masks are in ``brainmasks`` there.
    subject : str
    notes : list of str
    """
    regions = [
        name
        for name in voxels[0]
        if name and not name.startswith(_NO_ROI) and _is_mask(voxels, name)
    ]
    if unknown := [name for name in names if name not in (*regions, "all")]:
        raise InputError(
            "the dataset has no such region", where=f"sub-{subject}", found=", ".join(unknown),
            expected=", ".join(regions), fix="check the option roi",
        )  # fmt: skip
    if "voxel_x" in voxels[0]:
        _check_places(voxels, subject)
    wanted = set(names or regions)
    affine = _affine(folder, voxels, subject, notes)
    units = []
    for index, voxel in enumerate(voxels):
        inside = [name for name in regions if voxel[name] in _INSIDE]
        if "all" not in wanted and not wanted & set(inside):
            continue
        unit: dict[str, Any] = {
            "row": index, "kind": "voxel", "roi": inside[0] if inside else "n/a",
            "rois": ";".join(inside) or "n/a", "voxel_id": voxel["voxel_id"],
        }  # fmt: skip
        if "voxel_x" in voxel:
            place = [int(float(voxel[f"voxel_{axis}"])) for axis in "xyz"]
            unit |= dict(zip("ijk", place, strict=True))
            if affine is not None:
                unit |= dict(zip("xyz", np.round(affine @ [*place, 1], 3)[:3], strict=True))
        unit |= {name: voxel[name] for name in _KEPT if name in voxel}
        units.append(unit)
    return units


def _check_places(voxels: Sequence[dict[str, str]], subject: str) -> None:
    """Raise an error unless every voxel has three indices."""
    for number, row in enumerate(voxels, start=2):
        for axis in "xyz":
            whole_number(row, f"voxel_{axis}", f"sub-{subject}, table of voxels, row {number}")


def _is_mask(voxels: Sequence[dict[str, str]], name: str) -> bool:
    """Tell whether a column holds 0 and 1 only, as regions of interest do."""
    return {row[name] for row in voxels} <= {*_INSIDE, "0", "0.0", "False", ""}


def _affine(
    folder: Path, voxels: Sequence[dict[str, str]], subject: str, notes: list[str]
) -> np.ndarray | None:
    """Return the affine of the brain mask, if the indices of the voxels lie inside it."""
    path = folder / "brainmasks" / f"sub-{subject}_space-T1w_brainmask.nii.gz"
    if not path.is_file() or "voxel_x" not in voxels[0]:
        notes.append(f"sub-{subject}: no brain mask; voxels have indices but no position in mm")
        return None
    mask, affine = read_volume(path)
    indices = np.array([[int(float(row[f"voxel_{axis}"])) for axis in "xyz"] for row in voxels])
    inside = (indices >= 0).all() and (indices < mask.shape).all()
    if not inside or not (mask[tuple(indices.T)] > 0).all():
        notes.append(
            f"sub-{subject}: indices of voxels lie outside {path.name}; they get no position in mm"
        )
        return None
    return affine
