"""Write one subject's report from whatever is there, also after a failure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import Field

from afterimage.bids.names import derivative_root, unit_of
from afterimage.io.atomic import write_text
from afterimage.io.tables import read_tsv
from afterimage.reports import model
from afterimage.reports.provenance import ConfigChange, StageRun
from afterimage.settings import StageConfig
from afterimage.stages.report_connectivity import read_connectivity
from afterimage.stages.report_dynamic import read_dynamics
from afterimage.stages.report_meeg import read_recordings
from afterimage.stages.report_pictures import audit_record, gallery, region_pictures
from afterimage.stages.report_published import own_and_other, read_comparison, read_published
from afterimage.stages.report_recordings import counts, exclusions, read_fits, read_responses
from afterimage.stages.report_scans import read_scans
from afterimage.stages.report_stages import (
    dataset_name,
    dataset_of,
    facts,
    has_pictures,
    optional_json,
    read_rows,
    stage_errors,
    stage_runs,
    versions,
)
from afterimage.stages.report_time import read_condition_notes, read_conditions, read_timing

VERSION = 3
CITES = ("molder2021", "gorgolewski2016")


class Config(StageConfig):
    """What the subject's report shows."""

    n_gallery_rows: int = Field(
        8, ge=0, description="randomly drawn rows of the gallery, beside the percentile rows"
    )
    headline_label: str = Field(
        "", description="row the verdict speaks of; empty: the last method of the first decoder"
    )
    headline_metric: str = Field(
        "", description="its metric; empty: the first of twoway_clip, any twoway, pixcorr"
    )
    sections: dict[str, Any] = Field(
        default={}, description="set by the workflow", json_schema_extra={"workflow": True}
    )
    changes: list[list[Any]] = Field(
        default=[], description="set by the workflow", json_schema_extra={"workflow": True}
    )


@dataclass(frozen=True)
class Inputs:
    """What must be there; the report reads the rest of the subject's folder beside it.

    A subject whose dataset has no pictures has trials, but no metrics; one at rest has
    connectivity only.
    """

    trials: Path | None = None
    metrics: Path | None = None
    connectivity: tuple[Path, ...] = ()
    conditions: tuple[Path, ...] = ()
    timing: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Outputs:
    """What the stage writes."""

    report: Path


def run(
    inputs: Inputs, outputs: Outputs, config: Config, *, threads: int = 1, device: str = "cpu"
) -> None:
    """Write the report of the subject that the page is named after."""
    root = derivative_root(outputs.report)
    subject = unit_of(outputs.report).removeprefix("sub-")
    for path, page in pages(root, subject, config).items():
        write_text(path, page)


def pages(root: Path, subject: str, config: Config) -> dict[Path, str]:
    """Return the HTML of one subject's report, and of its audit where there is one, by path.

    The page of the audit lies beside the report, which links to it.

    Parameters
    ----------
    root : Path
        The output dataset.
    subject : str
        Label without ``sub-``.
    config : Config

    Returns
    -------
    dict
        Path of the page to its HTML.
    """
    from afterimage.reports.assemble import assemble_subject
    from afterimage.reports.audit_page import assemble_audit

    report = read_report(root, subject, config)
    made = {root / f"sub-{subject}.html": assemble_subject(report)}
    if report.audit_href:
        made[root / report.audit_href] = assemble_audit(report, f"sub-{subject}.html#audit")
    return made


def read_report(root: Path, subject: str, config: Config) -> model.SubjectReport:
    """Collect one subject's report from what lies in the output dataset.

    Parameters
    ----------
    root : Path
        The output dataset.
    subject : str
        Label without ``sub-``.
    config : Config

    Returns
    -------
    SubjectReport
    """
    name = f"sub-{subject}"
    folder = root / name
    rows = read_rows(root, subject)
    errors = stage_errors(root, name, rows)
    quality = optional_json(folder / f"{name}_quality.json")
    recordings = read_recordings(folder, name, rows, quality)
    scans = None if recordings else read_scans(folder, name, rows)
    bids_dir = dataset_of(root)
    connectivity = read_connectivity(folder, name)
    learned = folder / "evaluation" / f"{name}_learning.tsv"
    ablated = folder / "evaluation" / f"{name}_regions.tsv"
    report = model.SubjectReport(
        subject=subject,
        dataset=dataset_name(bids_dir),
        versions=versions(
            scans=scans is not None,
            recordings=recordings is not None,
            connectivity=bool(connectivity),
        ),
        command="afterimage BIDS_DIR OUT_DIR participant",
        config_changes=[ConfigChange(*map(str, change)) for change in config.changes],
        exclusions=exclusions(quality, scans or recordings, rows),
        scans=scans,
        recordings=recordings,
        timing=read_timing(folder / "evaluation" / f"{name}_time.nc"),
        learning=read_tsv(learned) if learned.is_file() else [],
        ablation=read_tsv(ablated) if ablated.is_file() else [],
        conditions=read_conditions(folder / "decoding" / f"{name}_conditions.tsv"),
        condition_notes=read_condition_notes(folder / "decoding" / f"{name}_conditions.tsv"),
        responses=read_responses(folder / f"{name}_trials.nc", quality),
        connectivity=connectivity,
        dynamic=read_dynamics(folder, name),
        stages=[
            *stage_runs(root, name, rows, config.sections, errors),
            StageRun("report_subject", VERSION, cites=CITES),
        ],
        errors=errors,
        facts=facts(config.sections) | counts(quality),
    )
    if not has_pictures(rows):
        return replace(report, without_pictures=True)
    metrics_file = folder / "evaluation" / f"{name}_metrics.tsv"
    own, other = own_and_other(read_tsv(metrics_file) if metrics_file.is_file() else [])
    n_trials = (quality or {}).get("n_trials", {}).get("train", -1)
    audit = optional_json(folder / "evaluation" / f"{name}_audit.json")
    absent = bool(audit) and not (audit or {}).get("n_test_pictures")
    return replace(
        report,
        fits=read_fits(folder, name),
        gallery=gallery(folder, name, bids_dir, config.n_gallery_rows),
        regions=region_pictures(folder, name),
        metrics=own,
        published=read_published(other, [audit], {subject: n_trials}, bids_dir),
        comparison=read_comparison(folder / "evaluation" / f"{name}_comparison.tsv"),
        audit_href=f"{name}_audit.html" if audit and own else "",
        unscored="the test images are absent" if absent else "",
        audit=audit_record(folder, name, audit, bids_dir),
        headline_label=config.headline_label,
        headline_metric=config.headline_metric,
    )
