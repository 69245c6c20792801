"""What describes a subject's responses: regions, onsets, maps, and the responses as NIfTI."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from afterimage.bids.entities import parse_name
from afterimage.bids.sidecars import applicable_files
from afterimage.errors import AfterimageError
from afterimage.io.arrays import write_dataset
from afterimage.io.nifti import read_volume, write_nifti_blocks
from afterimage.io.series import Series
from afterimage.io.tables import Row, read_tsv, whole_number, write_tsv
from afterimage.preprocess.fmri.design import RunDesign, trial_regressors
from afterimage.preprocess.fmri.diagnostics import average_response, onset_shift
from afterimage.preprocess.fmri.hrf import canonical_hrf
from afterimage.preprocess.fmri.masks import to_grid
from afterimage.stages.runner import record_skipped

#: Voxels and volumes that the check of the onsets looks at, at most.
N_VOXELS, N_VOLUMES = 1500, 4000
SHIFTS_S = np.arange(-10.0, 11.0)
#: Onsets that are best moved by at least this much are called wrong.
SUSPICIOUS_SHIFT_S = 2.0
#: Maps written as NIfTI: name of the coordinate and of the statistic in the file's name.
STATISTICS = {
    "ceiling": "noiseceiling",
    "split_half": "splithalf",
    "r2": "rsquare",
    "hrf_peak_s": "hrfpeak",
    "fraction": "ridgefraction",
}


@dataclass(frozen=True)
class Description:
    """Whether there are responses, and where in time.

    Attributes
    ----------
    curve : array of shape (len(SHIFTS_S),)
        How reproducible responses are when all onsets are moved.
    measure : str
        What the curve is, in words.
    best_onset_shift_s : float or None
        Where the curve has its peak, 0 where it is hardly lower at 0; None without a clear peak.
    response : tuple of (lags_s, response, standard_error) or None
        Average response of the most responsive voxels.
    notes : list of str
    """

    curve: np.ndarray
    measure: str
    best_onset_shift_s: float | None
    response: tuple[np.ndarray, np.ndarray, np.ndarray] | None
    notes: list[str]


def label_rois(
    files: Sequence[Path],
    root: Path,
    series: Series,
    output: Path,
    stage: str = "fit_responses",
) -> tuple[np.ndarray, list[str]]:
    """Name the region of every voxel.

    Where regions overlap, the smaller one counts, as it says more. A file that cannot be used is
    left out, noted and recorded.

    Parameters
    ----------
    files : sequence of Path
        Masks ``_label-<ROI>_mask`` (also ``_desc-<ROI>_mask``) and segmentations ``_dseg`` whose
        table names the labels.
    root : Path
        The dataset, below which tables of segmentations are inherited.
    series : Series
        Any of the subject's: the place of the voxels.
    output, stage : Path, str
        First output of the stage and its name, for the record.

    Returns
    -------
    regions : array of str, shape (n_voxels,)
        ``n/a`` outside all.
    notes : list of str
    """
    affine = np.asarray(series.attrs["affine"], dtype=float).reshape(4, 4)
    shape = tuple(int(n) for n in series.attrs["shape"])
    ijk = tuple(np.asarray(series.units[axis]) for axis in "ijk")
    members: dict[str, np.ndarray] = {}
    errors: list[AfterimageError] = []
    notes: list[str] = []
    for path in files:
        try:
            image, image_affine = read_volume(path)
            if not (image > 0).any():
                notes.append(f"{path.name} is empty")
                continue
            labels = to_grid(image, image_affine, shape, affine, where=str(path))[ijk]
            for name, inside in _regions(path, root, labels):
                members[name] = members.get(name, False) | inside
        except AfterimageError as error:
            errors.append(error)
    record_skipped(stage, output, *errors)
    regions = np.full(series.n_units, "n/a", dtype=object)
    for name in sorted(members, key=lambda name: (-int(members[name].sum()), name)):
        regions[members[name]] = name
    notes += [f"a region was left out: {str(error).splitlines()[0]}" for error in errors]
    return regions.astype(str), notes


def _regions(path: Path, root: Path, labels: np.ndarray) -> list[tuple[str, np.ndarray]]:
    """Return the regions of one file: name and members among the voxels."""
    name = parse_name(path.name)
    entities = name.entities if name else {}
    if path.name.split(".")[0].endswith("_mask"):
        return [(entities.get("label", entities.get("desc", "roi")), labels > 0)]
    tables = applicable_files(path, root, extension=".tsv")
    rows = read_tsv(tables[-1], required=("index", "name")) if tables else []
    indices = [whole_number(row, "index", str(tables[-1])) for row in rows]
    found = zip(rows, indices, strict=True)
    return [(row["name"], labels == index) for row, index in found if index > 0]


def describe_responses(
    designs: Sequence[RunDesign],
    read: Callable[[int, slice], np.ndarray],
    maps: dict[str, np.ndarray],
    t_r_s: float,
) -> Description:
    """Check the onsets and average the responses, on some of the training runs and voxels.

    Parameters
    ----------
    designs : sequence of RunDesign
    read : callable
        Reads (run, voxels) as percent signal change.
    maps : dict of array of shape (n_voxels,)
        With ``unusable`` and ``r2`` or ``ceiling``.
    t_r_s : float
        Repetition time.

    Returns
    -------
    Description
    """
    usable = np.flatnonzero(~maps["unusable"].astype(bool))
    # Drawn without a look at the responses, which were estimated with the onsets as they are.
    drawn = usable[np.unique(np.linspace(0, len(usable) - 1, N_VOXELS).astype(int))]
    numbers = [number for number, design in enumerate(designs) if design.training.any()]
    numbers = numbers[: max(2, N_VOLUMES // designs[numbers[0]].n_volumes)]
    chosen = [designs[number] for number in numbers]
    blocks = [_columns(read, number, drawn) for number in numbers]
    curve, measure, least = onset_shift(chosen, blocks, canonical_hrf(), SHIFTS_S)
    peak = int(np.argmax(curve))
    # Noise peaks at another shift in every voxel, which leaves their mean flat.
    clear = curve[peak] > least and curve[peak] - curve.min() > 0.3 * curve[peak]
    as_given = float(curve[np.flatnonzero(SHIFTS_S == 0)[0]])
    # A peak that is hardly higher than the curve at 0 asks for no other onsets.
    best = (float(SHIFTS_S[peak]) if as_given < 0.9 * curve[peak] else 0.0) if clear else None
    notes = []
    if best is not None and abs(best) >= SUSPICIOUS_SHIFT_S:
        late = "late" if best < 0 else "early"
        notes.append(
            f"the onsets look {abs(best):g} s too {late}: responses are most reproducible when all "
            f"onsets are moved by {best:+g} s ({curve[peak]:.3f}, against {as_given:.3f} as they are)"
        )
    strength = np.nan_to_num(maps.get("r2", maps["ceiling"])[drawn])
    strongest = np.argsort(-strength, kind="stable")[: max(20, len(drawn) // 20)]
    responsive = [block[:, strongest] for block in blocks]
    response = average_response(chosen, responsive, step_s=max(1.0, t_r_s))
    return Description(curve, measure, best, response, notes)


def _columns(
    read: Callable[[int, slice], np.ndarray], number: int, voxels: np.ndarray
) -> np.ndarray:
    """Read scattered voxels of one run, never the whole run at once."""
    parts = []
    for start in range(0, int(voxels[-1]) + 1, 4096):
        here = voxels[(voxels >= start) & (voxels < start + 4096)]
        if len(here):
            first = int(here[0])
            parts.append(read(number, slice(first, int(here[-1]) + 1))[:, here - first])
    return np.hstack(parts)


def write_maps(
    outputs: Any,
    series: Series,
    first_run: tuple[RunDesign, Sequence[str]],
    described: Description,
    maps: dict[str, np.ndarray],
    keep: np.ndarray,
    reference: np.ndarray,
    words: dict[str, Any],
) -> None:
    """Write the file that the report draws from, and each map as NIfTI beside it.

    Parameters
    ----------
    outputs
        Outputs of `fit_responses`.
    series : Series
        Any of the subject's: the place of the voxels.
    first_run : tuple of (RunDesign, sequence of str)
        The first run's model, and the names of its nuisance columns.
    described : Description
    maps : dict of array of shape (n_voxels,)
    keep : array of bool, shape (n_voxels,)
    reference : array of shape (x, y, z)
    words : dict
        ``estimator`` and ``notes``.
    """
    import xarray

    affine = np.asarray(series.attrs["affine"], dtype=float).reshape(4, 4)
    shape = tuple(int(n) for n in series.attrs["shape"])
    ijk = tuple(np.asarray(series.units[axis]) for axis in "ijk")

    def volume(values: np.ndarray, fill: float = np.nan) -> np.ndarray:
        full = np.full(shape, fill, dtype=np.float32)
        full[ijk] = values
        return full

    space = ("x", "y", "z")
    columns, names = _design_matrix(*first_run)
    dataset: dict[str, Any] = {
        "design": (("volume", "column"), columns.astype(np.float32)),
        "column_name": (("column",), np.array(names, dtype=object)),
        "onset_shift_s": (("shift",), SHIFTS_S),
        "onset_shift_r2": (("shift",), described.curve),
        "mean": (space, reference.astype(np.float32)),
        "brain_mask": (space, volume(np.ones(len(keep)), 0).astype(np.uint8)),
        "units_mask": (space, volume(keep, 0).astype(np.uint8)),
    }
    if described.response is not None:
        lags, response, error = described.response
        dataset["response_time_s"] = (("lag",), lags)
        dataset["average_response"] = (("lag",), response)
        dataset["average_response_sem"] = (("lag",), error)
    prefix = outputs.trials.name.replace("_trials.nc", "")
    for name, statistic in STATISTICS.items():
        if name in maps and np.isfinite(maps[name]).any():
            full = volume(maps[name])
            dataset[f"map_{name}"] = (space, full)
            path = outputs.trials.with_name(f"{prefix}_stat-{statistic}_statmap.nii.gz")
            write_nifti_blocks(path, [full], shape, affine)
    attributes = {
        "estimator": words["estimator"],
        "onset_shift_measure": described.measure,
        "notes": ";".join(note.replace(";", ",") for note in words["notes"]),
        "affine": affine.ravel(),
        "t_r_s": float(series.attrs["t_r_s"]),
        "duration_s": float(np.median(first_run[0].durations_s)),
    }
    if described.best_onset_shift_s is not None:
        attributes["best_onset_shift_s"] = described.best_onset_shift_s
    write_dataset(outputs.maps, xarray.Dataset(dataset, attrs=attributes))


def _design_matrix(design: RunDesign, nuisance: Sequence[str]) -> tuple[np.ndarray, list[str]]:
    """Return a run's model with the canonical response: a trial a column, then nuisance."""
    trials = trial_regressors(design, canonical_hrf())[0]
    scale = np.abs(design.nuisance).max(axis=0)
    names = [f"trial {number + 1}" for number in range(trials.shape[1])]
    return np.hstack([trials, design.nuisance / np.where(scale > 0, scale, 1)]), [
        *names,
        *nuisance,
    ]


