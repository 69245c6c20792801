"""Check one recording of prepared series (a table or array, or what xcp_d writes); write it as ours."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from afterimage.bids.names import entity
from afterimage.bids.sidecars import read_sidecars
from afterimage.errors import InputError
from afterimage.io.arrays import open_npy
from afterimage.io.tables import read_tsv
from afterimage.settings import StageConfig
from afterimage.signal.projection import projection
from afterimage.stages.runner import record_skipped
from afterimage.stages.series_files import write_empty_series, write_recording

VERSION = 1
CITES = ("lindquist2019", "mehta2024")

log = logging.getLogger("afterimage")


class Config(StageConfig):
    """How prepared series are checked; their mean is always removed."""

    segmentations: tuple[str, ...] = Field(
        (), description="labels (seg- or atlas- of the file names) to read; empty: all there are"
    )
    high_pass_hz: float | None = Field(
        None, gt=0, description="lower edge of a band to keep, where they are not filtered yet"
    )
    low_pass_hz: float | None = Field(None, gt=0, description="upper edge of that band")
    max_nonfinite_fraction: float = Field(
        0.1, ge=0, le=1, description="a run with a larger share of samples with gaps is refused"
    )
    min_degrees_of_freedom: int = Field(
        10, ge=1, description="a run that keeps fewer samples is left out"
    )
    on_bad_run: Literal["skip", "fail"] = Field(
        "skip", description="whether a run that cannot be used is left out or stops the job"
    )

    @model_validator(mode="after")
    def _is_possible(self) -> Self:
        if self.high_pass_hz and self.low_pass_hz and self.high_pass_hz >= self.low_pass_hz:
            raise ValueError("high_pass_hz must be below low_pass_hz")
        return self


@dataclass(frozen=True)
class Inputs:
    """What the stage reads; `confounds` is the table of outliers that xcp_d writes."""

    series: Path
    sidecar: tuple[Path, ...] = ()
    units: Path | None = None
    confounds: Path | None = None


@dataclass(frozen=True)
class Outputs:
    """What the stage writes; the table has a sidecar beside it."""

    series: Path
    table: Path


def run(
    inputs: Inputs, outputs: Outputs, config: Config, *, threads: int = 1, device: str = "cpu"
) -> None:
    """Read, check and write; a recording that cannot be used is left out, and recorded."""
    try:
        _prepare(inputs, outputs, config)
    except InputError as error:
        if config.on_bad_run == "fail":
            raise
        record_skipped("prepare_series", outputs.series, error)
        write_empty_series(outputs.series, outputs.table, str(error))


def _prepare(inputs: Inputs, outputs: Outputs, config: Config) -> None:
    where = str(inputs.series)
    values, names = _read(inputs.series)
    units = _units(inputs.units, values.shape, names, where)
    rate_hz = _sampling_rate_hz(read_sidecars(inputs.sidecar), where)
    values, censored = _censored(values, inputs.confounds, where)
    notes: list[str] = []
    finite = np.isfinite(values)
    # As xcp_d writes regions that the scan does not cover.
    empty = ~finite[~censored].any(axis=0)
    if empty.all() and not censored.all():
        raise InputError(
            "a series holds no numbers", where=where, found=f"shape {values.shape}, all n/a",
            expected="numbers", fix="write it again",
        )  # fmt: skip
    if empty.any() and not censored.all():
        lost = units["roi"][empty].tolist()
        notes.append(
            f"{len(lost)} regions hold no numbers and were left out: {', '.join(lost[:8])}"
        )
        values, finite = values[:, ~empty], finite[:, ~empty]
        units = {name: column[~empty] for name, column in units.items()}
    gaps = ~finite.all(axis=1) & ~censored
    if gaps.sum() > config.max_nonfinite_fraction * len(values):
        column = int(np.flatnonzero(~finite[gaps].all(axis=0))[0])
        raise InputError(
            "a series holds values that are no finite numbers", where=where,
            found=f"{int(gaps.sum())} of {len(values)} samples, the first in {units['roi'][column]}",
            expected=f"at most {100 * config.max_nonfinite_fraction:g} % of the samples",
            fix="write n/a for whole samples that are censored, or drop the regions",
        )  # fmt: skip
    if gaps.any():
        notes.append(f"{int(gaps.sum())} samples with gaps are censored")
    free = projection(
        len(values), kept=~(censored | gaps), sampling_rate_hz=rate_hz,
        high_pass_hz=config.high_pass_hz, low_pass_hz=config.low_pass_hz,
        min_degrees_of_freedom=config.min_degrees_of_freedom, where=where,
    )  # fmt: skip
    attributes: dict[str, Any] = {
        "sampling_rate_hz": rate_hz, "start_time_s": 0.0, "source": "prepared", "problem": "",
        "seg": entity(outputs.series, "seg"), "high_pass_hz": config.high_pass_hz or 0.0,
        "low_pass_hz": config.low_pass_hz or 0.0, "n_confounds": 0, "individual": 0,
        "degrees_of_freedom": free.degrees_of_freedom, "notes": "; ".join(notes),
    }  # fmt: skip
    write_recording(
        outputs.series, outputs.table, free.apply(values), ~free.kept, units, attributes
    )
    for note in notes:
        log.info("%s: %s", inputs.series.name, note)


def _read(path: Path) -> tuple[np.ndarray, list[str]]:
    """Return values (n_times, n_units) float64 with NaN for what is missing, and names, if known."""
    if path.suffix == ".npy":
        array = open_npy(path)
        if array.ndim != 2:
            raise InputError(
                "a series has the wrong number of dimensions", where=str(path),
                found=f"shape {array.shape}", expected="(n_times, n_units)",
                fix="save an array of two dimensions",
            )  # fmt: skip
        return np.asarray(array, dtype=np.float64), []
    rows = read_tsv(path)
    names = list(rows[0]) if rows else []
    try:
        missing = {"n/a": np.nan, "": np.nan}
        cells = [[missing[c] if c in missing else float(c) for c in row.values()] for row in rows]
    except ValueError as error:
        raise InputError(
            "a series holds text", where=str(path), found=str(error)[:120],
            expected="numbers, n/a where missing; one column a region under its name",
            fix="remove columns that are no regions",
        ) from None  # fmt: skip
    if not cells:
        raise InputError(
            "a series is empty", where=str(path), found="a header only",
            expected="one row a sample", fix="write it again",
        )  # fmt: skip
    return np.asarray(cells, dtype=np.float64), names


def _units(
    path: Path | None, shape: tuple[int, ...], names: list[str], where: str
) -> dict[str, np.ndarray]:
    """Return the coordinates of the units: from their table, else from the header."""
    n_units = shape[1]
    nan = np.full(n_units, np.nan, dtype=np.float32)
    units: dict[str, np.ndarray] = {
        "kind": np.full(n_units, "parcel"),
        "roi": np.array(names or [f"region{i + 1:04d}" for i in range(n_units)]),
        "network": np.full(n_units, "n/a"),
        **dict.fromkeys("xyz", nan),
    }
    if path is None:
        return units
    rows = read_tsv(path)
    if len(rows) != n_units:
        turned = " (is the array transposed?)" if len(rows) == shape[0] else ""
        raise InputError(
            "the table of units does not belong to the series", where=f"{where} and {path}",
            found=f"{len(rows)} rows, {n_units} columns of values{turned}",
            expected="one row a unit, in the order of the columns",
            fix="save the series as (n_times, n_units), or correct the table",
        )  # fmt: skip
    for name, target in (
        ("kind", "kind"),
        ("network", "network"),
        ("name", "roi"),
        ("roi", "roi"),
    ):
        if name in rows[0]:
            units[target] = np.array([row[name] for row in rows])
    units["network"] = np.array(
        [row.get("network", row.get("network_label", "n/a")) for row in rows]
    )
    for axis in "xyz":
        if axis in rows[0]:
            units[axis] = np.array([_number(row, axis, str(path)) for row in rows], np.float32)
    if len(set(units["roi"].tolist())) < n_units:
        twice = next(n for n in units["roi"].tolist() if (units["roi"] == n).sum() > 1)
        raise InputError(
            "two units have one name", where=str(path), found=twice, expected="each name once",
            fix="correct the table of units",
        )  # fmt: skip
    return units


def _number(row: Mapping[str, str], name: str, where: str) -> float:
    try:
        return float("nan") if row[name] in ("n/a", "") else float(row[name])
    except ValueError:
        raise InputError(
            "a coordinate is no number", where=where, found=row[name], expected="mm",
            fix=f"correct the column {name}",
        ) from None  # fmt: skip


def _sampling_rate_hz(sidecar: Mapping[str, Any], where: str) -> float:
    """Return samples a second; 0.0 where no sidecar says."""
    for key in ("sampling_rate_hz", "SamplingFrequency", "RepetitionTime"):
        value = sidecar.get(key)
        if value is None:
            continue
        good = isinstance(value, int | float) and not isinstance(value, bool)
        if not (good and 0 < value < 1e6):
            raise InputError(
                "the sampling rate of a series is not possible", where=f"the sidecar of {where}",
                found=f"{key}: {value!r}"[:100], expected="a number above 0",
                fix="write RepetitionTime in seconds",
            )  # fmt: skip
        return 1 / float(value) if key == "RepetitionTime" else float(value)
    return 0.0


def _censored(values: np.ndarray, path: Path | None, where: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the values of the whole run, and which samples are censored.

    xcp_d leaves censored volumes out, or writes them as ``n/a``, or interpolates them; its table of
    outliers has a row for every volume of the run.
    """
    censored = ~np.isfinite(values).any(axis=1)
    if path is None:
        return values, censored
    rows = read_tsv(path)
    columns = [name for name in (rows[0] if rows else ()) if "outlier" in name.lower()] or list(
        rows[0] if rows else ()
    )
    flags = np.array(
        [any(row[name] not in ("0", "0.0", "n/a") for name in columns) for row in rows]
    )
    if len(flags) == len(values):
        return values, censored | flags
    if len(flags) - int(flags.sum()) == len(values):
        whole = np.full((len(flags), values.shape[1]), np.nan)
        whole[~flags] = values
        back = flags.copy()
        back[~flags] = censored
        return whole, back
    raise InputError(
        "a table of outliers has another length than its series", where=f"{where} and {path}",
        found=f"{len(flags)} rows, {int(flags.sum())} censored; {len(values)} samples",
        expected="one row a volume, with or without the censored ones in the series",
        fix="give the table that belongs to this run",
    )  # fmt: skip
