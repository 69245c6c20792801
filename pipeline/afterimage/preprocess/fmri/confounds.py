"""Spurious but systematic correlations arise from motion (doi:10.1016/j.neuroimage.2011.10.018).

Framewise displacement as in that paper (Power 2012); CompCor (Behzadi 2007,
doi:10.1016/j.neuroimage.2007.04.042)
from the voxels of highest variance, as in nilearn; cosine drift by nilearn. The columns have the names
of fMRIPrep, so that its tables and ours are used in the same way.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from afterimage.errors import ConfigError, InputError
from afterimage.preprocess.fmri.motion import PARAMETERS

#: Radius of the sphere on which rotations are turned into displacements, mm.
HEAD_RADIUS_MM = 50.0
#: Voxels that vary less, in squared scanner units, hold rounding errors only.
TINY_VARIANCE = 1e-10
#: Columns of each strategy, as regular expressions; `compcor` takes the first set that is there.
STRATEGIES: dict[str, tuple[str, ...]] = {
    "motion": (r"(trans|rot)_[xyz]",),
    "motion_derivatives": (r"(trans|rot)_[xyz]_derivative1",),
    "motion_squares": (r"(trans|rot)_[xyz](_derivative1)?_power2",),
    "compcor": (r"a_comp_cor_\d+", r"t_comp_cor_\d+"),
    "wm_csf": (r"csf|white_matter",),
    "global_signal": (r"global_signal",),
    # Of the signals of tissue and of the whole brain, which fMRIPrep writes.
    "signal_derivatives": (r"(csf|white_matter|global_signal)_derivative1",),
    "signal_squares": (r"(csf|white_matter|global_signal)(_derivative1)?_power2",),
}


@dataclass(frozen=True)
class Nuisance:
    """Nuisance regressors of one run.

    Attributes
    ----------
    values : array of shape (n_volumes, n_columns), float64
        Confounds scaled to a standard deviation of 1, drift, spikes, and the constant last.
    names : tuple of str
        One a column.
    """

    values: np.ndarray
    names: tuple[str, ...]


def framewise_displacement(motion: np.ndarray) -> np.ndarray:
    """Return the displacement of each volume from the one before, in mm.

    Parameters
    ----------
    motion : array of shape (n_volumes, 6)
        Translations in mm, rotations in rad.

    Returns
    -------
    array of shape (n_volumes,), float64
        sum |d trans| + 50 mm * sum |d rot|; NaN for the first volume.
    """
    steps = np.abs(np.diff(motion, axis=0))
    moved = steps[:, :3].sum(axis=1) + HEAD_RADIUS_MM * steps[:, 3:].sum(axis=1)
    return np.concatenate([[np.nan], moved])


def censor_by_displacement(displacement_mm: np.ndarray, threshold_mm: float | None) -> np.ndarray:
    """Return which volumes moved more than the threshold, bool; none where it is None."""
    if threshold_mm is None:
        return np.zeros(len(displacement_mm), dtype=bool)
    return np.asarray(np.nan_to_num(displacement_mm, nan=0.0) > threshold_mm)


def motion_columns(motion: np.ndarray) -> dict[str, np.ndarray]:
    """Return six parameters and their backward differences as columns; the first is NaN."""
    columns = {name: motion[:, index] for index, name in enumerate(PARAMETERS)}
    for index, name in enumerate(PARAMETERS):
        step = np.diff(motion[:, index])
        columns[f"{name}_derivative1"] = np.concatenate([[np.nan], step])
    return columns


def high_variance_components(
    read: Callable[[slice], np.ndarray],
    n_voxels: int,
    *,
    n_components: int = 5,
    percentile: float = 2.0,
    n_voxels_batch: int = 2048,
) -> np.ndarray:
    """Return CompCor components from the voxels of highest variance.

    The same as ``nilearn.signal.high_variance_confounds`` on the whole run, which needs it in
    memory at once; here only the voxels that are used are held.

    Parameters
    ----------
    read : callable
        ``read(slice)`` gives (n_volumes, n) values of these voxels.
    n_voxels : int
        Voxels in all.
    n_components : int
        Components wanted; fewer where the run is shorter.
    percentile : float
        Share of voxels used, in percent.
    n_voxels_batch : int
        Voxels read at a time; the result does not depend on it.

    Returns
    -------
    array of shape (n_volumes, n_components), float64
    """
    from scipy.linalg import svd
    from scipy.signal import detrend

    starts = range(0, n_voxels, n_voxels_batch)
    variance = np.concatenate(
        [
            detrend(read(slice(s, s + n_voxels_batch)).astype(np.float64), axis=0).var(axis=0)
            for s in starts
        ]
    )
    chosen = variance > np.percentile(variance, 100.0 - percentile)
    chosen &= variance > TINY_VARIANCE
    if not chosen.any():
        return np.zeros((len(read(slice(0, 1))), 0))
    noise = np.concatenate(
        [
            read(slice(s, s + n_voxels_batch))[:, chosen[s : s + n_voxels_batch]]
            for s in starts
            if chosen[s : s + n_voxels_batch].any()
        ],
        axis=1,
    ).astype(np.float64)
    left = svd(detrend(noise, axis=0), full_matrices=False)[0]
    return np.asarray(left[:, :n_components])


def cosine_drift(n_volumes: int, t_r_s: float, high_pass_hz: float) -> np.ndarray:
    """Return slow cosines up to ``high_pass_hz``, without the constant, (n_volumes, n) float64.

    Column k is sqrt(2 / n) cos(pi k (t + 1/2) / n): those of `nilearn.glm`, whose import takes
    longer than the cleaning of a short run.
    """
    n_cosines = int(np.floor(2 * n_volumes * high_pass_hz * t_r_s))
    order = np.arange(1, min(n_cosines, n_volumes - 1) + 1)
    phase = np.pi / n_volumes * (np.arange(n_volumes)[:, None] + 0.5)
    return np.asarray(np.sqrt(2.0 / n_volumes) * np.cos(phase * order))


def check_length(columns: Mapping[str, np.ndarray], n_volumes: int, where: str) -> None:
    """Raise an InputError where a table of confounds has not one row a volume."""
    lengths = {len(values) for values in columns.values()}
    if lengths != {n_volumes}:
        raise InputError(
            "a table of confounds has another length than its run", where=where,
            found=f"{', '.join(map(str, sorted(lengths))) or 'no'} rows",
            expected=f"{n_volumes}, one a volume",
            fix="give the table that belongs to this run; was the run cut after fMRIPrep?",
        )  # fmt: skip


def read_columns(rows: Sequence[Mapping[str, str]], where: str) -> dict[str, np.ndarray]:
    """Turn the rows of a confounds table into columns of numbers; ``n/a`` becomes NaN.

    Columns whose cells are no numbers are left out.
    """
    columns = {}
    for name in rows[0] if rows else ():
        try:
            columns[name] = np.array(
                [np.nan if row[name] in ("n/a", "") else float(row[name]) for row in rows]
            )
        except ValueError:
            continue
    if not columns:
        raise InputError(
            "a table of confounds has no numbers", where=where, found=f"{len(rows)} rows",
            expected="columns such as trans_x and framewise_displacement",
            fix="give a _desc-confounds_timeseries.tsv",
        )  # fmt: skip
    return columns


def select_columns(
    columns: Sequence[str], strategies: Sequence[str], n_compcor: int = 5
) -> list[str]:
    """Choose columns of a confounds table by the names of strategies.

    Parameters
    ----------
    columns : sequence of str
        What the table has; fMRIPrep's or ours.
    strategies : sequence of str
        Keys of `STRATEGIES`. A strategy whose columns are absent adds none.
    n_compcor : int
        Leading CompCor components taken: anatomical ones where there are any, else temporal ones.

    Returns
    -------
    list of str
        In the order of the table.

    Raises
    ------
    ConfigError
        If a strategy is unknown.
    """
    if unknown := [name for name in strategies if name not in STRATEGIES]:
        raise ConfigError(
            "unknown confounds strategy", found=", ".join(unknown), expected=", ".join(STRATEGIES)
        )
    chosen: set[str] = set()
    for strategy in strategies:
        for pattern in STRATEGIES[strategy]:
            found = [name for name in columns if re.fullmatch(pattern, name)]
            if strategy == "compcor":
                found = sorted(found)[:n_compcor]
            chosen.update(found)
            if found:
                break
    return [name for name in columns if name in chosen]


def nuisance_regressors(
    confounds: Mapping[str, np.ndarray],
    n_volumes: int,
    t_r_s: float,
    *,
    strategies: Sequence[str] = ("motion", "motion_derivatives"),
    n_compcor: int = 5,
    high_pass_hz: float = 0.01,
    censored: np.ndarray | None = None,
    where: str = "",
) -> Nuisance:
    """Build the nuisance part of a run's design matrix from its table of confounds.

    Parameters
    ----------
    confounds : dict of array, each of shape (n_volumes,)
        The table's columns, see `read_columns`; may be empty.
    n_volumes : int
        Volumes of the run.
    t_r_s : float
        Repetition time in seconds.
    strategies : sequence of str
        Keys of `STRATEGIES`: which confounds are regressed out.
    n_compcor : int
        CompCor components taken by the strategy ``compcor``.
    high_pass_hz : float
        Cosines up to this frequency model the drift; 0 for none.
    censored : array of bool, shape (n_volumes,), or None
        Each censored volume gets a column of its own (a spike), which takes it out of the fit.
    where : str
        The run, for error messages.

    Returns
    -------
    Nuisance
        Confounds (centred, standard deviation 1; NaN becomes 0, the mean), ``cosineNN`` drift,
        ``spike_NNNN`` and, always last, ``constant``. Columns without variance are left out.

    Raises
    ------
    InputError
        If the table has another length than the run.
    """
    if confounds:
        check_length(confounds, n_volumes, where)
    values, names = [], []
    for name in select_columns(list(confounds), strategies, n_compcor):
        column = np.asarray(confounds[name], dtype=np.float64)
        finite = np.isfinite(column)
        spread = column[finite].std() if finite.any() else 0.0
        if spread > 1e-9 * (1e-9 + float(np.abs(column[finite]).max(initial=0.0))) and spread > 0:
            scaled = (column - column[finite].mean()) / spread
            values.append(np.where(finite, scaled, 0.0))
            names.append(name)
    if high_pass_hz > 0:
        drift = cosine_drift(n_volumes, t_r_s, high_pass_hz)
        values += list(drift.T)
        names += [f"cosine{index:02d}" for index in range(drift.shape[1])]
    for volume in np.flatnonzero(censored) if censored is not None else ():
        values.append((np.arange(n_volumes) == volume).astype(np.float64))
        names.append(f"spike_{volume:04d}")
    values.append(np.ones(n_volumes))
    return Nuisance(np.column_stack(values), (*names, "constant"))
