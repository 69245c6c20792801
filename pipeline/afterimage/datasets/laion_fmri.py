"""LAION-fMRI (Hebart laboratory, 2026), https://laion-fmri.hebartlab.com: no DOI is known yet.

Single-trial betas, one NIfTI file a session (12 GB unpacked), become prepared responses: a
compressed file is unpacked once and only voxels of the mask are kept. The split is one of those
that the dataset publishes (package ``laion_fmri``), which guard against near copies between
training and test; trials of pictures outside the split are left out.
"""

from __future__ import annotations

import csv
import importlib.util
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from afterimage.datasets.pictures import PictureFolder
from afterimage.datasets.prepared import responses_writer, write_stimuli, write_tables
from afterimage.datasets.registry import (
    DATASETS,
    DatasetSettings,
    Names,
    Numbers,
    Report,
    choose_subjects,
)
from afterimage.datasets.volumes import (
    count_volumes,
    read_volume,
    read_volumes,
    voxel_positions,
)
from afterimage.errors import ConfigError, InputError
from afterimage.io.arrays import open_hdf5
from afterimage.io.atomic import atomic_path
from afterimage.io.tables import Row, read_json, read_text, read_tsv, whole_number

SUBJECTS = ("01", "03", "05", "06", "07")
_GLM = "derivatives/glmsingle-tedana/sub-{}"
_BETAS = (
    "sub-{0}_ses-{1}_task-images_space-T1w_stat-effect_desc-SingletrialBetas_statmap.nii.gz",
    "sub-{0}_ses-{1}_task-images_desc-singletrial_stat-effect_statmap.nii.gz",
)
_TRIALS = (
    "sub-{0}_ses-{1}_task-images_desc-SingletrialBetas_trials.tsv",
    "sub-{0}_ses-{1}_task-images_desc-GLMsingle_events.tsv",
)
_SPLIT = re.compile(r"random_[0-4]|cluster_k5_[0-4]|tau|ood|none")


class LaionFmriSettings(DatasetSettings):
    """What is taken of LAION-fMRI."""

    kind: Literal["laion_fmri"] = "laion_fmri"
    split: str = Field(
        "tau",
        description="published split: tau, ood, random_0 to random_4, cluster_k5_0 to cluster_k5_4; "
        "none: no split, all trials",
    )
    pool: Literal["subject", "shared"] = Field(
        "subject", description="pictures of the split: all of the subject, or those all have seen"
    )
    splits: Path | None = Field(
        None, description="folder splits/data of the package laion_fmri, where it is not installed"
    )
    roi: Names = Field((), description="regions whose voxels are kept, joined; empty: the mask")
    min_r2_percent: float = Field(
        15, ge=0, le=100, description="mean R2 of voxels to keep, where there is no published mask"
    )
    sessions: Numbers = Field((), description="sessions to take; empty: all that are there")


