"""What decoders of several subjects are fitted on: settings, data of a subject, and their checks."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from pydantic import Field

from afterimage.decoding.layout import flat_layout
from afterimage.decoding.leaks import check_fit
from afterimage.decoding.linear import Allocate
from afterimage.decoding.network_settings import TrainedSettings
from afterimage.decoding.streams import Rows, check_finite, spread, stream_statistics
from afterimage.errors import ConfigError, InputError
from afterimage.training.pieces import pieces

CHUNK = 256  # trials read together


class SharedSettings(TrainedSettings):
    """Settings common to the decoders of several subjects."""

    n_hidden: int = Field(256, ge=8, description="Size of the space where subjects meet.")
    n_blocks: int = Field(2, ge=1, description="Residual blocks that all subjects share.")
    dropout: float = Field(0.15, ge=0, lt=1, description="Dropout of these blocks.")
    temperature: float = Field(
        0.1, gt=0, description="Of the contrast between stimuli; smaller for more features."
    )
    learning_rate: float = Field(3e-3, gt=0, description="Highest learning rate of AdamW.")
    weight_decay: float = Field(1.0, ge=0, description="Decoupled weight decay of AdamW.")
    n_steps: int = Field(600, ge=1, description="Optimiser steps at most.")
    batch_size: int = Field(200, ge=2, description="Trials a step, of all subjects together.")
    adaptation_start: Literal["zero", "random"] = Field(
        "zero",
        description="Layers of a new subject: zero the one that reads responses, the others as a "
        "known subject's; or random all (published).",
    )
    adaptation_steps: int = Field(200, ge=1, description="Steps of adapting to a new subject.")
    adaptation_learning_rate: float = Field(
        1e-3, gt=0, description="Highest learning rate of adapting."
    )
    adaptation_weight_decay: float = Field(1.0, ge=0, description="Weight decay of adapting.")


@dataclass(frozen=True)
class SubjectData:
    """Training trials of one subject.

    Attributes
    ----------
    responses : indexable, (n_trials, n_units)
        Read in batches: anything with ``shape`` and indexing by an array of trial numbers.
    features : dict of block to indexable (n_trials, n_features)
    stimuli : (n_trials,) of str
        Equal names are equal pictures, also between subjects.
    regions : (n_units,) of str, optional
        Region of each unit.
    """

    responses: Any
    features: Mapping[str, Any]
    stimuli: np.ndarray
    regions: np.ndarray | None = None

    def only(self, rows: np.ndarray) -> SubjectData:
        """Return some of the trials, still read when asked for."""
        features = {
            name: values.only(rows) if isinstance(values, Rows) else Rows(values, rows)
            for name, values in self.features.items()
        }
        return SubjectData(Rows(self.responses, rows), features, self.stimuli[rows], self.regions)


@dataclass(frozen=True)
class Pool:
    """Trials of several subjects after each other.

    Attributes
    ----------
    subject, row, stimulus : int64, (n_trials,)
        Number of the subject; trial among its own; row of ``table``.
    names : (n_stimuli,) of str
    table : dict of block to float32 (n_stimuli, n_features)
        On disk where `pool` was told so: rows of it are read when a batch is made.
    """

    subject: np.ndarray
    row: np.ndarray
    stimulus: np.ndarray
    names: np.ndarray
    table: dict[str, np.ndarray]


def check_subject(
    name: str, data: SubjectData, held_out: Collection[str], sizes: Mapping[str, int] | None
) -> dict[str, int]:
    """Refuse a subject that cannot be fitted on; return the number of features of each block.

    Parameters
    ----------
    sizes : dict of block to int, or None
        What the other subjects have.
    """
    where = f"decoder fit, subject {name}"
    stimuli = np.asarray(data.stimuli).astype(str)
    check_fit(stimuli, held_out)
    wrong = [block for block, values in data.features.items() if values.shape[:1] != stimuli.shape]
    shape = tuple(data.responses.shape)
    if len(shape) != 2 or shape[:1] != stimuli.shape or wrong or not data.features:
        raise InputError(
            "responses, features and stimuli of the fit do not belong together",
            where=where,
            found=f"responses {shape}, stimuli {stimuli.shape}, "
            f"features { {k: v.shape for k, v in data.features.items()} }",
            expected="one row a trial in each",
        )
    if len(np.unique(stimuli)) < 3:
        raise InputError(
            "too few stimuli to hold some out",
            where=where,
            found=f"{len(np.unique(stimuli))} different stimuli",
            expected="at least 3",
        )
    found = {block: int(values.shape[1]) for block, values in data.features.items()}
    if sizes is not None and found != sizes:
        raise InputError(
            "subjects do not have the same feature blocks",
            where=where,
            found=str(found),
            expected=f"those of the other subjects, {sizes}",
            fix="extract features of all subjects with the same encoders",
        )
    return found


def check_target(target: str, sizes: Mapping[str, int], key: str = "target") -> None:
    """Raise ConfigError unless the block is among the features."""
    if target not in sizes:
        raise ConfigError(
            "the target of the decoder is not among the features",
            found=target,
            expected=", ".join(sorted(sizes)),
            fix=f"set `{key}` of the decoder to one of these",
        )


def pool(subjects: Mapping[str, SubjectData], allocate: Allocate) -> Pool:
    """Put the trials of subjects after each other, and their stimuli into one table.

    Features are read a piece at a time, in the order of their file, and each picture's but once.
    """
    stimuli = [np.asarray(data.stimuli).astype(str) for data in subjects.values()]
    counts = [len(one) for one in stimuli]
    together = np.concatenate(stimuli)
    names, first, row = np.unique(together, return_index=True, return_inverse=True)
    starts = np.concatenate([[0], np.cumsum(counts)])
    own = np.searchsorted(starts, first, side="right") - 1
    table: dict[str, np.ndarray] = {}
    broken: dict[str, None] = {}
    for number, data in enumerate(subjects.values()):
        mine = np.flatnonzero(own == number)
        for block, values in data.features.items():
            if block not in table:
                table[block] = allocate(f"features/{block}", (len(names), values.shape[1]))
            rows = first[mine] - starts[number]
            if isinstance(values, Rows):
                order = np.argsort(values.order[rows], kind="stable")
                wanted, rows = mine[order], rows[order]
            else:
                wanted = mine
            for part in pieces(len(rows), values.shape[1]):
                read = np.asarray(values[rows[part]], np.float32)
                if not np.isfinite(read).all():
                    broken[block] = None
                table[block][wanted[part]] = read
    if broken:
        raise InputError(
            "a value that is not finite",
            where="decoder fit",
            found=", ".join(broken),
            expected="finite numbers",
        )
    return Pool(
        np.repeat(np.arange(len(counts)), counts),
        np.concatenate([np.arange(n) for n in counts]),
        row.astype(np.int64),
        names,
        table,
    )


def unit_scaling(name: str, data: SubjectData, n_max: int) -> dict[str, np.ndarray]:
    """Mean and scale of each unit of a subject, read in one pass."""
    n_trials, n_units = data.responses.shape
    nobody = np.zeros(n_trials, np.int64)
    rows = spread(nobody, n_max)
    found = stream_statistics(data.responses, nobody, 1, flat_layout(n_units), CHUNK, rows)
    return {
        f"unit_mean/{name}": found.mean[0, :, 0],
        f"unit_scale/{name}": found.scale[0],
    }


@dataclass(frozen=True)
class StandardTable:
    """Standardised features of stimuli, float32 (n, n_features), made of the rows asked for."""

    values: Any
    mean: np.ndarray
    scale: np.ndarray

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of what all rows together would be."""
        return (int(self.values.shape[0]), int(self.values.shape[1]))

    def __getitem__(self, rows: Any) -> np.ndarray:
        return np.asarray((self.values[rows] - self.mean) / self.scale, np.float32)


