"""Index a dataset once: its runs and subjects and their files, as a table of units."""

from __future__ import annotations

import gc
import hashlib
import os
import re
from collections.abc import Sequence
from pathlib import Path

from afterimage.bids.derivatives import (
    Derivative,
    absolute,
    find_derivatives,
    is_fmriprep,
    is_xcp_d,
    linked_raw_dataset,
)
from afterimage.bids.entities import natural_key
from afterimage.bids.files import list_folder
from afterimage.bids.names import MAX_LABEL, SUBJECT
from afterimage.bids.prepared_series import series_rows
from afterimage.bids.rows import events_error, one_line
from afterimage.bids.scans import Scans, scan_rows
from afterimage.bids.stimuli import stimulus_table
from afterimage.errors import InputError
from afterimage.io.atomic import write_text_if_changed
from afterimage.io.tables import Row, format_cell, read_text, read_tsv

#: One row a BOLD, EEG or MEG run, a file of prepared series, or a subject of prepared responses.
#: Paths are relative to the dataset, or absolute where they lie outside; ``n/a`` where a file is
#: absent.
COLUMNS = (
    "subject", "session", "task", "run", "modality", "source", "responses", "trials", "units",
    "sidecar", "bold", "recording", "series", "events", "confounds", "mask", "boldref", "rois", "anat",
    "stimuli", "problem",
)  # fmt: skip

_MODALITY_OF_KIND = {
    "voxel": "fmri", "vertex": "fmri", "eeg": "eeg", "mag": "meg", "grad": "meg",
    "neuron": "spikes",
}  # fmt: skip


def index_dataset(
    bids_dir: Path,
    derivatives: Sequence[Path] = (),
    space: str | None = None,
    tasks: Sequence[str] = (),
    sessions: Sequence[str] = (),
) -> list[Row]:
    """List the BOLD, EEG and MEG runs of a dataset, and its prepared responses and series.

    Names of files are read, and the first line of tables; no image is opened.

    Parameters
    ----------
    bids_dir : Path
        The dataset: raw BIDS, output of fMRIPrep whose description names the raw dataset, or
        prepared responses with ``stimuli.tsv``, or prepared series (also output of xcp_d).
        Subjects may differ in which they have; one who has prepared responses is read from these,
        one who has raw scans from these before series; but where no run of a subject has events,
        from the series that xcp_d left among the derivatives.
    derivatives : sequence of Path
        Derivative datasets, or folders of such, besides those in ``derivatives/``: fMRIPrep
        output, brain masks, regions of interest. They come first where several have the same.
    space : str or None
        Space of fMRIPrep output to read, such as ``T1w`` or ``MNI152NLin2009cAsym:res-2``; None
        chooses as `afterimage.bids.derivatives.choose_space` says.
    tasks, sessions : sequence of str
        Labels of tasks and sessions to list runs of, with or without ``task-`` and ``ses-``; empty
        means all. A run without a session is left out where sessions are named.

    Returns
    -------
    list of dict
        Rows with the columns `COLUMNS`. What cannot be used is listed with its ``problem``, so
        that the others go on and the report can say it.

    Raises
    ------
    InputError
        If there is no dataset, no subject, nothing that can be read in any of them, no task or
        session of a name asked for, or the table of stimuli cannot be read.
    """
    folders = _subject_folders(bids_dir)
    has_table = (bids_dir / "stimuli.tsv").is_file()
    table: list[Row] | None = None
    if has_table:
        table = read_tsv(bids_dir / "stimuli.tsv", required=("stimulus_id", "file"))
    root = absolute(bids_dir)
    raw = (linked_raw_dataset(root) if is_fmriprep(root) else None) or root
    made = find_derivatives(list(dict.fromkeys((root, raw))), derivatives)
    if is_fmriprep(root):
        made.insert(0, Derivative(root, fmriprep=True, given=True))
    scans = Scans(
        root, raw, made, COLUMNS, stimulus_table(bids_dir) is not None, space,
        frozenset(label.removeprefix("task-") for label in tasks),
        frozenset(label.removeprefix("ses-") for label in sessions),
    )  # fmt: skip
    rows = _all_rows(bids_dir, folders, scans, table)
    _name_missing_events(rows, scans.told)
    kinds = ("bold", "recording", "series")
    scanned = any(row[kind] != "n/a" for row in rows for kind in kinds)
    if not (has_table or scanned or scans.seen["task"]):
        raise InputError(
            "the dataset has no table of stimuli",
            where=str(bids_dir),
            found="no stimuli.tsv, no sub-*/[ses-*/]func/*_bold.nii.gz, no recording in "
            "sub-*/[ses-*/]eeg or meg, and no *_timeseries.tsv or .npy",
            expected="raw scans, prepared series, or prepared responses: stimuli.tsv with "
            "stimulus_id, file and optionally split, and sub-*/sub-*_responses.npy",
            fix="see 'Your own data' in the documentation for the ways in",
        )
    _check_asked_for(scans, bids_dir)
    return rows


