"""What the report of the group says of phenotypes: tables and sentences of their prediction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from afterimage.reports.connectivity import title_of
from afterimage.reports.labels import Metric, as_number, p_text
from afterimage.reports.page import Cell, Column, Table
from afterimage.reports.tables import number_cell

#: The metric that words are about, the first that a target has, and the others.
METRICS = {
    "r": Metric("r", "Correlation", "of predicted and true values", False, False),
    "auc": Metric("auc", "Area under the curve", "of the two classes", False, True),
    "balanced_accuracy": Metric(
        "balanced_accuracy", "Balanced accuracy", "mean over classes", False, True
    ),
    "r2": Metric("r2", "Explained variance", "below 0: worse than the mean", False, False),
}
RIVALS = {
    "motion": "Motion alone", "phenotypes": "Phenotypes alone", "density": "Graph density alone",
}  # fmt: skip
#: What is not a measure of connectivity.
GRAPHS = {
    "graph_degree": "Graph: degree", "graph_strength": "Graph: weighted degree",
    "graph_distance": "Graph: degree by distance", "graph_clustering": "Graph: clustering",
    "graph_cycles": "Graph: 3-cycles", "graph_modules": "Graph: modules",
    "voxels_cycles": "Voxels: 3-cycles", "voxels_degree": "Voxels: degree",
    "voxels_strength": "Voxels: weighted degree", "voxels_clustering": "Voxels: clustering",
}  # fmt: skip
ALPHA = 0.05


def feature_title(row: Mapping[str, Any]) -> str:
    """Return a set of features, or a rival, in words."""
    name = str(row.get("features"))
    return RIVALS[name] if row.get("role") == "rival" else GRAPHS.get(name) or title_of(name)


def main_rows(
    rows: Sequence[Mapping[str, Any]],
) -> list[tuple[str, str, Metric, list[Mapping[str, Any]]]]:
    """Return target, regions, main metric and its rows, for every target and set of regions."""
    found: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        if as_number(row.get("value")) is not None:
            found.setdefault((str(row["target"]), str(row["seg"])), []).append(row)
    result = []
    for (target, seg), own in found.items():
        name = next(name for name in METRICS if any(row["metric"] == name for row in own))
        result.append((target, seg, METRICS[name], [r for r in own if r["metric"] == name]))
    return result


def group_view(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Return what the section says; None where nothing was predicted."""
    if not rows:
        return None
    notes = dict.fromkeys(
        f"{row['target']}: {row['note']}."
        for row in rows
        if row.get("note") not in (None, "n/a", "")
    )
    return {
        "sentences": [_sentence(*found) for found in main_rows(rows)],
        "table": _table(rows),
        "notes": list(notes),
    }


def _holds_chance(row: Mapping[str, Any]) -> bool:
    """Say whether the interval for all tries holds chance; False where it is not known."""
    low, chance = as_number(row.get("ci_all_low")), as_number(row.get("chance"))
    return low is not None and chance is not None and low <= chance


def _is_sure(row: Mapping[str, Any]) -> bool:
    """Say whether a score is above chance by its corrected p, one-sided, and by the interval too."""
    return (as_number(row.get("p_holm")) or 1.0) < ALPHA and not _holds_chance(row)


def _sentence(target: str, seg: str, metric: Metric, rows: Sequence[Mapping[str, Any]]) -> str:
    """Say whether any set of features predicts a target, and whether a rival does as well."""
    brain = [row for row in rows if row["role"] == "features"]
    rivals = [row for row in rows if row["role"] == "rival"]
    if not brain:
        return f"{target} was predicted from no features of {seg}."
    best = max(brain, key=lambda row: as_number(row["value"]) or 0.0)
    said = (
        f"{metric.title.lower()} {metric.write(best['value'])}, 95 % interval "
        f"{metric.interval(best['ci_low'], best['ci_high'])}, chance {metric.write(best['chance'])}, "
        f"{best['n']} rows"
    )
    sure = [row for row in brain if _is_sure(row)]
    if not sure:
        start = (
            f"No feature predicts {target} better than chance; the highest is "
            f"{feature_title(best)} ({said})."
        )
        alone, corrected = as_number(best.get("p")), as_number(best.get("p_holm"))
        if alone is not None and corrected is not None and alone < ALPHA:
            start += (
                f" Alone its p would be {p_text(alone)}; corrected for the {len(brain)} sets of "
                f"features that were tried it is {p_text(corrected)}"
            )
            ends = as_number(best.get("ci_all_low")), as_number(best.get("ci_all_high"))
            if None not in ends:
                start += (
                    f", and the 95 % interval for all tries is {metric.interval(*ends)}"
                    f"{', which holds chance' if _holds_chance(best) else ''}"
                )
            start += "."
    else:
        start = (
            f"{target} is predicted better than chance by "
            f"{', '.join(feature_title(row) for row in sure)}; the highest is "
            f"{feature_title(best)} ({said})."
        )
    low = as_number(best.get("ci_low"))
    for rival in rivals:
        value = as_number(rival["value"])
        if value is None or low is None:
            continue
        words = f" {feature_title(rival)} reaches {metric.write(value)}"
        if sure and value >= low:
            words += (
                ", which the interval of the highest does not exclude: connectivity adds little"
            )
        start += f"{words}."
    return start + (
        " The highest is chosen on the same people and flatters itself." if sure else ""
    )


def _table(rows: Sequence[Mapping[str, Any]]) -> Table:
    several = len({row["seg"] for row in rows if as_number(row.get("value")) is not None}) > 1
    columns = (
        Column("Target"), *([Column("Regions")] if several else []), Column("Features"),
        Column("Score"),
        Column("Value", numeric=True),
        Column("95 % interval", "bootstrap over people, or their groups", numeric=True),
        Column("Chance", "people permuted, everything fitted anew", numeric=True),
        Column("p", "one-sided", numeric=True),
        Column("p (Holm)", "corrected for the number of sets of features", numeric=True),
        Column(
            "95 % interval, all tries",
            "from permutations, corrected for the number of sets of features", numeric=True,
        ),
        Column("n", numeric=True),
    )  # fmt: skip
    body: list[tuple[Cell, ...]] = []
    notes: dict[str, tuple[dict[str, None], dict[str, None]]] = {}  # protocol: features, targets
    for row in rows:
        if as_number(row.get("value")) is None:
            continue
        described = METRICS[str(row["metric"])]
        features, targets = notes.setdefault(str(row["protocol"]), ({}, {}))
        features[feature_title(row)] = targets[str(row["target"])] = None
        body.append(
            (
                Cell(str(row["target"])),
                *([Cell(str(row["seg"]))] if several else []),
                Cell(feature_title(row)),
                Cell(described.title),
                number_cell(described.write(row["value"]), row["value"]),
                Cell(described.interval(row["ci_low"], row["ci_high"]), kind="number"),
                number_cell(described.write(row["chance"]), row["chance"]),
                number_cell(p_text(row["p"]), row["p"]),
                number_cell(p_text(row.get("p_holm")), row.get("p_holm")),
                Cell(
                    described.interval(row.get("ci_all_low"), row.get("ci_all_high")),
                    kind="number",
                ),
                number_cell(str(row["n"]), row["n"]),
            )
        )
    said = tuple(
        f"{', '.join(features)} ({', '.join(targets)}): {protocol}"
        for protocol, (features, targets) in notes.items()
    )
    return Table("Prediction of phenotypes", columns, tuple(body), sortable=True, notes=said)
