"""What the workflow itself cost: the time of a run beside the time that its stages alone would have taken.

With several jobs at a time, neither the sum of the stages' times nor that of idle cores says it: at the
end of a run cores are idle because nothing is left to do, whoever runs it. So the stages are laid out again,
with the times they took, in the order they were started, each as soon as its inputs are there and its
cores are free, and nothing in between. What the run took longer than this is the workflow's: its start, the
graph of jobs, the start of every process, and the time in which a stage that could have run did not.
"""

from __future__ import annotations

import heapq
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_RULE = re.compile(r"^(?:local)?rule (\w+):$")
_FIELD = re.compile(r"^    (input|output|jobid|threads): (.+)$")
_CORES = re.compile(r"^Provided cores: (\d+)")
#: Rules that are not named as their stage is.
_STAGE_OF_RULE = {"decode_group_conditions": "decode_conditions"}


@dataclass(frozen=True)
class Job:
    """A job that ran.

    Parameters
    ----------
    seconds : float
        Time of the stage itself.
    inputs, outputs : tuple of str
        Paths as the log names them.
    threads : int, default=1
        Cores that it held.
    """

    seconds: float
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    threads: int = 1


def seconds_of_stages(jobs: Sequence[Job], n_cores: int) -> float:
    """Return the time in which jobs alone could be done, laid out in their order without gaps.

    Parameters
    ----------
    jobs : sequence of Job
        In the order in which they were started.
    n_cores : int
        Cores that there are.
    """
    made_by = {path: number for number, job in enumerate(jobs) for path in job.outputs}
    needs = [{made_by[path] for path in job.inputs if path in made_by} for job in jobs]
    waiting, running, done = list(range(len(jobs))), list[tuple[float, int]](), set[int]()
    now, free = 0.0, n_cores
    while waiting or running:
        for number in list(waiting):
            threads = min(jobs[number].threads, n_cores)
            if threads <= free and needs[number] <= done:
                waiting.remove(number)
                free -= threads
                heapq.heappush(running, (now + jobs[number].seconds, number))
        if not running:
            raise ValueError("jobs wait for each other")
        now, number = heapq.heappop(running)
        free += min(jobs[number].threads, n_cores)
        done.add(number)
    return now


def read_jobs(log: str, root: Path) -> tuple[list[Job], int] | None:
    """Read the jobs of a finished run and the number of cores.

    Parameters
    ----------
    log : str
        What Snakemake said.
    root : Path
        The output dataset; the times of the stages lie in its ``logs/cost``.

    Returns
    -------
    (list of Job, int) or None
        None where the run was not of one machine, or a job has no record, since it failed.
    """
    jobs: list[Job] = []
    n_cores = 0
    rule, fields = "", dict[str, str]()
    for line in [*log.splitlines(), ""]:
        if match := _CORES.match(line):
            n_cores = int(match[1])
        elif match := _RULE.match(line):
            rule, fields = match[1], {}
        elif rule and (match := _FIELD.match(line)):
            fields[match[1]] = match[2]
        elif rule and not line.strip():
            outputs = tuple(fields.get("output", "").split(", "))
            stem = Path(outputs[0]).name.split(".")[0]
            if stem:  # only the rule of targets has no output
                stage = _STAGE_OF_RULE.get(rule, rule)
                record = root / "logs" / "cost" / stage / f"{stem}.json"
                if not record.is_file():
                    return None
                seconds = json.loads(record.read_text(encoding="utf-8"))["seconds"]
                inputs = tuple(fields.get("input", "").split(", "))
                jobs.append(Job(seconds, inputs, outputs, int(fields.get("threads", 1))))
            rule = ""
    return (jobs, n_cores) if jobs and n_cores else None
