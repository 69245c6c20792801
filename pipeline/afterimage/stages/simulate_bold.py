"""Simulate a study with known truth and write it as raw BIDS: pictures, BOLD runs, anatomy."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from pydantic import Field, model_validator

from afterimage.io.atomic import atomic_path, write_json, write_text
from afterimage.io.images import write_png
from afterimage.io.nifti import write_nifti
from afterimage.io.tables import read_json, write_tsv
from afterimage.settings import StageConfig

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from afterimage.simulate.bold import Scanner, Subject
    from afterimage.simulate.scanning import ScannedRun

VERSION = 1
CITES = ("kay2008",)

TASK = "pictures"
BIDS_VERSION = "1.10.0"


class Config(StageConfig):
    """Size and quality of the simulated study, and what its scanner adds."""

    n_subjects: int = Field(2, ge=1, description="subjects; each has a head and units of its own")
    n_sessions: int = Field(2, ge=1, description="sessions of a subject")
    missing_run: bool = Field(True, description="whether the last subject lacks one training run")
    n_training_images: int = Field(480, ge=20, description="training pictures")
    n_training_repeats: int = Field(
        2, ge=1, description="times a repeated training picture is shown"
    )
    repeated_share: float = Field(
        0.25, ge=0, le=1, description="share of the training pictures repeated; the others: once"
    )
    n_test_images: int = Field(50, ge=2, description="test pictures, in runs of their own")
    n_test_repeats: int = Field(4, ge=1, description="times each test picture is shown")
    trials_per_run: int = Field(100, ge=10, description="pictures shown in one run, about")
    trial_s: float = Field(4.0, gt=0, description="time from one picture to the next")
    stimulus_s: float = Field(3.0, gt=0, description="time a picture is shown")
    jitter_s: float = Field(0.4, ge=0, description="largest random move of an onset")
    blank_share: float = Field(0.08, ge=0, le=1, description="blank trials, a share of the others")
    n_early_units: int = Field(700, ge=1, description="units of V1, V2 and V4 together")
    n_selective_units: int = Field(160, ge=1, description="units of category-selective regions")
    ceiling: float = Field(
        0.8, gt=0, lt=1, description="median noise ceiling of least-squares single-trial responses"
    )
    shape_voxels: tuple[int, int, int] = Field((26, 32, 18), description="voxels of a volume")
    voxel_size_mm: float = Field(3.0, gt=0, description="edge of a voxel")
    anatomy_voxel_size_mm: float = Field(2.0, gt=0, description="edge of a voxel of the T1w image")
    t_r_s: float = Field(2.0, gt=0, description="time from one volume to the next")
    response_percent: float = Field(
        1.5, gt=0, description="median spread of responses over pictures, percent of the signal"
    )
    mean_response: float = Field(1.0, description="mean response, in spreads over pictures")
    hrf_peak_s: tuple[float, float] = Field(
        (4.5, 7.5), description="earliest and latest peak of the haemodynamic response"
    )
    noise_scale: float = Field(
        1.0, ge=0, description="factor on all noise after the calibration to the ceiling"
    )
    drift_percent: float = Field(1.0, ge=0, description="slow drift, percent of the signal")
    motion_mm: float = Field(
        0.2, ge=0, description="spread of the head's slow motion within a run"
    )
    n_spikes: int = Field(2, ge=0, description="sudden moves of the head in each run")
    spike_mm: float = Field(
        1.5, ge=0, description="size of a sudden move (framewise displacement)"
    )
    session_shift_mm: float = Field(
        1.0, ge=0, description="largest difference of the head's position between sessions"
    )
    random_state: int = Field(0, ge=0, description="seed of pictures, heads, units and noise")

    @model_validator(mode="after")
    def _is_possible(self) -> Self:
        if self.trial_s < 1.25 * self.t_r_s:
            raise ValueError("trial_s must be at least 1.25 t_r_s: a volume or more a trial")
        if self.stimulus_s + 2 * self.jitter_s > self.trial_s:
            raise ValueError("stimulus_s + 2 jitter_s must fit into trial_s")
        if not 2.5 <= self.hrf_peak_s[0] <= self.hrf_peak_s[1] <= 12:
            raise ValueError("hrf_peak_s must be two rising numbers from 2.5 to 12")
        return self


@dataclass(frozen=True)
class Inputs:
    """The stage reads nothing."""


@dataclass(frozen=True)
class Outputs:
    """What the stage writes: the dataset's folder, and its description, written last."""

    description: Path


