"""Prepared series of a subject as rows of the table of units: ours, and those of xcp_d."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from afterimage.bids.entities import BidsName, natural_key, parse_name, run_key, run_prefix
from afterimage.bids.files import BidsFile, applicable, folder_files, list_folder
from afterimage.bids.rows import one_line
from afterimage.bids.sidecars import join_paths
from afterimage.errors import InputError
from afterimage.io.tables import Row

if TYPE_CHECKING:
    from afterimage.bids.scans import Scans

#: Folders of a subject or session in which series lie, besides it itself.
_DATATYPES = frozenset({"func", "eeg", "meg"})
#: Labels of ``desc-`` of tables that are no series of regions: fMRIPrep's and ours.
_NO_SERIES = frozenset({"confounds", "motion"})


def series_rows(scans: Scans, label: str, folder: str | None = None) -> list[Row]:
    """Return one row for each file of series of a subject, by session, task, run and regions.

    Parameters
    ----------
    scans : Scans
        The dataset.
    label : str
        Label of the subject, without ``sub-``.
    folder : str, optional
        Derivative dataset to look in; default: the dataset itself.

    Returns
    -------
    list of dict
        ``series`` is ``*_timeseries.tsv`` or ``.npy``; ``confounds`` the ``*_outliers.tsv`` of
        xcp_d; empty where the subject has no series.
    """
    rows: list[Row] = []
    root = folder or scans.raw
    _look(scans, label, f"{root}/sub-{label}", [folder_files(root)], rows)
    rows.sort(key=lambda r: [natural_key(r[k]) for k in ("session", "task", "run", "series")])
    met: dict[tuple[str, ...], str] = {}
    for row in rows:
        same = (run_prefix(row["series"]), series_label(row["series"]))
        if same in met and row["problem"] == "n/a":
            error = InputError(
                "one run is there twice", where=f"sub-{label}, {row['series']}",
                found=f"{met[same]} and {row['series']}", expected="one series a run and atlas",
                fix="remove one, or give each its own run- or seg- label",
            )  # fmt: skip
            row["problem"] = one_line(error)
        met.setdefault(same, row["series"])
    return rows


def _look(
    scans: Scans, label: str, folder: str, above: list[list[BidsFile]], rows: list[Row]
) -> None:
    folders, entries = list_folder(folder)
    named = [(entry.path, parse_name(entry.name)) for entry in entries]
    here = [BidsFile(path, name) for path, name in named if name is not None]
    levels = [*above, here]
    for file in here:
        if file.name.suffix == "timeseries" and file.name.extension in (".tsv", ".npy"):
            entities = file.name.entities
            if entities.get("desc") in _NO_SERIES or not scans.wanted(file.name):
                continue
            if file.name.extension == ".tsv" and Path(file.path[:-4] + ".npy").is_file():
                continue  # the same series, written twice
            rows.append(_row(scans, label, file, levels))
    # A session, and a datatype in it: links may lead round in a circle.
    for entry in folders if len(levels) < 4 else ():
        if entry.name.startswith("ses-") or entry.name in _DATATYPES:
            _look(scans, label, entry.path, levels, rows)


def series_label(path: str) -> str:
    """Return the label of the regions of a file of series; ``prepared`` where it has none."""
    name = parse_name(path.rpartition("/")[2])
    entities = name.entities if name else {}
    found = entities.get("seg", entities.get("atlas", "prepared"))
    return re.sub(r"[^a-zA-Z0-9]", "", found) or "prepared"


def _row(scans: Scans, label: str, file: BidsFile, levels: list[list[BidsFile]]) -> Row:
    entities, key = file.name.entities, file.name.key

    def nearby(suffix: str, extension: str) -> list[str]:
        target = BidsName(entities, key, suffix, extension)
        kept = [[f for f in level if f.name.extension == extension] for level in levels]
        return [found.path for found in applicable(kept, target, suffix)]

    run = run_key(file.name)
    outliers = [f.path for f in levels[-1] if f.name.suffix == "outliers"
                and f.name.extension == ".tsv" and run_key(f.name) == run]  # fmt: skip
    units = nearby("units", ".tsv")
    row = dict.fromkeys(scans.columns, "n/a") | {
        "subject": label,
        "session": entities.get("ses", "n/a"),
        "task": entities.get("task", "n/a"),
        "run": entities.get("run", "n/a"),
        "modality": next((k for k in ("eeg", "meg") if f"/{k}/" in file.path), "fmri"),
        "source": "series",
        "series": scans.relative(file.path),
        "units": scans.relative(units[-1]) if units else "n/a",
        "sidecar": join_paths([scans.relative(path) for path in nearby("timeseries", ".json")]),
        "confounds": scans.relative(outliers[0]) if outliers else "n/a",
        "stimuli": "no",
    }
    above = file.path.partition(f"/sub-{label}/")[2].split("/")
    session = next((part for part in above[:-1] if part.startswith("ses-")), None)
    if entities.get("sub") != label or (session and f"ses-{entities.get('ses')}" != session):
        error = InputError(
            "the name of a series contradicts its folder", where=f"sub-{label}, {row['series']}",
            found=above[-1], expected=f"a name that starts with sub-{label}"
            + (f"_{session}" if session else ""), fix="rename the file, or move it",
        )  # fmt: skip
        row["problem"] = one_line(error)
    return row
