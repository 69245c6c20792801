"""Simulate EEG and MEG of a study with known truth and write them as raw BIDS, beside BOLD or alone."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from afterimage.errors import InputError
from afterimage.io.atomic import atomic_path, write_json, write_text
from afterimage.io.meeg_files import channel_rows, write_brainvision, write_fif, write_positions
from afterimage.io.tables import read_json, read_tsv, write_tsv
from afterimage.settings import StageConfig
from afterimage.stages.simulate_bold import (
    BIDS_VERSION,
    EVENTS,
    TASK,
    goes_on,
    told,
    write_stimuli,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from afterimage.simulate.meeg import Modality, Recorder, Subject

VERSION = 1
CITES = ("gifford2022", "benchetrit2023")


class Config(StageConfig):
    """Size and quality of the simulated recordings."""

    modality: Literal["eeg", "meg", "both"] = Field(
        "both", description="what is recorded; both: EEG of the first subjects, MEG of the next"
    )
    n_subjects: int = Field(1, ge=1, description="subjects of each modality")
    first_subject: int = Field(3, ge=1, description="number of the first subject, as in sub-03")
    n_training_images: int = Field(480, ge=20, description="training pictures")
    n_training_repeats: int = Field(1, ge=1, description="times a training picture is shown")
    n_test_images: int = Field(50, ge=2, description="test pictures, in runs of their own")
    n_test_repeats: int = Field(6, ge=1, description="times each test picture is shown")
    trials_per_run: int = Field(240, ge=10, description="pictures shown in one run, about")
    trial_s: float = Field(0.7, gt=0, description="time from one picture to the next")
    stimulus_s: float = Field(0.4, gt=0, description="time a picture is shown")
    jitter_s: float = Field(0.05, ge=0, description="largest random move of an onset")
    n_early_units: int = Field(240, ge=1, description="units of V1, V2 and V4 together")
    n_selective_units: int = Field(64, ge=1, description="units of category-selective regions")
    sampling_rate_hz: float = Field(250.0, ge=100, le=2000, description="samples a second")
    evoked_uv: float = Field(
        6.0, gt=0, description="largest value of the mean evoked response in EEG, microvolts"
    )
    mean_response: float = Field(
        0.5, gt=0, description="mean response of a unit, in spreads over pictures"
    )
    early_latency_s: tuple[float, float] = Field(
        (0.08, 0.15), description="first and last peak of the units of V1, V2 and V4"
    )
    late_latency_s: tuple[float, float] = Field(
        (0.2, 0.4), description="first and last peak of category-selective units"
    )
    background_uv: float = Field(
        8.0, ge=0, description="background activity in the median electrode, microvolts"
    )
    alpha_uv: float = Field(6.0, ge=0, description="alpha where it is strongest, microvolts")
    blink_uv: float = Field(120.0, ge=0, description="height of a blink, microvolts")
    blinks_per_minute: float = Field(12.0, ge=0, le=40, description="blinks a minute, about")
    noise_uv: float = Field(0.7, ge=0, description="noise of an electrode, microvolts")
    noise_ft: float = Field(3.0, ge=0, description="noise of a magnetometer, fT in 1 Hz")
    noise_ft_cm: float = Field(3.0, ge=0, description="noise of a gradiometer, fT/cm in 1 Hz")
    drift_uv: float = Field(15.0, ge=0, description="slow drift of an electrode, microvolts")
    drift_ft: float = Field(500.0, ge=0, description="slow drift of the field around, fT")
    line_hz: float = Field(50.0, gt=0, description="frequency of the mains")
    line_uv: float = Field(4.0, ge=0, description="hum of the mains in EEG, microvolts")
    line_ft: float = Field(300.0, ge=0, description="hum of the mains in MEG, fT")
    n_flat: int = Field(1, ge=0, le=10, description="channels that record nothing")
    n_noisy: int = Field(2, ge=0, le=10, description="channels with a bad contact")
    noise_scale: float = Field(
        1.0, ge=0, description="factor on all noise; 0 leaves the evoked response alone"
    )
    random_state: int = Field(0, ge=0, description="seed of pictures, heads, units and noise")

    @model_validator(mode="after")
    def _is_possible(self) -> Self:
        if self.stimulus_s + 2 * self.jitter_s > self.trial_s:
            raise ValueError("stimulus_s + 2 jitter_s must fit into trial_s")
        for name in ("early_latency_s", "late_latency_s"):
            low_s, high_s = getattr(self, name)
            if not 0.05 <= low_s < high_s <= 0.6:
                raise ValueError(f"{name} must be two rising numbers from 0.05 to 0.6")
        if 2 * self.line_hz >= self.sampling_rate_hz:
            raise ValueError("sampling_rate_hz must be more than twice line_hz")
        return self

    @property
    def subjects(self) -> dict[str, Modality]:
        """Label of each subject and what is recorded of it."""
        modalities: tuple[Modality, ...] = (
            ("eeg", "meg") if self.modality == "both" else (self.modality,)
        )
        order = [modality for modality in modalities for _ in range(self.n_subjects)]
        numbers = range(self.first_subject, self.first_subject + len(order))
        return {f"sub-{number:02d}": name for number, name in zip(numbers, order, strict=True)}


@dataclass(frozen=True)
class Inputs:
    """The stage reads nothing but the study it adds subjects to, where there is one."""


@dataclass(frozen=True)
class Outputs:
    """What the stage writes: ``derivatives/simulation/meeg.json`` of the dataset, written last."""

    marker: Path


def run(
    inputs: Inputs, outputs: Outputs, config: Config, *, threads: int = 1, device: str = "cpu"
) -> None:
    """Record every subject, add it to the dataset, with the truth in ``derivatives/``.

    A simulation that was interrupted goes on with the runs that are not there yet.
    """
    from afterimage.simulate.stimuli import draw_stimuli

    truth = outputs.marker.parent
    folder = truth.parent.parent
    begun = truth / ".begun-simulate_meeg.json"
    if not goes_on(begun, VERSION, config):
        _clear(outputs.marker, config)
    n_pictures = config.n_training_images + config.n_test_images
    images, attributes, captions = draw_stimuli(n_pictures, config.random_state)
    names = _same_stimuli(folder / "stimuli", images, attributes, captions, config)
    write_json(begun, told(VERSION, config))
    rows = []
    for label, modality in config.subjects.items():
        # The mark that this folder may be removed comes first.
        write_json(truth / label / _mark(label), {"Modality": modality})
        subject = _draw_subject(config, label, modality, images, attributes)
        _write_recordings(folder, label, subject, names, attributes, config)
        _write_truth(truth / label, label, subject, names)
        rows.append({"participant_id": label, "n_runs": str(len(subject.runs))})
    _write_root(folder, rows, config)
    write_json(outputs.marker, {"Simulation": config.model_dump(mode="json")})
    begun.unlink()


def _draw_subject(
    config: Config,
    label: str,
    modality: Modality,
    images: np.ndarray,
    attributes: Mapping[str, np.ndarray],
) -> Subject:
    """Draw one subject; subjects differ in head, units, order of pictures and noise."""
    from afterimage.simulate.meeg import draw_subject
    from afterimage.simulate.meeg_schedule import plan_recording
    from afterimage.simulate.visual_brain import draw_brain

    number = int(label.removeprefix("sub-"))
    seed = (config.random_state, number)
    runs = plan_recording(
        {"train": config.n_training_images, "test": config.n_test_images},
        {"train": config.n_training_repeats, "test": config.n_test_repeats},
        trials_per_run=config.trials_per_run, trial_s=config.trial_s, jitter_s=config.jitter_s,
        sampling_rate_hz=config.sampling_rate_hz, rng=np.random.default_rng([*seed, 10]),
    )  # fmt: skip
    # The noise is that of the recording: the units' own ceiling plays no part.
    brain = draw_brain(
        config.n_early_units, config.n_selective_units, 0.8, config.random_state * 1000 + number
    )
    return draw_subject(_recorder(config), modality, brain, runs, images, attributes, seed)


def _recorder(config: Config) -> Recorder:
    from afterimage.simulate.meeg import Recorder

    return Recorder(**{field.name: getattr(config, field.name) for field in fields(Recorder)})


def _same_stimuli(
    folder: Path,
    images: np.ndarray,
    attributes: Mapping[str, np.ndarray],
    captions: Sequence[str],
    config: Config,
) -> list[str]:
    """Write the pictures, or make sure that those of the study are the same; return their ids."""
    if _is_ours(folder.parent):
        shutil.rmtree(folder, ignore_errors=True)
        return write_stimuli(folder, images, attributes, captions, config.n_training_images)
    rows = read_tsv(folder / "stimuli.tsv", ["stimulus_id", "split", "caption"])
    found = [(row["split"], row["caption"]) for row in rows]
    splits = ["train"] * config.n_training_images + ["test"] * config.n_test_images
    if found != list(zip(splits, captions, strict=True)):
        raise InputError(
            "the study shows other pictures", where=str(folder / "stimuli.tsv"),
            found=f"{len(found)} pictures",
            expected=f"the {len(splits)} that these settings draw, with the same split",
            fix="give the n_training_images, n_test_images and random_state of the study",
        )  # fmt: skip
    return [row["stimulus_id"] for row in rows]


def _write_recordings(
    folder: Path,
    label: str,
    subject: Subject,
    names: Sequence[str],
    attributes: Mapping[str, np.ndarray],
    config: Config,
) -> None:
    """Write every run with its events and sidecars, and where the sensors are."""
    from afterimage.simulate.meeg import simulate_run

    place = folder / label / subject.modality
    place.mkdir(parents=True, exist_ok=True)
    for number, recorded in enumerate(subject.runs):
        stem = f"{label}_task-{TASK}_run-{recorded.run:02d}"
        if (place / f"{stem}_events.tsv").is_file():  # it is written last
            continue
        data = simulate_run(subject, number)
        if subject.modality == "eeg":
            write_brainvision(place, f"{stem}_eeg", subject.info, data, recorded.first_samples)
        else:
            write_fif(place / f"{stem}_meg.fif", subject.info, data)
        write_json(place / f"{stem}_{subject.modality}.json", _sidecar(subject, number))
        channels = channel_rows(subject.info)
        write_tsv(place / f"{stem}_channels.tsv", channels, list(channels[0]))
        events = [
            {
                "onset": round(float(first / config.sampling_rate_hz), 6),
                "duration": config.stimulus_s,
                "trial_type": str(attributes["category"][index]),
                "stim_file": f"{names[index]}.png",
            }
            for index, first in zip(recorded.shown, recorded.first_samples, strict=True)
        ]
        write_tsv(place / f"{stem}_events.tsv", events, list(events[0]))
    write_positions(place, label, subject.modality, subject.info)


def _sidecar(subject: Subject, number: int) -> dict[str, Any]:
    from afterimage.simulate.meeg_geometry import REFERENCE

    recorder = subject.recorder
    common = {
        "TaskName": TASK,
        "TaskDescription": "Drawn pictures in rapid succession, looked at",
        "SamplingFrequency": recorder.sampling_rate_hz,
        "PowerLineFrequency": recorder.line_hz,
        "SoftwareFilters": "n/a",
        "RecordingType": "continuous",
        "RecordingDuration": subject.runs[number].n_samples / recorder.sampling_rate_hz,
        "EOGChannelCount": 1,
        "Manufacturer": "simulated",
    }
    if subject.modality == "eeg":
        return common | {"EEGReference": REFERENCE, "EEGChannelCount": len(subject.names)}
    places = {"DigitizedLandmarks": True, "DigitizedHeadPoints": True}
    return common | {"DewarPosition": "upright", "MEGChannelCount": len(subject.names), **places}


def _write_truth(folder: Path, label: str, subject: Subject, names: Sequence[str]) -> None:
    """Write what was planted: responses, units, dipoles, leadfield, artefacts."""
    from afterimage.simulate.meeg import mean_evoked

    rate = subject.recorder.sampling_rate_hz
    times_s = np.arange(int(subject.units.response_s * rate) + 1) / rate
    arrays = {
        "responses": np.concatenate(subject.planted),
        "leadfield": subject.moment_am * subject.leadfield,
        "evoked": mean_evoked(subject, times_s),
        "blink": subject.blink,
    }
    for name, values in arrays.items():
        with atomic_path(folder / f"{label}_{name}.npy") as temporary:
            np.save(temporary, values.astype(np.float32), allow_pickle=False)
    trials = [
        {"stimulus_id": names[index], "run": f"{recorded.run:02d}", "sample": int(first),
         "onset": round(float(first / rate), 6), "split": recorded.split}
        for recorded in subject.runs
        for index, first in zip(recorded.shown, recorded.first_samples, strict=True)
    ]  # fmt: skip
    write_tsv(folder / f"{label}_trials.tsv", trials, list(trials[0]))
    _write_columns(
        folder / f"{label}_units.tsv",
        {"roi": subject.brain.roi, "dipole": subject.units.dipole, "weight": subject.units.weight,
         "latency_s": subject.units.latency_s, "width_s": subject.units.width_s},
    )  # fmt: skip
    dipoles = subject.dipoles
    _write_columns(
        folder / f"{label}_dipoles.tsv",
        {"roi": dipoles.roi, "hemisphere": dipoles.hemisphere,
         **dict(zip("xyz", dipoles.place_m.T, strict=True)),
         **dict(zip(("along_x", "along_y", "along_z"), dipoles.direction.T, strict=True))},
    )  # fmt: skip
    blinks = [
        {"run": f"{recorded.run:02d}", "onset": float(onset_s)}
        for recorded, onsets_s in zip(subject.runs, subject.blinks_s, strict=True)
        for onset_s in onsets_s
    ]
    write_tsv(folder / f"{label}_blinks.tsv", blinks, ["run", "onset"])
    write_json(
        folder / _mark(label),
        {
            "Modality": subject.modality,
            "SamplingFrequency": rate,
            "channels": subject.names,
            "bad_channels": subject.bad,
            "moment_am": subject.moment_am,
            "alpha_hz": subject.alpha_hz.tolist(),
            "radius_m": subject.anatomy.radius_m,
            "evoked_times_s": times_s.tolist(),
        },
    )


def _write_columns(path: Path, columns: Mapping[str, np.ndarray]) -> None:
    lists = [np.asarray(values).tolist() for values in columns.values()]
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*lists, strict=True)]
    write_tsv(path, rows, list(columns))


def _write_root(folder: Path, rows: Sequence[Mapping[str, str]], config: Config) -> None:
    """Add the subjects to the study; write what holds for the dataset where no study stands."""
    participants = folder / "participants.tsv"
    known = read_tsv(participants) if participants.is_file() else []
    added = {row["participant_id"] for row in rows}
    kept = [row for row in known if row["participant_id"] not in added]
    every = sorted([*kept, *rows], key=lambda row: row["participant_id"])
    write_tsv(participants, every, ["participant_id", "n_runs"])
    write_text(folder / "derivatives" / "simulation" / ".bidsignore", "sub-*/\nmeeg.json\n")
    if not _is_ours(folder):
        return
    write_text(folder / "README.md", README)
    write_json(folder / f"task-{TASK}_events.json", EVENTS)
    write_json(folder / "participants.json", {"n_runs": {"Description": "Runs of the recording"}})
    common = {"BIDSVersion": BIDS_VERSION, "License": "CC0", "GeneratedBy": [GENERATED]}
    write_json(
        folder / "derivatives" / "simulation" / "dataset_description.json",
        {"Name": "What was planted in the simulated brains", "DatasetType": "derivative",
         "DatasetLinks": {"raw": "../.."}, **common},
    )  # fmt: skip
    write_json(
        folder / "dataset_description.json",
        {"Name": "Simulated visual brain, drawn pictures, EEG and MEG", "DatasetType": "raw",
         "Authors": ["afterimage", "its simulated subjects"], **common,
         "Simulation": config.model_dump(mode="json")},
    )  # fmt: skip


def _is_ours(folder: Path) -> bool:
    """Whether this stage made the root of the dataset, or nothing stands there yet."""
    description = folder / "dataset_description.json"
    if not description.is_file():
        return True
    return bool(read_json(description).get("GeneratedBy") == [GENERATED])


def _mark(label: str) -> str:
    return f"{label}_meeg.json"


def _clear(marker: Path, config: Config) -> None:
    """Remove what an earlier run of this stage made, whole or not, and nothing else."""
    marker.unlink(missing_ok=True)
    truth = marker.parent
    folder = truth.parent.parent
    for path in sorted(truth.glob("sub-*/sub-*_meeg.json")):
        label = path.parent.name
        shutil.rmtree(folder / label, ignore_errors=True)
        # The mark that all this may be removed goes last.
        for part in path.parent.iterdir():
            if part != path:
                part.unlink()
        shutil.rmtree(path.parent)
    taken = [label for label in config.subjects if (folder / label).exists()]
    if taken:
        raise InputError(
            "a subject of this number is there already", where=str(folder),
            found=", ".join(taken), expected="a number no subject has",
            fix="give another first_subject",
        )  # fmt: skip


GENERATED = {"Name": "afterimage", "Description": "simulate_meeg: simulated, truth known"}

README = """# Simulated visual brain, EEG and MEG

No person was recorded. Simulated subjects look at drawn pictures; their brains answer as
`afterimage.simulate.meeg` says, and the recording adds background, alpha, blinks, mains, drift,
noise and broken channels (all `good` in `channels.tsv`: finding them is part of the task).

* `stimuli/stimuli.tsv`: every picture with its split (train or test), caption and attributes.
* `sub-*/eeg`, `sub-*/meg`: BrainVision and FIF; onsets in the events count from the first sample.
* `derivatives/simulation`: what was planted. One row a trial in `_trials.tsv` and `_responses.npy`
  (units); one row a unit in `_units.tsv`; dipoles in `_dipoles.tsv` (m, head coordinates) and
  `_leadfield.npy` (channels x dipoles, for a unit response); `_evoked.npy` (channels x times);
  blinks in `_blinks.tsv` and `_blink.npy`; broken channels in `_meeg.json`.

Made by `afterimage` (stage `simulate_meeg`). Everything here is in the public domain (CC0).
"""
