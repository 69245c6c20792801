"""Which response shape, and how much trials vary: marginal likelihood of single-trial amplitudes.

Each trial of a voxel has an amplitude drawn from N(mean, snr * noise variance), and the signal of
a run is the sum of its trials' responses plus white noise. With the amplitudes integrated out
(MacKay 1992, doi:10.1162/neco.1992.4.3.415), the likelihood compares shapes of the response and
signal-to-noise ratios without needing repeats: it adds up what the average response tells about
the shape and what the differences between trials tell. One singular value decomposition a run
and shape makes it a sum over components, for all voxels at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from afterimage.errors import InputError
from afterimage.preprocess.fmri.design import (
    RunDesign,
    orthonormal_basis,
    residual,
    trial_regressors,
)
from afterimage.preprocess.fmri.hrf import HrfLibrary

#: Ratios of the variance of amplitudes to the variance of the noise of a volume, tried in turn.
SNR_GRID = np.concatenate([[0.0], np.geomspace(10**-2.5, 10**2, 19)])
#: Directions of a design weaker than this share of its strongest one count as absent.
SINGULAR_TOLERANCE = 1e-7
#: Shapes that together reproduce every response of the library to 1 % of its energy.
N_SHAPES = 4
#: Share of the volumes that these shapes of trials held out may take, as far as one each allows.
MAX_SHARE = 1 / 3


@dataclass(frozen=True)
class Decomposition:
    """Singular value decomposition of the trial regressors of a run, one a response shape.

    Attributes
    ----------
    basis : (n_volumes, n_basis) float64
        Orthonormal nuisance, projected out of regressors and signal.
    left : (n_hrfs, n_volumes, r) float32 or float64
    singular : (n_hrfs, r) float64
        Zero where trials depend on each other.
    right : (n_hrfs, r, n_trials) float64
    """

    basis: np.ndarray
    left: np.ndarray
    singular: np.ndarray
    right: np.ndarray

    @property
    def mean_loading(self) -> np.ndarray:
        """What an amplitude of 1 in every trial adds to each component, (n_hrfs, r)."""
        return np.asarray(self.singular * self.right.sum(axis=2))

    @property
    def degrees(self) -> int:
        """Degrees of freedom that the nuisance leaves."""
        return self.basis.shape[0] - self.basis.shape[1]

    def clean(self, signal: np.ndarray) -> np.ndarray:
        """Signal (n_volumes, n) less nuisance, in the precision of ``left``."""
        return residual(signal, self.basis).astype(self.left.dtype)

    def components(self, hrf: int, cleaned: np.ndarray) -> np.ndarray:
        """Components of the cleaned signal, (r, n) float64."""
        found = (self.left[hrf].T @ cleaned).astype(np.float64)
        found[self.singular[hrf] == 0] = 0
        return found


def decompose(regressors: np.ndarray, basis: np.ndarray) -> Decomposition:
    """Decompose regressors (n_hrfs, n_volumes, n_trials) less an orthonormal basis."""
    left, singular, right = np.linalg.svd(residual(regressors, basis), full_matrices=False)
    strongest = singular.max(axis=1, keepdims=True, initial=0)
    # against the size before the nuisance went: trials that it swallows leave only rounding
    size = np.sqrt((regressors**2).sum(axis=(1, 2)))[:, None]
    singular[singular <= SINGULAR_TOLERANCE * np.maximum(strongest, size)] = 0
    # many shapes are compared in single precision, one shape is fitted in double
    left = left if len(left) == 1 else left.astype(np.float32)
    return Decomposition(basis, left, singular, right)


def decompose_training(
    design: RunDesign, library: HrfLibrary, extra: np.ndarray | None = None
) -> Decomposition:
    """Decompose the training trials of a run; its other trials count as nuisance.

    Every other trial gets the leading shapes of the library as regressors of its own, so that its
    response is projected out whatever its amplitude and, to 1 % of its energy, its shape. Where
    such trials are so many that four shapes each would take more than a third of the volumes,
    they get fewer, at least one.

    Parameters
    ----------
    design : RunDesign
    library : HrfLibrary
    extra : (n_volumes, p), optional
        More nuisance.
    """
    regressors = trial_regressors(design, library)
    nuisance = [design.nuisance] + ([] if extra is None else [extra])
    n_others = int((~design.training).sum())
    if n_others:
        n_shapes = min(max(1, int(MAX_SHARE * design.n_volumes / n_others)), N_SHAPES)
        shapes = np.linalg.svd(library.kernels, full_matrices=False)[0].T[:n_shapes]
        others = np.tensordot(shapes, regressors[:, :, ~design.training], axes=1)
        nuisance += list(others)
    basis = orthonormal_basis(np.concatenate(nuisance, axis=1))
    return decompose(regressors[:, :, design.training], basis)


def training_runs(designs: Sequence[RunDesign]) -> list[int]:
    """Numbers of the runs that hold a training trial; an error where there is none."""
    runs = [number for number, design in enumerate(designs) if design.training.any()]
    if not runs:
        raise InputError(
            "no trial is marked for training", where=f"{len(designs)} runs",
            found=f"{sum(design.n_trials for design in designs)} trials, none for training",
            expected="training trials, from which response shapes and penalties are chosen",
            fix="check the split, or set a canonical hrf and an estimator without penalty",
        )  # fmt: skip
    return runs


@dataclass(frozen=True)
class Chosen:
    """What the marginal likelihood prefers in each voxel.

    Attributes
    ----------
    hrf : (n,) int
        Number of the response shape.
    snr : (n,) float64
        Variance of the amplitudes over variance of the noise.
    mean : (n,) float64
        Mean amplitude.
    gain : (n,) float64
        Log likelihood above that of a voxel without any response.
    """

    hrf: np.ndarray
    snr: np.ndarray
    mean: np.ndarray
    gain: np.ndarray


def choose(
    decompositions: Sequence[Decomposition], cleaned: Sequence[np.ndarray], hrf: int | None = None
) -> Chosen:
    """Find the shape, signal-to-noise ratio and mean amplitude of greatest likelihood.

    Parameters
    ----------
    decompositions : sequence of Decomposition
        One a run.
    cleaned : sequence of (n_volumes, n)
        The signal of these runs, nuisance projected out.
    hrf : int, optional
        Take this shape and choose only the rest.
    """
    n = cleaned[0].shape[1]
    total = sum(np.einsum("ij,ij->j", block, block, dtype=np.float64) for block in cleaned)
    degrees = sum(part.degrees for part in decompositions)
    constant = total <= 0
    scale = np.where(constant, 1.0, total)
    best = Chosen(np.zeros(n, int), np.zeros(n), np.zeros(n), np.full(n, -np.inf))
    columns = np.arange(n)
    shapes = range(len(decompositions[0].singular)) if hrf is None else [hrf]
    for shape in shapes:
        misfit, penalty, mean = _misfit(decompositions, cleaned, shape, scale)
        gain = -0.5 * (degrees * np.log(np.maximum(misfit, 1e-12)) + penalty[:, None])
        top = gain.argmax(axis=0)
        found = gain[top, columns]
        better = found > best.gain
        best.hrf[better] = shape
        best.snr[better] = SNR_GRID[top[better]]
        best.mean[better] = mean[top[better], columns[better]]
        best.gain[better] = found[better]
    best.mean[constant] = 0
    best.gain[constant] = 0
    return best


def _misfit(
    decompositions: Sequence[Decomposition],
    cleaned: Sequence[np.ndarray],
    shape: int,
    scale: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Whitened sum of squares (n_snr, n) in units of ``scale``, log determinant, mean amplitude."""
    n_snr, n = len(SNR_GRID), len(scale)
    explained, square, cross = np.zeros(n), np.zeros((n_snr, n)), np.zeros((n_snr, n))
    norm, penalty = np.zeros(n_snr), np.zeros(n_snr)
    for part, block in zip(decompositions, cleaned, strict=True):
        found = part.components(shape, block)
        loading = part.mean_loading[shape]
        weight = 1 / (1 + SNR_GRID[:, None] * part.singular[shape] ** 2)
        power = found**2
        explained += power.sum(axis=0)
        square += weight @ power
        cross += (weight * loading) @ found
        norm += weight @ loading**2
        penalty -= np.log(weight).sum(axis=1)
    mean = cross / np.maximum(norm, 1e-12)[:, None]
    misfit = (scale - explained + square - mean * cross) / scale
    return misfit, penalty, mean


class Decompositions:
    """Decompositions of runs, made when asked for and kept while they fit in memory.

    Parameters
    ----------
    make : callable
        Run number to Decomposition.
    n_runs : int
    max_bytes : int
        Beyond this many bytes, runs are decomposed again each time.
    """

    def __init__(
        self, make: Callable[[int], Decomposition], n_runs: int, max_bytes: int = 2**30
    ) -> None:
        self._make, self._kept = make, dict[int, Decomposition]()
        self._n_runs, self._room = n_runs, max_bytes

    def __getitem__(self, run_number: int) -> Decomposition:
        if run_number in self._kept:
            return self._kept[run_number]
        made = self._make(run_number)
        if made.left.nbytes <= self._room:
            self._room -= made.left.nbytes
            self._kept[run_number] = made
        return made
