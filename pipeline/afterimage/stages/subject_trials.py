"""Trials of several subjects on common units and times, read in batches and never all at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from afterimage.bids.names import unit_of
from afterimage.decoding.layout import Layout
from afterimage.errors import ConfigError, InputError
from afterimage.io.arrays import open_dataset
from afterimage.io.trials import open_reader, read_layout

#: Trials read at once.
N_TRIALS_BATCH = 256
#: Modality of subjects by the kind of their units; others have no units in common.
MODALITIES = {"eeg": "eeg", "mag": "meg", "grad": "meg"}


@dataclass(frozen=True)
class Epochs:
    """Some trials of a subject: common units, times averaged in bins, read when indexed.

    Parameters
    ----------
    reader : object with ``shape`` and ``read(rows, units=, times=)``
    rows : array of int, shape (n_trials,)
    units : array of int, shape (n_units,)
    times : slice
    n_per_bin : int
    mean : array of shape (n_units, n_bins)
        Taken off every trial.
    scale : array of shape (n_units, 1)
    """

    reader: Any
    rows: np.ndarray
    units: np.ndarray
    times: slice
    n_per_bin: int
    mean: Any = 0.0
    scale: Any = 1.0

    @property
    def shape(self) -> tuple[int, int, int]:
        """(n_trials, n_units, n_bins)."""
        n_times = 1
        if len(self.reader.shape) > 2:
            n_times = len(range(*self.times.indices(self.reader.shape[2])))
        return len(self.rows), len(self.units), -(-n_times // self.n_per_bin)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any) -> np.ndarray:
        whole = np.array_equal(self.units, np.arange(self.reader.shape[1]))
        units = slice(None) if whole else self.units
        values = self.reader.read(self.rows[index], units=units, times=self.times)
        values = values if values.ndim == 3 else values[:, :, None]
        if self.n_per_bin > 1:
            starts = np.arange(0, values.shape[2], self.n_per_bin)
            sizes = np.diff([*starts, values.shape[2]])
            values = np.add.reduceat(values, starts, axis=2) / sizes
        return ((values - self.mean) / self.scale).astype(np.float32)


@dataclass(frozen=True)
class Joined:
    """Trials of several subjects after each other, read when indexed."""

    parts: Sequence[Any]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of what all trials together would be."""
        return (sum(len(part) for part in self.parts), *self.parts[0].shape[1:])

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> np.ndarray:
        wanted = np.arange(len(self))[index]
        ends = np.cumsum([len(part) for part in self.parts])
        which = np.searchsorted(ends, wanted, side="right")
        values = np.empty((len(wanted), *self.shape[1:]), np.float32)
        for number in np.unique(which):
            inside = which == number
            first = ends[number] - len(self.parts[number])
            values[inside] = self.parts[number][wanted[inside] - first]
        return values


@dataclass
class Member:
    """One subject of a comparison."""

    label: str
    reader: Any
    layout: Any
    units: np.ndarray  # identity of each unit: its name, or its kind and column
    modality: str
    times: slice = field(default_factory=lambda: slice(None))
    places: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    train: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    test: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    covariance: np.ndarray = field(default_factory=lambda: np.empty((0, 0)))


@dataclass
class Comparison:
    """Subjects of one modality on the units and times that they share.

    Attributes
    ----------
    modality : str
    members : list of Member
    layout : Layout
        Of the common units and bins; positions are means over subjects.
    n_per_bin : int
    notes : list of str
        Who and what was left out, and why.
    dropped : dict of str to list of str
        Units of each subject that not all subjects have.
    """

    modality: str
    members: list[Member]
    layout: Layout
    n_per_bin: int
    notes: list[str]
    dropped: dict[str, list[str]]

    def epochs(self, member: Member, rows: np.ndarray) -> Epochs:
        """Trials of a member before they are centred and scaled."""
        return Epochs(member.reader, rows, member.places, member.times, self.n_per_bin)

    def scaling(self, member: Member) -> tuple[np.ndarray, np.ndarray]:
        """Mean response and spread of each unit over a subject's training trials, without labels.

        Also stores the covariance of the member's units, (n_units, n_units), so standardised.
        """
        source = self.epochs(member, member.train)
        shift = source[:1][0].astype(np.float64)
        total, squares = np.zeros_like(shift), np.zeros((len(shift), len(shift)))
        for start in range(0, len(source), N_TRIALS_BATCH):
            values = source[np.arange(start, min(start + N_TRIALS_BATCH, len(source)))] - shift
            if not np.isfinite(values).all():
                raise InputError(
                    "a value that is not finite", where=f"sub-{member.label}, training trials",
                    found="responses", expected="finite numbers",
                    fix="leave out the units or trials that have missing values",
                )  # fmt: skip
            total += values.sum(0)
            squares += np.einsum("nut,nvt->uv", values, values, optimize=True)
        n_values = len(source) * shift.shape[1]
        mean = total / len(source)
        covariance = squares / n_values - mean @ mean.T / shift.shape[1]
        scale = np.sqrt(np.maximum(np.diagonal(covariance), 0))
        scale[scale <= 1e-7 * np.abs(mean + shift).max(1)] = np.inf
        scale[scale == 0] = np.inf
        member.covariance = covariance / np.outer(scale, scale)
        return mean + shift, scale[:, None]


