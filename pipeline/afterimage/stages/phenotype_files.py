"""Phenotypes of people from tables, and features of the same people, held in memory."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from afterimage.bids.entities import natural_key
from afterimage.bids.names import entity
from afterimage.connectivity.registry import CONNECTIVITY
from afterimage.errors import ConfigError, InputError
from afterimage.evaluation.fingerprint import edges
from afterimage.io.arrays import open_dataset
from afterimage.io.tables import Row, read_tsv
from afterimage.stages.series_files import Recording, read_recording

log = logging.getLogger("afterimage")

MISSING = frozenset({"n/a", "", "nan", "NaN", "NA"})


@dataclass(frozen=True)
class Column:
    """A column of a table by person; numbers where all that are known are numbers.

    Attributes
    ----------
    values : dict
        Subject to its value; people without a value are absent.
    numeric : bool
    """

    values: dict[str, str]
    numeric: bool

    def numbers(self, people: Sequence[str]) -> np.ndarray:
        """Return numbers of people, NaN where missing; labels as one indicator each.

        Returns
        -------
        array of shape (n_people, n_columns), float64
        """
        if self.numeric:
            return np.array([[float(self.values.get(s, "nan"))] for s in people])
        names = sorted({self.values[s] for s in people if s in self.values})
        rows = [
            [float(self.values[s] == name) if s in self.values else math.nan for name in names]
            for s in people
        ]
        return np.array(rows).reshape(len(people), len(names))


def read_column(
    tables: Sequence[Path], file: str, column: str, where: Mapping[str, str] | None = None
) -> Column:
    """Read a column of a table of the dataset.

    Parameters
    ----------
    tables : sequence of Path
    file : str
        Its name.
    column : str
    where : dict, optional
        Values of other columns: only rows that have them count.

    Raises
    ------
    InputError
        If the table, or a column, is not there, or a person has several values.
    """
    path = next((p for p in tables if p.as_posix().endswith(f"/{file}")), None)
    if path is None:
        raise InputError(
            "a table of phenotypes is missing", where=file, found="no such file",
            expected="a table at the root of the dataset, one row a participant_id",
            fix="put it there, or correct predict_phenotypes",
        )  # fmt: skip
    rows = read_tsv(path, ("participant_id",))
    for name in (column, *(where or {})):
        if rows and name not in rows[0]:
            raise InputError(
                "a table has no such column", where=str(path), found=", ".join(rows[0]),
                expected=name, fix="correct predict_phenotypes",
            )  # fmt: skip
    values: dict[str, str] = {}
    for row in rows:
        if any(row[name] != value for name, value in (where or {}).items()):
            continue
        subject = row["participant_id"].removeprefix("sub-")
        if row[column] in MISSING:
            continue
        if values.setdefault(subject, row[column]) != row[column]:
            raise InputError(
                "a person has several values of a phenotype", where=f"{path}, sub-{subject}",
                found=f"{values[subject]} and {row[column]} in {column}", expected="one",
                fix="say in predict_phenotypes which rows count (where)",
            )  # fmt: skip
    return Column(values, all(_is_number(value) for value in values.values()))


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


@dataclass(frozen=True, eq=False)
class People:
    """One row a person, or one a person and session.

    Attributes
    ----------
    seg : str
        Set of regions.
    subjects, sessions : list of str, each of length n_rows
        ``sessions`` is empty text where recordings of several sessions are averaged.
    files : list of Path
        Connectivity of each row.
    recordings : list of array of int
        Which recordings of the file make up each row.
    names : list of set of str
        Their names.
    censored : list of float
        Share of their samples that were left out.
    units : list of str
        Regions that all have.
    measures : list of str
        Measures that all have.
    """

    seg: str
    subjects: list[str]
    sessions: list[str]
    files: list[Path]
    recordings: list[np.ndarray]
    names: list[set[str]]
    censored: list[float]
    units: list[str]
    measures: list[str]

    def select(self, rows: Sequence[int]) -> People:
        """Return these rows only."""
        picked: dict[str, Any] = {
            name: [getattr(self, name)[row] for row in rows]
            for name in ("subjects", "sessions", "files", "recordings", "names", "censored")
        }
        return replace(self, **picked)

    def edges(self, measure: str) -> np.ndarray:
        """Return the connections of every row, averaged over its recordings, (n_rows, n_edges)."""
        rows = []
        for path, chosen in zip(self.files, self.recordings, strict=True):
            with open_dataset(path) as dataset:
                index = dataset["measure"].values.astype(str).tolist().index(measure)
                place = {n: i for i, n in enumerate(dataset["roi"].values.astype(str).tolist())}
                order = np.array([place[name] for name in self.units])
                values = dataset["connectivity"].values[chosen, index]
            rows.append(edges(values.mean(axis=0)[np.ix_(order, order)]))
        return np.stack(rows)


def rows_of_sessions(found: np.ndarray, sessions: str) -> list[tuple[str, np.ndarray]]:
    """Return the rows that a person becomes: session, empty for the mean of all, and recordings.

    Parameters
    ----------
    found : array of str, shape (n_recordings,)
        Session of each recording.
    sessions : str
        As for `read_people`.
    """
    known = sorted(set(found.tolist()), key=natural_key)
    if sessions == "mean":
        return [("", np.arange(len(found)))]
    if sessions in ("first", "all"):
        wanted = known[:1] if sessions == "first" else known
    else:
        wanted = [name for name in known if name == sessions]
    return [(name, np.flatnonzero(found == name)) for name in wanted]


def read_people(files: Sequence[Path], sessions: str) -> People | None:
    """Say who has connectivity on a set of regions; None where regions are each person's own.

    Parameters
    ----------
    files : sequence of Path
        ``_connectivity.nc`` of one set of regions.
    sessions : str
        ``mean``: recordings of all sessions are averaged; ``first``: those of the earliest session
        count; ``all``: one row a session; else the label of a session.
    """
    subjects, labels, paths, recordings, runs, censored = [], [], [], [], [], []
    units: dict[str, None] = {}
    measures: dict[str, None] = {}
    for path in files:
        with open_dataset(path) as dataset:
            if dataset.attrs.get("individual"):
                log.info("regions of %s are each person's own: no features", path.name)
                return None
            found = dataset["session"].values.astype(str)
            names = dataset["roi"].values.astype(str).tolist()
            own = dataset["measure"].values.astype(str).tolist()
            stems = dataset["recording"].values.astype(str)
            n_out, n_used = dataset["n_censored"].values, dataset["n_samples"].values
        for label, chosen in rows_of_sessions(found, sessions):
            subjects.append(entity(path, "sub"))
            labels.append(label)
            paths.append(path)
            recordings.append(chosen)
            runs.append(set(stems[chosen].tolist()))
            out = float(n_out[chosen].sum())
            censored.append(out / max(out + float(n_used[chosen].sum()), 1.0))
        units = (
            dict.fromkeys(n for n in units if n in set(names)) if units else dict.fromkeys(names)
        )
        measures = (
            dict.fromkeys(m for m in measures if m in own) if measures else dict.fromkeys(own)
        )
    if not subjects:
        raise ConfigError(
            "no person has the session that is asked for", found=sessions,
            expected="mean, first, all, or the label of a session",
            fix="correct predict_phenotypes.sessions",
        )  # fmt: skip
    if len(units) < 2:
        raise InputError(
            "people have fewer than two regions in common", where=str(files[0].name),
            found=f"{len(units)} of {len(files)} people", expected="the same atlas for all",
            fix="use one atlas for all people",
        )  # fmt: skip
    seg = entity(files[0], "seg")
    return People(
        seg, subjects, labels, paths, recordings, runs, censored, list(units), list(measures)
    )


def tangent_vectors(
    people: People, series: Sequence[Path], train: np.ndarray, max_reference: int, seed: int
) -> np.ndarray:
    """Map everybody to the tangent space at the geometric mean of training rows.

    Parameters
    ----------
    people : People
    series : sequence of Path
    train : array of bool, shape (n_rows,)
        Rows that the reference may be made of.
    max_reference : int
        Rows that it is made of, drawn at random, at most.
    seed : int

    Returns
    -------
    array of shape (n_rows, n_edges), float32
    """
    rng = np.random.default_rng(seed)
    drawn = np.sort(rng.permutation(np.flatnonzero(train))[:max_reference])
    reference = [r for row in drawn.tolist() for r in _recordings(people, row, series)]
    measure = CONNECTIVITY.get("tangent")(CONNECTIVITY.settings("tangent")())
    measure.fit([r.values for r in reference], kept=[r.kept for r in reference])
    rows = []
    for row in range(len(people.subjects)):
        runs = _recordings(people, row, series)
        mapped = measure.transform([r.values for r in runs], kept=[r.kept for r in runs])
        rows.append(edges(mapped.mean(axis=0)))
    return np.stack(rows)


def _recordings(people: People, row: int, series: Sequence[Path]) -> list[Recording]:
    """Read the recordings of one row, on the regions that all have."""
    names = people.names[row]
    start, seg = f"sub-{people.subjects[row]}", f"_seg-{people.seg}_"
    found = []
    for path in series:
        if not path.name.startswith(f"{start}_") or seg not in path.name:
            continue
        recording = read_recording(path)
        if isinstance(recording, Recording) and recording.name in names:
            place = {name: index for index, name in enumerate(recording.names.tolist())}
            found.append(recording.select(np.array([place[name] for name in people.units])))
    if not found:
        raise InputError(
            "a person has connectivity but no series", where=start, found=f"of {people.seg}: none",
            expected="the series it was computed from", fix="run prepare_series or extract_series",
        )  # fmt: skip
    return found


def mean_displacement(files: Sequence[Path]) -> dict[str, float]:
    """Return the mean framewise displacement of people whose runs have one, in mm."""
    of: dict[str, list[float]] = {}
    for path in files:
        rows: list[Row] = read_tsv(path)
        if rows and "framewise_displacement" in rows[0]:
            text = [row["framewise_displacement"] for row in rows]
            of.setdefault(entity(path, "sub"), []).extend(float(t) for t in text if _is_number(t))
    return {subject: float(np.mean(values)) for subject, values in of.items() if values}