@DATASETS.register("laion_fmri", LaionFmriSettings)
class LaionFmri:
    """Reader of LAION-fMRI.

    Parameters
    ----------
    settings : LaionFmriSettings
    """

    def __init__(self, settings: LaionFmriSettings) -> None:
        if not _SPLIT.fullmatch(settings.split):
            raise ConfigError(
                "the dataset has no such split", found=settings.split,
                expected="tau, ood, random_0 .. random_4, cluster_k5_0 .. cluster_k5_4, none",
                fix="check the option split",
            )  # fmt: skip
        self._settings = settings

    def convert(
        self, source: Path, target: Path, subjects: Sequence[str], report: Report
    ) -> list[str]:
        """Write prepared responses of the subjects; see `DatasetReader.convert`."""
        present = [name for name in SUBJECTS if (source / _GLM.format(name)).is_dir()]
        chosen = choose_subjects(
            subjects, SUBJECTS, present, source, f"{_GLM.format('XX')}/ses-YY/func/{_BETAS[0]}"
        )
        notes: list[str] = []
        labels: dict[str, str] = {}
        for subject in chosen:
            report(f"sub-{subject}: reading betas of session after session")
            for name, split in self._convert_subject(source, target, subject, notes):
                # Where subjects have different splits, only their trials tables say which.
                labels[name] = split if labels.get(name, split) == split else "n/a"
        self._write_pictures(source, target, labels, report, notes)
        return notes

    def _convert_subject(
        self, source: Path, target: Path, subject: str, notes: list[str]
    ) -> list[tuple[str, str]]:
        folder = source / _GLM.format(subject)
        sessions = self._sessions(folder, subject)
        mask, affine = self._mask(source, folder, subject)
        split = self._read_split(source, subject)
        rows: list[dict[str, Any]] = []
        keep: list[np.ndarray] = []
        for number, (betas, table) in sessions.items():
            trials = read_trials(betas, table, mask.shape)
            kept = np.array([split is None or row["label"] in split for row in trials])
            keep.append(kept)
            for row, inside in zip(trials, kept, strict=True):
                if inside:
                    name = row["label"]
                    run = row.get("run", "n/a").removeprefix("run-")
                    trial = {"stimulus_id": name, "session": f"{number:02d}", "run": run}
                    rows.append(trial | ({"split": split[name]} if split else {}))
        if n_out := sum(int((~inside).sum()) for inside in keep):
            notes.append(
                f"sub-{subject}: {n_out} trials of pictures outside the split "
                f"{self._settings.split} ({self._settings.pool}) are left out"
            )
        with responses_writer(target, subject, len(rows), int(mask.sum()), notes) as writer:
            for (betas, _), kept in zip(sessions.values(), keep, strict=True):
                start = 0
                for piece in read_volumes(betas, mask):
                    writer.append(piece[kept[start : start + len(piece)]])
                    start += len(piece)
        units = _units(source, folder, subject, mask, affine)
        sidecar = {
            "units": "percent signal change, shrunk by ridge regression",
            "position_units": "mm",
            "source": "LAION-fMRI, GLMsingle on optimally combined echoes",
            "split": f"{self._settings.split}, pool {self._settings.pool}",
            "standardised": False,
        }
        write_tables(target, subject, rows, units, sidecar)
        return [(row["stimulus_id"], row.get("split", "n/a")) for row in rows]

    def _sessions(self, folder: Path, subject: str) -> dict[int, tuple[Path, Path]]:
        sessions = {}
        for place in sorted(folder.glob("ses-*/func")):
            label = place.parent.name.removeprefix("ses-")
            number = int(label) if label.isdigit() else -1
            if number < 0 or (self._settings.sessions and number not in self._settings.sessions):
                continue
            betas = _first(place, _BETAS, subject, label)
            table = _first(place, _TRIALS, subject, label)
            if betas and table:
                sessions[number] = (betas, table)
            elif betas or table:
                raise InputError(
                    "a session is not complete", where=str(place), found=(betas or table or place).name,
                    expected=f"{_BETAS[0].format(subject, label)} and "
                    f"{_TRIALS[0].format(subject, label)}",
                    fix="download the other file, or leave the session out by the option sessions",
                )  # fmt: skip
        if not sessions:
            raise InputError(
                "the betas of every session are missing", where=str(folder), found="none",
                expected=_BETAS[0].format(subject, "01"), fix="download them",
            )  # fmt: skip
        return sessions

    def _mask(self, source: Path, folder: Path, subject: str) -> tuple[np.ndarray, np.ndarray]:
        """Return the published mask, else voxels of enough mean R2, inside the named regions."""
        prefix = f"sub-{subject}_task-images_space-T1w"
        published = folder / f"{prefix}_desc-meanR2gt15mask_mask.nii.gz"
        mean_r2 = folder / f"{prefix}_stat-rsquare_desc-R2mean_statmap.nii.gz"
        if published.is_file():
            values, affine = read_volume(published)
            mask = values > 0
        elif mean_r2.is_file():
            values, affine = read_volume(mean_r2)
            mask = np.nan_to_num(values) > self._settings.min_r2_percent
        else:
            raise InputError(
                "the mask of a subject is missing", where=str(folder), found="neither file",
                expected=f"{published.name} or {mean_r2.name}", fix="download one of them",
            )  # fmt: skip
        regions = roi_files(source, subject)
        if unknown := [name for name in self._settings.roi if name not in regions]:
            raise InputError(
                "the dataset has no such region", where=f"sub-{subject}", found=", ".join(unknown),
                expected=", ".join(regions) or "masks in derivatives/rois",
                fix="check the option roi",
            )  # fmt: skip
        if self._settings.roi:
            joined = [read_volume(regions[n], mask.shape)[0] > 0 for n in self._settings.roi]
            mask &= np.logical_or.reduce(joined)
        return mask, affine

    def _read_split(self, source: Path, subject: str) -> dict[str, str] | None:
        if self._settings.split == "none":
            return None
        pool = "shared" if self._settings.pool == "shared" else f"sub-{subject}"
        folders = [self._settings.splits, source / "splits" / "data", _installed_splits()]
        for folder in folders:
            path = folder / pool / f"{self._settings.split}.json" if folder else None
            if path and path.is_file():
                variant = read_json(path)["variants"][0]
                split = dict.fromkeys(variant["train_ids"], "train")
                if both := split.keys() & set(variant["test_ids"]):
                    raise InputError(
                        "a picture is in two splits", where=str(path), found=sorted(both)[0],
                        expected="each picture once", fix="take the file as it was published",
                    )  # fmt: skip
                return split | dict.fromkeys(variant["test_ids"], "test")
        raise InputError(
            "the published split is missing", where=str(source),
            found="no installed package laion_fmri and no option splits",
            expected=f"{pool}/{self._settings.split}.json",
            fix="pip install laion-fmri, or --option splits=FOLDER with its splits/data, "
            "or --option split=none",
        )  # fmt: skip

    def _write_pictures(
        self, source: Path, target: Path, labels: dict[str, str], report: Report, notes: list[str]
    ) -> None:
        archive = source / "stimuli" / "task-images_stimuli.h5"
        table = source / "stimuli" / "task-images_metadata.csv"
        rows = [{"stimulus_id": n, "file": n, "split": s} for n, s in sorted(labels.items())]
        if self._settings.stimuli is not None:
            pictures = PictureFolder(self._settings.stimuli)
            for row in rows:
                row["file"] = pictures.find(row["file"])
            pictures.link(target)
            notes += pictures.notes("see the option stimuli")
        elif archive.is_file() and table.is_file():
            report(f"writing {len(labels)} pictures")
            extract_pictures(archive, table, target / "stimuli", sorted(labels))
        else:
            (target / "stimuli").mkdir(parents=True, exist_ok=True)
            notes.append(
                f"no picture was written: {archive.name} and {table.name} are not in stimuli/. Ask "
                "for them at https://laion-fmri.hebartlab.com/request and import again"
            )
        write_stimuli(target, rows)


