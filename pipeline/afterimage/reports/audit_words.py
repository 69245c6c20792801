"""The audit in words for a reviewer: what was checked, why, what was found, and a verdict.

The checks are those that spurious reconstructions fail (Shirakawa et al. 2025, arXiv:2405.10078). Their
limits are fixed here, before any score is read, and the row they speak of is that of the verdict.
"""

from __future__ import annotations

from collections.abc import Sequence

from afterimage.reports.labels import (
    Metric,
    as_number,
    find,
    inline,
    label_title,
    main_metrics,
    metric,
)
from afterimage.reports.model import Row, SubjectReport
from afterimage.reports.page import Check

STATES = {"pass": "Pass", "warn": "Not shown", "fail": "Fail", "not run": "Not run"}
CONTROLS = ("shuffledbrain", "meanbrain", "noisebrain")


def audit_checks(report: SubjectReport, headline: Row | None) -> list[Check]:
    """Return the six checks, in a fixed order.

    Parameters
    ----------
    report : SubjectReport
        With its audit and its rows.
    headline : Row or None
        The row that the verdict speaks of.
    """
    return [
        _wrong_brains(report, headline),
        _cluster_oracle(report, headline),
        _training_pictures(report, headline),
        _held_out(report, headline),
        _generator(report, headline),
        _linter(report),
    ]


def overall(checks: Sequence[Check]) -> tuple[str, str]:
    """Return the state of the whole audit and its sentence."""
    failed = [check.title for check in checks if check.state == "fail"]
    weak = [check.title for check in checks if check.state == "warn"]
    absent = [check.title for check in checks if check.state == "not run"]
    if failed:
        return "fail", f"Do not use these scores: {_listed(failed)} failed."
    told = "No check failed"
    if weak:
        told += f"; {_listed(weak)} could not rule out a simpler explanation"
    if absent:
        told += f"; {_listed(absent)} was not run"
    return ("warn" if weak or absent else "pass"), f"{told}."


def _listed(names: Sequence[str]) -> str:
    names = [f"“{name}”" for name in names]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _better(a: float, b: float, described: Metric) -> bool:
    return a < b if described.lower_is_better else a > b


def _written(row: Row, described: Metric) -> str:
    interval = described.interval(row.get("ci_low"), row.get("ci_high"))
    return described.write(row.get("value")) + ("" if interval == "–" else f" ({interval})")


def _worst(row: Row, described: Metric) -> float | None:
    """Return the end of the interval that is nearer to chance."""
    return as_number(row.get("ci_high" if described.lower_is_better else "ci_low"))


def _above_chance(row: Row, described: Metric) -> bool:
    edge = as_number(row.get("chance_low" if described.lower_is_better else "chance_high"))
    own = _worst(row, described)
    return edge is not None and own is not None and _better(own, edge, described)


def _wrong_brains(report: SubjectReport, headline: Row | None) -> Check:
    title = "Wrong brains through the same generator"
    checked = (
        "Responses shuffled over test pictures, the mean training response, and noise without any brain "
        "went through the same decoder and the same generator, and were scored like the real ones."
    )
    why = (
        "A good generator makes good pictures from anything. If a wrong brain scores above chance, the "
        "score rewards the generator, or information reaches it past the brain."
    )
    controls = [
        row for row in report.metrics
        if row.get("role") == "audit" and any(c in str(row.get("label")).lower() for c in CONTROLS)
    ]  # fmt: skip
    if not controls or headline is None:
        return Check("wrong_brains", title, checked, why, ("There are no such rows.",), "not run",
                     STATES["not run"])  # fmt: skip
    told = main_metrics(str(row["metric"]) for row in controls)
    leaking = [
        f"{label_title(str(row['label']))} is above chance in {inline(described.title)}: "
        f"{_written(row, described)}."
        for row in controls
        if "shuffledbrain" in str(row["label"]).lower()
        and row["metric"] in told
        and _above_chance(row, described := metric(str(row["metric"])))
    ]
    found = []
    name = str(headline["metric"])
    described = metric(name)
    real, chance = as_number(headline["value"]), as_number(headline.get("chance"))
    shown = [row for row in controls if row["metric"] == name]
    shown = [
        row for row in shown if str(row.get("method")) == str(headline.get("method"))
    ] or shown
    for row in shown:
        found.append(
            f"{label_title(str(row['label']))}: {inline(described.title)} {_written(row, described)}"
            f"; the reconstructions reach {described.write(real)}, chance is {described.write(chance)}."
        )
    own = _worst(headline, described)
    reached = [
        row for row in shown
        if own is None or (value := as_number(row["value"])) is None
        or not _better(own, value, described)
    ]  # fmt: skip
    if leaking:
        return Check(
            "wrong_brains", title, checked, why, (*leaking, *found), "fail", STATES["fail"]
        )
    if reached:
        names = ", ".join(inline(label_title(str(row["label"]))) for row in reached)
        found.insert(0, f"The interval of the reconstructions is not clear of {names}.")
        return Check("wrong_brains", title, checked, why, tuple(found), "warn", STATES["warn"])
    return Check("wrong_brains", title, checked, why, tuple(found), "pass", STATES["pass"])


