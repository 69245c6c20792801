"""What stages that learn from all people share: recordings, their labels, and one split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from afterimage.errors import AfterimageError, ConfigError, InputError
from afterimage.io.tables import read_tsv
from afterimage.stages.series_files import Recording, read_recording, varies

#: Share of regions without a signal above which a recording is left out.
MAX_ABSENT = 0.2
MISSING = ("", "n/a")


@dataclass(frozen=True, eq=False)
class Recordings:
    """All usable recordings, over the same regions.

    Attributes
    ----------
    items : list of Recording
    regions : array of str, (n_regions,)
        Names of the regions that have a signal in every recording.
    left_out : list of AfterimageError
        Why recordings, or regions, are not among them.
    """

    items: list[Recording]
    regions: np.ndarray
    left_out: list[AfterimageError]


def read_common(paths: Sequence[Path]) -> Recordings:
    """Read series of several people; what cannot be used is left out and said.

    The regions are those of the largest number of recordings that agree on them; of these, the
    ones that are finite and change in every recording.
    """
    found: list[tuple[Path, Recording]] = []
    errors: list[AfterimageError] = []
    for path in paths:
        try:
            recording = read_recording(path)
        except InputError as error:
            errors.append(error)
            continue
        if isinstance(recording, Recording) and len(recording.values):
            found.append((path, recording))  # others were reported by the stage that made them
    if not found:
        raise InputError(
            "there is no series to learn from", found=f"{len(paths)} files, none usable",
            expected="region series of two or more people", fix="see what the series stage reports",
        )  # fmt: skip
    atlases = [tuple(recording.names.tolist()) for _, recording in found]
    regions = max(dict.fromkeys(atlases), key=atlases.count)
    items, present = [], np.ones(len(regions), bool)
    for (path, recording), named in zip(found, atlases, strict=True):
        values = recording.used()
        here = np.zeros(len(named), bool)
        if len(values) > 1:
            here = np.isfinite(values).all(0)
            here[here] = varies(values[:, here])
        if named != regions or 1 - here.mean() > MAX_ABSENT:
            errors.append(
                InputError(
                    "a recording is left out of pretraining",
                    where=str(path),
                    found=f"{len(named)} regions, {int(here.sum())} of them with a signal, "
                    f"{int(recording.kept.sum())} volumes kept",
                    expected=f"the {len(regions)} regions of the others, at most "
                    f"{MAX_ABSENT:.0%} without a signal",
                    fix="use one atlas, and look at the recording's coverage and motion",
                )
            )
            continue
        present &= here
        items.append(recording)
    if not items or not present.any():
        raise InputError(
            "no region has a signal in every recording", found=f"{len(items)} recordings",
            expected="one region or more", fix="leave out recordings of small coverage",
        )  # fmt: skip
    return Recordings([item.select(present) for item in items], np.array(regions)[present], errors)


def people_table(participants: Path | None) -> dict[str, dict[str, str]]:
    """Return the rows of ``participants.tsv`` by subject label, without ``sub-``."""
    if participants is None:
        return {}
    rows = read_tsv(participants, ("participant_id",))
    return {row["participant_id"].removeprefix("sub-"): row for row in rows}


def groups_of(
    subjects: Sequence[str], people: dict[str, dict[str, str]], column: str
) -> np.ndarray:
    """Return what must not be split of each recording: its family or site, else its person."""
    if column and not any(column in row for row in people.values()):
        raise ConfigError(
            "the column of groups is not in participants.tsv", found=column,
            expected=", ".join(next(iter(people.values()), {})) or "a participants.tsv",
            fix="change group_column, or leave it empty",
        )  # fmt: skip
    groups = []
    for subject in subjects:
        value = people.get(subject, {}).get(column, "n/a") if column else "n/a"
        groups.append(f"sub-{subject}" if value in MISSING else f"{column}-{value}")
    return np.array(groups)


def held_out(groups: np.ndarray, test_fraction: float, random_state: int) -> np.ndarray:
    """Draw the groups that are held out: bool of each recording, at least one on either side."""
    names = np.unique(groups)
    if len(names) < 2:
        raise InputError(
            "learning needs people to be held out", found=f"{len(names)} group",
            expected="two people (or families) or more", fix="add people",
        )  # fmt: skip
    n_test = int(np.clip(round(test_fraction * len(names)), 1, len(names) - 1))
    chosen = np.random.default_rng(random_state).permutation(names)[:n_test]
    return np.isin(groups, chosen)


def labels_of(
    items: Sequence[Recording], people: dict[str, dict[str, str]], column: str
) -> list[str]:
    """Return the label of each recording: of its person, or its own session, task or run."""
    if column in ("session", "task", "run"):
        return [str(getattr(item, column)) for item in items]
    if not any(column in row for row in people.values()):
        known = [*next(iter(people.values()), {}), "session", "task", "run"]
        raise ConfigError(
            "a label is unknown", found=column, expected=", ".join(known),
            fix="change probe_series.labels",
        )  # fmt: skip
    return [people.get(item.subject, {}).get(column, "n/a") for item in items]
