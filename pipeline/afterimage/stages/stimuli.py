"""What stages that make trials share: the table of stimuli, safe paths, and the one split."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from afterimage.bids.stimuli import check_stimulus_path
from afterimage.errors import InputError
from afterimage.io.tables import Row, read_tsv, write_tsv
from afterimage.preprocess.responses import repeat_index, seeded_split

SPLITS = ("train", "val", "test")


def read_stimuli(
    table_file: Path, folder: Path, trials: Sequence[Row], where: str
) -> dict[str, Row]:
    """Return the rows of the table of stimuli that the trials use, checked.

    Parameters
    ----------
    table_file : Path
        Table with ``stimulus_id`` and ``file``.
    folder : Path
        Folder of the pictures; no path may lead out of it.
    trials : sequence of dict
        One row a trial, with ``stimulus_id``.
    where : str
        Subject and file of the trials, for messages.

    Returns
    -------
    dict
        Stimulus id to row, in the order of the table.

    Raises
    ------
    InputError
        For a stimulus that is not in the table, stands there twice, or whose path leads elsewhere.
    """
    table = read_tsv(table_file, required=("stimulus_id", "file"))
    counts = Counter(row["stimulus_id"] for row in table)
    known = {row["stimulus_id"]: row for row in table}
    used: set[str] = set()
    for number, trial in enumerate(trials, start=2):
        name = trial["stimulus_id"]
        if name in used:
            continue
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            raise InputError(
                "a trial shows a stimulus that is not in the table of stimuli",
                where=f"{where}, line {number}",
                found=name,
                expected=f"a stimulus_id of {table_file}"
                + (f"; the nearest is {near[0]}" if near else ""),
                fix="add it to stimuli.tsv, or correct the id",
            )
        if counts[name] > 1:
            raise InputError(
                "a stimulus_id stands twice in the table of stimuli",
                where=f"{table_file} (used by {where}, line {number})",
                found=f"{counts[name]} rows with {name}",
                expected="each stimulus_id once",
                fix="give every picture its own id",
            )
        check_stimulus_path(known[name]["file"], folder, str(table_file))
        used.add(name)
    return {row["stimulus_id"]: row for row in table if row["stimulus_id"] in used}


def assign_split(
    trials: Sequence[Row],
    stimuli: Mapping[str, Row],
    everything: Iterable[str],
    where: tuple[str, str],
    *,
    test_fraction: float,
    min_training_trials: int,
    random_state: int,
    grouped: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Give each stimulus its split: the trials' own first, then the table's, else a seeded one.

    Parameters
    ----------
    trials : sequence of dict
        One row a trial: ``stimulus_id`` and perhaps ``split``.
    stimuli : dict
        Rows of the table of stimuli by id.
    everything : iterable of str
        Ids of all stimuli of the dataset, so that a seeded split is the same for every subject.
    where : tuple of str
        Names of the trials (subject and file) and of the table of stimuli, for messages.
    test_fraction, min_training_trials, random_state
        As in the stage's settings.
    grouped : dict, optional
        Stimulus id to split, where whole groups are held out: then nothing else says it.

    Returns
    -------
    dict
        Stimulus id to ``train``, ``val`` or ``test``.

    Raises
    ------
    InputError
        For an unknown split, a stimulus in two splits, or too few trials on either side.
    """
    split: dict[str, str] = {}
    by_trial = any(row.get("split", "n/a") != "n/a" for row in trials) or "split" in trials[0]
    by_stimulus = any(row.get("split", "n/a") != "n/a" for row in stimuli.values())
    if grouped is not None:
        split = {name: grouped[name] for name in stimuli}
    elif by_trial or by_stimulus:
        split = _stated_split(trials, stimuli, where, by_stimulus)
    else:
        names = set(everything)
        if len(names) > 1:
            seeded = seeded_split(names, test_fraction, random_state)
            split = {name: seeded[name] for name in stimuli}
        else:
            split = dict.fromkeys(stimuli, "train")
    for needed, minimum in (("train", min_training_trials), ("test", 1)):
        n_trials = sum(split[trial["stimulus_id"]] == needed for trial in trials)
        if n_trials < minimum:
            raise InputError(
                f"a subject has too few {needed} trials",
                where=where[0],
                found=f"{n_trials} of {len(trials)} trials",
                expected=f"at least {minimum}",
                fix="check the split; min_training_trials sets the minimum",
            )
    return split


