"""Simulate a study with known truth and write it as a dataset of prepared responses."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import Field

from afterimage.io.atomic import atomic_path, write_json
from afterimage.io.images import write_png
from afterimage.io.tables import write_tsv
from afterimage.settings import StageConfig

VERSION = 1
CITES = ("kay2008",)


class Config(StageConfig):
    """Size and quality of the simulated study."""

    n_subjects: int = Field(2, ge=1, description="subjects; each has units of its own")
    n_training_images: int = Field(900, ge=20, description="training pictures, each shown once")
    n_test_images: int = Field(60, ge=2, description="test pictures")
    n_test_repeats: int = Field(4, ge=1, description="times each test picture is shown")
    n_training_repeats: int = Field(1, ge=1, description="times each training picture is shown")
    n_early_units: int = Field(700, ge=1, description="units of V1, V2 and V4 together")
    n_selective_units: int = Field(160, ge=1, description="units of category-selective regions")
    ceiling: float = Field(0.75, gt=0, lt=1, description="median noise ceiling of single trials")
    random_state: int = Field(0, ge=0, description="seed of pictures, units and noise")


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
    """Draw pictures, simulate every subject's trials, write the folder of DESIGN's second way in."""
    from afterimage.simulate.stimuli import draw_stimuli
    from afterimage.simulate.visual_brain import draw_brain, measure, respond

    folder = outputs.description.parent
    n_train, n_test = config.n_training_images, config.n_test_images
    images, attributes, captions = draw_stimuli(n_train + n_test, config.random_state)
    names = [f"picture{index:04d}" for index in range(len(images))]
    split = ["train"] * n_train + ["test"] * n_test
    rows = []
    for index, name in enumerate(names):
        write_png(folder / "stimuli" / f"{name}.png", images[index])
        values = {key: _plain(column[index]) for key, column in attributes.items()}
        row = {"stimulus_id": name, "file": f"{name}.png", "split": split[index]}
        rows.append({**row, "caption": captions[index], **values})
    write_tsv(folder / "stimuli.tsv", rows, list(rows[0]))

    for number in range(1, config.n_subjects + 1):
        subject = f"sub-{number:02d}"
        rng = np.random.default_rng([config.random_state, number])
        shown = np.concatenate(
            [np.tile(np.arange(n_train), config.n_training_repeats),
             np.tile(np.arange(n_train, len(images)), config.n_test_repeats)]
        )  # fmt: skip
        shown = shown[rng.permutation(len(shown))]
        seed = config.random_state * 1000 + number
        brain = draw_brain(config.n_early_units, config.n_selective_units, config.ceiling, seed)
        signal = respond(brain, images, attributes)
        responses = measure(signal[shown], brain.ceiling, seed)
        with atomic_path(folder / subject / f"{subject}_responses.npy") as temporary:
            np.save(temporary, responses.astype(np.float32), allow_pickle=False)
        trials = [
            {"stimulus_id": names[index], "run": 1 + trial // 100, "onset": 4.0 * (trial % 100)}
            for trial, index in enumerate(shown)
        ]
        write_tsv(folder / subject / f"{subject}_trials.tsv", trials, list(trials[0]))
        units = [
            {"kind": "voxel", "roi": roi, "true_ceiling": float(value)}
            for roi, value in zip(brain.roi, brain.ceiling, strict=True)
        ]
        write_tsv(folder / subject / f"{subject}_units.tsv", units, list(units[0]))
        write_json(
            folder / subject / f"{subject}_responses.json",
            {"units": "standard deviations of the unit's signal", "simulated": True},
        )
    write_json(
        outputs.description,
        {
            "Name": "Simulated visual brain, drawn pictures",
            "BIDSVersion": "1.10.0",
            "DatasetType": "derivative",
            "License": "CC0",
            "GeneratedBy": [{"Name": "afterimage", "Description": "simulated, truth known"}],
            "Simulation": config.model_dump(mode="json"),
        },
    )


def _plain(value: np.generic) -> str | float | int:
    """Turn one attribute into what a table holds."""
    if isinstance(value, np.floating):
        return round(float(value), 4)
    if isinstance(value, np.integer):
        return int(value)
    return str(value)
