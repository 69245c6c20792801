"""Hebart et al. 2023, THINGS-data (fMRI, ds004192), https://doi.org/10.7554/eLife.82580.

Published betas (a pandas HDF5 table of voxels by trials) become prepared responses; where only
the raw recordings are there, their BIDS folder is linked. The table is read with h5py alone:
PyTables is not needed, and the pickled column names in the file are never unpickled. Test images
come once a session; all other object images are training.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from afterimage.datasets.bids_view import find_runs, link_common, subjects_of, write_run
from afterimage.datasets.pictures import PictureFolder
from afterimage.datasets.prepared import (
    check_splits,
    responses_writer,
    write_stimuli,
    write_tables,
)
from afterimage.datasets.registry import (
    DATASETS,
    DatasetSettings,
    Names,
    Report,
    choose_subjects,
    list_gaps,
)
from afterimage.datasets.things_tables import ResponseTable, read_rows, unit_rows
from afterimage.errors import InputError
from afterimage.io.tables import Row, whole_number

SUBJECTS = ("01", "02", "03")
N_SESSIONS = 12
_SPLITS = {"train": "train", "exp": "train", "test": "test"}
_SESSIONS = re.compile(r"things\d+")
#: Bytes of published values that are held at once.
_BYTES = 128 * 2**20
#: Where the three tables of a subject lie, and what they are called there.
_PLACES = (
    ("betas_csv", "sub-{}_{}", ("ResponseData.h5", "StimulusMetadata.csv", "VoxelMetadata.csv")),
    (".", "sub-{}_{}", ("ResponseData.h5", "StimulusMetadata.csv", "VoxelMetadata.csv")),
    (
        "derivatives/ICA-betas/sub-{}/voxel-metadata", "sub-{}_task-things_{}",
        ("voxel-wise-responses.h5", "stimulus-metadata.tsv", "voxel-metadata.tsv"),
    ),
)  # fmt: skip


class ThingsFmriSettings(DatasetSettings):
    """What is taken of THINGS-fMRI."""

    kind: Literal["things_fmri"] = "things_fmri"
    form: Literal["auto", "betas", "raw"] = Field(
        "auto", description="published betas, or the raw recordings; auto: betas where they are"
    )
    roi: Names = Field(
        (),
        description="ROI columns whose voxels are kept, joined; empty: every ROI; all: the brain",
    )
    hold_out_test_concepts: bool = Field(
        False,
        description="put training images of the test images' concepts in val, neither fitted nor "
        "scored, so that no concept is in both",
    )


@DATASETS.register("things_fmri", ThingsFmriSettings)
class ThingsFmri:
    """Reader of THINGS-fMRI.

    Parameters
    ----------
    settings : ThingsFmriSettings
    """

    def __init__(self, settings: ThingsFmriSettings) -> None:
        self._settings = settings

    def convert(
        self, source: Path, target: Path, subjects: Sequence[str], report: Report
    ) -> list[str]:
        """Write prepared responses, or a BIDS folder of links; see `DatasetReader.convert`."""
        tables = {name: found for name in SUBJECTS if (found := _tables(source, name))}
        form = self._settings.form
        if form == "auto":
            form = "betas" if tables else "raw"
        present = list(tables) if form == "betas" else subjects_of(source, SUBJECTS)
        download = (
            "betas_csv/sub-XX_ResponseData.h5, _StimulusMetadata.csv and _VoxelMetadata.csv"
            if form == "betas"
            else "those tables of betas_csv, or sub-XX/ses-things01/func/*_bold.nii.gz"
        )
        chosen = choose_subjects(subjects, SUBJECTS, present, source, download)
        pictures = PictureFolder(self._settings.stimuli or _pictures_beside(source))
        notes: list[str] = []
        stimuli: dict[str, dict[str, Any]] = {}
        for subject in chosen:
            report(f"sub-{subject}: reading {form}")
            if form == "betas":
                rows = self._convert_betas(target, subject, tables[subject], pictures, notes)
            else:
                rows = _convert_raw(source, target, subject, pictures, notes)
            stimuli |= {row["stimulus_id"]: row for row in rows}
        write_stimuli(target, list(stimuli.values()))
        pictures.link(target)
        ask = "get the THINGS images from https://osf.io/jum2f (the password is on that page)"
        return [*notes, *pictures.notes(ask)]

    def _convert_betas(
        self, target: Path, subject: str, tables: tuple[Path, Path, Path],
        pictures: PictureFolder, notes: list[str],
    ) -> list[dict[str, Any]]:  # fmt: skip
        responses, stimulus_table, voxel_table = tables
        trials = self._trials(stimulus_table, subject, notes)
        voxels = read_rows(voxel_table, required=("voxel_id",))
        keep = [index for index, row in enumerate(trials) if row["split"] != "n/a"]
        with ResponseTable(responses, n_trials=len(trials)) as table:
            ids = [whole_number(row, "voxel_id", str(voxel_table)) for row in voxels]
            table.check_voxels(ids, voxel_table)
            units = unit_rows(voxels, self._settings.roi, responses.parent, subject, notes)
            rows = np.array([unit.pop("row") for unit in units])
            step = max(1, _BYTES // (8 * len(trials)))
            with responses_writer(target, subject, len(keep), len(units), notes) as writer:
                for start in range(0, len(rows), step):
                    part = table.read(rows[start : start + step])[:, keep]
                    writer.write_units(slice(start, start + len(part)), part.T)
        kept = [trials[index] for index in keep]
        sidecar = {
            "units": "arbitrary (each run was standardised before the published fit)",
            "position_units": "mm",
            "source": f"THINGS-fMRI {responses.name}",
            "standardised": False,
        }
        write_tables(target, subject, kept, units, sidecar)
        return [
            {
                "stimulus_id": row["stimulus_id"],
                "file": pictures.find(f"{row['concept']}/{row['stimulus_id']}"),
                "split": row["split"],
                "concept": row["concept"],
            }
            for row in kept
        ]

    def _trials(self, path: Path, subject: str, notes: list[str]) -> list[dict[str, Any]]:
        """Return one row a column of the responses; catch trials have the split n/a."""
        rows = read_rows(path, required=("trial_type", "stimulus"))
        trials = []
        for row in rows:
            name = row["stimulus"].rsplit("/", 1)[-1]
            concept = row.get("concept") or re.sub(r"_\d+\w*\.\w+$", "", name)
            trials.append(
                {
                    "stimulus_id": name,
                    "session": row.get("session", "n/a"),
                    "run": row.get("run", "n/a"),
                    "split": _SPLITS.get(row["trial_type"], "n/a"),
                    "concept": concept,
                }
            )
        if not any(row["split"] == "test" for row in trials):
            raise InputError(
                "no trial is a test trial", where=str(path),
                found=", ".join(sorted({row["trial_type"] for row in rows})[:8]),
                expected="trial_type with train and test", fix="download the table again",
            )  # fmt: skip
        tested = {row["concept"] for row in trials if row["split"] == "test"}
        both = [row for row in trials if row["split"] == "train" and row["concept"] in tested]
        if both and self._settings.hold_out_test_concepts:
            for row in both:
                row["split"] = "val"
            notes.append(
                f"sub-{subject}: {len(both)} training trials of test concepts are held out (val)"
            )
        elif both:
            notes.append(
                f"sub-{subject}: {len({row['concept'] for row in both})} of {len(tested)} test "
                f"concepts are also trained on ({len(both)} trials, other images); for a split "
                "without that: --option hold_out_test_concepts=true"
            )
        return trials


def _tables(source: Path, subject: str) -> tuple[Path, Path, Path] | None:
    """Find a subject's three tables; say what is missing where only some are there."""
    for folder, pattern, endings in _PLACES:
        place = source / folder.format(subject)
        paths = [place / pattern.format(subject, ending) for ending in endings]
        there = [path for path in paths if path.is_file()]
        if len(there) == len(paths):
            return paths[0], paths[1], paths[2]
        if there:
            raise InputError(
                "a table of a subject is missing", where=str(place),
                found=", ".join(path.name for path in there),
                expected=", ".join(path.name for path in paths),
                fix="download " + ", ".join(p.name for p in paths if p not in there),
            )  # fmt: skip
    return None


