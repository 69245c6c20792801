"""What is said of scans in words: warnings of the first screen, and the verdict without pictures."""

from __future__ import annotations

import numpy as np

from afterimage.reports.model import SubjectReport
from afterimage.reports.page import Finding
from afterimage.reports.scans import ResponseQuality, ScanQuality

ONSET_TOLERANCE_S = 2.0
"""A best onset shift beyond this many seconds is a warning: responses differ in delay by about
one second between people and regions, not by more."""
MANY_CENSORED = 0.2
"""Share of a run's volumes."""


def onset_warning(quality: ResponseQuality | None) -> str:
    """Say in words that the onsets do not fit the signal; empty where they do.

    A best shift of -7 s means that the signal fits onsets 7 s before those in the events files:
    the onsets written there are 7 s late.
    """
    best = quality.best_onset_shift_s if quality else None
    if quality is None or best is None or not abs(best) > ONSET_TOLERANCE_S:
        return ""
    side, move = ("late", "earlier") if best < 0 else ("early", "later")
    shifts = quality.onset_shift_s
    at_end = len(shifts) and best in (shifts.min(), shifts.max())
    about = "at least " if at_end else ""
    return (
        f"The onsets look {about}{seconds(best)} s {side}: the signal is explained best when all of "
        f"them are moved {about}{seconds(best)} s {move}. Check the onset column of the events files, "
        "the volumes dropped at the start of the scan, and the slice timing."
    )


def seconds(value: float) -> str:
    """Write a length of time without its sign and without needless decimals."""
    return f"{abs(value):.1f}".removesuffix(".0")


def signed(value: float) -> str:
    """Write a shift in seconds with its sign: ``−7``, ``+1.5``, ``0``."""
    sign = "−" if value < 0 else "+" if value > 0 else ""
    return sign + seconds(value)


def scan_warnings(scans: ScanQuality | None) -> list[str]:
    """Return what must be said of the scans before any score is read."""
    if scans is None:
        return []
    warnings = [text for text in [onset_warning(scans.responses)] if text]
    many = [run.name for run in scans.runs if run.censored_share > MANY_CENSORED]
    if many:
        names = ", ".join(many[:4]) + (" and others" if len(many) > 4 else "")
        noun = "one run" if len(many) == 1 else f"{len(many)} runs"
        warnings.append(f"More than a fifth of the volumes is censored in {noun} ({names}).")
    return warnings


def response_findings(report: SubjectReport) -> list[Finding]:
    """Judge scans and responses where there is no picture to judge."""
    findings = []
    scans = report.scans
    moved = [run.mean_fd_mm for run in scans.runs if np.isfinite(run.mean_fd_mm)] if scans else []
    if scans is not None and moved:
        mean = float(np.mean(moved))
        censored = sum(run.n_censored for run in scans.runs)
        n_volumes = max(sum(run.n_volumes for run in scans.runs), 1)
        state = "yes" if mean < 0.2 else "partly" if mean < 0.5 else "no"
        findings.append(
            Finding(
                "Did the head lie still?",
                state,
                {"yes": "Yes", "partly": "Mostly", "no": "No"}[state],
                f"Mean framewise displacement is {mean:.2f} mm over {len(moved)} "
                f"run{'s' if len(moved) != 1 else ''}; {100 * censored / n_volumes:.1f} % of the "
                "volumes are censored. Below 0.2 mm is good, above 0.5 mm is poor.",
            )
        )
    responses = scans.responses if scans else None
    if responses is not None and (best := responses.best_onset_shift_s) is not None:
        late = bool(onset_warning(responses))
        findings.append(
            Finding(
                "Do the onsets fit the signal?",
                "no" if late else "yes",
                "No" if late else "Yes",
                f"The signal is explained best with all onsets moved by {signed(best)} s; "
                f"within {ONSET_TOLERANCE_S:.0f} s of zero is right.",
            )
        )
    elif responses is not None and len(responses.onset_shift_r2):
        findings.append(
            Finding(
                "Do the onsets fit the signal?",
                "unknown",
                "Not clear",
                "The curve of onset shifts has no clear peak, so their timing cannot be judged.",
            )
        )
    ceiling = report.responses.ceiling if report.responses else None
    kind = report.responses.unit_kind if report.responses else "unit"
    if ceiling is not None and np.isfinite(ceiling).any():
        median = float(np.nanmedian(ceiling))
        state = "yes" if median >= 0.3 else "partly" if median >= 0.1 else "no"
        findings.append(
            Finding(
                "Are the responses reproducible?",
                state,
                {"yes": "Yes", "partly": "Weakly", "no": "No"}[state],
                f"The median noise ceiling of the {kind}s kept is r = {median:.2f} for one trial: "
                "the most that a perfect model could reach. 0.3 and more is good, below 0.1 poor.",
            )
        )
    return findings
