"""The workflow's own time: what a run took longer than its stages alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from afterimage.cost import Job, read_jobs, seconds_of_stages

LOG = """\
Provided cores: 2
[Sun Nov 29 13:54:42 2026]
localrule prepare:
    input: /data/x.npy
    output: sub-01/sub-01_trials.nc, sub-01/sub-01_split.tsv
    jobid: 64

[Sun Nov 29 13:54:42 2026]
localrule decode_group_conditions:
    input: sub-01/sub-01_trials.nc
    output: group/conditions.tsv
    jobid: 1
    threads: 2

localrule all:
    input: group/conditions.tsv
    jobid: 0

"""


def job(seconds: float, name: str, *needs: str, threads: int = 1) -> Job:
    return Job(seconds, needs, (name,), threads)


@pytest.mark.parametrize(
    ("jobs", "n_cores", "expected"),
    [
        ([job(2, "a"), job(3, "b"), job(4, "c")], 1, 9),
        ([job(2, "a"), job(3, "b"), job(4, "c")], 2, 6),  # c after a
        ([job(2, "a"), job(3, "b", "a"), job(4, "c", "a")], 2, 6),
        # Nobody can use the second core: that time is not the workflow's.
        ([job(2, "a"), job(3, "b", "a"), job(4, "c", "b")], 2, 9),
        ([job(2, "a"), job(3, "b", threads=4), job(1, "c")], 2, 5),  # c beside a
    ],
)
def test_jobs_alone_leave_no_gap(jobs: list[Job], n_cores: int, expected: float) -> None:
    assert seconds_of_stages(jobs, n_cores) == expected


def test_a_circle_is_an_error() -> None:
    with pytest.raises(ValueError, match="wait for each other"):
        seconds_of_stages([job(1, "a", "b"), job(1, "b", "a")], 2)


def test_jobs_are_read_from_the_log_and_their_records(tmp_path: Path) -> None:
    for stage, name, seconds in (
        ("prepare", "sub-01_trials", 2.5),
        ("decode_conditions", "conditions", 4),
    ):
        file = tmp_path / "logs" / "cost" / stage / f"{name}.json"
        file.parent.mkdir(parents=True)
        file.write_text(json.dumps({"seconds": seconds}))
    found = read_jobs(LOG, tmp_path)
    assert found is not None
    jobs, n_cores = found
    assert (n_cores, [one.seconds for one in jobs], [one.threads for one in jobs]) == (
        2,
        [2.5, 4],
        [1, 2],
    )
    assert seconds_of_stages(jobs, n_cores) == 6.5
    file.unlink()  # a job that failed leaves no record
    assert read_jobs(LOG, tmp_path) is None
    assert read_jobs(LOG.replace("Provided cores", "Provided remote nodes"), tmp_path) is None
