"""Functional connectivity as Pearson's correlation (Biswal 1995, doi:10.1002/mrm.1910340409).

What differs: without shrinkage, which is the default here, it is one matrix product a recording;
with it, nilearn's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from pydantic import Field

from afterimage.connectivity.measures import CovarianceMeasure, CovarianceSettings
from afterimage.connectivity.registry import CONNECTIVITY
from afterimage.signal.correlation import correlation_matrices


class CorrelationSettings(CovarianceSettings):
    """Settings of correlation."""

    kind: Literal["correlation"] = Field("correlation", description="Pearson correlation.")
    estimator: Literal["ledoit_wolf", "empirical"] = Field(
        "empirical", description="covariance: as measured (empirical) or shrunk (ledoit_wolf)"
    )


@CONNECTIVITY.register("correlation", CorrelationSettings)
class Correlation(CovarianceMeasure):
    """r_ij = cov(x_i, x_j) / (sd(x_i) sd(x_j)), the diagonal 1."""

    kind, stat = "correlation", "pearsoncorrelation"
    settings: CorrelationSettings

    def _matrices(
        self, pairs: Sequence[tuple[np.ndarray, np.ndarray | None]], sampling_rate_hz: float
    ) -> np.ndarray:
        if self.settings.estimator == "ledoit_wolf":
            return super()._matrices(pairs, sampling_rate_hz)
        used = (values if mask is None else values[mask] for values, mask in pairs)
        return correlation_matrices(used, len(pairs))
