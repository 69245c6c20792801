"""Fit one decoder on a subject's training trials and predict the features of the test trials."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from afterimage.decoding.bayesian import BayesianSettings
from afterimage.decoding.leaks import check_fit
from afterimage.decoding.registry import DECODERS
from afterimage.decoding.ridge import RidgeSettings
from afterimage.errors import ConfigError
from afterimage.io.arrays import block_shapes, block_writer, read_blocks
from afterimage.io.trials import average_repeats, read_responses
from afterimage.io.weights import save_weights
from afterimage.settings import StageConfig

VERSION = 1
CITES = ("duprelatour2022",)

if TYPE_CHECKING:
    Decoder = Any  # built below from the registry, which a type checker cannot follow
else:
    Decoder = DECODERS.union()


class Config(StageConfig):
    """Which decoders are fitted, and on what part of the responses."""

    decoders: dict[str, Decoder] = Field(
        default={"bayesian": BayesianSettings(), "ridge": RidgeSettings()},
        description="decoders by name (letters and digits); each is fitted and evaluated",
    )
    tmin_s: float | None = Field(
        None, description="start of the window of responses with a time axis; null: all"
    )
    tmax_s: float | None = Field(None, description="end of that window; null: all")
    average_training_repeats: bool = Field(
        False, description="fit on the mean over repeats of each stimulus instead of single trials"
    )
    random_state: int | None = Field(
        None, description="seed of inner folds and of the shuffled control; default: the root seed"
    )


@dataclass(frozen=True)
class Inputs:
    """What the stage reads: no test picture and no feature of one."""

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
    """Fit, save, and predict for the brain and for two controls.

    The controls go through the same decoder: ``shuffled``, every unit's test responses shuffled
    across stimuli on its own (what is left is each unit's distribution), and ``mean``, the mean
    training response.
    """
    if len(config.decoders) != 1:
        raise ConfigError(
            "this stage fits one decoder a job", found=", ".join(config.decoders), expected="one"
        )
    ((name, settings),) = config.decoders.items()
    random_state = config.random_state or 0
    responses, stimuli = read_responses(inputs.trials, "train", config.tmin_s, config.tmax_s)
    if config.average_training_repeats:
        responses, stimuli, _ = average_repeats(responses, stimuli)
    test, test_stimuli = read_responses(inputs.trials, "test", config.tmin_s, config.tmax_s)
    names, blocks = read_blocks(inputs.features)
    shapes = block_shapes(inputs.features)
    check_fit(names, test_stimuli)
    rows = {stimulus: row for row, stimulus in enumerate(names)}
    order = np.array([rows[stimulus] for stimulus in stimuli])
    features = {block: values[order] for block, values in blocks.items()}

    settings = settings.model_copy(update={"random_state": random_state})
    decoder = DECODERS.get(settings.kind)(settings)
    decoder.fit(responses, features, stimuli, held_out=set(test_stimuli))
    save_weights(
        outputs.model,
        decoder.state(),
        {
            "decoder": name,
            "settings": settings.model_dump(mode="json"),
            "window_s": [config.tmin_s, config.tmax_s],
            "n_training_trials": len(responses),
            "fitted_on": sorted(set(stimuli)),
            "cross_validation": _plain(decoder.cross_validation_),
        },
    )

    average, test_names, _ = average_repeats(test, test_stimuli)
    rng = np.random.default_rng(random_state)
    sources = {
        "brain": (average, test_names),
        "shuffled": (rng.permuted(average, axis=0), test_names),
        "mean": (responses.mean(axis=0, keepdims=True), np.array(["mean"])),
    }
    with block_writer(outputs.predictions) as writer:
        for source, (patterns, ids) in sources.items():
            writer.group(source, ids)
            for block, values in decoder.predict(patterns).items():
                writer.write(source, block, [values], shapes[block], {"decoder": name})
            scores = decoder.scores(patterns, blocks)
            writer.write(source, "training_scores", [scores], (len(names),), {"decoder": name})


def _plain(value: Any) -> Any:
    """Turn nested arrays into lists, so that the summary can be written as JSON."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return [None if not np.isfinite(item) else float(item) for item in value.ravel()]
    if isinstance(value, np.generic):
        return value.item()
    return value
