"""Start the workflow as a child process, show how far it is, and say how it ended."""

from __future__ import annotations

import fcntl
import itertools
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import yaml

from afterimage.bids.description import describe_derivatives
from afterimage.bids.index import index_dataset, select_units, write_units
from afterimage.bids.recordings import mixed_modalities
from afterimage.config.load import load_config
from afterimage.config.template import visible
from afterimage.disk import describe, estimate_bytes
from afterimage.errors import (
    AfterimageError,
    ConfigError,
    InputError,
    UsageError,
    suppress_full,
)
from afterimage.io.atomic import (
    remove_leftovers,
    write_json,
    write_text_if_changed,
)
from afterimage.io.tables import Row
from afterimage.record import reset_errors, write_reports
from afterimage.rehearsal import rehearse
from afterimage.resources import resource_root
from afterimage.run_summary import summarise
from afterimage.stages.runner import STAGES, WITHOUT_RULE, guarded_run, stage_module
from afterimage.warm import VARIABLE as WARM
from afterimage.warm import warm_process

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
    sessions: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    derivatives: tuple[Path, ...] = ()
    space: str | None = None
    config_files: tuple[Path, ...] = ()
    until: str | None = None
    profile: str = "default"
    device: str = "cpu"
    cores: int | None = None
    dry_run: bool = False
    keep_intermediates: bool = False
    snakemake_options: tuple[str, ...] = ()


#: Stages that simulate a study, with the output that they write last.
SIMULATIONS = {
    "simulate_responses": ("description", "dataset_description.json"),
    "simulate_bold": ("description", "dataset_description.json"),
    "simulate_meeg": ("marker", "derivatives/simulation/meeg.json"),
}


def simulate_study(dataset: Path, stages: Sequence[str], threads: int) -> None:
    """Write the demo's simulated study, unless it stands there complete.

    Parameters
    ----------
    dataset : Path
    stages : sequence of str
        Keys of `SIMULATIONS`, in order; the later ones add subjects to the study of the first.
    threads : int
        Processor cores to use.
    """
    remove_leftovers(dataset)
    for stage in stages:
        output, file = SIMULATIONS[stage]
        config = stage_module(stage).Config().model_dump(mode="json")
        path = dataset / file
        if path.is_file():
            found = json.loads(path.read_text(encoding="utf-8")).get("Simulation")
            if found == config:
                continue
        print(f"simulating with known truth ({stage}): {dataset}", flush=True)
        outputs = {output: [str(path)]}
        if guarded_run(stage, {}, outputs, {"config": config}, threads=threads):
            raise AfterimageError("the study could not be simulated", where=str(dataset))


def launch(request: Launch) -> int:
    """Index the dataset, start Snakemake, follow it, summarise; return the exit code."""
    bids_dir, out = request.bids_dir.resolve(), request.output_dir.resolve()
    if out == bids_dir:
        raise UsageError(
            "the output would be written into the dataset", where=str(out),
            fix="give a folder of its own, for example BIDS_DIR/derivatives/afterimage",
        )  # fmt: skip
    config = load_config(request.config_files)
    stages = [name for name in STAGES if name not in WITHOUT_RULE]
    if not config.train_generator.enabled:
        stages.remove("train_generator")
    if request.until and request.until not in stages:
        raise UsageError(
            "unknown stage", where="--until", found=request.until, expected=", ".join(stages),
            fix="name one of these",
        )  # fmt: skip
    try:
        rows = index_dataset(
            bids_dir,
            derivatives=[path.resolve() for path in request.derivatives],
            space=request.space,
            tasks=request.tasks,
            sessions=[label.removeprefix("ses-") for label in request.sessions],
        )
    except InputError as error:
        _report_unreadable(out, bids_dir, error, request.dry_run)
        raise
    selected = mixed_modalities(select_units(rows, request.participants, request.modalities))
    if not selected:
        raise InputError(
            "no subject is left to run", found=f"{len(rows)} in the dataset",
            expected="at least one of the modality asked for", fix="check --modality",
        )  # fmt: skip
    subjects = list(dict.fromkeys(row["subject"] for row in selected))
    if request.level != "group":
        asked = stages[: stages.index(request.until) + 1] if request.until else stages
        sections = config.model_dump(mode="json")
        if text := describe(estimate_bytes(selected, bids_dir, out, sections, asked), out):
            print(text, flush=True)
    run_id = time.strftime("%Y%m%d-%H%M%S") + f"-{os.getpid()}"
    if request.dry_run:
        return _dry_run(request, bids_dir, out, rows, selected, run_id, visible(config))
    write_units(out / "code" / "units.tsv", rows)
    if request.level == "group":
        describe_derivatives(out, bids_dir)
        print(write_reports(out, subjects=[])[-1])
        return 0
    command = _command(request, bids_dir, out, out / "code", run_id, visible(config))
    with _only_run(out) as lock:
        return _execute(command, out, run_id, subjects, lock)


