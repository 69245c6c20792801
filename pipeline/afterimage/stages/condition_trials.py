"""Trials of one or several subjects with the condition and the group of each, held in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from afterimage.bids.names import unit_of
from afterimage.errors import InputError
from afterimage.io.tables import read_tsv
from afterimage.io.trials import open_reader, open_trials

#: Columns that may hold the label of a trial, the first one there is counting.
LABELS = ("condition", "trial_type", "stimulus")
#: Trials a class needs, so that each side of a fold can have two.
FEWEST = 4
#: Channels that do not record the brain.
NOT_BRAIN = ("eog", "ecg", "emg", "misc", "stim", "resp", "ref")


@dataclass(frozen=True)
class Trials:
    """Trials to classify.

    Attributes
    ----------
    values : array of shape (n_trials, n_channels, n_times), float32
    times_s : array of shape (n_times,)
    kinds : array of str, shape (n_channels,)
    conditions, groups : array of str, shape (n_trials,)
    condition_column, group_column : str
    notes : list of str
        What was left out, and why.
    """

    values: np.ndarray
    times_s: np.ndarray
    kinds: np.ndarray
    conditions: np.ndarray
    groups: np.ndarray
    condition_column: str
    group_column: str
    notes: list[str]

    @property
    def sampling_rate_hz(self) -> float:
        """Samples a second."""
        return float(1 / np.diff(self.times_s).mean())


@dataclass(frozen=True)
class _Subject:
    """What one file holds."""

    name: str
    path: Path
    times_s: np.ndarray
    kinds: np.ndarray
    columns: dict[str, np.ndarray]


def read_condition_trials(
    files: Sequence[Path], participants: Path | None, condition_column: str, group_column: str
) -> Trials:
    """Read the trials of all files, with their conditions and groups.

    Parameters
    ----------
    files : sequence of Path
        ``_trials.nc`` files, one a subject, with the same channels and times.
    participants : Path or None
        ``participants.tsv``: labels of people.
    condition_column : str
        Column of the labels, of the trials or else of the participants; empty for the first of
        `LABELS`.
    group_column : {"auto", "run", "session", "subject"}

    Returns
    -------
    Trials
    """
    subjects = [_open(path) for path in files]
    first = subjects[0]
    for other in subjects[1:]:
        if len(other.kinds) != len(first.kinds) or not _same(other.times_s, first.times_s):
            raise InputError(
                "subjects differ in channels or times", where=f"{other.name}, {other.path}",
                found=f"{len(other.kinds)} channels, {len(other.times_s)} samples",
                expected=f"{len(first.kinds)} channels, {len(first.times_s)} samples as {first.name}",
                fix="pool subjects recorded and epoched alike",
            )  # fmt: skip
    column, conditions = _conditions(subjects, participants, condition_column)
    group_column = _group_column(subjects, group_column)
    groups = np.concatenate([subject.columns[group_column] for subject in subjects])
    if len(np.unique(groups)) < 2:
        raise InputError(
            "no group of trials can be left out", where=", ".join(str(path) for path in files),
            found=f"one {group_column}: {groups[0]}", expected="two or more",
            fix="set decode_conditions.group_column, or record more runs",
        )  # fmt: skip
    brain = ~np.isin(np.char.lower(first.kinds.astype(str)), NOT_BRAIN)
    values = np.concatenate([_read(subject) for subject in subjects])[:, brain]
    notes = (
        [f"{int((~brain).sum())} channels that do not record the brain"] if not brain.all() else []
    )
    usable = np.isfinite(values).all(axis=(1, 2))
    if not usable.all():
        notes.append(f"{int((~usable).sum())} trials that are not finite")
    varies = np.ptp(values[usable], axis=2).max(axis=0, initial=0) > 0
    if not varies.all():
        notes.append(f"{int((~varies).sum())} channels that are flat in all trials")
    if not varies.any():
        raise InputError(
            "no channel can be used", where=", ".join(str(path) for path in files),
            found=f"{len(varies)} channels, all flat, and {int(usable.sum())} finite trials",
            expected="channels that record the brain", fix="check the recording",
        )  # fmt: skip
    kinds = first.kinds[brain][varies]
    return Trials(
        _common_scale(values[usable][:, varies], kinds), first.times_s, kinds,
        conditions[usable], groups[usable], column, group_column,
        [f"left out: {note}" for note in notes],
    )  # fmt: skip


def contrast_labels(
    trials: Trials, contrasts: Mapping[str, Mapping[str, Sequence[str]]]
) -> dict[str, dict[str, np.ndarray]]:
    """Return for every contrast which trials are of which class.

    Returns
    -------
    dict of contrast to dict of class to array of bool, shape (n_trials,)
    """
    known = np.unique(trials.conditions).tolist()
    asked = contrasts or {"conditions": {name: [name] for name in known if name != "n/a"}}
    found: dict[str, dict[str, np.ndarray]] = {}
    for contrast, classes in asked.items():
        named = [name for members in classes.values() for name in members]
        missing = sorted(set(named) - set(known))
        if missing:
            raise InputError(
                "a contrast names a condition that no trial has",
                where=f"contrast {contrast}, column {trials.condition_column}",
                found=", ".join(missing), expected=f"of {', '.join(known[:20])}",
                fix="correct decode_conditions.contrasts",
            )  # fmt: skip
        if len(classes) < 2 or len(set(named)) < len(named):
            raise InputError(
                "there is nothing to tell apart" if len(classes) < 2
                else "a condition stands in two classes of a contrast",
                where=f"contrast {contrast}, column {trials.condition_column}",
                found=", ".join(named) or "no condition", expected="two or more classes apart",
                fix="correct decode_conditions.contrasts or condition_column",
            )  # fmt: skip
        found[contrast] = {
            name: np.isin(trials.conditions, members) for name, members in classes.items()
        }
        few = {name: int(rows.sum()) for name, rows in found[contrast].items()}
        few = {name: count for name, count in few.items() if count < FEWEST}
        if few:
            raise InputError(
                "a class has too few trials",
                where=f"contrast {contrast}, column {trials.condition_column}",
                found=", ".join(f"{name}: {count}" for name, count in list(few.items())[:10]),
                expected=f"{FEWEST} or more a class", fix="name other classes in "
                "decode_conditions.contrasts, or another condition_column",
            )  # fmt: skip
    return found


def _open(path: Path) -> _Subject:
    name = unit_of(path).removeprefix("sub-")
    with open_trials(path) as dataset:
        if "time" not in dataset.coords:
            raise InputError(
                "responses without a time axis cannot be classified", where=f"sub-{name}, {path}",
                found="one value a trial and unit", expected="dims (trial, unit, time)",
                fix="epoch the recording, or leave the subject out",
            )  # fmt: skip
        columns = {
            str(key): value.values.astype(str)
            for key, value in dataset.coords.items()
            if value.dims == ("trial",)
        }
        columns |= {
            str(key): value.values.astype(str)
            for key, value in dataset.data_vars.items()
            if value.dims == ("trial",) and str(key) not in columns
        }
        # Runs are numbered anew in each session.
        runs, sessions = columns.get("run"), columns.get("session")
        if runs is not None and sessions is not None and len(np.unique(sessions)) > 1:
            columns["run"] = np.array([f"{s}/{r}" for s, r in zip(sessions, runs, strict=True)])
        columns["subject"] = np.full(dataset.sizes["trial"], name)
        times_s = np.asarray(dataset["time"].values, np.float64)
        return _Subject(name, path, times_s, dataset["kind"].values.astype(str), columns)


def _read(subject: _Subject) -> np.ndarray:
    with open_reader(subject.path) as reader:
        return np.asarray(reader.read(np.arange(reader.shape[0])), np.float32)


def _same(first: np.ndarray, second: np.ndarray) -> bool:
    return len(first) == len(second) and bool(np.allclose(first, second, atol=1e-6))


def _conditions(
    subjects: Sequence[_Subject], participants: Path | None, asked: str
) -> tuple[str, np.ndarray]:
    """Return the column of the labels and the label of every trial."""
    names = (asked,) if asked else LABELS
    for name in names:
        if all(name in subject.columns for subject in subjects):
            return name, np.concatenate([subject.columns[name] for subject in subjects])
    people = read_tsv(participants, ("participant_id",)) if participants else []
    if asked and people and asked in people[0]:
        of = {row["participant_id"].removeprefix("sub-"): row[asked] for row in people}
        return asked, np.concatenate([
            np.full(len(subject.columns["subject"]), of.get(subject.name, "n/a"))
            for subject in subjects
        ])  # fmt: skip
    raise InputError(
        "trials have no label to decode", where=str(subjects[0].path),
        found=", ".join(sorted(subjects[0].columns)), expected=" or ".join(names),
        fix="correct decode_conditions.condition_column",
    )  # fmt: skip


def _group_column(subjects: Sequence[_Subject], asked: str) -> str:
    if asked == "auto":
        if len(subjects) > 1:
            return "subject"
        columns = subjects[0].columns
        several: Any = [c for c in ("run", "session") if len(set(columns.get(c, ()))) > 1]
        asked = str((several or ["run"])[0])
    if any(asked not in subject.columns for subject in subjects):
        raise InputError(
            "trials have no column of groups", where=str(subjects[0].path),
            found=", ".join(sorted(subjects[0].columns)), expected=asked,
            fix="set decode_conditions.group_column",
        )  # fmt: skip
    return asked


def _common_scale(values: np.ndarray, kinds: np.ndarray) -> np.ndarray:
    """Divide each kind of channel by one number, so that volt and tesla can share a covariance."""
    for kind in np.unique(kinds):
        own = kinds == kind
        level = float(np.sqrt(np.mean(np.square(values[:, own], dtype=np.float64))))
        values[:, own] /= level or 1.0
    return values