def read_trials(betas: Path, table: Path, shape: tuple[int, ...]) -> list[Row]:
    """Read the table of trials of one session: a row a volume of the betas, in their order.

    Parameters
    ----------
    betas, table : Path
        The files of the session.
    shape : tuple of int
        The grid of the mask, which the betas must have.

    Raises
    ------
    InputError
        If the numbers differ, or ``beta_index`` does not count the volumes from 0.
    """
    rows = read_tsv(table, required=("label",))
    n_volumes, _ = count_volumes(betas, shape)
    if len(rows) != n_volumes:
        raise InputError(
            "betas and trials differ in number", where=f"{betas} and {table.name}",
            found=f"{n_volumes} volumes, {len(rows)} rows", expected="one row a volume",
            fix="download both files again",
        )  # fmt: skip
    if "beta_index" not in rows[0]:
        return rows
    indices = [whole_number(row, "beta_index", str(table)) for row in rows]
    if sorted(indices) != list(range(n_volumes)):
        raise InputError(
            "the index of the betas does not count from 0", where=f"{table}, beta_index",
            found=f"{min(indices)} to {max(indices)}", expected=f"0 to {n_volumes - 1}, each once",
            fix="take the table as it was published",
        )  # fmt: skip
    return [row for _, row in sorted(zip(indices, rows, strict=True), key=lambda pair: pair[0])]


