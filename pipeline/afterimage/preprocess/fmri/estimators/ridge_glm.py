"""Single-trial ridge model of the GLMsingle family (Prince et al. 2022, doi:10.7554/eLife.77599).

Three steps, each decided on training trials: a response shape for each voxel, noise regressors
for all voxels, a fraction of ridge regression for each voxel. What differs from GLMsingle: shapes
are compared by the marginal likelihood of the single-trial model (`evidence`), not by its
in-sample variance explained, which neighbouring trials that overlap make nearly blind; responses
shrink towards the voxel's mean response (`fractional_ridge`), and get their scale back from the
model (what ridge leaves of a trial's own amplitude is known) instead of from a regression on noisy
least-squares responses; without repeats the penalty is the one of greatest marginal likelihood
instead of an error; onsets need no grid.

What is guaranteed about trials that are not for training: their stimuli are never looked at, and
runs without a training trial are not read for any choice of shape, number of noise regressors,
pool of noise voxels, mean response, penalty or scale, so that their signal cannot change one. In
runs that hold both, the other trials are nuisance of their own during all choices: their
amplitudes cannot matter as far as their response is one of the leading shapes of the library
(99 % of the energy of every member with four shapes a trial; fewer shapes where such trials are
many). Not guaranteed: noise that a test trial adds to its own volumes, and a response unlike every
member, can reach a choice in a mixed run. The noise regressors of a run are components of that
run's own pool of voxels, whatever its trials are for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from pydantic import Field, field_validator

from afterimage.preprocess.fmri.design import RunDesign, orthonormal_basis, trial_regressors
from afterimage.preprocess.fmri.evidence import (
    Chosen,
    Decomposition,
    Decompositions,
    choose,
    decompose,
    decompose_training,
    training_runs,
)
from afterimage.preprocess.fmri.fractional_ridge import Components, Repeats, choose_alphas
from afterimage.preprocess.fmri.hrf import HrfName, hrf_set
from afterimage.preprocess.fmri.noise_components import find_noise_components
from afterimage.preprocess.fmri.registry import (
    ESTIMATORS,
    Estimates,
    Reader,
    batches,
    read_block,
)
from afterimage.settings import Settings

#: Fractions to choose from; small ones matter where overlap makes least squares explode.
FRACTIONS = (
    *(0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.25),
    *(0.3, 0.35, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0),
)
#: Voxels of one response shape that are solved together.
N_VOXELS_TOGETHER = 256


class RidgeGlmSettings(Settings):
    """Settings of the single-trial ridge model."""

    kind: Literal["ridge_glm"] = Field(
        "ridge_glm", description="Response shape, noise regressors and ridge fitted to each voxel."
    )
    hrf: HrfName = Field(
        "library",
        description="Response to a brief stimulus: the member of a library that suits each "
        "voxel's training trials best, SPM's canonical one, or Glover's.",
    )
    fractions: tuple[float, ...] = Field(
        FRACTIONS,
        min_length=1,
        description="Shares of the least-squares responses that ridge may leave; one is chosen a "
        "voxel. A single value is taken as it is; 1 is ordinary least squares.",
    )
    max_noise_components: int = Field(
        10, ge=0, description="Noise regressors at most; their number is chosen; 0 for none."
    )
    noise_pool_max_r2: float = Field(
        0.0,
        lt=1,
        description="Voxels whose mean response explains no more than this share of the variance "
        "of other runs make the noise regressors.",
    )

    @field_validator("fractions")
    @classmethod
    def _in_range(cls, fractions: tuple[float, ...]) -> tuple[float, ...]:
        if not all(0 < fraction <= 1 for fraction in fractions):
            raise ValueError("fractions must lie above 0 and not above 1")
        return fractions


@dataclass(frozen=True)
class _Problem:
    """What all batches of voxels share."""

    designs: Sequence[RunDesign]
    known: list[int]  # runs with training trials
    training: Decompositions  # of training trials, the others projected out
    everything: Decompositions  # of all trials
    repeats: Repeats
    peaks_s: np.ndarray


@ESTIMATORS.register("ridge_glm", RidgeGlmSettings)
class RidgeGlm:
    """Response shape, noise regressors and fractional ridge, in that order.

    Maps of each voxel: ``hrf_peak_s``; ``fraction``, the share of the length of the least-squares
    responses (less the mean response) that the penalty leaves on training trials; ``r2``, the
    share of the variance of the cleaned signal of all runs that the ridge model explains.

    Parameters
    ----------
    settings : RidgeGlmSettings
    """

    def __init__(self, settings: RidgeGlmSettings) -> None:
        self.settings = settings
        self.summary_: dict[str, Any] = {}

    def estimate(
        self,
        designs: Sequence[RunDesign],
        read: Reader,
        n_voxels: int,
        *,
        n_voxels_batch: int = 2048,
    ) -> Iterator[Estimates]:
        """Yield the responses of all voxels, some at a time; see `ResponseEstimator`."""
        slices = batches(designs, n_voxels, n_voxels_batch)
        problem, noise = self._problem(designs, read, slices)
        fractions, peaks = [np.zeros(0)], [np.zeros(0)]
        for voxels in slices:
            blocks = [read_block(designs, read, run, voxels) for run in range(len(designs))]
            estimates = self._fit(problem, voxels, blocks)
            fractions.append(estimates.maps["fraction"])
            peaks.append(estimates.maps["hrf_peak_s"])
            yield estimates
        found, peak = np.concatenate(fractions), np.concatenate(peaks)
        self.summary_ = {
            "hrf": self.settings.hrf,
            "n_hrfs": len(problem.peaks_s),
            "n_trials": sum(design.n_trials for design in designs),
            "n_repeated_training_trials": problem.repeats.n_trials,
            "fraction_criterion": self._criterion(problem.repeats),
            "fraction_median": float(np.median(found)) if len(found) else 0.0,
            "hrf_peak_s_median": float(np.median(peak)) if len(peak) else 0.0,
            **noise,
        }

    def _criterion(self, repeats: Repeats) -> str:
        """Say how the fraction was chosen."""
        if len(self.settings.fractions) == 1:
            return "fixed"
        return "agreement of repeats across runs" if repeats.enough else "marginal likelihood"

    def _problem(
        self, designs: Sequence[RunDesign], read: Reader, slices: Sequence[slice]
    ) -> tuple[_Problem, dict[str, Any]]:
        """Find the noise regressors and set up the decompositions."""
        settings = self.settings
        known = training_runs(designs)
        library = hrf_set(settings.hrf)
        noise = find_noise_components(
            designs, known, read, slices, library,
            max_components=settings.max_noise_components,
            pool_max_r2=settings.noise_pool_max_r2,
        )  # fmt: skip

        def training(run: int) -> Decomposition:
            return decompose_training(designs[run], library, noise.regressors[run])

        kept = Decompositions(training, len(designs))

        def everything(run: int) -> Decomposition:
            if designs[run].training.all() and designs[run].n_trials:
                return kept[run]
            nuisance = np.concatenate([designs[run].nuisance, noise.regressors[run]], axis=1)
            regressors = trial_regressors(designs[run], library)
            return decompose(regressors, orthonormal_basis(nuisance))

        stimulus = np.concatenate([designs[r].stimulus[designs[r].training] for r in known])
        runs = np.repeat(known, [int(designs[r].training.sum()) for r in known])
        problem = _Problem(
            designs=designs,
            known=known,
            training=kept,
            everything=Decompositions(everything, len(designs)),
            repeats=Repeats(stimulus, runs),
            peaks_s=library.peaks_s,
        )
        return problem, noise.summary

    def _fit(self, problem: _Problem, voxels: slice, blocks: list[np.ndarray]) -> Estimates:
        """Fit some voxels: shape first, then all voxels of one shape together."""
        parts = [problem.training[run] for run in problem.known]
        known = [part.clean(blocks[run]) for part, run in zip(parts, problem.known, strict=True)]
        chosen = choose(parts, known)
        whole = [problem.everything[run] for run in range(len(blocks))]
        cleaned = [part.clean(block) for part, block in zip(whole, blocks, strict=True)]
        n_trials = sum(design.n_trials for design in problem.designs)
        betas = np.zeros((n_trials, len(chosen.hrf)), np.float32)
        fraction, r2 = np.zeros((2, len(chosen.hrf)), np.float32)
        for shape in np.unique(chosen.hrf):
            same = np.flatnonzero(chosen.hrf == shape)
            for start in range(0, len(same), N_VOXELS_TOGETHER):
                some = same[start : start + N_VOXELS_TOGETHER]
                training = Components.of(parts, [block[:, some] for block in known], shape)
                alphas, fraction[some], scale = self._penalty(problem, training, chosen, some)
                signal = [block[:, some] for block in cleaned]
                everything = Components.of(whole, signal, shape)
                betas[:, some], r2[some] = _solve(
                    everything, signal, chosen.mean[some], alphas, scale
                )
        maps = {
            "r2": r2,
            "hrf_peak_s": problem.peaks_s[chosen.hrf].astype(np.float32),
            "fraction": fraction,
        }
        return Estimates(voxels, betas, maps)

    def _penalty(
        self, problem: _Problem, training: Components, chosen: Chosen, some: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Penalty, fraction and scale of voxels of one shape, (n,) each, from training trials."""
        mean, snr = chosen.mean[some], chosen.snr[some]
        candidates = np.array(self.settings.fractions)
        coefficients = training.coefficients(mean)
        if len(candidates) == 1:
            alphas = training.alphas(coefficients, candidates)[0]
        else:
            alphas = choose_alphas(training, mean, snr, problem.repeats, candidates)
        shrunk = training.kept(alphas) * coefficients
        length = (coefficients**2).sum(axis=0)
        left = (shrunk**2).sum(axis=0) / np.where(length > 0, length, 1.0)
        fraction = np.where(length > 0, np.sqrt(left), 1.0)
        # what a trial keeps of its own amplitude, on average: the trace of the resolution matrix
        own = training.kept(alphas).sum(axis=0)
        rank = max(int((training.singular > 0).sum()), 1)
        return alphas, fraction, rank / np.where(own > 0, own, rank)


def _solve(
    components: Components,
    cleaned: Sequence[np.ndarray],
    mean: np.ndarray,
    alphas: np.ndarray,
    scale: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Responses (n_trials, n) and variance explained (n,) of voxels of one shape."""
    shrunk = components.kept(alphas) * components.coefficients(mean)
    # the mean response in the same vectors, so that trials that cannot be told apart share it
    average = np.concatenate([right.sum(axis=1) for right in components.right])
    average[components.singular == 0] = 0
    fitted = components.singular[:, None] * shrunk + components.loading[:, None] * mean
    total = sum(np.einsum("ij,ij->j", block, block, dtype=np.float64) for block in cleaned)
    gain = (2 * components.found * fitted - fitted**2).sum(axis=0)
    r2 = np.where(total > 0, gain / np.where(total > 0, total, 1.0), 0.0)
    return components.betas(scale * shrunk + average[:, None] * mean), r2
