"""Write the report of all subjects, the failed ones too, and the table of all scores."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from pydantic import Field

from afterimage.bids.names import derivative_root
from afterimage.evaluation import decoder_comparison
from afterimage.evaluation.metrics import COLUMNS
from afterimage.io.arrays import open_dataset
from afterimage.io.atomic import write_text
from afterimage.io.tables import Row, read_json, read_tsv, write_tsv
from afterimage.reports import model
from afterimage.reports.comparison import MODALITIES
from afterimage.reports.provenance import ConfigChange, StageError, StageRun
from afterimage.reports.recordings import TimeResolved
from afterimage.reports.scan_words import onset_warning
from afterimage.reports.scans import ResponseQuality
from afterimage.reports.time_words import alarm_warning
from afterimage.settings import StageConfig
from afterimage.stages import (
    evaluate_connectivity,
    evaluate_subjects,
    factor_connectome,
    generate_connectivity,
    predict_phenotypes,
    pretrain_tokens,
    probe_tokens,
    report_stages,
    train_tokenizer,
)
from afterimage.stages.report_connectivity import read_group_connectivity
from afterimage.stages.report_factors import read_factors
from afterimage.stages.report_pretraining import read_pretraining
from afterimage.stages.report_published import own_and_other, read_published
from afterimage.stages.report_time import read_alarms, read_condition_notes, read_conditions
from afterimage.stages.report_tokenizers import read_token_models, read_tokenizers

VERSION = 8
CITES = ("molder2021", "gorgolewski2016")

#: Connections whose distribution is drawn, at most.
N_VALUES = 50_000


class Config(StageConfig):
    """What the group report shows."""

    headline_metric: str = Field(
        "", description="metric named first; empty: the first of twoway_clip, any twoway, pixcorr"
    )
    sections: dict[str, Any] = Field(
        default={}, description="set by the workflow", json_schema_extra={"workflow": True}
    )
    changes: list[list[Any]] = Field(
        default=[], description="set by the workflow", json_schema_extra={"workflow": True}
    )


@dataclass(frozen=True)
class Inputs:
    """What must be there: the trials of the subjects that ran, and scores where there are pictures.

    Without pictures, the conditions told apart in people left out, where there are several.
    """

    trials: tuple[Path, ...]
    metrics: tuple[Path, ...] = ()
    conditions: Path | None = None
    subjects: Path | None = None
    connectivity: Path | None = None
    pretraining: tuple[Path, ...] = ()
    tokenizers: tuple[Path, ...] = ()
    phenotypes: Path | None = None
    generative: Path | None = None
    factors: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Outputs:
    """What the stage writes."""

    report: Path
    metrics: Path
    comparison: Path


def run(
    inputs: Inputs, outputs: Outputs, config: Config, *, threads: int = 1, device: str = "cpu"
) -> None:
    """Write the group report and ``group/metrics.tsv``."""
    root = derivative_root(outputs.report)
    _write_tables(root, inputs, outputs)
    write_text(outputs.report, build(root, config))


def _write_tables(root: Path, inputs: Inputs, outputs: Outputs) -> None:
    rows = _rows(inputs.metrics)
    write_tsv(outputs.metrics, rows, COLUMNS)
    write_tsv(outputs.comparison, _compared_decoders(root, rows), decoder_comparison.COLUMNS)


def build(root: Path, config: Config) -> str:
    """Return the HTML of the group report from what lies in the output dataset."""
    from afterimage.reports.assemble import assemble_group

    units: dict[str, list[Row]] = {}  # scans have a row a run
    for row in report_stages.read_rows(root):
        units.setdefault(row["subject"], []).append(row)
    labels = list(units)
    dataset = report_stages.dataset_of(root)
    subjects = [_subject(root, label, rows, config.sections) for label, rows in units.items()]
    files = [root / f"sub-{s}" / "evaluation" / f"sub-{s}_metrics.tsv" for s in labels]
    own, other = own_and_other(_rows(path for path in files if path.is_file()))
    for error in report_stages.stage_errors(root, "group"):
        subjects.append(
            model.GroupSubject(
                "dataset", status="failed", stage=error.stage, message=error.message
            )
        )
    compared, compared_notes = _compared(root, units, config.sections)
    connectivity = read_group_connectivity(root)
    predicted, generated = (
        read_tsv(path) if path.is_file() else []
        for path in (root / "group" / f"{name}.tsv" for name in ("phenotypes", "generative"))
    )
    factored = read_factors(root)
    tokenizers = read_tokenizers(root / "group" / "tokenizers")
    token_models = read_token_models(root / "group" / "tokenmodels")
    audits = [
        report_stages.optional_json(root / f"sub-{s}" / "evaluation" / f"sub-{s}_audit.json")
        for s in labels
    ]
    n_trials = {s.subject: s.n_train_trials or -1 for s in subjects}
    modules = _modules(root, units, config, (
        (evaluate_subjects, compared),
        (evaluate_connectivity, connectivity),
        (factor_connectome, factored),
        (predict_phenotypes, predicted),
        (generate_connectivity, generated),
        (train_tokenizer, tokenizers),
        (pretrain_tokens, token_models),
        (probe_tokens, any(card.probes for card in tokenizers)),
    ))  # fmt: skip
    return assemble_group(
        model.GroupReport(
            subjects=subjects,
            metrics=own,
            published=read_published(other, audits, n_trials, dataset),
            comparison=_compared_decoders(root, own),
            conditions=read_conditions(root / "group" / "conditions.tsv"),
            condition_notes=read_condition_notes(root / "group" / "conditions.tsv"),
            connectivity=connectivity,
            phenotypes=predicted,
            factored=factored,
            generated=generated,
            generated_values=_generated_values(root) if generated else None,
            leak_linter=[*_linter(root, labels), *_across_subjects(root, labels)],
            compared=compared,
            compared_notes=compared_notes,
            stages=[
                StageRun(stage, module.VERSION, cites=module.CITES)
                for stage, module in modules.items()
            ],
            dataset=report_stages.dataset_name(dataset),
            versions=report_stages.versions(
                scans="clean_bold" in modules,
                recordings="clean_meeg" in modules,
                connectivity="connect" in modules,
            ),
            command="afterimage BIDS_DIR OUT_DIR participant",
            config_changes=[ConfigChange(*map(str, change)) for change in config.changes],
            headline_metric=config.headline_metric,
            pretraining=read_pretraining(root / "group" / "pretraining"),
            tokenizers=tokenizers,
            token_models=token_models,
            facts=report_stages.facts(config.sections),
        )
    )


def _modules(
    root: Path,
    units: Mapping[str, list[Row]],
    config: Config,
    of_group: Iterable[tuple[ModuleType, Any]],
) -> dict[str, ModuleType]:
    """Return the stages that ran, by name: those of people, then those of the group with a result."""
    found = {
        link[0]: link[1]
        for label, rows in units.items()
        for link in report_stages.chain(root / f"sub-{label}", rows, config.sections)
    }
    return found | {
        module.__name__.rpartition(".")[2]: module for module, result in of_group if result
    }


def _generated_values(root: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return some connections of real and of generated people."""
    with open_dataset(root / "group" / "generative.nc") as dataset:
        both = [dataset[name].values for name in ("real", "sampled")]
    rng = np.random.default_rng(0)
    return tuple(rng.permutation(v.ravel())[:N_VALUES] for v in both)  # type: ignore[return-value]