def roi_files(source: Path, subject: str) -> dict[str, Path]:
    """Return the ROI masks of a subject by name: the entity ``label`` or ``desc``, or the file's."""
    found: dict[str, Path] = {}
    for folder in ("derivatives/rois", "derivatives/atlases"):
        for path in sorted((source / folder / f"sub-{subject}").rglob("*.nii.gz")):
            name = path.name.removesuffix(".nii.gz")
            entities = dict(part.split("-", 1) for part in name.split("_") if "-" in part)
            found.setdefault(entities.get("label", entities.get("desc", name)), path)
    return found


def _units(
    source: Path, folder: Path, subject: str, mask: np.ndarray, affine: np.ndarray
) -> list[dict[str, Any]]:
    """Return one row a voxel: position, regions and published noise ceilings (percent of R2)."""
    units: list[dict[str, Any]] = [
        {"kind": "voxel", "roi": "n/a", "rois": "n/a", **row}
        for row in voxel_positions(mask, affine)
    ]
    for name, path in roi_files(source, subject).items():
        values, _ = read_volume(path)
        if values.shape != mask.shape:
            continue  # other spaces are published too; only those of the betas are of use
        for index in np.flatnonzero(values[mask] > 0):
            unit = units[index]
            unit["rois"] = name if unit["rois"] == "n/a" else f"{unit['rois']};{name}"
            unit["roi"] = name if unit["roi"] == "n/a" else unit["roi"]
    for path in sorted(folder.glob(f"sub-{subject}_*desc-[Nn]oiseceiling*_statmap.nii.gz")):
        found = re.search(r"desc-([a-zA-Z0-9]+)_", path.name)
        values = read_volume(path, mask.shape)[0][mask]
        for unit, value in zip(units, values, strict=True):
            unit[f"{found[1].lower() if found else 'noiseceiling'}_percent"] = float(value)
    return units


def _first(folder: Path, patterns: Sequence[str], subject: str, session: str) -> Path | None:
    paths = (folder / pattern.format(subject, session) for pattern in patterns)
    return next((path for path in paths if path.is_file()), None)


def _installed_splits() -> Path | None:
    found = importlib.util.find_spec("laion_fmri")
    return Path(found.origin).parent / "splits" / "data" if found and found.origin else None


def extract_pictures(archive: Path, table: Path, folder: Path, names: Sequence[str]) -> None:
    """Write pictures of the HDF5 archive (encoded bytes, in the order of the table) as files."""
    rows = list(csv.DictReader(io.StringIO(read_text(table))))
    place = {row["image_name"]: index for index, row in enumerate(rows) if "image_name" in row}
    with open_hdf5(archive) as file:
        images = file["images"]
        if len(images) != len(rows):
            raise InputError(
                "pictures and their table differ in number", where=f"{archive} and {table.name}",
                found=f"{len(images)} pictures, {len(rows)} rows", expected="one row a picture",
                fix="download both files again",
            )  # fmt: skip
        if absent := [name for name in names if name not in place]:
            raise InputError(
                "a picture that was shown is not in the table of pictures", where=str(table),
                found=f"no {absent[0]} ({len(absent)} such)", expected="every label of the trials",
                fix="take betas and pictures of the same release",
            )  # fmt: skip
        for name in names:
            if not (folder / name).is_file():
                with atomic_path(folder / name) as temporary:
                    temporary.write_bytes(bytes(images[place[name]]))
