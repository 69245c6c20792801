"""What the group report says of masked models: what they fill in, and whether that is worth it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from afterimage.reports.labels import as_number, p_text
from afterimage.reports.page import Cell, Column, Finding, Table
from afterimage.reports.pretraining import PretrainedModel
from afterimage.reports.tables import number_cell


def pretext_finding(model: PretrainedModel) -> Finding:
    """Say whether a model fills in better than anyone could without it."""
    known = {str(row["predictor"]): row for row in model.pretext}
    question = f"Did {model.name} learn what it was trained for?"
    if "gain" in known:
        gain, low = (as_number(known["gain"].get(key)) for key in ("value", "ci_low"))
        beaten = low is not None and low > 0
        rivals = "the windows around, and the mean graphs of people and of the recording"
        return Finding(
            question,
            "yes" if beaten else "no",
            f"It fills windows in better than {rivals}." if beaten
            else f"It fills windows in no better than {rivals}.",
            f"gain {_number(gain)} in AUC, 95 % interval from {_number(low)}",
        )  # fmt: skip
    value, ridge = (as_number(known[key].get("value")) for key in ("model", "ridge"))
    copied = as_number(known["copy"].get("value"))
    state, answer = "no", "It fills in no better than the mean of a recording."
    if value is not None and value > 0:
        state, answer = "partly", "It fills in less well than a linear model."
        if ridge is not None and value > ridge:
            state, answer = "yes", "It fills in better than a linear model."
        elif ridge is not None and value >= 0.9 * ridge:
            state, answer = "yes", "It fills in as well as a linear model, or nearly so."
    detail = f"R2 {_number(value)}; ridge {_number(ridge)}, interpolation {_number(copied)}"
    return Finding(question, state, answer, detail)


def probe_findings(model: PretrainedModel) -> list[Finding]:
    """Say of each label whether the pretrained network beats linear models of connectivity."""
    findings = []
    for label, found in model.details.items():
        of_label = {str(r["features"]): r for r in model.probes if r["label"] == label}
        best = max(found["differences"].items(), key=lambda item: item[1][0])
        name, (difference, low, high) = best
        rival = of_label[found["rival"]]
        p = as_number(of_label[name].get("p"))
        above = p is not None and p < 0.05
        if low > 0 and above:
            state, answer = "yes", f"Yes: {name}, it beats {found['rival']} with a linear model."
        elif above:
            state = "partly"
            answer = (
                f"No: {name}, it tells the label, but no better than {found['rival']} with a "
                "linear model."
            )
        else:
            state, answer = "no", "No: it does not tell the label."
        untrained = as_number(of_label["untrained"].get("value"))
        detail = (
            f"{_number(of_label[name].get('value'))} {name} (p = {p_text(p)}), "
            f"{_number(rival.get('value'))} {found['rival']}, {_number(untrained)} untrained; "
            f"difference {difference:+.3f} [{low:+.3f}, {high:+.3f}]"
        ).replace("-", "−")
        question = f"Does {model.name} tell {label} better than connectivity?"
        findings.append(Finding(question, state, answer, detail))
    return findings


def _number(value: Any) -> str:
    number = as_number(value)
    return "–" if number is None else f"{number:.3f}".replace("-", "−")


def probe_table(models: Sequence[PretrainedModel]) -> Table | None:
    """Tabulate all probes with chance, interval and p; None where nothing was asked."""
    rows = [
        (
            Cell(str(row["model"])),
            Cell(str(row["label"])),
            Cell(str(row["features"]), kind="name"),
            number_cell(_number(row.get("value")), row.get("value"), "strong"),
            number_cell(
                f"{_number(row.get('ci_low'))} – {_number(row.get('ci_high'))}", row.get("ci_low")
            ),
            number_cell(_number(row.get("chance")), row.get("chance")),
            number_cell(p_text(row.get("p")), row.get("p")),
            number_cell(str(row.get("n", "–")), row.get("n")),
        )
        for model in models
        for row in model.probes
    ]
    if not rows:
        return None
    columns = (
        Column("model"),
        Column("label"),
        Column("what the probe is given"),
        Column("score", "balanced accuracy of classes, Pearson r of values", numeric=True),
        Column("95 % interval", "over people", numeric=True),
        Column("chance", "labels permuted over people, refitted", numeric=True),
        Column("p", numeric=True),
        Column("n", "recordings of people held out", numeric=True),
    )
    notes = tuple(dict.fromkeys(str(r["protocol"]) for m in models for r in m.probes))
    return Table("Probes of people held out", columns, tuple(rows), sortable=True, notes=notes)


def pretraining_view(models: Sequence[PretrainedModel]) -> dict[str, Any] | None:
    """Return what the section on pretraining says; None where nothing was pretrained."""
    if not models:
        return None
    findings = [
        finding for model in models for finding in (pretext_finding(model), *probe_findings(model))
    ]
    return {"findings": findings, "table": probe_table(models)}
