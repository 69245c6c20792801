"""What one run of BOLD is worth: signal to noise, DVARS, and the rows of a carpet plot.

Carpet plot: Power 2017, doi:10.1016/j.neuroimage.2016.08.009. What differs: without a segmentation,
the rows go from the depth of the brain (first) to its edge (last), where motion shows most.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from afterimage.preprocess.fmri.motion import PARAMETERS

if TYPE_CHECKING:
    import xarray

#: Rows of a carpet plot, at most.
CARPET_ROWS = 400


@dataclass(frozen=True)
class RunQuality:
    """Quality of one run.

    Attributes
    ----------
    mean : array of shape (n_voxels,), float32
        Mean over time.
    tsnr : array of shape (n_voxels,), float32
        Mean over standard deviation after a quadratic trend; 0 where a voxel is constant.
    dvars : array of shape (n_volumes,), float64
        Root mean square, over voxels, of the difference to the volume before, in percent of the
        median of ``mean``; NaN for the first volume.
    global_signal : array of shape (n_volumes,), float64
        Mean over voxels.
    carpet : array of shape (n_rows, n_volumes), float32
        Voxels without their quadratic trend, scaled to a standard deviation of 1, averaged within
        each row.
    n_constant : int
        Voxels that do not vary.
    """

    mean: np.ndarray
    tsnr: np.ndarray
    dvars: np.ndarray
    global_signal: np.ndarray
    carpet: np.ndarray
    n_constant: int


def carpet_rows(mask: np.ndarray, n_rows: int = CARPET_ROWS) -> np.ndarray:
    """Give every voxel of a mask its row in the carpet plot.

    Parameters
    ----------
    mask : array of bool, shape (x, y, z)
    n_rows : int
        Rows wanted; fewer where there are fewer voxels.

    Returns
    -------
    array of int, shape (n_voxels,)
        Rows of about equal size; 0 is deepest within the mask. Voxels in C order.
    """
    from scipy.ndimage import distance_transform_edt

    # Padded, so that the edge of the image counts as an edge only where the brain has depth.
    thick = np.array(mask.shape) > 1
    padded = np.pad(mask, [(int(t), int(t)) for t in thick])
    depth = distance_transform_edt(padded)
    inner = tuple(slice(1, -1) if t else slice(None) for t in thick)
    depth = np.asarray(depth)[inner][mask]
    order = np.argsort(-depth, kind="stable")
    rows = np.empty(len(order), dtype=np.int64)
    n_rows = max(1, min(n_rows, len(order)))
    rows[order] = np.arange(len(order)) * n_rows // max(1, len(order))
    return rows


def run_quality(
    read: Callable[[slice], np.ndarray],
    rows: np.ndarray,
    *,
    n_voxels_batch: int = 2048,
) -> RunQuality:
    """Summarise a run, read in batches of voxels.

    Parameters
    ----------
    read : callable
        ``read(slice)`` gives (n_volumes, n) values of these voxels.
    rows : array of int, shape (n_voxels,)
        Row of each voxel in the carpet plot, see `carpet_rows`.
    n_voxels_batch : int
        Voxels read at a time; the result does not depend on it.

    Returns
    -------
    RunQuality
    """
    from scipy.sparse import csr_matrix

    n_voxels = len(rows)
    n_volumes = len(read(slice(0, 1)))
    n_rows = int(rows.max(initial=-1)) + 1
    mean, noise = np.zeros(n_voxels), np.zeros(n_voxels)
    squares, total = np.zeros(n_volumes - 1), np.zeros(n_volumes)
    carpet, counts = np.zeros((n_rows, n_volumes)), np.zeros(n_rows)
    trend = np.linalg.qr(np.vander(np.linspace(-1, 1, n_volumes), min(3, n_volumes)))[0]
    for start in range(0, n_voxels, n_voxels_batch):
        part = slice(start, min(start + n_voxels_batch, n_voxels))
        values = read(part).astype(np.float64)
        mean[part] = values.mean(axis=0)
        squares += (np.diff(values, axis=0) ** 2).sum(axis=1)
        total += values.sum(axis=1)
        values -= trend @ (trend.T @ values)
        noise[part] = values.std(axis=0)
        varies = noise[part] > 1e-6 * np.maximum(np.abs(mean[part]), 1e-6)
        noise[part][~varies] = 0.0
        used = np.flatnonzero(varies)
        weights = csr_matrix(
            (1 / noise[part][used], (rows[part][used], used)), shape=(n_rows, values.shape[1])
        )
        carpet += weights @ values.T
        counts += np.bincount(rows[part][used], minlength=n_rows)
    scale = float(np.median(mean))
    dvars = np.sqrt(squares / n_voxels) * (100.0 / scale if scale > 0 else np.nan)
    tsnr = np.divide(mean, noise, out=np.zeros(n_voxels), where=noise > 0)
    return RunQuality(
        mean=mean.astype(np.float32),
        tsnr=tsnr.astype(np.float32),
        dvars=np.concatenate([[np.nan], dvars]),
        global_signal=total / n_voxels,
        carpet=(carpet / np.maximum(counts, 1.0)[:, None]).astype(np.float32),
        n_constant=int((noise == 0).sum()),
    )


def quality_dataset(
    quality: RunQuality,
    mask: np.ndarray,
    affine: np.ndarray,
    times_s: np.ndarray,
    t_r_s: float,
    motion: np.ndarray,
    displacement_mm: np.ndarray,
    censored: np.ndarray,
    notes: Sequence[str],
) -> xarray.Dataset:
    """Put together what a report shows of a run.

    Parameters
    ----------
    quality : RunQuality
        Over the voxels of ``mask``, in C order.
    mask : array of bool, shape (x, y, z)
    affine : array of shape (4, 4)
        Voxel indices to mm.
    times_s : array of shape (n_volumes,)
    t_r_s : float
        Repetition time in seconds.
    motion : array of shape (n_volumes, 6)
        Translations in mm, rotations in rad.
    displacement_mm : array of shape (n_volumes,)
        Framewise displacement; the first is NaN.
    censored : array of bool, shape (n_volumes,)
    notes : sequence of str

    Returns
    -------
    xarray.Dataset
        ``carpet`` (row, time), ``framewise_displacement``, ``dvars``, ``global_signal`` (time),
        ``motion`` (time, parameter), ``tsnr``, ``mean`` and ``mask`` (x, y, z).
    """
    import xarray

    def volume(values: np.ndarray) -> np.ndarray:
        image = np.zeros(mask.shape, dtype=np.float32)
        image[mask] = values
        return image

    space = ("x", "y", "z")
    finite = displacement_mm[np.isfinite(displacement_mm)]
    varies = quality.tsnr[quality.tsnr > 0]
    return xarray.Dataset(
        {
            "carpet": (("row", "time"), quality.carpet),
            "framewise_displacement": ("time", displacement_mm),
            "dvars": ("time", quality.dvars),
            "global_signal": ("time", quality.global_signal),
            "motion": (("time", "parameter"), motion),
            "tsnr": (space, volume(quality.tsnr)),
            "mean": (space, volume(quality.mean)),
            "mask": (space, mask.astype(np.uint8)),
        },
        coords={
            "time": times_s,
            "parameter": list(PARAMETERS),
            "censored": ("time", censored),
        },
        attrs={
            "t_r_s": t_r_s,
            "n_volumes": len(times_s),
            "n_censored": int(censored.sum()),
            "median_tsnr": float(np.median(varies)) if len(varies) else 0.0,
            "mean_fd_mm": float(finite.mean()) if len(finite) else 0.0,
            "notes": ";".join(note.replace(";", ",") for note in notes),
            "affine": affine.ravel(),
        },
    )


def empty_quality(n_voxels: int) -> RunQuality:
    """Return the quality of a run without volumes, for one that was left out."""
    nothing, still = np.zeros(0), np.zeros(n_voxels, dtype=np.float32)
    carpet = np.zeros((1, 0), dtype=np.float32)
    return RunQuality(still, still, nothing, nothing, carpet, n_voxels)
