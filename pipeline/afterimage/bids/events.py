"""Events of one run: what was shown when, read strictly from ``_events.tsv``."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from afterimage.bids import event_rows
from afterimage.bids.stimuli import path_checker, stimulus_id
from afterimage.errors import InputError
from afterimage.io.tables import Row, read_tsv


@dataclass(frozen=True)
class Events:
    """The trials of one run, by onset.

    Attributes
    ----------
    path : Path
        The file they were read from.
    subject : str
        Label of the subject, for messages.
    onsets_s, durations_s : array of shape (n_trials,), float64
        Start and length in s; onsets count from the start of the first volume.
    stimulus : array of shape (n_trials,), str
        Id of what was shown.
    trial_type : array of shape (n_trials,), str
        The column ``trial_type``, ``n/a`` where the file has none.
    file : array of shape (n_trials,), str
        The picture, relative to ``stimuli/``; ``n/a`` where the events do not say.
    column : str
        The column that `stimulus` comes from.
    notes : tuple of str
        What was left out or changed, one sentence each, for the report.
    """

    path: Path
    subject: str
    onsets_s: np.ndarray
    durations_s: np.ndarray
    stimulus: np.ndarray
    trial_type: np.ndarray
    file: np.ndarray
    column: str
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.onsets_s)

    def select(self, rows: np.ndarray, note: str = "") -> Events:
        """Return the trials of a mask or of positions, with one more note."""
        names = ("onsets_s", "durations_s", "stimulus", "trial_type", "file")
        kept = {name: getattr(self, name)[rows] for name in names}
        return dataclasses.replace(self, **kept, notes=self.notes + ((note,) if note else ()))


def no_events(path: Path, subject: str) -> Events:
    """Return the events of a run at rest, ``path``, which has none."""
    nothing = np.zeros(0)
    text = nothing.astype(str)
    return Events(path, subject, nothing, nothing, text, text, text, "n/a")


def read_events(
    path: Path,
    *,
    subject: str,
    stimulus_column: str | None = None,
    trial_types: Sequence[str] = (),
    onset_column: str = "onset",
    stimuli_dir: Path | None = None,
    sample: str = "volume",
) -> Events:
    """Read the trials of one run.

    Parameters
    ----------
    path : Path
        The ``_events.tsv`` file.
    subject : str
        Label of the subject, for messages.
    stimulus_column : str or None
        Column that says what was shown; None takes the first of ``stimulus_id``, ``stim_file`` and
        ``trial_type`` that the file has. A value that is the path of a picture becomes an id by
        dropping ``stimuli/`` and the extension, with ``_`` for ``/``.
    trial_types : sequence of str
        Only events with one of these in ``trial_type`` are trials. Empty: every event is a trial
        but those of `event_rows.NOT_TRIALS` and those whose stimulus is ``n/a`` (fixation, responses).
    onset_column : str
        Column of the onsets in s.
    stimuli_dir : Path or None
        The dataset's folder ``stimuli``; where given, links in it may not lead out of the dataset.
    sample : str
        What a run consists of, for messages: ``volume`` of images, ``sample`` of recordings.

    Returns
    -------
    Events
        At least one trial. Events with a negative onset and repeated rows are left out, an absent
        duration is 0, and unsorted rows are sorted; a note says so.

    Raises
    ------
    InputError
        If a column is missing, a number is none, two trials start together, or no trial is left.
    """
    table = read_tsv(path, required=(onset_column, "duration"))
    column = event_rows.stimulus_column(path, table, subject, stimulus_column)
    numbered = list(enumerate(table, start=2))
    trials, notes = event_rows.trials_only(numbered, column, trial_types, path, subject)
    if not trials:
        raise _no_trials(table, column, trial_types, f"sub-{subject}, {path}")
    rows = [row for _, row in trials]
    files = [event_rows.picture(row, column) for row in rows]
    check = path_checker(stimuli_dir)
    for file, (number, _) in zip(files, trials, strict=True):
        if file != "n/a":
            check(file, f"sub-{subject}, {path}, line {number}")
    durations = [event_rows.duration(row, number, path, subject) for number, row in trials]
    if absent := sum(value is None for value in durations):
        notes.append(f"{absent} of {len(trials)} durations are n/a: taken as 0 s")
    events = Events(
        path=path,
        subject=subject,
        onsets_s=np.array(
            [
                event_rows.number(row[onset_column], onset_column, n, path, subject)
                for n, row in trials
            ]
        ),
        durations_s=np.array([value or 0.0 for value in durations]),
        stimulus=np.array(
            [
                stimulus_id(row[column]) if event_rows.is_path(row, column) else row[column]
                for row in rows
            ]
        ),
        trial_type=np.array([row.get("trial_type", "n/a") for row in rows]),
        file=np.array(files),
        column=column,
        notes=tuple(notes),
    )
    return _in_order(events, sample)


def _no_trials(
    table: list[Row], column: str, trial_types: Sequence[str], where: str
) -> InputError:
    kinds = Counter(row.get("trial_type", row[column]) for row in table)
    return InputError(
        "a run has no trials", where=where,
        found=f"{len(table)} events"
        + "".join(f", {count} of {kind}" for kind, count in kinds.most_common(5)),
        expected=f"events with a value in {column}"
        + (f" and a trial_type among {', '.join(trial_types)}" if trial_types else ""),
        fix="set stimulus_column or trial_types",
    )  # fmt: skip


def _in_order(events: Events, sample: str) -> Events:
    """Sort by onset; leave out what lies before the run and rows that stand there twice."""
    where = f"sub-{events.subject}, {events.path}"
    early = events.onsets_s < 0
    if early.any():
        if early.all():
            raise InputError(
                f"all trials lie before the first {sample}", where=where,
                found=f"onsets from {events.onsets_s.min():g} to {events.onsets_s.max():g} s",
                expected=f"onsets in s from the start of the first {sample}",
                fix="write onsets from the start of the run",
            )  # fmt: skip
        note = f"{early.sum()} of {len(events)} trials start before the first {sample}: left out"
        events = events.select(~early, note)
    order = np.argsort(events.onsets_s, kind="stable")
    if (np.diff(order) != 1).any():
        events = events.select(order, "the events were not in order of their onsets: sorted")
    pairs = list(zip(events.onsets_s.tolist(), events.stimulus.tolist(), strict=True))
    first_row: dict[tuple[float, str], int] = {}
    again = np.array([first_row.setdefault(pair, n) != n for n, pair in enumerate(pairs)])
    if again.any():
        n = int(again.sum())
        note = f"{n} trial{' has' if n == 1 else 's have'} the onset and stimulus of another one: left out"
        events = events.select(~again, note)
    together = np.flatnonzero(np.diff(events.onsets_s) < 1e-3)
    if len(together):
        first = int(together[0])
        raise InputError(
            "two trials start at the same time",
            where=where,
            found=f"{events.stimulus[first]} and {events.stimulus[first + 1]} at "
            f"{events.onsets_s[first]:g} s"
            + (f", and {len(together) - 1} more such pairs" if len(together) > 1 else ""),
            expected="one trial at a time",
            fix="say by trial_types which events are trials, or by stimulus_column what was shown",
        )
    return events


def drop_late(
    events: Events, run_length_s: float, *, allowed: bool = True, sample: str = "volume"
) -> Events:
    """Leave out trials that start after the last volume or sample.

    Parameters
    ----------
    events : Events
        The trials of one run.
    run_length_s : float
        Length of the run in s: number of volumes times the repetition time.
    allowed : bool
        Whether a run may have such trials at all; they are then left out, with a note.
    sample : str
        What a run consists of, for messages: ``volume`` of images, ``sample`` of recordings.

    Returns
    -------
    Events
        The trials that start within the run.

    Raises
    ------
    InputError
        If trials start after the last volume and ``allowed`` is false, or if all of them do.
    """
    late = events.onsets_s >= run_length_s
    if not late.any():
        return events
    last = events.onsets_s[late].max()
    text = (
        f"{late.sum()} onset{'s lie' if late.sum() > 1 else ' lies'} after the last {sample} "
        f"({last:.1f} s {'>' if last > run_length_s else '='} {run_length_s:.1f} s)"
    )
    if late.all() or not allowed:
        raise InputError(
            f"trials start after the last {sample}", where=f"sub-{events.subject}, {events.path}",
            found=text,
            expected=f"onsets below {run_length_s:g} s, in s and from the first {sample}",
            fix="check the events, and that the file holds the whole run",
        )  # fmt: skip
    return events.select(~late, text + ": left out")


def missing_conditions(runs: Sequence[Events]) -> list[str]:
    """Say which runs lack a condition that most runs have.

    Parameters
    ----------
    runs : sequence of Events
        The runs of one subject and task.

    Returns
    -------
    list of str
        One sentence for each run and condition (``trial_type``). A condition that fewer than half
        of the runs have, as where each picture is its own condition, is not expected in all.
    """
    if len(runs) < 2:
        return []
    counts = Counter(kind for run in runs for kind in set(run.trial_type.tolist()) - {"n/a"})
    notes = []
    for kind, n_runs in sorted(counts.items()):
        if 2 * n_runs < len(runs):
            continue
        for run in runs:
            if kind not in run.trial_type:
                notes.append(
                    f"sub-{run.subject}, {run.path.name}: no trial of {kind}, which {n_runs} of "
                    f"{len(runs)} runs have"
                )
    return notes


def stimulus_files(runs: Sequence[Events]) -> dict[str, str]:
    """Return the picture of each stimulus that the events name.

    Parameters
    ----------
    runs : sequence of Events
        Runs of one or more subjects.

    Returns
    -------
    dict
        Stimulus id to file relative to ``stimuli/``, in order of first appearance; ``n/a`` where
        no run says it.

    Raises
    ------
    InputError
        If one id stands for two pictures.
    """
    found: dict[str, str] = {}
    for run in runs:
        for name, file in zip(run.stimulus.tolist(), run.file.tolist(), strict=True):
            known = found.setdefault(name, file)
            if known == "n/a":
                found[name] = file
            elif file not in ("n/a", known):
                raise InputError(
                    "one stimulus stands for two pictures",
                    where=f"sub-{run.subject}, {run.path}", found=f"{name}: {known} and {file}",
                    expected="one picture an id",
                    fix="rename a picture, or give ids in a column stimulus_id",
                )  # fmt: skip
    return found
