"""Noise shared by voxels without a response (GLMdenoise: Kay et al. 2013, doi:10.3389/fnins.2013.00247).

Principal components of the time series of a pool of voxels that do not respond are nuisance of
every voxel; how many is chosen by cross-validation. What differs: the measure is how well the
responses to a stimulus in some runs, cleaned of components, agree with its uncleaned responses in
another run; without repeats, how well the mean response of some runs predicts the signal of
another. Pool and number are chosen on training trials. Only times x times products are kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from afterimage.preprocess.fmri.design import RunDesign, orthonormal_basis, residual
from afterimage.preprocess.fmri.evidence import Decomposition, choose, decompose_training
from afterimage.preprocess.fmri.fractional_ridge import Components, Repeats, likely_alphas
from afterimage.preprocess.fmri.hrf import HrfLibrary, canonical_hrf, hrf_library
from afterimage.preprocess.fmri.registry import Reader, read_block

#: Responsive voxels on which the number of components is chosen, at most and at least.
MAX_VOXELS, MIN_VOXELS = 1000, 20
#: Values of their signal that may be held.
MAX_VALUES = 2**25
#: The fewest components that reach this share of the best gain are taken (GLMdenoise's 1 / 1.05).
ENOUGH = 1 / 1.05
#: A gain below this share of the measure itself, or this much, is not worth a regressor.
MIN_GAIN_SHARE, MIN_GAIN = 0.01, 0.001


@dataclass(frozen=True)
class NoiseComponents:
    """Nuisance found in the data.

    Attributes
    ----------
    regressors : list of (n_volumes, k) float64
        One array a run.
    summary : dict
        How they were found.
    """

    regressors: list[np.ndarray]
    summary: dict[str, Any] = field(default_factory=dict)


def find_noise_components(
    designs: Sequence[RunDesign],
    known: Sequence[int],
    read: Reader,
    voxels: Sequence[slice],
    library: HrfLibrary,
    *,
    max_components: int,
    pool_max_r2: float,
) -> NoiseComponents:
    """Find the pool, its components in every run, and how many of them help.

    Parameters
    ----------
    designs : sequence of RunDesign
    known : sequence of int
        Runs with training trials.
    read : callable
        As in `ResponseEstimator.estimate`.
    voxels : sequence of slice
        All voxels, in batches.
    library : HrfLibrary
        Candidate responses; where there are several, the one that suits most voxels is used.
    max_components : int
        0 for none.
    pool_max_r2 : float
        Largest cross-validated variance that the mean response explains in a voxel of the pool.
    """
    none = [np.zeros((design.n_volumes, 0)) for design in designs]
    if not max_components or len(known) < 2:
        return NoiseComponents(none, {"n_noise_components": 0})
    r2, grams, n_pool = _pool(designs, known, read, voxels, pool_max_r2)
    summary: dict[str, Any] = {"n_noise_components": 0, "n_noise_pool_voxels": n_pool}
    responsive = _responsive(r2, sum(designs[run].n_volumes for run in known))
    if len(responsive) < MIN_VOXELS or n_pool < MIN_VOXELS:
        return NoiseComponents(none, summary)
    components = [_leading(gram, min(max_components, n_pool)) for gram in grams]
    blocks = _read_some(designs, known, read, voxels, responsive)
    scores, criterion = _scores(designs, known, components, blocks, library)
    number = _fewest(scores)
    summary |= {
        "n_noise_components": number,
        "noise_components_criterion": criterion,
        "noise_components_gain": float(scores[number] - scores[0]),
    }
    return NoiseComponents([columns[:, :number] for columns in components], summary)


def _pool(
    designs: Sequence[RunDesign],
    known: Sequence[int],
    read: Reader,
    voxels: Sequence[slice],
    pool_max_r2: float,
) -> tuple[np.ndarray, list[np.ndarray], int]:
    """Variance explained by the mean response in each voxel; products of times over the pool."""
    canonical = canonical_hrf()
    parts = [decompose_training(designs[run], canonical) for run in known]
    bases = [orthonormal_basis(design.nuisance) for design in designs]
    grams = [np.zeros((design.n_volumes, design.n_volumes)) for design in designs]
    r2 = np.full(voxels[-1].stop if voxels else 0, -np.inf)
    n_pool = 0
    for batch in voxels:
        blocks = [read_block(designs, read, run, batch) for run in range(len(designs))]
        cleaned = [part.clean(blocks[run]) for part, run in zip(parts, known, strict=True)]
        varies = sum((block**2).sum(axis=0) for block in cleaned) > 0
        found = _predicted(parts, cleaned, parts, cleaned)
        r2[batch] = np.where(varies, found, -np.inf)
        pool = varies & (found <= pool_max_r2)
        n_pool += int(pool.sum())
        for gram, block, basis in zip(grams, blocks, bases, strict=True):
            noise = residual(block[:, pool], basis)
            length = np.sqrt((noise**2).sum(axis=0))
            noise /= np.where(length > 0, length, np.inf)
            gram += noise @ noise.T
    return r2, grams, n_pool


def _responsive(r2: np.ndarray, n_volumes: int) -> np.ndarray:
    """Numbers of the voxels that respond most, in order; as many as memory allows."""
    n = min(MAX_VOXELS, MAX_VALUES // max(n_volumes, 1))
    order = np.argsort(-r2, kind="stable")[:n]
    return np.sort(order[r2[order] > 0])


def _leading(gram: np.ndarray, n_components: int) -> np.ndarray:
    """Return the leading eigenvectors of a matrix, (n_volumes, k), the strongest first."""
    from scipy.linalg import eigh

    n = len(gram)
    vectors = eigh(gram, subset_by_index=(max(0, n - n_components), n - 1))[1]
    return np.ascontiguousarray(vectors[:, ::-1])


def _read_some(
    designs: Sequence[RunDesign],
    known: Sequence[int],
    read: Reader,
    voxels: Sequence[slice],
    chosen: np.ndarray,
) -> list[np.ndarray]:
    """Read chosen voxels of the known runs, (n_volumes, n_chosen) each."""
    blocks = []
    for run in known:
        pieces = []
        for batch in voxels:
            inside = chosen[(chosen >= batch.start) & (chosen < batch.stop)] - batch.start
            if len(inside):
                pieces.append(read_block(designs, read, run, batch)[:, inside])
        blocks.append(np.concatenate(pieces, axis=1))
    return blocks


def _scores(
    designs: Sequence[RunDesign],
    known: Sequence[int],
    components: Sequence[np.ndarray],
    blocks: Sequence[np.ndarray],
    library: HrfLibrary,
) -> tuple[np.ndarray, str]:
    """Measure of 0, 1, ... components, the mean over voxels, and what the measure is."""
    shape = _common_shape(designs, known, blocks, library)
    stimulus = np.concatenate([designs[run].stimulus[designs[run].training] for run in known])
    counts = [int(designs[run].training.sum()) for run in known]
    repeats = Repeats(stimulus, np.repeat(np.arange(len(known)), counts))

    def clean(number: int) -> tuple[list[Decomposition], list[np.ndarray]]:
        parts = [decompose_training(designs[r], shape, components[r][:, :number]) for r in known]
        return parts, [part.clean(block) for part, block in zip(parts, blocks, strict=True)]

    plain = clean(0)
    chosen = choose(*plain)
    alphas = likely_alphas(chosen.snr)
    target = _betas(*plain, chosen.mean, alphas)
    scores = []
    for number in range(min(columns.shape[1] for columns in components) + 1):
        cleaned = clean(number)
        if repeats.enough:
            betas = _betas(*cleaned, chosen.mean, alphas)
            scores.append(repeats.agreement(betas, target).mean())
        else:
            scores.append(_predicted(*cleaned, *plain).mean())
    words = "agreement of repeats across runs" if repeats.enough else "mean response across runs"
    return np.array(scores), words


def _common_shape(
    designs: Sequence[RunDesign],
    known: Sequence[int],
    blocks: Sequence[np.ndarray],
    library: HrfLibrary,
) -> HrfLibrary:
    """Return the response that suits most voxels, of one width."""
    if len(library) == 1:
        return library
    narrow = hrf_library(dispersions_s=(1.0,))
    parts = [decompose_training(designs[run], narrow) for run in known]
    cleaned = [part.clean(block) for part, block in zip(parts, blocks, strict=True)]
    best = int(np.bincount(choose(parts, cleaned).hrf).argmax())
    return HrfLibrary(
        narrow.peaks_s[best : best + 1], narrow.kernels[best : best + 1], narrow.dt_s
    )


def _betas(
    parts: Sequence[Decomposition],
    cleaned: Sequence[np.ndarray],
    mean: np.ndarray,
    alphas: np.ndarray,
) -> np.ndarray:
    """Shrunk responses less the mean response, (n_trials, n)."""
    components = Components.of(parts, cleaned, 0)
    return components.betas(components.kept(alphas) * components.coefficients(mean))


def _predicted(
    parts: Sequence[Decomposition],
    cleaned: Sequence[np.ndarray],
    plain: Sequence[Decomposition],
    plain_cleaned: Sequence[np.ndarray],
) -> np.ndarray:
    """Variance of each uncleaned run that the mean response of the others, cleaned, explains."""

    def sums(
        some: Sequence[Decomposition], signal: Sequence[np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray]:
        loadings = [part.mean_loading[0] for part in some]
        product = [w @ p.components(0, b) for w, p, b in zip(loadings, some, signal, strict=True)]
        return np.stack(product), np.array([w @ w for w in loadings])[:, None]

    product, power = sums(parts, cleaned)
    wanted, size = sums(plain, plain_cleaned)
    others = np.maximum(power.sum() - power, 1e-12)
    mean = (product.sum(axis=0) - product) / others
    total = sum((block**2).sum(axis=0) for block in plain_cleaned)
    gain = (2 * mean * wanted - mean**2 * size).sum(axis=0)
    return np.asarray(gain / np.where(total > 0, total, np.inf))


def _fewest(scores: np.ndarray) -> int:
    """Return the smallest number that comes close to the best."""
    gain = scores - scores[0]
    if gain.max() <= max(MIN_GAIN_SHARE * abs(scores[0]), MIN_GAIN):
        return 0
    return int(np.flatnonzero(gain >= ENOUGH * gain.max())[0])