def _cluster_oracle(report: SubjectReport, headline: Row | None) -> Check:
    title = "More than the kind of picture"
    checked = (
        "An oracle was told which cluster the seen picture belongs to, and nothing else; and the "
        "reconstructions were compared with pictures of their own cluster only."
    )
    why = (
        "Knowing one of K equal clusters wins 1 - 1/(2K) of all two-way comparisons: 95 % with ten. Such "
        "a score needs no detail of the picture."
    )
    oracle = report.audit.cluster_oracle if report.audit else None
    if not oracle or headline is None:
        return Check("cluster_oracle", title, checked, why, ("There was no oracle.",), "not run",
                     STATES["not run"])  # fmt: skip
    found = [
        f"With {oracle.get('k')} clusters the formula gives "
        f"{100 * float(oracle.get('expected_twoway', float('nan'))):.1f} %, and the oracle's features score "
        f"{100 * float(oracle.get('measured_twoway', oracle.get('expected_twoway', 0))):.1f} %."
    ]
    name = str(headline["metric"])
    described = metric(name)
    label = str(headline["label"])
    state = "warn"
    told = find(report.metrics, "clusterOracle", name)
    value, own = as_number(told["value"]) if told else None, _worst(headline, described)
    if told and value is not None and own is not None:
        more = _better(own, value, described)
        found.append(
            f"In {inline(described.title)} the reconstructions reach {_written(headline, described)}, "
            f"the mean picture of the true cluster {described.write(value)}."
        )
        state = "pass" if more else state
    within = [
        row for row in report.metrics
        if row.get("label") == label and str(row["metric"]).startswith("twoway_within_cluster")
    ]  # fmt: skip
    for row in within:
        inside = metric(str(row["metric"]))
        found.append(
            f"{inside.title}: {_written(row, inside)} over {as_number(row.get('n')) or 0:.0f} "
            "pictures; 50 % would be no detail."
        )
    if any(_above_chance(row, metric(str(row["metric"]))) for row in within[:1]):
        state = "pass"
    return Check("cluster_oracle", title, checked, why, tuple(found), state, STATES[state])


def _training_pictures(report: SubjectReport, headline: Row | None) -> Check:
    title = "Not recalled from training"
    checked = (
        "The training picture that the decoder finds most likely was scored as if it were a "
        "reconstruction, and every test picture was compared with all training pictures for copies."
    )
    why = (
        "A generator can score well by returning a picture of its training set; and a test picture that "
        "is nearly a training picture tests memory."
    )
    if report.audit is None or headline is None:
        return Check("training_pictures", title, checked, why, ("Not compared.",), "not run",
                     STATES["not run"])  # fmt: skip
    found, state = [], "pass"
    name = str(headline["metric"])
    described = metric(name)
    own = _worst(headline, described)
    nearest = [
        row for row in report.metrics
        if "nearesttrainingimage" in str(row.get("label")).lower() and row["metric"] == name
        and str(row.get("decoder") or "") in ("", str(headline.get("decoder") or ""))
    ]  # fmt: skip
    for row in nearest:
        value = as_number(row["value"])
        clear = own is not None and value is not None and _better(own, value, described)
        state = state if clear else "warn"
        found.append(
            f"{label_title(str(row['label']))}: {inline(described.title)} {_written(row, described)}, "
            f"the reconstructions {_written(headline, described)}"
            + ("." if clear else ": no better than picking a known picture.")
        )
    pairs = report.audit.near_duplicates
    if pairs:
        without = report.audit.without_duplicates.get(str(headline["label"]), {}).get(name)
        kept = "" if without is None else (
            f" Without them the score is {described.write(without)} instead of "
            f"{described.write(headline['value'])}."
        )  # fmt: skip
        found.insert(
            0,
            f"{len(pairs)} test picture{'s are' if len(pairs) > 1 else ' is'} nearly a training "
            f"picture ({report.audit.near_duplicate_rule}).{kept}",
        )
        state = "warn"
    else:
        found.append(
            f"No test picture is nearly a training picture ({report.audit.near_duplicate_rule})."
        )
    return Check("training_pictures", title, checked, why, tuple(found), state, STATES[state])


