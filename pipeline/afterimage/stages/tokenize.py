"""Write the EEG or MEG of one subject in the tokens of one tokenizer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from afterimage.errors import InputError
from afterimage.io.tables import read_tsv
from afterimage.io.tokens import RecordedTokens, write_tokens
from afterimage.io.weights import load_weights
from afterimage.settings import StageConfig
from afterimage.stages.runner import record_skipped
from afterimage.stages.token_series import RecordingFile, open_recordings, usable_by
from afterimage.tokenizers.registry import TOKENIZERS
from afterimage.tokenizers.tokenizer import SignalTokenizer

VERSION = 1
CITES = ("vandenoord2017",)


class Config(StageConfig):
    """What happens to recordings that cannot be written in tokens."""

    on_bad_run: Literal["skip", "fail"] = Field(
        "skip", description="whether a run that cannot be used is left out or stops the subject"
    )


@dataclass(frozen=True)
class Inputs:
    """What the stage reads: the runs, or trials, of one subject; a tokenizer, what it has seen."""

    series: tuple[Path, ...]
    model: Path
    exposure: Path


@dataclass(frozen=True)
class Outputs:
    """What the stage writes: tokens, and their vocabulary."""

    tokens: Path
    card: Path


def run(
    inputs: Inputs, outputs: Outputs, config: Config, *, threads: int = 1, device: str = "cpu"
) -> None:
    """Encode all runs; say of each whether the tokenizer was trained on it."""
    arrays, card = load_weights(inputs.model)
    tokenizer = TOKENIZERS.get(card["settings"]["kind"]).from_state(arrays, card)
    found, unreadable = open_recordings(inputs.series)
    recordings, unusable = usable_by(tokenizer, found)
    errors = [*unreadable, *unusable]
    ledger = read_tsv(inputs.exposure, ("recording", "part", "sha256"))
    done = []
    for one in recordings:
        try:
            done.append(_tokens_of(tokenizer, one, ledger))
        except InputError as error:
            error.where = one.name
            errors.append(error)
    if errors and config.on_bad_run == "fail":
        raise errors[0]
    record_skipped("tokenize", outputs.tokens, *errors)
    settings = card["settings"]
    vocabulary = {
        "tokenizer": card["name"], "kind": settings["kind"], "settings": settings,
        "codebook_size": settings["quantiser"]["codebook_size"],
        "n_stages": settings["quantiser"]["n_stages"],
        "step_s": tokenizer.step_samples / tokenizer.settings.sfreq_hz,
        "span_s": tokenizer.span_samples / tokenizer.settings.sfreq_hz,
    }  # fmt: skip
    write_tokens(outputs.tokens, outputs.card, done, vocabulary)


def _tokens_of(
    tokenizer: SignalTokenizer, recording: RecordingFile, ledger: list[dict[str, str]]
) -> RecordedTokens:
    """Return the tokens of one run."""
    tokens = tokenizer.encode(recording.prepared(tokenizer.settings.sfreq_hz), prepared=True)
    n_steps = tokens.codes.shape[1]
    return RecordedTokens(
        tokens.codes, tokens.streams, _kept(tokenizer, recording, n_steps),
        {
            "name": recording.name, **recording.entities, "step_s": tokens.step_s,
            "start_s": tokens.start_s, "n_streams": len(tokens.streams), "n_steps": n_steps,
            "sha256": recording.digest, "seen": seen_in(ledger, recording),
        },
    )  # fmt: skip


def seen_in(ledger: list[dict[str, str]], recording: RecordingFile) -> bool:
    """Return whether a tokenizer was trained on a recording, by its samples or by its person.

    Another run of a person that was trained on counts as seen: only people never met are unseen.
    """
    trained = [row for row in ledger if row["part"] == "train"]
    return any(
        row["sha256"] == recording.digest or row.get("subject") == recording.entities["subject"]
        for row in trained
    )


def _kept(tokenizer: SignalTokenizer, recording: RecordingFile, n_steps: int) -> NDArray[np.bool_]:
    """Return which steps hold no censored sample, (n_steps,)."""
    ratio = recording.layout.sfreq_hz / tokenizer.settings.sfreq_hz
    bad = np.concatenate([[0], np.cumsum(recording.censored)])
    starts = np.arange(n_steps) * tokenizer.step_samples
    first = np.minimum(np.floor(starts * ratio).astype(np.int64), recording.n_times)
    stop = np.ceil((starts + tokenizer.span_samples) * ratio).astype(np.int64)
    kept: NDArray[np.bool_] = bad[np.minimum(stop, recording.n_times)] == bad[first]
    return kept
