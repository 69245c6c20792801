"""A dry run of many subjects: Snakemake is asked about those that differ, the others are counted.

A graph of jobs costs Snakemake milliseconds and tens of kilobytes a job. Subjects of whom nothing is there
yet, and whose files differ in nothing but the label of the subject, have the same jobs: two of them tell
those of all, and which jobs there are once for all subjects.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from afterimage.io.tables import Row

#: Subjects of one kind that Snakemake is asked about: two, so that what compares people is there.
N_ASKED = 2
#: So many subjects with the same jobs or more are counted in a dry run, not listed.
SUBJECTS_ALIKE = 100
#: A dry run of more subjects than this is done in parts, side by side.
SUBJECTS_A_DRY_RUN = 200

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


def rehearse(
    command: Sequence[str], variables: Mapping[str, str], rows: Sequence[Row], out: Path,
    n_processes: int,
) -> int:  # fmt: skip
    """Let Snakemake say what it would run and why, and say it for the subjects left out; exit code.

    Parameters
    ----------
    command : sequence of str
        The dry run, of all subjects.
    variables : dict of str
        Its environment.
    rows : sequence of dict
        Rows of the table of units that would be run on.
    out : Path
        The output dataset.
    n_processes : int
        So many graphs of jobs are built side by side.
    """
    known, kinds = kinds_of_subjects(rows, out)
    if sum(len(kind[N_ASKED:]) for kind in kinds) >= SUBJECTS_ALIKE:
        return _run_kinds(command, variables, known, kinds)
    subjects = list(dict.fromkeys(row["subject"] for row in rows))
    if len(subjects) <= SUBJECTS_A_DRY_RUN:
        return subprocess.run(command, env=variables, check=False).returncode and 70
    return _run_parts(command, variables, subjects, n_processes)


def _run_kinds(
    command: Sequence[str], variables: Mapping[str, str], known: Sequence[str],
    kinds: Sequence[Sequence[str]],
) -> int:  # fmt: skip
    """Ask for what differs, and count the subjects of whom nothing is there and who are alike."""
    asked = [*known, *(label for kind in kinds for label in kind[:N_ASKED])]
    at = command.index("--config") + 1
    own = [*command[:at], f"participants='{' '.join(asked)}'", *command[at:]]
    process = subprocess.Popen(
        own, env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout is not None  # noqa: S101  (for the type checker: PIPE was asked for)
    sys.stdout.flush()
    counts = count_jobs(_shown(process.stdout), kinds)
    sys.stdout.flush()
    if process.wait():
        return 70
    print(f"\n{'job':<24}{'count':>8}   with those that were not listed:")
    for rule, count in counts.items():
        print(f"{rule:<24}{count:>8}")
    print(f"{'total':<24}{sum(counts.values()):>8}\n")
    for kind in kinds:
        if len(kind) > N_ASKED:
            print(f"{len(kind) - N_ASKED} subjects have the jobs of sub-{kind[0]}: "
                  f"sub-{kind[N_ASKED]} to sub-{kind[-1]}; nothing is there of them yet")  # fmt: skip
    return 0


def _run_parts(
    command: Sequence[str], variables: Mapping[str, str], subjects: Sequence[str], n_parts: int
) -> int:
    """Ask for the subjects in parts, one process a core: building a graph of jobs is serial.

    Subjects do not depend on each other, so the parts together say what one dry run would; only
    the group report, which needs all of them, is left out.
    """
    size = -(-len(subjects) // n_parts)
    parts = [subjects[start : start + size] for start in range(0, len(subjects), size)]
    at = command.index("--config") + 1
    running = []
    for part in parts:
        keys = [f"participants='{' '.join(part)}'", "group=0"]
        output = tempfile.TemporaryFile()  # noqa: SIM115  (closed below, after it was shown)
        own = [*command[:at], *keys, *command[at:]]
        process = subprocess.Popen(own, env=variables, stdout=output, stderr=subprocess.STDOUT)
        running.append((part, process, output))
    codes = []
    for number, (part, process, output) in enumerate(running, start=1):
        codes.append(process.wait())
        title = f"part {number} of {len(parts)}: sub-{part[0]} to sub-{part[-1]}"
        print(f"=== {title} ({len(part)} subjects)", flush=True)
        output.seek(0)
        shutil.copyfileobj(output, sys.stdout.buffer)
        sys.stdout.flush()
        output.close()
    print("\nreport_group runs once behind all parts, if any subject's scores are made anew")
    return 70 if any(codes) else 0


def _shown(lines: Iterable[str]) -> Iterator[str]:
    for line in lines:
        sys.stdout.write(line)
        yield line
