"""What estimators share whose responses are a fixed linear map of a run's signal."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from pydantic import Field

from afterimage.preprocess.fmri.design import (
    RunDesign,
    orthonormal_basis,
    residual,
    trial_regressors,
)
from afterimage.preprocess.fmri.evidence import (
    Decompositions,
    choose,
    decompose_training,
    training_runs,
)
from afterimage.preprocess.fmri.hrf import HrfLibrary, HrfName, hrf_set
from afterimage.preprocess.fmri.registry import Estimates, Reader, batches, read_block
from afterimage.settings import Settings


class LinearEstimatorSettings(Settings):
    """Settings of estimators with one regressor a trial and no penalty."""

    hrf: HrfName = Field(
        "canonical",
        description="Response to a brief stimulus: SPM's canonical one, Glover's, or the member "
        "of a library that suits each voxel's training trials best.",
    )


class LinearEstimator(ABC):
    """Responses as weights (n_trials, n_volumes) of the signal, the same for all voxels.

    A subclass says in `weights` how the weights follow from the regressors.

    Parameters
    ----------
    settings : LinearEstimatorSettings
    """

    def __init__(self, settings: LinearEstimatorSettings) -> None:
        self.settings = settings
        self.summary_: dict[str, Any] = {}

    @abstractmethod
    def weights(self, regressors: np.ndarray) -> np.ndarray:
        """Weights (n_trials, n_volumes) from regressors (n_volumes, n_trials) less nuisance."""

    def estimate(
        self,
        designs: Sequence[RunDesign],
        read: Reader,
        n_voxels: int,
        *,
        n_voxels_batch: int = 2048,
    ) -> Iterator[Estimates]:
        """Yield the responses of all voxels, some at a time; see `ResponseEstimator`."""
        library = hrf_set(self.settings.hrf)
        bases = [orthonormal_basis(design.nuisance) for design in designs]
        several = len(library) > 1
        decompositions = Decompositions(
            lambda run: decompose_training(designs[run], library), len(designs)
        )
        known = training_runs(designs) if several else []
        weights: dict[int, list[np.ndarray]] = {}
        for voxels in batches(designs, n_voxels, n_voxels_batch):
            blocks = [read_block(designs, read, run, voxels) for run in range(len(designs))]
            hrf = np.zeros(voxels.stop - voxels.start, int)
            if several:
                parts = [decompositions[run] for run in known]
                cleaned = [part.clean(blocks[run]) for part, run in zip(parts, known, strict=True)]
                hrf = choose(parts, cleaned).hrf
            betas = np.zeros((sum(d.n_trials for d in designs), len(hrf)), np.float32)
            for shape in np.unique(hrf):
                if shape not in weights:
                    weights[shape] = self._all_weights(designs, bases, library, shape)
                same = hrf == shape
                found = [w @ b[:, same] for w, b in zip(weights[shape], blocks, strict=True)]
                betas[:, same] = np.concatenate(found)
            maps = {"hrf_peak_s": library.peaks_s[hrf].astype(np.float32)} if several else {}
            yield Estimates(voxels, betas, maps)
        self.summary_ = {
            "hrf": self.settings.hrf,
            "n_hrfs": len(library),
            "n_trials": sum(design.n_trials for design in designs),
        }

    def _all_weights(
        self,
        designs: Sequence[RunDesign],
        bases: Sequence[np.ndarray],
        library: HrfLibrary,
        shape: int,
    ) -> list[np.ndarray]:
        """Weights of every run for one response shape."""
        one = HrfLibrary(
            library.peaks_s[shape : shape + 1], library.kernels[shape : shape + 1], library.dt_s
        )
        return [
            self.weights(residual(trial_regressors(design, one)[0], basis))
            for design, basis in zip(designs, bases, strict=True)
        ]