def open_members(paths: Sequence[Path], stack: ExitStack) -> tuple[list[Member], list[str]]:
    """Open the trials of all subjects; those whose units nobody else can have are noted."""
    members, notes = [], []
    for path in paths:
        label = unit_of(path).removeprefix("sub-")
        layout = read_layout(path)
        kinds = {MODALITIES.get(kind, kind) for kind in np.unique(layout.kind).tolist()}
        if len(kinds) > 1 or not kinds <= set(MODALITIES.values()):
            notes.append(
                f"sub-{label} is not compared: units of kind {', '.join(sorted(kinds))} are the "
                "subject's own"
            )
            continue
        with open_dataset(path) as dataset:
            if "name" in dataset.variables:
                units = dataset["name"].values.astype(str)
            else:
                column = dataset["column"].values if "column" in dataset.variables else None
                place = np.arange(layout.n_units) if column is None else column
                units = np.array(
                    [f"{kind}{n}" for kind, n in zip(layout.kind, place, strict=True)]
                )
        reader = stack.enter_context(open_reader(path))
        members.append(Member(label, reader, layout, units, kinds.pop()))
    return members, notes


def compare(
    modality: str,
    members: Sequence[Member],
    tmin_s: float | None,
    tmax_s: float | None,
    bin_s: float,
) -> Comparison | None:
    """Find the times and units that the subjects share, and leave out who does not share them.

    Returns
    -------
    Comparison or None
        None where fewer than two subjects are left.
    """
    notes: list[str] = []
    kept, times_s = _same_times(members, tmin_s, tmax_s, notes)
    counts = Counter(name for member in kept for name in member.units.tolist())
    usual = {name for name, n in counts.items() if 2 * n >= len(kept)}
    alike = []
    for member in kept:
        shared = usual & set(member.units.tolist())
        if 2 * len(shared) < len(usual):
            notes.append(
                f"sub-{member.label} is left out: only {len(shared)} of the {len(usual)} units "
                "that most subjects have"
            )
        else:
            alike.append(member)
    if len(alike) < 2:
        return None
    common = set.intersection(*(set(member.units.tolist()) for member in alike))
    names = [name for name in alike[0].units.tolist() if name in common]
    dropped = {}
    for member in alike:
        place = {name: number for number, name in enumerate(member.units.tolist())}
        member.places = np.array([place[name] for name in names], np.int64)
        own = [name for name in member.units.tolist() if name not in common]
        if own:
            dropped[member.label] = own
            notes.append(
                f"sub-{member.label}: {len(own)} units that not all subjects have are left out"
            )
    if not names:
        return None
    step_s = float(np.median(np.diff(times_s))) if len(times_s) > 1 else 0.0
    n_per_bin = max(1, round(bin_s / step_s)) if step_s else 1
    starts = np.arange(0, len(times_s), n_per_bin)
    centres = np.array([times_s[start : start + n_per_bin].mean() for start in starts])
    layout = Layout(
        len(names), len(centres), centres, _positions(alike),
        np.asarray(alike[0].layout.kind)[alike[0].places].astype(str),
    )  # fmt: skip
    return Comparison(modality, alike, layout, n_per_bin, notes, dropped)


def _same_times(
    members: Sequence[Member], tmin_s: float | None, tmax_s: float | None, notes: list[str]
) -> tuple[list[Member], np.ndarray]:
    """Keep the subjects with the most common times in the window; return these times."""
    times = []
    for member in members:
        member.times = member.reader.window(tmin_s, tmax_s)
        own = member.layout.times_s[member.times] if member.layout.n_times else np.zeros(1)
        times.append(tuple(np.round(own, 6).tolist()))
    (usual, _), *_ = Counter(times).most_common(1)
    if not usual:
        raise ConfigError(
            "no time lies within the window", where="evaluate_subjects",
            found=f"tmin_s {tmin_s}, tmax_s {tmax_s}", expected="a window within the trials",
        )  # fmt: skip
    kept = []
    for member, own in zip(members, times, strict=True):
        if own == usual:
            kept.append(member)
        else:
            notes.append(f"sub-{member.label} is left out: other times than most subjects")
    return kept, np.array(usual)


def _positions(members: Sequence[Member]) -> np.ndarray:
    """Mean over subjects of the places of the common units; NaN where one does not know it."""
    mean: np.ndarray = np.mean(
        [np.asarray(member.layout.positions, float)[member.places] for member in members], axis=0
    )
    return mean


def components(members: Sequence[Member], n_max: int) -> np.ndarray | None:
    """Principal components over units of all members together; None where there are few units."""
    n_units = len(members[0].covariance)
    if n_units <= n_max:
        return None
    total: np.ndarray = np.mean([member.covariance for member in members], axis=0)
    return np.asarray(np.linalg.eigh(total)[1][:, ::-1][:, :n_max])


def choose_trials(
    members: Sequence[Member],
    training: Mapping[str, Any],
    test: Mapping[str, Any],
    notes: list[str],
) -> None:
    """Choose the trials of each subject whose pictures have features and are in one split only."""
    held_out = {
        name
        for member in members
        for name in member.reader.stimulus[member.reader.split == "test"].tolist()
    }
    for member in members:
        stimulus, split = member.reader.stimulus, member.reader.split
        member.test = np.flatnonzero((split == "test") & np.isin(stimulus, list(test)))
        rows = np.flatnonzero((split == "train") & np.isin(stimulus, list(training)))
        clean = ~np.isin(stimulus[rows], list(held_out))
        if not clean.all():
            notes.append(
                f"sub-{member.label}: {int((~clean).sum())} training trials of pictures that are "
                "test pictures of another subject are left out"
            )
        member.train = rows[clean]
