"""Recordings on disk as the rooms of maths take them: clean series of regions or sensors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from afterimage.bids.entities import BidsName, parse_name
from afterimage.errors import InputError
from afterimage.io.atomic import write_json, write_text
from afterimage.io.series import open_series, write_series

#: A unit whose series varies less than this, relative to its mean, holds rounding errors only.
TINY_SPREAD = 1e-6


@dataclass(frozen=True, eq=False)
class Recording:
    """One recording: its series, and what is known of it.

    Attributes
    ----------
    name : str
        What tells it from the subject's others: ``ses-1_task-rest_run-2``; the subject's label
        where nothing else does.
    subject, session, task, run, seg : str
        Entities of its name; ``n/a`` where absent. ``seg`` of sensors is ``sensors``.
    values : array of shape (n_times, n_units), float32
    kept : array of bool, shape (n_times,)
        Samples that are not censored; the others hold nothing of use.
    sampling_rate_hz : float
        0.0 where not known.
    names : array of str, shape (n_units,)
        Regions or channels, each once.
    units : dict of array, each of shape (n_units,)
        All unit coordinates: ``kind``, ``x``, ``y``, ``z`` and, where known, ``network``.
    attrs : dict
        Attributes of the file: ``high_pass_hz``, ``low_pass_hz``, ``n_confounds``, ...
    """

    name: str
    subject: str
    session: str
    task: str
    run: str
    seg: str
    values: np.ndarray
    kept: np.ndarray
    sampling_rate_hz: float
    names: np.ndarray
    units: dict[str, np.ndarray]
    attrs: dict[str, object]

    def used(self) -> np.ndarray:
        """Return the samples that are not censored, (n_kept, n_units) float32."""
        return self.values if self.kept.all() else self.values[self.kept]

    def select(self, units: np.ndarray) -> Recording:
        """Return the recording with these units only, by index or as a mask."""
        coordinates = {name: values[units] for name, values in self.units.items()}
        return replace(
            self, values=self.values[:, units], names=self.names[units], units=coordinates
        )


def _name(path: Path) -> BidsName:
    name = parse_name(path.name)
    if name is None:
        raise InputError(
            "a series has no BIDS name", where=str(path), found=path.name,
            expected="sub-<label>[_ses-<label>]..._series.nc", fix="rename the file",
        )  # fmt: skip
    return name


def read_recording(path: Path) -> Recording | str:
    """Read one ``_series.nc`` file; a run that was left out gives the reason as text."""
    get = _name(path).entities.get
    parts = [f"{key}-{get(key)}" for key in ("ses", "task", "run") if get(key)]
    with open_series(path) as series:
        if problem := str(series.attrs.get("problem", "")):
            return problem
        names = series.units.get("name", series.units.get("roi"))
        if names is None:
            names = np.array([f"unit{index:04d}" for index in range(series.n_units)])
        return Recording(
            name="_".join(parts) or f"sub-{get('sub', '')}",
            subject=get("sub", "n/a"),
            session=get("ses", "n/a"),
            task=get("task", "n/a"),
            run=get("run", "n/a"),
            seg=get("seg", "sensors"),
            values=series.read(),
            kept=~series.censored,
            sampling_rate_hz=float(series.attrs.get("sampling_rate_hz", 0.0)),
            names=names,
            units=series.units,
            attrs=dict(series.attrs),
        )


def read_recordings(paths: Iterable[Path]) -> tuple[list[Recording], list[str]]:
    """Read the recordings that can be used, and say of the others why not.

    Returns
    -------
    recordings : list of Recording
    notes : list of str
        One sentence a recording that was left out before.
    """
    recordings, notes = [], []
    for path in paths:
        found = read_recording(path)
        if isinstance(found, str):
            label = path.name.partition("_desc-")[0]
            notes.append(f"{label} was left out: {found.splitlines()[0]}")
        else:
            recordings.append(found)
    return recordings, notes


def varies(values: np.ndarray) -> np.ndarray:
    """Say which columns vary, bool of shape (n_units,); (n_times, n_units) finite numbers."""
    mean = values.mean(axis=0, dtype=np.float64)
    spread = np.sqrt(np.square(values - mean).mean(axis=0))
    return np.asarray(spread > TINY_SPREAD * np.abs(mean)) & (spread > 0)


def common_units(recordings: Sequence[Recording]) -> tuple[list[Recording], list[str]]:
    """Keep the units that all recordings have, and that vary in all; in the order of the first.

    Returns
    -------
    recordings : list of Recording
    dropped : list of str
        Names of units that some have and that were left out.

    Raises
    ------
    InputError
        If fewer than two units are left.
    """
    shared: dict[str, None] = dict.fromkeys(recordings[0].names.tolist())
    everything: dict[str, None] = {}
    for recording in recordings:
        everything |= dict.fromkeys(recording.names.tolist())
        good = set(recording.names[varies(recording.used())].tolist())
        shared = {name: None for name in shared if name in good}
    if len(shared) < 2:
        raise InputError(
            "recordings have fewer than two units in common",
            where=", ".join(f"sub-{r.subject} {r.name}" for r in recordings[:4]),
            found=f"{len(shared)} that are in all recordings and vary",
            expected="the same regions or channels in all",
            fix="use one atlas for all recordings; see what is said of regions without signal",
        )  # fmt: skip
    kept = []
    for recording in recordings:
        place = {name: index for index, name in enumerate(recording.names.tolist())}
        kept.append(recording.select(np.array([place[name] for name in shared])))
    return kept, [name for name in everything if name not in shared]


def write_recording(
    path: Path,
    table: Path,
    values: np.ndarray,
    censored: np.ndarray,
    units: Mapping[str, np.ndarray],
    attributes: Mapping[str, Any],
) -> None:
    """Write a series of regions, and as a table with a sidecar; censored samples are ``n/a`` there.

    Parameters
    ----------
    path, table : Path
        ``_series.nc`` and ``_timeseries.tsv``.
    values : array of shape (n_times, n_units)
    censored : array of bool, shape (n_times,)
    units : dict of array, each of shape (n_units,)
        Among them ``kind`` and ``roi``.
    attributes : dict
        Of the file; the entities of its name are added.
    """
    get = _name(path).entities.get
    about = {
        "subject": get("sub", "n/a"), "session": get("ses", "n/a"), "task": get("task", "n/a"),
        "run": get("run", "n/a"), **attributes,
    }  # fmt: skip
    write_series(path, np.asarray(values, dtype=np.float32), units, about, censored)
    names = units["roi"].tolist()
    blank = "\t".join(["n/a"] * len(names))
    lines = [
        blank if out else "\t".join([f"{value:.6g}" for value in row])
        for row, out in zip(np.asarray(values).tolist(), censored, strict=True)
    ]
    write_text(table, "\n".join(["\t".join(names), *lines]) + "\n")
    rate_hz = float(attributes["sampling_rate_hz"])
    write_json(
        table.with_suffix(".json"),
        {
            "RepetitionTime": 1 / rate_hz if rate_hz > 0 else None,
            "Censored": int(np.sum(censored)),
            **{
                key: attributes[key]
                for key in ("high_pass_hz", "low_pass_hz", "n_confounds", "degrees_of_freedom",
                            "confounds", "signal_units", "notes", "problem")
                if key in attributes
            },
        },
    )  # fmt: skip


def write_empty_series(path: Path, table: Path, problem: str) -> None:
    """Write the series of a run that was left out: no samples, and why."""
    nothing: dict[str, np.ndarray] = {name: np.zeros(0) for name in "xyz"}
    attributes = {"sampling_rate_hz": 0.0, "start_time_s": 0.0, "source": "n/a"}
    units = {"kind": np.array([], dtype=str), "roi": np.array([], dtype=str), **nothing}
    write_recording(
        path, table, np.zeros((0, 0)), np.zeros(0, dtype=bool), units,
        attributes | {"problem": problem},
    )  # fmt: skip
