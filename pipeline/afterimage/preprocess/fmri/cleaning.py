"""One run of BOLD brought to the grid of its subject, block by block, whatever its size.

Head motion is estimated on the volumes as they were scanned; then each slice is shifted in time;
then motion, and the grid of the run where it differs, are undone in one interpolation. That order
is fMRIPrep's (Esteban 2019, doi:10.1038/s41592-018-0235-4).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from afterimage.errors import InputError
from afterimage.preprocess.fmri.finite import FiniteFilter
from afterimage.preprocess.fmri.masks import same_grid, to_grid
from afterimage.preprocess.fmri.motion import (
    MIN_SLICES,
    MotionEstimator,
    MotionTracker,
    place_run,
    unsteady_volumes,
)
from afterimage.preprocess.fmri.resampling import Resampler
from afterimage.preprocess.fmri.slice_timing import SliceTiming, shift_in_time

#: Volumes at the start of a run by which its place is found.
N_PLACING = 5


class Matrix(Protocol):
    """A matrix of (n_volumes, n_voxels) that need not fit in memory."""

    def write(self, values: np.ndarray, *, row: int = 0, column: int = 0) -> None:
        """Write a block."""

    def read(self, rows: slice = ..., columns: slice = ...) -> np.ndarray:
        """Read a block."""


@dataclass(frozen=True)
class Grid:
    """The grid of a subject.

    Attributes
    ----------
    reference : array of shape (x, y, z), float32
        The image all runs are brought to.
    mask : array of bool, shape (x, y, z)
        The brain: the voxels that are sampled, in C order.
    affine : array of shape (4, 4)
        Voxel indices to scanner mm.
    """

    reference: np.ndarray
    mask: np.ndarray
    affine: np.ndarray


@dataclass(frozen=True)
class Run:
    """One run as it was scanned.

    Attributes
    ----------
    blocks : callable
        ``blocks(n_volumes=None, volumes_per_block=None)`` yields (first volume, array of
        (x, y, z, k) float32) from the start; it may be called more than once.
    shape : tuple of int
        Of one volume.
    n_volumes : int
    affine : array of shape (4, 4)
    t_r_s : float
        Repetition time in seconds.
    where : str
        Subject and file, for error messages.
    """

    blocks: Callable[..., Iterator[tuple[int, np.ndarray]]]
    shape: tuple[int, int, int]
    n_volumes: int
    affine: np.ndarray
    t_r_s: float
    where: str


@dataclass(frozen=True)
class Cleaned:
    """What was found while a run was cleaned.

    Attributes
    ----------
    motion : array of shape (n_volumes, 6), float64
        Translations in mm and rotations in rad; zeros where motion was not estimated.
    censored : array of bool, shape (n_volumes,)
        Volumes that are damaged, came before the steady state, or could not be aligned.
    notes : list of str
        Sentences for the report.
    """

    motion: np.ndarray
    censored: np.ndarray
    notes: list[str]


@dataclass(frozen=True)
class Options:
    """How runs are cleaned.

    Attributes
    ----------
    motion_correction : bool
    max_nonfinite_fraction : float
        A run with a larger share of values that are not finite in the brain is refused.
    min_coverage : float
        A run that covers a smaller share of the brain is refused.
    """

    motion_correction: bool = True
    max_nonfinite_fraction: float = 0.01
    min_coverage: float = 0.5


def copy_run(
    run: Run, grid: Grid, write: Callable[[int, np.ndarray], None], options: Options
) -> Cleaned:
    """Take the voxels of the brain from a run that is corrected already and on the grid.

    Parameters are those of `clean_run`.
    """
    finite = FiniteFilter(grid.mask)
    for start, block in run.blocks():
        write(start, np.ascontiguousarray(finite(block)[grid.mask].T))
    _judge(finite, options, run.where)
    return Cleaned(np.zeros((run.n_volumes, 6)), finite.damaged, finite.notes())


def clean_run(
    run: Run,
    grid: Grid,
    write: Callable[[int, np.ndarray], None],
    options: Options,
    shift: tuple[SliceTiming, Matrix] | None = None,
) -> Cleaned:
    """Correct a run for motion and slice timing, and sample it on the grid of the subject.

    Parameters
    ----------
    run : Run
    grid : Grid
    write : callable
        ``write(first volume, (k, n_voxels) float32)`` takes the result, block by block.
    options : Options
    shift : tuple of SliceTiming and Matrix, or None
        When the slices were acquired, and room for (n_volumes, voxels of the image); None to leave
        the slices as they are.

    Returns
    -------
    Cleaned

    Raises
    ------
    InputError
        If too many values are not finite, or the run does not cover the brain.
    """
    resampler = Resampler(np.argwhere(grid.mask), grid.affine)
    place, notes = _place(run, grid, options), []
    notes += place.notes + _check_coverage(run, resampler, place, options)
    brain = _brain_of_run(run, grid, place.affine)
    finite = FiniteFilter(brain)
    means: list[np.ndarray] = []
    matrices: list[np.ndarray] = []

    def sample(first: int, block: np.ndarray) -> None:
        values = [
            resampler.sample(block[..., index], place.affine, matrices[first + index])
            for index in range(block.shape[3])
        ]
        write(first, np.array(values))

    for first, block in run.blocks():
        block = finite(block)
        means.append(block[brain].mean(axis=0))
        for index in range(block.shape[3]):
            volume = np.ascontiguousarray(block[..., index])
            matrices.append(place.tracker.add(volume) if place.tracker else place.start)
        if shift:
            timing, scratch = shift
            scratch.write(_slices_first(block, timing.axis), row=first)
        else:
            sample(first, block)
    _judge(finite, options, run.where)
    if shift:
        _shift_slices(run, *shift)
        for first, block in _shifted_blocks(run, *shift):
            sample(first, block)
    return _cleaned(run, place.tracker, finite, np.concatenate(means), notes)


@dataclass(frozen=True)
class _Place:
    """Where the grid of a run lies; the tracker follows its motion, None where that is off."""

    affine: np.ndarray
    start: np.ndarray
    tracker: MotionTracker | None
    notes: list[str]


def _place(run: Run, grid: Grid, options: Options) -> _Place:
    """Find the grid of the run and prepare to follow its motion."""
    still = ["head motion was not corrected, as configured"]
    same = same_grid(run.shape, run.affine, grid.mask.shape, grid.affine)
    if not options.motion_correction and same:
        return _Place(run.affine, np.eye(4), None, still)
    estimator = MotionEstimator(grid.reference, grid.affine)
    _, block = next(run.blocks(N_PLACING, N_PLACING))
    image = np.median(np.nan_to_num(block, nan=0.0, posinf=0.0, neginf=0.0), axis=3)
    affine, start, notes = place_run(estimator, image.astype(np.float32), run.affine)
    if not options.motion_correction:
        return _Place(affine, start, None, notes + still)
    if estimator.in_plane_only:
        notes.append(
            f"the image has fewer than {MIN_SLICES} slices: head motion was corrected within the "
            "slice only, and motion across it cannot be seen"
        )
    return _Place(affine, start, MotionTracker(estimator, affine, start), notes)


def _check_coverage(run: Run, resampler: Resampler, place: _Place, options: Options) -> list[str]:
    """Refuse a run that does not cover the brain; return a note where a part is missing."""
    coverage = resampler.covered(run.shape, place.affine, place.start).mean()
    if coverage < options.min_coverage:
        raise InputError(
            "a run does not cover the brain of its subject", where=run.where,
            found=f"{coverage:.0%} of the brain mask", expected=f"{options.min_coverage:.0%}",
            fix="leave the run out, or lower clean_bold.min_coverage",
        )  # fmt: skip
    if coverage > 0.999:
        return []
    return [f"{1 - coverage:.1%} of the brain lies outside this run; its edge is repeated there"]


def _brain_of_run(run: Run, grid: Grid, affine: np.ndarray) -> np.ndarray:
    if same_grid(run.shape, affine, grid.mask.shape, grid.affine):
        return grid.mask
    brain = to_grid(grid.mask.astype(np.uint8), grid.affine, run.shape, affine, where=run.where)
    return np.asarray(brain > 0)


def _judge(finite: FiniteFilter, options: Options, where: str) -> None:
    if finite.share > options.max_nonfinite_fraction:
        raise InputError(
            "a run has too many values that are not finite", where=where,
            found=f"{finite.share:.1%} of the brain's values, in {finite.n_voxels} voxels",
            expected=f"at most {options.max_nonfinite_fraction:.1%}",
            fix="convert the run again, or raise clean_bold.max_nonfinite_fraction",
        )  # fmt: skip


def _slices_first(block: np.ndarray, axis: int) -> np.ndarray:
    """Return (x, y, z, k) as (k, voxels), the voxels of one slice side by side."""
    return np.moveaxis(block, (3, axis), (0, 1)).reshape(block.shape[3], -1)


def _shifted_blocks(
    run: Run, timing: SliceTiming, scratch: Matrix
) -> Iterator[tuple[int, np.ndarray]]:
    """Read the blocks of `_slices_first` back, (x, y, z, k)."""
    axis = timing.axis
    others = [size for number, size in enumerate(run.shape) if number != axis]
    step = max(64, 2**24 // int(np.prod(run.shape)) // 64 * 64)
    for first in range(0, run.n_volumes, step):
        values = scratch.read(slice(first, first + step))
        yield (
            first,
            np.moveaxis(values.reshape(len(values), run.shape[axis], *others), (0, 1), (3, axis)),
        )


def _shift_slices(run: Run, timing: SliceTiming, scratch: Matrix) -> None:
    """Bring every slice to the reference time, slice by slice, in place."""
    plane = int(np.prod(run.shape)) // run.shape[timing.axis]
    for number, time_s in enumerate(timing.times_s):
        columns = slice(number * plane, (number + 1) * plane)
        shifted = shift_in_time(
            scratch.read(columns=columns), timing.reference_s - float(time_s), run.t_r_s
        )
        scratch.write(shifted, column=columns.start)


def _cleaned(
    run: Run,
    tracker: MotionTracker | None,
    finite: FiniteFilter,
    means: np.ndarray,
    notes: list[str],
) -> Cleaned:
    """Put together what was found."""
    censored = finite.damaged.copy()
    notes = [*notes, *finite.notes()]
    if n_unsteady := unsteady_volumes(means):
        censored[:n_unsteady] = True
        notes.append(f"{n_unsteady} volumes before the steady state are censored")
    motion = np.zeros((run.n_volumes, 6))
    if tracker is not None:
        motion = np.array([tracker.estimator.parameters(m) for m in tracker.matrices])
        censored[tracker.failed] = True
        if tracker.failed:
            notes.append(f"{len(tracker.failed)} volumes could not be aligned; they are censored")
    return Cleaned(motion, censored, notes)
