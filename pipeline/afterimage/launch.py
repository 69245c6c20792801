"""Start the workflow as a child process, show how far it is, and say how it ended."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from afterimage.bids.description import describe_derivatives
from afterimage.bids.index import index_dataset, select_units, write_units
from afterimage.config.load import load_config
from afterimage.config.template import visible
from afterimage.errors import AfterimageError, ConfigError, InputError, UsageError
from afterimage.io.atomic import write_text_if_changed
from afterimage.record import error_records, finish_run, reset_errors, write_reports
from afterimage.resources import resource_root
from afterimage.stages.runner import STAGES, guarded_run

_STEPS = re.compile(r"^(\d+) of (\d+) steps")
_RULE = re.compile(r"^(?:local)?rule (\w+):")
_TOTAL = re.compile(r"^total\s+(\d+)")


@dataclass(frozen=True)
class Launch:
    """What one run of the workflow is asked to do; the fields are the options of the command."""

    bids_dir: Path
    output_dir: Path
    level: str = "participant"
    participants: tuple[str, ...] = ()
    modalities: tuple[str, ...] = ()
    config_files: tuple[Path, ...] = ()
    until: str | None = None
    profile: str = "default"
    device: str = "cpu"
    cores: int | None = None
    dry_run: bool = False
    snakemake_options: tuple[str, ...] = ()


def simulate_study(dataset: Path) -> None:
    """Write the demo's simulated study, unless it stands there complete."""
    description = dataset / "dataset_description.json"
    module = __import__("afterimage.stages.simulate_responses", fromlist=["Config"])
    config = module.Config().model_dump(mode="json")
    if description.is_file():
        found = json.loads(description.read_text(encoding="utf-8")).get("Simulation")
        if found == config:
            return
    print(f"simulating a study with known truth: {dataset}")
    code = guarded_run(
        "simulate_responses", {}, {"description": [str(description)]}, {"config": config}
    )
    if code:
        raise AfterimageError("the study could not be simulated", where=str(dataset))


def launch(request: Launch) -> int:
    """Index the dataset, start Snakemake, follow it, summarise; return the exit code."""
    bids_dir, out = request.bids_dir.resolve(), request.output_dir.resolve()
    if out == bids_dir:
        raise UsageError(
            "the output would be written into the dataset", where=str(out),
            fix="give a folder of its own, for example BIDS_DIR/derivatives/afterimage",
        )  # fmt: skip
    if request.until and request.until not in STAGES:
        raise UsageError("unknown stage", found=request.until, expected=", ".join(STAGES))
    config = load_config(request.config_files)
    try:
        rows = index_dataset(bids_dir)
    except InputError as error:
        _report_unreadable(out, bids_dir, error, request.dry_run)
        raise
    selected = select_units(rows, request.participants, request.modalities)
    if not selected:
        raise InputError(
            "no subject is left to run", found=f"{len(rows)} in the dataset",
            expected="at least one of the modality asked for", fix="check --modality",
        )  # fmt: skip
    scratch = None
    if request.dry_run and not out.is_dir():
        scratch = tempfile.TemporaryDirectory(prefix="afterimage-")
        out = Path(scratch.name)
    write_units(out / "code" / "units.tsv", rows)
    if request.level == "group":
        describe_derivatives(out, bids_dir)
        print(write_reports(out, subjects=[])[-1])
        return 0
    run_id = time.strftime("%Y%m%d-%H%M%S") + f"-{os.getpid()}"
    command = _command(request, bids_dir, out, run_id, visible(config))
    try:
        return _execute(request, command, out, run_id, [row["subject"] for row in selected])
    finally:
        if scratch:
            scratch.cleanup()


def _report_unreadable(out: Path, bids_dir: Path, error: InputError, dry_run: bool) -> None:
    """Where the dataset as a whole cannot be read, the group report still says why."""
    if dry_run or not bids_dir.is_dir():
        return
    describe_derivatives(out, bids_dir)
    write_units(out / "code" / "units.tsv", [])
    record = {"stage": "index", "unit": "group", "exit_code": 65, "message": str(error)}
    folder = out / "logs" / "errors"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "index_group.json").write_text(json.dumps(record), encoding="utf-8")
    write_reports(out, subjects=[])


