"""The verdict in plain words: above chance, above the baselines, how far from the ceiling.

The row it speaks of is fixed beforehand (the last method that ran), never the best one.
"""

from __future__ import annotations

from collections.abc import Sequence

from afterimage.reports.connectivity_tables import findings as connectivity_findings
from afterimage.reports.labels import (
    Metric,
    as_number,
    decoders_of,
    find,
    inline,
    is_shuffled,
    label_title,
    main_metrics,
    metric,
    metric_order,
    pipeline_rank,
)
from afterimage.reports.model import Row, SubjectReport
from afterimage.reports.page import Finding, Verdict
from afterimage.reports.scan_words import response_findings, scan_warnings
from afterimage.reports.time_words import (
    condition_findings,
    recording_findings,
    recording_warnings,
)


def headline(report: SubjectReport) -> Row | None:
    """Choose the row the verdict speaks of, without looking at any value."""
    rows = [row for row in report.metrics if row.get("role") == "reconstruction"]
    rows = [row for row in rows if as_number(row.get("value")) is not None]
    if not rows:
        return None
    label = report.headline_label or str(max(rows, key=pipeline_rank)["label"])
    names = metric_order(str(row["metric"]) for row in rows if row["label"] == label)
    wanted = [report.headline_metric, "twoway_clip"]
    main = main_metrics(names)
    wanted += [name for name in main if name.startswith("twoway")] + ["pixcorr", *names]
    found = (find(rows, label, name) for name in wanted if name)
    return next((row for row in found if row is not None), None)


def judge(report: SubjectReport) -> Verdict:
    """Write the verdict of one subject."""
    warnings = tuple(_warnings(report))
    failed = [run.name for run in report.stages if run.status == "failed"]
    failed = failed or [error.stage for error in report.errors if not error.partial]
    row = headline(report)
    if row is None and failed:
        return Verdict(
            f"This subject has no result: the stage {failed[0]} failed.",
            "no",
            _failure(report),
            warnings=warnings,
        )
    if row is None and report.without_pictures:
        return _without_pictures(report, warnings)
    if row is None:
        why = f" ({report.unscored})" if report.unscored else ""
        return Verdict(
            f"Not scored{why}.",
            "unknown",
            "There is nothing to compare the images with, so nothing is claimed about them.",
            warnings=warnings,
        )
    described = metric(str(row["metric"]))
    title = label_title(str(row["label"]), decoders_of(report.metrics))
    findings = [
        _chance(row, described, title),
        _baselines(row, described, report.metrics),
        _ceiling(row, described),
    ]
    oracle = _oracle(row, report)
    if oracle:
        findings.append(oracle)
    findings += recording_findings(report)
    states = [finding.state for finding in findings[:2]]
    state = "yes" if set(states) <= {"yes"} else "no" if states[0] == "no" else "partly"
    near = len(report.audit.near_duplicates) if report.audit else 0
    if any(not check.get("ok") for check in (report.audit.leak_linter if report.audit else ())):
        state = "no"
    elif state == "yes" and len(warnings) > (near > 0):
        state = "partly"
    if failed:
        warnings = (f"The stage {failed[0]} failed: some results are missing.", *warnings)
    n = as_number(row.get("n"))
    of = f" over {n:.0f} test images" if n else ""
    basis = (
        f"Judged on {title}, {inline(described.title)}{of}: the last method of the pipeline, "
        "fixed before any score is read. The other methods and metrics are under Scores."
    )
    return Verdict(_sentence(findings), state, basis, tuple(findings), warnings)


def _without_pictures(report: SubjectReport, warnings: tuple[str, ...]) -> Verdict:
    """Judge responses, and conditions told apart by them, where there was nothing to reconstruct."""
    told = condition_findings(report.conditions)
    connected = connectivity_findings(report)
    if report.connectivity and report.responses is None and not told:
        return Verdict(
            "Nothing was shown in these recordings, so there is connectivity and no decoding.",
            connected[0].state if connected and not warnings else "unknown",
            "Judged by the length of the recordings only: what connectivity is worth, the report of "
            "the group says.",
            (*connected, *recording_findings(report)),
            warnings,
        )
    sentence, state = "This dataset has no pictures, so nothing was reconstructed.", "unknown"
    basis = (
        "The scans and the responses to each trial are described below; they can be decoded "
        "by category from the file of trials."
    )
    if told:
        state = told[0].state
        end = {
            "yes": "the conditions can be told apart",
            "partly": "the conditions can perhaps be told apart",
            "no": "the conditions cannot be told apart",
            "unknown": "chance is not known for the decoding of conditions",
        }[state]
        sentence = f"This dataset has no pictures, so nothing was reconstructed; {end}."
        basis = (
            "Judged on the first contrast and classifier, fixed before any score is read. The "
            "others are under Decoding."
        )
    elif report.condition_notes:
        basis = f"Nothing was told apart in this subject alone: {report.condition_notes[-1]}."
    elif report.recordings is not None:
        basis = "The recordings and the responses to each trial are described below."
    if warnings and state in ("yes", "unknown"):
        state = "partly"
    findings = (*response_findings(report), *recording_findings(report))
    return Verdict(sentence, state, basis, findings, warnings)


