"""Ask a pretrained model of series for labels of people or recordings, beside all that rivals it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from afterimage.errors import InputError
from afterimage.io.atomic import write_json
from afterimage.io.tables import write_tsv
from afterimage.io.weights import load_weights
from afterimage.settings import StageConfig
from afterimage.stages.checkpoints import checkpoint_folder
from afterimage.stages.pretrain_series import prepare_all
from afterimage.stages.runner import record_skipped
from afterimage.stages.series_recordings import (
    MISSING,
    groups_of,
    labels_of,
    people_table,
    read_common,
)

if TYPE_CHECKING:
    from afterimage.evaluation.probes import Labelled, ProbeScore
    from afterimage.pretraining.masked_model import MaskedModel, Prepared
    from afterimage.stages.series_files import Recording

VERSION = 1
CITES = ("alain2017", "ojala2010", "phipson2010")
COLUMNS = (
    *("model", "label", "features", "metric", "value", "ci_low", "ci_high"),
    *("chance", "chance_low", "chance_high", "p", "n", "n_groups", "protocol"),
)
#: What a pretrained model must beat: linear models of connectivity, without and with time.
RIVALS = ("static connectivity", "covariance at a lag")
#: Numbers with more values than this are predicted as values, not told apart as classes.
MAX_CLASSES = 10


class Config(StageConfig):
    """What pretrained models of series are asked for."""

    labels: tuple[str, ...] = Field(
        (), description="columns of participants.tsv, or session, task or run; default: none"
    )
    lag_volumes: int = Field(
        0, ge=0, description="lag of the covariance baseline; 0: one segment of the model"
    )
    fine_tune: bool = Field(
        True, description="also fine-tune the model, and train it from scratch"
    )
    n_steps: int = Field(300, ge=1, description="optimiser steps of fine-tuning and from scratch")
    batch_size: int = Field(32, ge=1, description="recordings a step")
    learning_rate: float = Field(1e-3, gt=0, description="highest learning rate of AdamW")
    n_permutations: int = Field(200, ge=0, description="refits with labels permuted")
    n_bootstraps: int = Field(1000, ge=100, description="resamples of people for an interval")
    random_state: int | None = Field(None, description="seed; default: the root seed")


@dataclass(frozen=True)
class Inputs:
    """What the stage reads: the series of all people, who they are, and the pretrained model."""

    series: tuple[Path, ...]
    model: Path
    participants: Path | None = None


@dataclass(frozen=True)
class Outputs:
    """What the stage writes: one row a label and representation; and the predictions."""

    table: Path
    details: Path


def run(
    inputs: Inputs, outputs: Outputs, config: Config, *, threads: int = 1, device: str = "cpu"
) -> None:
    """Probe the model and its rivals; people held out in pretraining are the test part."""
    from afterimage.evaluation.probes import compare
    from afterimage.pretraining.registry import MASKED_MODELS

    weights, card = load_weights(inputs.model)
    model = MASKED_MODELS.get(card["settings"]["kind"]).from_state(weights, card)
    found = read_common(inputs.series)
    if found.regions.tolist() != card["regions"]:
        raise InputError(
            "the model was trained on other regions", where=str(inputs.model),
            found=f"{len(found.regions)} regions", expected=f"the {len(card['regions'])} of its own",
            fix="pretrain again",
        )  # fmt: skip
    prepared, usable, errors = prepare_all(model, found.items)
    items = [found.items[place] for place in usable]
    people = people_table(inputs.participants)
    groups = groups_of([item.subject for item in items], people, card["group_column"])
    test = np.isin(groups, card["test_groups"])
    rivals = representations(model, prepared, config)
    work = checkpoint_folder("probe_series", VERSION, config, inputs, outputs.table)
    rows: list[dict[str, Any]] = []
    details: dict[str, Any] = {}
    for number, label in enumerate(config.labels):
        try:
            rows_of, data, names = labelled(items, people, label, groups, test)
        except InputError as error:
            errors.append(error)
            continue
        scores = [
            _probed(name, features[rows_of], data, config) for name, features in rivals.items()
        ]
        if config.fine_tune:
            parts = [prepared[row] for row in rows_of]
            scores += trained(model, parts, data, config, work / str(number), device)
        protocol = (
            f"{int((~data.test).sum())} recordings to learn from, penalty chosen among their "
            f"{len(set(data.groups[~data.test]))} groups; people held out are tested once"
        )
        rows += [
            {"model": card["name"], "label": label, "protocol": protocol, **vars(score)}
            for score in scores
        ]
        best = max((s for s in scores if s.features in RIVALS), key=lambda score: score.value)
        of_model = [s for s in scores if s.features in ("pretrained", "fine-tuned")]
        details[label] = {
            "rival": best.features,
            "differences": {
                score.features: compare(score, best, data, n_bootstraps=config.n_bootstraps)
                for score in of_model
            },
            "classes": names,
            "truth": data.labels[data.test].tolist(),
            "groups": data.groups[data.test].tolist(),
            "predicted": {score.features: score.predicted.tolist() for score in scores},
        }
    record_skipped("probe_series", outputs.table, *found.left_out, *errors)
    write_tsv(outputs.table, rows, COLUMNS)
    write_json(outputs.details, {"model": card["name"], "labels": details})
    shutil.rmtree(work.parent, ignore_errors=True)


def representations(
    model: MaskedModel, prepared: Sequence[Prepared], config: Config
) -> dict[str, np.ndarray]:
    """Return every frozen representation that is probed, (n_recordings, n_features) each."""
    from afterimage.evaluation.probes import lag_features, shuffle_time, static_features
    from afterimage.pretraining.masked_model import Prepared

    length = model.settings.segment_volumes
    generator = np.random.default_rng(config.random_state or 0)

    def shuffled(size: int) -> np.ndarray:
        """Encode recordings in random order; a volume takes its censoring along."""
        parts = []
        for one in prepared:
            both = np.column_stack([one.series, one.kept])
            both = shuffle_time(both, size, generator)
            parts.append(Prepared(both[:, :-1].astype(np.float32), both[:, -1] > 0.5))
        return model.encode(parts)

    untrained = type(model)(model.settings).initialise(model.n_regions_)
    kept = [one.series[one.kept] for one in prepared]
    lag = config.lag_volumes or length
    return {
        "pretrained": model.encode(prepared),
        "untrained": untrained.encode(prepared),
        "segments shuffled": shuffled(length),
        "volumes shuffled": shuffled(1),
        "static connectivity": static_features(kept),
        "covariance at a lag": lag_features([one.series for one in prepared], lag),
    }


def labelled(
    items: Sequence[Recording],
    people: dict[str, dict[str, str]],
    label: str,
    groups: np.ndarray,
    test: np.ndarray,
) -> tuple[np.ndarray, Labelled, list[str]]:
    """Return the recordings with a label, their labels, and names of the classes (none: values)."""
    from afterimage.evaluation.probes import Labelled

    texts = labels_of(items, people, label)
    rows = np.array([i for i, text in enumerate(texts) if text not in MISSING], int)
    known = [texts[i] for i in rows]
    names = sorted(set(known))
    numbers = _numbers(known)
    if numbers is not None and len(names) > MAX_CLASSES:
        names, values = [], numbers
    else:
        values = np.array([names.index(text) for text in known], float)
    sides = [len(set(values[test[rows] == side].tolist())) for side in (False, True)]
    if min(sides) < 2:
        raise InputError(
            "a label cannot be probed", where=f"probe_series.labels: {label}",
            found=f"{sides[0]} values to learn from, {sides[1]} among people held out",
            expected="two or more of each", fix="choose another label, or test_fraction",
        )  # fmt: skip
    if len(names) > MAX_CLASSES:
        raise InputError(
            "a label has too many classes", where=f"probe_series.labels: {label}",
            found=f"{len(names)} different texts", expected=f"at most {MAX_CLASSES}, or numbers",
            fix="choose another label",
        )  # fmt: skip
    return rows, Labelled(values, groups[rows], test[rows], bool(names)), names


def _numbers(texts: list[str]) -> np.ndarray | None:
    try:
        return np.array([float(text) for text in texts])
    except ValueError:
        return None


def _probed(name: str, features: np.ndarray, data: Labelled, config: Config) -> ProbeScore:
    from afterimage.evaluation.probes import probe

    return probe(
        name,
        features,
        data,
        n_permutations=config.n_permutations,
        n_bootstraps=config.n_bootstraps,
        random_state=config.random_state or 0,
    )


def trained(
    model: MaskedModel,
    prepared: Sequence[Prepared],
    data: Labelled,
    config: Config,
    work: Path,
    device: str,
) -> list[ProbeScore]:
    """Fine-tune the pretrained network, and train the same one from scratch."""
    from afterimage.evaluation.probes import scored
    from afterimage.training.loop import LoopSettings
    from afterimage.training.readout import fit_readout

    tokens, known = model.stacked(prepared)
    train = ~data.test
    targets = data.targets(data.labels)
    centre, scale = 0.0, 1.0
    if not data.classes:
        centre, scale = float(targets[train].mean()), max(float(targets[train].std()), 1e-12)
    wanted = ((targets - centre) / scale).astype(np.float32)
    untrained = type(model)(model.settings).initialise(model.n_regions_)
    settings = LoopSettings(
        n_steps=config.n_steps, batch_size=config.batch_size, ema_decay=0.98,
        learning_rate=config.learning_rate, weight_decay=0.05, warmup_steps=config.n_steps // 10,
    )  # fmt: skip
    scores = []
    for name, network in (("fine-tuned", model.network_), ("from scratch", untrained.network_)):
        predict: Callable[[np.ndarray, np.ndarray], np.ndarray] = fit_readout(
            network, tokens[train], known[train], wanted[train],
            classes=data.classes, settings=settings, random_state=config.random_state or 0,
            device=device, checkpoint_folder=work / name.replace(" ", "_"),
        )  # fmt: skip
        found = predict(tokens[~train], known[~train])
        predicted = found.argmax(1).astype(float) if data.classes else found[:, 0].astype(float)
        score = scored(
            name, predicted, data,
            n_bootstraps=config.n_bootstraps, random_state=config.random_state or 0,
        )  # fmt: skip
        scores.append(score)
    return scores
