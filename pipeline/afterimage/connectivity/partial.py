"""Partial correlation of regions (Marrelec 2006, doi:10.1016/j.neuroimage.2005.12.057), by nilearn.

What differs: the inverse is that of the shrunk covariance of Ledoit and Wolf, of series scaled to
standard deviation 1; with as many regions as volumes the plain covariance has no inverse.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from afterimage.connectivity.measures import CovarianceMeasure, CovarianceSettings
from afterimage.connectivity.registry import CONNECTIVITY


class PartialSettings(CovarianceSettings):
    """Settings of partial correlation."""

    kind: Literal["partial"] = Field("partial", description="Partial correlation.")


@CONNECTIVITY.register("partial", PartialSettings)
class Partial(CovarianceMeasure):
    """-P_ij / sqrt(P_ii P_jj) with P the inverse covariance, the diagonal 1."""

    kind, stat = "partial correlation", "partialcorrelation"
