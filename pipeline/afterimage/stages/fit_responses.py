"""Estimate the response of every voxel to every trial in one subject's scans, with noise ceilings."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field, field_validator

from afterimage.bids.names import derivative_root, unit_of
from afterimage.errors import InputError
from afterimage.io.atomic import require_space, write_json
from afterimage.io.nifti import read_volume
from afterimage.io.trials import write_trials
from afterimage.preprocess.fmri.confounds import Nuisance, nuisance_regressors, read_columns
from afterimage.preprocess.fmri.design import RunDesign
from afterimage.preprocess.fmri.estimators.ridge_glm import RidgeGlmSettings
from afterimage.preprocess.fmri.registry import ESTIMATORS
from afterimage.settings import StageConfig
from afterimage.stages.held_out import HeldOut
from afterimage.stages.response_maps import (
    describe_responses,
    label_rois,
    write_betas,
    write_maps,
)
from afterimage.stages.scan_trials import Scan, Split, open_scans, split_scans
from afterimage.stages.stimuli import count_splits, trial_coordinates, write_split

if TYPE_CHECKING:
    Estimator = Any  # built below from the registry, which a type checker cannot follow
else:
    Estimator = ESTIMATORS.union()

VERSION = 1
CITES = ("prince2022", "mumford2012", "allen2022")
#: Trials are written this many at a time.
CHUNK = 256

log = logging.getLogger("afterimage")


class Config(StageConfig):
    """How scans become one response a trial and voxel."""

    estimator: Estimator = Field(
        default=RidgeGlmSettings(),
        description="how a trial's response is estimated: ridge_glm, lss, lsa or block_average",
    )
    stimulus_column: str = Field(
        "",
        description="column of events.tsv with the stimulus; empty: stimulus_id, stim_file or trial_type",
    )
    onset_column: str = Field("onset", description="column of events.tsv that holds the onsets")
    trial_types: list[str] = Field(
        default=[],
        description="values of trial_type that are trials; empty: all but rest, fixation and the like",
    )
    confounds: list[
        Literal[
            "motion", "motion_derivatives", "motion_squares", "compcor", "wm_csf", "global_signal"
        ]
    ] = Field(
        default=["motion", "motion_derivatives"],
        description="confounds in the model of every run, beside drift and censored volumes",
    )
    n_compcor: int = Field(5, ge=0, description="components taken where compcor is a confound")
    high_pass_hz: float = Field(
        0.0042,
        ge=0,
        description="slower drift is modelled by cosines, by default one every 2 minutes; 0: a constant",
    )
    units: Literal["auto", "roi", "reliable", "brain"] = Field(
        "auto",
        description="voxels kept: of regions, or reliable over training repeats; auto: what can be had",
    )
    reliability_q: float = Field(
        0.05, gt=0, lt=1, description="false discovery rate of the test that finds reliable voxels"
    )
    min_units: int = Field(
        50, ge=1, description="fewer reliable voxels than this are filled up with the next best"
    )
    test_runs: list[str] = Field(
        default=[],
        description="runs held out for test, as in ses-01_run-03 or run-03 or ses-02; empty: by stimulus",
    )
    scale: Literal["none", "session"] = Field(
        "none",
        description="session: each voxel by mean and deviation of the session's training trials",
    )
    held_out: HeldOut = Field(HeldOut(), description="what is held out for test together")
    test_fraction: float = Field(
        0.2, gt=0, lt=1, description="share of stimuli to test on, where the dataset has no split"
    )
    min_training_trials: int = Field(
        10, ge=2, description="a subject with fewer training trials than this is refused"
    )
    write_betas: bool = Field(
        True, description="also write the responses as NIfTI with their events beside them"
    )
    random_state: int | None = Field(None, description="seed of the split; default: the root seed")

    @field_validator("estimator", mode="before")
    @classmethod
    def _kind(cls, value: Any) -> Any:
        # A user who changes one key of the default estimator need not repeat its kind.
        return {"kind": "ridge_glm", **value} if isinstance(value, dict) else value


@dataclass(frozen=True)
class Inputs:
    """What the stage reads; series, confounds and events are in the same order, one a run."""

    series: tuple[Path, ...]
    confounds: tuple[Path, ...]
    events: tuple[Path, ...]
    reference: Path
    mask: Path
    rois: tuple[Path, ...]
    dataset: Path
    stimuli_table: Path | None = None


@dataclass(frozen=True)
class Outputs:
    """What the stage writes; NIfTI files of responses and maps lie beside them."""

    trials: Path
    split: Path
    quality: Path
    maps: Path


def run(
    inputs: Inputs, outputs: Outputs, config: Config, *, threads: int = 1, device: str = "cpu"
) -> None:
    """Model every run, keep the voxels asked for, write trials, ceilings, maps and what was found."""
    subject = unit_of(outputs.trials)
    work = derivative_root(outputs.trials) / "work" / "fit_responses"
    work.mkdir(parents=True, exist_ok=True)
    temporary = work / f"{subject}_betas.npy"
    with ExitStack() as stack:
        stack.callback(temporary.unlink, missing_ok=True)
        scans, notes = open_scans(inputs, config, outputs.trials, stack)
        split = split_scans(scans, inputs, config, subject)
        designs = _designs(scans, split, config)
        n_voxels = scans[0].series.n_units
        _check_baseline(scans, subject)
        shape = (len(split.rows), n_voxels)
        require_space(work, 4 * shape[0] * shape[1])
        betas = np.lib.format.open_memmap(temporary, "w+", np.float32, shape)
        maps, summary = _estimate(scans, designs, betas, config)
        rois, found = label_rois(
            inputs.rois, inputs.dataset.parent, scans[0].series, outputs.trials
        )
        notes += found
        keep = _choose_units(maps, rois, split.splits, config, notes)
        read, t_r_s = _reader(scans), float(scans[0].series.attrs["t_r_s"])
        described = describe_responses(designs, read, maps, t_r_s)
        notes += described.notes
        _write_trials(outputs, scans, split, betas, maps, rois, keep, config, subject)
        write_split(outputs.split, split.stimuli, split.by_stimulus, split.ids)
        reference, _ = read_volume(inputs.reference)
        kind = config.estimator.kind
        write_maps(
            outputs,
            scans[0].series,
            (designs[0], _nuisance(scans[0], config).names),
            described,
            maps,
            keep,
            reference,
            {"estimator": kind, "notes": notes},
        )
        if config.write_betas:
            write_betas(outputs, scans[0].series, split.rows, betas, keep)
    ceiling = maps["ceiling"][keep]
    finite = ceiling[np.isfinite(ceiling)]
    write_json(
        outputs.quality,
        {
            "n_units": n_voxels,
            "n_units_kept": int(keep.sum()),
            "units_constant": np.flatnonzero(maps["unusable"]).tolist(),
            "units_never_finite": [],
            "n_times": None,
            "response_units": "percent signal change",
            **count_splits(split.splits, split.ids),
            "ceiling_median": float(np.median(finite)) if len(finite) else None,
            "estimator": kind,
            "estimator_summary": summary,
            "n_runs": len(scans),
            "n_runs_skipped": len(inputs.series) - len(scans),
            "best_onset_shift_s": described.best_onset_shift_s,
            "notes": notes,
        },
    )


def _designs(scans: Sequence[Scan], split: Split, config: Config) -> list[RunDesign]:
    """Return the model of every run; trials of the training split may inform choices."""
    designs, first = [], 0
    for scan in scans:
        events, series = scan.events, scan.series
        rows = slice(first, first + len(events))
        first = rows.stop
        designs.append(
            RunDesign(
                volume_times_s=series.times_s,
                onsets_s=events.onsets_s,
                durations_s=events.durations_s,
                stimulus=events.stimulus,
                training=split.splits[rows] == "train",
                nuisance=_nuisance(scan, config).values,
                session=scan.entity("ses"),
                run=scan.entity("run"),
            )
        )
    return designs


def _nuisance(scan: Scan, config: Config) -> Nuisance:
    """Return drift, confounds, censored volumes and the constant of one run."""
    series = scan.series
    return nuisance_regressors(
        read_columns(scan.confounds, scan.label),
        series.n_times,
        float(series.attrs["t_r_s"]),
        strategies=config.confounds,
        n_compcor=config.n_compcor,
        high_pass_hz=config.high_pass_hz,
        censored=series.censored,
        where=scan.label,
    )


def _check_baseline(scans: Sequence[Scan], subject: str) -> None:
    """Refuse images without a baseline, of which no percent signal change can be taken."""
    for scan in scans:
        n_units = scan.series.n_units
        middle = slice(n_units // 2, min(n_units, n_units // 2 + 512))
        mean = scan.series.read(middle).mean(axis=0)
        if np.median(mean) <= 0:
            raise InputError(
                "the images have no baseline", where=f"{subject}, {scan.label}",
                found=f"a median signal of {np.median(mean):.3g} in the middle of the brain",
                expected="positive values, as the scanner gives them",
                fix="start from images that were not demeaned or filtered",
            )  # fmt: skip


def _reader(scans: Sequence[Scan]) -> Any:
    """Return the function by which an estimator reads a run's voxels as percent signal change."""

    def read(number: int, voxels: slice) -> np.ndarray:
        series = scans[number].series
        signal = np.asarray(series.read(voxels), dtype=np.float32)
        mean = signal[~series.censored].mean(axis=0)
        positive = mean > 0
        scaled: np.ndarray = 100 * (signal / np.where(positive, mean, 1) - 1)
        scaled[:, ~positive] = 0  # outside the field of view of this run
        return scaled

    return read


