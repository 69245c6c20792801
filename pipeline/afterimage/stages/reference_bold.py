"""Make one subject's reference image and brain mask: the grid of all runs."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from afterimage.bids.names import unit_of
from afterimage.errors import AfterimageError, InputError
from afterimage.io.atomic import write_json
from afterimage.io.nifti import BoldFile, open_bold, read_volume, write_nifti
from afterimage.preprocess.fmri.cleaning import N_PLACING
from afterimage.preprocess.fmri.masks import brain_mask, intersect, same_grid, to_grid
from afterimage.preprocess.fmri.motion import MotionEstimator, place_run, robust_mean
from afterimage.preprocess.fmri.resampling import Resampler
from afterimage.settings import StageConfig
from afterimage.stages.runner import record_skipped

VERSION = 1
CITES = ("friston1995", "abraham2014")

log = logging.getLogger("afterimage")


class Config(StageConfig):
    """How the reference image and the brain mask are made."""

    n_volumes: int = Field(
        50, ge=2, description="volumes at the start of the first usable run that are averaged"
    )
    min_volumes: int = Field(10, ge=2, description="a run with fewer volumes is left out")
    motion_correction: bool = Field(
        True, description="align the volumes that are averaged; fMRIPrep's are left as they are"
    )
    mask_opening: int = Field(
        2, ge=0, le=10, description="opening of the brain mask, in voxels; 0: none"
    )
    min_coverage: float = Field(
        0.5,
        gt=0,
        le=1,
        description="a run that covers less of the brain than this does not shrink the mask",
    )
    on_bad_run: Literal["skip", "fail"] = Field(
        "skip", description="whether a mask that cannot be used is left out or stops the subject"
    )


@dataclass(frozen=True)
class Inputs:
    """What the stage reads: the runs of one subject, and what fMRIPrep or others made of them."""

    bold: tuple[Path, ...]
    masks: tuple[Path, ...] = ()
    boldrefs: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Outputs:
    """What the stage writes."""

    reference: Path
    mask: Path


def run(
    inputs: Inputs, outputs: Outputs, config: Config, *, threads: int = 1, device: str = "cpu"
) -> None:
    """Average the start of the first usable run, and find the brain that all runs cover."""
    subject = unit_of(outputs.reference)
    runs = _usable_runs(inputs.bold, config, subject)
    reference, affine, source, notes = _reference(runs, inputs.boldrefs, config, subject)
    mask, said = _mask(reference, affine, inputs.masks, outputs, config)
    notes += said
    if not is_preprocessed(runs[0].path):
        mask, said = _shared_coverage(mask, reference, affine, runs, config)
        notes += said
    for note in notes:
        log.warning("%s: %s", subject, note)
    write_nifti(outputs.reference, reference.astype(np.float32), affine)
    write_nifti(outputs.mask, mask, affine)
    about = {"Notes": notes, "SourceFile": source.name}
    write_json(_sidecar(outputs.reference), about)
    write_json(_sidecar(outputs.mask), about | {"Type": "Brain", "NVoxels": int(mask.sum())})


def is_preprocessed(path: Path) -> bool:
    """Say whether a file is a preprocessed image of fMRIPrep, to be taken as it is."""
    return "_desc-preproc_" in path.name


def _sidecar(path: Path) -> Path:
    return path.with_name(path.name.split(".")[0] + ".json")


def _usable_runs(paths: Sequence[Path], config: Config, subject: str) -> list[BoldFile]:
    """Open the runs; those that cannot be read are left out here, and named when cleaned."""
    runs, problems = [], []
    for path in paths:
        try:
            runs.append(open_bold(path, config.min_volumes))
        except InputError as error:
            problems.append(error)
            log.warning("%s: a run gives no reference: %s", subject, error)
    if not runs:
        raise InputError(
            "no run of a subject can be read",
            where=subject,
            found=f"{len(problems)} runs; the first: {problems[0].what}, {problems[0].where}"
            if problems
            else "no run",
            expected="at least one whole run",
            fix="see the errors of the runs",
        )
    return runs


def _reference(
    runs: Sequence[BoldFile], boldrefs: Sequence[Path], config: Config, subject: str
) -> tuple[np.ndarray, np.ndarray, Path, list[str]]:
    """Return the reference image, its affine, the file it comes from, and notes."""
    for path in dict.fromkeys(boldrefs):
        try:
            image, affine = read_volume(path)
        except InputError as error:
            log.warning("%s: a reference image cannot be used: %s", subject, error)
            continue
        if any(same_grid(image.shape, affine, bold.shape, bold.affine) for bold in runs):
            return image, affine, path, []
    for bold in runs:
        try:
            blocks = [block for _, block in bold.blocks(config.n_volumes)]
        except InputError as error:
            log.warning("%s: a run gives no reference: %s", subject, error)
            continue
        volumes = np.nan_to_num(np.concatenate(blocks, axis=3), nan=0.0, posinf=0.0, neginf=0.0)
        align = config.motion_correction and not is_preprocessed(bold.path)
        image, notes = robust_mean(volumes, bold.affine, align=align)
        if np.ptp(image) > 0:
            return image, bold.affine, bold.path, notes
        log.warning("%s: %s gives no reference: its first volumes are empty", subject, bold.path)
    raise InputError(
        "no run of a subject gives a reference image",
        where=f"{subject}, {', '.join(str(bold.path) for bold in runs)}"[:1000],
        found=f"{len(runs)} runs, all damaged or empty", expected="at least one whole run",
        fix="copy the runs again from their source, or convert them again",
    )  # fmt: skip


def _mask(
    reference: np.ndarray,
    affine: np.ndarray,
    paths: Sequence[Path],
    outputs: Outputs,
    config: Config,
) -> tuple[np.ndarray, list[str]]:
    """Return the brain: where all given masks agree, or found in the reference image."""
    masks, errors = [], []
    for path in dict.fromkeys(paths):
        try:
            image, image_affine = read_volume(path)
            where = f"{unit_of(outputs.mask)}, {path}"
            masks.append(to_grid(image, image_affine, reference.shape, affine, where=where) > 0)
        except AfterimageError as error:
            if config.on_bad_run == "fail":
                raise
            errors.append(error)
    if errors:
        record_skipped("reference_bold", outputs.reference, _joined(errors))
    notes = [f"a mask was left out: {error.what}, {error.where}" for error in errors]
    if masks:
        return intersect(masks, where=unit_of(outputs.mask)), notes
    where = unit_of(outputs.mask)
    mask, said = brain_mask(reference, affine, opening=config.mask_opening, where=where)
    return mask, notes + said


def _joined(errors: Sequence[AfterimageError]) -> AfterimageError:
    """Return one error that names all: a stage keeps one record of what it left out."""
    if len(errors) == 1:
        return errors[0]
    first = errors[0]
    return InputError(
        f"{len(errors)} masks cannot be used", where="; ".join(error.where for error in errors),
        found=first.found, expected=first.expected, fix=first.fix,
    )  # fmt: skip


def _shared_coverage(
    mask: np.ndarray,
    reference: np.ndarray,
    affine: np.ndarray,
    runs: Sequence[BoldFile],
    config: Config,
) -> tuple[np.ndarray, list[str]]:
    """Keep the voxels that lie within the field of view of every run whose grid differs."""
    others = [
        bold for bold in runs if not same_grid(reference.shape, affine, bold.shape, bold.affine)
    ]
    if not others:
        return mask, []
    resampler = Resampler(np.argwhere(mask), affine)
    estimator = MotionEstimator(reference, affine)
    covered = np.ones(int(mask.sum()), dtype=bool)
    for bold in others:
        try:
            _, block = next(bold.blocks(N_PLACING, N_PLACING))
        except InputError as error:
            log.warning("%s cannot be placed: %s", bold.path, error)
            continue
        image = np.median(np.nan_to_num(block, nan=0.0, posinf=0.0, neginf=0.0), axis=3)
        place, start, _ = place_run(estimator, image, bold.affine)
        seen = resampler.covered(bold.shape, place, start)
        if seen.mean() >= config.min_coverage:
            covered &= seen
    notes = []
    if not covered.all():
        notes.append(
            f"{int((~covered).sum())} of {len(covered)} voxels of the brain were left out: "
            "some run does not cover them"
        )
    shared = np.zeros_like(mask)
    shared[mask] = covered
    return intersect([shared], where=str(runs[0].path)), notes
