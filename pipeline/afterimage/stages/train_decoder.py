"""Fit one decoder on a subject's training trials and predict the features of the test trials."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from afterimage.decoding.bayesian import BayesianSettings
from afterimage.decoding.layout import window
from afterimage.decoding.leaks import check_fit
from afterimage.decoding.registry import DECODERS
from afterimage.decoding.ridge import RidgeSettings
from afterimage.decoding.roi_patterns import region_masks, roi_optimal_features
from afterimage.decoding.streams import Rows, Targets, TrialRows
from afterimage.errors import ConfigError
from afterimage.io.arrays import (
    BlockColumns,
    BlockWriter,
    block_shapes,
    block_writer,
    open_blocks,
    open_dataset,
    read_blocks,
)
from afterimage.io.trials import (
    average_repeats,
    open_reader,
    read_averages,
    read_layout,
    read_responses,
)
from afterimage.io.weights import save_weights
from afterimage.settings import StageConfig
from afterimage.stages.checkpoints import checkpoint_folder, on_disk
from afterimage.stages.control_patterns import controls, moments
from afterimage.stages.shared_decoders import plain
from afterimage.training.processes import process_number

VERSION = 4
CITES = ("duprelatour2022", "ozcelik2023")

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
    roi_images: int = Field(
        0,
        ge=0,
        description="pictures of what each region (roi) of the units alone stands for, shown in the "
        "report and never scored; 0: none",
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
    """Fit, save, and predict for the brain and for three controls.

    The controls go through the same decoder: ``shuffled``, every unit's test responses shuffled
    across stimuli on its own (what is left is each unit's distribution), ``mean``, the mean
    training response, and ``noise``, Gaussian noise with mean and deviation of each unit in training.
    Where asked for, ``roi`` holds what single regions stand for.
    """
    if len(config.decoders) != 1:
        raise ConfigError(
            "this stage fits one decoder a job", found=", ".join(config.decoders), expected="one"
        )
    ((name, settings),) = config.decoders.items()
    random_state = config.random_state or 0
    settings = settings.model_copy(update={"random_state": random_state})
    decoder = DECODERS.get(settings.kind)(settings)
    if process_number() and not getattr(decoder, "needs_layout", False):
        return  # of several processes that could share a network, one fits what is none
    test, test_stimuli = read_responses(inputs.trials, "test", config.tmin_s, config.tmax_s)
    names, _ = read_blocks(inputs.features, names=[])
    check_fit(names, test_stimuli)
    # networks read trials in batches and are told where and when a value was measured
    extra = _layout_of(inputs, config) if getattr(decoder, "needs_layout", False) else {}
    options: dict[str, Any] = {}
    work = checkpoint_folder("train_decoder", VERSION, config, inputs, outputs.model)
    with open_reader(inputs.trials) as reader, _blocks(decoder, inputs.features) as blocks:
        responses, stimuli = _training(reader, inputs, config, stream=bool(extra))
        order = _rows_of(names, stimuli)
        features: dict[str, Any] = {
            block: _of_trials(values, order, rows=bool(extra)) for block, values in blocks.items()
        }
        if extra:
            options = {"device": device, "checkpoint_folder": work}
        elif getattr(decoder, "streams", False):
            options = {"allocate": on_disk(work)}
        decoder.fit(responses, features, stimuli, held_out=set(test_stimuli), **extra, **options)
        statistics = moments(responses)
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
        sources = _sources(test, test_stimuli, statistics, random_state)
        with block_writer(outputs.predictions) as writer:
            _write_predictions(writer, decoder, name, sources, inputs.features, blocks, extra)
            if config.roi_images:
                optimal = _roi_features(inputs.trials, decoder, statistics, blocks, extra)
                _write_regions(writer, config.roi_images, name, optimal, inputs.features)
    shutil.rmtree(work.parent, ignore_errors=True)


@contextmanager
def _blocks(decoder: Any, features: Path) -> Iterator[dict[str, Any]]:
    """Give the feature blocks of the training stimuli, on disk where the decoder reads columns."""
    if getattr(decoder, "streams", False):
        with open_blocks(features) as blocks:
            yield dict(blocks)
    else:
        yield dict(read_blocks(features)[1])


def _of_trials(values: Any, order: np.ndarray, *, rows: bool) -> Any:
    """Features of trials from those of stimuli: looked up when asked for, or all of them."""
    if isinstance(values, BlockColumns):
        return Targets(values.columns, order, values.shape[1])
    return Rows(values, order) if rows else values[order]


def _sources(
    test: np.ndarray,
    test_stimuli: np.ndarray,
    statistics: tuple[np.ndarray, np.ndarray],
    random_state: int,
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Patterns that are decoded, and their names: the brain's and the three controls'."""
    average, test_names, _ = average_repeats(test, test_stimuli)
    return {"brain": (average, test_names)} | controls(
        average, test_names, statistics, random_state
    )


def _write_predictions(
    writer: BlockWriter,
    decoder: Any,
    name: str,
    sources: Mapping[str, tuple[np.ndarray, np.ndarray]],
    features: Path,
    blocks: Mapping[str, Any],
    extra: Mapping[str, Any],
) -> None:
    names, _ = read_blocks(features, names=[])
    shapes = block_shapes(features)
    about = {"decoder": name}
    if getattr(decoder.settings, "rescale", "") == "transductive":
        about["rescaling"] = "transductive: statistics of all test predictions together"
    for source, (patterns, ids) in sources.items():
        writer.group(source, ids)
        for block, values in decoder.predict(patterns, **extra).items():
            writer.write(source, block, [values], shapes[block], about)
        scores = decoder.scores(patterns, blocks, **extra)
        writer.write(source, "training_scores", [scores], (len(names),), about)


def _roi_features(
    trials: Path,
    decoder: Any,
    statistics: tuple[np.ndarray, np.ndarray],
    blocks: Mapping[str, Any],
    extra: Mapping[str, Any],
) -> tuple[list[str], dict[str, np.ndarray]]:
    """Return the regions of the units, and the features that each alone stands for."""
    with open_dataset(trials) as dataset:
        roi = dataset["roi"].values.astype(str) if "roi" in dataset else np.array([], str)
    mean, scale = statistics
    masks = region_masks(roi, len(mean) // max(1, len(roi)))
    if not masks:
        raise ConfigError(
            "the units belong to no region", where=str(trials), found="no column roi, or none filled",
            expected="a region for some units", fix="set train_decoder.roi_images to 0, or add roi to "
            "the table of units",
        )  # fmt: skip
    return list(masks), roi_optimal_features(
        lambda patterns: decoder.predict(patterns, **extra), mean, scale, masks, blocks
    )


def _write_regions(
    writer: BlockWriter,
    n_images: int,
    name: str,
    optimal: tuple[list[str], Mapping[str, np.ndarray]],
    features: Path,
) -> None:
    """Write every region as often as pictures of it are wanted; each has noise of its own."""
    shapes = block_shapes(features)
    regions, blocks = optimal
    writer.group("roi", [f"{region} {i + 1}" for region in regions for i in range(n_images)])
    for block, values in blocks.items():
        rows = np.repeat(values, n_images, axis=0)
        writer.write("roi", block, [rows], shapes[block], {"decoder": name})


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
    if config.average_training_repeats:
        return read_averages(inputs.trials, "train", config.tmin_s, config.tmax_s)[:2]
    return read_responses(inputs.trials, "train", config.tmin_s, config.tmax_s)


def _rows_of(names: np.ndarray, stimuli: np.ndarray) -> np.ndarray:
    rows = {stimulus: row for row, stimulus in enumerate(names)}
    return np.array([rows[stimulus] for stimulus in stimuli])
