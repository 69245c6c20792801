"""Rows of ``_events.tsv``: which are trials, what they show, and when."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from afterimage.bids.stimuli import below_stimuli
from afterimage.errors import InputError
from afterimage.io.tables import Row

#: Kinds of events (column ``trial_type``) that are no trials, however they are written
#: ("Button-Press" is "buttonpress"). The argument ``trial_types`` of `read_events` overrides them.
NOT_TRIALS = frozenset(
    {
        "na", "", "none", "null", "blank", "rest", "resting", "baseline", "fixation", "fix",
        "fixationcross", "fixationpoint", "iti", "isi", "cue", "instruction", "instructions",
        "response", "button", "buttonpress", "keypress", "feedback", "catch", "start", "end",
        "pause", "break", "trigger", "dummy",
    }
)  # fmt: skip

# Columns that say what was shown, the first one found is taken.
_STIMULUS_COLUMNS = ("stimulus_id", "stim_file", "trial_type")

_PICTURE = re.compile(r"\.(png|jpe?g|bmp|tiff?|gif|webp)$", flags=re.I)


def stimulus_column(path: Path, table: list[Row], subject: str, wanted: str | None) -> str:
    """Return the column that says what was shown: the one wanted, or the first of those known."""
    columns = list(table[0]) if table else []
    if not table:
        raise InputError(
            "a run has no trials", where=f"sub-{subject}, {path}", found="a header and no events",
            expected="one row an event", fix="write the events, or remove the run",
        )  # fmt: skip
    choices = (wanted,) if wanted else _STIMULUS_COLUMNS
    for name in choices:
        if name in columns:
            return name
    raise InputError(
        "the events do not say what was shown",
        where=f"sub-{subject}, {path}, line 1",
        found=", ".join(columns),
        expected=f"a column {' or '.join(choices)}",
        fix="set stimulus_column to the column that tells stimuli apart",
    )


def _plain(kind: str) -> str:
    return re.sub(r"[^a-z0-9]", "", kind.lower())


def trials_only(
    rows: list[tuple[int, Row]], column: str, trial_types: Sequence[str], path: Path, subject: str
) -> tuple[list[tuple[int, Row]], list[str]]:
    """Return the rows that are trials, and a note on what the others were."""
    has_types = "trial_type" in rows[0][1]
    if trial_types and not has_types:
        raise InputError(
            "trials are to be chosen by trial_type, and the events have no such column",
            where=f"sub-{subject}, {path}, line 1", found=", ".join(rows[0][1]),
            expected="a column trial_type", fix="leave trial_types empty, or add the column",
        )  # fmt: skip

    def is_trial(row: Row) -> bool:
        if row[column].lower() in ("n/a", ""):
            return False
        if trial_types:
            return row["trial_type"] in trial_types
        kind = row.get("trial_type", "n/a") if column != "trial_type" else row[column]
        # An event that names its stimulus is a trial also where its kind was left open.
        unknown = column != "trial_type" and kind.lower() in ("n/a", "")
        return unknown or _plain(kind) not in NOT_TRIALS

    kept = [pair for pair in rows if is_trial(pair[1])]
    others = [row for _, row in rows if not is_trial(row)]
    if not others:
        return kept, []
    kinds = Counter(row.get("trial_type", row[column]) for row in others)
    listed = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common(8))
    return kept, [f"{len(others)} of {len(rows)} events are no trials ({listed})"]


def is_path(row: Row, column: str) -> bool:
    """Whether what was shown is said by the path of a picture: in stim_file, or a column like it."""
    own = column not in _STIMULUS_COLUMNS and _PICTURE.search(row[column])
    return column == "stim_file" or bool(own)


def picture(row: Row, column: str) -> str:
    """Return the picture of a trial, relative to ``stimuli/``."""
    file = row[column] if is_path(row, column) else row.get("stim_file", "n/a")
    return "n/a" if file.lower() in ("n/a", "") else below_stimuli(file)


def number(text: str, column: str, line: int, path: Path, subject: str) -> float:
    """Return a time in s; raise where the cell holds none."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InputError(
            "a time of an event is not a number",
            where=f"sub-{subject}, {path}, line {line}, column {column}",
            found=text or "an empty cell",
            expected="a number in s", fix="correct the cell, or remove the event",
        )  # fmt: skip
    return value


def duration(row: Row, line: int, path: Path, subject: str) -> float | None:
    """Return the duration of an event in s; None where it is ``n/a``."""
    text = row["duration"]
    if text.lower() == "n/a":
        return None
    value = number(text, "duration", line, path, subject)
    if value < 0:
        raise InputError(
            "the duration of an event is negative",
            where=f"sub-{subject}, {path}, line {line}", found=f"{text} s",
            expected="0 or more, in s", fix="correct the cell, or write n/a",
        )  # fmt: skip
    return value
