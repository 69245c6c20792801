"""Dry runs of many subjects: who has the same jobs, and how many jobs there are."""

from __future__ import annotations

from pathlib import Path

from afterimage.rehearsal import N_ASKED, count_jobs, kinds_of_subjects

SAID = """\
rule clean_bold:
    input: a
    jobid: 3
    wildcards: subject=01, ses=, ents=_run-01

localrule clean_bold:
    wildcards: subject=02, ses=, ents=_run-01

rule evaluate:
    wildcards: subject=01

rule evaluate:
    wildcards: subject=02

rule evaluate:
    wildcards: subject=09

rule learn:
    wildcards: decoder=ridge

rule report_group:
    jobid: 9
"""


def row(subject: str, run: str = "01", **more: str) -> dict[str, str]:
    name = f"sub-{subject}"
    return {
        "subject": subject, "run": run, "bold": f"{name}/func/{name}_run-{run}_bold.nii.gz",
        "mask": "n/a", "problem": "n/a", **more,
    }  # fmt: skip


def test_subjects_who_differ_in_their_label_alone_are_of_one_kind(tmp_path: Path) -> None:
    rows = [row("1"), row("1", "02"), row("2"), row("2", "02"), row("3"), row("4"), row("5")]
    rows[5] |= {"mask": "masks/all.nii.gz"}
    (tmp_path / "sub-5").mkdir()
    known, kinds = kinds_of_subjects(rows, tmp_path)
    assert known == ["5"]
    assert kinds == [["1", "2"], ["3"], ["4"]]


def test_problems_of_different_words_are_one_kind(tmp_path: Path) -> None:
    rows = [row("1", problem="sub-1 lacks a"), row("2", problem="sub-2 lacks b"), row("3")]
    assert kinds_of_subjects(rows, tmp_path) == ([], [["1", "2"], ["3"]])


def test_jobs_of_subjects_are_multiplied_and_those_of_all_are_not() -> None:
    kind = [f"{number:02d}" for number in range(1, 9)]  # 8 subjects, of whom two were asked about
    assert N_ASKED == 2
    counts = count_jobs(SAID.splitlines(keepends=True), [kind])
    assert counts == {"clean_bold": 8, "evaluate": 9, "learn": 1, "report_group": 1}
    assert count_jobs(SAID.splitlines(), [["01"], ["02"]])["clean_bold"] == 2