def _all_rows(
    bids_dir: Path, folders: Sequence[str], scans: Scans, table: list[Row] | None
) -> list[Row]:
    """Return the rows of all subjects; one that cannot be read is a row with its problem."""
    rows: list[Row] = []
    # All rows live on: to look through them for garbage again and again is a third of the time.
    collecting = gc.isenabled()
    gc.disable()
    try:
        for name in folders:
            try:
                rows += _subject_rows(bids_dir, name, scans, table)
            except InputError as error:
                rows.append(_problem(name, error))
    finally:
        if collecting:
            gc.enable()
    return rows


def _check_asked_for(scans: Scans, bids_dir: Path) -> None:
    """Raise where no subject has a task or session that was asked for."""
    for entity, wanted in (("task", scans.tasks), ("ses", scans.sessions)):
        if unknown := sorted(wanted - scans.seen[entity]):
            raise InputError(
                f"the dataset has no {'task' if entity == 'task' else 'session'} of this name",
                where=str(bids_dir),
                found=", ".join(unknown),
                expected=", ".join(sorted(scans.seen[entity] - {""}, key=natural_key)) or "none",
                fix="check the names of tasks and sessions asked for",
            )


def _name_missing_events(rows: list[Row], told: set[str]) -> None:
    """Mark runs without events of a task that has some elsewhere: a file is missing, nobody rested."""
    for row in rows:
        scan = row["recording"] if row["bold"] == "n/a" else row["bold"]
        if scan != "n/a" and row["problem"] == row["events"] == "n/a" and row["task"] in told:
            row["problem"] = one_line(events_error(row["subject"], scan, row["task"]))


def _subject_folders(bids_dir: Path) -> list[str]:
    """Return the names of the folders of subjects, numbers by their value."""
    if not bids_dir.is_dir():
        raise InputError(
            "the dataset does not exist", where=str(bids_dir), found="no such folder",
            expected="a folder", fix="check the first argument",
        )  # fmt: skip
    folders, files = list_folder(str(bids_dir))
    names = [entry.name for entry in folders if entry.name.startswith("sub-")]
    if not names:
        others = sorted(entry.name for entry in (*folders, *files))
        raise InputError(
            "the dataset has no subject",
            where=str(bids_dir),
            found=", ".join(others[:8]) or "an empty folder",
            expected="folders named sub-01, sub-02, ...",
            fix="see 'Your own data' in the documentation for the layout",
        )
    return sorted(names, key=natural_key)


def _subject_rows(bids_dir: Path, name: str, scans: Scans, table: list[Row] | None) -> list[Row]:
    """Return the rows of one subject: prepared responses where there are any, scans, or series."""
    label = name.removeprefix("sub-")
    if not SUBJECT.fullmatch(name) or len(label) > MAX_LABEL:
        error = InputError(
            "the label of a subject cannot be used", where=str(bids_dir / name), found=name,
            expected=f"sub- and then letters and digits only, at most {MAX_LABEL}",
            fix="rename the folder and its files",
        )  # fmt: skip
        return [_problem(name, error)]
    prepared = _prepared_row(bids_dir, name)
    if prepared["responses"] == prepared["trials"] == "n/a":
        rows = scan_rows(scans, label)
        if any(row["recording"] != "n/a" or row["events"] != "n/a" for row in rows):
            return rows  # trials need the scans
        for made in scans.derivatives:
            if is_xcp_d(made.path) and (found := series_rows(scans, label, made.path)):
                return found
        if any(row["bold"] != "n/a" for row in rows):
            return rows
        return series_rows(scans, label) or rows
    return [_checked(prepared, bids_dir, name, table)]