def _stated_split(
    trials: Sequence[Row],
    stimuli: Mapping[str, Row],
    where: tuple[str, str],
    by_stimulus: bool,
) -> dict[str, str]:
    """Return the split that the trials say, else the table of stimuli (``by_stimulus``)."""
    split: dict[str, str] = {}
    for number, trial in enumerate(trials, start=2):
        name = trial["stimulus_id"]
        value = trial.get("split", "n/a")
        table = where[0] if value != "n/a" else where[1]
        value = value if value != "n/a" else stimuli[name].get("split", "n/a")
        if by_stimulus and value == "n/a" and "split" not in stimuli[name]:
            raise InputError(
                "a stimulus is not in the table of stimuli, which says the splits",
                where=f"{where[0]}, {where[1]}", found=name,
                expected="a row for every stimulus that was shown",
                fix="add the row, or correct the name in the events",
            )  # fmt: skip
        if value not in SPLITS:
            raise InputError(
                "a stimulus has no known split", where=f"{table}, {name}",
                found=value, expected=", ".join(SPLITS),
                fix="fill the column, or remove it to get a seeded split",
            )  # fmt: skip
        if split.setdefault(name, value) != value:
            raise InputError(
                "a stimulus is in two splits",
                where=f"{where[0]}, line {number}",
                found=f"{name} is {split[name]} in an earlier trial and {value} here",
                expected="all repeats of a stimulus in one split",
                fix="correct the column 'split'; a stimulus seen in training cannot be a test",
            )
    return split


def split_by_trial(
    trials: Sequence[Row], stimuli: Mapping[str, Row], where: tuple[str, str]
) -> tuple[dict[str, str], np.ndarray]:
    """Give each trial its own split, where stimuli are categories and have no pictures.

    Parameters
    ----------
    trials, stimuli, where
        As of `assign_split`.

    Returns
    -------
    by_stimulus : dict
        Stimulus id to its split; ``n/a`` for a category that is in several.
    splits : array of str, shape (n_trials,)
        The trial's own split, else that of its stimulus, else ``train``.

    Raises
    ------
    InputError
        For an unknown split.
    """
    splits = []
    by_stimulus: dict[str, str] = {}
    for number, trial in enumerate(trials, start=2):
        name = trial["stimulus_id"]
        value = trial.get("split", "n/a")
        value = stimuli[name].get("split", "n/a") if value == "n/a" else value
        value = "train" if value == "n/a" else value
        if value not in SPLITS:
            raise InputError(
                "a trial has no known split", where=f"{where[0]}, line {number}",
                found=value, expected=f"{', '.join(SPLITS)} or n/a", fix="correct the column",
            )  # fmt: skip
        splits.append(value)
        if by_stimulus.setdefault(name, value) != value:
            by_stimulus[name] = "n/a"
    return by_stimulus, np.array(splits)


def trial_coordinates(
    trials: Sequence[Row], splits: np.ndarray, subject: str
) -> dict[str, np.ndarray]:
    """Return the coordinates along ``trial`` of a ``_trials.nc`` file."""
    ids = np.array([row["stimulus_id"] for row in trials])
    coordinates = {
        "stimulus": ids,
        "subject": np.full(len(ids), subject.removeprefix("sub-")),
        "split": splits,
        "repeat": repeat_index(ids),
    }
    for name in ("session", "run"):
        coordinates[name] = np.array([row.get(name, "n/a") for row in trials])
    return coordinates


def write_split(
    path: Path, stimuli: Mapping[str, Row], split: Mapping[str, str], ids: np.ndarray
) -> None:
    """Write the stimuli a subject saw: id, file, split, number of trials, and what else is known."""
    counts = Counter(ids.tolist())
    rows: list[dict[str, Any]] = [
        {**row, "split": split[name], "n_trials": counts[name]}
        for name, row in stimuli.items()
        if name in split
    ]
    first = ["stimulus_id", "file", "split", "n_trials"]
    write_tsv(path, rows, [*first, *(name for name in rows[0] if name not in first)])


def count_splits(splits: np.ndarray, ids: np.ndarray) -> dict[str, dict[str, int]]:
    """Count trials and stimuli of every split, for the quality file."""
    return {
        "n_trials": {name: int((splits == name).sum()) for name in SPLITS},
        "n_stimuli": {name: len(np.unique(ids[splits == name])) for name in SPLITS},
    }


def captions_of(rows: Iterable[Row]) -> dict[str, tuple[str, ...]]:
    """Return the captions of stimuli that have any, by stimulus id.

    A picture has one in the column ``caption``, and may have more in ``caption_2``, ``caption_3``
    and so on.
    """
    found: dict[str, tuple[str, ...]] = {}
    for row in rows:
        columns = [name for name in row if re.fullmatch(r"caption(_?\d+)?", name)]
        texts = tuple(row[name] for name in columns if row[name] not in ("", "n/a"))
        if texts:
            found[row["stimulus_id"]] = texts
    return found
