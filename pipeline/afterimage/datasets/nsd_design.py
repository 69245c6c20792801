"""The design of NSD: which image was shown in which trial, from the published tables."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from afterimage.datasets.mat_files import read_mat
from afterimage.datasets.registry import require_file
from afterimage.errors import InputError
from afterimage.io.tables import read_text, read_tsv, whole_number

#: Sessions released of each subject.
SESSIONS = dict(
    zip((f"{n:02d}" for n in range(1, 9)), (40, 40, 32, 30, 40, 32, 40, 30), strict=True)
)
TRIALS_A_SESSION = 750
TRIAL_S = 4.0
DESIGN = "nsddata/experiments/nsd/nsd_expdesign.mat"
_INFO = "nsddata/experiments/nsd/nsd_stim_info_merged.csv"


@dataclass(frozen=True)
class Design:
    """The experimental design: which image was shown in which trial."""

    ordering: np.ndarray  # (n_trials,) index into a subject's images, 1-based as published
    images: np.ndarray  # (8, n_images) ids of images, 1-based as published; the shared ones first
    n_shared: int
    pattern: np.ndarray | None  # (40, 12, 75) whether a 4-s slot of a run shows an image


def stimulus_id(number: int) -> str:
    """Return the id of the image with this 0-based number: ``nsd02950``."""
    return f"nsd{number:05d}"


def read_design(source: Path) -> Design:
    """Read and check ``nsd_expdesign.mat``.

    Raises
    ------
    InputError
        If it is missing, lacks a variable, or its ids are not 1-based.
    """
    path = require_file(source / DESIGN, "the experimental design", Path(DESIGN).name)
    names = ("masterordering", "subjectim", "sharedix", "stimpattern")
    found = read_mat(path, names)
    if absent := [name for name in names[:2] if name not in found]:
        raise InputError(
            "the experimental design lacks a variable", where=str(path),
            found=", ".join(found) or "none of those that are read",
            expected=", ".join(absent), fix="download it again",
        )  # fmt: skip
    ordering = np.asarray(found["masterordering"]).ravel().astype(np.int64)
    images = np.asarray(found["subjectim"]).astype(np.int64)
    if images.ndim != 2 or images.shape[0] != len(SESSIONS):
        raise InputError(
            "the table of images has the wrong shape", where=f"{path}, subjectim",
            found=str(images.shape), expected="(8, 10000): a row a subject",
            fix="take the file as it was published",
        )  # fmt: skip
    _check_ids(path, "masterordering", ordering, images.shape[1])
    _check_ids(path, "subjectim", images, 73000)
    shared = np.asarray(found.get("sharedix", images[0, :1000])).ravel()
    if any(set(row[: len(shared)]) != set(shared) for row in images):
        raise InputError(
            "the shared images do not come first in every subject", where=f"{path}, subjectim",
            found="other ids than in sharedix", expected=f"the {len(shared)} ids of sharedix",
            fix="download the file again",
        )  # fmt: skip
    pattern = found.get("stimpattern")
    return Design(ordering, images, len(shared), None if pattern is None else np.asarray(pattern))


def _check_ids(path: Path, name: str, ids: np.ndarray, last: int) -> None:
    """Raise an error if ids are 0-based or beyond the last one."""
    low, high = int(ids.min()), int(ids.max())
    if low < 1 or high > last:
        raise InputError(
            "ids of images count from 0" if low == 0 else "ids of images are out of range",
            where=f"{path}, {name}", found=f"{low} to {high}", expected=f"1 to {last}",
            fix="take the file as it was published",
        )  # fmt: skip


def trial_rows(
    source: Path, subject: str, design: Design, sessions: Sequence[int], notes: list[str]
) -> list[dict[str, Any]]:
    """Return one row a trial of the sessions, in the order of the betas.

    The behavioural table, where it is there, gives the run and confirms the images.
    """
    behaviour = _behaviour(source, subject, notes)
    rows = []
    for session in sessions:
        start = (session - 1) * TRIALS_A_SESSION
        places = design.ordering[start : start + TRIALS_A_SESSION]
        if len(places) < TRIALS_A_SESSION:
            raise InputError(
                "the design has too few trials", where=f"{DESIGN}, masterordering",
                found=f"{len(design.ordering)} trials",
                expected=f"at least {start + TRIALS_A_SESSION} for session {session}",
                fix="download it again",
            )  # fmt: skip
        ids = design.images[int(subject) - 1, places - 1]
        slots = _slots(design, session)
        seen = behaviour.get(session)
        if seen is not None:
            _check_behaviour(subject, session, seen, ids)
        for trial in range(TRIALS_A_SESSION):
            run, onset_s = slots[trial] if slots else ("n/a", "n/a")
            number = int(ids[trial]) - 1
            rows.append(
                {
                    "stimulus_id": stimulus_id(number),
                    "session": f"{session:02d}",
                    "run": f"{int(seen[trial]['RUN']):02d}" if seen else run,
                    "trial": trial + 1,
                    "onset": onset_s,
                    "duration": 3,
                    "split": "test" if places[trial] <= design.n_shared else "train",
                    "nsd_id": number,
                }
            )
    return rows


def _slots(design: Design, session: int) -> list[tuple[str, float]]:
    """Return run and onset (s) of each trial from the pattern of 4-s slots, or nothing."""
    pattern = design.pattern
    if pattern is None or pattern.ndim != 3 or len(pattern) < session:
        return []
    runs, slots = np.nonzero(pattern[session - 1])
    if len(runs) != TRIALS_A_SESSION:
        return []
    return [(f"{r + 1:02d}", TRIAL_S * float(s)) for r, s in zip(runs, slots, strict=True)]


def _behaviour(source: Path, subject: str, notes: list[str]) -> dict[int, list[dict[str, str]]]:
    path = source / f"nsddata/ppdata/subj{subject}/behav/responses.tsv"
    if not path.is_file():
        notes.append(
            f"sub-{subject}: no behav/responses.tsv; image ids are not checked against it"
        )
        return {}
    sessions: dict[int, list[dict[str, str]]] = {}
    for row in read_tsv(path, required=("SESSION", "RUN", "73KID")):
        sessions.setdefault(whole_number(row, "SESSION", str(path)), []).append(row)
    return {
        number: [{**row, "RUN": str(whole_number(row, "RUN", str(path)))} for row in rows]
        for number, rows in sessions.items()
        if len(rows) == TRIALS_A_SESSION
    }


def _check_behaviour(
    subject: str, session: int, rows: list[dict[str, str]], ids: np.ndarray
) -> None:
    shown = np.array(
        [whole_number(row, "73KID", f"responses.tsv of subj{subject}") for row in rows]
    )
    if (shown == ids).all():
        return
    shift = np.unique(ids - shown)
    raise InputError(
        "image ids of the design and of the behavioural table differ",
        where=f"subj{subject}, session {session}",
        found=f"a constant difference of {shift[0]}" if len(shift) == 1
        else f"{int((shown != ids).sum())} of {len(ids)} trials differ",
        expected="the same 1-based ids in both",
        fix="take both files as they were published, for the same subject",
    )  # fmt: skip


def coco_ids(source: Path) -> dict[int, str]:
    """Return the COCO id of every image from the table of images, where it is there."""
    path = source / _INFO
    if not path.is_file():
        return {}
    rows = csv.DictReader(io.StringIO(read_text(path), newline=""))
    if not {"nsdId", "cocoId"} <= set(rows.fieldnames or ()):
        return {}
    return {whole_number(row, "nsdId", str(path)): row["cocoId"] for row in rows}
