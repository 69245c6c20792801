"""Inverse covariance of regions (Varoquaux 2010, arXiv:1008.5071), by nilearn.

What differs: the covariance is shrunk as by Ledoit and Wolf instead of by a group-sparse penalty.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from afterimage.connectivity.measures import CovarianceMeasure, CovarianceSettings
from afterimage.connectivity.registry import CONNECTIVITY


class PrecisionSettings(CovarianceSettings):
    """Settings of precision."""

    kind: Literal["precision"] = Field("precision", description="Inverse covariance.")


@CONNECTIVITY.register("precision", PrecisionSettings)
class Precision(CovarianceMeasure):
    """P = C^-1."""

    kind, stat = "precision", "precision"
