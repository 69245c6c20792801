"""Pretrain one masked model on the region series of all people but those held out."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from afterimage.errors import InputError
from afterimage.io.tables import write_tsv
from afterimage.io.weights import save_weights
from afterimage.pretraining.brain_mae import BrainMAESettings
from afterimage.pretraining.graph_mae import GraphMAESettings
from afterimage.pretraining.parcel_patches import ParcelPatchesSettings
from afterimage.pretraining.registry import MASKED_MODELS
from afterimage.settings import StageConfig
from afterimage.stages.checkpoints import checkpoint_folder
from afterimage.stages.runner import record_skipped
from afterimage.stages.series_recordings import (
    groups_of,
    held_out,
    people_table,
    read_common,
)

if TYPE_CHECKING:
    from afterimage.evaluation.pretext import PretextScore

    Model = Any  # built below from the registry, which a type checker cannot follow
else:
    Model = MASKED_MODELS.union()

VERSION = 1
CITES = (
    "yang2024", "choi2023", "ortegacaro2024", "he2022", "assran2023", "su2021", "tegon2025",
    "gu2024",
)  # fmt: skip
COLUMNS = ("model", "predictor", "metric", "value", "ci_low", "ci_high", "n")
#: Regions and segments of the example that the report shows.
EXAMPLE = (60, 40)


class Config(StageConfig):
    """Masked autoencoders of region series: off by default, since they take long to train."""

    enabled: bool = Field(False, description="pretrain masked models and probe them")
    models: dict[str, Model] = Field(
        default={
            "brainMAE": BrainMAESettings(),
            "graphMAE": GraphMAESettings(),
            "parcelPatches": ParcelPatchesSettings(),
        },
        description="masked models by name (letters and digits); each is trained and probed",
    )
    test_fraction: float = Field(
        0.3, gt=0, lt=1, description="share of people that no model sees in pretraining"
    )
    group_column: str = Field(
        "",
        description="column of participants.tsv that is never split (family, site); else people",
    )
    n_bootstraps: int = Field(1000, ge=100, description="resamples of people for an interval")
    random_state: int | None = Field(None, description="seed; default: the root seed")


@dataclass(frozen=True)
class Inputs:
    """What the stage reads: the series of all people."""

    series: tuple[Path, ...]
    participants: Path | None = None


@dataclass(frozen=True)
class Outputs:
    """What the stage writes: the model, what it fills in beside simple rivals, and an example."""

    model: Path
    pretext: Path
    example: Path


def run(
    inputs: Inputs, outputs: Outputs, config: Config, *, threads: int = 1, device: str = "cpu"
) -> None:
    """Train the one model of ``config.models`` and score what it fills in of people held out.

    Training resumes from its last checkpoint after an interruption.
    """
    (name, settings), *others = config.models.items()
    if others:
        raise ValueError("one job trains one model")
    recordings = read_common(inputs.series)
    random_state = config.random_state or 0
    people = people_table(inputs.participants)
    groups = groups_of([item.subject for item in recordings.items], people, config.group_column)
    test = held_out(groups, config.test_fraction, random_state)
    settings = settings.model_copy(update={"random_state": random_state})
    model = MASKED_MODELS.get(settings.kind)(settings)
    prepared, usable, errors = prepare_all(model, recordings.items)
    record_skipped("pretrain_series", outputs.model, *recordings.left_out, *errors)
    test, groups = test[usable], groups[usable]
    train_part = [one for one, out in zip(prepared, test, strict=True) if not out]
    test_part = [one for one, out in zip(prepared, test, strict=True) if out]
    if not train_part or not test_part:
        raise InputError(
            "pretraining needs recordings on both sides of the split",
            found=f"{len(train_part)} to learn from, {len(test_part)} held out",
            expected="one or more of each", fix="change test_fraction, or add people",
        )  # fmt: skip
    work = checkpoint_folder("pretrain_series", VERSION, config, inputs, outputs.model)
    untrained = MASKED_MODELS.get(settings.kind)(settings).initialise(len(recordings.regions))
    model.fit(train_part, device=device, checkpoint_folder=work)
    scores = pretext_scores(model, untrained, train_part, test_part, groups[test], config)
    write_tsv(outputs.pretext, [{"model": name, **vars(score)} for score in scores], COLUMNS)
    weights, card = model.state()
    losses = model.losses_
    card |= {
        "name": name,
        "regions": recordings.regions.tolist(),
        "train_groups": sorted(set(groups[~test].tolist())),
        "test_groups": sorted(set(groups[test].tolist())),
        "group_column": config.group_column,
        "n_train": len(train_part),
        "n_test": len(test_part),
        "n_steps": len(losses),
    }
    save_weights(outputs.model, weights, card)
    save_weights(outputs.example, example_of(model, test_part, random_state), {"model": name})
    shutil.rmtree(work.parent, ignore_errors=True)


def prepare_all(model: Any, items: Sequence[Any]) -> tuple[list[Any], list[int], list[InputError]]:
    """Prepare recordings for a model; which could be used, and why others could not."""
    from afterimage.pretraining.masked_model import prepare

    prepared, usable, errors = [], [], []
    for place, item in enumerate(items):
        try:
            one = prepare(np.ascontiguousarray(item.values), item.kept)
            model.tokens(one)
        except InputError as error:
            error.where = f"sub-{item.subject} {item.name}"
            errors.append(error)
        else:
            prepared.append(one)
            usable.append(place)
    return prepared, usable, errors


def pretext_scores(
    model: Any,
    untrained: Any,
    train_part: list[Any],
    test_part: list[Any],
    groups: np.ndarray,
    config: Config,
) -> list[PretextScore]:
    """Score what the model fills in, beside simple predictors and the untrained network."""
    from afterimage.evaluation.pretext import score_edges, score_samples

    seed = config.random_state or 0
    options: dict[str, Any] = {
        "groups": groups.tolist(), "n_bootstraps": config.n_bootstraps, "random_state": seed,
    }  # fmt: skip
    if model.fills == "edges":
        n_regions = model.n_regions_
        rows, columns = np.triu_indices(n_regions, 1)
        training = [model.tokens(one)[0][:, rows, columns] for one in train_part]
        score = score_edges
    else:
        training = [model.tokens(one)[0] for one in train_part]
        score = score_samples
    before = untrained.fill_in(test_part, seed)
    return score(model.fill_in(test_part, seed), training, untrained=before, **options)


def example_of(model: Any, test_part: list[Any], random_state: int) -> dict[str, np.ndarray]:
    """Return the losses, and what was filled in of the first recording, for the report."""
    arrays = {"losses": model.losses_}
    if hasattr(model, "region_embedding"):
        arrays["embedding"] = model.region_embedding()
        arrays["connectivity"] = np.mean(
            [np.corrcoef(one.series[one.kept].T) for one in test_part], axis=0, dtype=np.float32
        )
    filled = model.fill_in(test_part[:1], random_state)[0]
    if model.fills == "samples":
        n_regions, n_segments = EXAMPLE
        for key in ("tokens", "predicted", "hidden"):
            arrays[key] = getattr(filled, key)[:n_segments, :n_regions]
    return arrays
