"""Predict the features of one subject's test trials with a decoder of several subjects.

A subject who took no part in the fit is adapted to it first, on its own training trials. What is
written is what `train_decoder` writes, so that all that follows is the same; the model file holds
the subject's own arrays and names the file of the shared ones (``shared_model`` of its card).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from afterimage.bids.names import unit_of
from afterimage.decoding.leaks import check_fit
from afterimage.decoding.registry import SHARED_DECODERS
from afterimage.errors import ConfigError
from afterimage.io.arrays import block_shapes, block_writer, open_blocks
from afterimage.io.trials import average_repeats, read_responses
from afterimage.io.weights import load_weights, save_weights
from afterimage.settings import StageConfig
from afterimage.stages.checkpoints import checkpoint_folder, on_disk
from afterimage.stages.control_patterns import controls, moments
from afterimage.stages.shared_decoders import only_subject, subject_data
from afterimage.training.pieces import pieces

if TYPE_CHECKING:
    from afterimage.decoding.linear import Allocate
    from afterimage.decoding.shared import SubjectData
    from afterimage.io.arrays import BlockWriter

VERSION = 1
CITES = ("scotti2024", "wang2024")


class Config(StageConfig):
    """How decoders of several subjects are adapted to a new one, and asked."""

    n_adaptation_trials: int | None = Field(
        None, ge=3, description="first training trials a new subject is adapted on; null: all"
    )
    average: Literal["outputs", "inputs"] = Field(
        "outputs",
        description="over repeats of a test picture: what is decoded from each, or the responses",
    )
    random_state: int | None = Field(
        None, description="seed of the shuffled control; default: the root seed"
    )


@dataclass(frozen=True)
class Inputs:
    """What the stage reads: no test picture and no feature of one."""

    shared: Path
    trials: Path
    features: Path


@dataclass(frozen=True)
class Outputs:
    """What the stage writes."""

    model: Path
    predictions: Path


def run(
    inputs: Inputs, outputs: Outputs, config: Config, *, threads: int = 1, device: str = "cpu"
) -> None:
    """Adapt where the subject is new, and predict for the brain and for the controls.

    The controls are those of `train_decoder`.
    """
    subject = unit_of(outputs.model).removeprefix("sub-")
    arrays, card = load_weights(inputs.shared)
    kind = card["settings"]["kind"]
    settings = SHARED_DECODERS.settings(kind)(**card["settings"])
    decoder = SHARED_DECODERS.get(kind).from_state(settings, arrays)
    seen = {stimulus for names in card["fitted_on"].values() for stimulus in names}
    work = checkpoint_folder("apply_shared_decoder", VERSION, config, inputs, outputs.model)
    test, test_stimuli = read_responses(inputs.trials, "test", *card["window_s"])
    check_fit(seen, test_stimuli)
    n_trials = card["n_training_trials"].get(subject)
    with ExitStack() as stack:
        tmin_s, tmax_s = card["window_s"]
        data, _ = subject_data(inputs.trials, inputs.features, tmin_s, tmax_s, stack)
        if subject not in decoder.subjects:
            if data.stimuli.size == 0:
                raise ConfigError(
                    "a subject without training trials cannot be adapted", where=f"sub-{subject}",
                    found="no training trial", expected="some",
                )  # fmt: skip
            wanted = config.n_adaptation_trials or len(data.stimuli)
            few = data.only(np.arange(min(wanted, len(data.stimuli))))
            decoder.adapt(
                subject,
                few,
                set(test_stimuli),
                device=device,
                checkpoint_folder=work,
                allocate=on_disk(work / "features"),
            )
            n_trials = len(few.stimuli)
            seen |= set(few.stimuli.tolist())
        sources = _sources(test, test_stimuli, data, config)
    own = {key: value for key, value in card.items() if key in ("decoder", "settings", "window_s")}
    save_weights(
        outputs.model,
        only_subject(decoder.state(), subject),
        own
        | {
            "shared_model": os.path.relpath(
                inputs.shared.resolve(), outputs.model.parent.resolve()
            ),
            "subjects_of_fit": sorted(card["fitted_on"]),
            "average": config.average,
            "n_training_trials": n_trials,
            "fitted_on": sorted(seen),
            "cross_validation": card["cross_validation"],
        },
    )
    about = {"decoder": card["decoder"]}
    predict = partial(decoder.predict_each, subject=subject)
    with open_blocks(inputs.features) as gallery, block_writer(outputs.predictions) as writer:
        score = partial(decoder.scores, gallery=gallery, subject=subject)
        for source, shown in sources.items():
            allocate = on_disk(work / source)
            _write_source(writer, source, shown, predict, score, inputs.features, about, allocate)
    shutil.rmtree(work.parent, ignore_errors=True)


def _sources(
    test: np.ndarray, stimuli: np.ndarray, data: SubjectData, config: Config
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Patterns that are decoded and the stimulus of each: the brain's and the three controls'."""
    if config.average == "inputs":
        test, stimuli, _ = average_repeats(test, stimuli)
    return {"brain": (test, stimuli)} | controls(
        test, stimuli, moments(data.responses), config.random_state or 0
    )


def _write_source(
    writer: BlockWriter,
    source: str,
    shown: tuple[np.ndarray, np.ndarray],
    predict: Callable[[np.ndarray], Iterator[tuple[slice, dict[str, np.ndarray]]]],
    score: Callable[[np.ndarray], np.ndarray],
    features: Path,
    about: dict[str, Any],
    allocate: Allocate,
) -> None:
    """Decode patterns a piece at a time; what belongs to one stimulus is averaged."""
    patterns, stimuli = shown
    shapes = block_shapes(features)
    decoded: dict[str, np.ndarray] = {}
    for part, found in predict(patterns):
        for block, values in found.items():
            if block not in decoded:
                decoded[block] = allocate(block, (len(patterns), values.shape[1]))
            decoded[block][part] = values
    decoded["training_scores"] = score(patterns)
    writer.group(source, np.unique(stimuli))
    for block, values in decoded.items():
        shape = shapes.get(block, values.shape[1:])
        writer.write(source, block, _averages(values, stimuli), shape, about)


def _averages(values: np.ndarray, stimuli: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the means of trials of each stimulus, some stimuli at a time."""
    names, number = np.unique(stimuli, return_inverse=True)
    for part in pieces(len(names), values.shape[1]):
        own = np.flatnonzero((number >= part.start) & (number < part.stop))
        yield average_repeats(values[own], number[own])[0]
