"""Connectivity in the tangent space of a group (Varoquaux 2010, doi:10.1007/978-3-642-15705-9_25).

What differs: nilearn's, on series scaled to standard deviation 1. The reference is the geometric
mean of the recordings given to `fit`, which must be training recordings where anything is predicted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, Self

import numpy as np
from pydantic import Field

from afterimage.connectivity.measures import CovarianceMeasure, CovarianceSettings, symmetric
from afterimage.connectivity.registry import CONNECTIVITY
from afterimage.errors import InputError

if TYPE_CHECKING:
    from nilearn.connectome import ConnectivityMeasure


class TangentSettings(CovarianceSettings):
    """Settings of the tangent space."""

    kind: Literal["tangent"] = Field("tangent", description="Tangent space of a group.")


@CONNECTIVITY.register("tangent", TangentSettings)
class Tangent(CovarianceMeasure):
    """log(G^-1/2 C G^-1/2), C the covariance of a recording, G the geometric mean of the group."""

    kind, stat, n_fit = "tangent", "tangent", 2
    _measure: ConnectivityMeasure | None = None

    def fit(
        self,
        series: Sequence[np.ndarray],
        *,
        kept: Sequence[np.ndarray | None] | None = None,
    ) -> Self:
        """Compute the reference of the group; ``series`` and ``kept`` as for `transform`."""
        masks = [None] * len(series) if kept is None else list(kept)
        if len(series) < self.n_fit:
            raise InputError(
                "the tangent space needs a group", found=f"{len(series)} recordings",
                expected=f"{self.n_fit} or more to take the mean of",
                fix="use another measure, or add recordings",
            )  # fmt: skip
        prepared = [self._prepared(v, m) for v, m in zip(series, masks, strict=True)]
        self._measure = self._nilearn().fit(prepared)
        return self

    @property
    def reference_(self) -> np.ndarray:
        """The geometric mean of the group, (n_units, n_units) float64."""
        return np.asarray(self._fitted().mean_)

    def _fitted(self) -> ConnectivityMeasure:
        if self._measure is None:
            raise RuntimeError("call fit with the recordings of the group first")
        return self._measure

    def _matrices(
        self, pairs: Sequence[tuple[np.ndarray, np.ndarray | None]], sampling_rate_hz: float
    ) -> np.ndarray:
        del sampling_rate_hz
        measure = self._fitted()
        return np.stack([symmetric(measure.transform([self._prepared(*p)])[0]) for p in pairs])
