"""What the datasets of the Kamitani laboratory have in common: names, sessions, masks, views."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from afterimage.datasets.bids_view import (
    describe_rois,
    find_runs,
    join_roi_masks,
    link_common,
    write_run,
)
from afterimage.datasets.pictures import PictureFolder
from afterimage.datasets.prepared import check_splits, write_stimuli
from afterimage.datasets.registry import Report
from afterimage.errors import InputError
from afterimage.io.tables import Row

#: Gets the label of a session and the published rows of a run; gives the new rows.
ConvertSession = Callable[[str, list[Row]], list[dict[str, Any]]]
_MISSING = {"", "n/a", "on/a", "nan", "NaN", "N/A"}


def is_missing(cell: str | None) -> bool:
    """Tell whether a cell is empty; some letter runs say ``on/a``."""
    return cell is None or cell in _MISSING


def image_name(stimulus_id: str) -> str:
    """Return the ImageNet name behind a float id: ``3626115.019498`` is ``n03626115_19498``.

    The floats carry rounding errors; six digits behind the point are the number of the image.
    """
    millionths = round(float(stimulus_id) * 1_000_000)
    category, image = divmod(millionths, 1_000_000)
    return f"n{category:08d}_{image}"


def split_of(session: str, splits: Mapping[str, str]) -> str:
    """Return the split of a session by the beginning of its label."""
    return next(split for start, split in splits.items() if session.startswith(start))


def roi_files(source: Path, subject: str) -> dict[str, list[Path]]:
    """Return the mask files of each region, one a hemisphere, from ``sourcedata``."""
    pattern = re.compile(rf"sub-{subject}_mask_(?:LH|RH)_(.+?)\.nii(?:\.gz)?")
    masks: dict[str, list[Path]] = {}
    for path in sorted((source / "sourcedata" / f"sub-{subject}").rglob("*_mask_*.nii*")):
        if (found := pattern.fullmatch(path.name)) and path.is_file():
            masks.setdefault(found[1], []).append(path)
    return masks


def convert_rows(
    rows: Sequence[Row],
    split: str,
    classify: Callable[[Row], str],
    name: Callable[[Row], str],
    pictures: PictureFolder,
    *,
    keep_repetitions: bool,
) -> list[dict[str, Any]]:
    """Turn published events into events that name pictures.

    Parameters
    ----------
    rows : list of dict
        The published rows.
    split : str
        Split of the run's session.
    classify : callable
        Gives ``stimulus``, ``repetition`` or another word for a row.
    name : callable
        Gives the name of the picture of a row.
    pictures : PictureFolder
        Finds the picture.
    keep_repetitions : bool
        Whether the second of two equal pictures in a row counts as a trial of the picture.
    """
    events = []
    for row in rows:
        kind = classify(row)
        shown = kind == "stimulus" or (kind == "repetition" and keep_repetitions)
        event: dict[str, Any] = {
            "onset": row["onset"],
            "duration": row["duration"],
            "trial_type": kind,
            "response_time": row.get("response_time", "n/a"),
        }
        if shown:
            picture = name(row)
            event |= {
                "stim_file": pictures.find(picture), "stimulus_id": picture, "split": split,
            }  # fmt: skip
        events.append(event)
    return events


def _converted(
    convert: ConvertSession, session: str, path: Path, rows: list[Row]
) -> list[dict[str, Any]]:
    try:
        return convert(session, rows)
    except InputError as error:
        error.where = f"{path}, {error.where}" if error.where else str(path)
        raise


def write_view(
    source: Path,
    target: Path,
    subjects: Sequence[str],
    sessions: re.Pattern[str],
    convert: ConvertSession,
    pictures: PictureFolder,
    report: Report,
    dataset: str,
) -> list[str]:
    """Write the BIDS view of a Kamitani dataset: runs, events, masks, pictures.

    Parameters
    ----------
    source, target : Path
    subjects : sequence of str
    sessions : pattern
        Labels of the sessions to take.
    convert : callable
        Gets the label of a session and the published rows of a run; gives the new ones.
    pictures : PictureFolder
    report : callable
    dataset : str
        Name, for the description of the masks.

    Returns
    -------
    list of str
        Notes.
    """
    notes: list[str] = []
    stimuli: dict[str, dict[str, Any]] = {}
    for subject in subjects:
        report(f"sub-{subject}: linking runs and writing events")
        link_common(source, target, subject)
        runs = find_runs(source, subject, sessions, "perception", notes)
        shown = []
        for run in runs:
            rows = write_run(source, target, run, partial(_converted, convert, run.session))
            shown += [row for row in rows if "stimulus_id" in row]
        check_splits(subject, shown)
        for row in shown:
            stimuli[row["stimulus_id"]] = {
                "stimulus_id": row["stimulus_id"], "file": row["stim_file"], "split": row["split"],
            }  # fmt: skip
        if not runs:
            notes.append(f"sub-{subject}: no run of these sessions is there")
        masks = roi_files(source, subject)
        if not masks:
            notes.append(f"sub-{subject}: no ROI masks in sourcedata; voxels are chosen from data")
        join_roi_masks(target, subject, masks, notes)
    describe_rois(target, dataset)
    write_stimuli(target, list(stimuli.values()))
    pictures.link(target)
    return notes
