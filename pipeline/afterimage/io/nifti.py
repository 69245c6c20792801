"""Images of the brain on disk: NIfTI read with checks and in blocks, written atomically."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from afterimage.errors import InputError
from afterimage.io.atomic import atomic_path, require_space

if TYPE_CHECKING:
    import nibabel

#: Bytes of one block of volumes in float32.
BLOCK_BYTES = 64 * 2**20
#: A volume of more voxels is refused before it is read: 1 GB in float32.
MAX_VOXELS = 2**28
#: Headers round the repetition time to milliseconds; what differs more contradicts the sidecar.
ROUNDING_S = 0.001
#: Repetition times that a scanner can have, in seconds.
T_R_RANGE_S = (0.02, 60.0)
_SECONDS = {"sec": 1.0, "msec": 1e-3, "usec": 1e-6}


@dataclass(frozen=True)
class BoldFile:
    """One run of BOLD on disk, its header checked and its values not yet read.

    Attributes
    ----------
    path : Path
        The file.
    shape : tuple of int
        Voxels along the three axes of space.
    n_volumes : int
        Volumes of the run.
    affine : array of shape (4, 4), float64
        From voxel indices to scanner coordinates in mm.
    header_t_r : float
        Repetition time as the header has it, in the header's own unit; 0 where it is not set.
    header_time_unit : str
        ``sec``, ``msec``, ``usec`` or ``unknown``.
    """

    path: Path
    shape: tuple[int, int, int]
    n_volumes: int
    affine: np.ndarray
    header_t_r: float
    header_time_unit: str
    image: nibabel.Nifti1Image

    @property
    def volumes_per_block(self) -> int:
        """How many volumes `blocks` yields at a time."""
        return max(1, min(self.n_volumes, BLOCK_BYTES // (4 * math.prod(self.shape))))

    def blocks(
        self, n_volumes: int | None = None, volumes_per_block: int | None = None
    ) -> Iterator[tuple[int, np.ndarray]]:
        """Read the run from its start, block by block.

        Parameters
        ----------
        n_volumes : int or None
            Stop after this many volumes; None for all.
        volumes_per_block : int or None
            Volumes a block; None for blocks of about `BLOCK_BYTES`.

        Yields
        ------
        start : int
            Number of the first volume of the block.
        block : array of shape (x, y, z, k), float32
            Values in scanner units; they may hold NaN or infinity.

        Raises
        ------
        InputError
            If the file ends too early or its compressed data are damaged.
        """
        stop = self.n_volumes if n_volumes is None else min(n_volumes, self.n_volumes)
        step = volumes_per_block or self.volumes_per_block
        bounds = [(start, min(start + step, stop)) for start in range(0, stop, step)]
        try:
            with np.errstate(over="ignore", invalid="ignore"):
                for (start, _), part in zip(bounds, _parts(self.image, bounds), strict=True):
                    values = part.reshape(*self.shape, -1)
                    yield start, np.asarray(values, dtype=np.float32)
        except _DAMAGED as error:
            raise _unreadable(self.path, str(error)) from None


_DAMAGED = (OSError, EOFError, ValueError, zlib.error, struct.error)


def _parts(image: nibabel.Nifti1Image, bounds: Sequence[tuple[int, int]]) -> Iterator[np.ndarray]:
    """Read ranges of volumes in order, scaled.

    A compressed file is read on from range to range (nibabel would start again each time) and, if
    the last range ends the image, to its very end, where the checksum stands.
    """
    data = image.dataobj
    path = Path(image.get_filename())
    if path.suffix != ".gz":
        for start, stop in bounds:
            yield np.asanyarray(data[:, :, :, start:stop] if len(image.shape) > 3 else data)
        return
    dtype = data.dtype
    size = math.prod(image.shape[:3])
    with gzip.open(path, "rb") as stream:
        stream.seek(data.offset)
        for start, stop in bounds:
            n_bytes = (stop - start) * size * dtype.itemsize
            raw = stream.read(n_bytes)
            if len(raw) < n_bytes:
                raise EOFError(f"the data end within volumes {start + 1} to {stop}")
            if stop == math.prod(image.shape[3:]):
                while stream.read(2**20):
                    pass
            values = np.frombuffer(raw, dtype).reshape((*image.shape[:3], -1), order="F")
            scaled = (data.slope, data.inter) != (1.0, 0.0)
            yield values * np.float64(data.slope) + data.inter if scaled else values


def _unreadable(path: Path, found: str) -> InputError:
    return InputError(
        "an image cannot be read", where=str(path), found=" ".join(found.split())[:200] or "nothing",
        expected="a whole NIfTI file", fix="copy it again from its source; it may be truncated",
    )  # fmt: skip


def _load(path: Path) -> nibabel.Nifti1Image:
    """Open a NIfTI file; read its header only, and check that the file can hold its data."""
    import nibabel

    if not path.is_file():
        raise InputError(
            "an image is missing", where=str(path), found="no such file",
            expected="a NIfTI file", fix="put it there, or index the dataset again",
        )  # fmt: skip
    try:
        image = nibabel.load(path)
    except Exception as error:  # noqa: BLE001
        # Headers are read as they are, without checks: an extension may announce gigabytes.
        raise _unreadable(path, str(error) or type(error).__name__) from None
    if not isinstance(image, nibabel.Nifti1Image):
        raise _unreadable(path, f"a file of the kind {type(image).__name__}")
    dtype = image.get_data_dtype()
    if dtype.kind not in "fiub":
        raise _unreadable(path, f"values of the kind {dtype}")
    if 0 in image.shape or not image.shape:
        raise _unreadable(path, f"an image of shape {image.shape}")
    if math.prod(image.shape[:3]) > MAX_VOXELS:
        raise InputError(
            "an image is too large", where=str(path), found=f"{image.shape[:3]} voxels",
            expected=f"at most {MAX_VOXELS} in one volume",
            fix="check its header, or resample the image first",
        )  # fmt: skip
    _check_size(path, image.dataobj.offset + math.prod(image.shape) * dtype.itemsize)
    affine = image.affine
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-6:
        raise InputError(
            "the orientation of an image cannot be used", where=str(path),
            found=f"affine {np.round(affine, 3).tolist()}", expected="an invertible matrix in mm",
            fix="write the header again with its sform or qform",
        )  # fmt: skip
    return image


def _check_size(path: Path, expected: int) -> None:
    """Raise where the file is shorter than its header says."""
    size = path.stat().st_size
    if path.suffix == ".gz":
        with path.open("rb") as file:
            file.seek(max(0, size - 4))
            tail = file.read(4)
        if len(tail) == 4 and struct.unpack("<I", tail)[0] == expected % 2**32:
            return
        # Deflate packs 1032 bytes into one at best: no need to unpack what cannot be enough.
        if size * 1032 < expected:
            raise _unreadable(path, f"{size} packed bytes, where the header announces {expected}")
        # The last bytes of a whole file state its size, unless it was compressed in pieces:
        # count the bytes then.
        size = 0
        try:
            with gzip.open(path, "rb") as stream:
                while size < expected and (part := stream.read(2**22)):
                    size += len(part)
        except _DAMAGED as error:
            raise _unreadable(path, f"after {size} of {expected} bytes: {error}") from None
    if size < expected:
        raise _unreadable(path, f"{size} bytes, where the header announces {expected}")


def open_bold(path: Path, min_volumes: int = 2) -> BoldFile:
    """Open a run of BOLD and check its header and its size.

    Parameters
    ----------
    path : Path
        ``.nii`` or ``.nii.gz``.
    min_volumes : int
        A run with fewer volumes is refused.

    Raises
    ------
    InputError
        If the file is missing, truncated, no NIfTI file, has no usable orientation or fewer
        volumes.
    """
    image = _load(path)
    shape = image.shape
    n_volumes = math.prod(shape[3:])
    if len(shape) < 3 or n_volumes < min_volumes or math.prod(shape[4:]) > 1:
        raise InputError(
            "a run has one volume" if n_volumes == 1 else "a run has too few volumes",
            where=str(path), found=f"an image of shape {shape}",
            expected=f"four dimensions, the last of at least {min_volumes} volumes",
            fix="remove the file, or check how it was converted",
        )  # fmt: skip
    zooms = image.header.get_zooms()
    try:
        unit = image.header.get_xyzt_units()[1]
    except KeyError:  # a code that stands for no unit
        unit = "unknown"
    return BoldFile(
        path=path,
        shape=(int(shape[0]), int(shape[1]), int(shape[2])),
        n_volumes=n_volumes,
        affine=np.asarray(image.affine, dtype=np.float64),
        header_t_r=float(zooms[3]) if len(zooms) > 3 and np.isfinite(zooms[3]) else 0.0,
        header_time_unit=unit if unit in _SECONDS else "unknown",
        image=image,
    )


def repetition_time_s(
    bold: BoldFile, sidecar: Mapping[str, Any], trust: str = "agree"
) -> tuple[float, list[str]]:
    """Return the repetition time in seconds, from the sidecar and the header.

    Parameters
    ----------
    bold : BoldFile
        The run.
    sidecar : dict
        Its JSON sidecar: ``RepetitionTime``, or evenly spaced ``VolumeTiming``, in seconds.
    trust : str
        ``agree``: both must agree to a millisecond; ``sidecar`` or ``header``: that one is taken.

    Returns
    -------
    t_r_s : float
    notes : list of str
        What was unusual.

    Raises
    ------
    InputError
        If the two contradict each other, if there is none, or if it is no possible time.
    """
    stated = _sidecar_t_r_s(bold, sidecar)
    header, notes = _header_t_r_s(bold, stated)
    if stated is None and header is None:
        raise InputError(
            "a run has no repetition time", where=str(bold.path),
            found="no RepetitionTime in its sidecar, and none in its header",
            expected="RepetitionTime in seconds", fix="write it to the JSON sidecar",
        )  # fmt: skip
    if stated is not None and header is not None and abs(stated - header) > ROUNDING_S * 1.001:
        if trust == "agree":
            raise InputError(
                "the repetition time of the header contradicts the sidecar",
                where=str(bold.path),
                found=f"{header:g} s in the header, {stated:g} s in the sidecar",
                expected="the same time in both",
                fix="correct the wrong one, or say which to trust: clean_bold.repetition_time",
            )
        notes.append(
            f"the header has a repetition time of {header:g} s and the sidecar one of "
            f"{stated:g} s; that of the {trust} was used"
        )
    first, second = (header, stated) if trust == "header" else (stated, header)
    t_r_s = first if first is not None else second
    assert t_r_s is not None  # noqa: S101  one of them is there, see above
    if not T_R_RANGE_S[0] <= t_r_s <= T_R_RANGE_S[1]:
        raise InputError(
            "a repetition time is not possible", where=str(bold.path), found=f"{t_r_s:g} s",
            expected=f"{T_R_RANGE_S[0]:g} to {T_R_RANGE_S[1]:g} s",
            fix="write it in seconds",
        )  # fmt: skip
    if stated is None:
        notes.append("the sidecar has no repetition time; that of the header was used")
    return t_r_s, notes


def _sidecar_t_r_s(bold: BoldFile, sidecar: Mapping[str, Any]) -> float | None:
    value = sidecar.get("RepetitionTime")
    timing = sidecar.get("VolumeTiming")
    if value is None and timing is not None:
        try:
            steps = np.diff(np.asarray(timing, dtype=np.float64))
        except (TypeError, ValueError):
            steps = np.full((1, 1), np.nan)
        if steps.ndim != 1 or not len(steps) or not np.isfinite(steps).all():
            raise InputError(
                "the times of volumes are no list of numbers", where=f"the sidecar of {bold.path}",
                found=repr(timing)[:80], expected="one time a volume, in seconds",
                fix="correct VolumeTiming",
            )  # fmt: skip
        if len(steps) + 1 != bold.n_volumes or np.ptp(steps) > 2 * ROUNDING_S:
            raise InputError(
                "the volumes of a run are not evenly spaced in time", where=str(bold.path),
                found=f"VolumeTiming of {len(steps) + 1} times, steps {steps.min():g} to "
                f"{steps.max():g} s",
                expected=f"{bold.n_volumes} times with equal steps",
                fix="runs with irregular volumes cannot be used yet; leave this one out",
            )  # fmt: skip
        value = float(steps.mean())
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InputError(
            "a repetition time is not a number", where=f"the sidecar of {bold.path}",
            found=repr(value)[:80], expected="seconds", fix="correct RepetitionTime",
        )  # fmt: skip
    return float(value)


def _header_t_r_s(bold: BoldFile, stated: float | None) -> tuple[float | None, list[str]]:
    """Return the header's repetition time in seconds, or None where it says nothing."""
    value = bold.header_t_r
    if value <= 0:
        return None, []
    if bold.header_time_unit != "unknown":
        seconds = value * _SECONDS[bold.header_time_unit]
        if stated is None or abs(seconds - stated) <= ROUNDING_S * 1.001:
            return seconds, []
        # Some converters write milliseconds and say seconds, or the other way round.
        for unit, factor in _SECONDS.items():
            if abs(value * factor - stated) <= ROUNDING_S * 1.001:
                return value * factor, [
                    f"the header says {value:g} {bold.header_time_unit} for the repetition time; "
                    f"it was read as {unit}, which agrees with the sidecar"
                ]
        return seconds, []
    if value == 1.0 and stated != 1.0:
        return None, []  # the value of a header that nobody filled in
    seconds = value * (1e-3 if value > T_R_RANGE_S[1] else 1.0)
    return seconds, [f"the header has no unit of time; {value:g} was read as {seconds:g} s"]


