"""Names of BIDS files taken apart: entities, suffix and extension."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

#: Values of entities: letters, digits and, since BIDS 1.9, a plus sign.
_PART = re.compile(r"([a-z]+)-([a-zA-Z0-9+]+)")

# Entities whose value is a number: run-1 and run-01 are the same run.
_NUMBERED = frozenset({"run", "echo"})

#: Entities of one run's files that its events, sidecars and derivatives need not share.
WITHIN_RUN = frozenset({"echo", "part", "split"})

#: Entities that derivatives add to the name of the run they come from.
DERIVED = frozenset(
    {"space", "cohort", "res", "den", "desc", "label", "hemi", "atlas", "seg", "scale", "stat"}
)


class BidsName(NamedTuple):
    """One file name taken apart.

    Attributes
    ----------
    entities : dict
        Entity to value, in the order of the name, as written: ``{"sub": "01", "run": "02"}``.
    key : frozenset
        The same pairs to compare names by: the numbers of runs and echoes without leading zeros.
    suffix, extension : str
        ``bold`` and ``.nii.gz``; the extension starts at the first dot.
    """

    entities: dict[str, str]
    key: frozenset[tuple[str, str]]
    suffix: str
    extension: str


@lru_cache(maxsize=4096)
def _pair(part: str) -> tuple[str, str, str] | None:
    """Return entity, value and value to compare by; None where ``part`` is no entity."""
    match = _PART.fullmatch(part)
    if match is None:
        return None
    entity, value = match.groups()
    return entity, value, value.lstrip("0") or "0" if entity in _NUMBERED else value


def parse_name(name: str) -> BidsName | None:
    """Take a file name apart; None where it does not follow the rules of BIDS.

    Examples
    --------
    >>> parse_name("sub-01_task-view_run-02_bold.nii.gz").entities
    {'sub': '01', 'task': 'view', 'run': '02'}
    >>> parse_name("notes.txt") is None
    False
    >>> parse_name("sub-01_bold_final.nii.gz") is None
    True
    """
    stem, dot, extension = name.partition(".")
    *parts, suffix = stem.split("_")
    entities: dict[str, str] = {}
    key = []
    for part in parts:
        pair = _pair(part)
        if pair is None or pair[0] in entities:
            return None
        entities[pair[0]] = pair[1]
        key.append((pair[0], pair[2]))
    if not suffix or "-" in suffix:
        return None
    return BidsName(entities, frozenset(key), suffix, dot + extension)


def run_key(name: BidsName) -> frozenset[tuple[str, str]]:
    """Return what tells a run from others, equal for all files of the run and its derivatives."""
    return frozenset(
        pair for pair in name.key if pair[0] not in WITHIN_RUN and pair[0] not in DERIVED
    )


def run_prefix(scan: str) -> str:
    """Return the start of the names of a run's outputs; ``scan`` is its image or recording.

    Examples
    --------
    >>> run_prefix("sub-1/func/sub-1_task-view_run-2_space-T1w_desc-preproc_bold.nii.gz")
    'sub-1_task-view_run-2'
    >>> run_prefix("sub-1/meg/sub-1_task-view_split-01_meg.fif")
    'sub-1_task-view'
    """
    stem = scan.rpartition("/")[2].partition(".")[0]
    parts = stem.split("_")[:-1]
    hidden = DERIVED | {"split"}
    return "_".join(part for part in parts if part.partition("-")[0] not in hidden)


def natural_key(text: str) -> list[tuple[int, int | str]]:
    """Return a key that sorts numbers inside text by their value: run-2 before run-10."""
    return [
        (0, int(part)) if part.isdecimal() else (1, part)
        for part in re.split(r"([0-9]+)", text)
        if part
    ]
