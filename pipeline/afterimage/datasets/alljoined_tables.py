"""The tables of Alljoined-1.6M: which image each trial showed, and what it shows (Parquet, or csv)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from afterimage.datasets.registry import require_file
from afterimage.datasets.things_tables import read_rows
from afterimage.errors import InputError

#: Numbers of the training images, then the test images; targets of the attention task follow.
N_TRAINING, N_TEST = 16540, 200
#: Row of the planned order that was shown earlier than planned: subject to (from, to), from 0.
SWAPPED = {"06": (73762, 73760)}


def read_concepts(source: Path, notes: list[str]) -> dict[int, str]:
    """Return the concept of each image number from the published table, where it can be read."""
    folder = source / "preprocessed_eeg"
    for stem in ("experiment_metadata_categories", "metadata"):
        path = _table_file(folder, stem)
        if path is not None:
            rows = _table(path, ("image_path", "category_name"))
            return {int(image_name(row)): row["category_name"] for row in rows}
    notes.append(
        "no preprocessed_eeg/experiment_metadata_categories.parquet (or .csv): concepts have "
        "numbers instead of names, ten training images each, as THINGS-EEG2 orders them"
    )
    return {}


def read_design(folder: Path, subject: str, notes: list[str]) -> list[dict[str, str]]:
    """Return the rows of trials that were recorded, in the order of the responses."""
    path = _table_file(folder, "experiment_metadata")
    required = ("image_path", "partition", "session")
    if path is not None:
        rows = _table(path, (*required, "dropped"))
        kept = [row for row in rows if row["dropped"].lower() not in ("true", "1")]
        if len(kept) < len(rows):
            notes.append(
                f"sub-{subject}: {len(rows) - len(kept)} planned trials were not recorded"
            )
        return kept
    path = _table_file(folder, "stim_order")
    if path is None:
        require_file(
            folder / "experiment_metadata.parquet", "the table of trials",
            "experiment_metadata.parquet or stim_order.parquet, or either as .csv",
        )  # fmt: skip
    rows = _table(path or folder, required)
    move, to = SWAPPED.get(subject, (0, 0))
    if move and len(rows) > move:
        rows.insert(to, rows.pop(move))
        notes.append(
            f"sub-{subject}: row {move} of the planned order was shown before row {to}, a known "
            "error; it is moved there"
        )
    return rows


def _table_file(folder: Path, stem: str) -> Path | None:
    for ending in ("parquet", "csv"):
        if (folder / f"{stem}.{ending}").is_file():
            return folder / f"{stem}.{ending}"
    return None


def _table(path: Path, required: Sequence[str]) -> list[dict[str, str]]:
    """Read a table from Parquet (with pyarrow) or from comma-separated text."""
    if path.suffix == ".csv":
        return read_rows(path, required)
    try:
        import pyarrow.parquet
    except ImportError:
        raise InputError(
            "a Parquet table needs the package pyarrow", where=str(path),
            found="pyarrow is not installed", expected=f"pyarrow, or {path.stem}.csv beside it",
            fix="pip install pyarrow; or write the table as .csv elsewhere and put it there",
        ) from None  # fmt: skip
    try:
        table = pyarrow.parquet.read_table(path)
    except (OSError, ValueError) as error:
        raise InputError(
            "a Parquet table cannot be read", where=str(path), found=str(error)[:300],
            expected="a whole file", fix="download it again",
        ) from None  # fmt: skip
    if absent := [name for name in required if name not in table.column_names]:
        raise InputError(
            "a table lacks a column", where=str(path), found=", ".join(table.column_names)[:200],
            expected=", ".join(absent), fix="download the table again",
        )  # fmt: skip
    return [{key: str(value) for key, value in row.items()} for row in table.to_pylist()]


def image_name(row: Mapping[str, str]) -> str:
    """Return the name of a row's image, without folder and suffix: ``00012``."""
    return row["image_path"].replace("\\", "/").rsplit("/", 1)[-1].rsplit(".", 1)[0]


def numbered_concept(number: int) -> str:
    """Return a name for the concept: ten training images each, in order, and a test image each."""
    if number < N_TRAINING:
        return f"train{number // 10:04d}"
    return f"test{number - N_TRAINING:03d}"
