"""What the report of the group says of generated connectivity: its checks on held-out people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from afterimage.reports.labels import as_number, p_text
from afterimage.reports.page import Cell, Column, Table
from afterimage.reports.tables import number_cell

#: Check: in words, and what is asked of it.
CHECKS = {
    "mean_r": ("Mean connectivity, correlation", ".95 or more"),
    "spread_ratio": ("Spread over people, ratio", "near 1"),
    "covariance_r": ("Covariance of connections, correlation", "ceiling less .05, or more"),
    "effect_r": ("Effect map, correlation", ".9 or more"),
    "effect_slope": ("Effect map, slope", ".8 to 1.2"),
    "copying": ("Distance to the nearest training person, ratio", "not far below 1"),
    "repaired": ("Share of samples repaired", "reported"),
    "decoding_connectivity": ("Decoding from connectivity", "above chance, else no test"),
    "decoding_latents": ("Decoding from latents, linear", "within chance"),
    "decoding_latents_nonlinear": ("Decoding from latents, nonlinear", "within chance"),
    "decoding_harmonised": ("Decoding from harmonised connectivity", "within chance"),
}


def fails(row: Mapping[str, Any]) -> bool:
    """Say whether a check is not passed."""
    check, value = str(row["check"]), as_number(row.get("value"))
    if value is None:
        return False
    ceiling, high = as_number(row.get("ceiling")), as_number(row.get("chance_high"))
    limits = {
        "mean_r": value < 0.95,
        "covariance_r": ceiling is not None and value < ceiling - 0.05,
        "effect_r": value < 0.9,
        "effect_slope": not 0.8 <= value <= 1.2,
        "copying": value < 0.5,
    }
    hidden = check.startswith("decoding") and check != "decoding_connectivity"
    return limits.get(check, hidden and high is not None and value > high)


def group_view(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Return what the section says; None where nothing was generated."""
    if not rows:
        return None
    failed = dict.fromkeys(CHECKS[str(row["check"])][0] for row in rows if fails(row))
    sentence = "All checks on held-out people are passed."
    if failed:
        sentence = (
            f"Not passed: {', '.join(failed)}. Generated or harmonised connectivity should not stand "
            "in for real people where that matters."
        )
    return {"sentence": sentence, "table": _table(rows)}


def _table(rows: Sequence[Mapping[str, Any]]) -> Table:
    columns = (
        Column("Check"), Column("Demographic"), Column("Value", numeric=True),
        Column("Ceiling", "the same for training people against held-out people", numeric=True),
        Column("Chance", "95 % of permutations", numeric=True), Column("p", numeric=True),
        Column("n", numeric=True), Column("Wanted"),
    )  # fmt: skip
    body: list[tuple[Cell, ...]] = []
    for row in rows:
        title, wanted = CHECKS[str(row["check"])]
        name = str(row.get("demographic", ""))
        low, high = _number(row.get("chance_low")), _number(row.get("chance_high"))
        body.append(
            (
                Cell(title),
                Cell("" if name == "n/a" else name),
                number_cell(_number(row["value"]), row["value"], "warn" if fails(row) else ""),
                number_cell(_number(row.get("ceiling")), row.get("ceiling")),
                Cell(f"{low} to {high}" if low else "", kind="number"),
                number_cell(p_text(row["p"]) if as_number(row.get("p")) else "", row.get("p")),
                number_cell(str(row.get("n", "")), row.get("n")),
                Cell(wanted),
            )
        )
    return Table("Checks of generated connectivity", columns, tuple(body), sortable=True)


def _number(value: object) -> str:
    number = as_number(value)
    return "" if number is None else f"{number:.3f}".replace("-", "\u2212")
