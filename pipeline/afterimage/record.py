"""The record of a run: what was run, with what, what failed; and the reports of failed subjects."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import shutil
import sys
from pathlib import Path
from typing import Any

import yaml

from afterimage import __version__
from afterimage.bids.description import describe_derivatives
from afterimage.bids.index import read_units
from afterimage.errors import InputError, full_at, suppress_full
from afterimage.io.atomic import SPARE_BYTES, remove_leftovers, write_json, write_text
from afterimage.settings import StageConfig
from afterimage.stages.runner import job_log, stage_module


def start_run(
    root: Path, bids_dir: Path, run_id: str, settings: dict[str, Any], subjects: list[str],
    jobs: dict[str, list[int]],
) -> None:  # fmt: skip
    """Begin a run: describe the output, sweep up what a killed run left, save config and units.

    Parameters
    ----------
    root : Path
        The output dataset.
    bids_dir : Path
        The dataset.
    run_id : str
        Name of the folder under ``logs/``.
    settings : dict
        The effective configuration.
    subjects : list of str
        Labels of the subjects that this run is about.
    jobs : dict of list of int
        Of every rule how many jobs it has, and how many of them are not up to date.
    """
    describe_derivatives(root, bids_dir)
    remove_leftovers(root)
    reset_errors(root, subjects)
    folder = root / "logs" / run_id
    write_text(folder / "config.yaml", yaml.safe_dump(settings, sort_keys=False))
    write_text(root / "code" / "config.yaml", yaml.safe_dump(settings, sort_keys=False))
    units = root / "code" / "units.tsv"
    write_text(folder / "units.tsv", units.read_text(encoding="utf-8"))
    write_json(folder / "environment.json", environment())
    write_json(folder / "jobs.json", jobs)


def reset_errors(root: Path, subjects: list[str]) -> None:
    """Forget the errors of earlier runs; record those of ``subjects`` whose files are missing."""
    for folder in ("errors", "running"):
        shutil.rmtree(root / "logs" / folder, ignore_errors=True)
    for row in read_units(root / "code" / "units.tsv"):
        if row["problem"] != "n/a" and row["subject"] in subjects:
            # One record a run; a run that is named badly has no entities to tell it by.
            kinds = ("bold", "recording", "series")
            own = next((row[kind] for kind in kinds if row.get(kind, "n/a") != "n/a"), "")
            job = Path(own).name.split(".")[0] if own else f"sub-{row['subject']}"
            write_json(
                root / "logs" / "errors" / f"index_{job}.json",
                {
                    "stage": "index",
                    "unit": f"sub-{row['subject']}",
                    "exit_code": 65,
                    "message": row["problem"].replace(" | ", "\n"),
                },
            )


def environment() -> dict[str, Any]:
    """Return versions, machine and command of this process."""
    names = sorted(
        {
            (d.metadata["Name"] or "").lower(): d.version
            for d in importlib.metadata.distributions()
        }.items()
    )
    return {
        "afterimage": __version__,
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "processors": os.cpu_count(),
        "packages": dict(names),
    }


def error_records(root: Path) -> list[dict[str, Any]]:
    """Return the errors of the last run, in a fixed order, each with the log of its job."""
    return [
        {**json.loads(path.read_text(encoding="utf-8")), "log": job_log(root, path)}
        for path in sorted((root / "logs" / "errors").glob("*.json"))
    ]


def finish_run(root: Path, *, failed: bool) -> None:
    """End a run: subjects that failed get a report all the same, and the group report names them."""
    # A job that could not write its error on a full disk looks as if it was killed.
    full = shutil.disk_usage(root).free < SPARE_BYTES
    for note in sorted((root / "logs" / "running").glob("*.json")):
        record = root / "logs" / "errors" / note.name
        record.parent.mkdir(exist_ok=True)
        if full:
            told = json.loads(note.read_text(encoding="utf-8"))
            error = full_at(root)
            told |= {"exit_code": error.exit_code, "message": str(error)}
            # In place: a new file may find no room, while this one has a block of its own.
            with suppress_full(), note.open("r+b") as file:
                file.write(json.dumps(told).encode())
                file.truncate()
        note.replace(record)
    units = {record["unit"] for record in error_records(root)}
    if failed or units:
        write_reports(
            root, subjects=sorted(unit.removeprefix("sub-") for unit in units - {"group"})
        )


def write_reports(root: Path, subjects: list[str] | None = None) -> list[Path]:
    """Write reports from what is there: those of ``subjects`` (None: all), and the group's.

    Raises
    ------
    InputError
        When no run was ever started in the folder.
    """
    from afterimage.config.load import load_config

    units = root / "code" / "units.tsv"
    if not units.is_file():
        within = [path.parent.parent for path in sorted(root.glob("*/code/units.tsv"))]
        raise InputError(
            "a folder is not an output of afterimage",
            where=str(root),
            found="no code/units.tsv, which every run writes first",
            expected="the OUT_DIR of a run, also of one that failed",
            fix=f"afterimage report {within[0]}"
            if within
            else "start with afterimage BIDS_DIR OUT_DIR",
        )
    saved = root / "code" / "config.yaml"
    config = load_config([saved] if saved.is_file() else [])
    hidden = workflow_values(config)
    written = []
    known = list(dict.fromkeys(row["subject"] for row in read_units(units)))
    subject_module = stage_module("report_subject")
    for subject in known if subjects is None else subjects:
        section = config.report_subject.model_copy(update=hidden)
        for path, page in subject_module.pages(root, subject, section).items():
            write_text(path, page)
            written.append(path)
    path = root / "group.html"
    group_section = config.report_group.model_copy(update=hidden)
    write_text(path, stage_module("report_group").build(root, group_section))
    return [*written, path]


def workflow_values(config: Any) -> dict[str, Any]:
    """Return what the workflow passes to the report stages: the sections, and what was changed."""
    from afterimage.config.template import differences

    sections = {
        name: config.section(name)
        for name in type(config).model_fields
        if isinstance(getattr(config, name), StageConfig) and not name.startswith("report")
    }
    changes = [
        [key, json.dumps(default), json.dumps(value)]
        for key, default, value in differences(config)
        if not key.startswith("report")
    ]
    return {"sections": sections, "changes": changes}
