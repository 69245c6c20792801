"""What is said of recordings and of decoding over time in words: warnings, findings, names of rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from afterimage.reports.labels import inline, metric, words
from afterimage.reports.model import SubjectReport
from afterimage.reports.page import Finding
from afterimage.reports.recordings import ConditionScore, Recordings, TimeResolved

MANY_BAD_CHANNELS = 0.15
MANY_BAD_SEGMENTS = 0.2
"""Shares of the channels, and of a run."""
METHODS = {
    "tangentspace": "tangent space",
    "csplda": "CSP + LDA",
    "xdawn": "xDAWN",
    "windowlda": "window LDA",
    "stacked": "all, weighed in each fold",
}
CONDITION_METRICS = {
    "auc": "AUC",
    "roc_auc": "AUC",
    "accuracy": "Accuracy",
    "balanced_accuracy": "Balanced accuracy",
}


def condition_metric(name: str) -> str:
    """Name a metric of conditions."""
    return CONDITION_METRICS.get(name, words(name))


def condition_method(name: str) -> str:
    """Name a classifier."""
    return METHODS.get(name.replace("_", "").lower(), name.replace("_", " "))


def condition_name(score: ConditionScore) -> str:
    """Name a row in a figure, in two lines."""
    left_out = f"leaving {plural(score.left_out)} out" if score.left_out else ""
    if score.leaks:
        left_out = f"random trials, {plural(score.left_out)} on both sides"
    window = f"alarm, {score.window}" if score.before_stimulus else score.window
    return condition_method(score.method) + "\n" + ", ".join(filter(None, [window, left_out]))


def plural(group: str) -> str:
    """Write what is left out in the plural."""
    return {"person": "people", "subject": "people", "": "groups"}.get(group, f"{group}s")


def contrasts(scores: Sequence[ConditionScore]) -> list[tuple[str, str]]:
    """List what was told apart and by which metric, in order of appearance."""
    return list(dict.fromkeys((score.contrast, score.metric) for score in scores))


def alarm_texts(timing: TimeResolved | None, scores: Sequence[ConditionScore]) -> list[str]:
    """Say for every alarm that rings what was decoded before there was anything to see."""
    texts = [
        f"{alarm.what}: {alarm.detail}".rstrip(": ")
        for alarm in (timing.alarms if timing else ())
        if alarm.rings
    ]
    for score in scores:
        if score.rings:
            when = f" ({score.window})" if score.window else ""
            texts.append(
                f"{score.contrast}, {condition_method(score.method)}{when}: "
                f"{condition_metric(score.metric)} {score.value:.2f}, "
                f"interval from {score.low:.2f}, chance {score.chance:.2f}"
            )
    return texts


def alarm_warning(timing: TimeResolved | None, scores: Sequence[ConditionScore]) -> str:
    """Say in one warning that something is decoded from before the stimulus; empty where not."""
    texts = alarm_texts(timing, scores)
    if not texts:
        return ""
    shown = "; ".join(texts[:4]) + (f"; and {len(texts) - 4} more" if len(texts) > 4 else "")
    return (
        "The pre-stimulus alarm rings: something is decoded before the stimulus can have reached "
        f"the brain. {shown}. What follows may not come from the stimulus: check the order of "
        "trials, what precedes a trial, filters that smear backwards, and the baseline."
    )


def recording_warnings(report: SubjectReport) -> list[str]:
    """Return what must be said of recordings and decoding over time before any score is read."""
    alarm = alarm_warning(report.timing, report.conditions)
    return [*([alarm] if alarm else []), *_quality_warnings(report.recordings)]


def _quality_warnings(recordings: Recordings | None) -> list[str]:
    if recordings is None:
        return []
    warnings = []
    n_channels = len(recordings.sensors.names) if recordings.sensors else 0
    for what, names in (
        (
            "of the channels are bad",
            [
                r.name
                for r in recordings.runs
                if len(r.bad_channels) > MANY_BAD_CHANNELS * n_channels
            ]
            if n_channels
            else [],
        ),
        (
            "of the recording is bad",
            [r.name for r in recordings.runs if r.bad_share > MANY_BAD_SEGMENTS],
        ),
    ):
        if names:
            share = MANY_BAD_CHANNELS if "channels" in what else MANY_BAD_SEGMENTS
            listed = ", ".join(names[:4]) + (" and others" if len(names) > 4 else "")
            noun = "one run" if len(names) == 1 else f"{len(names)} runs"
            warnings.append(f"More than {100 * share:.0f} % {what} in {noun} ({listed}).")
    return warnings


def recording_findings(report: SubjectReport) -> list[Finding]:
    """Judge recordings and decoding of conditions."""
    findings = _quality_findings(report.recordings)
    alarms = [alarm.rings for alarm in (report.timing.alarms if report.timing else ())]
    alarms += [score.rings for score in report.conditions if score.before_stimulus]
    if alarms:
        n = sum(alarms)
        findings.append(
            Finding(
                "Is nothing decoded before the stimulus?",
                "no" if n else "yes",
                "The alarm rings" if n else "Nothing",
                f"{n} of {len(alarms)} scores from before the stimulus "
                f"{'is' if n == 1 else 'are'} above chance.",
            )
        )
    return [*findings, *condition_findings(report.conditions)]


def group_findings(scores: Sequence[ConditionScore]) -> dict[str, list[Finding]]:
    """Judge each contrast by AUC: people left out, before the stimulus, and what the leak is worth.

    All three speak of one classifier, fixed before any score is read: the first that was also run
    before the stimulus and on trials drawn at random; the score is that of the classifier chosen in
    each fold where one was chosen.
    """
    auc = [score for score in scores if score.metric == "auc"]
    told: dict[str, list[Finding]] = {}
    for contrast, _ in contrasts(auc):
        own = [score for score in auc if score.contrast == contrast]
        findings = told[contrast] = condition_findings(own)
        alarm = next((score for score in own if score.before_stimulus), None)
        if alarm is not None:
            findings.append(_alarm_finding(alarm))
        leak = next((score for score in own if score.leaks), None)
        honest = next(
            (
                s
                for s in own
                if leak and s.method == leak.method and not (s.leaks or s.before_stimulus)
            ),
            None,
        )
        if leak is not None and honest is not None:
            findings.append(_leak_finding(leak, honest))
    return told


def _alarm_finding(alarm: ConditionScore) -> Finding:
    return Finding(
        "Before the stimulus can matter?",
        "no" if alarm.rings else "yes",
        "The alarm rings" if alarm.rings else "Quiet",
        f"AUC {alarm.value:.2f} ({alarm.low or 0:.2f} to {alarm.high or 1:.2f}) from {alarm.window} "
        f"with {condition_method(alarm.method)}"
        + (": part of the score is no answer to the stimulus." if alarm.rings else "."),
    )


def _leak_finding(leak: ConditionScore, honest: ConditionScore) -> Finding:
    worth = leak.value - honest.value
    apart = leak.low is not None and honest.high is not None and leak.low > honest.high
    group = plural(leak.left_out)
    return Finding(
        f"What is the leak of {group} worth?",
        "partly" if apart else "yes",
        f"{worth:+.2f}".replace("-", "−"),
        f"With trials drawn at random, the same {group} on both sides, "
        f"{condition_method(leak.method)} would claim {leak.value:.2f}; with {group} left out it is "
        f"{honest.value:.2f} ({honest.low or 0:.2f} to {honest.high or 1:.2f})"
        + (": that claim is of people, not of the condition." if apart else "."),
    )


def condition_findings(scores: Sequence[ConditionScore]) -> list[Finding]:
    """Judge each contrast by its first classifier: fixed before any score is read."""
    findings = []
    for contrast, name in contrasts(scores):
        real = [
            s
            for s in scores
            if (s.contrast, s.metric) == (contrast, name) and not (s.before_stimulus or s.leaks)
        ]
        if not real:
            continue
        score = real[0]
        known = score.low is not None and score.chance is not None
        edge = score.chance_high if score.chance_high is not None else score.chance
        above = known and (score.low or 0) > (edge or 0)
        state = "unknown" if not known else "yes" if above else (
            "partly" if score.value > (edge or 0) else "no"
        )  # fmt: skip
        answer = {"yes": "Yes", "partly": "Not clearly", "no": "No", "unknown": "Not known"}[state]
        interval = f" (95 % interval {score.low:.2f} to {score.high:.2f})" if known else ""
        chance = f"; chance is {score.chance:.2f}" if score.chance is not None else ""
        out = f", leaving {plural(score.left_out)} out" if score.left_out else ""
        findings.append(
            Finding(
                f"Can it be told: {contrast}?",
                state,
                answer,
                f"{condition_metric(name)} {score.value:.2f}{interval} with "
                f"{condition_method(score.method)}{out}{chance}.",
            )
        )
    return findings


def _quality_findings(recordings: Recordings | None) -> list[Finding]:
    runs = recordings.runs if recordings else ()
    if recordings is None or not runs:
        return []
    n_channels = len(recordings.sensors.names) if recordings.sensors else 0
    bad = float(np.mean([len(run.bad_channels) for run in runs]))
    length = np.array([run.duration_s for run in runs])
    shares = np.array([run.bad_share for run in runs])
    known = np.isfinite(length) & (length > 0)
    weights = length[known] if known.any() else None
    lost = float(np.average(shares[known] if known.any() else shares, weights=weights))
    share = bad / n_channels if n_channels else 0.0
    state = (
        "yes"
        if share <= 0.1 and lost <= 0.1
        else "partly"
        if share <= 0.2 and lost <= 0.3
        else "no"
    )
    of = f" of {n_channels}" if n_channels else ""
    return [
        Finding(
            "Was the recording clean?",
            state,
            {"yes": "Yes", "partly": "Mostly", "no": "No"}[state],
            f"On average {bad:.1f}{of} channels of a run are bad, and {100 * lost:.1f} % of the "
            "time is. Up to a tenth of either is usual.",
        )
    ]


def peak_texts(timing: TimeResolved | None) -> list[str]:
    """Say where each sliding curve peaks."""
    texts = []
    for curve in timing.curves if timing else ():
        if curve.kind == "sliding" and curve.peak_s is not None:
            at, low, high = (f"{1000 * value:.0f}".replace("-", "−") for value in curve.peak_s)
            known = np.isfinite(curve.peak_s[1:]).all()
            between = f" ({low} to {high} ms)" if known else ""
            texts.append(f"{inline(metric(curve.metric).title)} peaks at {at} ms{between}")
    return texts
