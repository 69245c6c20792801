"""The design of a run: a regressor a trial at its true onset, and nuisance to project out.

No grid of volumes is assumed: the response to a trial is known at every moment, as the integral
of the haemodynamic response over the time the stimulus was on, and is read off at the times of
the volumes. One table of integrals serves all trials and all candidate responses.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from afterimage.errors import InputError
from afterimage.preprocess.fmri.hrf import HrfLibrary

#: A direction counts as part of the nuisance where it stands out of rounding by this much.
RANK_TOLERANCE = 1e-9
#: Shorter stimuli are brief: the response is the haemodynamic response itself.
BRIEF_S = 0.1


@dataclass(frozen=True)
class RunDesign:
    """What was shown when in one run, and what else moves its signal.

    Attributes
    ----------
    volume_times_s : (n_volumes,) float64
        Time of each volume from the start of the run; any spacing.
    onsets_s, durations_s : (n_trials,) float64
        Onsets from the start of the run and durations of the trials.
    stimulus : (n_trials,) str
        What was shown.
    training : (n_trials,) bool
        Trials that may inform choices: response shape, noise regressors, penalties.
    nuisance : (n_volumes, n_nuisance) float64
        Drift, confounds, a constant, an indicator a censored volume. Columns may depend on each
        other.
    session, run : str
        Named in errors.
    """

    volume_times_s: np.ndarray
    onsets_s: np.ndarray
    durations_s: np.ndarray
    stimulus: np.ndarray
    training: np.ndarray
    nuisance: np.ndarray
    session: str = "n/a"
    run: str = "n/a"

    def __post_init__(self) -> None:
        trials = {len(self.onsets_s), len(self.durations_s), len(self.stimulus)}
        finite = all(
            np.isfinite(values).all()
            for values in (self.volume_times_s, self.onsets_s, self.durations_s, self.nuisance)
        )
        right = (
            trials == {len(self.training)}
            and self.nuisance.shape[:1] == self.volume_times_s.shape
            and self.nuisance.ndim == 2
        )
        if not right or not finite:
            raise InputError(
                "the parts of a run's design do not belong together",
                where=f"session {self.session}, run {self.run}",
                found=f"{len(self.onsets_s)} onsets, {len(self.durations_s)} durations, "
                f"{len(self.stimulus)} stimuli, {len(self.volume_times_s)} volumes, nuisance of "
                f"shape {self.nuisance.shape}{'' if finite else ', values that are not finite'}",
                expected="one onset, duration and stimulus a trial, one row of nuisance a volume, "
                "finite numbers",
                fix="check the events and the confounds of this run",
            )

    @property
    def n_volumes(self) -> int:
        """Number of volumes."""
        return len(self.volume_times_s)

    @property
    def n_trials(self) -> int:
        """Number of trials."""
        return len(self.onsets_s)


def trial_regressors(design: RunDesign, library: HrfLibrary) -> np.ndarray:
    """Return the response to each trial at the times of the volumes.

    Each is scaled to a maximum of 1 between the volumes too, so that its coefficient is the height
    of the response, in the units of the signal, whatever the duration of the trial.

    Parameters
    ----------
    design : RunDesign
    library : HrfLibrary

    Returns
    -------
    (n_hrfs, n_volumes, n_trials) float64
    """
    regressors = np.zeros((len(library), design.n_volumes, design.n_trials))
    durations, kind = np.unique(np.round(design.durations_s, 3), return_inverse=True)
    for number, duration_s in enumerate(durations):
        table = _response_table(library, float(duration_s))
        trials = np.flatnonzero(kind == number)
        lags = (design.volume_times_s[:, None] - design.onsets_s[trials]) / library.dt_s
        rows, columns = np.nonzero((lags > 0) & (lags < table.shape[1] - 1))
        lags = lags[rows, columns]
        before = lags.astype(np.intp)
        share = lags - before
        regressors[:, rows, trials[columns]] = (
            table[:, before] * (1 - share) + table[:, before + 1] * share
        )
    return regressors


def _response_table(library: HrfLibrary, duration_s: float) -> np.ndarray:
    """Return the responses to a stimulus of this duration, (n_hrfs, n_times), maximum 1."""
    kernels, dt_s = library.kernels, library.dt_s
    if duration_s < BRIEF_S:
        return kernels
    steps = 0.5 * (kernels[:, 1:] + kernels[:, :-1]) * dt_s
    integral = np.concatenate([np.zeros((len(kernels), 1)), steps.cumsum(axis=1)], axis=1)
    n_times = integral.shape[1]
    length = n_times + int(np.ceil(duration_s / dt_s))
    since_onset = np.arange(length)
    since_offset = np.clip(since_onset - duration_s / dt_s, 0, None)
    before = np.minimum(since_offset.astype(np.intp), n_times - 2)
    share = np.minimum(since_offset - before, 1.0)
    ended = integral[:, before] * (1 - share) + integral[:, before + 1] * share
    response = integral[:, np.minimum(since_onset, n_times - 1)] - ended
    return np.asarray(response / response.max(axis=1, keepdims=True))


def orthonormal_basis(columns: np.ndarray) -> np.ndarray:
    """Return an orthonormal basis of the span of the columns, whatever their scale or rank.

    Parameters
    ----------
    columns : (n, p) float64

    Returns
    -------
    (n, rank) float64
    """
    from scipy.linalg import qr

    norms = np.sqrt((columns**2).sum(axis=0))
    columns = columns[:, norms > 0] / norms[norms > 0]
    if not columns.size:
        return np.zeros((len(columns), 0))
    q, r, _ = qr(columns, mode="economic", pivoting=True)
    rank = int((np.abs(np.diag(r)) > RANK_TOLERANCE * abs(r[0, 0])).sum())
    return np.ascontiguousarray(q[:, :rank])


def residual(values: np.ndarray, basis: np.ndarray) -> np.ndarray:
    """Return the columns of ``values`` (n, m) less their part in an orthonormal basis (n, r)."""
    return values - basis @ (basis.T @ values)
