"""Tell people apart by their connectivity from one session to another; average it over people."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from afterimage.bids.entities import natural_key
from afterimage.bids.names import entity
from afterimage.connectivity.registry import CONNECTIVITY
from afterimage.errors import AfterimageError
from afterimage.evaluation.fingerprint import (
    COLUMNS,
    discriminability,
    edges,
    identification,
    similarity,
    within_and_between,
)
from afterimage.io.arrays import open_dataset, write_dataset
from afterimage.io.tables import write_tsv
from afterimage.settings import StageConfig
from afterimage.stages.runner import record_skipped
from afterimage.stages.series_files import Recording, read_recording

VERSION = 1
CITES = ("finn2015", "bridgeford2021", "varoquaux2010")

log = logging.getLogger("afterimage")

#: The measure that others are compared with, named before anything is scored.
REFERENCE = "correlation"
#: People with one session that are enough for a reference of the tangent space.
ENOUGH_OTHERS = 10


class Config(StageConfig):
    """How people are told apart."""

    tangent: bool = Field(
        True, description="also score the tangent space, its reference from other people"
    )
    n_folds: int = Field(
        5, ge=2, description="groups of people whose reference is made of the other groups"
    )
    max_reference: int = Field(
        100,
        ge=2,
        description="recordings that a reference of the tangent space is made of, at most",
    )
    n_bootstraps: int = Field(1000, ge=100, description="resamples of people for intervals")
    n_permutations: int = Field(1000, ge=100, description="permutations of identities for chance")
    random_state: int | None = Field(None, description="seed; default: the root seed")


@dataclass(frozen=True)
class Inputs:
    """What the stage reads: connectivity and series of all subjects and sets of regions."""

    connectivity: tuple[Path, ...]
    series: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Outputs:
    """What the stage writes: scores, and mean matrices with the similarities behind the scores."""

    scores: Path
    matrices: Path


@dataclass
class Group:
    """The connectivity of all people on one set of regions.

    Attributes
    ----------
    seg : str
    names, network : array of str, shape (n_units,)
        Units that all people have.
    centres : array of shape (n_units, 3)
        NaN where not known.
    people : dict
        Subject to occasion to measure: array of shape (n_units, n_units) float32, averaged over the
        recordings of the occasion (a session; a run where there are no sessions).
    """

    seg: str
    names: np.ndarray
    network: np.ndarray
    centres: np.ndarray
    people: dict[str, dict[str, dict[str, np.ndarray]]] = field(default_factory=dict)

    def measures(self) -> list[str]:
        """Return the measures that everybody has, the reference first."""
        counts = Counter(
            measure
            for occasions in self.people.values()
            for measure in {m for found in occasions.values() for m in found}
        )
        shared = [m for m, n in counts.items() if n == len(self.people)]
        return sorted(shared, key=lambda m: m != REFERENCE)

    def occasions(self) -> tuple[str, str, list[str]] | None:
        """Return the two occasions that most people share, the earliest of these, and the people."""
        counts: Counter[tuple[str, str]] = Counter()
        for occasions in self.people.values():
            counts.update(combinations(sorted(occasions, key=natural_key), 2))
        if not counts or max(counts.values()) < 2:
            return None
        first, second = min(
            counts, key=lambda p: (-counts[p], natural_key(p[0]), natural_key(p[1]))
        )
        both = [s for s, found in self.people.items() if first in found and second in found]
        return first, second, both


def run(
    inputs: Inputs, outputs: Outputs, config: Config, *, threads: int = 1, device: str = "cpu"
) -> None:
    """Score every set of regions that people share."""
    rows: list[dict[str, Any]] = []
    variables: dict[str, Any] = {}
    coords: dict[str, Any] = {}
    errors: list[AfterimageError] = []
    by_seg: dict[str, list[Path]] = {}
    for path in inputs.connectivity:
        by_seg.setdefault(entity(path, "seg"), []).append(path)
    for seg, files in by_seg.items():
        try:
            group = _read(seg, files)
            if group is None:
                continue
            tables = _identify(group, inputs.series, config, rows)
            _collect(group, tables, variables, coords)
        except AfterimageError as error:
            errors.append(error)
    record_skipped("evaluate_connectivity", outputs.scores, *errors)
    write_tsv(outputs.scores, rows, COLUMNS)
    import xarray

    write_dataset(outputs.matrices, xarray.Dataset(variables, coords=coords))


def _read(seg: str, files: Sequence[Path]) -> Group | None:
    """Read the matrices of all people on the units that they share; None where there are none."""
    shared: list[str] | None = None
    first: dict[str, tuple[str, np.ndarray]] = {}
    for path in files:
        with open_dataset(path) as dataset:
            if dataset.attrs.get("individual"):
                log.info("regions of %s are each person's own: they are not compared", seg)
                return None
            names = dataset["roi"].values.astype(str).tolist()
            if shared is None:
                centres = np.stack([dataset[axis].values for axis in "xyz"], 1)
                networks = dataset["network"].values.astype(str)
                first = {n: (networks[i], centres[i]) for i, n in enumerate(names)}
            shared = names if shared is None else [n for n in shared if n in set(names)]
    if not shared or len(shared) < 2:
        log.warning("people have fewer than two regions of %s in common", seg)
        return None
    group = Group(
        seg, np.array(shared), np.array([first[n][0] for n in shared]),
        np.stack([first[n][1] for n in shared]),
    )  # fmt: skip
    for path in files:
        with open_dataset(path) as dataset:
            place = {n: i for i, n in enumerate(dataset["roi"].values.astype(str).tolist())}
            order = np.array([place[name] for name in shared])
            occasion = _occasions(dataset)
            values = dataset["connectivity"].values[:, :, order][:, :, :, order]
            group.people[entity(path, "sub")] = {
                name: {
                    str(measure): values[occasion == name, m].mean(axis=0)
                    for m, measure in enumerate(dataset["measure"].values)
                }
                for name in dict.fromkeys(occasion.tolist())
            }
    return group


def _occasions(dataset: Any) -> np.ndarray:
    """Return the session of every recording, or its run where there are no sessions."""
    sessions = dataset["session"].values.astype(str)
    return sessions if (sessions != "n/a").all() else dataset["run"].values.astype(str)


def _identify(
    group: Group, series: Sequence[Path], config: Config, rows: list[dict[str, Any]]
) -> dict[str, np.ndarray]:
    """Add the scores of every measure to ``rows``; return the similarities behind them."""
    found = group.occasions()
    if found is None:
        log.info("%s: nobody can be told apart without two sessions of two people", group.seg)
        return {}
    first, second, people = found
    tables: dict[str, tuple[np.ndarray, np.ndarray, str]] = {}
    for measure in group.measures():
        pair = [
            np.stack([edges(group.people[s][occasion][measure]) for s in people])
            for occasion in (first, second)
        ]
        role = "reference measure" if measure == REFERENCE else "other measure"
        similar = similarity(*pair)
        tables[measure] = similar, similar.T, role
    if config.tangent and series:
        tables |= _tangent(group, series, (first, second), people, config)
    settings = {
        "n_permutations": config.n_permutations, "random_state": config.random_state or 0,
    }  # fmt: skip
    for measure, (table, backward, protocol) in tables.items():
        for a, b, similar in ((first, second, table), (second, first, backward)):
            about = {"seg": group.seg, "measure": measure, "first": a, "second": b,
                     "protocol": protocol}  # fmt: skip
            told = discriminability(similar, n_bootstraps=config.n_bootstraps, **settings)
            rows += [score.row() | about for score in (identification(similar, **settings), told)]
        for name, value in zip(("within", "between"), within_and_between(table), strict=True):
            rows.append(about | {"first": first, "second": second, "metric": f"similarity_{name}",
                                 "value": value, "n": len(people)})  # fmt: skip
    return {measure: table for measure, (table, _, _) in tables.items()}


def _tangent(
    group: Group,
    series: Sequence[Path],
    pair: tuple[str, str],
    people: Sequence[str],
    config: Config,
) -> dict[str, tuple[np.ndarray, np.ndarray, str]]:
    """Score the tangent space; nobody who is looked for is in the reference it is made with."""
    files: dict[tuple[str, str], list[Path]] = {}
    for path in series:
        found = read_recording(path) if entity_or_none(path, "seg") == group.seg else ""
        if isinstance(found, Recording):
            occasion = found.session if found.session != "n/a" else found.run
            files.setdefault((found.subject, occasion), []).append(path)
    if any((person, occasion) not in files for person in people for occasion in pair):
        return {}
    others = [key for key in files if key[0] not in people]
    rng = np.random.default_rng(config.random_state or 0)
    if len({key[0] for key in others}) >= ENOUGH_OTHERS:
        folds = [(list(range(len(people))), others)]
        protocol = f"reference of {{n}} recordings of {len({k[0] for k in others})} other people"
    else:
        parts = np.array_split(rng.permutation(len(people)), min(config.n_folds, len(people)))
        folds = [
            (
                part.tolist(),
                [k for k in files if k[0] not in {people[i] for i in part.tolist()}],
            )
            for part in parts
            if len(part)
        ]
        protocol = f"reference of up to {{n}} recordings of other people, {len(folds)} folds"
    table = np.empty((len(people), len(people)))
    backward = np.empty_like(table)
    n_used = 0
    for members, keys in folds:
        drawn = sorted(rng.permutation(len(keys))[: config.max_reference].tolist())
        reference = [r for i in drawn for r in _recordings(files[keys[i]], group)]
        n_used = max(n_used, len(reference))
        measure = CONNECTIVITY.get("tangent")(CONNECTIVITY.settings("tangent")())
        measure.fit([r.values for r in reference], kept=[r.kept for r in reference])
        vectors = []
        for occasion in pair:
            mapped = []
            for person in people:
                runs = list(_recordings(files[person, occasion], group))
                both = measure.transform([r.values for r in runs], kept=[r.kept for r in runs])
                mapped.append(edges(both.mean(axis=0)))
            vectors.append(np.stack(mapped))
        similar = similarity(*vectors)
        table[members] = similar[members]
        backward[members] = similar.T[members]  # rows are who is looked for
    return {"tangent": (table, backward, protocol.format(n=n_used))}


def entity_or_none(path: Path, key: str) -> str:
    """Return the value of an entity of a file name; the label of sensors where it has none."""
    return entity(path, key) if f"_{key}-" in path.name else "sensors"


def _recordings(files: Sequence[Path], group: Group) -> Iterator[Recording]:
    """Read recordings on the units of the group."""
    for path in files:
        found = read_recording(path)
        if isinstance(found, Recording):
            place = {name: index for index, name in enumerate(found.names.tolist())}
            yield found.select(np.array([place[name] for name in group.names.tolist()]))


def _collect(
    group: Group,
    tables: dict[str, np.ndarray],
    variables: dict[str, Any],
    coords: dict[str, Any],
) -> None:
    """Add the mean matrices and the similarities of one set of regions to the dataset."""
    seg, measures = group.seg, group.measures()
    means = []
    for measure in measures:
        total = np.zeros((len(group.names), len(group.names)))
        for occasions in group.people.values():
            total += np.mean([found[measure] for found in occasions.values()], axis=0)
        means.append(total / len(group.people))
    unit, person = f"unit_{seg}", f"person_{seg}"
    variables[f"mean_{seg}"] = (
        (f"measure_{seg}", unit, f"{unit}_"), np.asarray(means, np.float32), {"n": len(group.people)},
    )  # fmt: skip
    coords[f"measure_{seg}"] = np.array(measures, dtype=object)
    coords[f"roi_{seg}"] = (unit, group.names.astype(object))
    coords[f"network_{seg}"] = (unit, group.network.astype(object))
    for axis, values in zip("xyz", group.centres.T, strict=True):
        coords[f"{axis}_{seg}"] = (unit, values)
    if tables:
        found = group.occasions()
        assert found is not None  # noqa: S101  (there are tables)
        first, second, people = found
        coords[f"scored_{seg}"] = np.array(list(tables), dtype=object)
        coords[person] = np.array(people, dtype=object)
        variables[f"similarity_{seg}"] = (
            (f"scored_{seg}", person, f"{person}_"),
            np.asarray(list(tables.values()), np.float32),
            {"first": first, "second": second},
        )