def _pictures_beside(source: Path) -> Path | None:
    for name in ("stimuli", "images_THINGS/object_images", "object_images"):
        if (source / name).is_dir():
            return source / name
    return None


def _convert_raw(
    source: Path, target: Path, subject: str, pictures: PictureFolder, notes: list[str]
) -> list[dict[str, Any]]:
    """Link the runs of the main experiment, with events that name pictures."""

    def convert(path: Path, rows: list[Row]) -> list[dict[str, Any]]:
        events = []
        for row in rows:
            kind = row.get("trial_type", "n/a")
            event: dict[str, Any] = {
                "onset": row["onset"], "duration": row["duration"], "trial_type": kind,
                "response_time": row.get("response_time", "n/a"),
            }  # fmt: skip
            if kind in _SPLITS:
                if row.get("file_path", "n/a") == "n/a":
                    raise InputError(
                        "a trial names no picture", where=f"{path}, onset {row['onset']}",
                        found="file_path is n/a", expected="dog/dog_12s.jpg, ...",
                        fix="download the events table again",
                    )  # fmt: skip
                event |= {
                    "stim_file": pictures.find(row["file_path"]),
                    # The name alone, as in THINGS-EEG2 and THINGS-MEG.
                    "stimulus_id": row["file_path"].rsplit("/", 1)[-1],
                    "split": _SPLITS[kind],
                    "concept": row["file_path"].split("/")[0],
                }
            events.append(event)
        return events

    link_common(source, target, subject)
    runs = find_runs(source, subject, _SESSIONS, "things", notes)
    if gaps := list_gaps([int(run.session[6:]) for run in runs], N_SESSIONS):
        notes.append(f"sub-{subject}: sessions {gaps} are not there and are left out")
    shown = [
        row
        for run in runs
        for row in write_run(source, target, run, convert)
        if "stimulus_id" in row
    ]
    check_splits(subject, shown)
    return [
        {
            "stimulus_id": row["stimulus_id"], "file": row["stim_file"], "split": row["split"],
            "concept": row["concept"],
        }
        for row in shown
    ]  # fmt: skip
