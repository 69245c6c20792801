"""The registry of estimators: cleaned BOLD in, one response a trial and voxel out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from afterimage.errors import InputError
from afterimage.preprocess.fmri.design import RunDesign
from afterimage.registry import Registry

ESTIMATORS = Registry("response estimator", "afterimage.preprocess.fmri.estimators")

#: Reads some voxels of one run: (run number, voxels) to (n_volumes, n), percent signal change.
Reader = Callable[[int, slice], np.ndarray]
#: Float64 values of all runs that may be held at once; fewer voxels are read together beyond it.
MAX_VALUES_BATCH = 2**25


@dataclass(frozen=True)
class Estimates:
    """Responses of some voxels.

    Attributes
    ----------
    voxels : slice
        Which voxels.
    betas : (n_trials, n) float32
        Percent signal change at the height of the response (block_average: its mean); the trials
        of all runs in the order given.
    maps : dict of str to (n,) float32
        What else was found in each voxel, for example ``hrf_peak_s``.
    """

    voxels: slice
    betas: np.ndarray
    maps: dict[str, np.ndarray] = field(default_factory=dict)


class ResponseEstimator(Protocol):
    """What every estimator offers."""

    #: Plain numbers and words about the fit; complete when ``estimate`` is exhausted.
    summary_: dict[str, Any]

    def __init__(self, settings: Any) -> None: ...

    def estimate(
        self,
        designs: Sequence[RunDesign],
        read: Reader,
        n_voxels: int,
        *,
        n_voxels_batch: int = 2048,
    ) -> Iterator[Estimates]:
        """Yield the responses, some voxels at a time, in order; memory does not grow with voxels.

        Parameters
        ----------
        designs : sequence of RunDesign
        read : callable
            ``read(run_number, voxels)`` returns (n_volumes, n), percent signal change, finite.
        n_voxels : int
        n_voxels_batch : int
            Voxels read together, at most.
        """
        ...


def batches(designs: Sequence[RunDesign], n_voxels: int, n_voxels_batch: int) -> list[slice]:
    """Cut the voxels into slices that bound the memory, whatever the number of volumes."""
    n_volumes = sum(design.n_volumes for design in designs)
    step = max(1, min(n_voxels_batch, MAX_VALUES_BATCH // max(n_volumes, 1)))
    return [slice(start, min(start + step, n_voxels)) for start in range(0, n_voxels, step)]


def read_block(
    designs: Sequence[RunDesign], read: Reader, run_number: int, voxels: slice
) -> np.ndarray:
    """Read one run, checked, less the mean of every voxel; (n_volumes, n) float64."""
    design = designs[run_number]
    values = np.asarray(read(run_number, voxels), dtype=np.float64)
    expected = (design.n_volumes, voxels.stop - voxels.start)
    if values.shape != expected or not np.isfinite(values).all():
        raise InputError(
            "the signal of a run cannot be used",
            where=f"session {design.session}, run {design.run}, "
            f"voxels {voxels.start} to {voxels.stop - 1}",
            found=f"shape {values.shape}"
            + ("" if values.shape != expected else " with values that are not finite"),
            expected=f"finite values of shape {expected}",
            fix="clean this run again, or leave it out",
        )
    # percent signal change may stand around 100: without its mean, no digits are lost later
    return values - values.mean(axis=0)