def _held_out(report: SubjectReport, headline: Row | None) -> Check:
    title = "Kinds of picture never seen in training"
    checked = (
        "Whether the test pictures are of clusters or categories of which none was in training."
    )
    why = (
        "Test pictures drawn at random have near relatives in training. A decoder that only tells kinds "
        "apart then looks as if it generalised; on a new kind of picture it would fail."
    )
    facts = report.audit.split if report.audit else {}
    kind = str(facts.get("held_out", "stimuli"))
    if kind == "stimuli":
        found = (
            "The split is by picture: test pictures are of the kinds that training pictures are of. These "
            "scores say nothing of new kinds.",
            "To test it, run once more into another folder with held_out: {kind: clusters} in the section "
            "that makes the trials (prepare_responses, fit_responses or epoch_meeg).",
        )
        return Check("held_out", title, checked, why, found, "not run", STATES["not run"])
    crossing = int(facts.get("n_crossing", 0))
    told: tuple[str, ...] = (
        f"{facts.get('n_test_groups')} of {facts.get('n_groups')} {kind} are the test set, and "
        + (f"{crossing} of them are in training too." if crossing else "no picture of them was in training."),
    )  # fmt: skip
    state = "fail" if crossing else "pass"
    if headline is not None:
        described = metric(str(headline["metric"]))
        above = _above_chance(headline, described)
        state = state if above or crossing else "warn"
        told += (
            f"On these new {kind} {inline(described.title)} is {_written(headline, described)}, chance "
            f"{described.write(headline.get('chance'))}"
            + (": what was learned holds for them." if above else ": not above chance."),
        )
    return Check("held_out", title, checked, why, told, state, STATES[state])


def _generator(report: SubjectReport, headline: Row | None) -> Check:
    title = "The generator can show what is decoded"
    checked = (
        "The true features of the test pictures went through the same generator (recovery check)."
    )
    why = (
        "If a generator cannot return a picture from its own true features, its output says little of what "
        "a brain held. And no decoder can honestly score above this ceiling."
    )
    ceiling = as_number(headline.get("ceiling")) if headline else None
    if headline is None or ceiling is None:
        return Check("generator", title, checked, why, ("There is no ceiling.",), "not run",
                     STATES["not run"])  # fmt: skip
    name = str(headline["metric"])
    described = metric(name)
    rows = [
        row for row in report.metrics
        if row.get("role") == "ceiling" and row["metric"] == name
        and str(row.get("method")) == str(headline.get("method"))
    ]  # fmt: skip
    found = [
        f"From true features {inline(described.title)} is "
        f"{_written(rows[0], described) if rows else described.write(ceiling)}, from the brain "
        f"{_written(headline, described)}."
    ]
    state = "pass"
    if rows and not _above_chance(rows[0], described):
        state = "warn"
        found.append(
            "The ceiling itself is not above chance: this generator cannot show these pictures."
        )
    own = _worst(headline, described)
    top = (
        as_number(rows[0].get("ci_low" if described.lower_is_better else "ci_high"))
        if rows
        else None
    )
    if own is not None and top is not None and _better(own, top, described):
        state = "warn"
        found.append("The brain scores above the true features, which needs an explanation.")
    return Check("generator", title, checked, why, tuple(found), state, STATES[state])


def _linter(report: SubjectReport) -> Check:
    title = "No leak"
    checked = (
        "That no stimulus is in two splits and its repeats stay together, that every fit used training "
        "stimuli only, that no picture is in two splits under two names, that nothing which made or chose "
        "reconstructions was given the test pictures, and that no scale was taken from the test set."
    )
    why = "Each of these has made published scores too good."
    checks = report.audit.leak_linter if report.audit else ()
    if not checks:
        return Check("linter", title, checked, why, ("The linter did not run.",), "not run",
                     STATES["not run"])  # fmt: skip
    failed = [check for check in checks if not check.get("ok")]
    found = tuple(
        f"{'Passed' if check.get('ok') else 'FAILED'}: {check.get('check')}"
        + (f" ({check.get('detail')})." if check.get("detail") else ".")
        for check in [*failed, *(c for c in checks if c.get("ok"))]
    )
    state = "fail" if failed else "pass"
    return Check("linter", title, checked, why, found, state, STATES[state])
