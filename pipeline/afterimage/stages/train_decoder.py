"""Fit one decoder on a subject's training trials and predict the features of the test trials."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from afterimage.bids.names import derivative_root, unit_of
from afterimage.decoding.bayesian import BayesianSettings
from afterimage.decoding.layout import window
from afterimage.decoding.leaks import check_fit
from afterimage.decoding.registry import DECODERS
from afterimage.decoding.ridge import RidgeSettings
from afterimage.decoding.streams import Rows, TrialRows
from afterimage.errors import ConfigError
from afterimage.io.arrays import block_shapes, block_writer, read_blocks
from afterimage.io.trials import average_repeats, open_reader, read_layout, read_responses
from afterimage.io.weights import save_weights
from afterimage.settings import StageConfig
from afterimage.stages.shared_decoders import plain

VERSION = 3
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
    tokens: str = Field(
        "", description="EEG, MEG: a tokenizer whose tokens are decoded; empty: the signal"
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
    settings = settings.model_copy(update={"random_state": random_state})
    decoder = DECODERS.get(settings.kind)(settings)
    test, test_stimuli = read_responses(inputs.trials, "test", config.tmin_s, config.tmax_s)
    names, blocks = read_blocks(inputs.features)
    check_fit(names, test_stimuli)
    # networks read trials in batches and are told where and when a value was measured
    extra = _layout_of(inputs, config) if getattr(decoder, "needs_layout", False) else {}
    options: dict[str, Any] = {}
    work = derivative_root(outputs.model) / "work" / "train_decoder" / unit_of(outputs.model)
    with open_reader(inputs.trials) as reader:
        responses, stimuli = _training(reader, inputs, config, stream=bool(extra))
        order = _rows_of(names, stimuli)
        features = {
            block: Rows(values, order) if extra else values[order]
            for block, values in blocks.items()
        }
        if extra:
            folder = work / name / _fingerprint(settings.model_dump(mode="json"), stimuli, config)
            options = {"device": device, "checkpoint_folder": folder}
        decoder.fit(responses, features, stimuli, held_out=set(test_stimuli), **extra, **options)
        mean = mean_response(responses)
    save_weights(
        outputs.model,
        decoder.state(),
        {
            "decoder": name,
            "settings": settings.model_dump(mode="json"),
            "window_s": [config.tmin_s, config.tmax_s],
            "n_training_trials": len(stimuli),
            "fitted_on": sorted(set(stimuli)),
            "cross_validation": plain(decoder.cross_validation_),
        },
    )
    sources = _sources(test, test_stimuli, mean, random_state)
    _write_predictions(outputs, decoder, name, sources, inputs.features, extra)
    shutil.rmtree(work / name, ignore_errors=True)


def _sources(
    test: np.ndarray, test_stimuli: np.ndarray, mean: np.ndarray, random_state: int
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Patterns that are decoded, and their names: the brain's and the two controls'."""
    average, test_names, _ = average_repeats(test, test_stimuli)
    rng = np.random.default_rng(random_state)
    return {
        "brain": (average, test_names),
        "shuffled": (rng.permuted(average, axis=0), test_names),
        "mean": (mean, np.array(["mean"])),
    }


def _write_predictions(
    outputs: Outputs,
    decoder: Any,
    name: str,
    sources: Mapping[str, tuple[np.ndarray, np.ndarray]],
    features: Path,
    extra: Mapping[str, Any],
) -> None:
    names, blocks = read_blocks(features)
    shapes = block_shapes(features)
    with block_writer(outputs.predictions) as writer:
        for source, (patterns, ids) in sources.items():
            writer.group(source, ids)
            for block, values in decoder.predict(patterns, **extra).items():
                writer.write(source, block, [values], shapes[block], {"decoder": name})
            scores = decoder.scores(patterns, blocks, **extra)
            writer.write(source, "training_scores", [scores], (len(names),), {"decoder": name})


def _layout_of(inputs: Inputs, config: Config) -> dict[str, Any]:
    layout = window(read_layout(inputs.trials), config.tmin_s, config.tmax_s)
    return {"layout": layout}


def _training(
    reader: Any, inputs: Inputs, config: Config, *, stream: bool
) -> tuple[Any, np.ndarray]:
    """Training responses, flat, and their stimuli; read when indexed if they are a stream."""
    if stream and not config.average_training_repeats:
        rows = np.flatnonzero(reader.split == "train")
        times = reader.window(config.tmin_s, config.tmax_s)
        return TrialRows(reader, rows, times), reader.stimulus[rows]
    responses, stimuli = read_responses(inputs.trials, "train", config.tmin_s, config.tmax_s)
    if config.average_training_repeats:
        responses, stimuli, _ = average_repeats(responses, stimuli)
    return responses, stimuli


def _rows_of(names: np.ndarray, stimuli: np.ndarray) -> np.ndarray:
    rows = {stimulus: row for row, stimulus in enumerate(names)}
    return np.array([rows[stimulus] for stimulus in stimuli])


def mean_response(responses: Any, n_trials: int = 256) -> np.ndarray:
    """Mean response, (1, n_values), read in pieces."""
    if isinstance(responses, np.ndarray):
        mean: np.ndarray = responses.mean(axis=0, keepdims=True)
        return mean
    n = responses.shape[0]
    pieces = (np.arange(i, min(i + n_trials, n)) for i in range(0, n, n_trials))
    total = sum(responses[piece].sum(0, dtype=np.float64) for piece in pieces)
    return np.asarray(total / n, np.float32)[None]


def _fingerprint(settings: Mapping[str, Any], stimuli: np.ndarray, config: Config) -> str:
    """Name of a training run: a checkpoint of another one is not resumed."""
    whole = [settings, stimuli.tolist(), config.tmin_s, config.tmax_s]
    whole += [config.average_training_repeats]
    return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()[:16]
