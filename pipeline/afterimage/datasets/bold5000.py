"""Chang et al. 2019, BOLD5000 (ds001499, betas of release 2), https://doi.org/10.1038/s41597-019-0052-3.

Single-trial betas of release 2 become prepared responses: volumes inside the brain mask, or the
arrays of the regions of interest. ``CSIx_imgnames.txt`` lists the pictures of all trials of all
sessions. The affine stored with the betas is wrong; that of the brain mask is used. The 113
repeated pictures are the test set.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
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
    Report,
    choose_subjects,
    require_file,
)
from afterimage.datasets.volumes import (
    count_volumes,
    read_volume,
    read_volumes,
    voxel_positions,
)
from afterimage.errors import InputError
from afterimage.io.arrays import open_npy
from afterimage.io.tables import read_text

#: Sessions of each subject.
SESSIONS = {"CSI1": 15, "CSI2": 15, "CSI3": 15, "CSI4": 9}
ROIS = ("EarlyVis", "LOC", "OPA", "PPA", "RSC")
TRIALS_A_RUN = 37
N_REPEATED = 113
_REPEATED = "repeated_stimuli_113_list.txt"
_ROWS = 256


class Bold5000Settings(DatasetSettings):
    """Which betas of BOLD5000 are taken."""

    kind: Literal["bold5000"] = "bold5000"
    betas: Literal[
        "TYPEA-ASSUMEHRF", "TYPEB-FITHRF", "TYPEC-FITHRF-GLMDENOISE", "TYPED-FITHRF-GLMDENOISE-RR"
    ] = Field("TYPED-FITHRF-GLMDENOISE-RR", description="release of single-trial betas")
    form: Literal["auto", "rois", "volumes"] = Field(
        "auto",
        description="arrays of regions, or volumes in the brain mask; auto: regions if there",
    )
    roi: Names = Field(ROIS, description="regions to take, where arrays of regions are read")


@DATASETS.register("bold5000", Bold5000Settings)
class Bold5000:
    """Reader of BOLD5000.

    Parameters
    ----------
    settings : Bold5000Settings
    """

    def __init__(self, settings: Bold5000Settings) -> None:
        self._settings = settings

    def convert(
        self, source: Path, target: Path, subjects: Sequence[str], report: Report
    ) -> list[str]:
        """Write prepared responses of the subjects; see `DatasetReader.convert`."""
        paths = {path.name: path for path in sorted(source.rglob("CSI*")) if path.is_file()}
        present = [name for name in SESSIONS if any(file.startswith(name) for file in paths)]
        download = (
            f"CSIx_GLMbetas-{self._settings.betas}_ses-NN.nii.gz, CSIx_brainmask.nii.gz and "
            "CSIx_imgnames.txt"
        )
        chosen = choose_subjects(subjects, list(SESSIONS), present, source, download)
        pictures = PictureFolder(self._settings.stimuli or _presented(source), ".jpg")
        notes: list[str] = []
        repeated = _repeated(source, notes)
        stimuli: dict[str, dict[str, Any]] = {}
        for subject in chosen:
            report(f"sub-{subject}: reading betas")
            arrays = self._roi_arrays(paths, subject)
            images = _images(paths, subject, source)
            split = _splits(images, repeated)
            if self._settings.form == "rois" and not arrays:
                raise InputError(
                    "arrays of regions are missing", where=str(source),
                    found="none of this subject", fix="download BOLD5000_GLMsingle_ROI_betas.zip",
                    expected=f"{subject}_GLMbetas-{self._settings.betas}_allses_LHEarlyVis.npy",
                )  # fmt: skip
            if arrays and self._settings.form != "volumes":
                trials = _convert_arrays(target, subject, arrays, images, split, notes)
            else:
                trials = self._convert_volumes(
                    source, target, subject, paths, images, split, notes
                )
            for row in trials:
                name = row["stimulus_id"]
                stimuli[name] = {
                    "stimulus_id": name, "file": pictures.find(name), "split": row["split"],
                }  # fmt: skip
        write_stimuli(target, list(stimuli.values()))
        pictures.link(target)
        return [
            *notes,
            *pictures.notes("get BOLD5000_Stimuli.zip from bold5000-dataset.github.io"),
        ]

    def _roi_arrays(self, paths: Mapping[str, Path], subject: str) -> dict[str, Path]:
        arrays = {}
        for roi in self._settings.roi:
            for side in ("LH", "RH"):
                name = f"{subject}_GLMbetas-{self._settings.betas}_allses_{side}{roi}.npy"
                if name in paths:
                    arrays[f"{side}{roi}"] = paths[name]
        return arrays

    def _convert_volumes(
        self, source: Path, target: Path, subject: str, paths: Mapping[str, Path],
        images: Sequence[str], split: Mapping[str, str], notes: list[str],
    ) -> list[dict[str, Any]]:  # fmt: skip
        name = f"{subject}_brainmask.nii.gz"
        values, affine = read_volume(
            require_file(paths.get(name, source / name), "the brain mask", name)
        )
        mask = values > 0
        files: dict[int, Path] = {}
        pattern = re.compile(
            rf"{subject}_GLMbetas-{re.escape(self._settings.betas)}_ses-(\d+)\.nii(?:\.gz)?"
        )
        for file, path in paths.items():
            if found := pattern.fullmatch(file):
                files[int(found[1])] = path
        if not files:
            require_file(source / f"{subject}_GLMbetas-{self._settings.betas}_ses-01.nii.gz",
                         "the file of betas of every session", pattern.pattern)  # fmt: skip
        sizes = {}
        for number, path in sorted(files.items()):
            sizes[number], _ = count_volumes(path, mask.shape)
        starts = _starts(subject, sizes, len(images), notes)
        trials = _trial_rows(images, split, sizes, starts)
        with responses_writer(target, subject, len(trials), int(mask.sum()), notes) as writer:
            for number in sorted(files):
                for piece in read_volumes(files[number], mask):
                    writer.append(piece)
        units = [{"kind": "voxel", "roi": "n/a", **row} for row in voxel_positions(mask, affine)]
        write_tables(target, subject, trials, units, _sidecar(self._settings.betas, "brain mask"))
        return trials


def _convert_arrays(
    target: Path, subject: str, arrays: Mapping[str, Path], images: Sequence[str],
    split: Mapping[str, str], notes: list[str],
) -> list[dict[str, Any]]:  # fmt: skip
    """Put the arrays of regions side by side; each is (n_trials, n_voxels)."""
    opened = {roi: open_npy(path) for roi, path in arrays.items()}
    for roi, array in opened.items():
        if array.ndim != 2 or len(array) != len(images):
            turned = array.ndim == 2 and array.shape[1] == len(images)
            raise InputError(
                "an array of a region is transposed" if turned
                else "betas and pictures differ in number",
                where=str(arrays[roi]), found=f"shape {array.shape}",
                expected=f"({len(images)}, n_voxels): a row a line of {subject}_imgnames.txt",
                fix="take both files of the same subject, as they were published",
            )  # fmt: skip
    n_units = sum(array.shape[1] for array in opened.values())
    trials = _trial_rows(images, split, {}, {})
    with responses_writer(target, subject, len(images), n_units, notes) as writer:
        for start in range(0, len(images), _ROWS):
            parts = [array[start : start + _ROWS] for array in opened.values()]
            writer.append(np.concatenate(parts, axis=1).astype(np.float32))
    units = [
        {"kind": "voxel", "roi": roi[2:], "hemisphere": roi[0]}
        for roi, array in opened.items()
        for _ in range(array.shape[1])
    ]
    notes.append(f"sub-{subject}: arrays of regions have no positions and no sessions")
    betas = next(iter(arrays.values())).name.split("_GLMbetas-")[1].split("_allses")[0]
    write_tables(target, subject, trials, units, _sidecar(betas, "arrays of regions"))
    return trials


def _sidecar(betas: str, form: str) -> dict[str, Any]:
    return {
        "units": "percent signal change",
        "position_units": "mm",
        "source": f"BOLD5000 release 2, {betas}, {form}",
        "standardised": False,
    }


def _images(paths: Mapping[str, Path], subject: str, source: Path) -> list[str]:
    """Return the picture of every trial of all sessions; a leading ``rep_`` is no part of it."""
    name = f"{subject}_imgnames.txt"
    path = require_file(paths.get(name, source / name), "the list of pictures", name)
    lines = [line.strip() for line in read_text(path).splitlines() if line.strip()]
    return [line.rsplit("/", 1)[-1].removeprefix("rep_") for line in lines]


def _repeated(source: Path, notes: list[str]) -> set[str] | None:
    """Return the names of the repeated pictures, or None where there is no list of them."""
    path = next(iter(sorted(source.rglob(_REPEATED))), None)
    if path is None:
        notes.append(
            f"no {_REPEATED}: pictures that a subject saw more than once are taken as the test set"
        )
        return None
    names = {line.strip() for line in read_text(path).splitlines() if line.strip()}
    if len(names) != N_REPEATED:
        notes.append(f"{path.name} names {len(names)} pictures, the published list {N_REPEATED}")
    return names


def _splits(images: Sequence[str], repeated: set[str] | None) -> dict[str, str]:
    """Return the split of every picture of a subject."""
    if repeated is None:
        repeated = {name for name, count in Counter(images).items() if count > 1}
    split = {name: "test" if name in repeated else "train" for name in images}
    if "test" not in split.values():
        raise InputError(
            "no picture is a test picture", where=_REPEATED, found=", ".join(sorted(repeated)[:3]),
            expected=f"names as in the list of pictures: {images[0]}, ...",
            fix="take both lists as they were published",
        )  # fmt: skip
    return split


def _starts(
    subject: str, sizes: Mapping[int, int], n_images: int, notes: list[str]
) -> dict[int, int]:
    """Return the line at which each session begins in the list of pictures.

    The list has no marks between sessions. Where files of one stretch of sessions are missing,
    their trials are what the others leave over.
    """
    last = SESSIONS[subject]
    absent = [number for number in range(1, last + 1) if number not in sizes]
    left = n_images - sum(sizes.values())
    one_stretch = not absent or absent[-1] - absent[0] == len(absent) - 1
    if left < 0 or (not absent and left) or (absent and left < len(absent)) or not one_stretch:
        raise InputError(
            "betas and pictures differ in number"
            if one_stretch
            else "sessions are missing in several places",
            where=f"{subject}, sessions {', '.join(map(str, sorted(sizes)))}",
            found=f"{sum(sizes.values())} volumes, {n_images} lines of {subject}_imgnames.txt",
            expected="one line a volume over all sessions",
            fix="download the betas of all sessions",
        )
    if absent:
        shown = ", ".join(map(str, absent))
        notes.append(f"sub-{subject}: sessions {shown} are not there and are left out")
    starts, line = {}, 0
    for number in range(1, last + 1):
        if number in sizes:
            starts[number] = line
            line += sizes[number]
        elif number == absent[0]:
            line += left
    return starts


def _trial_rows(
    images: Sequence[str], split: Mapping[str, str], sizes: Mapping[int, int],
    starts: Mapping[int, int],
) -> list[dict[str, Any]]:  # fmt: skip
    """Return one row a trial; runs are known where a session is made of whole runs."""
    if not sizes:
        return [
            {"stimulus_id": name, "session": "n/a", "run": "n/a", "split": split[name]}
            for name in images
        ]
    rows = []
    for number, size in sorted(sizes.items()):
        for trial in range(size):
            name = images[starts[number] + trial]
            whole = size % TRIALS_A_RUN == 0
            rows.append(
                {
                    "stimulus_id": name,
                    "session": f"{number:02d}",
                    "run": f"{1 + trial // TRIALS_A_RUN:02d}" if whole else "n/a",
                    "split": split[name],
                }
            )
    return rows


def _presented(source: Path) -> Path | None:
    return next((p for p in sorted(source.rglob("Presented_Stimuli")) if p.is_dir()), None)
