"""Shen et al. 2019, Deep image reconstruction (ds001506), https://doi.org/10.1371/journal.pcbi.1006633.

The published BIDS folder is linked, with events that name pictures. ``event_type`` is a number
there (1 picture, 2 one-back repetition, negative for rest). Older copies have no
``stimulus_name``: natural images are then named from the float id, shapes by their number. Blocks
of 8 s follow each other without a pause: the authors average volumes, and so does the
block-average estimator; single-trial GLMs do poorly on this design.
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
from afterimage.datasets.registry import (
    DATASETS,
    DatasetSettings,
    Names,
    Report,
    choose_subjects,
)
from afterimage.errors import ConfigError, InputError
from afterimage.io.tables import Row

SUBJECTS = ("01", "02", "03")
#: Sessions by the beginning of their label; some copies spell "Artifical".
SPLITS = {
    "perceptionNaturalImageTraining": "train",
    "perceptionNaturalImageTest": "test",
    "perceptionArtifi": "test",
    "perceptionLetterImage": "test",
}
_SESSIONS = {
    "natural": r"perceptionNaturalImage(?:Training|Test)\d+",
    "artificial": r"perceptionArtifici?alImage\d+",
    "letter": r"perceptionLetterImage\d+",
}
_KINDS = {1: "stimulus", 2: "repetition", -1: "rest", -2: "rest", -3: "rest"}


class DeepreconSettings(DatasetSettings):
    """What is taken of Deep Image Reconstruction."""

    kind: Literal["deeprecon"] = "deeprecon"
    images: Names = Field(
        ("natural",), description="sessions to take: natural, artificial, letter"
    )
    keep_repetitions: bool = Field(
        False, description="count the second of two equal pictures in a row as a trial"
    )


@DATASETS.register("deeprecon", DeepreconSettings)
class Deeprecon:
    """Reader of Deep Image Reconstruction.

    Parameters
    ----------
    settings : DeepreconSettings
    """

    def __init__(self, settings: DeepreconSettings) -> None:
        if unknown := [name for name in settings.images if name not in _SESSIONS]:
            raise ConfigError(
                "the dataset has no such images", found=", ".join(unknown),
                expected=", ".join(_SESSIONS), fix="check the option images",
            )  # fmt: skip
        self._settings = settings

    def convert(
        self, source: Path, target: Path, subjects: Sequence[str], report: Report
    ) -> list[str]:
        """Write a BIDS folder of links; see `DatasetReader.convert`."""
        present = subjects_of(source, SUBJECTS)
        download = "sub-XX/ses-perceptionNaturalImageTraining01/func/*_bold.nii.gz"
        chosen = choose_subjects(subjects, SUBJECTS, present, source, download)
        folder = self._settings.stimuli or source / "stimuli"
        given = self._settings.stimuli is not None or folder.is_dir()
        pictures = PictureFolder(folder if given else None, ".JPEG")
        sessions = re.compile("|".join(_SESSIONS[name] for name in self._settings.images))

        def convert(session: str, rows: list[Row]) -> list[dict[str, Any]]:
            return convert_rows(
                rows, split_of(session, SPLITS), _kind, lambda row: _name(row, session), pictures,
                keep_repetitions=self._settings.keep_repetitions,
            )  # fmt: skip

        notes = write_view(
            source, target, chosen, sessions, convert, pictures, report, "Deeprecon (ds001506)"
        )
        ask = "ask for them by the request form that the dataset's repository links"
        return [*notes, *pictures.notes(ask)]


def _kind(row: Row) -> str:
    """Return what a numeric event type stands for."""
    try:
        return _KINDS[round(float(row["event_type"]))]
    except (KeyError, ValueError):
        raise InputError(
            "an event has an unknown type", where=f"onset {row['onset']}",
            found=row.get("event_type", "no column event_type"),
            expected="1 (picture), 2 (repetition), -1, -2 or -3 (rest)",
            fix="download the events table again",
        ) from None  # fmt: skip


def _name(row: Row, session: str) -> str:
    """Return the name of a row's picture, from the float id where the table has no names."""
    if not is_missing(row.get("stimulus_name")):
        return row["stimulus_name"]
    if session.startswith("perceptionNatural"):
        return image_name(row["stimulus_id"])
    family = "letter" if session.startswith("perceptionLetter") else "artificial"
    try:
        return f"{family}{round(float(row['stimulus_id'])):02d}"
    except (ValueError, OverflowError):
        raise InputError(
            "an event has an unknown stimulus", where=f"onset {row['onset']}",
            found=row["stimulus_id"], expected="a number", fix="download the events table again",
        ) from None  # fmt: skip
