"""What a report says of scans: the quality of each run, and of the responses estimated from them.

Positions are array indices; ``affine`` takes them to mm in scanner space.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True, eq=False)
class RunQuality:
    """Quality of one run after motion correction.

    Parameters
    ----------
    name : str
        What tells it from the subject's other runs, for example ``"ses-1 run-02"``.
    t_r_s : float
        Repetition time.
    framewise_displacement : array of shape (n_volumes,), float32
        Displacement from the volume before, in mm; the first is NaN.
    dvars : array of shape (n_volumes,), float32
        Root mean square change from the volume before.
    motion : array of shape (n_volumes, 6), float32
        Translations in mm, then rotations in rad.
    censored : array of shape (n_volumes,), bool
        Volumes that take no part in any fit.
    carpet : array of shape (n_rows, n_volumes), float32, optional
        Detrended, standardised signal of bins of voxels.
    n_censored : int
        As counted by the stage.
    median_tsnr, mean_fd_mm : float
        Over the brain mask, and over volumes.
    notes : sequence of str
        What the stage did or could not do, in sentences.
    """

    name: str
    t_r_s: float
    framewise_displacement: np.ndarray
    dvars: np.ndarray
    motion: np.ndarray
    censored: np.ndarray
    carpet: np.ndarray | None = None
    n_censored: int = 0
    median_tsnr: float = float("nan")
    mean_fd_mm: float = float("nan")
    notes: Sequence[str] = ()

    @property
    def n_volumes(self) -> int:
        """Volumes of the run."""
        return len(self.framewise_displacement)

    @property
    def censored_share(self) -> float:
        """Share of censored volumes, 0 to 1."""
        return self.n_censored / max(self.n_volumes, 1)


@dataclass(frozen=True)
class SkippedRun:
    """A run that was left out, and the reason."""

    name: str
    reason: str


@dataclass(frozen=True, eq=False)
class ResponseQuality:
    """How well the responses were estimated.

    Parameters
    ----------
    estimator : str
        Name of the estimator: ``lsa``, ``lss``, ``ridge_glm``, ``block_average``.
    design : array of shape (n_volumes, n_columns), float32, optional
        Design matrix of the first run.
    column_names : sequence of str, shape (n_columns,)
        What its columns are.
    t_r_s : float
        Repetition time of the first run.
    onset_shift_s, onset_shift_r2 : array of shape (n_shifts,), float
        Share of variance of the responsive voxels explained when all onsets are moved by that many
        seconds.
    best_onset_shift_s : float, optional
        Where it is largest.
    onset_measure : str
        What kind of variance it is, in words.
    response_time_s, average_response, average_response_sem : array of shape (n_lags,), float
        Mean signal of the responsive voxels around onset, in percent signal change.
    duration_s : float
        How long a stimulus lasts, for the expected curve; 0 is an instant.
    maps : mapping of str to array of shape (x, y, z), float32
        ``ceiling``, ``split_half``, ``r2``, ``hrf_peak_s``, ``fraction``; NaN where not known.
    notes : sequence of str
        What the stage did or could not do, in sentences.
    """

    estimator: str = ""
    design: np.ndarray | None = None
    column_names: Sequence[str] = ()
    t_r_s: float = float("nan")
    onset_shift_s: np.ndarray = field(default_factory=lambda: np.empty(0))
    onset_shift_r2: np.ndarray = field(default_factory=lambda: np.empty(0))
    best_onset_shift_s: float | None = None
    onset_measure: str = ""
    response_time_s: np.ndarray = field(default_factory=lambda: np.empty(0))
    average_response: np.ndarray = field(default_factory=lambda: np.empty(0))
    average_response_sem: np.ndarray = field(default_factory=lambda: np.empty(0))
    duration_s: float = 0.0
    maps: Mapping[str, np.ndarray] = field(default_factory=dict)
    notes: Sequence[str] = ()


@dataclass(frozen=True, eq=False)
class ScanQuality:
    """Everything about the scans of one subject.

    Parameters
    ----------
    runs : sequence of RunQuality
        In the order they were scanned.
    skipped : sequence of SkippedRun
    source : str
        ``"raw"`` or ``"fmriprep"``: who corrected motion and slice timing.
    affine : array of shape (4, 4)
        From array index to mm.
    mean : array of shape (x, y, z), float32, optional
        Mean image.
    tsnr : array of shape (x, y, z), float32, optional
        Temporal signal-to-noise ratio, mean over runs.
    brain_mask, units_mask : array of shape (x, y, z), bool, optional
        The brain, and the voxels whose responses are kept.
    responses : ResponseQuality, optional
    """

    runs: Sequence[RunQuality] = ()
    skipped: Sequence[SkippedRun] = ()
    source: str = ""
    affine: np.ndarray = field(default_factory=lambda: np.eye(4))
    mean: np.ndarray | None = None
    tsnr: np.ndarray | None = None
    brain_mask: np.ndarray | None = None
    units_mask: np.ndarray | None = None
    responses: ResponseQuality | None = None
