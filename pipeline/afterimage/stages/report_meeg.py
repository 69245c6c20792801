"""What the report reads of EEG and MEG: the quality of every run, and the responses."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from afterimage.bids.entities import run_prefix
from afterimage.io.arrays import open_dataset
from afterimage.io.tables import Row
from afterimage.reports.recordings import (
    Component,
    EvokedResponses,
    RecordingRun,
    Recordings,
    Sensors,
)
from afterimage.reports.scans import SkippedRun
from afterimage.stages.report_scans import read_notes, run_labels

if TYPE_CHECKING:
    import xarray

QUALITY = "_desc-meeg_quality.nc"
#: Units that evoked responses are written in, and how many make one of SI.
SHOWN = {"uV": 1e6, "fT": 1e15, "fT/cm": 1e13}


def read_recordings(
    folder: Path, name: str, rows: Sequence[Row], quality: dict[str, Any] | None = None
) -> Recordings | None:
    """Read the quality of a subject's EEG or MEG; None where there is nothing about it.

    Parameters
    ----------
    folder : Path
        The subject's folder.
    name : str
        ``sub-01``.
    rows : sequence of Row
        Its rows of the table of units, one a run.
    quality : dict, optional
        What the subject's ``_quality.json`` says: trials dropped.
    """
    files = {
        path.name.removesuffix(QUALITY): path
        for kind in ("eeg", "meg")
        for path in folder.glob(f"**/{kind}/{name}*{QUALITY}")
    }
    recorded = [row for row in rows if row.get("recording", "n/a") != "n/a"]
    problems = {
        run_prefix(row["recording"]): row["problem"].replace(" | ", "; ")
        for row in recorded
        if row.get("problem", "n/a") != "n/a"
    }
    responses_file = folder / f"{name}_desc-responses_quality.nc"
    if not (files or recorded):
        return None
    order = {run_prefix(row["recording"]): place for place, row in enumerate(recorded)}
    found: dict[str, RecordingRun] = {}
    sensors: Sensors | None = None
    for prefix in sorted(files, key=lambda run: (order.get(run, len(order)), run)):
        with open_dataset(files[prefix]) as dataset:
            if problem := str(dataset.attrs.get("problem", "")):
                problems.setdefault(prefix, "; ".join(problem.split("\n")))
            elif prefix not in problems:
                sensors = sensors or _sensors(dataset)
                found[prefix] = _run(dataset)
    labels = run_labels([*found, *problems])
    modality = next((path.parent.name for path in files.values()), "")
    return Recordings(
        modality=modality or next((str(row.get("modality", "eeg")) for row in recorded), "eeg"),
        sensors=sensors,
        runs=[replace(run, name=labels[prefix]) for prefix, run in found.items()],
        skipped=[SkippedRun(labels[run], " ".join(why.split())) for run, why in problems.items()],
        responses=_responses(responses_file, quality or {}),
    )


def _sensors(dataset: xarray.Dataset) -> Sensors | None:
    if not dataset.sizes.get("unit") or "kind" not in dataset.variables:
        return None
    places = [
        np.asarray(dataset[axis].values, dtype=float)
        if axis in dataset.variables
        else np.full(dataset.sizes["unit"], np.nan)
        for axis in "xyz"
    ]
    names = dataset["name" if "name" in dataset.variables else "unit"]
    return Sensors(
        names.values.astype(str).tolist(),
        dataset["kind"].values.astype(str).tolist(),
        np.column_stack(places),
    )


def _values(dataset: xarray.Dataset, name: str) -> np.ndarray | None:
    return np.asarray(dataset[name].values) if name in dataset.variables else None


def _texts(dataset: xarray.Dataset, name: str, n: int) -> list[str]:
    found = _values(dataset, name)
    return [""] * n if found is None else [str(value) for value in found]


def _number(attributes: dict[str, Any], name: str, *, positive: bool = False) -> float:
    """Return an attribute as a number; NaN where it is absent, or 0 means that it is unknown."""
    try:
        value = float(attributes[name])
    except (KeyError, TypeError, ValueError):
        return float("nan")
    return float("nan") if positive and value <= 0 else value


def _run(dataset: xarray.Dataset) -> RecordingRun:
    attributes = dict(dataset.attrs)
    names = dataset["unit"].values.astype(str).tolist() if "unit" in dataset.variables else []
    bad = _values(dataset, "bad")
    flags = np.zeros(len(names), dtype=bool) if bad is None else bad.astype(bool)
    reasons = _texts(dataset, "bad_reason", len(names))
    repaired = _texts(dataset, "repaired", len(names))
    chosen = np.flatnonzero(flags)
    shares = _values(dataset, "bad_fraction")
    segments = _values(dataset, "bad_segments")
    why = _texts(dataset, "reason", 0 if shares is None else len(shares))
    frequency = _values(dataset, "frequency")
    return RecordingRun(
        name="",
        duration_s=_number(attributes, "duration_s", positive=True),
        sampling_rate_hz=_number(attributes, "sampling_rate_hz", positive=True),
        bad_channels={names[i]: reasons[i] for i in chosen},
        repaired={names[i]: repaired[i] for i in chosen if repaired[i]},
        bad_segments=np.empty((0, 2)) if segments is None else segments.reshape(-1, 2),
        bad_share=float(np.nan_to_num(_number(attributes, "bad_segment_fraction"))),
        bad_reasons={} if shares is None else dict(zip(why, shares.tolist(), strict=True)),
        frequency_hz=np.empty(0) if frequency is None else frequency.astype(float),
        psd_before=_values(dataset, "psd_before"),
        psd_after=_values(dataset, "psd_after"),
        components=_components(dataset),
        highpass_hz=_number(attributes, "highpass_hz", positive=True),
        lowpass_hz=_number(attributes, "lowpass_hz", positive=True),
        line_freq_hz=_number(attributes, "line_freq_hz", positive=True),
        reference=str(attributes.get("reference", "")),
        notes=read_notes(attributes),
    )


def _components(dataset: xarray.Dataset) -> list[Component]:
    n = dataset.sizes.get("component", 0)
    labels = _texts(dataset, "ica_label", n)
    removed, sure = _values(dataset, "ica_excluded"), _values(dataset, "ica_probability")
    share, maps = _values(dataset, "ica_explained_variance"), _values(dataset, "ica_topography")
    return [
        Component(
            label=labels[i],
            probability=float("nan") if sure is None else float(sure[i]),
            removed=False if removed is None else bool(removed[i]),
            variance=float("nan") if share is None else float(share[i]),
            topography=None if maps is None else maps[i],
        )
        for i in range(n)
    ]


def _responses(path: Path, quality: dict[str, Any]) -> EvokedResponses | None:
    """Read evoked responses, ceilings and the noise; None where they are absent."""
    if not path.is_file():
        return None
    with open_dataset(path) as dataset:
        times = _values(dataset, "time")
        if times is None or "affine" in dataset.attrs:
            return None
        attributes = dict(dataset.attrs)
        sensors = _sensors(dataset)
        return EvokedResponses(
            times_s=times.astype(float),
            conditions=_texts(dataset, "condition", dataset.sizes.get("condition", 0)),
            sensors=sensors,
            evoked=_in_si(
                _values(dataset, "evoked"), sensors, str(attributes.get("evoked_units"))
            ),
            ceiling=_values(dataset, "ceiling"),
            eigenvalues=_eigenvalues(dataset),
            shrinkage=_number(attributes, "shrinkage"),
            n_kept=sum(quality.get("n_trials", {}).values()),
            dropped={str(why): int(n) for why, n in quality.get("trials_dropped", {}).items()},
            notes=read_notes(attributes),
        )


def _in_si(
    evoked: np.ndarray | None, sensors: Sensors | None, written_in: str
) -> np.ndarray | None:
    """Take evoked responses written as ``eeg: uV, mag: fT`` back to V and T."""
    if evoked is None or sensors is None:
        return evoked
    units = dict(re.findall(r"(\w+): ([^,]+)", written_in))
    factors = [SHOWN.get(units.get(kind, ""), 1.0) for kind in sensors.kinds]
    return np.asarray(evoked, dtype=np.float64) / np.array(factors)[:, None]


def _eigenvalues(dataset: xarray.Dataset) -> dict[str, np.ndarray]:
    """Return the variances of the noise, the median over fits (one a session)."""
    found = {}
    for name, variable in (("measured", "eigenvalues"), ("after whitening", "eigenvalues_after")):
        values = _values(dataset, variable)
        if values is not None and values.size:
            found[name] = np.median(np.atleast_2d(values), axis=0)
    return found