def _command(
    request: Launch, bids_dir: Path, out: Path, run_id: str, settings: dict[str, Any]
) -> list[str]:
    root = resource_root()
    workflow_config = settings | {
        "bids_dir": str(bids_dir),
        "participants": " ".join(label.removeprefix("sub-") for label in request.participants),
        "modalities": " ".join(request.modalities),
        "device": request.device,
    }
    config_file = out / "code" / "workflow.yaml"
    write_text_if_changed(config_file, yaml.safe_dump(workflow_config, sort_keys=False))
    profile = Path(request.profile)
    if not profile.is_dir():
        profile = root / "workflows" / "profiles" / request.profile
    if not profile.is_dir():
        known = sorted(path.name for path in (root / "workflows" / "profiles").iterdir())
        raise ConfigError(
            "unknown profile", found=request.profile, expected=", ".join(known),
            fix="name one of these, or give the folder of a Snakemake profile",
        )  # fmt: skip
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(root / "Snakefile")]
    command += ["--directory", str(out), "--configfile", str(config_file)]
    command += ["--config", f"run_id={run_id}", "--workflow-profile", str(profile)]
    if not any(
        option.startswith(("--cores", "-c", "--jobs", "-j"))
        for option in request.snakemake_options
    ):
        command += ["--cores", str(request.cores or os.cpu_count() or 1)]
    if request.until:
        command += ["--until", request.until]
    if request.dry_run:
        command += ["--dry-run"]
    return [*command, *request.snakemake_options]


def _execute(
    request: Launch, command: list[str], out: Path, run_id: str, subjects: list[str]
) -> int:
    shown = shlex.join(["snakemake", *command[3:]])
    print(f"running: {shown}\n" if not request.dry_run else f"dry run of: {shown}\n", flush=True)
    # Snakemake's rules start this same interpreter: its folder comes first on the PATH.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    variables = {
        **os.environ,
        "PATH": path,
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_VERBOSITY": "error",
    }
    if request.dry_run:
        return subprocess.run(command, env=variables, check=False).returncode and 70
    reset_errors(out)
    log = out / "logs" / run_id / "snakemake.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    process = subprocess.Popen(
        command, env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout is not None  # noqa: S101  (for the type checker: PIPE was asked for)
    started = time.monotonic()
    counts: Counter[str] = Counter()
    with log.open("w", encoding="utf-8") as sink:
        try:
            for event, name in _follow(_tee(process.stdout, sink)):
                counts[f"{event} {name}"] += 1
            code = process.wait()
        except BaseException:
            process.terminate()
            process.wait()
            raise
    return _summarise(out, log, code, counts, subjects, time.monotonic() - started)


def _tee(lines: Iterator[str], sink: Any) -> Iterator[str]:
    for line in lines:
        sink.write(line)
        sink.flush()
        yield line


def _follow(lines: Iterator[str]) -> Iterator[tuple[str, str]]:
    """Show progress while reading Snakemake's output; yield (event, rule)."""
    if not sys.stdout.isatty():
        for line in lines:
            if match := _RULE.match(line):
                print(f"{time.strftime('%H:%M:%S')}  started {match[1]}", flush=True)
                yield "started", match[1]
            elif match := _STEPS.match(line):
                print(
                    f"{time.strftime('%H:%M:%S')}  {match[1]} of {match[2]} steps done", flush=True
                )
        return
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description:<22}"), BarColumn(),
               TextColumn("{task.completed:.0f} of {task.total:.0f} steps"), TimeElapsedColumn())  # fmt: skip
    with Progress(*columns) as progress:
        task = progress.add_task("looking what to do", total=1)
        for line in lines:
            if match := _TOTAL.match(line):
                progress.update(task, total=int(match[1]))
            elif match := _RULE.match(line):
                progress.update(task, description=match[1])
                yield "started", match[1]
            elif match := _STEPS.match(line):
                progress.update(task, completed=int(match[1]), total=int(match[2]))


def _summarise(
    out: Path, log: Path, code: int, counts: Counter[str], subjects: list[str], seconds: float
) -> int:
    """Print what was done, what failed and where the reports are; return the exit code."""
    records = error_records(out)
    failed = Counter(record["stage"] for record in records)
    if code and not records:
        text = log.read_text(encoding="utf-8")
        print(text[-4000:], file=sys.stderr)
        hint = ""
        if "LockException" in text or "cannot be locked" in text:
            hint = "another run may be active; if none is, add: -- --unlock  and run again"
        raise AfterimageError("the workflow did not run", where=str(log), fix=hint)
    print(f"\n{'stage':<22}{'run':>6}{'failed':>8}")
    for stage in STAGES:
        n_run = counts[f"started {stage}"]
        if n_run or failed[stage]:
            print(f"{stage:<22}{n_run - failed[stage]:>6}{failed[stage]:>8}")
    if not counts:
        finish_run(out, failed=False)  # nothing was started, so the workflow wrote no record
        print("nothing to be done: all results are up to date")
    for record in records:
        print(f"\n{record['unit']}, {record['stage']}:\n{record['message']}", file=sys.stderr)
    print(f"\n{seconds:.0f} s; log: {log}")
    for name in ("group", *(f"sub-{subject}" for subject in subjects[:10])):
        if (out / f"{name}.html").is_file():
            print(f"report: {(out / f'{name}.html').as_uri()}")
    codes = {record["exit_code"] for record in records}
    return next((known for known in (65, 78) if known in codes), 1 if records else 0)
