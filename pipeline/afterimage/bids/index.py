"""Index a dataset once: its subjects and their files, as a table of units."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from afterimage.bids.names import SUBJECT
from afterimage.errors import InputError
from afterimage.io.atomic import write_text_if_changed
from afterimage.io.tables import Row, format_cell, read_text, read_tsv

#: One row a subject. Paths are relative to the dataset; ``n/a`` where a file is absent.
COLUMNS = ("subject", "modality", "responses", "trials", "units", "sidecar", "problem")

_MODALITY_OF_KIND = {
    "voxel": "fmri", "vertex": "fmri", "eeg": "eeg", "mag": "meg", "grad": "meg",
    "neuron": "spikes",
}  # fmt: skip


def index_dataset(bids_dir: Path) -> list[Row]:
    """List the subjects of a dataset of prepared responses.

    Parameters
    ----------
    bids_dir : Path
        The dataset: ``stimuli.tsv`` and one folder a subject.

    Returns
    -------
    list of dict
        One row a subject with the columns `COLUMNS`. A subject whose files are missing is listed
        with its ``problem``, so that the others go on and the report can say it.

    Raises
    ------
    InputError
        If there is no dataset, no subject, or the table of stimuli cannot be read at all.
    """
    if not bids_dir.is_dir():
        raise InputError(
            "the dataset does not exist", where=str(bids_dir), found="no such folder",
            expected="a folder", fix="check the first argument",
        )  # fmt: skip
    folders = sorted(path for path in bids_dir.glob("sub-*") if path.is_dir())
    if not folders:
        raise InputError(
            "the dataset has no subject",
            where=str(bids_dir),
            found=", ".join(sorted(p.name for p in bids_dir.iterdir())[:8]) or "an empty folder",
            expected="folders named sub-01, sub-02, ...",
            fix="see 'Your own data' in the documentation for the layout",
        )
    stimuli = bids_dir / "stimuli.tsv"
    if not stimuli.is_file():
        raise InputError(
            "the dataset has no table of stimuli",
            where=str(bids_dir),
            found="no stimuli.tsv",
            expected="stimuli.tsv with stimulus_id, file and optionally split",
            fix="this version reads prepared responses; see 'Your own data' in the documentation",
        )
    read_tsv(stimuli, required=("stimulus_id", "file"))
    return [_unit(bids_dir, folder) for folder in folders]


def _unit(bids_dir: Path, folder: Path) -> Row:
    name = folder.name
    row = dict.fromkeys(COLUMNS, "n/a") | {"subject": name.removeprefix("sub-")}
    for column, suffix in (
        ("responses", "responses.npy"),
        ("trials", "trials.tsv"),
        ("units", "units.tsv"),
        ("sidecar", "responses.json"),
    ):
        path = folder / f"{name}_{suffix}"
        if path.is_file():
            row[column] = path.relative_to(bids_dir).as_posix()
    missing = [column for column in ("responses", "trials") if row[column] == "n/a"]
    if not SUBJECT.fullmatch(name):
        error = InputError(
            "the label of a subject cannot be used", where=str(folder), found=name,
            expected="sub- and then letters and digits only", fix="rename the folder and its files",
        )  # fmt: skip
        row["problem"] = str(error).replace("\n", " | ")
    elif missing:
        files = ", ".join(sorted(path.name for path in folder.iterdir())[:6]) or "nothing"
        suffixes = {"responses": "responses.npy", "trials": "trials.tsv"}
        expected = " and ".join(f"{name}/{name}_{suffixes[column]}" for column in missing)
        error = InputError(
            "a subject has no responses", where=name, found=files, expected=expected,
            fix="add the files, or remove the folder",
        )  # fmt: skip
        row["problem"] = str(error).replace("\n", " | ")
    elif row["units"] != "n/a":
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
    """Keep the named participants (with or without ``sub-``) and modalities; empty means all.

    Raises
    ------
    InputError
        If a participant is not in the dataset; the message lists those that are.
    """
    known = [row["subject"] for row in rows]
    wanted = [label.removeprefix("sub-") for label in participants]
    if unknown := [label for label in wanted if label not in known]:
        raise InputError(
            "a participant is not in the dataset",
            found=", ".join(unknown),
            expected=", ".join(known[:50]),
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
                f"{entry.relative_to(folder).as_posix()} {entry.stat().st_size}\n".encode()
            )
    return digest.hexdigest()[:16]
