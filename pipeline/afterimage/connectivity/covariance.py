"""Shrunk covariance of regions (Ledoit & Wolf 2004, doi:10.1016/S0047-259X(03)00096-4), by nilearn.

What differs: series are scaled to standard deviation 1 first unless ``standardize`` is off, which
makes it a correlation shrunk towards none.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from afterimage.connectivity.measures import CovarianceMeasure, CovarianceSettings
from afterimage.connectivity.registry import CONNECTIVITY


class CovarianceOnlySettings(CovarianceSettings):
    """Settings of covariance."""

    kind: Literal["covariance"] = Field("covariance", description="Covariance.")


@CONNECTIVITY.register("covariance", CovarianceOnlySettings)
class Covariance(CovarianceMeasure):
    """C = (1 - s) S + s m I, S the covariance as measured, m its mean variance, s the shrinkage."""

    kind, stat = "covariance", "covariance"
