"""Take the series of every region from one cleaned run: confounds, band and censoring at once."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from afterimage.bids.names import entity, unit_of
from afterimage.errors import ConfigError, InputError
from afterimage.io.series import open_series
from afterimage.io.tables import read_tsv
from afterimage.preprocess.fmri.confounds import (
    STRATEGIES,
    check_length,
    read_columns,
    select_columns,
)
from afterimage.preprocess.fmri.parcels import extract
from afterimage.settings import StageConfig
from afterimage.signal.projection import projection
from afterimage.stages.parcellate import read_parcels
from afterimage.stages.runner import record_skipped
from afterimage.stages.series_files import varies, write_empty_series, write_recording

VERSION = 1
CITES = ("lindquist2019", "ciric2017", "abraham2014")

log = logging.getLogger("afterimage")


class Denoising(StageConfig):
    """What a run is freed of, whatever is made of it."""

    confounds: tuple[str, ...] = Field(
        ("motion", "motion_derivatives", "compcor"),
        description=f"groups of confounds regressed out: {', '.join(STRATEGIES)}",
    )
    n_compcor: int = Field(5, ge=0, description="CompCor components, anatomical ones first")
    high_pass_hz: float | None = Field(
        0.01, gt=0, description="lower edge of the band that is kept; null: none"
    )
    low_pass_hz: float | None = Field(
        0.1, gt=0, description="upper edge of the band that is kept; null: none"
    )
    min_degrees_of_freedom: int = Field(
        10, ge=1, description="a run that keeps fewer after all this is left out"
    )

    @model_validator(mode="after")
    def _is_possible(self) -> Self:
        if unknown := [name for name in self.confounds if name not in STRATEGIES]:
            raise ValueError(f"unknown confounds {', '.join(unknown)}: {', '.join(STRATEGIES)}")
        if self.high_pass_hz and self.low_pass_hz and self.high_pass_hz >= self.low_pass_hz:
            raise ValueError("high_pass_hz must be below low_pass_hz")
        return self


class Config(Denoising):
    """Which runs become series of regions, and what is taken out of them."""

    runs: Literal["auto", "all", "none"] = Field(
        "auto",
        description="auto: runs without events, and all where an atlas is given; all; or none. Of "
        "EEG and MEG likewise",
    )
    on_bad_run: Literal["skip", "fail"] = Field(
        "skip", description="whether a run that cannot be used is left out or stops the job"
    )


@dataclass(frozen=True)
class Inputs:
    """What the stage reads."""

    series: Path
    confounds: Path
    parcels: Path


@dataclass(frozen=True)
class Outputs:
    """What the stage writes; the table has a sidecar beside it."""

    series: Path
    table: Path


def run(
    inputs: Inputs, outputs: Outputs, config: Config, *, threads: int = 1, device: str = "cpu"
) -> None:
    """Average the voxels of each region, then project; a run that cannot be used is left out."""
    try:
        _extract(inputs, outputs, config)
    except (InputError, ConfigError) as error:
        if config.on_bad_run == "fail" or isinstance(error, ConfigError):
            raise
        # What cleaning left out is recorded there.
        with open_series(inputs.series) as series:
            known = bool(series.attrs.get("problem"))
        if not known:
            record_skipped("extract_series", outputs.series, error)
        write_empty_series(outputs.series, outputs.table, str(error))


def _extract(inputs: Inputs, outputs: Outputs, config: Config) -> None:
    parcels, centres, about = read_parcels(inputs.parcels)
    with open_series(inputs.series) as series:
        where = f"{unit_of(inputs.series)}, {inputs.series.name}"
        if problem := str(series.attrs.get("problem", "")):
            raise InputError(
                "a run was left out before", where=where, found=problem.split("\n")[0]
            )
        if parcels.weights.shape[1] != series.n_units:
            raise InputError(
                "regions and a run are on different voxels", where=where,
                found=f"{parcels.weights.shape[1]} and {series.n_units}", expected="the same mask",
                fix="delete the _parcels.nc file of the subject and run again",
            )  # fmt: skip
        rate_hz = float(series.attrs["sampling_rate_hz"])
        confounds, names = read_confounds(inputs.confounds, series.n_times, config, where)
        free = projection(
            series.n_times, confounds=confounds, kept=~series.censored, sampling_rate_hz=rate_hz,
            high_pass_hz=config.high_pass_hz, low_pass_hz=config.low_pass_hz,
            min_degrees_of_freedom=config.min_degrees_of_freedom, where=where,
        )  # fmt: skip
        raw = extract(series.read, parcels)
        if not np.isfinite(raw[free.kept]).all():
            raise InputError(
                "a run holds values that are no finite numbers", where=where,
                found=f"{int((~np.isfinite(raw[free.kept])).any(axis=0).sum())} regions",
                expected="finite numbers in the volumes that are kept", fix="see the raw image",
            )  # fmt: skip
        start_time_s, source = float(series.attrs["start_time_s"]), str(series.attrs["source"])
    mean = raw[free.kept].mean(axis=0)
    values = free.apply(raw) * np.where(mean > 0, 100 / np.where(mean > 0, mean, 1), 1.0)
    still = ~varies(raw[free.kept])
    values[:, still] = 0.0
    notes = [str(about["notes"])] if about.get("notes") else []
    if still.any():
        notes.append(
            f"{int(still.sum())} regions do not vary: {', '.join(parcels.names[still][:8])}"
        )
    units = {
        "kind": np.full(len(parcels.names), "parcel"), "roi": parcels.names,
        "network": parcels.network, "coverage": parcels.coverage, **centres,
    }  # fmt: skip
    attributes: dict[str, Any] = {
        "sampling_rate_hz": rate_hz, "start_time_s": start_time_s, "source": source,
        "problem": "", "seg": entity(outputs.series, "seg"),
        "high_pass_hz": config.high_pass_hz or 0.0, "low_pass_hz": config.low_pass_hz or 0.0,
        "n_confounds": len(names), "confounds": ";".join(names),
        "degrees_of_freedom": free.degrees_of_freedom, "signal_units": "percent of the mean",
        "individual": int(about.get("individual", 0)), "notes": "; ".join(notes),
    }  # fmt: skip
    write_recording(outputs.series, outputs.table, values, ~free.kept, units, attributes)
    for note in notes:
        log.info("%s: %s", where, note)


def read_confounds(
    path: Path, n_times: int, config: Denoising, where: str
) -> tuple[np.ndarray, list[str]]:
    """Return the chosen columns of the table, (n_times, n), and their names."""
    if not config.confounds:
        return np.zeros((n_times, 0)), []
    columns = read_columns(read_tsv(path), str(path))
    check_length(columns, n_times, f"{where} and {path}")
    names = select_columns(list(columns), config.confounds, config.n_compcor)
    values = [columns[name] for name in names]
    return (np.column_stack(values) if values else np.zeros((n_times, 0))), names
