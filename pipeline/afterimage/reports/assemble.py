"""Assemble reports: sections in the order of ``spec/*.yml``, laid out by jinja templates.

The page needs nothing from outside: style, script and pictures are inside it, and its content
security policy forbids loading anything else. All text from data is escaped.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from afterimage.evaluation.metrics import comparison_key
from afterimage.reports import (
    comparison,
    connectivity_tables,
    gallery,
    generated,
    meeg_tables,
    phenotypes,
    protocol_tables,
    tables,
    text,
    verdict,
)
from afterimage.reports.dynamic import dynamic_view
from afterimage.reports.factors import factored_view
from afterimage.reports.figures import GROUP_FIGURES, SUBJECT_FIGURES
from afterimage.reports.figures.scans import carpet_order
from afterimage.reports.labels import (
    AUDIT_ROWS,
    CAPTION_ROLES,
    METRICS,
    decoders_of,
    duration,
    inline,
    label_title,
    metric,
    modality_title,
    pipeline_rank,
)
from afterimage.reports.layout import lay_out, render
from afterimage.reports.model import GroupReport, SubjectReport
from afterimage.reports.pretraining_words import pretraining_view
from afterimage.reports.protocol_words import differing
from afterimage.reports.scan_words import onset_warning
from afterimage.reports.time_words import alarm_warning
from afterimage.reports.tokenizer_words import tokenizer_view


def assemble_subject(report: SubjectReport) -> str:
    """Lay out the report of one subject.

    Parameters
    ----------
    report : SubjectReport
        Whatever is known; sections without data say what is missing.

    Returns
    -------
    html : str
        A whole page, the same for the same input.
    """
    builders: Mapping[str, Callable[[SubjectReport], dict[str, Any] | None]] = {
        "summary": _summary,
        "data_quality": _data_quality,
        "responses": _responses,
        "connectivity": lambda report: connectivity_tables.subject_view(report.connectivity),
        "dynamic": lambda report: dynamic_view(report.dynamic),
        "decoding": _decoding,
        "gallery": _gallery,
        "scores": _scores,
        "published": lambda report: protocol_tables.published_view(
            report.published, report.metrics
        ),
        "audit": _audit,
        "methods": _methods,
        "provenance": _provenance,
        "errors": _errors,
    }
    panels = {name: build(report) for name, build in SUBJECT_FIGURES.items()}
    bodies = {name: build(report) for name, build in builders.items()}
    if report.without_pictures:
        bodies |= dict.fromkeys(("gallery", "scores", "published", "audit"))
        if not (report.conditions or report.condition_notes or report.timing):
            bodies["decoding"] = None
        if report.connectivity and report.responses is None:
            bodies["responses"] = None
    keys = ["question_without_pictures"] if report.without_pictures else []
    keys += ["question_recordings"] if report.scans is None else []
    sections = lay_out("subject.yml", panels, bodies, keys)
    return render(
        title=f"sub-{report.subject}",
        kind="Subject report",
        report=report,
        sections=sections,
        up=report.group_href,
    )


def assemble_group(report: GroupReport) -> str:
    """Lay out the report of all subjects.

    Parameters
    ----------
    report : GroupReport
        Subjects, their metric rows, and the checks of the leak linter.

    Returns
    -------
    html : str
        A whole page, the same for the same input.
    """
    failed = [subject for subject in report.subjects if subject.status == "failed"]
    scores, n_left_out = tables.group_score_table(report)
    checks = list(report.leak_linter)
    pictures = bool(scores.rows) or any(s.status != "responses only" for s in report.subjects)
    bodies: dict[str, dict[str, Any] | None] = {
        "group_summary": {
            "table": tables.subject_table(report),
            "n": len(report.subjects),
            "alarm": alarm_warning(None, report.conditions),
            "n_done": sum(subject.status == "done" for subject in report.subjects),
            "n_responses": sum(subject.status == "responses only" for subject in report.subjects),
            "n_connected": sum(
                subject.status == "connectivity only" for subject in report.subjects
            ),
            "failed": failed,
            "warned": [subject for subject in report.subjects if subject.warnings],
            "means": _group_means(report),
            "n_leaks": sum(not check.get("ok") for check in checks),
            "changes": tables.change_table(report.config_changes),
        },
        "group_conditions": meeg_tables.group_conditions_view(report),
        "group_scores": {"table": scores, "n_left_out": n_left_out} if pictures else None,
        "group_decoders": protocol_tables.comparison_view(
            report.comparison, *_spoken_of(report.metrics, report.headline_metric)
        ),
        "published": protocol_tables.published_view(report.published, report.metrics),
        "group_subjects": comparison.view(report),
        "group_connectivity": connectivity_tables.group_view(report.connectivity),
        "group_factors": factored_view(report.factored),
        "pretraining": pretraining_view(report.pretraining),
        "tokenizers": tokenizer_view(report.tokenizers, report.token_models),
        "group_phenotypes": phenotypes.group_view(report.phenotypes),
        "group_generated": generated.group_view(report.generated),
        "group_linter": {
            "failed": [check for check in checks if not check.get("ok")],
            "summary": _linter_summary(checks),
        }
        if checks or pictures
        else None,
        "methods": {"text": text.group_methods(report)},
        "group_errors": {
            "failed": failed,
            "partial": [subject for subject in report.subjects if subject.left_out],
        },
    }
    if report.connectivity and all(s.status == "connectivity only" for s in report.subjects):
        bodies |= dict.fromkeys(("group_scores", "published", "group_linter"))
    panels = {name: build(report) for name, build in GROUP_FIGURES.items()}
    return render(
        title="Group",
        kind="Group report",
        report=report,
        sections=lay_out("group.yml", panels, bodies),
        up="",
    )


# ---- sections of the subject report -------------------------------------------------------------


def _summary(report: SubjectReport) -> dict[str, Any]:
    facts = text.subject_facts(report)
    times = [run.runtime_s for run in report.stages if run.runtime_s is not None]
    runtime = report.runtime_s if report.runtime_s is not None else sum(times) if times else None
    kind = facts.get("unit_kind", "unit")
    shown = "stimuli" if report.without_pictures else "images"
    tiles = [
        (f"{kind}s used", facts.get("n_units")),
        ("dropped", facts.get("n_dropped")),
        ("training trials", facts.get("n_train_trials")),
        (f"training {shown}", facts.get("n_train_stimuli")),
        ("test trials", facts.get("n_test_trials")),
        (f"test {shown}", facts.get("n_test_stimuli") or _n_test(report)),
        ("run time", duration(runtime) if runtime is not None else None),
    ]
    return {
        "verdict": verdict.judge(report),
        "glance": tables.glance_table(report),
        "tiles": [(name, value) for name, value in tiles if value is not None],
        "exclusions": report.exclusions,
        "changes": tables.change_table(report.config_changes),
        "versions": sorted(report.versions.items()),
    }


def _n_test(report: SubjectReport) -> int | None:
    return len(report.gallery.stimulus) if report.gallery else None


def _data_quality(report: SubjectReport) -> dict[str, Any] | None:
    scans = report.scans
    recorded = meeg_tables.recorded_view(report.recordings)
    if scans is None or not (scans.runs or scans.skipped):
        return {"scans": None, "recorded": recorded} if recorded else None
    seconds = sum(run.n_volumes * run.t_r_s for run in scans.runs)
    first, more, n_left_out = carpet_order(scans.runs)
    return {
        "scans": scans,
        "recorded": recorded,
        "table": tables.run_table(scans),
        "n_volumes": sum(run.n_volumes for run in scans.runs),
        "scan_time": duration(seconds),
        "n_first": len(first),
        "n_more": len(more),
        "n_left_out": n_left_out,
        "notes": list(dict.fromkeys(note for run in scans.runs for note in run.notes)),
    }


def _responses(report: SubjectReport) -> dict[str, Any]:
    data = report.responses
    quality = report.scans.responses if report.scans else None
    evoked = report.recordings.responses if report.recordings else None
    estimated = {"quality": quality, "onset_warning": onset_warning(quality), "evoked": evoked}
    if data is None:
        return {"facts": None, **estimated}
    counts = np.unique([str(s) for s in data.stimulus], return_counts=True)[1]
    if data.n_shown is not None:
        counts = np.asarray(data.n_shown)
    n_times = data.responses.shape[2] if data.responses.ndim == 3 else 0
    return {
        **estimated,
        "facts": text.subject_facts(report),
        "n_times": n_times,
        "n_stimuli": len(counts),
        "n_repeated": int((counts > 1).sum()),
        "max_repeats": int(counts.max(initial=0)),
    }


def _decoding(report: SubjectReport) -> dict[str, Any]:
    return {
        "table": None if report.without_pictures else tables.fit_table(report),
        **meeg_tables.timed_view(report.timing, report.conditions),
        "condition_notes": report.condition_notes,
    }


def _gallery(report: SubjectReport) -> dict[str, Any]:
    shown = gallery.view(report.gallery, decoders_of(report.metrics)) if report.gallery else None
    return {
        "view": shown,
        "unscored": report.gallery is not None and report.gallery.seen is None,
        "why": report.unscored,
        "regions": {
            region: [gallery.thumbnail(one, f"what {region} alone stands for") for one in pictures]
            for region, pictures in report.regions.items()
        },
    }


def _scores(report: SubjectReport) -> dict[str, Any]:
    roles = ("reconstruction", "prediction", "ceiling")
    captions = [role for role in CAPTION_ROLES if role != "caption_audit"]
    names = dict.fromkeys(str(row.get("metric")).partition("_")[0] for row in report.metrics)
    return {
        "table": tables.score_table(report.metrics, roles, "Every score of this subject"),
        "captions": tables.score_table(report.metrics, captions, "Scores of captions"),
        "effect": verdict.method_effect(report),
        "comparison": protocol_tables.comparison_view(report.comparison, *_headline_of(report)),
        "why": report.unscored,
        "glossary": [METRICS[name] for name in METRICS if name in names],
    }


def _headline_of(report: SubjectReport) -> tuple[str, str]:
    """Return method and metric of the row that the verdict speaks of."""
    row = verdict.headline(report)
    return ("", "") if row is None else (str(row.get("method") or ""), str(row["metric"]))


def _spoken_of(rows: Sequence[Mapping[str, Any]], wanted: str) -> tuple[str, str]:
    """Return the last method of the pipeline and the first metric that the group report names."""
    made = [row for row in rows if row.get("role") == "reconstruction"]
    if not made:
        return "", ""
    names = {str(row.get("metric")) for row in made}
    name = next((n for n in (wanted, "twoway_clip", "twoway_pixels", "pixcorr") if n in names), "")
    return str(max(made, key=pipeline_rank).get("method") or ""), name


def _audit(report: SubjectReport) -> dict[str, Any]:
    labels = {str(row.get("label")) for row in report.metrics}
    audit = report.audit
    decoders = decoders_of(report.metrics)
    pairs = gallery.duplicates_view(audit.near_duplicates) if audit else ()
    return {
        "audit": audit,
        "table": tables.score_table(
            report.metrics, ("baseline", "audit", "caption_audit"), "Audit and baseline rows"
        ),
        "rows": [
            (title, meaning)
            for prefix, title, meaning in AUDIT_ROWS
            if any(prefix.lower() in label.lower() for label in labels)
        ],
        "pairs": pairs,
        "n_pairs": len(audit.near_duplicates) if audit else 0,
        "gallery": gallery.view(audit.gallery, decoders) if audit and audit.gallery else None,
        "n_failed": sum(not c.get("ok") for c in audit.leak_linter) if audit else 0,
    }


def _methods(report: SubjectReport) -> dict[str, Any]:
    tags, facts = text.subject_tags(report), text.subject_facts(report)
    return {"text": text.methods_text(tags, facts, report.stages)}


def _provenance(report: SubjectReport) -> dict[str, Any]:
    return {
        "table": tables.stage_table(report.stages),
        "commands": [(run.name, run.command) for run in report.stages if run.command],
    }


def _errors(report: SubjectReport) -> dict[str, Any]:
    return {"errors": report.errors, "stale": [run for run in report.stages if run.stale]}


# ---- sections of the group report ---------------------------------------------------------------


def _group_means(report: GroupReport) -> list[tuple[str, str, str]]:
    """Mean over subjects of the headline metric, one a reconstruction label, modalities apart."""
    rows = [row for row in report.metrics if row.get("role") == "reconstruction"]
    names = {str(row.get("metric")) for row in rows}
    wanted = (report.headline_metric, "twoway_clip", "twoway_pixels", "pixcorr")
    name = next((n for n in wanted if n in names), "")
    if not name:
        return []
    kinds = {subject.subject: modality_title(subject.modality) for subject in report.subjects}
    means: dict[tuple[str, tuple[str, str]], dict[str, list[float]]] = {}
    for row in rows:
        value = tables.as_number(row.get("value"))
        if row.get("metric") == name and value is not None:
            kind = kinds.get(str(row.get("subject")), "")
            # Numbers of two protocols get two means: never one of both.
            key = (str(row["label"]), comparison_key(row))
            means.setdefault(key, {}).setdefault(kind, []).append(value)
    described, decoders = metric(name), decoders_of(rows)
    several = len({kind for by_kind in means.values() for kind in by_kind}) > 1
    told_of = {label: differing(p for one, (_, p) in means if one == label) for label, _ in means}
    found = []
    for (label, (_, protocol)), values in means.items():
        counts = ", ".join(str(len(own)) for own in values.values())
        one = len(values) == 1
        told = [
            f"{kind if several else ''} {described.write(float(np.mean(own)))}".strip()
            for kind, own in values.items()
        ]
        found.append(
            (
                f"{label_title(label, decoders)}, {inline(described.title)}",
                " · ".join(told),
                f"{'mean' if one else 'means'} of {counts} subject{'' if counts == '1' else 's'}"
                + (f" ({what})" if (what := told_of[label][protocol]) else ""),
            )
        )
    return found


def _linter_summary(checks: Sequence[Mapping[str, Any]]) -> list[tuple[str, int, int]]:
    """Count passes and failures of each check over subjects."""
    counts: dict[str, list[int]] = {}
    for check in checks:
        entry = counts.setdefault(str(check.get("check")), [0, 0])
        entry[0 if check.get("ok") else 1] += 1
    return [(name, passed, failed) for name, (passed, failed) in counts.items()]
