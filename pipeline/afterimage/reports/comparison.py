"""What the group report says of decoders that go from one person to another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from afterimage.reports.labels import as_number, metric
from afterimage.reports.model import GroupReport, Row
from afterimage.reports.page import Cell, Column, Table
from afterimage.reports.protocol_words import differing, setting_of_comparison

#: What a decoder was fitted on, by the column ``analysis``, in the order of the table.
FITTED_ON = {
    "within_subject": "own data only",
    "cross_subject": "other people only",
    "few_shot": "other people, adapted to {k} own trials",
    "pooled_subjects": "everybody together",
}
REPEATS = {"averaged": "averaged", "single": "single"}
MODALITIES = {"eeg": "EEG", "meg": "MEG"}
#: Metrics of the table; the first that is there is drawn.
METRICS = ("retrieval_top1", "retrieval_top5", "twoway")


@dataclass(frozen=True, eq=False)
class Scores:
    """One metric of one decoder, protocol and way of testing, for all subjects.

    Parameters
    ----------
    subjects : tuple of str
    value, p : array of shape (n_subjects,)
    chance, chance_low, chance_high : float
        Means over subjects of the level and the 95 % range of permuted pairs.
    """

    subjects: tuple[str, ...]
    value: np.ndarray
    p: np.ndarray
    chance: float
    chance_low: float
    chance_high: float


def number_of(row: Row, column: str) -> float:
    """Read a number of a row; NaN where it is not known."""
    value = as_number(row.get(column))
    return float("nan") if value is None else value


def collect(rows: Sequence[Row]) -> Scores | None:
    """Put the rows of several subjects together; None where there is none."""
    if not rows:
        return None
    columns = {
        name: np.array([number_of(row, name) for row in rows])
        for name in ("value", "p", "chance", "chance_low", "chance_high")
    }
    return Scores(
        tuple(str(row.get("subject")) for row in rows), columns["value"], columns["p"],
        *(float(np.mean(columns[name])) for name in ("chance", "chance_low", "chance_high")),
    )  # fmt: skip


def groups(rows: Sequence[Row]) -> Iterator[tuple[str, str, list[Row]]]:
    """Yield people, decoder and their rows that may be averaged, in the order of the table.

    People are those of one modality who were tested alike: on as many pictures of as large a
    gallery, by the same features. Where a modality has several, they are told by what differs.
    """
    kinds: dict[str, list[str]] = {}
    found: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        modality, setting = str(row.get("modality")), setting_of_comparison(row)
        kinds.setdefault(modality, []).append(setting)
        found.setdefault((modality, setting, str(row.get("label"))), []).append(row)
    told = {modality: differing(settings) for modality, settings in kinds.items()}
    for (modality, setting, label), own in found.items():
        what = told[modality][setting]
        people = MODALITIES.get(modality, modality)
        yield f"{people} ({what})" if what else people, label, own


def steps(rows: Sequence[Row]) -> list[tuple[str, int | None]]:
    """Return what was fitted on: protocol and number of trials, in order."""
    found = {
        (str(row.get("analysis")), None if (k := as_number(row.get("k"))) is None else int(k))
        for row in rows
    }
    order = list(FITTED_ON)
    return sorted(found, key=lambda one: (order.index(one[0]), one[1] or 0))


def scores_of(
    rows: Sequence[Row], analysis: str, k: int | None, repeats: str, name: str
) -> Scores | None:
    """Return the scores of one protocol, way of testing and metric."""
    return collect(
        [
            row
            for row in rows
            if (row.get("analysis"), row.get("repeats"), row.get("metric"))
            == (analysis, repeats, name)
            and as_number(row.get("k")) == k
        ]
    )


def main_metric(rows: Sequence[Row]) -> str:
    """Return the metric that is drawn: the first retrieval that the gallery allows."""
    known = {row.get("metric") for row in rows}
    return next((name for name in METRICS if name in known), METRICS[-1])


def view(report: GroupReport) -> dict[str, Any] | None:
    """Return what the section shows; None where nothing is known of a comparison."""
    if not report.compared and not report.compared_notes:
        return None
    return {
        "table": table(report.compared),
        "sentence": sentence(report.compared),
        "notes": list(report.compared_notes),
    }


def sentence(rows: Sequence[Row]) -> str:
    """Say what carries over from person to person, by the first decoder of each kind of people."""
    told = []
    name = main_metric(rows)
    described = metric(name)
    seen = set()
    for people, label, own in groups(rows):
        found = {
            analysis: scores_of(own, analysis, None, "averaged", name)
            for analysis in ("within_subject", "cross_subject", "pooled_subjects")
        }
        across, within = found["cross_subject"], found["within_subject"]
        if people in seen or across is None or within is None:
            continue
        seen.add(people)
        above = int((across.p < 0.05).sum())
        told.append(
            f"{people}, {label}: fitted on other people only, "
            f"{described.write(float(np.mean(across.value)))} of the averaged test pictures are "
            f"found first (chance {described.write(across.chance)}; above it in {above} of "
            f"{len(across.subjects)} people), on own data only "
            f"{described.write(float(np.mean(within.value)))}"
            if name == "retrieval_top1"
            else f"{people}, {label}: {described.title.lower()} is "
            f"{described.write(float(np.mean(across.value)))} when fitted on other people only, "
            f"{described.write(float(np.mean(within.value)))} on own data only"
        )
    return ". ".join(told) + "." if told else ""


def table(rows: Sequence[Row]) -> Table:
    """Tabulate protocols by metric: mean over people, and the range of people below."""
    known = {str(row.get("metric")) for row in rows}
    names = [name for name in METRICS if name in known]
    columns = [
        Column("Decoder"),
        Column("Fitted on"),
        Column("Test trials"),
        Column("People", numeric=True),
        *(Column(f"{metric(name).title}\u00a0↑", numeric=True) for name in names),
        Column("Chance", f"of {metric(names[0]).title}, permuted pairs" if names else "",
               numeric=True),
        Column("Above chance", "people with p < 0.05, one-sided", numeric=True),
    ]  # fmt: skip
    body = []
    for people, label, own in groups(rows):
        for repeats in REPEATS:
            for analysis, k in steps(own):
                found = [scores_of(own, analysis, k, repeats, name) for name in names]
                first = found[0]
                if first is None:
                    continue
                above = int((first.p < 0.05).sum())
                line = [
                    Cell(label, note=people),
                    Cell(FITTED_ON[analysis].format(k=k), kind="name"),
                    Cell(REPEATS[repeats]),
                    Cell(str(len(first.subjects)), len(first.subjects), "number"),
                ]
                for name, scores in zip(names, found, strict=True):
                    described = metric(name)
                    if scores is None:
                        line.append(Cell("–"))
                        continue
                    mean, low, high = (
                        float(part(scores.value)) for part in (np.mean, np.min, np.max)
                    )
                    line.append(
                        Cell(described.write(mean), mean, "number",
                             note=described.interval(low, high))
                    )  # fmt: skip
                line.append(Cell(metric(names[0]).write(first.chance), first.chance, "number"))
                line.append(Cell(f"{above} of {len(first.subjects)}", above, "number"))
                body.append(tuple(line))
    caption = "Mean over people by what was fitted on (range of people below)"
    return Table(caption, tuple(columns), tuple(body), True)
