"""What the report reads of decoding over time, over repetitions, and of conditions."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from afterimage.io.arrays import open_dataset, read_variables
from afterimage.io.tables import Row, read_tsv
from afterimage.reports.labels import as_number, metric
from afterimage.reports.recordings import (
    EMPTY,
    Alarm,
    ConditionScore,
    Generalisation,
    TimeCurve,
    TimeResolved,
)
from afterimage.stages.report_scans import read_notes
from afterimage.stages.report_stages import optional_json

if TYPE_CHECKING:
    import xarray

#: What was left out, or drawn at random, as the protocol of a row says it.
LEFT_OUT = re.compile(r"leave (?:one )?(\w+?)s? out")
ON_BOTH_SIDES = re.compile(r"the (\w+) is on both sides")


def read_timing(path: Path) -> TimeResolved | None:
    """Read curves, matrices and alarms (``sub-XX_time.nc``); None where the file is absent."""
    if not path.is_file():
        return None
    with open_dataset(path) as dataset:
        if "metric" not in dataset:
            return None  # no test picture was there to be scored
        names = dataset["metric"].values.astype(str).tolist()
        curves = [
            curve
            for kind in ("sliding", "growing", "repetitions")
            for place, name in enumerate(names)
            if (curve := _curve(dataset, kind, place, name)) is not None
        ]
        return TimeResolved(
            curves=curves,
            matrices=[
                Generalisation(
                    np.asarray(dataset["train_time_s"].values, dtype=float),
                    np.asarray(dataset["test_time_s"].values, dtype=float),
                    np.asarray(dataset["generalisation_value"].values[place], dtype=float),
                    name,
                    _scalar(dataset, "generalisation_chance", place),
                    _scalar(dataset, "generalisation_threshold", place),
                )
                for place, name in enumerate(names)
                if "generalisation_value" in dataset.variables
            ],
            alarms=[
                _alarm(dataset, place, name)
                for place, name in enumerate(names)
                if "prestimulus_value" in dataset.variables
            ],
            block=str(dataset.attrs.get("block", "")),
            n_gallery=int(dataset.attrs.get("n_gallery", 0)),
            notes=read_notes(dict(dataset.attrs)),
        )


def read_alarms(path: Path) -> list[Alarm]:
    """Read the alarms alone: of a thousand people nothing else is told, and it takes far less time."""
    import xarray

    if not path.is_file():
        return []
    dataset = xarray.Dataset(read_variables(path, "prestimulus_"))
    if not dataset.variables:
        return []
    names = read_variables(path, "metric")["metric"][1].astype(str).tolist()
    return [_alarm(dataset, place, name) for place, name in enumerate(names)]


def _scalar(dataset: xarray.Dataset, variable: str, place: int) -> float:
    if variable not in dataset.variables:
        return float("nan")
    return float(np.asarray(dataset[variable].values)[place])


def _curve(dataset: xarray.Dataset, kind: str, place: int, name: str) -> TimeCurve | None:
    """Return one curve; None where the data have no such analysis."""
    if f"{kind}_value" not in dataset.variables:
        return None

    def row(part: str) -> np.ndarray:
        variable = f"{kind}_{part}"
        if variable not in dataset.variables:
            return EMPTY
        return np.asarray(dataset[variable].values[place], dtype=float)

    parts: dict[str, Any] = {
        "value": row("value"), "low": row("ci_low"), "high": row("ci_high"),
        "chance": row("chance"), "chance_low": row("chance_low"),
        "chance_high": row("chance_high"), "p_corrected": row("p_corrected"), "kind": kind,
    }  # fmt: skip
    if kind == "repetitions":
        n = dataset["repetitions_n"].values if "repetitions_n" in dataset.variables else EMPTY
        k = np.asarray(dataset["k"].values, dtype=float)
        return TimeCurve(name, k, expected=row("expected"), n=np.asarray(n, dtype=float), **parts)
    start = np.asarray(dataset[f"{kind}_start_s"].values, dtype=float)
    end = np.asarray(dataset[f"{kind}_end_s"].values, dtype=float)
    if not len(start):
        return None
    if kind == "growing":
        return TimeCurve(name, end, start_s=float(start[0]), **parts)
    peak = [
        _scalar(dataset, f"peak_latency_{part}", place) for part in ("s", "ci_low_s", "ci_high_s")
    ]
    found = (peak[0], peak[1], peak[2]) if np.isfinite(peak[0]) else None
    width = float(np.median(end - start))
    return TimeCurve(name, (start + end) / 2, width_s=width, peak_s=found, **parts)


def _alarm(dataset: xarray.Dataset, place: int, name: str) -> Alarm:
    described = metric(name)
    value, low, high, chance = (
        _scalar(dataset, f"prestimulus_{part}", place)
        for part in ("value", "ci_low", "ci_high", "chance")
    )
    rings = _scalar(dataset, "prestimulus_rings", place)
    return Alarm(
        described.title,
        bool(np.nan_to_num(rings)),
        f"{described.write(value)} (95 % interval {described.interval(low, high)}), "
        f"chance {described.write(chance)}",
        name,
    )


def read_conditions(table: Path) -> list[ConditionScore]:
    """Read the scores of classifiers of conditions; none where the table is absent."""
    if not table.is_file():
        return []
    details = optional_json(table.with_suffix(".json")) or {}
    classes = {
        str(entry.get("contrast")): [str(name) for name in entry.get("classes", ())]
        for entry in details.get("contrasts", ())
    }
    scores = [score for row in read_tsv(table) if (score := _condition(row, classes)) is not None]
    # The classifiers of a contrast keep their order; one metric stays together.
    return sorted(scores, key=lambda s: [c.metric for c in scores].index(s.metric))


def read_condition_notes(table: Path) -> list[str]:
    """Read what was left out of the decoding of conditions, and why; none where it is absent."""
    details = optional_json(table.with_suffix(".json")) or {}
    notes = [str(note) for note in details.get("notes", ())]
    for entry in details.get("contrasts", ()):
        notes += [
            f"{entry.get('contrast')}, {entry.get('classifier')}: {note}"
            for note in entry.get("notes", ())
            if not str(note).startswith("the alarm rings")  # said of the rows themselves
        ]
    return notes


def _condition(row: Row, classes: dict[str, list[str]]) -> ConditionScore | None:
    value = as_number(row.get("value"))
    if value is None:
        return None
    contrast = row.get("contrast", "conditions")
    role, protocol = row.get("role", "decoding"), row.get("protocol", "")
    pattern = ON_BOTH_SIDES if role == "leak" else LEFT_OUT
    left_out = match.group(1) if (match := pattern.search(protocol)) else ""
    start, end = as_number(row.get("tmin_s")), as_number(row.get("tmax_s"))
    window = "" if start is None or end is None else f"{start:.3g} to {end:.3g} s"
    numbers = {
        field: as_number(row.get(column))
        for field, column in (
            ("low", "ci_low"), ("high", "ci_high"), ("chance", "chance"),
            ("chance_low", "chance_low"), ("chance_high", "chance_high"), ("p", "p"),
        )
    }  # fmt: skip
    n = as_number(row.get("n"))
    return ConditionScore(
        contrast=_contrast_name(contrast, classes.get(contrast, [])),
        method=row.get("classifier", ""),
        metric=row.get("metric", ""),
        value=value,
        **numbers,
        n=None if n is None else int(n),
        left_out={"subject": "person", "people": "person"}.get(left_out, left_out),
        window=window.replace("-", "−"),
        before_stimulus=role == "alarm",
        leaks=role == "leak",
    )


def _contrast_name(contrast: str, classes: list[str]) -> str:
    """Name a contrast by its classes where they are few, behind its own name where it has one."""
    told = " against ".join(classes) if 1 < len(classes) < 4 else ""
    if contrast == "conditions":
        return told or contrast
    return f"{contrast} ({told})" if told else contrast
