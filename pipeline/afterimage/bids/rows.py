"""What rows of the table of units have in common, whatever the scanner."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import TYPE_CHECKING

from afterimage.bids.files import BidsFile
from afterimage.bids.names import MAX_NAME
from afterimage.errors import InputError
from afterimage.io.tables import Row

if TYPE_CHECKING:
    from afterimage.bids.scans import Scans


def one_line(error: InputError) -> str:
    """Return an error as the table of units holds it."""
    return str(error).replace("\n", " | ")


def problem_row(scans: Scans, label: str, error: InputError) -> Row:
    """Return a row that says only whose it is and what is wrong."""
    return dict.fromkeys(scans.columns, "n/a") | {"subject": label, "problem": one_line(error)}


def check_folder(scans: Scans, label: str, file: BidsFile, folder: str, ending: str) -> None:
    """Raise if the name of a scan does not say the task, or another subject or session.

    Parameters
    ----------
    scans : Scans
    label : str
        The subject that the folder is of.
    file : BidsFile
        The scan.
    folder, ending : str
        Folder of scans of this kind, such as ``func``, and end of their names, as ``_bold``.
    """
    entities, path = file.name.entities, scans.relative(file.path)
    name = file.path.rpartition("/")[2]
    if len(name) > MAX_NAME:
        raise InputError(
            "the name of a scan is too long", where=f"sub-{label}, {path}",
            found=f"{len(name)} letters", expected=f"at most {MAX_NAME}",
            fix="shorten its labels, and those of its events",
        )  # fmt: skip
    above = file.path.rpartition(f"/{folder}/")[0].rpartition("/")[2]
    session = above.removeprefix("ses-") if above.startswith("ses-") else None
    if entities.get("sub") != label or entities.get("ses") != session:
        raise InputError(
            "the name of a scan contradicts its folder", where=f"sub-{label}, {path}",
            found=file.path.rpartition("/")[2],
            expected=f"a name that starts with sub-{label}_" + (f"{above}_" if session else ""),
            fix="rename the file, or move it",
        )  # fmt: skip
    if "task" not in entities:
        raise InputError(
            "the name of a scan has no task", where=f"sub-{label}, {path}",
            found=file.path.rpartition("/")[2], expected=f"sub-{label}_..._task-<label>_...{ending}",
            fix="add task-<label> to the names of the scan and its events",
        )  # fmt: skip


def events_error(label: str, scan: str, task: str) -> InputError:
    """Return the error of a run without events whose task has events elsewhere."""
    run = scan.rpartition("/")[2].rpartition("_")[0]
    return InputError(
        "a run has no events", where=f"sub-{label}, {scan}",
        found=f"no file of events applies to it; other runs of task-{task} have events",
        expected=f"{run}_events.tsv beside it, or one above that applies",
        fix="add the file; to leave the run out, choose tasks or sessions",
    )  # fmt: skip


def names_pictures(scans: Scans, label: str, events: str) -> str:
    """Say by the header of the events whether the pictures are known: yes or no."""
    try:
        path = Path(scans.bids_dir, events)
        if path.exists() and not path.is_file():
            raise OSError(errno.EINVAL, "no file, but a folder, pipe or device")
        with path.open("rb") as file:
            header = file.readline(65536).decode("utf-8-sig", errors="replace").split("\t")
    except OSError as error:
        raise InputError(
            "the events of a run cannot be opened", where=f"sub-{label}, {events}",
            found=error.strerror or "an error", expected="a readable file",
            fix="check its permissions; fetch it if it is a link, for example with: datalad get",
        ) from None  # fmt: skip
    columns = {column.strip() for column in header}
    known = "stim_file" in columns or (scans.has_table and "stimulus_id" in columns)
    return "yes" if known else "no"
