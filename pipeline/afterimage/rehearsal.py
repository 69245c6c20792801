"""A dry run of many subjects: Snakemake is asked about those that differ, the others are counted.

A graph of jobs costs Snakemake milliseconds and tens of kilobytes a job. Subjects of whom nothing is there
yet, and whose files differ in nothing but the label of the subject, have the same jobs: two of them tell
those of all, and which jobs there are once for all subjects.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from afterimage.io.tables import Row

#: Subjects of one kind that Snakemake is asked about: two, so that what compares people is there.
N_ASKED = 2

_RULE = re.compile(r"^(?:local)?rule (\w+):")
_SUBJECT = re.compile(r"^    wildcards: (?:.*, )?subject=(\w+)")


def kinds_of_subjects(rows: Sequence[Row], out: Path) -> tuple[list[str], list[list[str]]]:
    """Sort subjects by whether the same jobs would run for them.

    Parameters
    ----------
    rows : sequence of dict
        Rows of the table of units that would be run on.
    out : Path
        The output dataset.

    Returns
    -------
    known : list of str
        Labels of subjects that have outputs already, each a case of its own.
    kinds : list of list of str
        Labels of the others; those of one list have the same jobs.
    """
    shapes: dict[str, list[tuple[str, ...]]] = {}
    for row in rows:
        name = f"sub-{row['subject']}"
        # What is wrong with a file does not matter: such a row is left out.
        cells = (
            "problem" if key == "problem" and cell != "n/a" else cell.replace(name, "sub")
            for key, cell in row.items()
            if key != "subject"
        )
        shapes.setdefault(row["subject"], []).append(tuple(cells))
    there = {path.name.removesuffix(".html") for path in out.glob("sub-*")}
    known: list[str] = []
    kinds: dict[tuple[tuple[str, ...], ...], list[str]] = {}
    for label, shape in shapes.items():
        if f"sub-{label}" in there:
            known.append(label)
        else:
            kinds.setdefault(tuple(shape), []).append(label)
    return known, list(kinds.values())


def count_jobs(lines: Iterable[str], kinds: Sequence[Sequence[str]]) -> Mapping[str, int]:
    """Return how many jobs of every rule there would be, from a dry run of some subjects.

    Parameters
    ----------
    lines : iterable of str
        What Snakemake said about the known subjects and the first `N_ASKED` of every kind.
    kinds : sequence of sequence of str
        As `kinds_of_subjects` returns them.
    """
    alike = {kind[0]: len(kind) for kind in kinds} | {
        label: 0 for kind in kinds for label in kind[1:N_ASKED]
    }
    counts: Counter[str] = Counter()
    rule = ""
    for line in lines:
        if match := _RULE.match(line):
            rule = match[1]
            counts[rule] += 1
        elif rule and (match := _SUBJECT.match(line)):
            counts[rule] += alike.get(match[1], 1) - 1
    return counts