def _failure(report: SubjectReport) -> str:
    rest = "The sections below show what was finished before; the whole message is under Errors."
    if not report.errors:
        return rest
    return f"{report.errors[0].message.partition(chr(10))[0].rstrip('.')}. {rest}"


def _sentence(findings: Sequence[Finding]) -> str:
    above, baselines = findings[0].state, findings[1].state
    start = {
        "yes": "The reconstructions are above chance",
        "partly": "The reconstructions are probably above chance",
        "no": "The reconstructions are not above chance",
        "unknown": "Chance is not known for these reconstructions",
    }[above]
    end = {
        "yes": "above every baseline",
        "partly": "not clearly above the best baseline",
        "no": "not above the best baseline",
        "unknown": "no baseline was scored",
    }[baselines]
    joint = " and " if above == baselines == "yes" else ", but " if above == "yes" else ", and "
    return f"{start}{joint}{end}."


def _better(a: float, b: float, described: Metric) -> bool:
    return a < b if described.lower_is_better else a > b


def _compare(row: Row, other: tuple[float, float, float], described: Metric) -> str:
    """Compare a row with (value, low, high): yes needs intervals that do not overlap."""
    value = as_number(row["value"])
    low, high = as_number(row.get("ci_low")), as_number(row.get("ci_high"))
    if value is None:
        return "unknown"
    worst_own = high if described.lower_is_better else low
    best_other = other[1] if described.lower_is_better else other[2]
    if worst_own is not None and _better(worst_own, best_other, described):
        return "yes"
    return "partly" if _better(value, best_other, described) else "no"


def _with_interval(row: Row, described: Metric) -> str:
    text = described.write(row["value"])
    interval = described.interval(row.get("ci_low"), row.get("ci_high"))
    return text if interval == "–" else f"{text} (95 % interval {interval})"


def _chance(row: Row, described: Metric, title: str) -> Finding:
    question = "Above chance?"
    chance = as_number(row.get("chance"))
    if chance is None:
        return Finding(question, "unknown", "Not known", "This row has no chance level.")
    low, high = as_number(row.get("chance_low")), as_number(row.get("chance_high"))
    band = (chance, low if low is not None else chance, high if high is not None else chance)
    state = _compare(row, band, described)
    interval = described.interval(low, high)
    around = "" if interval == "–" else f", {interval}"
    answer = {"yes": "Yes", "partly": "Probably", "no": "No"}[state]
    detail = (
        f"{title} reaches {_with_interval(row, described)}; with images and brains paired "
        f"at random it would be {described.write(chance)}{around}."
    )
    return Finding(question, state, answer, detail)


def _baselines(row: Row, described: Metric, rows: Sequence[Row]) -> Finding:
    question = "Above the baselines?"
    others = []
    for other in rows:
        value = as_number(other.get("value"))
        same = other.get("metric") == row["metric"] and other.get("role") in ("baseline", "audit")
        if same and value is not None and other.get("label") != "clusterOracle":
            others.append((value, other))
    if not others:
        return Finding(question, "unknown", "Not known", "No baseline row has this metric.")
    pick = min if described.lower_is_better else max
    value, best = pick(others, key=lambda pair: pair[0])
    low, high = as_number(best.get("ci_low")), as_number(best.get("ci_high"))
    band = (value, value if low is None else low, value if high is None else high)
    state = _compare(row, band, described)
    if state == "no" and _better(float(row["value"]), value, described):
        state = "partly"
    answer = {"yes": "Yes", "partly": "Not clearly", "no": "No"}[state]
    name = inline(label_title(str(best["label"])))
    overlap = {
        "yes": "the intervals do not overlap",
        "partly": "the intervals overlap",
        "no": "the reconstruction is no better",
    }[state]
    reached = _with_interval(best, described)
    detail = f"The strongest of {len(others)} baselines, {name}, reaches {reached}; {overlap}."
    return Finding(question, state, answer, detail)


