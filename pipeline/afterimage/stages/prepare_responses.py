"""Check one subject's prepared responses, split them, write them as trials."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from afterimage.bids.names import unit_of
from afterimage.errors import InputError
from afterimage.io.arrays import open_npy
from afterimage.io.atomic import write_json
from afterimage.io.tables import Row, read_json, read_tsv
from afterimage.io.trials import write_trials
from afterimage.preprocess.reliability import Reliability, over_times
from afterimage.preprocess.responses import scan_responses
from afterimage.settings import StageConfig
from afterimage.stages.held_out import HeldOut, hold_out
from afterimage.stages.stimuli import (
    assign_split,
    count_splits,
    read_stimuli,
    split_by_trial,
    trial_coordinates,
    write_split,
)

VERSION = 2
CITES = ("allen2022",)
#: Columns of the trials that name their condition, kept beside the stimulus.
LABELS = ("condition", "trial_type")
#: Trials are read this many at a time.
CHUNK = 256


class Config(StageConfig):
    """How prepared responses become trials."""

    test_fraction: float = Field(
        0.2, gt=0, lt=1, description="share of stimuli to test on, where the dataset has no split"
    )
    held_out: HeldOut = Field(HeldOut(), description="what is held out for test together")
    min_training_trials: int = Field(
        10, ge=2, description="a subject with fewer training trials than this is refused"
    )
    random_state: int | None = Field(None, description="seed of the split; default: the root seed")


@dataclass(frozen=True)
class Inputs:
    """What the stage reads."""

    stimuli_table: Path
    responses: Path
    trials: Path
    units: Path | None = None
    sidecar: Path | None = None


@dataclass(frozen=True)
class Outputs:
    """What the stage writes."""

    trials: Path
    split: Path
    quality: Path


def run(
    inputs: Inputs, outputs: Outputs, config: Config, *, threads: int = 1, device: str = "cpu"
) -> None:
    """Read, check, split and write one subject's responses."""
    subject = unit_of(inputs.responses)
    trials = read_tsv(inputs.trials, required=("stimulus_id",))
    responses = open_npy(inputs.responses)
    _check_shape(responses, trials, inputs, subject)
    folder, where = inputs.stimuli_table.parent / "stimuli", f"{subject}, {inputs.trials}"
    stimuli = read_stimuli(inputs.stimuli_table, folder, trials, where)
    table = read_tsv(inputs.stimuli_table)
    if any(row["file"] != "n/a" for row in table):
        seed = config.random_state or 0
        everything = {row["stimulus_id"]: row for row in table} | stimuli
        grouped = hold_out(
            config.held_out, everything, folder, str(inputs.stimuli_table),
            test_fraction=config.test_fraction, random_state=seed,
        )  # fmt: skip
        split = assign_split(
            trials,
            stimuli,
            (row["stimulus_id"] for row in table),
            (where, str(inputs.stimuli_table)),
            test_fraction=config.test_fraction,
            min_training_trials=config.min_training_trials,
            random_state=seed,
            grouped=grouped,
        )
        splits = np.array([split[row["stimulus_id"]] for row in trials])
    else:
        # Categories return in every trial: people or runs are in one split, not the categories.
        split, splits = split_by_trial(trials, stimuli, (where, str(inputs.stimuli_table)))

    def chunks() -> Iterator[np.ndarray]:
        for start in range(0, len(responses), CHUNK):
            yield responses[start : start + CHUNK]

    scan = scan_responses(chunks())
    if len(scan.bad_trials):
        shown = ", ".join(str(index + 1) for index in scan.bad_trials[:10])
        raise InputError(
            "some trials have values that are not finite",
            where=f"{subject}, {inputs.responses}",
            found=f"NaN or infinity in {len(scan.bad_trials)} of {len(responses)} trials "
            f"(rows {shown}{', ...' if len(scan.bad_trials) > 10 else ''})",
            expected="finite numbers in every unit that has any",
            fix="remove those trials from both files, or replace the values",
        )
    if not scan.usable.any():
        raise InputError(
            "no unit can be used", where=f"{subject}, {inputs.responses}",
            found=f"{len(scan.usable)} units, all constant or never finite",
            expected="units whose responses vary", fix="check how the responses were exported",
        )  # fmt: skip

    ids = np.array([row["stimulus_id"] for row in trials])
    sidecar = read_json(inputs.sidecar) if inputs.sidecar else {}
    times_s = _times(responses, sidecar, inputs, subject)
    ceiling = _ceiling(responses, ids, splits, scan.usable, times_s)
    units = _unit_coordinates(inputs, responses.shape[1], scan.usable, ceiling, subject)
    write_trials(
        outputs.trials,
        (np.asarray(chunk, dtype=np.float32)[:, scan.usable] for chunk in chunks()),
        trial_coordinates(trials, splits, subject)
        | {name: np.array([row[name] for row in trials]) for name in LABELS if name in trials[0]},
        units,
        times_s,
        {
            "subject": subject.removeprefix("sub-"),
            "response_units": str(sidecar.get("units", "arbitrary")),
            "position_units": str(sidecar.get("position_units", "mm")),
        },
    )
    write_split(outputs.split, stimuli, split, ids)
    write_json(outputs.quality, _quality(responses, scan, ceiling, splits, ids, sidecar))


