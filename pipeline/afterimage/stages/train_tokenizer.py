"""Train one tokenizer on the EEG and MEG of all people but those held out, and write its card."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from afterimage.errors import InputError
from afterimage.io.atomic import write_json
from afterimage.io.tables import write_tsv
from afterimage.io.weights import save_weights
from afterimage.settings import StageConfig
from afterimage.stages.checkpoints import checkpoint_folder
from afterimage.stages.runner import record_skipped
from afterimage.stages.series_recordings import groups_of, held_out, people_table
from afterimage.stages.token_scores import COLUMNS, card_of, scored_parts
from afterimage.stages.token_series import RecordingFile, SeriesSource, open_recordings, usable_by
from afterimage.tokenizers.raw_patches import RawPatchesSettings
from afterimage.tokenizers.registry import TOKENIZERS

if TYPE_CHECKING:
    Tokenizer = Any  # built below from the registry, which a type checker cannot follow
else:
    Tokenizer = TOKENIZERS.union()

VERSION = 1
CITES = (
    "vandenoord2017", "zeghidour2022", "fifty2025", "xiao2025", "pradeepkumar2025", "chen2024",
    "zheng2024",
)  # fmt: skip
EXPOSURE_COLUMNS = (
    "recording", "subject", "session", "task", "run", "part", "n_windows", "seconds", "sha256",
)  # fmt: skip


class Config(StageConfig):
    """Tokenizers of EEG and MEG: off by default, since they take long to train."""

    enabled: bool = Field(False, description="train tokenizers and write all recordings in tokens")
    tokenizers: dict[str, Tokenizer] = Field(
        default={"rawPatches": RawPatchesSettings()},
        description="tokenizers by name (letters and digits); each is trained and used",
    )
    test_fraction: float = Field(
        0.3, gt=0, lt=1, description="share of people that no tokenizer is trained on"
    )
    group_column: str = Field(
        "",
        description="column of participants.tsv that is never split (family, site); else people",
    )
    overlap: float = Field(
        0.5, ge=0, lt=1, description="share of a training window that the next one has too"
    )
    max_censored: float = Field(
        0.25, ge=0, le=1, description="windows of which more is bad are not learned from"
    )
    scored_s: float = Field(
        120.0, gt=0, description="length of the part of a recording that the card is made of, s"
    )
    n_scored: int = Field(
        40, ge=1, description="recordings of either side that the card is made of, at most"
    )
    n_bootstraps: int = Field(1000, ge=100, description="resamples of people for an interval")
    random_state: int | None = Field(None, description="seed; default: the root seed")


@dataclass(frozen=True)
class Inputs:
    """What the stage reads: the cleaned runs, or prepared trials, of all people; events of runs."""

    series: tuple[Path, ...]
    events: tuple[Path, ...] = ()
    participants: Path | None = None


@dataclass(frozen=True)
class Outputs:
    """What the stage writes: the tokenizer, its card, pictures of it, and what it has seen."""

    model: Path
    card: Path
    details: Path
    example: Path
    exposure: Path


def run(
    inputs: Inputs, outputs: Outputs, config: Config, *, threads: int = 1, device: str = "cpu"
) -> None:
    """Train the one tokenizer of ``config.tokenizers`` and try it on people held out.

    With a single person some of the runs are held out instead.

    Training resumes from its last checkpoint after an interruption.
    """
    (name, settings), *others = config.tokenizers.items()
    if others:
        raise ValueError("one job trains one tokenizer")
    random_state = config.random_state or 0
    settings = settings.model_copy(update={"random_state": random_state})
    tokenizer = TOKENIZERS.get(settings.kind)(settings)
    found, unreadable = open_recordings(inputs.series)
    recordings, unusable = usable_by(tokenizer, found)
    record_skipped("train_tokenizer", outputs.model, *unreadable, *unusable)
    if not recordings:
        raise InputError(
            "there is no recording to learn from", found=f"{len(inputs.series)} files, none usable",
            expected="recordings of two or more people", fix="see what clean_meeg reports",
        )  # fmt: skip
    groups = groups_of(
        [one.entities["subject"] for one in recordings],
        people_table(inputs.participants),
        config.group_column,
    )
    people = len(set(groups.tolist())) > 1
    if not people:  # the one person's runs are told apart, and the card says so
        groups = np.array([one.name for one in recordings])
    test = held_out(groups, config.test_fraction, random_state)
    sides = {
        side: [one for one, out in zip(recordings, test, strict=True) if out == (side == "test")]
        for side in ("train", "test")
    }
    source = SeriesSource(sides["train"], tokenizer, config.overlap, config.max_censored)
    work = checkpoint_folder("train_tokenizer", VERSION, config, inputs, outputs.model)
    try:
        tokenizer.fit(source, device=device, checkpoint_folder=work)
    finally:
        source.close()
    amount = (config.scored_s, config.n_scored)
    train, _, bad = scored_parts(tokenizer, sides["train"], groups[~test].tolist(), *amount)
    tried, files, worse = scored_parts(tokenizer, sides["test"], groups[test].tolist(), *amount)
    record_skipped("train_tokenizer", outputs.model, *bad, *worse)
    if not train or not tried:
        raise InputError(
            "no recording can be said in tokens on one side of the split",
            found=f"{len(train)} of people seen, {len(tried)} of others",
            expected="one or more of each", fix="change test_fraction, or see what was left out",
        )  # fmt: skip
    events = [(str(one.path), one.events(inputs.events)) for one in files]
    rows, details, arrays = card_of(
        tokenizer, train, tried, events, config.n_bootstraps, random_state
    )
    held = "people" if people else "runs"
    weights, card = tokenizer.state()
    card |= {
        "name": name, "train_groups": sorted(set(groups[~test].tolist())),
        "test_groups": sorted(set(groups[test].tolist())), "n_train": len(sides["train"]),
        "n_test": len(sides["test"]), "held_out": held, "group_column": config.group_column,
        "n_windows": len(source), "n_steps": len(tokenizer.losses_),
    }  # fmt: skip
    save_weights(outputs.model, weights, card)
    write_tsv(outputs.card, [{"tokenizer": name, **row} for row in rows], COLUMNS)
    write_json(
        outputs.details, {"tokenizer": name, "kind": settings.kind, "held_out": held, **details}
    )
    save_weights(outputs.example, arrays, {"tokenizer": name})
    write_tsv(outputs.exposure, _exposure(sides, source), EXPOSURE_COLUMNS)
    shutil.rmtree(work.parent, ignore_errors=True)


def _exposure(sides: dict[str, list[RecordingFile]], source: SeriesSource) -> list[dict[str, Any]]:
    """Return a row a recording: whether the tokenizer has seen it, and how much of it."""
    counts = np.bincount([place for place, _ in source.places], minlength=len(sides["train"]))
    return [
        {
            "recording": one.name, **one.entities, "part": side,
            "n_windows": int(counts[number]) if side == "train" else 0,
            "seconds": f"{one.duration_s:.3f}", "sha256": one.digest,
        }
        for side, some in sides.items()
        for number, one in enumerate(some)
    ]  # fmt: skip
