"""What measures of static connectivity have in common: settings, checks, and covariances.

Covariances and the tangent space are those of nilearn (Abraham et al. 2014,
doi:10.3389/fninf.2014.00014), with the shrinkage of Ledoit and Wolf (2004,
doi:10.1016/S0047-259X(03)00096-4).

What differs: series are scaled to standard deviation 1 first where ``standardize`` is on. The option
of that name in nilearn acts on correlations alone, so that there the tangent space and partial
correlations with shrinkage depend on the scale of each region.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, Self

import numpy as np
from pydantic import Field

from afterimage.errors import InputError
from afterimage.settings import Settings

if TYPE_CHECKING:
    from nilearn.connectome import ConnectivityMeasure

#: Kinds of units that are sensors, where fields of one source reach many of them at once.
SENSORS = frozenset({"eeg", "mag", "grad"})


class MeasureSettings(Settings):
    """Settings of every measure."""

    units: Literal["parcels", "sensors", "all"] = Field(
        "parcels", description="recordings it is computed for: parcels, sensors, or all"
    )

    def applies(self, kinds: np.ndarray) -> bool:
        """Say whether it is computed for units of these kinds, array of str."""
        sensors = bool(SENSORS & set(np.unique(kinds).tolist()))
        return self.units == "all" or sensors == (self.units == "sensors")


class CovarianceSettings(MeasureSettings):
    """Settings of the measures that start from a covariance."""

    estimator: Literal["ledoit_wolf", "empirical"] = Field(
        "ledoit_wolf", description="covariance: shrunk (ledoit_wolf) or as measured (empirical)"
    )
    standardize: bool = Field(True, description="scale every series to standard deviation 1 first")


class Measure(ABC):
    """Series of recordings in, one matrix over units a recording out.

    Parameters
    ----------
    settings : MeasureSettings

    Attributes
    ----------
    stat : str
        Its label in file names.
    min_samples : int
        Fewest kept samples of a recording.
    n_fit : int
        Recordings that `fit` needs; 0 where there is nothing to fit.
    """

    stat = ""
    min_samples = 3
    n_fit = 0

    def __init__(self, settings: MeasureSettings) -> None:
        self.settings = settings

    def fit(
        self,
        series: Sequence[np.ndarray],
        *,
        kept: Sequence[np.ndarray | None] | None = None,
    ) -> Self:
        """Learn what is common to recordings, as for `transform`; most measures learn nothing."""
        del series, kept
        return self

    def transform(
        self,
        series: Sequence[np.ndarray],
        *,
        kept: Sequence[np.ndarray | None] | None = None,
        sampling_rate_hz: float = 0.0,
    ) -> np.ndarray:
        """Compute the matrices of recordings.

        Parameters
        ----------
        series : sequence of array of shape (n_times, n_units)
            One a recording.
        kept : sequence of (array of bool, shape (n_times,), or None)
            Samples to use; None for all.
        sampling_rate_hz : float
            Samples a second; measures in a band of frequencies need it.

        Returns
        -------
        array of shape (n_recordings, n_units, n_units), float32
            Symmetric.

        Raises
        ------
        InputError
            If values are not finite, a unit does not vary, or too few samples are kept.
        """
        masks = [None] * len(series) if kept is None else list(kept)
        pairs = list(zip(series, masks, strict=True))
        for number, (values, mask) in enumerate(pairs):
            _check(values if mask is None else values[mask], self.min_samples, number)
        return self._matrices(pairs, sampling_rate_hz)

    @abstractmethod
    def _matrices(
        self, pairs: Sequence[tuple[np.ndarray, np.ndarray | None]], sampling_rate_hz: float
    ) -> np.ndarray:
        """Return the matrices of series that were checked, each with its mask of samples kept."""


def _check(values: np.ndarray, min_samples: int, number: int) -> None:
    where = f"recording {number + 1}"
    if values.ndim != 2 or len(values) < min_samples:
        raise InputError(
            "a recording is too short for connectivity", where=where,
            found=f"{len(values)} samples that are kept", expected=f"{min_samples} or more",
            fix="leave it out",
        )  # fmt: skip
    if not np.isfinite(values).all():
        bad = np.flatnonzero(~np.isfinite(values).all(axis=0))
        raise InputError(
            "a series holds values that are no finite numbers", where=where,
            found=f"{len(bad)} units, the first is number {bad[0] + 1}",
            expected="numbers in all samples that are kept", fix="censor them, or drop the units",
        )  # fmt: skip
    mean = values.mean(axis=0, dtype=np.float64)
    reach = np.maximum(values.max(axis=0) - mean, mean - values.min(axis=0))
    constant = np.flatnonzero(reach <= 1e-6 * np.abs(mean))
    if len(constant):
        raise InputError(
            "a series does not vary", where=where,
            found=f"{len(constant)} units, the first is number {constant[0] + 1}",
            expected="units whose values change over time", fix="drop these units",
        )  # fmt: skip


class CovarianceMeasure(Measure):
    """A measure that nilearn computes from the covariance of each recording.

    Attributes
    ----------
    kind : str
        Its name in nilearn.
    """

    kind = ""
    settings: CovarianceSettings

    def _nilearn(self) -> ConnectivityMeasure:
        from nilearn.connectome import ConnectivityMeasure
        from sklearn.covariance import EmpiricalCovariance, LedoitWolf

        estimator = (
            LedoitWolf(store_precision=False)
            if self.settings.estimator == "ledoit_wolf"
            else EmpiricalCovariance(store_precision=False)
        )
        # Scaled before, see above: nilearn's own option would be ignored by most kinds.
        return ConnectivityMeasure(cov_estimator=estimator, kind=self.kind, standardize=False)

    def _prepared(self, values: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
        """Return the kept samples in float64, scaled where asked; (n_kept, n_units)."""
        used = np.asarray(values if mask is None else values[mask], dtype=np.float64)
        centred = used - used.mean(axis=0)
        return centred / centred.std(axis=0) if self.settings.standardize else centred

    def _matrices(
        self, pairs: Sequence[tuple[np.ndarray, np.ndarray | None]], sampling_rate_hz: float
    ) -> np.ndarray:
        del sampling_rate_hz
        result = []
        for values, mask in pairs:  # one by one, so that one is in memory in float64
            measure = self._nilearn()
            measure.fit([self._prepared(values, mask)])
            result.append(symmetric(measure.mean_))
        return np.stack(result)


def symmetric(matrix: np.ndarray) -> np.ndarray:
    """Return the mean of a matrix and its transpose, float32, shape (n_units, n_units)."""
    return np.asarray((matrix + matrix.T) / 2, dtype=np.float32)