def _rows(paths: Iterable[Path]) -> list[Row]:
    """Read the scores of people; a thousand of them have a million rows, which share their cells."""
    cells: dict[str, str] = {}
    return [
        {key: cells.setdefault(cell, cell) for key, cell in row.items()}
        for path in paths
        for row in read_tsv(path, required=("subject", "label", "metric"))
    ]


def _compared_decoders(root: Path, rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Compare decoders over people of the same modality."""
    kinds = {row["subject"]: row.get("modality", "n/a") for row in report_stages.read_rows(root)}
    told = [
        {**row, "modality": kinds.get(row["subject"], "n/a")}
        for row in rows
        if row.get("role") in decoder_comparison.ROLES
    ]
    return decoder_comparison.compare_over_people(told)


def _compared(
    root: Path, units: dict[str, list[Row]], sections: dict[str, Any]
) -> tuple[list[Row], list[str]]:
    """Read the comparison of subjects; where there is none, say why if there could be one."""
    table = root / "group" / "subjects.tsv"
    details = report_stages.optional_json(table.with_suffix(".json"))
    if table.is_file() and details is not None:
        notes = [str(note) for note in details.get("notes", ())]
        for found in details.get("comparisons", ()):
            name = MODALITIES.get(found["modality"], found["modality"])
            notes.append(
                f"{name}: {len(found['subjects'])} people on {found['n_units']} common units; "
                f"feature block {found['block']}, {found['n_gallery']} pictures to choose from."
            )
            notes += [str(note) for note in found["notes"]]
        return read_tsv(table, required=("subject", "analysis")), notes
    pictured: dict[str, list[str]] = {}
    for label, rows in units.items():
        if report_stages.has_pictures(rows):
            pictured.setdefault(str(rows[0].get("modality")), []).append(label)
    several = {kind for kind, labels in pictured.items() if len(labels) > 1}
    if several & set(MODALITIES) and not sections.get("evaluate_subjects", {}).get("enabled"):
        return [], ["Switched off (evaluate_subjects.enabled)."]
    if several & set(MODALITIES):
        return [], [
            "All of them are needed, and something failed. To compare the others, run again with "
            "--participant-label and their labels."
        ]
    if several:
        return [], [
            f"The units of {' and '.join(sorted(several))} are each person's own, so that no decoder "
            "goes from one to another. EEG and MEG are compared."
        ]
    return [], []


def _subject(
    root: Path, label: str, rows: Sequence[Row], sections: dict[str, Any]
) -> model.GroupSubject:
    name = f"sub-{label}"
    folder = root / name
    errors = report_stages.stage_errors(root, name, rows)
    fatal = [error for error in errors if not error.partial]
    runs = report_stages.stage_runs(root, name, rows, sections, errors)
    quality_file = folder / f"{name}_quality.json"
    quality = read_json(quality_file) if quality_file.is_file() else None
    audit_file = folder / "evaluation" / f"{name}_audit.json"
    scored = audit_file.is_file() and bool(read_json(audit_file).get("n_test_pictures"))
    trials = folder / f"{name}_trials.nc"
    times = [run.runtime_s for run in runs if run.runtime_s is not None]
    return model.GroupSubject(
        subject=label,
        href=f"{name}.html",
        status=_status(
            fatal,
            rows,
            scored=scored,
            responses=trials.is_file(),
            connected=any(folder.glob("connectivity/*_connectivity.nc")),
        ),
        stage=fatal[0].stage if fatal else "",
        message=fatal[0].message if fatal else "",
        warnings=[*_warnings(quality), *_alarms(folder, name)],
        left_out=[error.message for error in errors if error.partial],
        n_units=quality["n_units_kept"] if quality else None,
        n_train_trials=quality["n_trials"].get("train", 0) if quality else None,
        n_test_stimuli=quality["n_stimuli"].get("test", 0) if quality else None,
        runtime_s=sum(times) if times else None,
        modality=str(rows[0].get("modality", "")) if rows else "",
    )


def _status(
    fatal: Sequence[StageError],
    rows: Sequence[Row],
    *,
    scored: bool,
    responses: bool,
    connected: bool,
) -> str:
    if fatal:
        return "failed"
    if scored:
        return "done"
    if connected and not responses and not report_stages.has_trials(rows):
        return "connectivity only"
    return "responses only" if responses and not report_stages.has_pictures(rows) else "unscored"


def _warnings(quality: dict[str, Any] | None) -> list[str]:
    """Repeat what the subject's report warns of before anything else."""
    best = (quality or {}).get("best_onset_shift_s")
    warning = onset_warning(ResponseQuality(best_onset_shift_s=best))
    return [warning] if warning else []


def _linter(root: Path, labels: list[str]) -> list[dict[str, Any]]:
    """Collect the leak checks of all subjects."""
    checks = []
    for label in labels:
        path = root / f"sub-{label}" / "evaluation" / f"sub-{label}_audit.json"
        if path.is_file():
            checks += [{"subject": label, **check} for check in read_json(path)["leak_linter"]]
    return checks


def _across_subjects(root: Path, labels: list[str]) -> list[dict[str, Any]]:
    """Check that no stimulus is a test for one subject and training for another.

    Within-subject decoders are not harmed by it; a model trained on several subjects would be.
    """
    split: dict[str, set[str]] = {}
    for label in labels:
        path = root / f"sub-{label}" / f"sub-{label}_split.tsv"
        if path.is_file():
            for row in read_tsv(path):
                if row.get("file", "n/a") != "n/a":  # a category is seen by all, in any split
                    split.setdefault(row["stimulus_id"], set()).add(row["split"])
    if not split:
        return []
    crossing = sorted(name for name, values in split.items() if len(values) > 1)
    detail = f"{len(split)} stimuli, each in one split for all subjects"
    if crossing:
        detail = f"{len(crossing)} stimuli differ between subjects, for example {crossing[0]}"
    return [
        {
            "subject": "",
            "check": "same split for all subjects",
            "ok": not crossing,
            "detail": detail,
        }
    ]


def _alarms(folder: Path, name: str) -> list[str]:
    """Say whether something is decoded from before the stimulus."""
    timing = TimeResolved(alarms=read_alarms(folder / "evaluation" / f"{name}_time.nc"))
    conditions = read_conditions(folder / "decoding" / f"{name}_conditions.tsv")
    warning = alarm_warning(timing, conditions)
    return [warning] if warning else []
