"""Measure the graph of one subject's regions: degree, clustering, cycles and modules."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field, field_validator

from afterimage.bids.entities import natural_key
from afterimage.bids.names import unit_of
from afterimage.connectivity.graph_measures import modules, node_measures, strongest
from afterimage.errors import InputError
from afterimage.io.arrays import open_dataset
from afterimage.io.tables import write_tsv
from afterimage.settings import StageConfig

VERSION = 2
CITES = ("rubinov2010", "blondel2008")

log = logging.getLogger("afterimage")


class Config(StageConfig):
    """Which graph is measured."""

    measure: str = Field("correlation", description="the measure of connect that makes the edges")
    densities: tuple[float, ...] = Field(
        (0.1, 0.2), min_length=1, description="shares of the pairs that are kept, the strongest"
    )
    bands_mm: tuple[float, ...] = Field(
        (0, 40, 80, 200), description="edges of the bands of distance that degree is counted in"
    )
    resolution: float = Field(1.0, gt=0, description="of modularity: larger, smaller modules")
    n_starts: int = Field(10, ge=1, description="starts of which the best modules are kept")
    random_state: int | None = Field(None, description="seed; default: the root seed")

    @field_validator("densities")
    @classmethod
    def _shares(cls, densities: tuple[float, ...]) -> tuple[float, ...]:
        if not all(0 < value <= 1 for value in densities):
            raise ValueError("densities are shares of all pairs: above 0, up to 1")
        return densities

    @field_validator("bands_mm")
    @classmethod
    def _increase(cls, bands_mm: tuple[float, ...]) -> tuple[float, ...]:
        if any(np.diff(bands_mm) <= 0):
            raise ValueError("edges of bands must increase")
        return bands_mm


@dataclass(frozen=True)
class Inputs:
    """What the stage reads."""

    connectivity: Path


@dataclass(frozen=True)
class Outputs:
    """What the stage writes: one row a density and region, over all sessions and for each."""

    table: Path


def run(
    inputs: Inputs, outputs: Outputs, config: Config, *, threads: int = 1, device: str = "cpu"
) -> None:
    """Measure the graph of connectivity averaged over recordings, of all and of each session."""
    with open_dataset(inputs.connectivity) as dataset:
        measures = dataset["measure"].values.astype(str).tolist()
        if config.measure not in measures:
            raise InputError(
                "a subject has no connectivity to make a graph of",
                where=f"{unit_of(inputs.connectivity)}, {inputs.connectivity.name}",
                found=f"the measures {', '.join(measures)}", expected=config.measure,
                fix="set measure_graphs.measure to one of connect.measures",
            )  # fmt: skip
        matrices = dataset["connectivity"].values[:, measures.index(config.measure)]
        sessions = dataset["session"].values.astype(str)
        about = {"roi": dataset["roi"].values.astype(str).tolist(),
                 "network": dataset["network"].values.astype(str).tolist()}  # fmt: skip
        centres = np.stack([dataset[axis].values for axis in "xyz"], axis=1)
    names = sorted(set(sessions.tolist()), key=natural_key)
    rows: list[dict[str, Any]] = []
    for session in ["n/a", *(names if len(names) > 1 else [])]:
        own = matrices if session == "n/a" else matrices[sessions == session]
        for row in _measure(own.mean(axis=0), centres, config, unit_of(inputs.connectivity)):
            node = row.pop("node")
            rows.append({
                "density": row.pop("density"), "roi": about["roi"][node],
                "network": about["network"][node], "session": session,
                "n_sessions": len(names) if session == "n/a" else 1, **row,
            })  # fmt: skip
    outputs.table.parent.mkdir(parents=True, exist_ok=True)
    write_tsv(outputs.table, rows, list(rows[0]))


def _measure(
    matrix: np.ndarray, centres: np.ndarray, config: Config, where: str
) -> list[dict[str, Any]]:
    """Measure the graph of one matrix, (n_regions, n_regions): a row a density and node."""
    rows = []
    for density in config.densities:
        graph = strongest(matrix, density, where=where)
        found = node_measures(graph, centres, config.bands_mm)
        labels, modularity = modules(
            graph, resolution=config.resolution, n_starts=config.n_starts,
            random_state=config.random_state or 0,
        )  # fmt: skip
        rows += [
            {
                "density": density, "node": node,
                **{key: values[node].item() for key, values in found.items()},
                "module": label, "modularity": modularity,
            }
            for node, label in enumerate(labels.tolist())
        ]  # fmt: skip
    return rows