def _dry_run(
    request: Launch, bids_dir: Path, out: Path, rows: list[Row], selected: list[Row], run_id: str,
    settings: dict[str, Any],
) -> int:  # fmt: skip
    """Let Snakemake say what it would run and why; the output dataset stays as it is."""
    if request.level == "group":
        print(f"would write {out / 'group.html'}")
        return 0
    with tempfile.TemporaryDirectory(prefix="afterimage-") as scratch:
        fresh = not out.is_dir() or not any(out.iterdir())
        code = Path(scratch) / "code"
        write_units(code / "units.tsv", rows)
        folder = Path(scratch) if fresh else out
        command = _command(request, bids_dir, folder, code, run_id, settings)
        print(f"dry run of: {shlex.join(['snakemake', *command[3:]])}\n", flush=True)
        command.append("--dry-run")
        if request.snakemake_options:
            return subprocess.run(command, env=_variables(command), check=False).returncode and 70
        n_processes = request.cores or os.cpu_count() or 1
        return rehearse(command, _variables(command), selected, out, n_processes)


@contextmanager
def _only_run(out: Path) -> Iterator[IO[str]]:
    """Hold the output dataset for this run alone, as long as it or its child lives.

    The system lets go of this lock when its holders die, whatever kills them. So, where the file
    still says that a run is active and nobody holds it, that run was killed, and the locks that
    Snakemake left behind are swept away; those of somebody's plain Snakemake are respected.
    """
    path = out / "logs" / "lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(
                "another run is working on this output", where=str(out), found="a lock that is held",
                expected="one run at a time", fix="wait for it to end, or stop it",
            ) from None  # fmt: skip
        lock.seek(0)
        if lock.read():
            shutil.rmtree(out / ".snakemake" / "locks", ignore_errors=True)
        lock.write("active\n")
        lock.flush()
        yield lock
        lock.truncate(0)


def _report_unreadable(out: Path, bids_dir: Path, error: InputError, dry_run: bool) -> None:
    """Where the dataset as a whole cannot be read, the group report still says why."""
    if dry_run or not bids_dir.is_dir():
        return
    describe_derivatives(out, bids_dir)
    write_units(out / "code" / "units.tsv", [])
    record = {"stage": "index", "unit": "group", "exit_code": 65, "message": str(error)}
    write_json(out / "logs" / "errors" / "index_group.json", record)
    write_reports(out, subjects=[])


def _command(
    request: Launch, bids_dir: Path, out: Path, code: Path, run_id: str, settings: dict[str, Any]
) -> list[str]:
    """Write the configuration for Snakemake into ``code``; return the command that runs in ``out``."""
    root = resource_root()
    workflow_config = settings | {
        "bids_dir": str(bids_dir),
        "participants": " ".join(label.removeprefix("sub-") for label in request.participants),
        "modalities": " ".join(request.modalities),
        "device": request.device,
    }
    if code != out / "code":
        workflow_config["units_file"] = str(code / "units.tsv")
    config_file = code / "workflow.yaml"
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
    asked = any(
        option.startswith(("--cores", "-c", "--jobs", "-j"))
        for option in request.snakemake_options
    )
    # A cluster has the cores that its profile allows, not those of the machine that submits.
    if not asked and (request.cores or not on_cluster([*command, *request.snakemake_options])):
        # The debug profile runs one job at a time, whatever the machine has.
        default = 1 if profile.name == "debug" else os.cpu_count() or 1
        command += ["--cores", str(request.cores or default)]
    if request.until:
        command += ["--until", request.until]
    # Who stops early wants to see what was made until there.
    if request.keep_intermediates or request.until:
        command.append("--notemp")
    return [*command, *request.snakemake_options]


def on_cluster(command: Sequence[str]) -> bool:
    """Say whether the jobs of a command of Snakemake run elsewhere: what its options or profile say."""
    executor = "local"
    for option, value in itertools.pairwise(command):
        if option == "--workflow-profile":
            for file in sorted(Path(value).glob("*.yaml")):
                if file.name.startswith(("profile.", "config.")):
                    settings = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
                    executor = settings.get("executor", executor)
    for option, value in itertools.pairwise([*command, ""]):
        if option in ("--executor", "-e"):
            executor = value
        elif option.startswith("--executor="):
            executor = option.partition("=")[2]
    return executor not in ("local", "dryrun", "touch")


def _variables(command: Sequence[str]) -> dict[str, str]:
    # Snakemake's rules start this same interpreter: its folder comes first on the PATH.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    return {
        **os.environ,
        # Jobs that run elsewhere cannot use a process of this machine.
        **({WARM: "off"} if on_cluster(command) else {}),
        "PATH": path,
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_VERBOSITY": "error",
    }


def _execute(
    command: list[str], out: Path, run_id: str, subjects: list[str], lock: IO[str]
) -> int:
    print(f"running: {shlex.join(['snakemake', *command[3:]])}\n", flush=True)
    reset_errors(out, subjects)
    log = out / "logs" / run_id / "snakemake.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    counts: Counter[str] = Counter()
    # Without a buffer: what a full disk refused would be written again when the file is closed.
    with log.open("wb", buffering=0) as sink, warm_process(_variables(command)) as variables:
        process = subprocess.Popen(
            command, env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            pass_fds=[lock.fileno()],
        )  # fmt: skip
        assert process.stdout is not None  # noqa: S101  (for the type checker: PIPE was asked for)
        try:
            for event, name in _follow(_tee(process.stdout, sink)):
                counts[f"{event} {name}"] += 1
            code = process.wait()
        except BaseException:
            process.terminate()
            process.wait()
            raise
    return summarise(out, log, code, counts, subjects, time.monotonic() - started)


def _tee(lines: Iterator[str], sink: IO[bytes]) -> Iterator[str]:
    """Write lines as they pass; on a full disk they are lost, while jobs may still end well."""
    for line in lines:
        with suppress_full():
            sink.write(line.encode())
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
