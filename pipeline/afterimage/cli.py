"""The front door: a BIDS App command line, and the commands beside it."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from afterimage import __version__
from afterimage.errors import AfterimageError, ConfigError, UsageError, disk_full

EPILOG = """\
commands beside it:
  afterimage demo [OUT_DIR]                  simulate a study, run everything on it, write reports
  afterimage config {template,check,show,schema}  a commented configuration; check one; what would be used
  afterimage index BIDS_DIR                  what would be run on: subjects, runs and their files
  afterimage import NAME SOURCE DATASET      turn a published dataset (nsd, god, ...) into such a folder
  afterimage decode-live OUT_DIR ...         decode the trials of a stream of EEG or MEG as they end
  afterimage report OUT_DIR                  write the reports again from what is there
  afterimage methods [--json]                every method: name, room, paper, needs, check
  afterimage stage NAME ...                  run one stage (what the workflow calls)

examples:
  afterimage demo
  afterimage /data/study /data/study/derivatives/afterimage participant --participant-label 01 02
  afterimage /data/study out participant --config my.yaml -n
  afterimage /data/study out participant -- --cores 8 --forcerun evaluate

Everything behind -- goes to Snakemake. Exit codes: 0 fine, 1 some subjects failed (the rest is kept),
2 usage, 65 bad input data (the rest is kept), 70 a defect of afterimage, 78 bad configuration.
"""


def run_parser() -> argparse.ArgumentParser:
    """Return the parser of ``afterimage BIDS_DIR OUT_DIR LEVEL``."""
    parser = argparse.ArgumentParser(
        prog="afterimage",
        description="From brain scans or responses to reconstructed images, scored, with reports.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("bids_dir", type=Path, help="the dataset (never written to)")
    add("output_dir", type=Path, help="where the results go; a second run goes on from there")
    add("level", choices=("participant", "group"),
        help="participant: everything; group: only the group report of what is there")  # fmt: skip
    add("--participant-label", "--participant_label", nargs="+", default=[], metavar="LABEL",
        help="only these subjects, with or without 'sub-'")  # fmt: skip
    add("--modality", nargs="+", default=[], choices=("fmri", "eeg", "meg", "spikes"),
        help="only subjects of these modalities, as the kind of their units.tsv says")  # fmt: skip
    add("--session-label", "--session_label", nargs="+", default=[], metavar="LABEL",
        help="only these sessions of the scans")  # fmt: skip
    add("--task-id", "--task_id", nargs="+", default=[], metavar="TASK",
        help="only these tasks of the scans")  # fmt: skip
    add("--derivatives", nargs="+", type=Path, default=[], metavar="DIR",
        help="fMRIPrep output to start from (default: what lies in BIDS_DIR/derivatives)")  # fmt: skip
    add("--space", metavar="LABEL",
        help="space of the fMRIPrep output (default: T1w, else the first there is)")  # fmt: skip
    add("--config", type=Path, action="append", default=[], metavar="FILE",
        help="configuration (YAML); may be given several times, later files win")  # fmt: skip
    add("--until", metavar="STAGE", help="stop after this stage, for example train_decoder")
    add("--profile", default="default", metavar="NAME",
        help="how to execute: default, debug, slurm, slurm_no_accounting, kubernetes, or the folder "
        "of a Snakemake profile")  # fmt: skip
    add("--device", choices=("auto", "cpu", "cuda"), default="cpu", help="where networks run")
    add("--cores", type=int, metavar="N", help="processor cores to use (default: all)")
    add("--keep-intermediates", action="store_true",
        help="keep the cleaned fMRI series, which are large, when all is made that needs them")  # fmt: skip
    add(
        "-n", "--dry-run", action="store_true", help="say what would be run and why; write nothing"
    )
    add("--version", action="version", version=f"afterimage {__version__}")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line, do what it says, return the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr
    )
    try:
        if arguments and arguments[0] in COMMANDS:
            return COMMANDS[arguments[0]](arguments[1:])
        return _run(arguments)
    except AfterimageError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("stopped; run the same command again to go on", file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 0
    except OSError as error:
        if full := disk_full(error):
            print(full, file=sys.stderr)
            return full.exit_code
        raise


def _run(arguments: list[str]) -> int:
    extra: list[str] = []
    if "--" in arguments:
        at = arguments.index("--")
        arguments, extra = arguments[:at], arguments[at + 1 :]
    parser = run_parser()
    if not arguments:
        parser.print_help()
        return 2
    options = parser.parse_args(arguments)
    from afterimage.launch import Launch, launch

    return launch(
        Launch(
            bids_dir=options.bids_dir,
            output_dir=options.output_dir,
            level=options.level,
            participants=tuple(options.participant_label),
            modalities=tuple(options.modality),
            sessions=tuple(options.session_label),
            tasks=tuple(options.task_id),
            derivatives=tuple(options.derivatives),
            space=options.space,
            config_files=tuple(options.config),
            until=options.until,
            profile=options.profile,
            device=options.device,
            cores=options.cores,
            dry_run=options.dry_run,
            keep_intermediates=options.keep_intermediates,
            snakemake_options=tuple(extra),
        )
    )


def _demo(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="afterimage demo",
        description="Simulate raw fMRI, EEG and MEG of four subjects with known truth, estimate their "
        "responses, reconstruct what they saw, score it, and write reports you can open.",
    )
    parser.add_argument("output_dir", type=Path, nargs="?", default=Path("afterimage-demo"))
    parser.add_argument("--cores", type=int, help="processor cores to use (default: all)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="cpu")
    parser.add_argument("--config", type=Path, action="append", default=[], metavar="FILE",
        help="settings laid over those of the demo (presets/demo); may be given again")  # fmt: skip
    parser.add_argument("--prepared", action="store_true",
        help="start from prepared responses instead of raw scans, which is quicker")  # fmt: skip
    options = parser.parse_args(arguments)
    from afterimage.launch import Launch, launch, simulate_study

    dataset = options.output_dir / "dataset"
    scans = ("simulate_bold", "simulate_meeg")
    stages = ("simulate_responses",) if options.prepared else scans
    simulate_study(dataset, stages, options.cores or os.cpu_count() or 1)
    return launch(
        Launch(
            bids_dir=dataset,
            output_dir=options.output_dir / "results",
            config_files=(Path("presets/demo"), *options.config),
            cores=options.cores,
            device=options.device,
            keep_intermediates=True,
        )
    )


def _config(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="afterimage config", description="Write, check and explain configurations."
    )
    parser.add_argument(
        "action", choices=("template", "check", "show", "schema"),
        help="template: every key with its default and one line of help; check: say whether files "
        "are right; show: the effective configuration; schema: JSON Schema for editors",
    )  # fmt: skip
    parser.add_argument("files", type=Path, nargs="*", help="YAML files, later ones win")
    options = parser.parse_args(arguments)
    from afterimage.config import template
    from afterimage.config.load import load_config

    if options.action == "schema":
        print(template.json_schema(), end="")
        return 0
    if options.action == "check" and not options.files:
        raise UsageError("config check needs a file", fix="afterimage config check my.yaml")
    config = load_config(options.files)
    if options.action == "template":
        print(template.template(config), end="")
    elif options.action == "show":
        print(template.show(config), end="")
    else:
        changes = template.differences(config)
        print(
            f"{', '.join(map(str, options.files))}: fine; {len(changes)} keys differ from the defaults"
        )
        for key, default, value in changes:
            print(f"  {key}: {json.dumps(value)}  (default {json.dumps(default)})")
    return 0


def _index(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="afterimage index", description="List the subjects of a dataset and their files."
    )
    parser.add_argument("bids_dir", type=Path)
    parser.add_argument("--output", type=Path, help="write the table here instead of printing it")
    parser.add_argument("--derivatives", nargs="+", type=Path, default=[], metavar="DIR")
    parser.add_argument("--space", metavar="LABEL", help="space of the fMRIPrep output")
    parser.add_argument("--task-id", "--task_id", nargs="+", default=[], metavar="TASK")
    parser.add_argument(
        "--session-label", "--session_label", nargs="+", default=[], metavar="LABEL"
    )
    options = parser.parse_args(arguments)
    from afterimage.bids.index import COLUMNS, index_dataset, write_units

    rows = index_dataset(
        options.bids_dir, derivatives=options.derivatives, space=options.space,
        tasks=options.task_id, sessions=options.session_label,
    )  # fmt: skip
    if options.output:
        write_units(options.output, rows)
    else:
        print("\t".join(COLUMNS))
        for row in rows:
            print("\t".join(row[name] for name in COLUMNS))
    problems = [row["problem"] for row in rows if row["problem"] != "n/a"]
    for problem in problems:
        print("\n" + problem.replace(" | ", "\n"), file=sys.stderr)
    if problems:
        print(f"\n{len(problems)} of {len(rows)} rows cannot be used", file=sys.stderr)
    return 65 if problems else 0


def _import(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="afterimage import",
        description="Turn the files of a published dataset into a folder that afterimage runs on. "
        "The published files are only read; docs/datasets.md says which are needed.",
    )
    parser.add_argument("name", help="nsd, god, deeprecon, things_fmri, bold5000 or laion_fmri")
    parser.add_argument("source_dir", type=Path, help="folder of the published files")
    parser.add_argument("dataset_dir", type=Path, help="folder to write, empty or begun before")
    parser.add_argument("--participant-label", "--participant_label", nargs="+", default=[],
        metavar="LABEL", help="only these subjects")  # fmt: skip
    parser.add_argument("--option", action="append", default=[], metavar="KEY=VALUE",
        help="a setting of the reader; several times")  # fmt: skip
    options = parser.parse_args(arguments)
    from afterimage.stages.import_dataset import import_dataset, parse_options

    config = parse_options(options.name, options.option, options.participant_label)
    notes = import_dataset(options.source_dir, options.dataset_dir, config, print)
    for note in notes:
        print(f"note: {note}")
    print(f"now: afterimage {options.dataset_dir} OUT_DIR participant")
    return 0


def _report(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="afterimage report", description="Write all reports again from what is in OUT_DIR."
    )
    parser.add_argument("output_dir", type=Path)
    options = parser.parse_args(arguments)
    from afterimage.record import write_reports

    for path in write_reports(options.output_dir.resolve()):
        print(path)
    return 0


def _record(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="afterimage record",
        description="Write the record of a run (the workflow calls this).",
    )
    parser.add_argument("event", choices=("start", "success", "failure"))
    parser.add_argument("output_dir", type=Path)
    parser.add_argument("--bids-dir", type=Path, required=True)
    parser.add_argument("--run-id", default="plain")
    parser.add_argument("--settings", default="{}", help="effective configuration as JSON")
    parser.add_argument("--jobs", default="{}", help="jobs of each rule, all and started, as JSON")
    parser.add_argument("--subjects", nargs="*", default=[], help="labels of the run's subjects")
    options = parser.parse_args(arguments)
    from afterimage.record import finish_run, start_run

    root = options.output_dir.resolve()
    if options.event == "start":
        settings = json.loads(options.settings)
        jobs = json.loads(options.jobs)
        start_run(root, options.bids_dir, options.run_id, settings, options.subjects, jobs)
    else:
        finish_run(root, failed=options.event == "failure")
    return 0


def _stage(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="afterimage stage",
        description="Run one stage. Paths are given by the names the stage declares: "
        "--input trials FILE --output model FILE.",
    )
    parser.add_argument("name", help="name of the stage, as in the workflow")
    parser.add_argument(
        "--input", nargs="+", action="append", default=[], metavar=("NAME", "PATH")
    )
    parser.add_argument(
        "--output", nargs="+", action="append", default=[], metavar=("NAME", "PATH")
    )
    parser.add_argument("--params", default="{}", help='JSON: {"version": 1, "config": {...}}')
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="cpu")
    parser.add_argument("--processes", type=int, metavar="N",
        help="processes that share it (default: one a device in CUDA_VISIBLE_DEVICES, where the "
        "stage trains or paints)")  # fmt: skip
    options = parser.parse_args(arguments)
    try:
        params = json.loads(options.params)
    except json.JSONDecodeError as error:
        raise ConfigError("--params is not JSON", found=str(error)) from None
    from afterimage.stages.runner import guarded_run
    from afterimage.stages.several_processes import joined, processes_for, run_by_processes

    n_processes = options.processes or processes_for(options.name, options.device)
    if n_processes > 1 and "WORLD_SIZE" not in os.environ:
        return run_by_processes(arguments, n_processes)
    outputs = {values[0]: values[1:] for values in options.output}
    with joined(options.device, outputs) as written:
        return guarded_run(
            options.name,
            {values[0]: values[1:] for values in options.input},
            written,
            params,
            threads=options.threads,
            device=options.device,
        )


def _methods(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="afterimage methods", description="List every method this version knows."
    )
    parser.add_argument("--json", action="store_true", help="as JSON, for programs")
    options = parser.parse_args(arguments)
    from afterimage.config.methods import list_methods

    methods: list[dict[str, Any]] = list_methods()
    if options.json:
        print(json.dumps(methods, indent=2))
        return 0
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in ("name", "room", "paper", "needs", "check"):
        table.add_column(column, overflow="fold", no_wrap=column in ("name", "room"))
    for method in methods:
        table.add_row(*(method[column] for column in ("name", "room", "paper", "needs", "check")))
    Console(width=None if sys.stdout.isatty() else 160).print(table)
    return 0


def _decode_live(arguments: list[str]) -> int:
    from afterimage.live import main as decode_live

    return decode_live(arguments)


def _serve(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="afterimage serve",
        description="Wait for the jobs of a run, with libraries loaded (each run starts this itself).",
    )
    parser.add_argument("address", help="name of the socket to make")
    from afterimage.warm import serve

    serve(parser.parse_args(arguments).address, main)
    return 0


COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "demo": _demo,
    "config": _config,
    "index": _index,
    "import": _import,
    "decode-live": _decode_live,
    "report": _report,
    "record": _record,
    "serve": _serve,
    "stage": _stage,
    "methods": _methods,
}
