"""Write one subject's trials in tokens, in the form of trials, so that every decoder takes them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from afterimage.bids.names import unit_of
from afterimage.io.arrays import open_dataset
from afterimage.io.tables import read_tsv
from afterimage.io.trials import write_trials
from afterimage.io.weights import load_weights
from afterimage.settings import StageConfig
from afterimage.stages.trial_tokens import TrialTokens, embeddings, encode_trials, seen_by
from afterimage.tokenizers.registry import TOKENIZERS

VERSION = 1
CITES = ("vandenoord2017",)
#: Where a trial lies in its series: not of the tokens.
PLACES = ("series_index", "first_sample", "whitening_index")


class Config(StageConfig):
    """What decoders are given of the tokens of a trial."""

    form: Literal["embeddings", "histogram"] = Field(
        "embeddings",
        description="units over time: vectors of the codes, or the share of streams with each code",
    )


@dataclass(frozen=True)
class Inputs:
    """What the stage reads: the trials of one subject, a tokenizer, and what it has seen."""

    trials: Path
    model: Path
    exposure: Path


@dataclass(frozen=True)
class Outputs:
    """What the stage writes: trials whose units are of tokens."""

    trials: Path


def run(
    inputs: Inputs, outputs: Outputs, config: Config, *, threads: int = 1, device: str = "cpu"
) -> None:
    """Encode all trials; the file says whether the tokenizer was trained on this person."""
    arrays, card = load_weights(inputs.model)
    tokenizer = TOKENIZERS.get(card["settings"]["kind"]).from_state(arrays, card)
    tokens = encode_trials(tokenizer, inputs.trials)
    codebooks = tokenizer.codebooks()
    if config.form == "embeddings":
        values, units = _embedded(tokens, codebooks)
    else:
        values, units = _counted(tokens, codebooks.shape[1])
    units["ceiling"] = np.full(values.shape[1], np.nan, np.float32)
    with open_dataset(inputs.trials) as dataset:
        trials = {
            str(key): np.asarray(column)
            for key, column in dataset.variables.items()
            if column.dims == ("trial",) and key not in PLACES
        }
    seen = set(seen_by(read_tsv(inputs.exposure), tokens.recordings))
    write_trials(
        outputs.trials, [values], trials, units, tokens.times_s,
        {
            "subject": unit_of(inputs.trials).removeprefix("sub-"), "response_units": "arbitrary",
            "position_units": "m", "tokenizer": card["name"], "seen": int(seen != {"no"}),
        },
    )  # fmt: skip


def _embedded(
    tokens: TrialTokens, codebooks: np.ndarray
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Return vectors of the codes, (n_trials, n_streams * n_dimensions, n_steps), and their units."""
    vectors = embeddings(tokens.codes, codebooks)  # (n_trials, n_streams, n_steps, n_dimensions)
    n, n_streams, n_steps, n_dimensions = vectors.shape
    values = vectors.transpose(0, 1, 3, 2).reshape(n, n_streams * n_dimensions, n_steps)
    place = {name: number for number, name in enumerate(tokens.layout.names.tolist())}
    known = [place.get(name) for name in tokens.streams.tolist()]
    nowhere = np.full(3, np.nan, np.float32)
    kinds = [str(tokens.layout.kinds[i]) if i is not None else "token" for i in known]
    positions = np.array([nowhere if i is None else tokens.layout.positions_m[i] for i in known])
    names = [f"{s}.{d}" for s in tokens.streams.tolist() for d in range(n_dimensions)]
    units = {"kind": np.repeat(kinds, n_dimensions), "name": np.array(names)}
    units |= {axis: positions.repeat(n_dimensions, axis=0)[:, i] for i, axis in enumerate("xyz")}
    return values, units | {"roi": np.full(len(names), "n/a")}


def _counted(tokens: TrialTokens, size: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Return the share of streams with each code, (n_trials, n_stages * size, n_steps)."""
    n, n_streams, n_steps, n_stages = tokens.codes.shape
    values = np.zeros((n, n_stages * size, n_steps), np.float32)
    trial, step = np.arange(n)[:, None, None], np.arange(n_steps)
    for stage in range(n_stages):
        np.add.at(values, (trial, stage * size + tokens.codes[..., stage], step), 1 / n_streams)
    names = [f"{stage + 1}.{code}" for stage in range(n_stages) for code in range(size)]
    same = {"kind": np.full(len(names), "token"), "roi": np.full(len(names), "n/a")}
    return values, {**same, "name": np.array(names)}
