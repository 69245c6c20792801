"""The page of the audit of one subject, for a reviewer."""

from __future__ import annotations

from typing import Any

from afterimage.reports import audit_words, gallery, verdict
from afterimage.reports.figures import SUBJECT_FIGURES
from afterimage.reports.labels import decoders_of, inline, label_title, metric
from afterimage.reports.layout import lay_out, render
from afterimage.reports.model import SubjectReport

#: The whole audit in a word.
WORDS = {"pass": "Pass", "warn": "With reservations", "fail": "Fail"}


def assemble_audit(report: SubjectReport, href: str) -> str:
    """Lay out the page of the audit of one subject.

    Parameters
    ----------
    report : SubjectReport
        With its audit.
    href : str
        Relative link back to the subject's report.

    Returns
    -------
    html : str
        A whole page, the same for the same input.
    """
    headline = verdict.headline(report)
    checks = audit_words.audit_checks(report, headline)
    state, sentence = audit_words.overall(checks)
    audit, decoders = report.audit, decoders_of(report.metrics)
    pairs = gallery.duplicates_view(audit.near_duplicates) if audit else ()
    basis = ""
    if headline is not None:
        title = label_title(str(headline["label"]), decoders)
        basis = (
            f"The checks speak of {title}, {inline(metric(str(headline['metric'])).title)}: the row of "
            "the verdict, fixed before any score is read. Intervals are 95 %, over test images."
        )
    bodies: dict[str, dict[str, Any] | None] = {
        "audit_overview": {
            "state": state, "word": WORDS[state], "sentence": sentence,
            "basis": basis, "checks": checks,
        },
        "audit_checks": {"checks": checks},
        "audit_pictures": {
            "gallery": gallery.view(audit.gallery, decoders) if audit and audit.gallery else None,
            "pairs": pairs,
            "n_pairs": len(audit.near_duplicates) if audit else 0,
        },
    }  # fmt: skip
    panels = {"audit": SUBJECT_FIGURES["audit"](report)}
    return render(
        title=f"sub-{report.subject}: audit",
        kind="Audit",
        report=report,
        sections=lay_out("audit.yml", panels, bodies),
        up=href,
        up_title="Subject report",
    )
