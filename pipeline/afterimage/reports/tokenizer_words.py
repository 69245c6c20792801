"""What the group report says of tokenizers: what comes back, how codes are used, what they mean."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from afterimage.reports.labels import as_number, p_text
from afterimage.reports.page import Cell, Column, Finding, Table
from afterimage.reports.tables import number_cell
from afterimage.reports.token_probe_words import (
    model_finding,
    pretext_table,
    probe_findings,
    probe_table,
)
from afterimage.reports.tokenizers import Row, TokenizerCard, TokenModel

UNSEEN, RIVAL, CHANCE = "unseen", "k-means of patches", "chance (tokens moved)"


def rows_of(card: TokenizerCard, measure: str) -> list[Row]:
    """Return the rows of one measure that have a value, in order."""
    return [
        row
        for row in card.rows
        if row["measure"] == measure and as_number(row.get("value")) is not None
    ]


def number_of(
    card: TokenizerCard, measure: str, part: str, stage: str = "n/a", key: str = "value"
) -> float | None:
    """Return one number of the table; None where it is not there."""
    for row in rows_of(card, measure):
        if row["part"] == part and str(row.get("stage", "n/a")) == stage:
            return as_number(row.get(key))
    return None


def return_finding(card: TokenizerCard) -> Finding:
    """Say how much of the signal comes back, beside patches without a network."""
    value, low = (number_of(card, "correlation", UNSEEN, key=key) for key in ("value", "ci_low"))
    rival, chance = (number_of(card, "correlation", part) for part in (RIVAL, CHANCE))
    seen = number_of(card, "correlation", "seen")
    layout = number_of(card, "correlation", "layout unseen")
    bits = number_of(card, "bits per second", "as used")
    raw = number_of(card, "bits per second", "16-bit samples")
    least = value if low is None else low
    state, answer = "no", "No more than from tokens of another moment."
    if least is not None and least > (chance or 0):
        state, answer = "yes", "Much more than from tokens of another moment."
        if rival is not None and value is not None:
            if value >= rival:
                answer = "More than from as many plain patches."
            else:
                state, answer = "partly", "Less than from as many plain patches a channel."
    people = str(card.details.get("held_out", "people"))
    what = "spectrum" if card.details.get("decodes") == "spectrum" else "signal"
    parts = [f"r = {number(value)}{from_low(low)}"]
    for label, told in ((f"{people} seen", seen), ("half of the channels", layout),
                        ("patches", rival), ("chance", chance)):  # fmt: skip
        if told is not None:
            parts.append(f"{label} {number(told)}")
    if bits and raw:
        parts.append(f"{bits:.0f} bits a second, {raw / bits:.0f} times fewer than samples")
    return Finding(
        f"{card.name}: how much of the {what} comes back in {people} never seen?", state, answer,
        "; ".join(parts),
    )  # fmt: skip


def use_finding(card: TokenizerCard) -> Finding:
    """Say whether the codes of the first stage are used."""
    size = float(card.details.get("codebook_size", 0) or 1)
    perplexity = number_of(card, "perplexity", UNSEEN, "1")
    used = number_of(card, "codes used", UNSEEN, "1")
    state, answer = "no", "Most codes are never said."
    if used is not None and perplexity is not None:
        if used >= 0.9 and perplexity >= size / 2:
            state, answer = "yes", "Nearly all codes are said, and evenly."
        elif used >= 0.5:
            state, answer = "partly", "Many codes are rare."
    detail = f"first stage: perplexity {number(perplexity, 1)} of {size:.0f}"
    detail += "" if used is None else f", {used:.0%} of the codes occur"
    return Finding(f"{card.name}: are the codes used?", state, answer, detail)


def meaning_finding(card: TokenizerCard) -> Finding:
    """Say whether codes stand for rhythms, and for events."""
    value, low = (
        number_of(card, "band power told", UNSEEN, key=key) for key in ("value", "ci_low")
    )
    events = card.details.get("events") or {}
    rhythm = value is not None and (value if low is None else low) > 0
    told = bool(events) and float(events["p"]) < 0.05
    state = "yes" if rhythm else "no"
    answer = "For rhythms." if rhythm else "Not for rhythms."
    if events:
        answer = {
            (True, True): "For rhythms, and for kinds of events.",
            (True, False): "For rhythms, not for kinds of events.",
            (False, True): "For kinds of events, not for rhythms.",
            (False, False): "Neither for rhythms nor for kinds of events.",
        }[rhythm, told]
        state = "yes" if rhythm and told else "partly" if rhythm or told else "no"
    detail = f"a code tells {number(value)} of the variance of band power{from_low(low)}"
    if events:
        detail += (
            f"; {float(events['information_bits']):.4f} bits of a kind of event, "
            f"{float(events['chance_bits']):.4f} by chance, p = {p_text(events['p'])}"
        )
    return Finding(f"{card.name}: do codes stand for something?", state, answer, detail)


def number(value: Any, digits: int = 3) -> str:
    """Write a number, with a dash where it is not known."""
    return "–" if value is None else f"{value:.{digits}f}".replace("-", "−")


def from_low(low: float | None) -> str:
    """Write the lower end of an interval, where there is one."""
    return "" if low is None else f" (95 % interval from {number(low)})"


def exposure_note(card: TokenizerCard) -> str:
    """Say what a tokenizer has seen: a score of these recordings is no score of new ones."""
    train = [row for row in card.exposure if row["part"] == "train"]
    people = {row["subject"] for row in train}
    hours = sum(float(row["seconds"]) for row in train) / 3600
    return (
        f"{card.name} has seen {len(train)} recordings of {len(people)} people ({hours:.2f} hours); "
        f"{len(card.exposure) - len(train)} recordings of others were kept from it."
        if card.details.get("held_out", "people") == "people"
        else f"{card.name} has seen {len(train)} recordings of one person ({hours:.2f} hours); "
        f"{len(card.exposure) - len(train)} more of the same person were kept from it, so that "
        "nothing is known of other people."
    )


def interval(row: Row) -> str:
    """Write the interval of a row; a dash where there is none."""
    low, high = (as_number(row.get(key)) for key in ("ci_low", "ci_high"))
    return "–" if low is None or high is None else f"{number(low)} – {number(high)}"


def card_table(cards: Sequence[TokenizerCard]) -> Table:
    """Tabulate all measures with their intervals."""
    rows = [
        (
            Cell(card.name),
            Cell(str(row["measure"])),
            Cell(str(row["part"]), kind="name"),
            Cell("–" if str(row["stage"]) == "n/a" else str(row["stage"])),
            number_cell(number(value, 4 if abs(value) < 100 else 0), value, "strong"),
            number_cell(interval(row), row.get("ci_low")),
            number_cell(str(row.get("n", "–")), row.get("n")),
        )
        for card in cards
        for row in card.rows
        if (value := as_number(row.get("value"))) is not None
    ]
    columns = (
        Column("tokenizer"),
        Column("measure", "correlation over time, perplexity, share of codes, nats a token"),
        Column("of whom, or by what"),
        Column("stage", "of the quantiser"),
        Column("value", numeric=True),
        Column("95 % interval", "over people", numeric=True),
        Column("n", "people; recordings where there is no interval", numeric=True),
    )
    notes = tuple(exposure_note(card) for card in cards)
    return Table("Cards of tokenizers", columns, tuple(rows), sortable=True, notes=notes)


def tokenizer_view(
    cards: Sequence[TokenizerCard], models: Sequence[TokenModel] = ()
) -> dict[str, Any] | None:
    """Return what the section on tokenizers says; None where there is none."""
    if not cards:
        return None
    findings = [
        finding(card)
        for card in cards
        for finding in (return_finding, use_finding, meaning_finding)
    ]
    findings += [model_finding(model) for model in models]
    findings += [finding for card in cards for finding in probe_findings(card)]
    tables = [card_table(cards), pretext_table(models), probe_table(cards)]
    return {"findings": findings, "tables": [table for table in tables if table]}
