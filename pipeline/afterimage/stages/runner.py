"""Run one stage from the command line: parse, check, run, record errors and provenance."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import json
import logging
import os
import resource
import sys
import time
import traceback
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from afterimage import __version__
from afterimage.bids.names import derivative_root, unit_of
from afterimage.errors import AfterimageError, ConfigError, UsageError, disk_full
from afterimage.io.atomic import write_json

#: Every stage, in the order of the data.
STAGES = (
    "simulate_responses",
    "simulate_bold",
    "simulate_meeg",
    "import_dataset",
    "reference_bold",
    "clean_bold",
    "parcellate",
    "extract_series",
    "prepare_series",
    "connect",
    "measure_graphs",
    "map_graphs",
    "factor_connectome",
    "fit_responses",
    "clean_meeg",
    "epoch_meeg",
    "train_tokenizer",
    "tokenize",
    "prepare_responses",
    "tokenize_trials",
    "connect_dynamic",
    "couple_states",
    "decode_conditions",
    "train_generator",
    "extract_features",
    "train_decoder",
    "train_shared_decoder",
    "apply_shared_decoder",
    "reconstruct",
    "caption",
    "evaluate",
    "evaluate_time",
    "learning_curve",
    "ablate_regions",
    "evaluate_subjects",
    "evaluate_connectivity",
    "pretrain_series",
    "probe_series",
    "pretrain_tokens",
    "probe_tokens",
    "predict_phenotypes",
    "generate_connectivity",
    "report_subject",
    "report_group",
)

#: Stages that make a dataset to run on: commands of their own start them, not the workflow.
WITHOUT_RULE = ("simulate_responses", "simulate_bold", "simulate_meeg", "import_dataset")

#: What is said of a job whose process ended before it could say anything itself.
KILLED = str(
    AfterimageError(
        "a stage was killed",
        where="the process of the stage",
        found="it ended without an error of its own",
        expected="a stage that ends by itself",
        fix="memory often ran out: run again with fewer --cores, or see the log of the stage",
    )
)

log = logging.getLogger("afterimage")


def stage_module(name: str) -> types.ModuleType:
    """Import the module of a stage."""
    if name not in STAGES:
        raise UsageError("unknown stage", found=name, expected=", ".join(STAGES))
    return importlib.import_module(f"afterimage.stages.{name}")


def parse_config(name: str, values: Mapping[str, Any]) -> Any:
    """Build the Config of a stage from plain values; an error names the key."""
    module = stage_module(name)
    try:
        return module.Config(**values)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in (name, *first["loc"]))
        raise ConfigError(first["msg"], where=key, found=repr(first.get("input"))[:200]) from None


def bind_paths(kind: type, values: Mapping[str, Sequence[str]], what: str) -> Any:
    """Build an Inputs or Outputs dataclass from ``{field: [path, ...]}``."""
    hints = typing.get_type_hints(kind)
    fields = {field.name: field for field in dataclasses.fields(kind)}
    if unknown := sorted(set(values) - set(fields)):
        raise UsageError(f"unknown {what}", found=", ".join(unknown), expected=", ".join(fields))
    bound: dict[str, Any] = {}
    for name, field in fields.items():
        paths = [Path(value) for value in values.get(name, [])]
        if typing.get_origin(hints[name]) is tuple:
            bound[name] = tuple(paths)
        elif len(paths) == 1:
            bound[name] = paths[0]
        elif not paths and field.default is not dataclasses.MISSING:
            continue
        else:
            raise UsageError(
                f"{what} {name} takes one path", found=f"{len(paths)} paths", expected="one path"
            )
    return kind(**bound)


def run_stage(
    name: str,
    inputs: Mapping[str, Sequence[str]],
    outputs: Mapping[str, Sequence[str]],
    params: Mapping[str, Any],
    *,
    threads: int = 1,
    device: str = "cpu",
) -> None:
    """Run the stage ``name`` and write provenance beside its outputs.

    Parameters
    ----------
    name : str
        One of `STAGES`.
    inputs, outputs : dict of list of str
        Paths by the names of the stage's Inputs and Outputs.
    params : dict
        ``{"version": int, "config": {...}}`` as the workflow passes it.
    threads : int
        Threads for numerical libraries.
    device : str
        ``cpu``, ``cuda`` or ``auto``.
    """
    # Models are folders on this machine; who wants a hub asked says so by setting it to 0.
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    module = stage_module(name)
    bound_inputs = bind_paths(module.Inputs, inputs, "input")
    bound_outputs = bind_paths(module.Outputs, outputs, "output")
    config = parse_config(name, params.get("config", {}))
    device = resolve_device(device)
    limit_threads(threads)
    started = time.monotonic()
    module.run(bound_inputs, bound_outputs, config, threads=threads, device=device)
    _write_sidecars(name, module.VERSION, config, inputs, outputs)
    seconds = time.monotonic() - started
    used = resource.getrusage(resource.RUSAGE_SELF)
    peak_mb = used.ru_maxrss / 1024
    first = Path(next(value for values in outputs.values() for value in values))
    write_json(
        derivative_root(first) / "logs" / "cost" / name / f"{first.name.split('.')[0]}.json",
        {
            "seconds": round(seconds, 2),
            "processor_seconds": round(used.ru_utime + used.ru_stime, 2),
            "peak_memory_mb": round(peak_mb, 1),
        },
    )
    log.info("%s finished in %.1f s, peak memory %.0f MB", name, seconds, peak_mb)


def resolve_device(device: str) -> str:
    """Turn ``auto`` into ``cuda`` or ``cpu``; refuse a device that is not there."""
    if device == "cpu":
        return device
    import torch

    available = torch.cuda.is_available()
    if device == "auto":
        return "cuda" if available else "cpu"
    if not available:
        raise ConfigError(
            "no CUDA device is available", found=f"--device {device}", expected="auto or cpu",
            fix="run with --device auto, or install a CUDA build of torch",
        )  # fmt: skip
    return device


def limit_threads(threads: int) -> None:
    """Limit the threads of the numerical libraries that are loaded, and of those still to come."""
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[variable] = str(threads)
    import threadpoolctl

    threadpoolctl.threadpool_limits(threads)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)


def config_hash(config: Any) -> str:
    """Return a short hash of a stage's effective configuration."""
    text = json.dumps(config.model_dump(mode="json"), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _write_sidecars(
    name: str,
    version: int,
    config: Any,
    inputs: Mapping[str, Sequence[str]],
    outputs: Mapping[str, Sequence[str]],
) -> None:
    """Write ``<output>.json`` beside every netCDF output: what made it, from what."""
    for path in (Path(value) for values in outputs.values() for value in values):
        if path.suffix != ".nc":
            continue
        root = derivative_root(path)
        sources = []
        for source in (Path(value) for values in inputs.values() for value in values):
            absolute = source.resolve()
            inside = absolute.is_relative_to(root)
            sources.append(
                f"bids::{absolute.relative_to(root).as_posix()}"
                if inside
                else f"bids:source:{_below_dataset(absolute)}"
            )
        write_json(
            path.with_suffix(".json"),
            {
                "Stage": name,
                "StageVersion": version,
                "ConfigHash": config_hash(config),
                "Config": config.model_dump(mode="json"),
                "Software": f"afterimage {__version__}",
                "Sources": sources,
            },
        )


def _below_dataset(path: Path) -> str:
    for parent in path.parents:
        if (parent / "stimuli.tsv").is_file() or (parent / "dataset_description.json").is_file():
            return path.relative_to(parent).as_posix()
    return path.name


def error_record_path(name: str, outputs: Mapping[str, Sequence[str]]) -> Path | None:
    """Return where the error of this job is recorded, or None without an output."""
    for values in outputs.values():
        for value in values:
            path = Path(value)
            stem = path.name.split(".")[0]
            return derivative_root(path) / "logs" / "errors" / f"{name}_{stem}.json"
    return None


def job_log(root: Path, record: Path) -> Path | None:
    """Return the log of the job whose error is recorded in ``record``, or None without one."""
    stage = json.loads(record.read_text(encoding="utf-8")).get("stage", "")
    # The log of a job is named like its outputs, without their suffix.
    job = f"{record.stem.removeprefix(f'{stage}_')}_"
    logs = [
        log for log in (root / "logs" / stage).rglob("*.log") if job.startswith(f"{log.stem}_")
    ]
    return max(logs, key=lambda log: len(log.stem), default=None)


def running_path(record: Path) -> Path:
    """Return where a job notes that it runs; what stands there when no job runs was killed."""
    return record.parent.parent / "running" / record.name


def skipped_path(record: Path) -> Path:
    """Return where a job notes that it left out bad input and went on."""
    return record.with_name(f"{record.stem}_skipped.json")


def record_skipped(name: str, output: Path, *errors: AfterimageError) -> None:
    """Record that a stage left out bad input and went on without it.

    The record has the form of an error's, so that the run's summary, its exit code and the report
    of the subject say what was left out.

    Parameters
    ----------
    name : str
        The stage.
    output : Path
        Its first output.
    *errors : AfterimageError
        What was wrong with the input, one or more; none writes nothing.
    """
    record = error_record_path(name, {"": [str(output)]})
    if record and errors:
        entry: dict[str, Any] = {"stage": name, "unit": unit_of(output), "skipped": True}
        path = skipped_path(record)
        earlier = [json.loads(path.read_text())["message"]] if path.is_file() else []
        entry["message"] = "\n\n".join([*earlier, *map(str, errors)])
        write_json(path, entry | {"exit_code": errors[0].exit_code})
    for error in errors:
        log.warning("%s", error)


def guarded_run(
    name: str,
    inputs: Mapping[str, Sequence[str]],
    outputs: Mapping[str, Sequence[str]],
    params: Mapping[str, Any],
    *,
    threads: int = 1,
    device: str = "cpu",
) -> int:
    """Run a stage and turn any error into a record, a message and an exit code.

    Returns
    -------
    int
        0, or the exit code of the error: 65 for bad data (a full disk among it), 78 for the
        configuration, 70 for a defect of this program.
    """
    record = error_record_path(name, outputs)
    first = next((value for values in outputs.values() for value in values), "")
    entry = {"stage": name, "unit": unit_of(Path(first))}
    try:
        if record:
            skipped_path(record).unlink(missing_ok=True)
            write_json(running_path(record), entry | {"exit_code": 1, "message": KILLED})
        run_stage(name, inputs, outputs, params, threads=threads, device=device)
    except AfterimageError as error:
        message, code = str(error), error.exit_code
    except Exception as error:  # noqa: BLE001  the record must be written whatever happened
        if full := disk_full(error, Path(first).parent):
            message, code = str(full), full.exit_code
        else:
            traceback.print_exc()
            message, code = f"{type(error).__name__}: {error}", 70
    else:
        if record:
            record.unlink(missing_ok=True)
            running_path(record).unlink(missing_ok=True)
        return 0
    print(message, file=sys.stderr)
    if record:
        try:
            write_json(record, entry | {"exit_code": code, "message": message})
            running_path(record).unlink(missing_ok=True)
        except OSError as error:
            print(f"the error could not be recorded: {error}", file=sys.stderr)
    return code


def stage_interface(name: str) -> dict[str, Any]:
    """Return what the workflow needs to know of a stage: version, names of inputs and outputs."""
    module = stage_module(name)
    return {
        "version": module.VERSION,
        "inputs": [field.name for field in dataclasses.fields(module.Inputs)],
        "outputs": [field.name for field in dataclasses.fields(module.Outputs)],
    }
