"""Predict phenotypes of people from their connectivity, beside motion and other phenotypes."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from afterimage.bids.names import entity
from afterimage.connectivity.cycle_classifier import out_of_fold
from afterimage.errors import AfterimageError, InputError
from afterimage.evaluation import phenotypes
from afterimage.evaluation.phenotype_scores import score
from afterimage.evaluation.statistics import holm
from afterimage.io.tables import write_tsv
from afterimage.settings import Settings, StageConfig
from afterimage.stages.graph_files import VOXELS, read_mapped
from afterimage.stages.phenotype_features import (
    PEOPLE_TABLE,
    Features,
    columns_of,
    make_features,
)
from afterimage.stages.phenotype_files import Column, People, read_column, read_people
from afterimage.stages.runner import record_skipped

VERSION = 3
CITES = ("varoquaux2017", "an2007", "winkler2015", "snoek2019", "dadi2019")

log = logging.getLogger("afterimage")

COLUMNS = (
    "target", "seg", "features", "role", "metric", "value", "ci_low", "ci_high", "chance",
    "chance_low", "chance_high", "p", "p_holm", "ci_all_low", "ci_all_high", "n", "protocol", "note",
)  # fmt: skip
#: Numbers with this many values or fewer are taken as classes.
FEW_VALUES = 2


class Target(Settings):
    """One phenotype to predict."""

    column: str = Field(description="column of the table")
    file: str = Field(PEOPLE_TABLE, description="table at the root of the dataset")
    where: dict[str, str] = Field(
        default={}, description="column: value; only these rows of the table count"
    )
    kind: Literal["auto", "number", "category"] = Field(
        "auto", description="auto: numbers with more than two values are numbers, else classes"
    )


class Config(StageConfig):
    """Which phenotypes are predicted, and how."""

    targets: dict[str, Target] = Field(
        default={}, description="name: a column of a table; none: nothing is predicted"
    )
    sessions: str = Field(
        "mean",
        description="mean over all, the first, all (one row each; a person stays on one side of "
        "every fold), or the label of one session",
    )
    tangent: bool = Field(
        True, description="also the tangent space, its reference from training people of each fold"
    )
    tangent_repeats: int = Field(
        1, ge=1, description="repeats of the folds that the tangent space is made for"
    )
    graph_measures: tuple[
        Literal["degree", "strength", "distance", "clustering", "cycles", "modules"], ...
    ] = Field(
        ("degree", "strength", "distance", "clustering", "cycles", "modules"),
        description="measures of the graphs of regions, from measure_graphs; distance: degree by "
        "band of distance; modules: which regions share one",
    )
    graph_density: float | None = Field(
        None, gt=0, le=1, description="of these graphs; default: the first of measure_graphs"
    )
    voxel_maps: tuple[str, ...] = Field(
        ("cycles",),
        description="maps of map_graphs that tell classes apart where they were made, in a standard "
        "space: degree, strength, cycles, clustering",
    )
    mask_percent: float = Field(
        10.0,
        gt=0,
        le=100,
        description="share of the voxels' nodes in the mask of every fold, in %",
    )
    n_components: int = Field(
        10, ge=1, description="principal components of the nodes in the mask"
    )
    map_repeats: int = Field(1, ge=1, description="repeats of the folds, for maps of voxels")
    map_permutations: int = Field(
        200, ge=100, description="permutations for maps of voxels, n_permutations at most"
    )
    max_reference: int = Field(
        100, ge=2, description="people that a reference of the tangent space is made of, at most"
    )
    classifier: Literal["ridge", "logistic"] = Field(
        "ridge", description="for classes; logistic is slow with many permutations"
    )
    covariates: tuple[str, ...] = Field(
        ("age", "sex"), description="columns of participants.tsv that are a rival where they exist"
    )
    motion: tuple[str, ...] = Field(
        (), description="columns of participants.tsv on motion, beside mean displacement"
    )
    confounds: tuple[str, ...] = Field(
        (), description="columns of participants.tsv regressed out of features inside each fold"
    )
    group_column: str = Field(
        "", description="column of participants.tsv, as family: never on both sides of a fold"
    )
    site_column: str = Field(
        "", description="column of participants.tsv with the site; permuted within sites only"
    )
    leave_site_out: bool = Field(False, description="folds are sites")
    n_folds: int = Field(5, ge=2, description="parts that people are divided into")
    n_repeats: int = Field(10, ge=1, description="times that this is done anew")
    n_permutations: int = Field(1000, ge=100, description="permutations of people for chance")
    n_bootstraps: int = Field(1000, ge=100, description="resamples of people for intervals")
    random_state: int | None = Field(None, description="seed; default: the root seed")


@dataclass(frozen=True)
class Inputs:
    """What the stage reads: connectivity and series, tables of phenotypes, motion of scans.

    Of graphs, the tables of regions (`graphs`) and the maps of voxels (`maps`).
    """

    connectivity: tuple[Path, ...]
    series: tuple[Path, ...] = ()
    tables: tuple[Path, ...] = ()
    motion: tuple[Path, ...] = ()
    graphs: tuple[Path, ...] = ()
    maps: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Outputs:
    """What the stage writes."""

    scores: Path


def run(
    inputs: Inputs, outputs: Outputs, config: Config, *, threads: int = 1, device: str = "cpu"
) -> None:
    """Predict every target from every set of features; what cannot be is noted."""
    rows: list[dict[str, Any]] = []
    errors: list[AfterimageError] = []
    by_seg: dict[str, list[Path]] = {}
    for path in inputs.connectivity:
        by_seg.setdefault(entity(path, "seg"), []).append(path)
    columns: dict[str, Column] = {}
    for name, target in config.targets.items():
        try:
            column = read_column(inputs.tables, target.file, target.column, target.where)
            if not column.values:
                raise InputError(
                    "a phenotype has no value", where=f"predict_phenotypes.targets.{name}",
                    found=f"{target.column} of {target.file} is n/a for everybody",
                    expected="values", fix="correct the column, or where",
                )  # fmt: skip
            columns[name] = column
        except AfterimageError as error:
            errors.append(error)
            rows.append({"target": name, "note": error.what})
    if inputs.maps and config.voxel_maps:
        by_seg[VOXELS] = list(inputs.maps)
    for seg, files in by_seg.items() if columns else ():
        try:
            everybody: People | str | None
            if seg == VOXELS:
                everybody = read_mapped(files, config.sessions)
            else:
                everybody = read_people(files, config.sessions)
            if isinstance(everybody, str):
                rows += [{"target": name, "seg": seg, "note": everybody} for name in columns]
            elif everybody is not None:
                _predict_all(everybody, columns, inputs, config, rows, errors)
        except AfterimageError as error:
            errors.append(error)
            rows += [{"target": name, "seg": seg, "note": error.what} for name in columns]
    record_skipped("predict_phenotypes", outputs.scores, *errors)
    write_tsv(outputs.scores, rows, COLUMNS)


def _predict_all(
    everybody: People,
    columns: dict[str, Column],
    inputs: Inputs,
    config: Config,
    rows: list[dict[str, Any]],
    errors: list[AfterimageError],
) -> None:
    """Predict all targets on one set of regions; folds and features are made once for all."""
    some = [
        row
        for row, subject in enumerate(everybody.subjects)
        if any(subject in column.values for column in columns.values())
    ]
    people = everybody.select(some)
    if not some:
        raise InputError(
            "nobody with connectivity has a phenotype", where=everybody.seg,
            found=f"{len(everybody.subjects)} people with connectivity", expected="the same labels",
            fix="check participant_id of the table",
        )  # fmt: skip
    sites = None
    if config.site_column:
        sites = _labels(people, inputs, config.site_column)
    groups = _labels(people, inputs, config.group_column)
    seed = config.random_state or 0
    folds = phenotypes.make_folds(
        groups,
        sites=sites if config.leave_site_out else None,
        n_folds=config.n_folds,
        n_repeats=config.n_repeats,
        random_state=seed,
    )
    confounds = None
    if config.confounds:
        confounds = columns_of(people, inputs, config.confounds, missing=errors)
    features = list(make_features(people, folds, inputs, config, errors))
    for name, column in columns.items():
        try:
            rows += _predict(name, column, people, folds, features, confounds, sites, config)
        except AfterimageError as error:
            errors.append(error)
            rows.append({"target": name, "seg": people.seg, "note": error.what})


def _labels(people: People, inputs: Inputs, column: str) -> np.ndarray:
    """Return the label of a column for every row; a person without one is a group of their own."""
    values = read_column(inputs.tables, PEOPLE_TABLE, column).values if column else {}
    return np.array([values.get(s, f"sub-{s}") for s in people.subjects])


def _encode(
    name: str, column: Column, kind: str, subjects: Sequence[str], n_folds: int
) -> tuple[np.ndarray, np.ndarray, str]:
    """Return rows with a value, their labels (n, 1) or (n, 1, n_classes), and the protocol."""
    rows = np.array([row for row, subject in enumerate(subjects) if subject in column.values], int)
    texts = [column.values[subjects[row]] for row in rows]
    values = sorted(set(texts))
    where = f"predict_phenotypes.targets.{name}"
    if len(values) < 2:
        raise InputError(
            "a phenotype has one value only", where=where,
            found=f"{values[0] if values else 'none'} for {len(rows)} people with connectivity",
            expected="two or more", fix="leave it out",
        )  # fmt: skip
    if kind == "number" and not column.numeric:
        raise InputError(
            "a phenotype is no number", where=where, found=", ".join(values[:4]),
            expected="numbers", fix="set its kind to category",
        )  # fmt: skip
    n_people = len({subjects[row] for row in rows})
    if n_people < 2 * n_folds:
        raise InputError(
            "too few people have a phenotype", where=where, found=f"{n_people} people",
            expected=f"{2 * n_folds} or more for {n_folds} folds", fix="lower n_folds, or leave it out",
        )  # fmt: skip
    numeric = column.numeric and (kind == "number" or len({*map(float, texts)}) > FEW_VALUES)
    if numeric and kind != "category":
        return rows, np.array([[float(text)] for text in texts]), "ridge"
    counts = [texts.count(value) for value in values]
    if min(counts) < n_folds:
        raise InputError(
            "a class has fewer people than there are folds", where=where,
            found=f"{min(counts)} of {values[int(np.argmin(counts))]}", expected=f"{n_folds} or more",
            fix="lower n_folds, join classes, or set its kind to number",
        )  # fmt: skip
    labels = np.array([[[float(text == value) for value in values]] for text in texts])
    said = ", ".join(f"{value} ({n})" for value, n in zip(values, counts, strict=True))
    return rows, labels, f"classes {said}"


def _predict(
    name: str,
    column: Column,
    people: People,
    folds: phenotypes.Folds,
    features: Sequence[Features],
    confounds: np.ndarray | None,
    sites: np.ndarray | None,
    config: Config,
) -> list[dict[str, Any]]:
    """Return the rows of one target: every set of features and metric."""
    kind = config.targets[name].kind
    n_folds = 2 if config.leave_site_out else config.n_folds
    rows, labels, said = _encode(name, column, kind, people.subjects, n_folds)
    own, seed = folds.select(rows), config.random_state or 0
    subjects = np.array(people.subjects)[rows]
    drawn = phenotypes.permuted_rows(
        subjects, own.groups, None if sites is None else sites[rows],
        n_permutations=config.n_permutations, random_state=seed,
    )  # fmt: skip
    every = np.concatenate([labels, np.moveaxis(labels[:, 0][drawn], 0, 1)], axis=1)
    classes = labels.ndim == 3
    metrics = ["r", "r2"]
    if classes:
        metrics = ["balanced_accuracy", *(["auc"] if labels.shape[2] == 2 else [])]
    if len(subjects) > len(set(subjects.tolist())):
        said += f"; {len(set(subjects.tolist()))} people"
    if confounds is not None and confounds.shape[1]:
        said += f"; without {', '.join(config.confounds)}"
    table: list[dict[str, Any]] = []
    # Discriminants, of maps, tell classes apart only.
    features = [one for one in features if one.maps is None or classes]
    n_tries = sum(one.role == "features" for one in features)
    for one in features:
        truth, guess = _guess(one, rows, every, own, folds, confounds, config)
        for metric in metrics:
            scored = score(
                truth, guess, own, metric, n_tries=1 if one.role == "rival" else n_tries,
                n_bootstraps=config.n_bootstraps, random_state=seed,
            )  # fmt: skip
            table.append(scored.row() | {
                "target": name, "seg": people.seg, "features": one.name, "role": one.role,
                "protocol": f"{_fit_name(one, config, classes)}{said}; {one.protocol}",
            })  # fmt: skip
    for metric in metrics:
        tests = [r for r in table if r["metric"] == metric and r["role"] == "features"]
        for row, p in zip(tests, holm([r["p"] for r in tests]), strict=True):
            row["p_holm"] = float(p)
    return table


def _fit_name(one: Features, config: Config, classes: bool) -> str:
    """Name the classifier, before the classes; of numbers, what is said names it."""
    if not classes:
        return ""
    return "" if one.maps is not None else f"{config.classifier}, "


def _guess(
    one: Features,
    rows: np.ndarray,
    every: np.ndarray,
    own: phenotypes.Folds,
    folds: phenotypes.Folds,
    confounds: np.ndarray | None,
    config: Config,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the labels, as they are and permuted, and what is predicted for each.

    Parameters
    ----------
    one : Features
        Of all people.
    rows : array of int
        People with a value.
    every : array of shape (n_rows, 1 + n_permutations, n_outputs)
    own, folds : Folds
        Of these rows, and of all people.
    """
    seed = config.random_state or 0
    if one.maps is not None:
        kept = every[:, : 1 + config.map_permutations]
        outputs = [
            out_of_fold(
                one.maps[rows], kept.argmax(axis=2), parts, n_classes=kept.shape[2],
                mask_percent=config.mask_percent, n_components=config.n_components,
                random_state=seed,
            )
            for parts in own.repeats[: config.map_repeats]
        ]  # fmt: skip
        return kept, np.stack(outputs)
    products = [
        [
            matrix[np.ix_(rows, rows)]
            for matrix, (_, test) in zip(matrices, parts, strict=True)
            if test[rows].any()
        ]
        for matrices, parts in zip(one.products, folds.repeats, strict=False)
    ]
    guess = phenotypes.cross_validate(
        products, every, own,
        confounds=confounds[rows] if confounds is not None and one.role != "rival" else None,
        logistic=every.ndim == 3 and config.classifier == "logistic", random_state=seed,
    )  # fmt: skip
    return every, guess
