"""Tables of decoders against each other, of published protocols, and of scores from papers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from afterimage.evaluation.decoder_comparison import NO_DIFFERENCE, NOT_COMPARABLE
from afterimage.evaluation.metrics import family_of
from afterimage.evaluation.published import reasons
from afterimage.reports.labels import (
    METHOD_TITLES,
    as_number,
    decoders_of,
    inline,
    label_title,
    main_metrics,
    metric,
    metric_order,
    p_text,
)
from afterimage.reports.model import Published, Row
from afterimage.reports.page import Cell, Column, Table

#: Roles whose rows are shown under a published protocol.
SHOWN = ("reconstruction", "prediction", "ceiling", "baseline", "audit")


def comparison_view(
    rows: Sequence[Row], method: str = "", name: str = ""
) -> dict[str, Any] | None:
    """Return the sentences and the table of decoders against each other; None where there is none.

    Parameters
    ----------
    rows : sequence of Row
        Of `decoder_comparison`.
    method, name : str
        Method and metric of the verdict: the winner by these is named first.
    """
    if not rows:
        return None
    shown = [
        row for row in rows if row.get("metric") in main_metrics(str(r["metric"]) for r in rows)
    ]
    told = [row for row in shown if (_method(row), row.get("metric")) == (method, name)]
    told = told or [row for row in shown if _method(row) == method][:1] or shown[:1]
    return {"sentences": [_sentence(row) for row in told], "table": _comparison_table(shown)}


def _method(row: Row) -> str:
    method = str(row.get("method") or "")
    return "" if method == "n/a" else method


def _sentence(row: Row) -> str:
    described = metric(str(row["metric"]))
    method = METHOD_TITLES.get(_method(row), _method(row)) or "decoded features"
    where = f"{inline(described.title)} ({method.lower()})"
    who = "people" if row.get("subject") == "group" else "test images"
    modality = str(row.get("modality") or "n/a")
    who += "" if modality == "n/a" else f", {modality}"
    if row["winner"] == NOT_COMPARABLE:
        return f"{row['first']} and {row['second']} were scored by different protocols in {where}."
    value = as_number(row["difference"])
    interval = described.interval(row.get("ci_low"), row.get("ci_high"))
    numbers = (
        f"difference {row['first']} − {row['second']} {described.write(value)}, 95 % interval "
        f"{interval}, p = {p_text(row.get('p_holm'))} after Holm's correction for "
        f"{as_number(row['n_tests']) or 0:.0f} comparisons, paired over "
        f"{as_number(row['n']) or 0:.0f} {who}"
    )
    if row["winner"] == NO_DIFFERENCE:
        return f"No difference shown between {row['first']} and {row['second']} in {where}: {numbers}."
    other = row["second"] if row["winner"] == row["first"] else row["first"]
    return f"{row['winner']} is better than {other} in {where}: {numbers}."


def _comparison_table(rows: Sequence[Row]) -> Table:
    columns = (
        Column("Made from"),
        Column("Metric"),
        Column("Pair"),
        Column("Difference", "first less second", numeric=True),
        Column("95 % interval", "paired", numeric=True),
        Column("p", "two-sided", numeric=True),
        Column("p, Holm", "for all metrics and pairs of one kind", numeric=True),
        Column("n", numeric=True),
        Column("Winner"),
    )
    order = metric_order(str(row["metric"]) for row in rows)
    body = []
    for row in sorted(rows, key=lambda r: (_method(r), order.index(str(r["metric"])))):
        described = metric(str(row["metric"]))
        modality = str(row.get("modality") or "n/a")
        value, won = (
            as_number(row["difference"]),
            row["winner"] not in (NO_DIFFERENCE, NOT_COMPARABLE),
        )
        n = as_number(row.get("n"))
        body.append(
            (
                Cell(
                    METHOD_TITLES.get(_method(row), _method(row)) or "Decoded features",
                    note="" if modality == "n/a" else modality,
                ),
                Cell(described.title, order.index(str(row["metric"])), "name"),
                Cell(f"{row['first']} − {row['second']}"),
                Cell(described.write(value), value, "number"),
                Cell(described.interval(row.get("ci_low"), row.get("ci_high")), kind="number"),
                Cell(p_text(row.get("p")), as_number(row.get("p")), "number"),
                Cell(p_text(row.get("p_holm")), as_number(row.get("p_holm")), "number"),
                Cell("–" if n is None else f"{n:.0f}", n, "number"),
                Cell(str(row["winner"]), kind="strong" if won else ""),
            )
        )
    return Table("Decoders against each other", columns, tuple(body), sortable=True)


def published_view(published: Published, metrics: Sequence[Row]) -> dict[str, Any] | None:
    """Return what is said of published protocols and scores; None without any score of ours."""
    if not metrics and not published.rows:
        return None
    return {
        "table": _protocol_table(published, metrics),
        "networks": _network_table(published.networks),
        "beside": _beside_table(published, decoders_of(metrics)),
        "n_published": len(published.matches),
        "reasons": reasons(published.matches),
    }


def _protocol_table(published: Published, metrics: Sequence[Row]) -> Table:
    """One row a protocol, subject, label and metric; the protocol is the first column, always."""
    columns = (
        Column("Protocol"), Column("Row"), Column("Metric"), Column("Value", numeric=True),
        Column("95 % interval", numeric=True), Column("Chance", numeric=True),
        Column("Ceiling", numeric=True), Column("n", numeric=True), Column("In full"),
    )  # fmt: skip
    decoders = decoders_of(metrics)
    letters = {name: str(facts.get("letter", "")) for name, facts in published.networks.items()}
    subjects = {str(row.get("subject")) for row in published.rows}
    shown = [row for row in published.rows if row.get("role") in SHOWN]
    if len(subjects) > 1 or len(shown) > 400:
        shown = [row for row in shown if row.get("role") in ("reconstruction", "prediction")]
    notes = list(dict.fromkeys(str(row["protocol"]) for row in shown))
    body = []
    for row in shown:
        described = metric(str(row["metric"]))
        family = family_of(row)
        letter = f" ({letters[family]})" if letters.get(family) else ""
        n = as_number(row.get("n"))
        label = label_title(str(row["label"]), decoders)
        body.append(
            (
                Cell(family + letter, kind="strong"),
                Cell(label, note=f"sub-{row['subject']}" if len(subjects) > 1 else ""),
                Cell(described.title, note="lower is better" if described.lower_is_better else ""),
                Cell(described.write(row["value"]), as_number(row["value"]), "number"),
                Cell(described.interval(row.get("ci_low"), row.get("ci_high")), kind="number"),
                Cell(described.write(row.get("chance")), as_number(row.get("chance")), "number"),
                Cell(described.write(row.get("ceiling")), as_number(row.get("ceiling")), "number"),
                Cell("–" if n is None else f"{n:.0f}", n, "number"),
                Cell(str(notes.index(str(row["protocol"])) + 1), kind="number"),
            )
        )
    caption = "Scores by published protocols"
    return Table(caption, columns, tuple(body), sortable=True, notes=tuple(notes))


def _network_table(networks: Mapping[str, Any]) -> Table:
    columns = (
        Column("Protocol"), Column("Metric"), Column("Network used"), Column("Weights"),
        Column("Comparable with papers"),
    )  # fmt: skip
    body = tuple(
        (
            Cell(name, note=str(facts.get("source", ""))),
            Cell(metric(str(one["metric"])).title, kind="name"),
            Cell(str(one["network"])),
            Cell(
                str(one["weights"]), note=str(one["sha256"])[:12] if one["sha256"] != "n/a" else ""
            ),
            Cell("yes" if one["comparable"] else f"no: {one['why']}"),
        )
        for name, facts in networks.items()
        for one in facts["networks"]
    )
    return Table("Which network each metric was computed with", columns, body)


def _beside_table(published: Published, decoders: Sequence[str]) -> Table:
    columns = (
        Column("Protocol"), Column("Metric"), Column("Method"), Column("Published", numeric=True),
        Column("Known from"), Column("Here", numeric=True), Column("Row"),
    )  # fmt: skip
    sources = {"V": "public code or file", "T": "the paper's table", "S": "an abstract or note",
               "M": "memory, not verified", "C": "computed"}  # fmt: skip
    body, notes = [], []
    for match in published.matches:
        if match.why:
            continue
        theirs = match.published
        described = metric(str(theirs["metric"]))
        text = f"{theirs['citation']}; {theirs['identifier']}"
        text += "" if theirs["note"] == "n/a" else f"; {theirs['note']}"
        if text not in notes:
            notes.append(text)
        for own in match.own:
            body.append(
                (
                    Cell(str(theirs["protocol"])),
                    Cell(described.title, kind="name"),
                    Cell(str(theirs["method"]), note=f"[{notes.index(text) + 1}]"),
                    Cell(described.write(theirs["value"]), as_number(theirs["value"]), "number"),
                    Cell(sources[str(theirs["evidence"])]),
                    Cell(described.write(own["value"]), as_number(own["value"]), "number strong"),
                    Cell(label_title(str(own["label"]), decoders)),
                )
            )
    caption = "Scores of papers beside ours: same data, people, protocol and networks"
    return Table(caption, columns, tuple(body), sortable=True, notes=tuple(notes))
