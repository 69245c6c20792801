"""Correct one run of BOLD for slice timing and motion; write its series, confounds and quality."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from afterimage.bids.names import unit_of
from afterimage.bids.sidecars import read_sidecars
from afterimage.errors import InputError
from afterimage.io.arrays import write_dataset
from afterimage.io.atomic import write_json
from afterimage.io.nifti import (
    open_bold,
    read_volume,
    repetition_time_s,
    write_nifti_blocks,
)
from afterimage.io.scratch import open_scratch
from afterimage.io.series import Series, open_series, series_writer
from afterimage.io.tables import Row, read_tsv, write_tsv
from afterimage.preprocess.fmri.cleaning import (
    Cleaned,
    Grid,
    Options,
    Run,
    clean_run,
    copy_run,
)
from afterimage.preprocess.fmri.confounds import (
    censor_by_displacement,
    check_length,
    cosine_drift,
    framewise_displacement,
    high_variance_components,
    motion_columns,
    read_columns,
)
from afterimage.preprocess.fmri.masks import same_grid, voxel_coordinates
from afterimage.preprocess.fmri.motion import PARAMETERS
from afterimage.preprocess.fmri.quality import (
    RunQuality,
    carpet_rows,
    empty_quality,
    quality_dataset,
    run_quality,
)
from afterimage.preprocess.fmri.slice_timing import SliceTiming, read_slice_timing
from afterimage.settings import StageConfig
from afterimage.stages.reference_bold import is_preprocessed
from afterimage.stages.runner import record_skipped

VERSION = 2
CITES = ("friston1995", "power2014", "behzadi2007", "sladky2011", "abraham2014")
#: Voxels of one batch where a run is read in columns.
N_VOXELS_BATCH = 2048

log = logging.getLogger("afterimage")


class Config(StageConfig):
    """How a run of BOLD is corrected; nothing is regressed out here."""

    motion_correction: bool = Field(
        True,
        description="estimate and undo rigid head motion; never done twice on fMRIPrep images",
    )
    slice_timing: bool = Field(
        True,
        description="shift slices to the middle of the volume where the sidecar has their times",
    )
    repetition_time: Literal["agree", "sidecar", "header"] = Field(
        "agree",
        description="agree: header and sidecar must; else which to trust where they differ",
    )
    volume_time_fraction: float = Field(
        0.5,
        ge=0,
        le=1,
        description="time of a volume within its acquisition, where the sidecar has no slice times",
    )
    fd_threshold_mm: float | None = Field(
        0.5, gt=0, description="volumes displaced by more than this are censored; null: none"
    )
    high_pass_hz: float = Field(
        0.01, ge=0, description="slower drift is taken out before CompCor; 0: a linear trend only"
    )
    n_compcor: int = Field(5, ge=0, description="CompCor components written; 0: none")
    min_volumes: int = Field(10, ge=2, description="a run with fewer volumes is refused")
    max_nonfinite_fraction: float = Field(
        0.01, ge=0, le=1, description="a run with a larger share of NaN in the brain is refused"
    )
    min_coverage: float = Field(
        0.5, gt=0, le=1, description="a run that covers a smaller share of the brain is refused"
    )
    on_bad_run: Literal["skip", "fail"] = Field(
        "skip", description="whether a run that cannot be used is left out or stops the subject"
    )
    write_nifti: bool = Field(
        False, description="also write the corrected run as _desc-preproc_bold.nii.gz"
    )


@dataclass(frozen=True)
class Inputs:
    """What the stage reads; `confounds` are fMRIPrep's, where its image is given."""

    bold: Path
    sidecars: tuple[Path, ...]
    reference: Path
    mask: Path
    confounds: Path | None = None


@dataclass(frozen=True)
class Outputs:
    """What the stage writes."""

    series: Path
    confounds: Path
    quality: Path


@dataclass(frozen=True)
class Opened:
    """A run that can be used, and when its volumes were taken.

    Attributes
    ----------
    run : Run
    timing : SliceTiming or None
        Slices to shift; None where there is nothing to do.
    start_time_s : float
        Time of the first sample from the start of the run.
    prepared : bool
        Whether it is fMRIPrep's image, taken as it is.
    table : list of dict
        Rows of fMRIPrep's confounds; empty for raw runs.
    columns : dict of array, each of shape (n_volumes,)
        The numbers among them.
    notes : list of str
        Sentences for the report; added to as the run is cleaned.
    """

    run: Run
    timing: SliceTiming | None
    start_time_s: float
    prepared: bool
    table: list[Row]
    columns: dict[str, np.ndarray]
    notes: list[str]

    @property
    def source(self) -> str:
        """Where the images come from."""
        return "fmriprep" if self.prepared else "raw"


