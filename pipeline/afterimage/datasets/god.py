"""Horikawa & Kamitani 2017, Generic object decoding (ds001246), https://doi.org/10.1038/ncomms15037.

The published BIDS folder is linked, with events that name pictures. Pictures are keyed on
``stimulus_name``, not on the float ``stimulus_id`` made from it. Training and test sessions are
the split. Imagery has no picture and is left out. The second of two equal pictures in a row (the
one-back task) stays in the design as an event of its own, and is no trial unless asked for.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from afterimage.datasets.bids_view import subjects_of
from afterimage.datasets.kamitani import (
    convert_rows,
    image_name,
    is_missing,
    split_of,
    write_view,
)
from afterimage.datasets.pictures import PictureFolder
from afterimage.datasets.registry import DATASETS, DatasetSettings, Report, choose_subjects
from afterimage.io.tables import Row

SUBJECTS = ("01", "02", "03", "04", "05")
SPLITS = {"perceptionTraining": "train", "perceptionTest": "test"}
_SESSIONS = re.compile(r"perception(Training|Test)\d+")


class GodSettings(DatasetSettings):
    """What is taken of Generic Object Decoding."""

    kind: Literal["god"] = "god"
    keep_repetitions: bool = Field(
        False, description="count the second of two equal pictures in a row as a trial"
    )


@DATASETS.register("god", GodSettings)
class God:
    """Reader of Generic Object Decoding.

    Parameters
    ----------
    settings : GodSettings
    """

    def __init__(self, settings: GodSettings) -> None:
        self._settings = settings

    def convert(
        self, source: Path, target: Path, subjects: Sequence[str], report: Report
    ) -> list[str]:
        """Write a BIDS folder of links; see `DatasetReader.convert`."""
        present = subjects_of(source, SUBJECTS)
        chosen = choose_subjects(
            subjects,
            SUBJECTS,
            present,
            source,
            "sub-XX/ses-perceptionTraining01/func/*_bold.nii.gz",
        )
        pictures = PictureFolder(self._settings.stimuli or _beside(source), ".JPEG")

        def convert(session: str, rows: list[Row]) -> list[dict[str, Any]]:
            named = [_with_kind(row, before) for before, row in _pairs(rows)]
            return convert_rows(
                named, split_of(session, SPLITS), lambda row: row["kind"], _name, pictures,
                keep_repetitions=self._settings.keep_repetitions,
            )  # fmt: skip

        notes = write_view(
            source, target, chosen, _SESSIONS, convert, pictures, report, "GOD (ds001246)"
        )
        ask = "ask for them by the request form that the dataset's repository links"
        return [*notes, *pictures.notes(ask)]


def _beside(source: Path) -> Path | None:
    folder = source / "stimuli"
    return folder if folder.is_dir() else None


def _name(row: Row) -> str:
    """Return the name of a row's picture; the float id stands in where the name is missing."""
    name = row.get("stimulus_name")
    return row["stimulus_name"] if not is_missing(name) else image_name(row["stimulus_id"])


def _pairs(rows: list[Row]) -> list[tuple[Row | None, Row]]:
    return list(zip([None, *rows[:-1]], rows, strict=True))


def _with_kind(row: Row, before: Row | None) -> Row:
    """Say what a row is: the table calls the first picture and its repetition both stimulus."""
    kind = row.get("event_type", "n/a")
    if kind == "stimulus" and before is not None and before.get("event_type") == "stimulus":
        kind = "repetition" if _name(row) == _name(before) else kind
    return {**row, "kind": kind}