@dataclass(frozen=True)
class StandardRows:
    """Standardised trials of one subject, float32 (n, n_units), read when called."""

    responses: Any
    mean: np.ndarray
    scale: np.ndarray
    clamp: float

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """Read some trials; each is asked for once, in order."""
        wanted, place = np.unique(rows, return_inverse=True)
        values = np.asarray(self.responses[wanted], np.float32)[place]
        check_finite(values)
        standard = (values - self.mean) / self.scale
        return np.clip(standard, -self.clamp, self.clamp).astype(np.float32)


def loop_settings(
    settings: SharedSettings, n_trials: int, device: str, *, adapting: bool = False
) -> Any:
    """Return the settings of the training loop for a fit, or for adapting a new subject."""
    from afterimage.training.loop import LoopSettings

    rate, decay, n_steps = settings.learning_rate, settings.weight_decay, settings.n_steps
    if adapting:
        rate, decay = settings.adaptation_learning_rate, settings.adaptation_weight_decay
        n_steps = settings.adaptation_steps
    return LoopSettings(
        n_steps=n_steps,
        batch_size=min(settings.batch_size, n_trials),
        learning_rate=rate,
        weight_decay=decay,
        warmup_steps=min(20, n_steps // 4),
        ema_decay=settings.ema_decay,
        bf16=device == "cuda",
        checkpoint_every=max(1, min(500, n_steps // 4)),
    )


def owner(key: str) -> str:
    """Return the subject that an array of the state belongs to; empty where all share it."""
    if key.startswith(("unit_mean/", "unit_scale/", "unit_region/")):
        return key.partition("/")[2]
    if key.startswith("network/subjects.sub-"):
        return key.removeprefix("network/subjects.sub-").partition(".")[0]
    return ""
