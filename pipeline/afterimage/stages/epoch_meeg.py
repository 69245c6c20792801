"""Cut one subject's cleaned EEG or MEG into trials, whitened by training trials, with ceilings."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field, model_validator

from afterimage.bids.events import Events, missing_conditions
from afterimage.bids.names import unit_of
from afterimage.errors import AfterimageError, ConfigError, InputError
from afterimage.io.arrays import write_dataset
from afterimage.io.atomic import write_json
from afterimage.io.series import open_series
from afterimage.io.tables import read_tsv
from afterimage.io.trials import Cuts
from afterimage.preprocess.meeg.epochs import (
    Window,
    baseline_means,
    epoch_window,
    peak_to_peak,
    place_epochs,
)
from afterimage.settings import StageConfig
from afterimage.stages.held_out import HeldOut
from afterimage.stages.runner import record_skipped
from afterimage.stages.scan_trials import Scan, Split, split_scans
from afterimage.stages.stimuli import count_splits, trial_coordinates, write_split
from afterimage.stages.subject_epochs import SubjectEpochs

VERSION = 1
CITES = ("guggenmos2018", "ledoit2004", "allen2022")
#: Factor from SI units to those of the trials, where they are not whitened, and their name.
SCALES = {"eeg": (1e6, "uV"), "mag": (1e15, "fT"), "grad": (1e13, "fT/cm")}


class Config(StageConfig):
    """How a cleaned recording becomes trials."""

    tmin_s: float = Field(-0.2, description="start of a trial, from onset")
    tmax_s: float = Field(0.8, description="end of a trial, from onset")
    baseline_s: tuple[float, float] | None = Field(
        (-0.2, 0.0),
        description="the mean over this time is subtracted from each trial; null: none",
    )
    whiten: bool = Field(
        True, description="multivariate noise normalisation, fitted on training trials only"
    )
    whiten_by: Literal["session", "subject"] = Field(
        "session", description="whether each session has its own noise, or all share one"
    )
    shrinkage: Literal["pooled", "epoch"] | float = Field(
        "pooled",
        description="of the noise covariance: by Ledoit-Wolf once, in each epoch, or a fixed share",
    )
    picks: list[str] = Field(
        default=[],
        description="channels kept: kinds (eeg, mag), names, or patterns such as ^(O|PO); empty: all",
    )
    reject_uv: float | None = Field(
        None, gt=0, description="EEG trials whose range exceeds this on a channel are dropped"
    )
    trial_types: list[str] = Field(
        default=[],
        description="values of trial_type that are trials; empty: all in the cleaned events",
    )
    test_runs: list[str] = Field(
        default=[],
        description="runs held out for test, as in ses-01_run-03 or run-03 or ses-02; empty: by stimulus",
    )
    held_out: HeldOut = Field(HeldOut(), description="what is held out for test together")
    test_fraction: float = Field(
        0.2, gt=0, lt=1, description="share of stimuli to test on, where the dataset has no split"
    )
    min_training_trials: int = Field(
        10, ge=2, description="a subject with fewer training trials than this is refused"
    )
    random_state: int | None = Field(None, description="seed of the split; default: the root seed")

    @model_validator(mode="after")
    def _times(self) -> Config:
        if self.tmin_s >= self.tmax_s:
            raise ValueError("tmin_s must be below tmax_s")
        if self.baseline_s and not self.tmin_s <= self.baseline_s[0] <= self.baseline_s[1]:
            raise ValueError("baseline_s must start within the trial and end after its start")
        if self.baseline_s and self.baseline_s[1] > self.tmax_s:
            raise ValueError("baseline_s must end within the trial")
        if isinstance(self.shrinkage, float) and not 0 <= self.shrinkage <= 1:
            raise ValueError("shrinkage must lie between 0 and 1")
        return self


@dataclass(frozen=True)
class Inputs:
    """What the stage reads; series and events are in the same order, one a run."""

    series: tuple[Path, ...]
    events: tuple[Path, ...]
    dataset: Path
    stimuli_table: Path | None = None


@dataclass(frozen=True)
class Outputs:
    """What the stage writes."""

    trials: Path
    split: Path
    quality: Path
    maps: Path


@dataclass(frozen=True)
class Recording:
    """One run that can be used, and the places of its trials.

    Attributes
    ----------
    scan : Scan
    path : Path
        Its series.
    samples : array of int, shape (n_trials,)
        Onsets, later the first samples of the epochs.
    baseline : array of shape (n_trials, n_units), float32
        Empty until the trials are placed.
    """

    scan: Scan
    path: Path
    samples: np.ndarray
    baseline: np.ndarray


def run(
    inputs: Inputs, outputs: Outputs, config: Config, *, threads: int = 1, device: str = "cpu"
) -> None:
    """Place trials in the series, split them, fit the noise, and describe what was found."""
    subject = unit_of(outputs.trials)
    notes: list[str] = []
    with ExitStack() as stack:
        opened = _open(inputs, config, outputs.trials, stack, notes)
        series = opened[0].scan.series
        columns = _pick(series.units, config.picks, subject)
        rate_hz = float(series.attrs["sampling_rate_hz"])
        window = epoch_window(rate_hz, config.tmin_s, config.tmax_s)
        recordings = _place(opened, columns, window, config, outputs.trials, notes)
        scans = [recording.scan for recording in recordings]
        notes += missing_conditions([scan.events for scan in scans])
        split = split_scans(scans, inputs, config, subject, "epoch_meeg")
        units = {name: values[columns] for name, values in series.units.items()}
        n_units = series.n_units
    subject_epochs = _gather(recordings, split, columns, units, window, subject)
    temporary = outputs.trials.with_name(f".scratch-{subject}_unwhitened_trials.nc")
    try:
        subject_epochs.write(temporary)
        if config.whiten:
            subject_epochs.fit(temporary, config, notes)
        described = subject_epochs.describe(temporary, notes)
    finally:
        temporary.unlink(missing_ok=True)
    subject_epochs.write(outputs.trials)
    write_split(outputs.split, split.stimuli, split.by_stimulus, split.ids)
    attributes = {"notes": "; ".join(notes), "sampling_rate_hz": rate_hz}
    write_dataset(outputs.maps, described.assign_attrs(attributes))
    ceiling = subject_epochs.units["ceiling"]
    finite = ceiling[np.isfinite(ceiling)]
    write_json(
        outputs.quality,
        {
            "n_units": n_units,
            "n_units_kept": len(columns),
            "units_constant": [],
            "units_never_finite": [],
            "n_times": window.n_times,
            "sampling_rate_hz": rate_hz,
            "response_units": subject_epochs.response_units,
            **count_splits(split.splits, split.ids),
            "ceiling_median": float(np.median(finite)) if len(finite) else None,
            "n_runs": len(recordings),
            "n_runs_skipped": len(inputs.series) - len(recordings),
            "notes": notes,
        },
    )


def _open(
    inputs: Inputs, config: Config, output: Path, stack: ExitStack, notes: list[str]
) -> list[Recording]:
    """Open the runs of a subject that can be used, with their trials; note the others."""
    subject = unit_of(output)
    found: list[Recording] = []
    errors: list[AfterimageError] = []
    for path, events_file in zip(inputs.series, inputs.events, strict=True):
        series = stack.enter_context(open_series(path))
        label = path.name.split("_desc-")[0]
        if problem := str(series.attrs.get("problem", "")):
            notes.append(f"{label} was left out: {problem.splitlines()[0]}")
            continue
        try:
            events, samples = _read_events(events_file, subject, config.trial_types)
        except AfterimageError as error:
            errors.append(error)
            notes.append(f"{label} was left out: {str(error).splitlines()[0]}")
            continue
        found.append(Recording(Scan(series, events, [], label), path, samples, np.empty(0)))
    kinds = Counter(_form(recording) for recording in found)
    usual = kinds.most_common(1)[0][0] if kinds else None
    for recording in [recording for recording in found if _form(recording) != usual]:
        other = _differs(recording, usual, subject)
        errors.append(other)
        notes.append(f"{recording.scan.label} was left out: {str(other).splitlines()[0]}")
        found.remove(recording)
    record_skipped("epoch_meeg", output, *errors)
    _check_any(found, len(inputs.series), subject, notes)
    return found


def _form(recording: Recording) -> tuple[float, tuple[str, ...]]:
    """Return the sampling rate and the names of the channels."""
    series = recording.scan.series
    names = series.units.get("name", np.arange(series.n_units)).astype(str)
    return float(series.attrs["sampling_rate_hz"]), tuple(names.tolist())


def _differs(recording: Recording, usual: Any, subject: str) -> InputError:
    (rate_hz, names), (usual_hz, usual_names) = _form(recording), usual
    channels = sorted(set(names) ^ set(usual_names))
    return InputError(
        "a run does not fit the other runs of its subject",
        where=f"{subject}, {recording.path}",
        found=f"{rate_hz:g} Hz, {len(names)} channels"
        + (f"; only here or only there: {', '.join(channels[:8])}" if channels else ""),
        expected=f"{usual_hz:g} Hz and {len(usual_names)} channels in the same order",
        fix="set clean_meeg.sampling_rate_hz, or leave the run out",
    )


def _check_any(found: Sequence[Recording], n_runs: int, subject: str, notes: list[str]) -> None:
    if not found:
        raise InputError(
            "a subject has no usable run", where=subject,
            found=f"{n_runs} runs, all left out: {'; '.join(notes)[:600]}",
            expected="at least one run with a signal and trials",
            fix="see what is said of each run",
        )  # fmt: skip


def _read_events(
    path: Path, subject: str, trial_types: Sequence[str]
) -> tuple[Events, np.ndarray]:
    """Read the trials that cleaning found, and the samples of the series they start at."""
    rows = read_tsv(path, required=("onset", "sample", "duration", "stimulus_id"))
    kinds = {row.get("trial_type", "n/a") for row in rows}
    if trial_types:
        rows = [row for row in rows if row.get("trial_type") in trial_types]
    if not rows:
        raise InputError(
            "a run has no trials", where=f"{subject}, {path}",
            found=f"events of {', '.join(sorted(kinds)) or 'no type: the table is empty'}",
            expected=f"events of {', '.join(trial_types)}" if trial_types else "one row a trial",
            fix="set epoch_meeg.trial_types, or leave the run out",
        )  # fmt: skip
    columns = {name: [row.get(name, "n/a") for row in rows] for name in (
        "onset", "duration", "stimulus_id", "trial_type", "file", "sample"
    )}  # fmt: skip
    durations = [0.0 if value == "n/a" else float(value) for value in columns["duration"]]
    events = Events(
        path=path,
        subject=subject.removeprefix("sub-"),
        onsets_s=np.array(columns["onset"], dtype=float),
        durations_s=np.array(durations),
        stimulus=np.array(columns["stimulus_id"]),
        trial_type=np.array(columns["trial_type"]),
        file=np.array(columns["file"]),
        column="stimulus_id",
    )
    return events, np.array(columns["sample"], dtype=np.int64)


def _pick(units: dict[str, np.ndarray], picks: Sequence[str], subject: str) -> np.ndarray:
    """Return the columns of the channels asked for: by kind, by name, or by pattern."""
    kinds = units["kind"].astype(str)
    names = units.get("name", kinds).astype(str)
    if not picks:
        return np.arange(len(kinds))
    keep = np.zeros(len(kinds), dtype=bool)
    for wanted in picks:
        if (kinds == wanted).any() or (names == wanted).any():
            keep |= (kinds == wanted) | (names == wanted)
            continue
        try:
            found = np.array([re.search(wanted, name) is not None for name in names])
        except re.error:
            found = np.zeros(len(names), dtype=bool)
        if not found.any():
            raise ConfigError(
                "no channel is picked", where=f"epoch_meeg.picks, {subject}", found=wanted,
                expected=f"a kind ({', '.join(sorted(set(kinds)))}), a name "
                f"({', '.join(names[:6])}, ...), or a pattern that matches one",
                fix="correct or remove it",
            )  # fmt: skip
        keep |= found
    return np.flatnonzero(keep)


def _place(
    opened: Sequence[Recording],
    columns: np.ndarray,
    window: Window,
    config: Config,
    output: Path,
    notes: list[str],
) -> list[Recording]:
    """Find the epochs of every run and their baselines; drop trials and runs without, and note it."""
    placed: list[Recording] = []
    for recording in opened:
        scan, label = recording.scan, recording.scan.label
        found = place_epochs(recording.samples, scan.series.n_times, window, scan.series.censored)
        keep, first = np.flatnonzero(found.kept), found.first_samples
        said = {"leave the recording": found.n_outside, "touch bad segments": found.n_censored}
        signal = scan.series.read()[:, columns]
        eeg = scan.series.units["kind"][columns] == "eeg"
        if config.reject_uv is not None and eeg.any():
            ranges = peak_to_peak(signal[:, eeg], first, window.n_times).max(axis=1)
            good = 1e6 * ranges <= config.reject_uv
            said[f"range over more than {config.reject_uv:g} uV"] = int((~good).sum())
            keep, first = keep[good], first[good]
        notes += [
            f"{label}: {count} of {len(recording.samples)} trials {why}: left out"
            for why, count in said.items()
            if count
        ]
        if not len(keep):
            notes.append(f"{label} was left out: it has no whole trial")
            continue
        baseline = np.zeros((len(first), len(columns)), dtype=np.float32)
        if config.baseline_s is not None:
            baseline = baseline_means(signal, first, window, config.baseline_s)
        kept = replace(scan, events=scan.events.select(keep))
        placed.append(Recording(kept, recording.path, first, baseline))
    _check_any(placed, len(opened), unit_of(output), notes)
    return placed


def _gather(
    recordings: Sequence[Recording],
    split: Split,
    columns: np.ndarray,
    units: dict[str, np.ndarray],
    window: Window,
    subject: str,
) -> SubjectEpochs:
    """Put the trials of all runs together, in physical units and not whitened."""
    counts = [len(recording.samples) for recording in recordings]
    scale = np.array([SCALES.get(kind, (1.0, "SI"))[0] for kind in units["kind"]])
    names = dict.fromkeys(SCALES.get(kind, (1.0, "SI"))[1] for kind in units["kind"])
    cuts = Cuts(
        series=[recording.path for recording in recordings],
        series_index=np.repeat(np.arange(len(recordings)), counts),
        first_sample=np.concatenate([recording.samples for recording in recordings]),
        columns=columns,
        baseline=np.concatenate([recording.baseline for recording in recordings]),
        whitening=np.diag(scale)[None].astype(np.float32),
        whitening_index=np.zeros(sum(counts), dtype=np.int64),
    )
    trials = trial_coordinates(split.rows, split.splits, subject)
    trials["onset"] = np.array([float(row["onset"]) for row in split.rows])
    trials["trial_type"] = np.array([row["trial_type"] for row in split.rows])
    units = {"roi": np.full(len(columns), "n/a"), **units, "column": columns}
    units["ceiling"] = np.full(len(columns), np.nan, dtype=np.float32)
    return SubjectEpochs(cuts, trials, units, window.times_s, ", ".join(names), scale)
