"""Sets of features that phenotypes are predicted from: rivals, connectivity, graphs, maps of voxels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from afterimage.errors import AfterimageError, InputError
from afterimage.evaluation import phenotypes
from afterimage.stages.graph_files import VOXELS, read_graphs, read_maps
from afterimage.stages.phenotype_files import (
    People,
    mean_displacement,
    read_column,
    tangent_vectors,
)

if TYPE_CHECKING:
    from afterimage.stages.predict_phenotypes import Config, Inputs

PEOPLE_TABLE = "participants.tsv"


@dataclass(frozen=True, eq=False)
class Features:
    """One set of features.

    Attributes
    ----------
    name, role, protocol : str
    products : list of list of array of shape (n_rows, n_rows)
        Products of all pairs of rows, for every repeat and fold.
    maps : array of shape (n_rows, n_nodes), optional
        Maps of voxels, which a classifier of their own takes; ``products`` is empty then.
    """

    name: str
    role: str
    protocol: str
    products: list[list[np.ndarray]] = field(default_factory=list)
    maps: np.ndarray | None = None


def columns_of(
    people: People,
    inputs: Inputs,
    names: Sequence[str],
    missing: list[AfterimageError] | None = None,
) -> np.ndarray:
    """Return columns of participants.tsv as numbers, (n_rows, n_columns); absent ones are left out."""
    found = [np.zeros((len(people.subjects), 0))]
    for name in names:
        try:
            column = read_column(inputs.tables, PEOPLE_TABLE, name)
        except InputError as error:
            if missing is not None:
                missing.append(error)
            continue
        found.append(column.numbers(people.subjects))
    return np.concatenate(found, axis=1)


def make_features(
    people: People,
    folds: phenotypes.Folds,
    inputs: Inputs,
    config: Config,
    errors: list[AfterimageError],
) -> Iterator[Features]:
    """Yield the rivals, then every set of features of the brain."""
    own = f"{folds.protocol}; nested"
    yield from _rivals(people, folds, inputs, config, errors, own)
    if people.seg == VOXELS:
        yield from _voxels(people, folds, config, errors)
        return
    yield from _connections(people, folds, inputs, config, errors, own)
    if inputs.graphs and config.graph_measures:
        try:
            graphs = read_graphs(people, inputs.graphs, config.graph_density)
        except AfterimageError as error:
            errors.append(error)
            return
        for name in config.graph_measures:
            if name not in graphs:
                continue
            values = graphs[name]
            if name == "modules":  # 0 or 1: whether two regions share a module
                products = [[phenotypes.gram(values)] * len(parts) for parts in folds.repeats]
                yield Features(f"graph_{name}", "features", own, products)
            else:
                said = f"{own}; scaled by training people"
                yield Features(f"graph_{name}", "features", said, _scaled(values, folds))


def _scaled(table: np.ndarray, folds: phenotypes.Folds) -> list[list[np.ndarray]]:
    """Return products of columns that the training rows of every fold scale."""
    products = []
    for parts in folds.repeats:
        scaled = [phenotypes.standardised(table, train) for train, _ in parts]
        products.append([values @ values.T for values in scaled])
    return products


def _rivals(
    people: People,
    folds: phenotypes.Folds,
    inputs: Inputs,
    config: Config,
    errors: list[AfterimageError],
    own: str,
) -> Iterator[Features]:
    motion = np.array(people.censored)[:, None]
    moved = mean_displacement(inputs.motion)
    if moved:
        known = np.array([[moved.get(s, np.nan)] for s in people.subjects])
        motion = np.concatenate([motion, known], axis=1)
    stated = columns_of(people, inputs, config.motion, missing=errors)
    tables = {
        "motion": np.concatenate([motion, stated], axis=1),
        "phenotypes": columns_of(people, inputs, config.covariates),
    }
    if people.seg == VOXELS:  # of a threshold: a graph has more edges where there is more noise
        tables["density"] = read_maps(people, "density")
    for name, table in tables.items():
        spread = np.nan_to_num(np.where(np.isfinite(table), table, np.nan))
        if table.shape[1] and (np.ptp(spread, axis=0) > 1e-6 * np.abs(spread).max(axis=0)).any():
            said = f"{own}; scaled by training people"
            yield Features(name, "rival", said, _scaled(table, folds))


def _connections(
    people: People,
    folds: phenotypes.Folds,
    inputs: Inputs,
    config: Config,
    errors: list[AfterimageError],
    own: str,
) -> Iterator[Features]:
    """Yield every measure of connectivity, and the tangent space."""
    for measure in people.measures:
        if measure == "tangent":  # made with one's own recordings: here others make the reference
            continue
        try:
            matrix = phenotypes.gram(people.edges(measure))
        except AfterimageError as error:
            errors.append(error)
            continue
        products = [[matrix] * len(parts) for parts in folds.repeats]
        yield Features(measure, "features", own, products)
    if config.tangent and people.seg != "sensors" and inputs.series:
        try:
            n_repeats = min(config.tangent_repeats, len(folds.repeats))
            products = []
            for parts in folds.repeats[:n_repeats]:
                products.append([
                    phenotypes.gram(
                        tangent_vectors(people, inputs.series, train, config.max_reference, number)
                    )
                    for number, (train, _) in enumerate(parts)
                ])  # fmt: skip
            protocol = f"{own}; reference of training people, first {n_repeats} of the repeats"
            yield Features("tangent", "features", protocol, products)
        except AfterimageError as error:
            errors.append(error)


def _voxels(
    people: People, folds: phenotypes.Folds, config: Config, errors: list[AfterimageError]
) -> Iterator[Features]:
    """Yield the maps of voxels that are asked for."""
    n_repeats = min(config.map_repeats, len(folds.repeats))
    protocol = (
        f"{folds.protocol}, first {n_repeats} of the repeats; mask of {config.mask_percent:g} % of "
        f"the nodes chosen in each fold, {config.n_components} components, linear discriminants"
    )
    for name in config.voxel_maps:
        try:
            maps = read_maps(people, name)
        except AfterimageError as error:
            errors.append(error)
            continue
        yield Features(
            f"voxels_{name}", "features", f"{protocol}; {maps.shape[1]} nodes", maps=maps
        )
