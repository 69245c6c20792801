"""Tables and sentences on connectivity: recordings of a person, identification of people."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from afterimage.reports.connectivity import Connectivity, title_of
from afterimage.reports.labels import as_number, p_text
from afterimage.reports.model import SubjectReport
from afterimage.reports.page import Cell, Column, Finding, Table
from afterimage.reports.tables import number_cell

METRICS = {
    "identification": "Identification",
    "discriminability": "Discriminability",
    "similarity_within": "Similarity within people",
    "similarity_between": "Similarity between people",
}
#: Degrees of freedom below which correlations of single recordings are called uncertain.
FEW_DEGREES = 40


def subject_view(found: Sequence[Connectivity]) -> dict[str, Any] | None:
    """Return what the section of a subject says; None where there is no connectivity."""
    if not found:
        return None
    return {
        "parts": [
            {
                "seg": part.seg,
                "n_units": len(part.names),
                "what": "regions" if part.parcels else "sensors",
                "n_runs": len(part.runs),
                "measures": [title_of(name) for name in part.matrices],
                "table": run_table(part),
                "graphs": graph_table(part) if part.graphs else None,
                "voxels": _voxel_sentence(part),
                "notes": part.notes,
            }
            for part in found
        ]
    }


def run_table(part: Connectivity) -> Table:
    """Tabulate the recordings: length, censoring, degrees of freedom."""
    columns = (
        Column("Recording"),
        Column("Samples used", numeric=True),
        Column("Censored", numeric=True),
        Column("Length used", "of the samples that are kept", numeric=True),
        Column("Confounds", "regressed out together with the filter", numeric=True),
        Column("Degrees of freedom", "samples less all that was regressed out", numeric=True),
    )
    body = []
    for run in part.runs:
        share = run.n_censored / max(run.n_censored + run.n_samples, 1)
        few = 0 <= run.degrees_of_freedom < FEW_DEGREES
        length = f"{run.length_s / 60:.1f} min" if math.isfinite(run.length_s) else "not known"
        body.append(
            (
                Cell(run.name),
                number_cell(str(run.n_samples), run.n_samples),
                number_cell(f"{100 * share:.0f} %", share, "warn" if share > 0.2 else ""),
                number_cell(length, run.length_s),
                number_cell(_count(run.n_confounds), run.n_confounds),
                number_cell(
                    _count(run.degrees_of_freedom), run.degrees_of_freedom, "warn" if few else ""
                ),
            )
        )
    return Table(f"Recordings, {part.seg}", columns, tuple(body), sortable=len(body) > 3)


def graph_table(part: Connectivity) -> Table:
    """Tabulate the graphs of a person, one row a density."""
    columns = (
        Column("Density", "share of the pairs that is kept, the strongest positive ones"),
        Column("Mean degree", "neighbours of a region", numeric=True),
        Column("Clustering", "share of the neighbours' pairs that are joined, mean", numeric=True),
        Column("3-cycles", "in the whole graph", numeric=True),
        Column("Modules", numeric=True),
        Column("Modularity", numeric=True),
    )
    body = []
    for graph in part.graphs:
        values = graph.measures
        cycles = int(values["cycles"].sum()) // 3
        n_modules = int(graph.modules.max())
        body.append(
            (
                Cell(f"{100 * graph.density:g} %"),
                number_cell(f"{values['degree'].mean():.1f}", float(values["degree"].mean())),
                number_cell(f"{values['clustering'].mean():.2f}", values["clustering"].mean()),
                number_cell(str(cycles), cycles),
                number_cell(str(n_modules), n_modules),
                number_cell(f"{graph.modularity:.2f}", graph.modularity),
            )
        )
    return Table(f"Graphs, {part.seg}", columns, tuple(body))


def _voxel_sentence(part: Connectivity) -> str:
    """Say how dense the graphs of voxels are, which thresholds make depend on noise and motion."""
    if part.voxels is None:
        return ""
    said = [
        f"{100 * density:.2g} % of the pairs above {threshold:.2f}"
        for density, threshold in zip(part.voxels.densities, part.voxels.thresholds, strict=True)
    ]
    return f"Graphs of voxels join, recording by recording: {'; '.join(said)}."


def _count(value: int) -> str:
    return str(value) if value >= 0 else "not known"


def group_view(found: Sequence[Connectivity]) -> dict[str, Any] | None:
    """Return what the section of the group says; None where there is no connectivity."""
    if not found:
        return None
    return {
        "parts": [
            {
                "seg": part.seg,
                "n_people": part.n_people,
                "n_units": len(part.names),
                "table": score_table(part),
                "sentence": _sentence(part),
            }
            for part in found
        ]
    }


def _sentence(part: Connectivity) -> str:
    """Say what the reference measure, named before, tells of the people."""
    rows = [
        row
        for row in part.scores
        if row.get("metric") == "identification" and row.get("measure") == "correlation"
    ]
    if not rows:
        return (
            "People cannot be told apart here: that takes two sessions of at least two people, on "
            "the same regions."
        )
    said = []
    for row in rows:
        value, chance = as_number(row.get("value")), as_number(row.get("chance"))
        said.append(
            f"{row['first']} to {row['second']}: {100 * (value or 0):.0f} % "
            f"(chance {100 * (chance or 0):.0f} %)"
        )
    return (
        f"By Pearson correlation, which was named as the reference beforehand, {rows[0]['n']} people "
        f"are found again among each other from session {'; from session '.join(said)}. The other "
        "measures are shown as they are; the best of them is chosen on these same people and is too "
        "good on others."
    )


def score_table(part: Connectivity) -> Table:
    """Tabulate the scores of all measures."""
    columns = (
        Column("Measure"),
        Column("Score"),
        Column("From, to", "session that is looked for, session that is searched"),
        Column("Value", numeric=True),
        Column(
            "95 % interval", "over people: Wilson for identification, else bootstrap", numeric=True
        ),
        Column("Chance", "identities permuted", numeric=True),
        Column("p", numeric=True),
        Column("People", numeric=True),
    )
    body: list[tuple[Cell, ...]] = []
    notes: dict[str, None] = {}
    for row in part.scores:
        metric = str(row["metric"])
        percent = metric in ("identification", "discriminability")
        protocol = str(row.get("protocol", "n/a"))
        if protocol != "n/a":
            notes.setdefault(f"{title_of(str(row['measure']))}: {protocol}", None)
        body.append(
            (
                Cell(title_of(str(row["measure"]))),
                Cell(METRICS.get(metric, metric)),
                Cell(f"{row['first']}, {row['second']}"),
                number_cell(_value(row.get("value"), percent), row.get("value")),
                Cell(_interval(row, percent), kind="number"),
                number_cell(_value(row.get("chance"), percent), row.get("chance")),
                number_cell(_p(row.get("p")), row.get("p")),
                number_cell(str(row.get("n", "")), row.get("n")),
            )
        )
    return Table(
        f"Telling people apart, {part.seg}",
        columns,
        tuple(body),
        sortable=True,
        notes=tuple(notes),
    )


def _value(value: object, percent: bool) -> str:
    number = as_number(value)
    if number is None:
        return ""
    return f"{100 * number:.1f} %" if percent else f"{number:.2f}".replace("-", "\u2212")


def _interval(row: Mapping[str, Any], percent: bool) -> str:
    low, high = as_number(row.get("ci_low")), as_number(row.get("ci_high"))
    if low is None or high is None:
        return ""
    return f"{_value(low, percent).removesuffix(' %')} to {_value(high, percent)}"


def _p(value: object) -> str:
    number = as_number(value)
    return "" if number is None else p_text(number)


def findings(report: SubjectReport) -> list[Finding]:
    """Say whether the recordings are long enough for connectivity of single people."""
    runs = [run for part in report.connectivity[:1] for run in part.runs]
    if not runs:
        return []
    known = [run.degrees_of_freedom for run in runs if run.degrees_of_freedom >= 0]
    lengths = [run.length_s / 60 for run in runs if math.isfinite(run.length_s)]
    if not known:
        return []
    enough = min(known) >= FEW_DEGREES
    length = f"{_span(lengths, '.1f')} min used, " if lengths else ""
    return [
        Finding(
            "Is there enough of each recording for connectivity?",
            "yes" if enough else "no",
            "Yes" if enough else "No",
            f"{len(runs)} recordings, {length}{_span(known, 'd')} degrees of freedom "
            f"(correlations with fewer than {FEW_DEGREES} are called uncertain here)",
        )
    ]


def _span(values: Sequence[float], form: str) -> str:
    """Write the smallest and the largest value, or the one that there is."""
    low, high = format(min(values), form), format(max(values), form)
    return low if low == high else f"{low} to {high}"