def write_betas(
    outputs: Any, series: Series, rows: Sequence[Row], betas: np.ndarray, keep: np.ndarray
) -> None:
    """Write the responses of each session as NIfTI, one volume a trial, with their events.

    Voxels that are not kept are 0, so that the compressed file stays small.
    """
    affine = np.asarray(series.attrs["affine"], dtype=float).reshape(4, 4)
    shape = tuple(int(n) for n in series.attrs["shape"])
    ijk = tuple(np.asarray(series.units[axis])[keep] for axis in "ijk")
    sessions = [row["session"] for row in rows]
    subject = outputs.trials.name.replace("_trials.nc", "")
    for session in dict.fromkeys(sessions):
        trials = [number for number, name in enumerate(sessions) if name == session]
        label = "" if session == "n/a" else f"_ses-{session}"
        stem = f"{subject}{label}_desc-singletrial"

        def volumes(trials: list[int] = trials) -> Iterator[np.ndarray]:
            for trial in trials:
                full = np.zeros(shape, dtype=np.float32)
                full[ijk] = betas[trial, keep]
                yield full

        path = outputs.trials.with_name(f"{stem}_stat-effect_statmap.nii.gz")
        write_nifti_blocks(path, volumes(), (*shape, len(trials)), affine)
        chosen = [rows[trial] for trial in trials]
        write_tsv(outputs.trials.with_name(f"{stem}_events.tsv"), chosen, list(rows[0]))
