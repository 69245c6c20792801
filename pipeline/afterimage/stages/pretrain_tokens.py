"""Train one masked-token model on the tokens of the people that its tokenizer was trained on."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from afterimage.errors import InputError
from afterimage.io.tables import read_tsv, write_tsv
from afterimage.io.tokens import RecordedTokens, read_tokens
from afterimage.io.weights import load_weights, save_weights
from afterimage.pretraining.brain_omni import BrainOmniSettings
from afterimage.pretraining.registry import TOKEN_MODELS
from afterimage.settings import Settings, StageConfig
from afterimage.stages.checkpoints import checkpoint_folder
from afterimage.stages.series_recordings import groups_of, people_table
from afterimage.tokenizers.registry import TOKENIZERS

if TYPE_CHECKING:
    Model = Any  # built below from the registry, which a type checker cannot follow
else:
    Model = TOKEN_MODELS.union()

VERSION = 1
CITES = ("devlin2019", "xiao2025")
COLUMNS = ("model", "tokenizer", "stage", "predictor", "value", "ci_low", "ci_high", "n")
EXPOSURE_COLUMNS = (
    "recording", "subject", "session", "task", "run", "part", "n_tokens", "sha256",
)  # fmt: skip


class TokenModel(Settings):
    """A masked-token model, and the tokens that it reads."""

    tokenizer: str = Field(
        "rawPatches", description="name in train_tokenizer of the tokenizer whose tokens it reads"
    )
    model: Model = Field(BrainOmniSettings(), description="the model and its settings")


class Config(StageConfig):
    """Masked-token models: off by default, since they take long to train."""

    enabled: bool = Field(
        False, description="train masked-token models; train_tokenizer must be enabled too"
    )
    models: dict[str, TokenModel] = Field(
        default={"brainOmni": TokenModel()},
        description="masked-token models by name (letters and digits); what is given replaces this",
    )
    n_draws: int = Field(4, ge=1, description="times that tokens of people held out are hidden")
    n_bootstraps: int = Field(1000, ge=100, description="resamples of people for an interval")
    random_state: int | None = Field(None, description="seed; default: the root seed")


@dataclass(frozen=True)
class Inputs:
    """What the stage reads: the tokens of all people, and the tokenizer with what it has seen."""

    tokens: tuple[Path, ...]
    tokenizer: Path
    exposure: Path
    participants: Path | None = None


@dataclass(frozen=True)
class Outputs:
    """What the stage writes: the model, how well it guesses, and what it has seen."""

    model: Path
    pretext: Path
    exposure: Path


def run(
    inputs: Inputs, outputs: Outputs, config: Config, *, threads: int = 1, device: str = "cpu"
) -> None:
    """Train the one model of ``config.models`` and let it guess tokens of people held out.

    The people held out are those of the tokenizer. Training resumes from its last checkpoint
    after an interruption.
    """
    (name, asked), *others = config.models.items()
    if others:
        raise ValueError("one job trains one model")
    random_state = config.random_state or 0
    arrays, vocabulary = load_weights(inputs.tokenizer)
    tokenizer = TOKENIZERS.get(vocabulary["settings"]["kind"]).from_state(arrays, vocabulary)
    settings = asked.model.model_copy(update={"random_state": random_state})
    model = TOKEN_MODELS.get(settings.kind)(settings)
    parts = {row["recording"]: row["part"] for row in read_tsv(inputs.exposure)}
    sides: dict[str, list[RecordedTokens]] = {"train": [], "test": []}
    for path in inputs.tokens:
        for one in read_tokens(path, path.with_suffix(".json"))[0]:
            if one.about["name"] in parts:  # others were never looked at by the tokenizer
                sides[parts[one.about["name"]]].append(one)
    block = settings.mask.block_steps
    train = [part for one in sides["train"] for part in stretches(one, block)]
    test = [part for one in sides["test"] for part in stretches(one, block)]
    if not train or not test:
        raise InputError(
            "there are no tokens on one side of the split",
            found=f"{len(train)} stretches to learn from, {len(test)} of people held out",
            expected=f"stretches of more than {block} good steps on either side",
            fix="set a smaller block_steps, or see what tokenize left out",
        )  # fmt: skip
    work = checkpoint_folder("pretrain_tokens", VERSION, config, inputs, outputs.model)
    model.fit(train, tokenizer.codebooks(), device=device, checkpoint_folder=work)
    if vocabulary["held_out"] == "people":
        people, column = people_table(inputs.participants), vocabulary["group_column"]
        groups = groups_of([one.about["subject"] for one in test], people, column).tolist()
    else:
        groups = [one.about["name"] for one in test]
    common = {"model": name, "tokenizer": vocabulary["name"]}
    rows = pretext_rows(model, train, test, groups, config)
    write_tsv(outputs.pretext, [{**common, **row} for row in rows], COLUMNS)
    weights, card = model.state()
    card |= {
        **common, "name": name, "held_out": vocabulary["held_out"], "n_train": len(sides["train"]),
        "n_test": len(sides["test"]),
        "n_tokens": int(sum(one.codes[..., 0].size for one in train)),
        "n_weights": int(sum(array.size for array in weights.values())),
        "losses": [round(float(loss), 5) for loss in model.losses_],
    }  # fmt: skip
    save_weights(outputs.model, weights, card)
    write_tsv(outputs.exposure, _exposure(sides, block), EXPOSURE_COLUMNS)
    shutil.rmtree(work.parent, ignore_errors=True)


def stretches(recording: RecordedTokens, block: int) -> list[RecordedTokens]:
    """Cut a recording at bad steps; each part starts on a whole block and is longer than one."""
    kept = np.concatenate([[False], recording.kept, [False]])
    edges = np.flatnonzero(np.diff(kept.astype(np.int8)))
    found = []
    for start, stop in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
        first = -(-start // block) * block
        if stop - first > block:
            here = slice(first, stop)
            part = (recording.codes[:, here], recording.streams, recording.kept[here])
            found.append(RecordedTokens(*part, recording.about))
    return found


def pretext_rows(
    model: Any,
    train: Sequence[RecordedTokens],
    test: Sequence[RecordedTokens],
    groups: Sequence[str],
    config: Config,
) -> list[dict[str, Any]]:
    """Return the cross-entropy of the model, and of guesses without a network, nats a token."""
    from afterimage.evaluation.token_baselines import CodeGuesses
    from afterimage.evaluation.token_card import mean_of_groups

    random_state = config.random_state or 0
    of_model = np.array([
        model.cross_entropy(one, n_draws=config.n_draws, random_state=random_state) for one in test
    ])  # fmt: skip
    rows: list[dict[str, Any]] = []
    for stage in range(of_model.shape[1]):
        size = len(model.network_.codebooks[stage])
        guesses = CodeGuesses([one.codes[..., stage] for one in train], size)
        losses = [guesses.losses(one.codes[..., stage]) for one in test]
        found = {"masked model": of_model[:, stage].tolist()}
        found |= {key: [loss[key] for loss in losses] for key in losses[0]}
        found["copy neighbour − masked model"] = [
            loss["copy neighbour"] - own
            for loss, own in zip(losses, of_model[:, stage], strict=True)
        ]
        for predictor, values in found.items():
            told = mean_of_groups(values, groups, config.n_bootstraps, random_state)
            rows.append({"stage": stage + 1, "predictor": predictor, **told})
    return rows


def _exposure(sides: dict[str, list[RecordedTokens]], block: int) -> list[dict[str, Any]]:
    """Return a row a recording: whether the model has seen it, and how many of its tokens."""
    return [
        {
            **{key: one.about.get(key, "n/a") for key in EXPOSURE_COLUMNS},
            "recording": one.about["name"], "part": side,
            "n_tokens": sum(part.codes[..., 0].size for part in stretches(one, block))
            if side == "train" else 0,
        }
        for side, some in sides.items()
        for one in some
    ]  # fmt: skip