def _estimate(
    scans: Sequence[Scan], designs: Sequence[RunDesign], betas: np.ndarray, config: Config
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Fill ``betas``; return one number a voxel of everything that describes it."""
    from afterimage.preprocess.fmri.diagnostics import stimulus_test
    from afterimage.preprocess.noise_ceiling import (
        ncsnr,
        noise_ceiling,
        split_half_reliability,
    )

    training = np.concatenate([design.training for design in designs])
    stimulus = np.concatenate([design.stimulus for design in designs])[training]
    runs = np.repeat(np.arange(len(designs)), [design.n_trials for design in designs])[training]
    n_voxels = betas.shape[1]
    maps: dict[str, np.ndarray] = {"unusable": np.zeros(n_voxels), "p": np.ones(n_voxels)}
    estimator = ESTIMATORS.get(config.estimator.kind)(config.estimator)
    for found in estimator.estimate(designs, _reader(scans), n_voxels):
        betas[:, found.voxels] = found.betas
        repeats = found.betas[training]
        described = {
            **found.maps,
            "ceiling": noise_ceiling(repeats, stimulus, runs),
            "ncsnr": ncsnr(repeats, stimulus, runs),
            "split_half": split_half_reliability(repeats, stimulus, runs),
            "p": stimulus_test(repeats, stimulus),
            "unusable": (found.betas == found.betas[:1]).all(axis=0),
        }
        for name, values in described.items():
            maps.setdefault(name, np.full(n_voxels, np.nan))[found.voxels] = values
        log.info(
            "estimated voxels %d to %d of %d", found.voxels.start, found.voxels.stop, n_voxels
        )
    return maps, dict(estimator.summary_)


def _choose_units(
    maps: dict[str, np.ndarray],
    rois: np.ndarray,
    splits: np.ndarray,
    config: Config,
    notes: list[str],
) -> np.ndarray:
    """Return which voxels to keep, bool of shape (n_voxels,), and note how they were chosen."""
    usable = ~maps["unusable"].astype(bool)
    in_roi = rois != "n/a"
    repeated = (maps["p"] < 1).any()
    choice = config.units
    if choice == "auto":
        # Where all trials are training trials, a choice by stimulus would leak into whatever
        # cross-validation the user does with them.
        held_out = (splits == "test").any()
        choice = "roi" if in_roi.any() else "reliable" if repeated and held_out else "brain"
    if choice == "roi":
        if not (in_roi & usable).any():
            raise InputError(
                "no voxel lies in a region", found=f"{int(in_roi.sum())} voxels in regions",
                expected="regions of interest in the space of the scans",
                fix="give ROI masks, or set fit_responses.units to reliable",
            )  # fmt: skip
        notes.append(f"{int((in_roi & usable).sum())} voxels of the given regions are kept")
        return in_roi & usable
    if choice == "brain" or not repeated:
        if choice == "reliable":
            notes.append("no training stimulus is repeated: the whole brain mask is kept")
        return usable
    from scipy.stats import false_discovery_control

    p = np.where(usable, maps["p"], 1.0)
    keep = (false_discovery_control(p) < config.reliability_q) & usable
    n_found = int(keep.sum())
    if n_found < config.min_units:
        keep[np.argsort(p, kind="stable")[: config.min_units]] = True
        keep &= usable
    notes.append(
        f"{n_found} voxels tell training stimuli apart (q < {config.reliability_q})"
        + (f"; the next best make up {int(keep.sum())}" if keep.sum() > n_found else "")
    )
    return keep


def _write_trials(
    outputs: Outputs,
    scans: Sequence[Scan],
    split: Split,
    betas: np.ndarray,
    maps: dict[str, np.ndarray],
    rois: np.ndarray,
    keep: np.ndarray,
    config: Config,
    subject: str,
) -> None:
    rows = split.rows
    units = {name: values[keep] for name, values in scans[0].series.units.items()}
    units |= {"roi": rois[keep], "column": np.flatnonzero(keep)}
    hidden = ("unusable", "p")
    units |= {
        name: values[keep].astype(np.float32)
        for name, values in maps.items()
        if name not in hidden
    }
    location = np.zeros((len(rows), 1), np.float32)
    spread = np.ones((len(rows), 1), np.float32)
    sessions = np.array([row["session"] for row in rows])
    if config.scale == "session":
        location, spread = _session_scale(betas[:, keep], sessions, split.splits == "train")
    write_trials(
        outputs.trials,
        (
            (betas[start : start + CHUNK][:, keep] - location[start : start + CHUNK])
            / spread[start : start + CHUNK]
            for start in range(0, len(rows), CHUNK)
        ),
        {
            **trial_coordinates(rows, split.splits, subject),
            "onset": np.array([float(row["onset"]) for row in rows]),
        },
        units,
        None,
        {
            "subject": subject.removeprefix("sub-"),
            "response_units": "percent signal change" if config.scale == "none" else "z",
            "position_units": "mm",
        },
    )


def _session_scale(
    betas: np.ndarray, sessions: np.ndarray, training: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and deviation of each session's training trials, one row a trial."""
    location, spread = np.empty_like(betas), np.empty_like(betas)
    for session in np.unique(sessions):
        rows = sessions == session
        # A session of test trials only is scaled by all training trials: its own say nothing.
        fit = betas[rows & training] if (rows & training).sum() > 1 else betas[training]
        location[rows] = fit.mean(axis=0)
        deviation = fit.std(axis=0)
        spread[rows] = np.where(deviation > 0, deviation, 1)
    return location, spread
