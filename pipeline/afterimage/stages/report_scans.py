"""What the report reads of scans: the quality of every run, and of the responses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from afterimage.bids.entities import run_prefix
from afterimage.io.arrays import open_dataset
from afterimage.io.tables import Row, read_tsv
from afterimage.reports.figures.scans import carpet_order
from afterimage.reports.scans import ResponseQuality, RunQuality, ScanQuality, SkippedRun

if TYPE_CHECKING:
    import xarray

QUALITY, SERIES = "_desc-bold_quality.nc", "_desc-clean_series.nc"


def read_scans(folder: Path, name: str, rows: Sequence[Row]) -> ScanQuality | None:
    """Read the quality of a subject's scans; None where there is nothing about them.

    Parameters
    ----------
    folder : Path
        The subject's folder.
    name : str
        ``sub-01``.
    rows : sequence of Row
        Its rows of the table of units, one a run.
    """
    quality = {_prefix(path, QUALITY): path for path in folder.glob(f"**/func/{name}*{QUALITY}")}
    series = {_prefix(path, SERIES): path for path in folder.glob(f"**/func/{name}*{SERIES}")}
    problems = _problems(rows, {**series, **quality})  # series are removed when they are used
    responses_file = folder / f"{name}_desc-responses_quality.nc"
    if not (quality or problems or responses_file.is_file()):
        return None
    order = {run_prefix(row.get("bold", "n/a")): place for place, row in enumerate(rows)}
    used = sorted(set(quality) - set(problems), key=lambda run: (order.get(run, len(order)), run))
    labels = run_labels([*used, *problems])
    runs, grid = _read_runs([quality[run] for run in used], [series.get(run) for run in used])
    runs = [replace(run, name=labels[prefix]) for run, prefix in zip(runs, used, strict=True)]
    for number in (number for part in carpet_order(runs)[:2] for number in part):
        with open_dataset(quality[used[number]]) as dataset:
            if "carpet" in dataset:
                carpet = np.asarray(dataset["carpet"].values, dtype=np.float32)
                runs[number] = replace(runs[number], carpet=carpet)
    scans = ScanQuality(
        runs=runs,
        skipped=[SkippedRun(labels[run], reason) for run, reason in problems.items()],
        **grid,
    )
    return _with_responses(scans, responses_file) if responses_file.is_file() else scans


def _prefix(path: Path, ending: str) -> str:
    return path.name.removesuffix(ending)


def _problems(rows: Sequence[Row], files: dict[str, Path]) -> dict[str, str]:
    """Return why runs were left out: found by the index, or when they were read."""
    problems = {
        run_prefix(row["bold"]): row["problem"].replace(" | ", "\n")
        for row in rows
        if row.get("problem", "n/a") != "n/a" and row.get("bold", "n/a") != "n/a"
    }
    for run, path in sorted(files.items()):
        with open_dataset(path) as dataset:
            if problem := str(dataset.attrs.get("problem", "")):
                problems[run] = problem
    return {
        run: "; ".join(" ".join(line.split()) for line in text.splitlines() if line.strip())
        for run, text in problems.items()
    }


def run_labels(prefixes: Sequence[str]) -> dict[str, str]:
    """Name runs by the entities in which they differ: ``ses-1 run-02``."""
    parts = {prefix: prefix.split("_")[1:] for prefix in prefixes}
    shared = set.intersection(*(set(found) for found in parts.values())) if parts else set()
    if len(parts) == 1:
        shared = set()
    return {
        prefix: " ".join(part for part in found if part not in shared) or " ".join(found) or prefix
        for prefix, found in parts.items()
    }


def _read_runs(
    paths: Sequence[Path], series: Sequence[Path | None]
) -> tuple[list[RunQuality], dict[str, Any]]:
    """Read all runs without their carpets, and what belongs to their common grid."""
    runs: list[RunQuality] = []
    grid: dict[str, Any] = {}
    total = count = None
    for path, series_path in zip(paths, series, strict=True):
        with open_dataset(path) as dataset:
            runs.append(_run(dataset, series_path))
            tsnr = np.asarray(dataset["tsnr"].values, dtype=np.float64)
            known = np.isfinite(tsnr)
            if total is None or count is None:
                total, count = np.zeros_like(tsnr), np.zeros(tsnr.shape, dtype=int)
                grid = {
                    "source": str(dataset.attrs.get("source", "")),
                    "affine": np.asarray(dataset.attrs["affine"], dtype=float).reshape(4, 4),
                    "mean": np.asarray(dataset["mean"].values),
                    "brain_mask": np.asarray(dataset["mask"].values) > 0,
                }
            if tsnr.shape == total.shape:
                total += np.where(known, tsnr, 0)
                count += known
    if total is not None and count is not None:
        grid["tsnr"] = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return runs, grid


def _run(dataset: xarray.Dataset, series_path: Path | None) -> RunQuality:
    n_volumes = dataset.sizes["time"]
    censored = np.zeros(n_volumes, dtype=bool)
    if "censored" in dataset.variables:
        censored = np.asarray(dataset["censored"].values).astype(bool)
    elif series_path is not None:
        with open_dataset(series_path) as series:
            if series.sizes["time"] == n_volumes:
                censored = np.asarray(series["censored"].values).astype(bool)
    attributes = dataset.attrs
    return RunQuality(
        name="",
        t_r_s=float(attributes["t_r_s"]),
        framewise_displacement=np.asarray(dataset["framewise_displacement"].values),
        dvars=np.asarray(dataset["dvars"].values),
        motion=np.asarray(dataset["motion"].values),
        censored=censored,
        n_censored=int(attributes.get("n_censored", censored.sum())),
        median_tsnr=float(attributes.get("median_tsnr", np.nan)),
        mean_fd_mm=float(attributes.get("mean_fd_mm", np.nan)),
        notes=read_notes(attributes),
    )


def read_notes(attributes: dict[str, Any]) -> list[str]:
    """Return the notes of a stage as sentences."""
    notes = [note.strip() for note in str(attributes.get("notes", "")).split(";")]
    return [f"{note[:1].upper()}{note[1:].rstrip('.')}." for note in notes if note]


def _with_responses(scans: ScanQuality, path: Path) -> ScanQuality:
    """Add what was found out about the responses, and the masks on their grid."""
    with open_dataset(path) as dataset:
        arrays = {
            str(name): np.asarray(values.values) for name, values in dataset.variables.items()
        }
        attributes = dict(dataset.attrs)
    empty = np.empty(0)
    best = attributes.get("best_onset_shift_s")
    responses = ResponseQuality(
        estimator=str(attributes.get("estimator", "")),
        design=arrays.get("design"),
        column_names=arrays.get("column_name", empty).astype(str).tolist(),
        t_r_s=float(attributes.get("t_r_s", np.nan)),
        onset_shift_s=arrays.get("onset_shift_s", empty),
        onset_shift_r2=arrays.get("onset_shift_r2", empty),
        best_onset_shift_s=None if best is None or not np.isfinite(best) else float(best),
        onset_measure=str(attributes.get("onset_shift_measure", "")),
        response_time_s=arrays.get("response_time_s", empty),
        average_response=arrays.get("average_response", empty),
        average_response_sem=arrays.get("average_response_sem", empty),
        duration_s=float(attributes.get("duration_s", _duration(path))),
        maps={
            name.removeprefix("map_"): values
            for name, values in arrays.items()
            if name.startswith("map_")
        },
        notes=read_notes(attributes),
    )
    brain, units = arrays.get("brain_mask"), arrays.get("units_mask")
    return replace(
        scans,
        affine=np.asarray(attributes["affine"], dtype=float).reshape(4, 4),
        mean=arrays.get("mean", scans.mean),
        responses=responses,
        brain_mask=scans.brain_mask if brain is None else brain > 0,
        units_mask=None if units is None else units > 0,
    )


def _duration(path: Path) -> float:
    """Return the median duration of the trials (s), 0 where it is not written."""
    durations = [
        float(row["duration"])
        for table in sorted(path.parent.glob("*_desc-singletrial_events.tsv"))
        for row in read_tsv(table)
        if row.get("duration", "n/a") != "n/a"
    ]
    return float(np.median(durations)) if durations else 0.0
