"""What one subject saw in the scanner: runs opened, events checked, trials split."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from afterimage.bids.events import (
    Events,
    drop_late,
    missing_conditions,
    read_events,
    stimulus_files,
)
from afterimage.bids.names import unit_of
from afterimage.bids.stimuli import read_stimulus_table, stimulus_id
from afterimage.errors import AfterimageError, ConfigError, InputError
from afterimage.io.series import Series, open_series
from afterimage.io.tables import Row, read_tsv
from afterimage.stages.held_out import hold_out
from afterimage.stages.runner import record_skipped
from afterimage.stages.stimuli import assign_split

PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff")


@dataclass(frozen=True)
class Scan:
    """One run: its series, its trials, and the confounds beside them.

    Attributes
    ----------
    series : Series
    events : Events
        At least one trial.
    confounds : list of dict
        Rows of the table of confounds, one a volume.
    label : str
        Start of the names of the run's files: ``sub-01_ses-02_task-view_run-03``.
    """

    series: Series
    events: Events
    confounds: list[Row]
    label: str

    def entity(self, name: str) -> str:
        """Return the value of an entity of the run, ``n/a`` where it has none."""
        parts = (part.partition("-") for part in self.label.split("_"))
        return next((value for key, _, value in parts if key == name), "n/a")

    def rows(self) -> list[Row]:
        """Return the trials as rows of a table, in the order of the responses."""
        e = self.events
        columns = zip(e.onsets_s, e.durations_s, e.stimulus, e.file, e.trial_type, strict=True)
        return [
            {
                "onset": repr(float(onset)),
                "duration": repr(float(duration)),
                "trial_type": str(kind),
                "stimulus_id": str(name),
                "file": str(file),
                "session": self.entity("ses"),
                "run": self.entity("run"),
            }
            for onset, duration, name, file, kind in columns
        ]


@dataclass(frozen=True)
class Split:
    """The split of all trials of a subject.

    Attributes
    ----------
    rows : list of dict
        One row a trial of all runs: `Scan.rows` and ``split``.
    ids, splits : array of str, shape (n_trials,)
    stimuli : dict
        Rows of the stimuli by id; ``file`` is ``n/a`` where only a category is known.
    by_stimulus : dict
        Stimulus id to split; ``n/a`` for a category that is in both.
    """

    rows: list[Row]
    ids: np.ndarray
    splits: np.ndarray
    stimuli: dict[str, Row]
    by_stimulus: dict[str, str]


def open_scans(
    inputs: Any, config: Any, output: Path, stack: ExitStack
) -> tuple[list[Scan], list[str]]:
    """Open the runs of a subject that can be used, with their trials.

    A run that was left out before, or whose events cannot be used, is left out and noted; its
    error is recorded, and the others go on.

    Parameters
    ----------
    inputs, config
        Inputs and Config of `fit_responses`.
    output : Path
        First output of the stage; names the record of what was left out.
    stack : ExitStack
        Closes the series.

    Returns
    -------
    scans : list of Scan
    notes : list of str

    Raises
    ------
    InputError
        If no run is left.
    """
    subject = unit_of(output)
    scans: list[Scan] = []
    notes: list[str] = []
    errors: list[AfterimageError] = []
    for series_file, confounds_file, events_file in zip(
        inputs.series, inputs.confounds, inputs.events, strict=True
    ):
        series = stack.enter_context(open_series(series_file))
        label = series_file.name.split("_desc-")[0]
        if problem := str(series.attrs.get("problem", "")):
            notes.append(f"{label} was left out: {problem.splitlines()[0]}")
            continue
        try:
            events = read_events(
                events_file,
                subject=subject.removeprefix("sub-"),
                stimulus_column=config.stimulus_column or None,
                trial_types=config.trial_types,
                onset_column=config.onset_column,
                stimuli_dir=inputs.dataset.parent / "stimuli",
            )
            events = drop_late(events, series.n_times * float(series.attrs["t_r_s"]))
        except AfterimageError as error:
            errors.append(error)
            notes.append(f"{label} was left out: {str(error).splitlines()[0]}")
            continue
        notes += [f"{label}: {note}" for note in events.notes]
        scans.append(Scan(series, events, read_tsv(confounds_file), label))
    record_skipped("fit_responses", output, *errors)
    if not scans:
        raise InputError(
            "a subject has no usable run", where=subject,
            found=f"{len(inputs.series)} runs, all left out: {'; '.join(notes)[:600]}",
            expected="at least one run with a signal and trials",
            fix="see what is said of each run",
        )  # fmt: skip
    scans, dropped = _with_pictures(scans, read_stimulus_table(inputs.dataset.parent))
    return scans, notes + dropped + missing_conditions([scan.events for scan in scans])


def _with_pictures(scans: list[Scan], table: dict[str, Row]) -> tuple[list[Scan], list[str]]:
    """Leave out runs without a picture where others show pictures: localisers, other tasks."""
    pictured = [
        any(file != "n/a" or name in table for file, name in zip(e.file, e.stimulus, strict=True))
        for e in (scan.events for scan in scans)
    ]
    if not any(pictured):
        return scans, []
    notes = [
        f"{scan.label} shows no picture and was left out"
        for scan, kept in zip(scans, pictured, strict=True)
        if not kept
    ]
    return [scan for scan, kept in zip(scans, pictured, strict=True) if kept], notes


def split_scans(
    scans: Sequence[Scan], inputs: Any, config: Any, subject: str, stage: str = "fit_responses"
) -> Split:
    """Give every trial its split, once, and say which pictures the stimuli are.

    Where pictures are known, the split is by stimulus: from the table of stimuli, from the runs
    held out for test, or seeded. Where only categories are known, a category returns in every run:
    then whole runs are held out, or none, and all trials are training trials.

    Parameters
    ----------
    scans : sequence of Scan
    inputs, config
        Inputs and Config of `fit_responses` or `epoch_meeg`.
    subject : str
    stage : str
        Whose settings they are, for messages.

    Returns
    -------
    Split
    """
    rows = [row for scan in scans for row in scan.rows()]
    if config.test_runs:
        held_out = [_is_test_run(scan, config.test_runs) for scan in scans]
        if not any(held_out):
            raise InputError(
                "no run is one of the test runs", where=subject, found=", ".join(config.test_runs),
                expected=", ".join(scan.label for scan in scans),
                fix=f"correct {stage}.test_runs",
            )  # fmt: skip
        tests = np.repeat(held_out, [len(scan.events) for scan in scans])
        for row, test in zip(rows, tests, strict=True):
            row["split"] = "test" if test else "train"
    files = stimulus_files([scan.events for scan in scans])
    table = read_stimulus_table(inputs.dataset.parent)
    stimuli = {name: _stimulus(name, file, table) for name, file in files.items()}
    if any(row["file"] != "n/a" for row in stimuli.values()):
        folder = inputs.dataset.parent / "stimuli"
        everything = table or dict(_pictures(folder))
        grouped = hold_out(
            config.held_out, dict(everything) | stimuli, folder,
            str(inputs.stimuli_table or "the table of stimuli"),
            test_fraction=config.test_fraction, random_state=config.random_state or 0,
        )  # fmt: skip
        if grouped and config.test_runs:
            raise ConfigError(
                "two settings say what is held out", where=stage,
                found="held_out.kind and test_runs", expected="one of them",
            )  # fmt: skip
        by_stimulus = assign_split(
            rows,
            stimuli,
            everything,
            (f"{subject}, its events", str(inputs.stimuli_table or "the table of stimuli")),
            test_fraction=config.test_fraction,
            min_training_trials=config.min_training_trials,
            random_state=config.random_state or 0,
            grouped=grouped,
        )
        for row in rows:
            row["split"] = by_stimulus[row["stimulus_id"]]
    else:
        for row in rows:
            row.setdefault("split", "train")
        kinds = {(row["stimulus_id"], row["split"]) for row in rows}
        by_stimulus = {
            name: "n/a" if {(name, "train"), (name, "test")} <= kinds else split
            for name, split in sorted(kinds)
        }
    return Split(
        rows,
        np.array([row["stimulus_id"] for row in rows]),
        np.array([row["split"] for row in rows]),
        stimuli,
        by_stimulus,
    )


def _stimulus(name: str, file: str, table: dict[str, Row]) -> Row:
    """Return what is known of a stimulus: its row of the table, else its picture file."""
    known = table.get(name, {})
    listed = known.get("file", "n/a")
    return {**known, "stimulus_id": name, "file": file if listed == "n/a" else listed}


def _pictures(folder: Path) -> Iterator[tuple[str, Row]]:
    """Yield the ids and files of all pictures of the dataset, so that a seeded split is the same for all."""
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in PICTURES:
            file = path.relative_to(folder).as_posix()
            yield stimulus_id(file), {"stimulus_id": stimulus_id(file), "file": file}


def _is_test_run(scan: Scan, wanted: Sequence[str]) -> bool:
    """Tell whether all parts of a setting (``ses-2_run-03``) are entities of this run."""
    parts = {re.sub(r"-0+(?=\d)", "-", part) for part in scan.label.split("_")}
    return any(
        {re.sub(r"-0+(?=\d)", "-", part) for part in text.split("_")} <= parts for text in wanted
    )
