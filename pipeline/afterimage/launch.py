"""Start the workflow as a child process, show how far it is, and say how it ended."""

from __future__ import annotations

import errno
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
from afterimage.cost import read_jobs, seconds_of_stages
from afterimage.disk import describe, estimate_bytes
from afterimage.errors import (
    FULL,
    AfterimageError,
    ConfigError,
    InputError,
    UsageError,
    full_at,
    suppress_full,
)
from afterimage.io.atomic import (
    SPARE_BYTES,
    remove_leftovers,
    write_json,
    write_text_if_changed,
)
from afterimage.io.tables import Row
from afterimage.record import error_records, finish_run, reset_errors, write_reports
from afterimage.rehearsal import N_ASKED, count_jobs, kinds_of_subjects
from afterimage.resources import resource_root
from afterimage.stages.runner import STAGES, WITHOUT_RULE, guarded_run, stage_module
from afterimage.warm import VARIABLE as WARM
from afterimage.warm import warm_process

_STEPS = re.compile(r"^(\d+) of (\d+) steps")
_RULE = re.compile(r"^(?:local)?rule (\w+):")
_TOTAL = re.compile(r"^total\s+(\d+)")


#: Rules that run a stage once more, over all subjects, and the stage.
OVER_SUBJECTS = {"decode_group_conditions": "decode_conditions"}
#: So many subjects with the same jobs or more are counted in a dry run, not listed.
SUBJECTS_ALIKE = 100
#: A dry run of more subjects than this is done in parts, side by side.
SUBJECTS_A_DRY_RUN = 200


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
        known, kinds = kinds_of_subjects(selected, out)
        n_alike = sum(len(kind[N_ASKED:]) for kind in kinds)
        if n_alike >= SUBJECTS_ALIKE and not request.snakemake_options:
            return _dry_run_of_kinds(command, known, kinds)
        subjects = list(dict.fromkeys(row["subject"] for row in selected))
        if len(subjects) <= SUBJECTS_A_DRY_RUN or request.snakemake_options:
            return subprocess.run(command, env=_variables(command), check=False).returncode and 70
        return _dry_run_in_parts(command, subjects, request.cores or os.cpu_count() or 1)


def _dry_run_of_kinds(command: list[str], known: list[str], kinds: list[list[str]]) -> int:
    """Ask for what differs, and count the subjects of whom nothing is there and who are alike."""
    asked = [*known, *(label for kind in kinds for label in kind[:N_ASKED])]
    at = command.index("--config") + 1
    own = [*command[:at], f"participants='{' '.join(asked)}'", *command[at:]]
    process = subprocess.Popen(
        own, env=_variables(command), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout is not None  # noqa: S101  (for the type checker: PIPE was asked for)
    sys.stdout.flush()
    counts = count_jobs(_tee(process.stdout, sys.stdout.buffer), kinds)
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


def _dry_run_in_parts(command: list[str], subjects: list[str], n_parts: int) -> int:
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
        process = subprocess.Popen(
            own, env=_variables(command), stdout=output, stderr=subprocess.STDOUT
        )
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
    return _summarise(out, log, code, counts, subjects, time.monotonic() - started)


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


def _summarise(
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
