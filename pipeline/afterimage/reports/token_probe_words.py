"""What the group report says of models of tokens, and of what tokens tell beside linear models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from afterimage.reports.labels import as_number, p_text
from afterimage.reports.page import Cell, Column, Finding, Table
from afterimage.reports.tables import number_cell
from afterimage.reports.tokenizers import Row, TokenizerCard, TokenModel

#: Whether the tokenizer, and models of its tokens, were trained on those a score is of.
SIDES = {
    "no": "people never seen", "person": "runs never seen of a person seen",
    "yes": "those seen in training",
}  # fmt: skip
GUESSES = ("chance", "unigram", "bigram", "copy neighbour")


def model_finding(model: TokenModel) -> Finding:
    """Say whether a model guesses hidden tokens better than anyone could without it."""
    stages = sorted({str(row["stage"]) for row in model.pretext}, key=int)
    parts, worst = [], 0
    for stage in stages:
        of_stage = {str(r["predictor"]): r for r in model.pretext if str(r["stage"]) == stage}
        own = as_number(of_stage["masked model"].get("value"))
        rivals = {name: as_number(of_stage[name].get("value")) for name in GUESSES}
        known = {name: value for name, value in rivals.items() if value is not None}
        best = min(known, key=known.__getitem__)
        beaten = own is not None and own < known[best]
        worst = max(worst, 0 if beaten else 1 if own is not None and own < known["unigram"] else 2)
        parts.append(f"stage {stage}: {_number(own)} nats, {best} {_number(known[best])}")
    state, answer = [
        ("yes", "Better than chance, frequency, the token before and the tokens on either side."),
        ("partly", "Better than by frequency, but not than every guess without a network."),
        ("no", "No better than by how frequent tokens are."),
    ][worst]
    question = (
        f"{model.name}: are hidden tokens of {model.tokenizer} guessed in others than it saw?"
    )
    return Finding(question, state, answer, "; ".join(parts))


def probe_findings(card: TokenizerCard) -> list[Finding]:
    """Say of each label, plainly, whether tokens or a linear model of the signal win."""
    findings = []
    for contrast, found in card.probe_details.get("contrasts", {}).items():
        for side, verdict in found.get("verdicts", {}).items():
            difference, low, high = (as_number(value) for value in verdict["difference"])
            linear, own = float(verdict["linear_auc"]), float(verdict["tokens_auc"])
            if difference is None or difference <= 0:
                state, answer = "no", f"A linear model of the signal wins: {verdict['linear']}."
                if high is not None and high >= 0:
                    answer = (
                        f"No: a linear model of the signal ({verdict['linear']}) is as good or "
                        "better."
                    )
            elif low is not None and low > 0:
                state, answer = "yes", f"Yes: {verdict['tokens']}."
            else:
                state, answer = "partly", f"No more than by luck: {verdict['tokens']}."
            interval = "" if low is None or high is None else f" [{low:+.3f}, {high:+.3f}]"
            detail = (
                f"AUC {own:.3f} {verdict['tokens']}, {linear:.3f} {verdict['linear']}; "
                f"difference {own - linear:+.3f}{interval}; the best of each on these very trials"
            ).replace("-0.", "−0.")
            question = (
                f"{card.name}: does it tell {contrast} better than linear models of the signal, "
                f"in {SIDES[side]}?"
            )
            findings.append(Finding(question, state, answer, detail))
    return findings


def _number(value: Any, digits: int = 3) -> str:
    number = as_number(value)
    return "–" if number is None else f"{number:.{digits}f}".replace("-", "−")


def _interval(row: Row) -> str:
    low, high = (_number(row.get(key)) for key in ("ci_low", "ci_high"))
    return "–" if low == "–" else f"{low} – {high}"


def probe_table(cards: Sequence[TokenizerCard]) -> Table | None:
    """Tabulate all probes with chance, interval and p; None where nothing was asked."""
    rows = [
        (
            Cell(card.name),
            Cell(str(row["contrast"])),
            Cell(str(row["features"]), kind="name"),
            Cell(str(row["role"])),
            Cell(SIDES[str(row["seen"])]),
            number_cell(_number(row.get("value")), row.get("value"), "strong"),
            number_cell(_interval(row), row.get("ci_low")),
            number_cell(_number(row.get("chance")), row.get("chance")),
            number_cell(p_text(row.get("p")), row.get("p")),
            number_cell(str(row.get("n_groups", "–")), row.get("n_groups")),
        )
        for card in cards
        for row in card.probes
        if row["metric"] == "auc"
    ]
    if not rows:
        return None
    columns = (
        Column("tokenizer"),
        Column("label"),
        Column("what tells it"),
        Column("kind"),
        Column("in whom"),
        Column("AUC", "within each person or run left out, mean over them", numeric=True),
        Column("95 % interval", "over people, or trials within runs", numeric=True),
        Column("chance", "labels permuted", numeric=True),
        Column("p", numeric=True),
        Column("n", "people or runs left out", numeric=True),
    )
    notes = dict.fromkeys(
        f"{row['features']}: {row['protocol']}." for card in cards for row in card.probes
    )
    return Table("What tokens tell", columns, tuple(rows), sortable=True, notes=tuple(notes))


def pretext_table(models: Sequence[TokenModel]) -> Table | None:
    """Tabulate the cross-entropy of models and of guesses; None where there is no model."""
    rows = [
        (
            Cell(model.name),
            Cell(model.tokenizer),
            Cell(str(row["stage"])),
            Cell(str(row["predictor"]), kind="name"),
            number_cell(_number(row.get("value")), row.get("value"), "strong"),
            number_cell(_interval(row), row.get("ci_low")),
            number_cell(str(row.get("n", "–")), row.get("n")),
        )
        for model in models
        for row in model.pretext
    ]
    if not rows:
        return None
    columns = (
        Column("model"),
        Column("tokenizer"),
        Column("stage", "of the quantiser"),
        Column("guess"),
        Column("cross-entropy", "nats a token, in people or runs held out", numeric=True),
        Column("95 % interval", "over people, or runs of a single person", numeric=True),
        Column("n", numeric=True),
    )
    notes = tuple(_seen_note(model) for model in models)
    return Table("Hidden tokens guessed", columns, tuple(rows), sortable=True, notes=notes)


def _seen_note(model: TokenModel) -> str:
    """Say what a model of tokens has seen."""
    train = [row for row in model.exposure if row["part"] == "train"]
    people = {row["subject"] for row in train}
    about: Mapping[str, Any] = model.card
    size = f"{float(about['n_weights']) / 1e6:.2f} million weights, " if about else ""
    return (
        f"{model.name}: {size}{len(train)} recordings of {len(people)} people "
        f"({sum(int(row['n_tokens']) for row in train)} tokens) seen; "
        f"{len(model.exposure) - len(train)} kept from it, as from its tokenizer."
    )
