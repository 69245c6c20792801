"""Factor the time-resolved connectivity of people who share their times; find blocks in its graphs."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from afterimage.connectivity.block_models import LEIDEN, Blocks, find_graph_tool, fit_blocks
from afterimage.connectivity.graph_measures import strongest
from afterimage.connectivity.tensor_factors import (
    Factors,
    affinity_tensor,
    communities,
    effective_people,
    fit_factors,
    held_out_errors,
    leave_one_out_scores,
)
from afterimage.errors import AfterimageError, InputError
from afterimage.io.arrays import write_dataset
from afterimage.io.tables import write_tsv
from afterimage.settings import StageConfig
from afterimage.stages.runner import record_skipped
from afterimage.stages.series_files import Recording, common_units, read_recordings

VERSION = 2
CITES = ("dyballa2024", "cichocki2009", "peixoto2018", "traag2019")
COLUMNS = ("roi", "network", "community", "graph", "block", "n_blocks", "method", "quality", "p")

log = logging.getLogger("afterimage")


class Config(StageConfig):
    """How connectivity over time is factored; off unless it is enabled."""

    enabled: bool = Field(
        False, description="factor connectivity over time: people must share their times (a film)"
    )
    window_s: float = Field(30.0, gt=0, description="length of the windows of co-activation")
    ranks: tuple[int, ...] = Field(
        (2, 3, 4, 5, 6), min_length=1,
        description="numbers of components, of which held-out entries choose one",
    )  # fmt: skip
    n_starts: int = Field(5, ge=2, description="starts, of which the best is kept")
    n_iter_max: int = Field(100, ge=10, description="updates of all factors a start")
    n_left_out: int = Field(
        10, ge=0, description="people left out, one at a time, to see whether components stay"
    )
    density: float = Field(
        0.2, gt=0, le=1, description="share of the pairs that graphs for blocks keep"
    )
    graph_tool: bool = Field(
        True, description="fit block models where graph-tool is found; else, or false, Leiden"
    )
    n_nulls: int = Field(
        100, ge=99, description="null graphs that communities of Leiden must beat"
    )
    random_state: int | None = Field(None, description="seed; default: the root seed")


@dataclass(frozen=True)
class Inputs:
    """What the stage reads: the series of all people on one set of regions."""

    series: tuple[Path, ...]


@dataclass(frozen=True)
class Outputs:
    """What the stage writes: factors, and one row a graph and region."""

    factors: Path
    table: Path


def run(
    inputs: Inputs, outputs: Outputs, config: Config, *, threads: int = 1, device: str = "cpu"
) -> None:
    """Choose the rank on held-out entries, fit, and find blocks in the graph of each component."""
    recordings, notes = read_recordings(inputs.series)
    used, errors = _one_each(recordings, notes)
    record_skipped("factor_connectome", outputs.factors, *errors)
    rate_hz = used[0].sampling_rate_hz
    window = max(3, round(config.window_s * rate_hz)) if rate_hz > 0 else 15
    tensor = affinity_tensor([recording.values for recording in used], window)
    seed = config.random_state or 0
    missing = np.broadcast_to(np.eye(len(tensor), dtype=bool)[:, :, None, None], tensor.shape)
    held_out = held_out_errors(
        tensor, config.ranks, missing=missing, n_iter_max=config.n_iter_max, random_state=seed
    )
    rank = config.ranks[int(held_out.argmin())]
    factors = fit_factors(
        tensor, rank, missing=missing, n_starts=config.n_starts, n_iter_max=config.n_iter_max,
        random_state=seed,
    )  # fmt: skip
    n_people = tensor.shape[-1]
    left_out = np.unique(
        np.linspace(0, n_people - 1, min(config.n_left_out, n_people)).astype(int)
    )
    stays = leave_one_out_scores(
        tensor, factors, missing=missing, people=left_out.tolist(), n_starts=config.n_starts,
        n_iter_max=config.n_iter_max, random_state=seed,
    ).reshape(-1, rank)  # fmt: skip
    python = find_graph_tool() if config.graph_tool else None
    if python is None:
        notes.append(f"graph-tool was not used: blocks are communities of Leiden ({LEIDEN})")
    graphs = interval_graphs(factors)
    blocks = {}
    for name, matrix in graphs.items():
        graph = strongest(matrix, config.density, where=f"graph {name}")
        blocks[name] = fit_blocks(
            graph, graph_tool=python, n_nulls=config.n_nulls, random_state=seed
        )
    outputs.factors.parent.mkdir(parents=True, exist_ok=True)
    checks = {
        "held_out_error": (("rank",), held_out),
        "leave_one_out": (("left_out", "component"), stays),
        "effective_people": (("component",), effective_people(factors)),
    }
    _write(outputs, used, factors, blocks, checks, window, config, notes)
    for note in notes:
        log.info("%s: %s", outputs.factors.name, note)


def _one_each(
    recordings: Sequence[Recording], notes: list[str]
) -> tuple[list[Recording], list[AfterimageError]]:
    """Return the first recording of everybody, on common units, without gaps."""
    first: dict[str, Recording] = {}
    errors: list[AfterimageError] = []
    for recording in recordings:
        if recording.subject not in first:
            first[recording.subject] = recording
    for subject, recording in list(first.items()):
        if recording.sampling_rate_hz != next(iter(first.values())).sampling_rate_hz:
            errors.append(InputError(
                "a recording has another sampling rate than the first", where=f"sub-{subject}",
                found=f"{recording.sampling_rate_hz:g} Hz", expected="the same for all",
                fix="resample it, or leave it out",
            ))  # fmt: skip
            del first[subject]
    if len(first) < 3:
        raise InputError(
            "too few people to factor connectivity over people", found=f"{len(first)}",
            expected="3 or more with a recording of the same times", fix="add people, or disable it",
        )  # fmt: skip
    extra = len(recordings) - len(first) - len(errors)
    if extra:
        notes.append(f"{extra} further recordings of the same people were not used")
    # Censored samples are 0, which is the mean: they add nothing to co-activation.
    used, dropped = common_units(list(first.values()))
    if dropped:
        notes.append(f"{len(dropped)} units are not in all recordings, or do not vary")
    return used, errors


def interval_graphs(factors: Factors) -> dict[str, np.ndarray]:
    """Return graphs of units: over all times, and while each component is strong.

    A component alone is a product of two vectors, in which modularity finds nothing by construction;
    a graph holds all components, weighted by their time in the interval.

    Returns
    -------
    dict of str to array of shape (n_units, n_units)
        ``all``; ``component1``: while its time factor is above half of its maximum.
    """
    first, second, times, people = factors.factors
    level = factors.weights * people.mean(axis=0)

    def graph(share: np.ndarray) -> np.ndarray:
        matrix = (first * (level * share)) @ second.T
        return np.asarray((matrix + matrix.T) / 2)

    found = {"all": graph(times.mean(axis=0))}
    for number in range(times.shape[1]):
        strong = times[:, number] >= times[:, number].max() / 2
        found[f"component{number + 1}"] = graph(times[strong].mean(axis=0))
    return found


def _write(
    outputs: Outputs,
    used: Sequence[Recording],
    factors: Factors,
    blocks: dict[str, Blocks],
    checks: dict[str, Any],
    window: int,
    config: Config,
    notes: Sequence[str],
) -> None:
    import xarray

    names = used[0].names
    networks = used[0].units.get("network", np.full(len(names), "n/a")).astype(str)
    first, second, times, people = factors.factors
    dataset = xarray.Dataset(
        {
            "unit_factor": (("unit", "component"), (first + second) / 2),
            "time_factor": (("window", "component"), times),
            "person_factor": (("person", "component"), people),
            "weight": ("component", factors.weights),
            **checks,
        },
        coords={
            "roi": ("unit", names.astype(object)),
            "network": ("unit", networks.astype(object)),
            "person": ("person", np.array([r.subject for r in used], dtype=object)),
            "rank": ("rank", np.array(config.ranks)),
        },
        attrs={
            "seg": used[0].seg, "window_samples": window, "sampling_rate_hz": used[0].sampling_rate_hz,
            "relative_error": factors.relative_error, "match_score": factors.match_score,
            "notes": "; ".join(notes),
        },
    )  # fmt: skip
    write_dataset(outputs.factors, dataset)
    members = communities(factors)
    rows: list[dict[str, Any]] = [
        {
            "roi": name, "network": network, "community": int(member) + 1, "graph": graph,
            "block": int(label), "n_blocks": found.n_blocks, "method": found.method,
            "quality": found.quality, "p": found.p,
        }
        for graph, found in blocks.items()
        for name, network, member, label in zip(
            names.tolist(), networks.tolist(), members.tolist(), found.labels.tolist(), strict=True
        )
    ]  # fmt: skip
    write_tsv(outputs.table, rows, COLUMNS)