def run(
    inputs: Inputs, outputs: Outputs, config: Config, *, threads: int = 1, device: str = "cpu"
) -> None:
    """Read one run block by block, correct it, and write the voxels of the brain."""
    reference, affine = read_volume(inputs.reference)
    mask, _ = read_volume(inputs.mask)
    grid = Grid(np.asarray(reference, dtype=np.float32), np.asarray(mask > 0), affine)
    try:
        opened = _open(inputs, config, grid)
        cleaned = _write_run(opened, outputs, grid, config)
    except InputError as error:
        if config.on_bad_run == "fail":
            raise
        record_skipped("clean_bold", outputs.series, error)
        _write_empty(outputs, grid, str(error))
        return
    with open_series(outputs.series) as series:
        quality = run_quality(series.read, carpet_rows(grid.mask), n_voxels_batch=N_VOXELS_BATCH)
        if quality.n_constant:
            opened.notes.append(f"{quality.n_constant} voxels of the brain do not vary")
        displacement = _displacement(opened, cleaned)
        if opened.prepared and opened.table:
            _write_table(outputs.confounds, opened.table, series.censored)
        else:
            columns = _own_confounds(series, cleaned.motion, quality, config)
            rows = [
                {name: values[index] for name, values in columns.items()}
                for index in range(series.n_times)
            ]
            _write_table(outputs.confounds, rows, series.censored)
        dataset = quality_dataset(
            quality, grid.mask, grid.affine, series.times_s, opened.run.t_r_s, cleaned.motion,
            displacement, series.censored, opened.notes,
        )  # fmt: skip
        write_dataset(outputs.quality, dataset.assign_attrs(source=opened.source, problem=""))
        if config.write_nifti:
            _write_image(outputs, series, grid, opened)
    for note in opened.notes:
        log.info("%s: %s", inputs.bold.name, note)


def _open(inputs: Inputs, config: Config, grid: Grid) -> Opened:
    """Open the run; check its grid, its times and the length of its confounds."""
    sidecar = read_sidecars(inputs.sidecars)
    bold = open_bold(inputs.bold, config.min_volumes)
    prepared = inputs.confounds is not None or is_preprocessed(inputs.bold)
    where = f"{unit_of(inputs.bold)}, {inputs.bold}"
    t_r_s, notes = repetition_time_s(bold, sidecar, config.repetition_time)
    timing = None
    if prepared:
        if not same_grid(bold.shape, bold.affine, grid.mask.shape, grid.affine):
            raise InputError(
                "a preprocessed run is not on the grid of its subject", where=where,
                found=f"shape {bold.shape}, affine {np.round(bold.affine, 2).tolist()}",
                expected=f"shape {grid.mask.shape}, affine {np.round(grid.affine, 2).tolist()}, "
                "as the reference image and the mask",
                fix="let fMRIPrep write all runs in one space, for example T1w",
            )  # fmt: skip
    else:
        timing = read_slice_timing(sidecar, bold.shape, t_r_s, where)
    start_time_s, said = _start_time_s(sidecar, timing, t_r_s, config, prepared)
    if timing is not None and not config.slice_timing:
        timing, said = None, ["slice timing was not corrected, as configured"]
    table: list[Row] = read_tsv(inputs.confounds) if inputs.confounds else []
    columns = read_columns(table, str(inputs.confounds)) if inputs.confounds else {}
    if inputs.confounds:
        check_length(columns, bold.n_volumes, f"{where} and {inputs.confounds}")
    run = Run(bold.blocks, bold.shape, bold.n_volumes, bold.affine, t_r_s, where)
    return Opened(run, timing, start_time_s, prepared, table, columns, notes + said)


def _start_time_s(
    sidecar: Mapping[str, Any],
    timing: SliceTiming | None,
    t_r_s: float,
    config: Config,
    prepared: bool,
) -> tuple[float, list[str]]:
    """Return the time of the first sample from the start of the run, and what was assumed."""
    if timing is not None:
        return timing.reference_s, []
    stated = sidecar.get("StartTime")
    if prepared and isinstance(stated, int | float):
        return float(stated), []
    times = sidecar.get("SliceTiming")
    if prepared and isinstance(times, list) and sidecar.get("SliceTimingCorrected", True):
        return (min(times) + max(times)) / 2, []
    lasts = sidecar.get("AcquisitionDuration", t_r_s - float(sidecar.get("DelayTime", 0.0)))
    start_time_s = config.volume_time_fraction * min(float(lasts), t_r_s)
    note = (
        f"the times of the slices are not known; volumes are taken to lie at {start_time_s:.3g} s"
    )
    return start_time_s, [note]


def _write_run(opened: Opened, outputs: Outputs, grid: Grid, config: Config) -> Cleaned:
    """Clean the run and write its series; return its motion and what was censored."""
    run, timing = opened.run, opened.timing
    attributes = {
        "t_r_s": run.t_r_s,
        "start_time_s": opened.start_time_s,
        "source": opened.source,
        "affine": grid.affine.ravel(),
        "shape": np.array(grid.mask.shape),
        "problem": "",
    }
    options = Options(config.motion_correction, config.max_nonfinite_fraction, config.min_coverage)
    units = voxel_coordinates(grid.mask, grid.affine)
    with ExitStack() as stack:
        writer = stack.enter_context(
            series_writer(outputs.series, run.n_volumes, units, attributes)
        )
        if opened.prepared:
            cleaned = _with_fmriprep(copy_run(run, grid, writer.write, options), opened)
        else:
            shift = None
            if timing is not None and timing.needed:
                shape = (run.n_volumes, int(np.prod(run.shape)))
                shift = timing, stack.enter_context(open_scratch(outputs.series.parent, shape))
            cleaned = clean_run(run, grid, writer.write, options, shift)
        moved = censor_by_displacement(_displacement(opened, cleaned), config.fd_threshold_mm)
        cleaned = Cleaned(cleaned.motion, cleaned.censored | moved, cleaned.notes)
        writer.censor(cleaned.censored)
    opened.notes.extend(cleaned.notes)
    return cleaned


