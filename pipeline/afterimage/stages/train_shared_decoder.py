"""Fit one decoder on the training trials of several subjects.

``group/decoding/desc-<decoder>_model.safetensors`` holds the arrays that all subjects share; those
of each subject lie with `apply_shared_decoder`. Subjects named in ``adapt`` take no part here.

Features that are large together lie in the working folder, uncompressed, while it is fitted: of
eight people and 9,000 pictures each, 257 x 768 values are 57 GB, of which a batch needs 0.2.
"""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from afterimage.bids.names import unit_of
from afterimage.decoding.registry import SHARED_DECODERS
from afterimage.errors import AfterimageError, ConfigError, InputError
from afterimage.io.tables import read_tsv
from afterimage.io.weights import save_weights
from afterimage.settings import StageConfig
from afterimage.stages.checkpoints import checkpoint_folder, on_disk
from afterimage.stages.runner import record_skipped
from afterimage.stages.shared_decoders import plain, subject_data, unit_names

VERSION = 2
CITES = ("scotti2024", "wang2024")

if TYPE_CHECKING:
    from afterimage.decoding.shared import SubjectData

    Decoder = Any  # built below from the registry, which a type checker cannot follow
else:
    Decoder = SHARED_DECODERS.union()


class Config(StageConfig):
    """Decoders of several subjects in one model (none by default), and who is in the fit."""

    decoders: dict[str, Decoder] = Field(
        default={},
        description="decoders of several subjects, by name (letters and digits); none by default",
    )
    adapt: tuple[str, ...] = Field(
        (), description="labels of subjects who are not in the fit but adapted to it afterwards"
    )
    tmin_s: float | None = Field(
        None, description="start of the window of responses with a time axis; null: all"
    )
    tmax_s: float | None = Field(None, description="end of that window; null: all")
    random_state: int | None = Field(
        None, description="seed of training and of held-out stimuli; default: the root seed"
    )


@dataclass(frozen=True)
class Inputs:
    """What the stage reads, one a subject and in one order: no test picture, no feature of one.

    ``splits`` are those of the subjects who are adapted later: what they are tested on is not
    learned from others.
    """

    trials: tuple[Path, ...]
    features: tuple[Path, ...]
    splits: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Outputs:
    """What the stage writes."""

    model: Path


def run(
    inputs: Inputs, outputs: Outputs, config: Config, *, threads: int = 1, device: str = "cpu"
) -> None:
    """Fit on all subjects whose files are in order; who is left out is recorded."""
    if len(config.decoders) != 1:
        raise ConfigError(
            "this stage fits one decoder a job", found=", ".join(config.decoders), expected="one"
        )
    ((name, settings),) = config.decoders.items()
    settings = settings.model_copy(update={"random_state": config.random_state or 0})
    decoder = SHARED_DECODERS.get(settings.kind)(settings)
    work = checkpoint_folder("train_shared_decoder", VERSION, config, inputs, outputs.model)
    with ExitStack() as stack:
        subjects, held_out, skipped = _subjects(inputs, config, stack)
        record_skipped("train_shared_decoder", outputs.model, *skipped)
        decoder.fit(
            subjects, held_out, device=device, checkpoint_folder=work,
            allocate=on_disk(work / "features"),
        )  # fmt: skip
    save_weights(
        outputs.model,
        decoder.state(),
        {
            "decoder": name,
            "settings": settings.model_dump(mode="json"),
            "window_s": [config.tmin_s, config.tmax_s],
            "n_training_trials": {k: len(data.stimuli) for k, data in subjects.items()},
            "fitted_on": {k: sorted(set(data.stimuli.tolist())) for k, data in subjects.items()},
            "units": {
                label: unit_names(path)
                for path in inputs.trials
                if (label := unit_of(path).removeprefix("sub-")) in subjects
            },
            "left_out": [str(error) for error in skipped],
            "cross_validation": plain(decoder.cross_validation_),
        },
    )
    shutil.rmtree(work.parent, ignore_errors=True)


def _subjects(
    inputs: Inputs, config: Config, stack: ExitStack
) -> tuple[dict[str, SubjectData], set[str], list[AfterimageError]]:
    """Open the subjects: the good ones, the test stimuli of all, and what was wrong with others."""
    from afterimage.decoding.shared import check_subject

    subjects: dict[str, SubjectData] = {}
    errors: list[AfterimageError] = []
    held_out = {
        row["stimulus_id"]
        for path in inputs.splits
        for row in read_tsv(path, required=("stimulus_id", "split"))
        if row["split"] == "test"
    }
    for trials, features in zip(inputs.trials, inputs.features, strict=True):
        label = unit_of(trials).removeprefix("sub-")
        try:
            data, test = subject_data(trials, features, config.tmin_s, config.tmax_s, stack)
            check_subject(label, data, (), None)
            # A picture that one subject is tested on must not be learned from another one.
            held_out |= set(test.tolist())
            subjects[label] = data
        except AfterimageError as error:
            errors.append(error)
    if not subjects:
        raise InputError(
            "no subject can be fitted on", where="train_shared_decoder",
            found="\n".join(map(str, errors)) or "no subject", expected="one subject or more",
        )  # fmt: skip
    for label, data in list(subjects.items()):
        kept = np.flatnonzero(~np.isin(data.stimuli, list(held_out)))
        if len(kept) < len(data.stimuli):
            subjects[label] = data.only(kept)
    sizes = [{k: v.shape[1] for k, v in data.features.items()} for data in subjects.values()]
    usual = max(sizes, key=sizes.count)
    for label, data in list(subjects.items()):
        try:
            check_subject(label, data, held_out, usual)
        except AfterimageError as error:
            errors.append(error)
            del subjects[label]
    return subjects, held_out, errors
