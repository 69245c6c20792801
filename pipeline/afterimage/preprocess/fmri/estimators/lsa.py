"""Least squares, all trials at once (Mumford et al. 2012, doi:10.1016/j.neuroimage.2011.08.076).

One regressor a trial in one model a run, by ordinary least squares. What differs: nuisance is
projected out of both sides first (which changes nothing), and where trials cannot be told apart
the solution of least norm is taken, so that the responses stay finite.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from afterimage.preprocess.fmri.evidence import SINGULAR_TOLERANCE
from afterimage.preprocess.fmri.linear import LinearEstimator, LinearEstimatorSettings
from afterimage.preprocess.fmri.registry import ESTIMATORS


class LeastSquaresAllSettings(LinearEstimatorSettings):
    """Settings of least squares, all."""

    kind: Literal["lsa"] = Field("lsa", description="Least squares, all trials in one model.")


@ESTIMATORS.register("lsa", LeastSquaresAllSettings)
class LeastSquaresAll(LinearEstimator):
    """One regressor a trial, ordinary least squares."""

    def weights(self, regressors: np.ndarray) -> np.ndarray:
        """Pseudo-inverse of the regressors, (n_trials, n_volumes)."""
        return np.linalg.pinv(regressors, rcond=SINGULAR_TOLERANCE)