def _problem(name: str, error: InputError) -> Row:
    """Return the row of a subject who cannot be read, under a label that a file name can hold."""
    label = name.removeprefix("sub-")
    safe = re.sub(r"[^A-Za-z0-9_.+-]", "_", label)[:MAX_LABEL]
    # What starts with a dash would be taken for an option by the commands it is given to.
    safe = safe.lstrip("._+-") or "unnamed"
    if safe != label:
        digest = hashlib.sha256(label.encode("utf-8", "surrogateescape")).hexdigest()
        safe = f"{safe[:40]}-{digest[:8]}"
    return dict.fromkeys(COLUMNS, "n/a") | {"subject": safe, "problem": one_line(error)}


def _prepared_row(bids_dir: Path, name: str) -> Row:
    """Return a subject's files of prepared responses."""
    row = dict.fromkeys(COLUMNS, "n/a") | {"subject": name.removeprefix("sub-")}
    for column, suffix in (
        ("responses", "responses.npy"),
        ("trials", "trials.tsv"),
        ("units", "units.tsv"),
        ("sidecar", "responses.json"),
    ):
        path = bids_dir / name / f"{name}_{suffix}"
        if path.is_file():
            row[column] = f"{name}/{path.name}"
    return row


def _checked(row: Row, bids_dir: Path, name: str, table: list[Row] | None) -> Row:
    """Complete the row of a subject with prepared responses: what is missing, and the modality."""
    pictures = not table or any(stimulus["file"] != "n/a" for stimulus in table)
    row |= {"source": "prepared", "stimuli": "yes" if pictures else "no"}
    missing = [column for column in ("responses", "trials") if row[column] == "n/a"]
    if missing:
        files = ", ".join(sorted(path.name for path in (bids_dir / name).iterdir())[:6])
        suffixes = {"responses": "responses.npy", "trials": "trials.tsv"}
        error = InputError(
            "a subject has no responses", where=name, found=files or "nothing",
            expected=" and ".join(f"{name}/{name}_{suffixes[column]}" for column in missing),
            fix="add the files, or remove the folder",
        )  # fmt: skip
        return row | {"problem": one_line(error)}
    if table is None:
        error = InputError(
            "prepared responses need a table of stimuli", where=name, found="no stimuli.tsv",
            expected="stimuli.tsv with stimulus_id, file and optionally split",
            fix="see 'Your own data' in the documentation for the layout",
        )  # fmt: skip
        return row | {"problem": one_line(error)}
    if row["units"] != "n/a":
        try:
            first = read_text(bids_dir / row["units"]).split("\n", 2)
            kind = dict(zip(first[0].split("\t"), first[1].split("\t"), strict=False)).get("kind")
        except (InputError, IndexError):
            kind = None  # the stage that reads the table says what is wrong with it
        row["modality"] = _MODALITY_OF_KIND.get(kind or "", "n/a")
    return row


def write_units(path: Path, rows: Sequence[Row]) -> bool:
    """Write the table of units where it changed; return whether it did."""
    lines = ["\t".join(COLUMNS)]
    lines += ["\t".join(format_cell(row[name]) for name in COLUMNS) for row in rows]
    return write_text_if_changed(path, "\n".join(lines) + "\n")


def read_units(path: Path) -> list[Row]:
    """Read the table that `write_units` wrote."""
    return read_tsv(path, required=COLUMNS)


def select_units(
    rows: Sequence[Row], participants: Sequence[str] = (), modalities: Sequence[str] = ()
) -> list[Row]:
    """Keep the rows of the named participants (with or without ``sub-``) and modalities.

    Empty means all; a subject's rows stay together and in order.

    Raises
    ------
    InputError
        If a participant is not in the dataset; the message lists those that are.
    """
    known = dict.fromkeys(row["subject"] for row in rows)
    wanted = {label.removeprefix("sub-"): None for label in participants}
    if unknown := [label for label in wanted if label not in known]:
        raise InputError(
            "a participant is not in the dataset",
            found=", ".join(unknown),
            expected=", ".join(list(known)[:50]),
            fix="check --participant-label",
        )
    return [
        row
        for row in rows
        if (not wanted or row["subject"] in wanted)
        and (not modalities or row["modality"] in modalities)
    ]


def picture_digest(folder: Path) -> str:
    """Return a short digest of the names and sizes of the pictures below a folder.

    Cheap (no file is opened); changes when a picture is added, removed or grows.
    """
    digest = hashlib.sha256()
    for entry in sorted(folder.rglob("*")):
        if entry.is_file():
            digest.update(
                os.fsencode(f"{entry.relative_to(folder).as_posix()} {entry.stat().st_size}\n")
            )
    return digest.hexdigest()[:16]
