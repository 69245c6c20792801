"""How a run of the workflow ended: what was done, what failed and why, and where the reports are."""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
from collections import Counter
from pathlib import Path

from afterimage.cost import read_jobs, seconds_of_stages
from afterimage.errors import FULL, AfterimageError, full_at
from afterimage.io.atomic import SPARE_BYTES
from afterimage.record import error_records, finish_run
from afterimage.stages.runner import STAGES

#: Rules that run a stage once more, over all subjects, and the stage.
OVER_SUBJECTS = {"decode_group_conditions": "decode_conditions"}


def summarise(
    out: Path, log: Path, code: int, counts: Counter[str], subjects: list[str], seconds: float
) -> int:
    """Print what was done, what failed and where the reports are; return the exit code."""
    records = error_records(out)
    failed = Counter(record["stage"] for record in records if not record.get("skipped"))
    skipped = Counter(record["stage"] for record in records if record.get("skipped"))
    if code and not records:
        text = log.read_text(encoding="utf-8", errors="replace")
        if shutil.disk_usage(out).free < SPARE_BYTES or os.strerror(errno.ENOSPC) in text:
            raise full_at(out)
        print(text[-4000:], file=sys.stderr)
        hint = ""
        if "LockException" in text or "cannot be locked" in text:
            hint = "another run may be active; if none is, add: -- --unlock  and run again"
        raise AfterimageError("the workflow did not run", where=str(log), fix=hint)
    if counts:
        _print_table(log.with_name("jobs.json"), counts, failed, skipped)
    else:
        finish_run(out, failed=False)  # nothing was started, so the workflow wrote no record
        print("nothing to be done: all results are up to date")
    full = [record for record in records if FULL in record["message"]]
    # One message for all that found the disk full; its first line tells how many these were.
    for record in [one for one in records if one not in full[1:]]:
        print(f"\n{record['unit']}, {record['stage']}:\n{record['message']}", file=sys.stderr)
        if record in full[:1] and len(full) > 1:
            others = dict.fromkeys(f"{one['unit']} {one['stage']}" for one in full[1:])
            print(f"  also:     {', '.join(others)}", file=sys.stderr)
        if record["log"]:
            print(f"  log:      {record['log']}", file=sys.stderr)
    print(f"\n{seconds:.0f} s; log: {log}")
    if not code and (ran := read_jobs(log.read_text(encoding="utf-8"), out)):
        alone = seconds_of_stages(*ran)
        print(f"the stages alone: {alone:.0f} s on {ran[1]} cores; "
              f"the workflow's own time: {1 - alone / seconds:.0%}")  # fmt: skip
    for name in ("group", *(f"sub-{subject}" for subject in subjects[:10])):
        if (out / f"{name}.html").is_file():
            print(f"report: {(out / f'{name}.html').as_uri()}")
    codes = {record["exit_code"] for record in records}
    return next((known for known in (65, 78) if known in codes), 1 if records else 0)


def _print_table(
    planned: Path, counts: Counter[str], failed: Counter[str], skipped: Counter[str]
) -> None:
    """Print of every stage how many jobs were done, were up to date before, failed, or waited.

    What waits comes after something that failed. The jobs of all rules stand in ``planned``, which
    the workflow writes when it starts.
    """
    of_rule = json.loads(planned.read_text(encoding="utf-8")) if planned.is_file() else {}
    total: Counter[str] = Counter()
    asked: Counter[str] = Counter()
    started: Counter[str] = Counter()
    for rule, (n_jobs, n_asked) in of_rule.items():
        stage = OVER_SUBJECTS.get(rule, rule)
        total[stage] += n_jobs
        asked[stage] += n_asked
    for event, n in counts.items():
        rule = event.removeprefix("started ")
        started[OVER_SUBJECTS.get(rule, rule)] += n
    columns = {
        "done": started - failed,
        "cached": total - asked,
        "failed": failed,
        "waiting": asked - started,
        "left out": skipped,
    }
    shown = [
        name for name, n in columns.items() if n.total() or name in ("done", "cached", "failed")
    ]
    print(f"\n{'stage':<22}" + "".join(f"{name:>10}" for name in shown))
    for stage in STAGES:
        if total[stage] or started[stage] or failed[stage]:
            print(f"{stage:<22}" + "".join(f"{columns[name][stage]:>10}" for name in shown))