def _with_fmriprep(cleaned: Cleaned, opened: Opened) -> Cleaned:
    """Add the motion and the unsteady volumes of fMRIPrep's table."""
    columns, notes = opened.columns, list(cleaned.notes)
    motion, censored = cleaned.motion, cleaned.censored.copy()
    if all(name in columns for name in PARAMETERS):
        motion = np.nan_to_num(np.column_stack([columns[name] for name in PARAMETERS]))
    else:
        notes.append("there are no motion parameters: displacement is shown as 0")
    for name, values in columns.items():
        if name.startswith("non_steady_state_outlier"):
            censored |= values > 0
    return Cleaned(motion, censored, notes)


def _displacement(opened: Opened, cleaned: Cleaned) -> np.ndarray:
    """Return framewise displacement in mm: fMRIPrep's where there is any."""
    stated = opened.columns.get("framewise_displacement")
    return framewise_displacement(cleaned.motion) if stated is None else stated


def _own_confounds(
    series: Series, motion: np.ndarray, quality: RunQuality, config: Config
) -> dict[str, np.ndarray]:
    """Return the confounds of a raw run, under fMRIPrep's names."""
    t_r_s = float(series.attrs["t_r_s"])
    columns = motion_columns(motion)
    columns["framewise_displacement"] = framewise_displacement(motion)
    columns["dvars"] = quality.dvars
    columns["global_signal"] = quality.global_signal
    drift = cosine_drift(series.n_times, t_r_s, config.high_pass_hz)
    basis = np.linalg.qr(np.column_stack([drift, np.ones(series.n_times)]))[0]

    def without_drift(units: slice) -> np.ndarray:
        values = series.read(units).astype(np.float64)
        return values - basis @ (basis.T @ values)

    if config.n_compcor:
        components = high_variance_components(
            without_drift, series.n_units, n_components=config.n_compcor,
            n_voxels_batch=N_VOXELS_BATCH,
        )  # fmt: skip
        for index, values in enumerate(components.T):
            columns[f"t_comp_cor_{index:02d}"] = values
    return columns | {f"cosine{index:02d}": values for index, values in enumerate(drift.T)}


def _write_table(path: Path, rows: Sequence[Mapping[str, Any]], censored: np.ndarray) -> None:
    """Write confounds with a last column ``censored``, 0 or 1."""
    names = [*(name for name in rows[0] if name != "censored"), "censored"]
    cells = [{**row, "censored": int(out)} for row, out in zip(rows, censored, strict=True)]
    write_tsv(path, cells, names)


def _write_empty(outputs: Outputs, grid: Grid, problem: str) -> None:
    """Write the outputs of a run that was left out: no samples, and why."""
    nothing, units = np.zeros(0), voxel_coordinates(grid.mask, grid.affine)
    shape = np.array(grid.mask.shape)
    attributes = {"t_r_s": 0.0, "start_time_s": 0.0, "source": "n/a", "problem": problem}
    attributes |= {"affine": grid.affine.ravel(), "shape": shape}
    with series_writer(outputs.series, 0, units, attributes):
        pass
    write_tsv(outputs.confounds, [], [*PARAMETERS, "framewise_displacement", "dvars", "censored"])
    dataset = quality_dataset(
        empty_quality(int(grid.mask.sum())), grid.mask, grid.affine, nothing, 0.0,
        np.zeros((0, 6)), nothing, nothing.astype(bool), [],
    )  # fmt: skip
    write_dataset(outputs.quality, dataset.assign_attrs(source="n/a", problem=problem))


def _write_image(outputs: Outputs, series: Series, grid: Grid, opened: Opened) -> None:
    """Write the corrected run as NIfTI beside the series, zero outside the brain."""
    name = outputs.series.name.split("_desc-")[0]
    path = outputs.series.with_name(f"{name}_desc-preproc_bold.nii.gz")

    def blocks() -> Iterator[np.ndarray]:
        for first in range(0, series.n_times, 64):
            values = series.read(times=slice(first, first + 64))
            block = np.zeros((*grid.mask.shape, len(values)), dtype=np.float32)
            block[grid.mask] = values.T
            yield block

    shape = (*grid.mask.shape, series.n_times)
    write_nifti_blocks(path, blocks(), shape, grid.affine, opened.run.t_r_s)
    about = {
        "RepetitionTime": opened.run.t_r_s,
        "StartTime": opened.start_time_s,
        "SliceTimingCorrected": opened.timing is not None,
        "SkullStripped": True,
    }
    write_json(path.with_name(f"{name}_desc-preproc_bold.json"), about)
