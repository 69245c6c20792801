"""A BIDS folder made of links to a published one, with events that say which picture was shown."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from afterimage.datasets.pictures import link_file
from afterimage.datasets.volumes import read_volume
from afterimage.errors import InputError
from afterimage.io.atomic import write_json
from afterimage.io.nifti import write_nifti
from afterimage.io.tables import Row, read_text, write_tsv

#: Columns of every events table that is written.
COLUMNS = ("onset", "duration", "trial_type", "stim_file", "stimulus_id", "split")

#: Turns the rows of one published events table into rows with `COLUMNS`.
Convert = Callable[[Path, list[Row]], list[dict[str, Any]]]


@dataclass(frozen=True)
class Run:
    """One run of the source that the view takes over."""

    bold: Path
    events: Path
    session: str


def subjects_of(source: Path, known: Sequence[str]) -> list[str]:
    """Return which of the known subjects have a folder in a BIDS dataset."""
    return [label for label in known if (source / f"sub-{label}").is_dir()]


def find_runs(
    source: Path, subject: str, session: re.Pattern[str], task: str, notes: list[str]
) -> list[Run]:
    """Return the runs of one task in the sessions that match; note those that are incomplete.

    Parameters
    ----------
    source : Path
        A BIDS dataset.
    subject : str
        Label without ``sub-``.
    session : pattern
        What the label of a session (without ``ses-``) must match whole.
    task : str
        Label of the task.
    notes : list of str
        Is given a note for runs without a downloaded image or without events.
    """
    runs = []
    for folder in sorted((source / f"sub-{subject}").glob("ses-*")):
        label = folder.name.removeprefix("ses-")
        if not session.fullmatch(label):
            continue
        found = {
            path.name.replace("_events.tsv", "").split("_bold.nii")[0]
            for path in (folder / "func").glob(f"*_task-{task}_*")
            if path.name.endswith(("_events.tsv", "_bold.nii", "_bold.nii.gz"))
        }
        for name in sorted(found):
            bold = next(
                (folder / "func" / f"{name}_bold{ending}" for ending in (".nii.gz", ".nii")
                 if (folder / "func" / f"{name}_bold{ending}").is_file()), None,
            )  # fmt: skip
            events = folder / "func" / f"{name}_events.tsv"
            if bold is None or not events.is_file():
                what = "image (not downloaded?)" if bold is None else "events table"
                notes.append(f"{name}: no {what}; the run is left out")
                continue
            runs.append(Run(bold, events, label))
    return runs


def write_run(source: Path, target: Path, run: Run, convert: Convert) -> list[dict[str, Any]]:
    """Link one run's image and sidecar, write its events anew, and return their rows."""
    place = target / run.bold.relative_to(source)
    link_file(run.bold, place)
    name = run.bold.name.split("_bold.nii")[0]
    sidecar = run.bold.parent / f"{name}_bold.json"
    if sidecar.is_file():
        link_file(sidecar, place.parent / sidecar.name)
    rows = convert(run.events, read_events(run.events))
    columns = list(dict.fromkeys((*COLUMNS, *(key for row in rows for key in row))))
    write_tsv(place.parent / run.events.name, rows, columns)
    return rows


def read_events(path: Path, required: Sequence[str] = ("onset", "duration")) -> list[Row]:
    """Read an events table as published: spare tabs at the end of a line are forgiven.

    Raises
    ------
    InputError
        If a required column is missing, or an onset or duration is no number.
    """
    lines = [line for line in read_text(path).replace("\r", "").split("\n") if line.strip()]
    header = [cell.strip() for cell in lines[0].split("\t")] if lines else []
    if absent := [name for name in required if name not in header]:
        raise InputError(
            "an events table lacks a column", where=str(path),
            found=", ".join(header) or "an empty file", expected=", ".join(absent),
            fix="download the file again",
        )  # fmt: skip
    rows = []
    for number, line in enumerate(lines[1:], start=2):
        cells = [cell.strip() for cell in line.split("\t")][: len(header)]
        row = dict(zip(header, cells + ["n/a"] * (len(header) - len(cells)), strict=True))
        for name in ("onset", "duration"):
            try:
                float(row[name])
            except ValueError:
                raise InputError(
                    "a time in an events table is not a number",
                    where=f"{path}, line {number}, column {name}", found=row[name],
                    expected="seconds", fix="download the file again",
                ) from None  # fmt: skip
        rows.append(row)
    return rows


def link_common(source: Path, target: Path, subject: str) -> None:
    """Link the subject's anatomy and the sidecars and tables at the root of the dataset."""
    for path in sorted(source.glob("*")):
        sidecar = path.suffix == ".json" and path.name != "dataset_description.json"
        if path.is_file() and (sidecar or path.name == "participants.tsv"):
            link_file(path, target / path.name)
    for path in sorted((source / f"sub-{subject}").glob("**/anat/*")):
        if path.is_file():
            link_file(path, target / path.relative_to(source))


def join_roi_masks(
    target: Path, subject: str, masks: Mapping[str, Sequence[Path]], notes: list[str]
) -> None:
    """Join the hemispheres of each region and write them as derivatives.

    Parameters
    ----------
    target : Path
        The view; masks go to ``derivatives/rois/sub-X/sub-X_label-<ROI>_mask.nii.gz``.
    subject : str
        Label without ``sub-``.
    masks : dict of str to list of Path
        The files of each region, one a hemisphere; voxels above 0 belong to it.
    notes : list of str
        Is given a note for a region that has no file or one hemisphere only.
    """
    for name, paths in masks.items():
        if len(paths) == 1:
            notes.append(f"sub-{subject}: region {name} has one hemisphere only")
        joined: np.ndarray | None = None
        affine = np.eye(4)
        for path in paths:
            values, affine = read_volume(path, None if joined is None else joined.shape)
            joined = values > 0 if joined is None else joined | (values > 0)
        if joined is None:
            continue
        folder = target / "derivatives" / "rois" / f"sub-{subject}"
        label = re.sub(r"[^a-zA-Z0-9]", "", name)
        write_nifti(folder / f"sub-{subject}_label-{label}_mask.nii.gz", joined, affine)


def describe_rois(target: Path, dataset: str) -> None:
    """Write the description that makes ``derivatives/rois`` a BIDS derivative."""
    folder = target / "derivatives" / "rois"
    if folder.is_dir():
        write_json(
            folder / "dataset_description.json",
            {
                "Name": f"Regions of interest of {dataset}",
                "BIDSVersion": "1.10.0",
                "DatasetType": "derivative",
                # Not plain "afterimage": the index leaves out what the pipeline itself made.
                "GeneratedBy": [
                    {"Name": "afterimage import", "Description": "hemispheres joined"}
                ],
            },
        )
