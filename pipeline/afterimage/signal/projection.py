"""Confounds, band-pass and censoring as one projection (Lindquist 2019, doi:10.1002/hbm.24528).

Steps done one after the other put back what earlier steps took out: filtered series regressed on
unfiltered confounds have out-of-band power again. Here all regressors (the constant, confounds,
cosines outside the band, one spike for each censored volume) form one design, and the series lose
its span once:

    Y_clean = Y - Q Q' Y,    with Q R = [1, confounds, cosines, spikes].

What differs: the filter is a set of cosines (discrete cosine transform, as the drift terms of SPM
and the cosine filter of nilearn) instead of two Butterworth passes, so its cost in degrees of
freedom is exact; spikes are applied by fitting the kept volumes alone, which is the same (Frisch and
Waugh 1933) and smaller.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from afterimage.errors import InputError


@dataclass(frozen=True)
class Projection:
    """What series are freed of, as an orthonormal basis; made by `projection`.

    Attributes
    ----------
    basis : array of shape (n_kept, rank), float64
        Orthonormal columns over the kept volumes.
    kept : array of bool, shape (n_times,)
        Volumes that are not censored.
    """

    basis: np.ndarray
    kept: np.ndarray

    @property
    def degrees_of_freedom(self) -> int:
        """Dimensions that are left to the series: kept volumes less the rank of the design."""
        return int(self.basis.shape[0] - self.basis.shape[1])

    def apply(self, series: np.ndarray) -> np.ndarray:
        """Return the cleaned series, (n_times, n_units) float64; censored volumes are 0.

        Parameters
        ----------
        series : array of shape (n_times, n_units)
            Finite numbers in the kept volumes.
        """
        used = np.asarray(series[self.kept], dtype=np.float64)
        offset = used.mean(axis=0)  # large baselines cost digits
        used = used - offset
        cleaned = np.zeros((len(self.kept), used.shape[1]))
        left = used - self.basis @ (self.basis.T @ used)
        cleaned[self.kept] = left - self.basis @ (self.basis.T @ left)
        return cleaned


def out_of_band(
    n_times: int,
    sampling_rate_hz: float,
    high_pass_hz: float | None = None,
    low_pass_hz: float | None = None,
) -> np.ndarray:
    """Return the cosines outside a band of frequencies.

    Parameters
    ----------
    n_times : int
    sampling_rate_hz : float
        Volumes a second.
    high_pass_hz, low_pass_hz : float or None
        Edges of the band that is kept, edges included; None for no edge.

    Returns
    -------
    array of shape (n_times, n_cosines), float64
        cos(pi k (t + 1/2) / n_times) * sqrt(2 / n_times), of frequency k rate / (2 n_times); the
        constant is not among them.
    """
    order = np.arange(1, n_times)
    frequency_hz = order * sampling_rate_hz / (2 * n_times)
    outside = np.zeros(len(order), dtype=bool)
    if high_pass_hz:
        outside |= frequency_hz < high_pass_hz * (1 + 1e-12)
    if low_pass_hz:
        outside |= frequency_hz > low_pass_hz * (1 + 1e-12)
    phase = np.pi * np.outer(np.arange(n_times) + 0.5, order[outside]) / n_times
    return np.sqrt(2 / n_times) * np.cos(phase)


def projection(
    n_times: int,
    *,
    confounds: np.ndarray | None = None,
    kept: np.ndarray | None = None,
    sampling_rate_hz: float = 0.0,
    high_pass_hz: float | None = None,
    low_pass_hz: float | None = None,
    min_degrees_of_freedom: int = 1,
    where: str = "",
) -> Projection:
    """Build the projection of one run.

    Parameters
    ----------
    n_times : int
        Volumes of the run.
    confounds : array of shape (n_times, n_confounds) or None
        Any scale. What is not finite is set to the mean of its column over the kept volumes, as
        the first value of a derivative.
    kept : array of bool, shape (n_times,), or None
        Volumes that are not censored; None for all.
    sampling_rate_hz : float
        Volumes a second; needed where there is a band.
    high_pass_hz, low_pass_hz : float or None
        Edges of the band that is kept.
    min_degrees_of_freedom : int
        A run that keeps fewer is refused.
    where : str
        The run, for error messages.

    Returns
    -------
    Projection

    Raises
    ------
    InputError
        If all volumes are censored, the band needs a sampling rate that is not known, confounds
        have another length, or fewer degrees of freedom are left than asked for.
    """
    from scipy.linalg import qr

    used = np.ones(n_times, dtype=bool) if kept is None else np.asarray(kept, dtype=bool)
    _check(n_times, used, confounds, where)
    columns = [np.ones((n_times, 1))]
    if high_pass_hz or low_pass_hz:
        if not sampling_rate_hz > 0:
            raise InputError(
                "a series cannot be filtered", where=where, found="no sampling rate",
                expected="RepetitionTime in its sidecar",
                fix="write it to the JSON sidecar, or set high_pass_hz and low_pass_hz to null",
            )  # fmt: skip
        columns.append(out_of_band(n_times, sampling_rate_hz, high_pass_hz, low_pass_hz))
    if confounds is not None and confounds.shape[1]:
        columns.append(_scaled(np.asarray(confounds, dtype=np.float64), used))
    design = np.concatenate(columns, axis=1)[used]
    lengths = np.linalg.norm(design, axis=0)
    design = design[:, lengths > 0] / lengths[lengths > 0]
    basis, triangle, _ = qr(design, mode="economic", pivoting=True)
    rank = int(np.sum(np.abs(np.diag(triangle)) > 1e-9))  # columns have length 1
    left = int(used.sum()) - rank
    if left < min_degrees_of_freedom:
        n_confounds = 0 if confounds is None else confounds.shape[1]
        n_cosines = sum(part.shape[1] for part in columns) - 1 - n_confounds
        raise InputError(
            "too little of a run is left after confounds, filter and censoring", where=where,
            found=f"{left} degrees of freedom: {n_times} volumes, {int((~used).sum())} censored, "
            f"{n_confounds} confounds and {n_cosines} cosines outside the band",
            expected=f"{min_degrees_of_freedom} or more",
            fix="use fewer confounds, a wider band, or a higher threshold of motion",
        )  # fmt: skip
    return Projection(np.ascontiguousarray(basis[:, :rank]), used)


def _check(n_times: int, kept: np.ndarray, confounds: np.ndarray | None, where: str) -> None:
    if len(kept) != n_times:
        raise InputError(
            "a list of censored volumes has another length than its run", where=where,
            found=f"{len(kept)} entries", expected=f"{n_times}, one a volume",
            fix="give the table that belongs to this run",
        )  # fmt: skip
    if not kept.any():
        raise InputError(
            "all volumes of a run are censored", where=where, found=f"{n_times} volumes",
            expected="volumes without excessive motion",
            fix="leave the run out, or set a higher threshold (clean_bold.fd_threshold_mm)",
        )  # fmt: skip
    if confounds is not None and len(confounds) != n_times:
        raise InputError(
            "a table of confounds has another length than its run", where=where,
            found=f"{len(confounds)} rows", expected=f"{n_times}, one a volume",
            fix="give the table that belongs to this run",
        )  # fmt: skip


def _scaled(confounds: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Return confounds centred over the kept volumes; 0 where they are not finite."""
    finite = np.isfinite(confounds) & kept[:, None]
    values = np.where(finite, confounds, 0.0)
    mean = values.sum(axis=0) / np.maximum(finite.sum(axis=0), 1)
    centred = np.where(finite, values - mean, 0.0)
    # Rounding errors of a constant column are no confound.
    scale = np.abs(np.where(finite, confounds, 0.0)).max(axis=0, initial=0.0)
    centred[:, np.abs(centred).max(axis=0, initial=0.0) <= 1e-10 * scale] = 0.0
    return centred