def read_volume(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read one image of three dimensions: a mask, a segmentation, a reference.

    Returns
    -------
    data : array of shape (x, y, z)
        In the dtype of the file; values that are not finite become 0.
    affine : array of shape (4, 4), float64
    """
    image = _load(path)
    if len(image.shape) < 3 or math.prod(image.shape[3:]) > 1:
        raise InputError(
            "an image has the wrong number of dimensions", where=str(path),
            found=f"shape {image.shape}", expected="three dimensions",
            fix="give one volume",
        )  # fmt: skip
    try:
        data = next(_parts(image, [(0, 1)])).reshape(image.shape[:3])
    except _DAMAGED as error:
        raise _unreadable(path, str(error)) from None
    if data.dtype.kind == "f":
        data = np.nan_to_num(data, nan=0.0, posinf=0.0, neginf=0.0)
    return np.asarray(data), np.asarray(image.affine, dtype=np.float64)


def write_nifti(
    path: Path, data: np.ndarray, affine: np.ndarray, t_r_s: float | None = None
) -> None:
    """Write an image of three or four dimensions, atomically, in the dtype of ``data``.

    Booleans become uint8, float64 becomes float32, int64 becomes int32.
    """
    narrow = {"bool": "uint8", "float64": "float32", "int64": "int32"}.get(str(data.dtype))
    values = data.astype(narrow) if narrow else data
    blocks = [values] if values.ndim == 3 else np.array_split(values, max(1, values.shape[3]), 3)
    write_nifti_blocks(path, blocks, values.shape, affine, t_r_s, dtype=values.dtype)


def write_nifti_blocks(
    path: Path,
    blocks: Iterable[np.ndarray],
    shape: Sequence[int],
    affine: np.ndarray,
    t_r_s: float | None = None,
    dtype: Any = np.float32,
) -> None:
    """Write an image block by block, atomically; sform, qform, zooms and units are set.

    Parameters
    ----------
    path : Path
        ``.nii`` or ``.nii.gz``; the same values give the same bytes.
    blocks : iterable of array of shape (x, y, z) or (x, y, z, k)
        Consecutive volumes.
    shape : sequence of int
        Of the whole image.
    affine : array of shape (4, 4)
        From voxel indices to scanner coordinates in mm.
    t_r_s : float or None
        Repetition time in seconds, for a series.
    dtype : numpy dtype
        Of the values on disk.
    """
    import nibabel

    header = nibabel.Nifti1Header()
    header.set_data_dtype(dtype)
    header.set_data_shape(shape)
    zooms = np.linalg.norm(np.asarray(affine)[:3, :3], axis=0)
    times = [t_r_s or 1.0] * (len(shape) - 3)
    header.set_zooms([*zooms, *times])
    header.set_xyzt_units("mm", "sec" if t_r_s else None)
    header.set_sform(affine, 1)
    header.set_qform(affine, 1)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary, temporary.open("wb") as raw:
        packed = path.suffix == ".gz"
        stream: Any = gzip.GzipFile("", "wb", 3, raw, mtime=0) if packed else raw
        header.write_to(stream)
        written = 0
        for block in blocks:
            values = np.asarray(block, dtype=dtype)
            require_space(path.parent, values.nbytes)
            stream.write(values.tobytes(order="F"))
            written += values.size
        if packed:
            stream.close()
        if written != math.prod(shape):
            raise ValueError(f"{written} values given for an image of shape {tuple(shape)}")