def _check_shape(responses: np.ndarray, trials: list[Row], inputs: Inputs, subject: str) -> None:
    if responses.ndim not in (2, 3):
        raise InputError(
            "responses have the wrong number of dimensions",
            where=f"{subject}, {inputs.responses}",
            found=f"shape {responses.shape}",
            expected="(n_trials, n_units) or (n_trials, n_units, n_times)",
            fix="reshape the array before saving it",
        )
    if len(responses) != len(trials) or not len(trials):
        raise InputError(
            "responses and trials differ in length" if len(trials) else "a subject has no trials",
            where=f"{subject}, {inputs.responses} and {inputs.trials}",
            found=f"{len(responses)} rows of responses, {len(trials)} trials",
            expected="one row of responses a trial, in the same order, and at least one",
            fix="export both from the same list of trials",
        )
    if not responses.shape[1] or 0 in responses.shape:
        raise InputError(
            "responses have no units", where=f"{subject}, {inputs.responses}",
            found=f"shape {responses.shape}", expected="at least one unit",
            fix="export the responses again",
        )  # fmt: skip


def _ceiling(
    responses: np.ndarray,
    ids: np.ndarray,
    splits: np.ndarray,
    usable: np.ndarray,
    times_s: np.ndarray | None,
) -> np.ndarray:
    """Noise ceiling per unit from repeats of training stimuli, over times after onset.

    Trials are read stimulus by stimulus, once, so that memory does not grow with their number.
    """
    rows = np.flatnonzero(splits == "train")
    ceiling = np.full(len(usable), np.nan, dtype=np.float32)
    if len(np.unique(ids[rows])) == len(rows):
        return ceiling
    rows = rows[np.argsort(ids[rows], kind="stable")]
    times = np.zeros(1) if times_s is None else times_s
    sums = Reliability((int(usable.sum()), len(times)))
    for start in range(0, len(rows), CHUNK):
        part = rows[start : start + CHUNK]
        trials = np.asarray(responses[part], dtype=np.float32)[:, usable]
        sums.update(trials.reshape(len(part), -1, len(times)), ids[part])
    ceiling[usable] = over_times(sums.noise_ceiling(), times)
    return ceiling


def _unit_coordinates(
    inputs: Inputs, n_units: int, usable: np.ndarray, ceiling: np.ndarray, subject: str
) -> dict[str, np.ndarray]:
    table = read_tsv(inputs.units, required=("kind",)) if inputs.units else []
    if inputs.units and len(table) != n_units:
        raise InputError(
            "the table of units has the wrong length", where=f"{subject}, {inputs.units}",
            found=f"{len(table)} rows", expected=f"{n_units}, one a unit of the responses",
            fix="write one row a column of the responses, in the same order",
        )  # fmt: skip
    coordinates = {
        "kind": np.array([row["kind"] for row in table] or ["unit"] * n_units),
        "roi": np.array([row.get("roi", "n/a") for row in table] or ["n/a"] * n_units),
        "ceiling": ceiling,
        "column": np.arange(n_units),
    }
    if table and "name" in table[0]:
        coordinates["name"] = np.array([row["name"] for row in table])
    for axis in ("x", "y", "z"):
        if table and axis in table[0]:
            coordinates[axis] = _positions(table, axis, inputs, subject)
    return {name: values[usable] for name, values in coordinates.items()}


def _positions(table: list[Row], axis: str, inputs: Inputs, subject: str) -> np.ndarray:
    """Return one coordinate of all units; NaN where it is ``n/a``."""
    values = np.full(len(table), np.nan)
    for index, row in enumerate(table):
        try:
            values[index] = np.nan if row[axis] == "n/a" else float(row[axis])
            if row[axis] != "n/a" and not np.isfinite(values[index]):
                raise ValueError(row[axis])
        except ValueError:
            raise InputError(
                "the position of a unit is not a number",
                where=f"{subject}, {inputs.units}, line {index + 2}, column {axis}",
                found=row[axis], expected="a number, or n/a", fix="correct the cell",
            ) from None  # fmt: skip
    return values


def _times(
    responses: np.ndarray, sidecar: dict[str, Any], inputs: Inputs, subject: str
) -> np.ndarray | None:
    if responses.ndim == 2:
        return None
    rate: Any = sidecar.get("sampling_rate_hz")
    tmin: Any = sidecar.get("tmin_s", 0.0)
    numbers = all(isinstance(v, int | float) and np.isfinite(v) for v in (rate, tmin))
    if not numbers or rate <= 0:
        raise InputError(
            "responses with a time axis need their sampling rate",
            where=f"{subject}, {inputs.sidecar or inputs.responses.with_suffix('.json')}",
            found=f"sampling_rate_hz = {rate!r}, tmin_s = {tmin!r}",
            expected="sampling_rate_hz (> 0) and tmin_s in seconds from onset",
            fix=f"write them to {inputs.responses.with_suffix('.json').name}",
        )
    return float(tmin) + np.arange(responses.shape[2]) / float(rate)


def _quality(
    responses: np.ndarray,
    scan: Any,
    ceiling: np.ndarray,
    splits: np.ndarray,
    ids: np.ndarray,
    sidecar: dict[str, Any],
) -> dict[str, Any]:
    finite = ceiling[np.isfinite(ceiling)]
    return {
        "n_units": int(scan.usable.size),
        "n_units_kept": int(scan.usable.sum()),
        "units_constant": np.flatnonzero(scan.constant).tolist(),
        "units_never_finite": np.flatnonzero(scan.never_finite).tolist(),
        "n_times": int(responses.shape[2]) if responses.ndim == 3 else None,
        "response_units": str(sidecar.get("units", "arbitrary")),
        **count_splits(splits, ids),
        "ceiling_median": float(np.median(finite)) if len(finite) else None,
    }