def run(
    inputs: Inputs, outputs: Outputs, config: Config, *, threads: int = 1, device: str = "cpu"
) -> None:
    """Draw pictures, scan every subject, write raw BIDS with the truth in ``derivatives/``.

    A simulation that was interrupted goes on with the runs that are not there yet.
    """
    from threadpoolctl import threadpool_limits

    from afterimage.simulate.stimuli import draw_stimuli

    folder = outputs.description.parent
    begun = folder / "derivatives" / "simulation" / ".begun-simulate_bold.json"
    resumed = goes_on(begun, VERSION, config)
    if not resumed:
        _clear(outputs.description)
    _describe_derivatives(folder / "derivatives")
    write_json(begun, told(VERSION, config))
    n_pictures = config.n_training_images + config.n_test_images
    images, attributes, captions = draw_stimuli(n_pictures, config.random_state)
    names = write_stimuli(
        folder / "stimuli", images, attributes, captions, config.n_training_images,
        resumed=resumed,
    )  # fmt: skip
    n_at_once = max(1, min(threads, config.n_subjects))

    def simulate(number: int) -> int:
        subject = _draw_subject(config, number, images, attributes)
        label = f"sub-{number:02d}"
        _write_scans(
            folder, label, subject, names, attributes, config, threads // n_at_once,
            resumed=resumed,
        )  # fmt: skip
        _write_rois(folder / "derivatives" / "rois", label, subject)
        _write_truth(folder / "derivatives" / "simulation", label, subject, names)
        return len(subject.runs)

    numbers = range(1, config.n_subjects + 1)
    # Threads of linear algebra inside each of these threads would wait for each other.
    limits = threadpool_limits(max(1, threads // n_at_once))
    with limits, ThreadPoolExecutor(max_workers=n_at_once) as pool:
        n_runs = dict(zip(numbers, pool.map(simulate, numbers), strict=True))
    _write_root(folder, config, n_runs)
    write_json(
        outputs.description,
        {
            "Name": "Simulated visual brain, drawn pictures",
            "BIDSVersion": BIDS_VERSION,
            "DatasetType": "raw",
            "License": "CC0",
            "Authors": ["afterimage", "its simulated subjects"],
            "GeneratedBy": [{"Name": "afterimage", "Description": "simulated, truth known"}],
            "Simulation": config.model_dump(mode="json"),
        },
    )
    begun.unlink()


def told(version: int, config: StageConfig) -> dict[str, Any]:
    """Return what an interrupted simulation must have in common with one that takes it up."""
    return {"Version": version, "Simulation": config.model_dump(mode="json")}


def goes_on(begun: Path, version: int, config: StageConfig) -> bool:
    """Whether a simulation of just these settings was begun here and not ended."""
    return begun.is_file() and read_json(begun) == told(version, config)


def _draw_subject(
    config: Config, number: int, images: np.ndarray, attributes: Mapping[str, np.ndarray]
) -> Subject:
    """Draw one subject; subjects differ in head, units, order of pictures, noise and motion."""
    from afterimage.simulate.bold import draw_subject
    from afterimage.simulate.scanning import plan_runs
    from afterimage.simulate.visual_brain import draw_brain

    seed = (config.random_state, number)
    runs = plan_runs(
        {"train": config.n_training_images, "test": config.n_test_images},
        {"train": config.n_training_repeats, "test": config.n_test_repeats},
        repeated_share=config.repeated_share, trials_per_run=config.trials_per_run,
        n_sessions=config.n_sessions, trial_s=config.trial_s, jitter_s=config.jitter_s,
        blank_share=config.blank_share, t_r_s=config.t_r_s,
        rng=np.random.default_rng([*seed, 10]),
    )  # fmt: skip
    training = [index for index, scanned in enumerate(runs) if scanned.split == "train"]
    if config.missing_run and number == config.n_subjects and len(training) > 1:
        del runs[training[-1]]
    brain_seed = config.random_state * 1000 + number
    brain = draw_brain(config.n_early_units, config.n_selective_units, config.ceiling, brain_seed)
    return draw_subject(_scanner(config), brain, runs, images, attributes, seed)


def _scanner(config: Config) -> Scanner:
    from afterimage.simulate.bold import Scanner

    return Scanner(
        shape=config.shape_voxels, voxel_size_mm=config.voxel_size_mm, t_r_s=config.t_r_s,
        stimulus_s=config.stimulus_s, response_percent=config.response_percent,
        mean_response=config.mean_response, peak_range_s=config.hrf_peak_s,
        noise_scale=config.noise_scale, drift_percent=config.drift_percent,
        motion_mm=config.motion_mm, n_spikes=config.n_spikes, spike_mm=config.spike_mm,
        session_shift_mm=config.session_shift_mm,
    )  # fmt: skip


def write_stimuli(
    folder: Path,
    images: np.ndarray,
    attributes: Mapping[str, np.ndarray],
    captions: Sequence[str],
    n_training: int,
    *,
    resumed: bool = False,
) -> list[str]:
    """Write the pictures, those for training first, and their table; return their ids.

    With ``resumed`` they are those of this simulation where their table stands.
    """
    names = [f"picture{index:04d}" for index in range(len(images))]
    rows = []
    there = resumed and (folder / "stimuli.tsv").is_file()  # it is written last
    for index, name in enumerate(names):
        if not there:
            write_png(folder / f"{name}.png", images[index])
        split = "train" if index < n_training else "test"
        row = {"stimulus_id": name, "file": f"{name}.png", "split": split}
        values = {key: column[index].item() for key, column in attributes.items()}
        rows.append({**row, "caption": captions[index], **values})
    write_tsv(folder / "stimuli.tsv", rows, list(rows[0]))
    return names


def _write_scans(
    folder: Path,
    label: str,
    subject: Subject,
    names: Sequence[str],
    attributes: Mapping[str, np.ndarray],
    config: Config,
    threads: int,
    *,
    resumed: bool,
) -> None:
    """Write the anatomy of a subject, and every run with its events, unless ``resumed`` after it."""
    from afterimage.simulate.bold import simulate_run
    from afterimage.simulate.head import draw_anatomy

    rng = np.random.default_rng([*subject.seed, 11])
    image, affine = draw_anatomy(subject.head, config.anatomy_voxel_size_mm, 12.0, rng)
    anatomy = folder / label / "ses-01" / "anat" / f"{label}_ses-01_T1w.nii.gz"
    write_nifti(anatomy, image, affine)

    def scan(number: int) -> None:
        stem = _stem(folder, label, subject.runs[number])
        if resumed and Path(f"{stem}_events.tsv").is_file():  # it is written last
            return
        series = simulate_run(subject, number)
        write_nifti(Path(f"{stem}_bold.nii.gz"), series, subject.head.affine, config.t_r_s)
        _write_events(Path(f"{stem}_events.tsv"), subject.runs[number], names, attributes, config)

    with ThreadPoolExecutor(max_workers=max(1, threads)) as pool:
        list(pool.map(scan, range(len(subject.runs))))


def _write_events(
    path: Path,
    scanned: ScannedRun,
    names: Sequence[str],
    attributes: Mapping[str, np.ndarray],
    config: Config,
) -> None:
    """Write what was shown when, from the start of the first volume."""
    rows = [
        {
            "onset": round(float(onset_s), 3),
            "duration": config.stimulus_s,
            "trial_type": str(attributes["category"][index]),
            "stim_file": f"{names[index]}.png",
        }
        for index, onset_s in zip(scanned.shown, scanned.onsets_s, strict=True)
    ]
    write_tsv(path, rows, list(rows[0]))


def _write_rois(folder: Path, label: str, subject: Subject) -> None:
    """Write one mask for each area, on the grid of the BOLD images."""
    for roi, voxels in subject.placement.patches.items():
        mask = np.zeros(subject.head.shape, dtype=np.uint8)
        mask[tuple(voxels.T)] = 1
        name = f"{label}_task-{TASK}_label-{roi}_mask"
        write_nifti(folder / label / "func" / f"{name}.nii.gz", mask, subject.head.affine)
        write_json(folder / label / "func" / f"{name}.json", {"Type": "ROI", "RawSources": [
            f"bids:raw:{label}/ses-01/func/{label}_ses-01_task-{TASK}_run-01_bold.nii.gz"
        ]})  # fmt: skip


def _write_truth(folder: Path, label: str, subject: Subject, names: Sequence[str]) -> None:
    """Write what was planted: responses, units, motion."""
    from afterimage.simulate.head_motion import COLUMNS, framewise_displacement

    with atomic_path(folder / label / f"{label}_responses.npy") as temporary:
        np.save(temporary, np.concatenate(subject.planted), allow_pickle=False)
    trials = [
        {"stimulus_id": names[index], "session": f"{scanned.session:02d}",
         "run": f"{scanned.run:02d}", "onset": round(float(onset_s), 3), "split": scanned.split}
        for scanned in subject.runs
        for index, onset_s in zip(scanned.shown, scanned.onsets_s, strict=True)
    ]  # fmt: skip
    write_tsv(folder / label / f"{label}_trials.tsv", trials, list(trials[0]))
    voxels = subject.placement.unit_voxels
    places_mm = voxels @ subject.head.affine[:3, :3].T + subject.head.affine[:3, 3]
    spread = np.concatenate(subject.planted).std(axis=0)
    columns: dict[str, Any] = {
        "kind": ["voxel"] * len(voxels),
        "roi": subject.brain.roi,
        **dict(zip("ijk", voxels.T.tolist(), strict=True)),
        **dict(zip("xyz", places_mm.T.tolist(), strict=True)),
        "hrf_peak_s": subject.responses.peaks_s,
        "hrf_dispersion_s": subject.responses.dispersions_s,
        "response_percent": spread,
        "ceiling": subject.ceiling,
    }
    rows = [
        dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)
    ]
    write_tsv(folder / label / f"{label}_units.tsv", rows, list(columns))
    write_json(
        folder / label / f"{label}_simulation.json",
        {
            "noise_percent": subject.noise_percent * subject.scanner.noise_scale,
            "median_ceiling": float(np.median(subject.ceiling)),
            "rotation_centre_mm": subject.head.centre_mm.tolist(),
            "n_brain_voxels": int(subject.placement.brain.sum()),
        },
    )
    for scanned, motion in zip(subject.runs, subject.motion, strict=True):
        displacement = framewise_displacement(motion)
        table = [
            {**dict(zip(COLUMNS, values, strict=True)), "framewise_displacement": moved}
            for values, moved in zip(motion.tolist(), displacement.tolist(), strict=True)
        ]
        path = Path(f"{_stem(folder, label, scanned)}_motion.tsv")
        write_tsv(path, table, [*COLUMNS, "framewise_displacement"])


def _write_root(folder: Path, config: Config, n_runs: Mapping[int, int]) -> None:
    """Write what holds for the whole dataset."""
    write_text(folder / "README.md", README)
    write_json(folder / f"task-{TASK}_bold.json", _sidecar(config))
    write_json(folder / f"task-{TASK}_events.json", EVENTS)
    rows = [{"participant_id": f"sub-{number:02d}", "n_runs": n} for number, n in n_runs.items()]
    write_tsv(folder / "participants.tsv", rows, ["participant_id", "n_runs"])
    write_json(folder / "participants.json", {"n_runs": {"Description": "Runs with BOLD images"}})


def _describe_derivatives(folder: Path) -> None:
    for name, text in DERIVATIVES.items():
        write_json(
            folder / name / "dataset_description.json",
            {
                "Name": text,
                "BIDSVersion": BIDS_VERSION,
                "DatasetType": "derivative",
                "License": "CC0",
                "GeneratedBy": [{"Name": name, "Description": "afterimage, simulate_bold"}],
                "DatasetLinks": {"raw": "../.."},
            },
        )
    # What was planted has no name in BIDS yet.
    write_text(folder / "simulation" / ".bidsignore", "sub-*/\n")


def _clear(description: Path) -> None:
    """Remove an earlier simulation, whole or not: its runs would count as runs of this one."""
    folder = description.parent
    made = folder / "derivatives" / "simulation" / "dataset_description.json"
    if not made.is_file() or DERIVATIVES["simulation"] not in made.read_text(encoding="utf-8"):
        return
    description.unlink(missing_ok=True)
    parts = [folder / "stimuli", *(folder / "derivatives" / name for name in DERIVATIVES)]
    # The mark that all this may be removed goes last.
    for part in (*folder.glob("sub-*"), *parts):
        shutil.rmtree(part, ignore_errors=True)


def _sidecar(config: Config) -> dict[str, Any]:
    return {
        "TaskName": TASK,
        "TaskDescription": "Drawn pictures, one after the other, looked at",
        "RepetitionTime": config.t_r_s,
        "SliceTiming": _scanner(config).slice_times_s.tolist(),
        "SliceEncodingDirection": "k",
        "Manufacturer": "simulated",
    }


def _stem(folder: Path, label: str, scanned: ScannedRun) -> str:
    """Path of a run without its suffix."""
    session = f"ses-{scanned.session:02d}"
    name = f"{label}_{session}_task-{TASK}_run-{scanned.run:02d}"
    return str(folder / label / session / "func" / name)


DERIVATIVES = {
    "rois": "Areas of the simulated brains",
    "simulation": "What was planted in the simulated brains",
}

EVENTS = {
    "trial_type": {"LongName": "Category", "Description": "Category of the object in the picture"},
    "stim_file": {"LongName": "Picture", "Description": "File in the folder stimuli"},
}

README = """# Simulated visual brain

No person was scanned. Simulated subjects look at drawn pictures; their brains answer as
`afterimage.simulate` says, and a simulated scanner adds what scanners add: haemodynamic responses
that differ from voxel to voxel, drift, breathing, heartbeat, autocorrelated and thermal noise, and
a head that moves.

* `stimuli/stimuli.tsv`: every picture with its split (train or test), caption and attributes.
* `sub-*/ses-*/func`: BOLD runs; onsets in the events count from the start of the first volume.
* `derivatives/rois`: a mask for each area, on the grid of the BOLD images.
* `derivatives/simulation`: what was planted. One row a trial in `_trials.tsv` and `_responses.npy`
  (percent of the signal); one row a unit in `_units.tsv`; the motion of the head in `_motion.tsv`.
  Tissue that rests at x is found at y = R (x - c) + c + t, with R = R_z R_y R_x, t in mm, angles in
  radians and c the `rotation_centre_mm` in `_simulation.json`; the head is at rest in the first
  volume of the first run.

Made by `afterimage` (stage `simulate_bold`); the settings are in `dataset_description.json` under
`Simulation`. Everything here is in the public domain (CC0).
"""
