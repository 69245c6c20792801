"""The folder of prepared responses that readers of published betas write."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from afterimage.errors import InputError
from afterimage.io.atomic import atomic_path, require_space, write_json
from afterimage.io.tables import read_tsv, write_tsv

#: Rows of responses that are looked through at a time when columns are blanked.
_ROWS = 256


class ResponsesWriter:
    """Writes trials one piece after the other into a ``.npy`` file.

    Parameters
    ----------
    array : array of shape (n_trials, n_units) or (n_trials, n_units, n_times), float32
        The file, mapped into memory for writing.
    """

    def __init__(self, array: np.ndarray) -> None:
        self._array, self._row = array, 0
        self._bad = np.zeros(array.shape[1], dtype=bool)

    def append(self, rows: np.ndarray) -> None:
        """Write the next trials; an array of shape (k, n_units) or (k, n_units, n_times)."""
        self._array[self._row : self._row + len(rows)] = rows
        self._bad |= ~np.isfinite(rows).all(axis=(0, *range(2, rows.ndim)))
        self._row += len(rows)

    def write_units(self, units: slice, values: np.ndarray) -> None:
        """Write all trials of some units; an array of shape (n_trials, n)."""
        self._array[:, units] = values
        self._bad[units] |= ~np.isfinite(values).all(axis=0)
        self._row = len(self._array)

    def finish(self) -> int:
        """Blank the units that have a value that is not finite; return how many these are."""
        if self._row != len(self._array):
            raise ValueError(f"{self._row} of {len(self._array)} trials were written")
        columns = np.flatnonzero(self._bad)
        if len(columns):
            for start in range(0, len(self._array), _ROWS):
                self._array[start : start + _ROWS, columns] = np.nan
        return len(columns)


@contextmanager
def responses_writer(
    target: Path,
    subject: str,
    n_trials: int,
    n_units: int,
    notes: list[str],
    n_times: int | None = None,
) -> Iterator[ResponsesWriter]:
    """Open ``sub-<subject>_responses.npy`` for writing; it appears when all trials are written.

    With ``n_times`` it has a time axis, and its units are channels; without, they are voxels.

    A unit with a value that is not finite in any trial is NaN in all of them, so that
    `prepare_responses` drops and counts it; a note says how many there are.
    """
    path = target / f"sub-{subject}" / f"sub-{subject}_responses.npy"
    what = "voxels" if n_times is None else "channels"
    shape = (n_trials, n_units) if n_times is None else (n_trials, n_units, n_times)
    if not n_units or not n_trials:
        raise InputError(
            "a subject has no response left", where=f"sub-{subject}",
            found=f"{n_trials} trials, {n_units} {what}", expected="at least one of each",
            fix="check the options that choose units, sessions and split",
        )  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    require_space(path.parent, 4 * math.prod(shape))
    with atomic_path(path) as temporary:
        array = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.float32, shape=shape)
        writer = ResponsesWriter(array)
        yield writer
        if n_bad := writer.finish():
            notes.append(
                f"sub-{subject}: {n_bad} of {n_units} {what} have values that are not finite in "
                "some trials; they are left out"
            )
        array.flush()


def write_tables(
    target: Path,
    subject: str,
    trials: Sequence[Mapping[str, Any]],
    units: Sequence[Mapping[str, Any]],
    sidecar: Mapping[str, Any],
) -> None:
    """Write trials, units and sidecar of one subject, after checking its split.

    Raises
    ------
    InputError
        If a stimulus is in two splits.
    """
    check_splits(subject, trials)
    seen: dict[str, int] = {}
    rows = []
    for trial in trials:
        name = str(trial["stimulus_id"])
        rows.append({**trial, "repeat": seen.get(name, 0)})
        seen[name] = rows[-1]["repeat"] + 1
    prefix = target / f"sub-{subject}" / f"sub-{subject}"
    write_tsv(Path(f"{prefix}_trials.tsv"), rows, list(rows[0]))
    columns = list(dict.fromkeys(name for unit in units for name in unit))
    write_tsv(Path(f"{prefix}_units.tsv"), units, columns)
    write_json(Path(f"{prefix}_responses.json"), dict(sidecar))


def check_splits(subject: str, trials: Sequence[Mapping[str, Any]]) -> None:
    """Raise an error if repeats of one stimulus lie in different splits."""
    split: dict[str, str] = {}
    for number, trial in enumerate(trials, start=1):
        name, value = str(trial["stimulus_id"]), str(trial.get("split"))
        if split.setdefault(name, value) != value:
            raise InputError(
                "a stimulus is in two splits", where=f"sub-{subject}, trial {number}",
                found=f"{name} is {split[name]} in an earlier trial and {value} here",
                expected="all repeats of a stimulus in one split",
                fix="take the tables of the dataset as they were published",
            )  # fmt: skip


def write_stimuli(target: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write ``stimuli.tsv``, keeping rows of subjects that were converted before."""
    path = target / "stimuli.tsv"
    merged: dict[str, Mapping[str, Any]] = {}
    if path.is_file():
        merged = {row["stimulus_id"]: row for row in read_tsv(path, ("stimulus_id", "file"))}
    merged.update({str(row["stimulus_id"]): row for row in rows})
    ordered = [merged[name] for name in sorted(merged)]
    columns = list(dict.fromkeys(name for row in ordered for name in row))
    write_tsv(path, ordered, columns)
