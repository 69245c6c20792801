"""Least squares, separate (Mumford et al. 2012, doi:10.1016/j.neuroimage.2011.08.076).

One model a trial: the trial and the sum of all other trials of its run (Turner et al. 2012,
doi:10.1016/j.neuroimage.2012.05.057). What differs: no model is fitted. With nuisance projected
out, each model has two regressors, and the solution of its normal equations needs only numbers
that one Gram matrix of the trials holds; so all trials and voxels are one matrix product.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from afterimage.preprocess.fmri.linear import LinearEstimator, LinearEstimatorSettings
from afterimage.preprocess.fmri.registry import ESTIMATORS

#: Sine squared of the angle between a trial and the others below which they are the same.
COLLINEAR = 1e-12


class LeastSquaresSeparateSettings(LinearEstimatorSettings):
    """Settings of least squares, separate."""

    kind: Literal["lss"] = Field("lss", description="Least squares, one model a trial.")


@ESTIMATORS.register("lss", LeastSquaresSeparateSettings)
class LeastSquaresSeparate(LinearEstimator):
    """One model a trial, in closed form for all trials and voxels."""

    def weights(self, regressors: np.ndarray) -> np.ndarray:
        """Weights (n_trials, n_volumes) of the trial's own regressor in its model.

        For trial x, the others' sum z and signal y, the normal equations give the coefficient of
        x as ``(z'z x'y - x'z z'y) / (x'x z'z - (x'z)^2)``. Where x and z are collinear, the
        solution of least norm is taken.
        """
        gram = regressors.T @ regressors
        own = gram.diagonal()
        cross = gram.sum(axis=1) - own
        others = np.maximum(gram.sum() - 2 * gram.sum(axis=1) + own, 0.0)
        determinant = own * others - cross**2
        separate = determinant > COLLINEAR * own * others
        # least norm for x = a u, z = b u with unit u: coefficient a u'y / (a^2 + b^2)
        power = own + others
        safe = np.where(separate, determinant, 1.0)
        on_own = np.where(separate, others / safe, 1 / np.where(power > 0, power, 1.0))
        on_others = np.where(separate, cross / safe, 0.0)
        absent = own <= COLLINEAR * gram.diagonal().max(initial=0)
        on_own[absent], on_others[absent] = 0.0, 0.0
        rest = regressors.sum(axis=1)[:, None] - regressors
        return np.asarray((on_own * regressors - on_others * rest).T)
