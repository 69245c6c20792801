"""Allen et al. 2022, A massive 7T fMRI dataset (NSD), https://doi.org/10.1038/s41593-021-00962-x.

Betas (HDF5, NIfTI or MAT 7.3; int16, 300 times percent signal change), ``nsd_expdesign.mat``,
ROI volumes, ``ncsnr`` and the pictures become prepared responses. Image ids are 1-based in the
published tables and 0-based here, as in ``nsd_stim_info_merged.csv``. The 1000 shared images are
the test set. Betas are not standardised here: the published recipes that do it see test trials.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from afterimage.datasets.nsd_design import (
    SESSIONS,
    Design,
    coco_ids,
    read_design,
    stimulus_id,
    trial_rows,
)
from afterimage.datasets.nsd_files import SCALE, read_betas, write_pictures
from afterimage.datasets.nsd_rois import label_voxels, roi_mask
from afterimage.datasets.prepared import responses_writer, write_stimuli, write_tables
from afterimage.datasets.registry import (
    DATASETS,
    DatasetSettings,
    Names,
    Numbers,
    Report,
    choose_subjects,
    require_file,
)
from afterimage.datasets.volumes import read_volume, voxel_positions
from afterimage.errors import InputError

#: Voxels of nsdgeneral at 1.8 mm, in the order of the subjects.
NSDGENERAL_VOXELS = dict(
    zip(SESSIONS, (15724, 14278, 15226, 13153, 13039, 17907, 12682, 14386), strict=True)
)
_STIMULI = "nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5"


class NsdSettings(DatasetSettings):
    """Which betas of NSD are taken, and where."""

    kind: Literal["nsd"] = "nsd"
    betas: Literal["betas_assumehrf", "betas_fithrf", "betas_fithrf_GLMdenoise_RR"] = Field(
        "betas_fithrf_GLMdenoise_RR", description="release of single-trial betas"
    )
    space: Literal["func1pt8mm", "func1mm"] = Field("func1pt8mm", description="volume space")
    roi: Names = Field(
        ("nsdgeneral",), description="ROI volumes whose labelled voxels (> 0) are kept, joined"
    )
    sessions: Numbers = Field(
        (), description="sessions to take, from 1; empty: all that are there"
    )
    pictures: bool = Field(True, description="write the pictures that are used as PNG")


@DATASETS.register("nsd", NsdSettings)
class Nsd:
    """Reader of the Natural Scenes Dataset.

    Parameters
    ----------
    settings : NsdSettings
    """

    def __init__(self, settings: NsdSettings) -> None:
        self._settings = settings

    def convert(
        self, source: Path, target: Path, subjects: Sequence[str], report: Report
    ) -> list[str]:
        """Write prepared responses of the subjects; see `DatasetReader.convert`."""
        present = [name for name in SESSIONS if self._folder(source, name).is_dir()]
        shown = f"nsddata_betas/ppdata/subjXX/{self._settings.space}/{self._settings.betas}/"
        chosen = choose_subjects(subjects, list(SESSIONS), present, source, shown, "subj")
        design = read_design(source)
        notes: list[str] = []
        used: set[int] = set()
        for subject in chosen:
            report(f"sub-{subject}: reading betas of session after session")
            used |= self._convert_subject(source, target, subject, design, notes)
        self._write_stimuli(source, target, used, design, report, notes)
        return notes

    def _folder(self, source: Path, subject: str) -> Path:
        place = source / "nsddata_betas" / "ppdata" / f"subj{subject}"
        return place / self._settings.space / self._settings.betas

    def _convert_subject(
        self, source: Path, target: Path, subject: str, design: Design, notes: list[str]
    ) -> set[int]:
        folder = self._folder(source, subject)
        files = self._sessions(folder, subject, notes)
        rois = source / "nsddata" / "ppdata" / f"subj{subject}" / self._settings.space / "roi"
        mask, affine = roi_mask(rois, self._settings.roi)
        n_voxels = int(mask.sum())
        expected = NSDGENERAL_VOXELS[subject]
        at_1pt8 = self._settings.space == "func1pt8mm" and self._settings.roi == ("nsdgeneral",)
        if at_1pt8 and n_voxels != expected:
            notes.append(
                f"sub-{subject}: nsdgeneral has {n_voxels} voxels > 0, the published mask "
                f"{expected}; check that it is the mask of this subject and space"
            )
        trials = trial_rows(source, subject, design, list(files), notes)
        with responses_writer(target, subject, len(trials), n_voxels, notes) as writer:
            for path in files.values():
                for piece in read_betas(path, mask):
                    writer.append(piece / np.float32(SCALE))
        units = self._units(folder, rois, mask, affine, source, subject, notes)
        sidecar = {
            "units": "percent signal change",
            "position_units": "mm",
            "source": f"NSD {self._settings.space}/{self._settings.betas}, divided by {SCALE:g}",
            "standardised": False,
        }
        write_tables(target, subject, trials, units, sidecar)
        return {int(row["nsd_id"]) for row in trials}

    def _sessions(self, folder: Path, subject: str, notes: list[str]) -> dict[int, Path]:
        wanted = self._settings.sessions or tuple(range(1, SESSIONS[subject] + 1))
        if beyond := [n for n in wanted if not 1 <= n <= SESSIONS[subject]]:
            raise InputError(
                "a session was not released", where=f"subj{subject}",
                found=", ".join(map(str, beyond)), expected=f"1 to {SESSIONS[subject]}",
                fix="check the option sessions",
            )  # fmt: skip
        files = {}
        for number in wanted:
            for ending in ("hdf5", "nii.gz", "mat"):
                path = folder / f"betas_session{number:02d}.{ending}"
                if path.is_file():
                    files[number] = path
                    break
        if not files:
            require_file(
                folder / f"betas_session{wanted[0]:02d}.hdf5",
                "the file of betas of every session",
                "betas_sessionNN.hdf5, .nii.gz or .mat",
            )
        if gaps := [n for n in wanted if n not in files]:
            shown = ", ".join(map(str, gaps))
            notes.append(f"sub-{subject}: sessions {shown} are not there and are left out")
        return files

    def _units(
        self, folder: Path, rois: Path, mask: np.ndarray, affine: np.ndarray, source: Path,
        subject: str, notes: list[str],
    ) -> list[dict[str, Any]]:  # fmt: skip
        units: list[dict[str, Any]] = [
            {"kind": "voxel", "roi": labels.pop("roi"), **place, **labels}
            for place, labels in zip(
                voxel_positions(mask, affine), label_voxels(source, rois, mask), strict=True
            )
        ]
        path = folder / "ncsnr.nii.gz"
        if not path.is_file():
            notes.append(f"sub-{subject}: no {path.name}; units have no published noise ceiling")
            return units
        values = read_volume(path, mask.shape)[0][mask].astype(np.float64)
        for unit, value in zip(units, values, strict=True):
            unit["ncsnr"] = float(value)
            # Correlation of one trial with its expected value, as the other ceilings here.
            unit["published_ceiling"] = float(np.sqrt(value**2 / (value**2 + 1)))
        return units

    def _write_stimuli(
        self, source: Path, target: Path, used: set[int], design: Design, report: Report,
        notes: list[str],
    ) -> None:  # fmt: skip
        shared = {int(value) - 1 for value in design.images[0, : design.n_shared]}
        coco = coco_ids(source)
        rows = [
            {
                "stimulus_id": stimulus_id(number),
                "file": f"{stimulus_id(number)}.png",
                "split": "test" if number in shared else "train",
                "nsd_id": number,
                **({"coco_id": coco.get(number)} if coco else {}),
            }
            for number in sorted(used)
        ]
        write_stimuli(target, rows)
        (target / "stimuli").mkdir(parents=True, exist_ok=True)
        path = self._settings.stimuli or source / _STIMULI
        path = path / Path(_STIMULI).name if path.is_dir() else path
        if not self._settings.pictures:
            notes.append("no picture was written, as asked for (pictures=false)")
        elif path.is_file():
            report(f"writing {len(used)} pictures")
            write_pictures(path, target / "stimuli", sorted(used))
        else:
            notes.append(
                f"no picture was written: {path} is not there. Get {_STIMULI} (39 GB) from the "
                "NSD bucket, after agreeing to its terms, and import again"
            )
