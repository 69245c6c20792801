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
    columns : dict of str to array of str, shape (n_trials,)
        What may be a label: the columns that the trials of all subjects have.
    people : dict of str to array of str, shape (n_trials,)
        Further labels: the columns of the table of participants.
    groups : array of str, shape (n_trials,)
    group_column : str
    notes : list of str
        What was left out, and why.
    """

    values: np.ndarray
    times_s: np.ndarray
    kinds: np.ndarray
    columns: dict[str, np.ndarray]
    people: dict[str, np.ndarray]
    groups: np.ndarray
    group_column: str
    notes: list[str]

    @property
    def sampling_rate_hz(self) -> float:
        """Samples a second."""
        return float(1 / np.diff(self.times_s).mean())

    def labels(self, asked: str) -> tuple[str, np.ndarray]:
        """Return the column of the labels, the first of `LABELS` where none is asked for."""
        names = (asked,) if asked else LABELS
        for known in (self.columns, self.people) if asked else (self.columns,):
            for name in names:
                if name in known:
                    return name, known[name]
        raise InputError(
            "trials have no label to decode", where="the trials and participants.tsv",
            found=", ".join([*self.columns, *self.people]), expected=" or ".join(names),
            fix="correct decode_conditions.condition_column",
        )  # fmt: skip


@dataclass(frozen=True)
class _Subject:
    """What one file holds."""

    name: str
    path: Path
    times_s: np.ndarray
    kinds: np.ndarray
    names: np.ndarray
    columns: dict[str, np.ndarray]
    seen: bool


def read_condition_trials(
    files: Sequence[Path], participants: Path | None, group_column: str
) -> Trials:
    """Read the trials of all files, with their labels and groups.

    Parameters
    ----------
    files : sequence of Path
        ``_trials.nc`` files, one a subject, with the same times; of several, the channels that all
        of them have are taken.
    participants : Path or None
        ``participants.tsv``: labels of people.
    group_column : {"auto", "run", "session", "subject"}

    Returns
    -------
    Trials
    """
    subjects = [_open(path) for path in files]
    first = subjects[0]
    for other in subjects[1:]:
        if not _same(other.times_s, first.times_s):
            raise InputError(
                "subjects differ in the times of their trials",
                where=f"{other.name}, {other.path}",
                found=f"{len(other.times_s)} samples from {other.times_s[0]:.3f} s",
                expected=f"{len(first.times_s)} from {first.times_s[0]:.3f} s as {first.name}",
                fix="pool subjects epoched alike: set clean_meeg.resample_hz to a rate that all have",
            )  # fmt: skip
    kept, notes = _common_channels(subjects)
    seen = [subject.name for subject in subjects if subject.seen]
    group_column = _group_column(subjects, group_column)
    groups = np.concatenate([subject.columns[group_column] for subject in subjects])
    shared = [name for name in first.columns if all(name in s.columns for s in subjects)]
    columns = {name: np.concatenate([s.columns[name] for s in subjects]) for name in shared}
    people = _people(subjects, participants)
    kinds = first.kinds[kept[0]]
    brain = ~np.isin(np.char.lower(kinds.astype(str)), NOT_BRAIN)
    values = np.concatenate([
        _read(subject)[:, rows[brain]] for subject, rows in zip(subjects, kept, strict=True)
    ])  # fmt: skip
    if not brain.all():
        notes.append(f"{int((~brain).sum())} channels that do not record the brain")
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
    kinds = kinds[brain][varies]
    return Trials(
        _common_scale(values[usable][:, varies], kinds), first.times_s, kinds,
        {name: column[usable] for name, column in columns.items()},
        {name: column[usable] for name, column in people.items()},
        groups[usable], group_column, [f"left out: {note}" for note in notes] + _seen(seen),
    )  # fmt: skip


def contrast_classes(
    contrast: str, column: str, conditions: np.ndarray, asked: Mapping[str, Sequence[str]]
) -> dict[str, np.ndarray]:
    """Return which trials are of which class of a contrast.

    Parameters
    ----------
    contrast, column : str
        Its name and the column of the labels, for messages.
    conditions : array of str, shape (n_trials,)
    asked : mapping of class to conditions
        Empty: each condition is a class.

    Returns
    -------
    dict of class to array of bool, shape (n_trials,)
    """
    known = np.unique(conditions).tolist()
    classes = asked or {name: [name] for name in known if name != "n/a"}
    named = [name for members in classes.values() for name in members]
    where = f"contrast {contrast}, column {column}"
    missing = sorted(set(named) - set(known))
    if missing:
        raise InputError(
            "a contrast names a condition that no trial has", where=where,
            found=", ".join(missing), expected=f"of {', '.join(known[:20])}",
            fix="correct decode_conditions.contrasts",
        )  # fmt: skip
    if len(classes) < 2 or len(set(named)) < len(named):
        raise InputError(
            "there is nothing to tell apart" if len(classes) < 2
            else "a condition stands in two classes of a contrast",
            where=where, found=", ".join(named) or "no condition",
            expected="two or more classes apart",
            fix="correct decode_conditions.contrasts or condition_column",
        )  # fmt: skip
    found = {name: np.isin(conditions, members) for name, members in classes.items()}
    few = {name: int(rows.sum()) for name, rows in found.items()}
    few = {name: count for name, count in few.items() if count < FEWEST}
    if few:
        raise InputError(
            "a class has too few trials", where=where,
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
        kinds = dataset["kind"].values.astype(str)
        names = dataset["name"].values.astype(str) if "name" in dataset.variables else kinds[:0]
        seen = bool(dataset.attrs.get("seen", 0))
        return _Subject(name, path, times_s, kinds, names, columns, seen)


def _seen(people: Sequence[str]) -> list[str]:
    """Say whose trials are in tokens that were trained on them."""
    if not people:
        return []
    return [f"the tokenizer was trained on {', '.join(people)}: no score of new people"]


def _read(subject: _Subject) -> np.ndarray:
    with open_reader(subject.path) as reader:
        return np.asarray(reader.read(np.arange(reader.shape[0])), np.float32)


def _same(first: np.ndarray, second: np.ndarray) -> bool:
    return len(first) == len(second) and bool(np.allclose(first, second, atol=1e-6))


def _common_channels(subjects: Sequence[_Subject]) -> tuple[list[np.ndarray], list[str]]:
    """Return the rows of the channels that all subjects have, in the order of the first; a note."""
    first = subjects[0]
    if all(len(s.names) == len(s.kinds) for s in subjects) and len(first.names):
        common = set(first.names.tolist()).intersection(*(s.names.tolist() for s in subjects))
        order = [name for name in first.names.tolist() if name in common]
        kept = [np.array([s.names.tolist().index(n) for n in order], int) for s in subjects]
        n_lost = len(set().union(*(s.names.tolist() for s in subjects))) - len(order)
        if order:
            return kept, [f"{n_lost} channels that not all subjects have"] if n_lost else []
    for other in subjects[1:]:
        if len(other.kinds) != len(first.kinds) or other.names.tolist() != first.names.tolist():
            raise InputError(
                "subjects have no channels in common", where=f"{other.name}, {other.path}",
                found=f"{len(other.kinds)} channels", expected=f"those of {first.name}",
                fix="pool subjects recorded alike, or name the channels",
            )  # fmt: skip
    return [np.arange(len(first.kinds))] * len(subjects), []


def _people(subjects: Sequence[_Subject], participants: Path | None) -> dict[str, np.ndarray]:
    """Return the columns of the table of participants, for every trial."""
    table = read_tsv(participants, ("participant_id",)) if participants else []
    found = {}
    for column in [name for name in (table[0] if table else ()) if name != "participant_id"]:
        of = {row["participant_id"].removeprefix("sub-"): row[column] for row in table}
        found[column] = np.concatenate([
            np.full(len(s.columns["subject"]), of.get(s.name, "n/a")) for s in subjects
        ])  # fmt: skip
    return found


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
