"""Tables of EEG and MEG recordings and of the decoding of conditions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from afterimage.reports.figures.meeg import run_order, unit_of
from afterimage.reports.labels import duration, p_text
from afterimage.reports.model import GroupReport
from afterimage.reports.page import Cell, Column, Table
from afterimage.reports.recordings import ConditionScore, Recordings, TimeResolved
from afterimage.reports.tables import number_cell
from afterimage.reports.time_words import (
    alarm_warning,
    condition_method,
    condition_metric,
    group_findings,
    peak_texts,
    plural,
)


def recorded_view(recordings: Recordings | None) -> dict[str, Any] | None:
    """Return what the section on data quality says of recordings; None where there are none."""
    if recordings is None or not (recordings.runs or recordings.skipped):
        return None
    first, more, n_left_out = run_order(recordings.runs)
    lengths = [run.duration_s for run in recordings.runs if math.isfinite(run.duration_s)]
    sensors = recordings.sensors
    kinds = sensors.known_kinds if sensors else []
    return {
        "runs": recordings.runs,
        "skipped": recordings.skipped,
        "modality": recordings.modality.upper(),
        "length": duration(sum(lengths)) if lengths else "unknown length",
        "channels": [
            (len(sensors.of_kind(kind)), *unit_of(kind)[:2]) for kind in kinds if sensors
        ],
        "unplaced": _unplaced(recordings),
        "table": recording_table(recordings),
        "bad": bad_channel_table(recordings),
        "reasons": segment_reasons(recordings),
        "n_first": len(first),
        "n_more": len(more),
        "n_left_out": n_left_out,
        "notes": list(dict.fromkeys(note for run in recordings.runs for note in run.notes)),
    }


def timed_view(timing: TimeResolved | None, scores: Sequence[ConditionScore]) -> dict[str, Any]:
    """Return what the section on decoding says of time and of conditions."""
    return {
        "alarm": alarm_warning(timing, scores),
        "alarms": alarm_table(timing),
        "peaks": peak_texts(timing),
        "timing": timing,
        "conditions": condition_table(scores),
    }


def group_conditions_view(report: GroupReport) -> dict[str, Any] | None:
    """Return what the group report says of conditions in people left out; None where nothing."""
    if not (report.conditions or report.condition_notes):
        return None
    return {
        "findings": group_findings(report.conditions),
        "table": condition_table(report.conditions),
        "notes": report.condition_notes,
    }


def _unplaced(recordings: Recordings) -> int:
    """Count the channels whose position is not known."""
    if recordings.sensors is None:
        return 0
    import numpy as np

    positions = np.asarray(recordings.sensors.positions, dtype=float)
    return int((~np.isfinite(positions).all(axis=1)).sum())


def recording_table(recordings: Recordings) -> Table:
    """Tabulate the runs: length, filters, what was bad, what was taken out."""
    columns = (
        Column("Run"),
        Column("Length", numeric=True),
        Column("Rate", "samples a second after cleaning", numeric=True),
        Column("Pass band", "high-pass and low-pass", numeric=True),
        Column("Reference"),
        Column("Bad channels", "interpolated, or dropped in all runs", numeric=True),
        Column("Bad time", "stretches that take no part in any fit", numeric=True),
        Column("Components out", "of the independent component analysis", numeric=True),
    )
    body = []
    for run in recordings.runs:
        n_components = len(run.components)
        body.append(
            (
                Cell(run.name),
                number_cell(duration(run.duration_s), run.duration_s),
                number_cell(_measured(run.sampling_rate_hz, " Hz"), run.sampling_rate_hz),
                number_cell(_band(run.highpass_hz, run.lowpass_hz), run.highpass_hz),
                Cell(run.reference or "–"),
                number_cell(str(len(run.bad_channels)), len(run.bad_channels), "strong"),
                number_cell(f"{100 * run.bad_share:.1f} %", run.bad_share, "strong"),
                number_cell(
                    f"{run.n_removed} of {n_components}" if n_components else "–", run.n_removed
                ),
            )
        )
    return Table("Runs in the order of recording", columns, tuple(body), sortable=True)


def bad_channel_table(recordings: Recordings) -> Table:
    """Tabulate the bad channels: in which runs, why, what was done."""
    columns = (
        Column("Channel"),
        Column("Bad in", "runs", numeric=True),
        Column("Why"),
        Column("Done"),
        Column("Runs"),
    )
    found: dict[str, list[tuple[str, str, str]]] = {}
    for run in recordings.runs:
        for name, why in run.bad_channels.items():
            found.setdefault(name, []).append((run.name, why, run.repaired.get(name, "")))
    body = []
    n_runs = len(recordings.runs)
    for name, times in sorted(found.items(), key=lambda item: (-len(item[1]), item[0])):
        reasons = dict.fromkeys(part.strip() for _, why, _ in times for part in why.split(","))
        done = ", ".join(filter(None, dict.fromkeys(what for _, _, what in times)))
        runs = [run for run, _, _ in times]
        listed = "all" if len(runs) == n_runs else ", ".join(runs[:6])
        more = f" and {len(runs) - 6} more" if len(runs) > 6 and len(runs) < n_runs else ""
        body.append(
            (
                Cell(name),
                number_cell(f"{len(runs)} of {n_runs}", len(runs), "strong"),
                Cell(", ".join(filter(None, reasons)) or "–"),
                Cell(done or "–"),
                Cell(listed + more),
            )
        )
    return Table("Bad channels", columns, tuple(body), sortable=True)


def segment_reasons(recordings: Recordings) -> list[tuple[str, float]]:
    """Return why time was lost, and the mean share of the runs, largest first."""
    shares: dict[str, float] = {}
    for run in recordings.runs:
        for reason, share in run.bad_reasons.items():
            shares[reason] = shares.get(reason, 0.0) + share / len(recordings.runs)
    return sorted(
        ((why, share) for why, share in shares.items() if share > 0), key=lambda item: -item[1]
    )


def condition_table(scores: Sequence[ConditionScore]) -> Table:
    """Tabulate the decoding of conditions; scores before the stimulus and with leaks beside."""
    columns = (
        Column("Told apart"),
        Column("Classifier"),
        Column("Left out", "what cross-validation leaves out"),
        Column("Window"),
        Column("Metric"),
        Column("Value", numeric=True),
        Column("95 % interval", numeric=True),
        Column("Chance", numeric=True),
        Column("Chance interval", "95 % of the permutations", numeric=True),
        Column("p", "permutation test, one-sided", numeric=True),
        Column("n", "trials tested", numeric=True),
    )
    body = []
    for score in scores:
        note = "rings" if score.rings else "alarm, quiet" if score.before_stimulus else ""
        note = "random trials: a leak" if score.leaks else note
        body.append(
            (
                Cell(score.contrast, note=note),
                Cell(condition_method(score.method), kind="name"),
                Cell("none" if score.leaks else plural(score.left_out) if score.left_out else "–"),
                Cell(score.window or "–"),
                Cell(condition_metric(score.metric)),
                number_cell(f"{score.value:.3f}", score.value, "strong"),
                number_cell(_interval(score.low, score.high), score.low),
                number_cell(_value(score.chance), score.chance),
                number_cell(_interval(score.chance_low, score.chance_high), score.chance_low),
                number_cell(p_text(score.p), score.p),
                number_cell("–" if score.n is None else str(score.n), score.n),
            )
        )
    return Table("Decoding of conditions", columns, tuple(body), sortable=True)


def alarm_table(timing: TimeResolved | None) -> Table | None:
    """Tabulate the alarms, those that ring first."""
    if timing is None or not timing.alarms:
        return None
    columns = (Column("Decoded"), Column("Alarm"), Column("Before the stimulus"))
    body = tuple(
        (Cell(a.what), Cell("rings" if a.rings else "quiet"), Cell(a.detail))
        for a in sorted(timing.alarms, key=lambda alarm: not alarm.rings)
    )
    return Table("Pre-stimulus alarm", columns, body)


def _band(low: float, high: float) -> str:
    known = [math.isfinite(value) and value > 0 for value in (low, high)]
    if all(known):
        return f"{low:g} to {high:g} Hz"
    if known[0]:
        return f"from {low:g} Hz"
    return f"up to {high:g} Hz" if known[1] else "–"


def _measured(value: float, unit: str) -> str:
    return f"{value:g}{unit}" if math.isfinite(value) else "–"


def _value(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _interval(low: float | None, high: float | None) -> str:
    return "–" if low is None or high is None else f"{low:.3f} to {high:.3f}"