def _ceiling(row: Row, described: Metric) -> Finding:
    question = "How far from the ceiling?"
    ceiling, value = as_number(row.get("ceiling")), as_number(row["value"])
    chance = as_number(row.get("chance"))
    if ceiling is None or value is None:
        return Finding(question, "unknown", "Not known", "This row has no ceiling.")
    detail = f"The generator fed the true features reaches {described.write(ceiling)}"
    if chance is None or not _better(ceiling, chance, described):
        return Finding(question, "unknown", "Not known", f"{detail}, which is not above chance.")
    share = (value - chance) / (ceiling - chance)
    state = "yes" if share >= 0.9 else "partly" if share >= 0.5 else "no"
    detail += (
        ": a decoder without any error would score that, not 100 %." if described.percent else "."
    )
    answer = f"{100 * max(share, 0):.0f} % of the way from chance"
    return Finding(question, state, answer, detail)


def _oracle(row: Row, report: SubjectReport) -> Finding | None:
    """Say whether knowing only the cluster of the seen image would do as well."""
    oracle = find(report.metrics, "clusterOracle", str(row["metric"]))
    expected = as_number(oracle["value"]) if oracle else None
    audit = report.audit.cluster_oracle if report.audit else None
    if expected is None and audit and str(row["metric"]).startswith("twoway"):
        expected = as_number(audit.get("expected_twoway"))
    value = as_number(row["value"])
    if expected is None or value is None:
        return None
    described = metric(str(row["metric"]))
    k = f" among {audit['k']}" if audit and "k" in audit else ""
    more = _compare(row, (expected, expected, expected), described) == "yes"
    detail = (
        f"Knowing only the cluster of the seen image{k} would already give "
        f"{described.write(expected)}. "
        + (
            "The reconstructions say more than that."
            if more
            else "This score alone does not show more than the kind of picture; see retrieval."
        )
    )
    return Finding(
        "More than the category?",
        "yes" if more else "partly",
        "Yes" if more else "Not shown",
        detail,
    )


def _warnings(report: SubjectReport) -> list[str]:
    warnings = []
    for run in report.stages:
        if run.stale:
            warnings.append(
                f"Stale: the output of {run.name} is {run.stale}. Run again before use."
            )
    warnings += scan_warnings(report.scans) + recording_warnings(report)
    if report.audit is None:
        return warnings
    for check in report.audit.leak_linter:
        if not check.get("ok"):
            warnings.append(
                f"The leak linter failed: {check.get('check')}. Do not use these scores."
            )
    pairs = len(report.audit.near_duplicates)
    if pairs:
        noun = "test image is" if pairs == 1 else "test images are"
        warnings.append(f"{pairs} {noun} nearly the same as a training image; see Audit.")
    told = main_metrics(str(row.get("metric")) for row in report.metrics)
    for row in report.metrics:
        label = str(row.get("label", ""))
        described = metric(str(row.get("metric")))
        # Of dozens of regions, some shuffled ones are above chance by chance.
        if described.name.startswith("encoding") and described.name not in told:
            continue
        low, high = as_number(row.get("chance_low")), as_number(row.get("chance_high"))
        if not is_shuffled(label) or low is None or high is None:
            continue
        own = as_number(row.get("ci_high" if described.lower_is_better else "ci_low"))
        edge = low if described.lower_is_better else high
        if own is not None and _better(own, edge, described):
            warnings.append(
                f"{label_title(label)} is above chance in {inline(described.title)} "
                f"({described.write(row.get('value'))}): information leaks past the brain."
            )
    return warnings


def method_effect(report: SubjectReport) -> list[str]:
    """Say what the diffusion step makes better or worse than the image it starts from."""
    rows = [row for row in report.metrics if row.get("role") == "reconstruction"]
    order = metric_order(str(row.get("metric")) for row in rows)
    main = main_metrics(order)
    decoders = decoders_of(rows)
    sentences = []
    for row in sorted(rows, key=lambda r: order.index(str(r.get("metric")))):
        if str(row.get("method")) != "latent_diffusion" or row.get("metric") not in main:
            continue
        start = next(
            (
                other
                for other in rows
                if other.get("method") == "low_level"
                and other.get("decoder") == row.get("decoder")
                and other.get("metric") == row.get("metric")
            ),
            None,
        )
        before = as_number(start["value"]) if start else None
        after = as_number(row["value"])
        if before is None or after is None:
            continue
        described = metric(str(row["metric"]))
        change = "better" if _better(after, before, described) else "worse"
        if described.write(before) == described.write(after):
            change = "the same"
        whose = f" ({row.get('decoder')})" if len(decoders) > 1 else ""
        sentences.append(
            f"{described.title}{whose}: {change}, "
            f"{described.write(before)} → {described.write(after)}"
        )
    return sentences
