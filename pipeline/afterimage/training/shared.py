"""Training of a model of several subjects, and what it makes of their trials."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
import torch

from afterimage.networks.shared_subjects import Batch, SharedModel
from afterimage.training.contrastive import ranks
from afterimage.training.loop import EarlyStopping, LoopSettings, train
from afterimage.training.pieces import pieces

CHUNK = 256  # trials encoded together
#: What is made of trials besides their representation: wide features are not made for nothing.
Wanted: TypeAlias = Literal["", "embeddings", "predicted"]


class Table(Protocol):
    """Features of stimuli, read when indexed."""

    @property
    def shape(self) -> tuple[int, ...]: ...  # noqa: D102

    def __getitem__(self, rows: Any) -> np.ndarray: ...


@dataclass(frozen=True)
class PooledTrials:
    """Trials of several subjects, one subject after the other, and the features of their stimuli.

    Attributes
    ----------
    sources : dict of subject to callable
        ``sources[name](rows)`` reads standardised responses, float32 (n, n_units).
    subject, row : int64, (n_trials,)
        Number of the subject in ``sources``, and number of the trial among its own.
    stimulus : int64, (n_trials,)
        Row of the targets.
    targets : dict of block to float32 (n_stimuli, n_features), standardised
        Indexed by an array of rows when a batch is made: nothing of them need be in memory.
    """

    sources: Mapping[str, Callable[[np.ndarray], np.ndarray]]
    subject: np.ndarray
    row: np.ndarray
    stimulus: np.ndarray
    targets: Mapping[str, Table]


def collate(trials: PooledTrials, indices: np.ndarray, progress: float = 1.0) -> Batch:
    """Read some trials as a batch, ordered by subject."""
    indices = indices[np.argsort(trials.subject[indices], kind="stable")]
    batch = {"progress": torch.tensor(progress)}
    for number, (name, source) in enumerate(trials.sources.items()):
        own = indices[trials.subject[indices] == number]
        if len(own):
            batch[f"responses/{name}"] = torch.from_numpy(source(trials.row[own]))
    stimulus = trials.stimulus[indices]
    batch["stimulus"] = torch.from_numpy(stimulus)
    for block, values in trials.targets.items():
        batch[f"targets/{block}"] = torch.from_numpy(values[stimulus])
    return batch


@dataclass(frozen=True)
class Encoded:
    """What a model makes of some trials, float32."""

    hidden: np.ndarray  # (n, n_hidden), where subjects meet
    representation: np.ndarray  # (n, n_hidden)
    # (n, n_features) by block, to find stimuli by; and predicted features: empty unless asked for
    embeddings: dict[str, np.ndarray]
    predicted: dict[str, np.ndarray]


def encode_one(
    model: SharedModel, responses: np.ndarray, subject: str, *, wanted: Wanted = ""
) -> Encoded:
    """Encode standardised responses (n, n_units) of one subject."""
    device = next(model.parameters()).device
    with torch.inference_mode():
        hidden = model.enter(torch.from_numpy(responses).to(device), subject)
        representation = model.represent(hidden)
        embeddings = model.embed(representation) if wanted == "embeddings" else {}
        predicted = model.predict(representation) if wanted == "predicted" else {}

    def plain(values: torch.Tensor) -> np.ndarray:
        array: np.ndarray = values.float().cpu().numpy()
        return array

    return Encoded(
        plain(hidden),
        plain(representation),
        {name: plain(values) for name, values in embeddings.items()},
        {name: plain(values) for name, values in predicted.items()},
    )


def encode_each(
    model: SharedModel, trials: PooledTrials, indices: np.ndarray, *, wanted: Wanted = ""
) -> Iterator[tuple[np.ndarray, Encoded]]:
    """Encode some trials, those of one subject after those of another.

    Yields
    ------
    places : int, (n,)
        Of the trials in ``indices``.
    encoded : Encoded
    """
    names = list(trials.sources)
    for number in np.unique(trials.subject[indices]):
        own = np.flatnonzero(trials.subject[indices] == number)
        for start in range(0, len(own), CHUNK):
            part = own[start : start + CHUNK]
            responses = trials.sources[names[number]](trials.row[indices[part]])
            yield part, encode_one(model, responses, names[number], wanted=wanted)


def encode(
    model: SharedModel, trials: PooledTrials, indices: np.ndarray, *, wanted: Wanted = ""
) -> Encoded:
    """Encode some trials, in the order asked for."""
    order, parts = zip(*encode_each(model, trials, indices, wanted=wanted), strict=True)
    return joined(parts, np.argsort(np.concatenate(order)))


def joined(parts: Sequence[Encoded], order: np.ndarray | None = None) -> Encoded:
    """Put encoded trials after each other, then in an order."""
    order = np.arange(sum(len(p.hidden) for p in parts)) if order is None else order

    def blocks(kind: str) -> dict[str, np.ndarray]:
        each = [getattr(part, kind) for part in parts]
        return {name: np.concatenate([one[name] for one in each])[order] for name in each[0]}

    return Encoded(
        np.concatenate([part.hidden for part in parts])[order],
        np.concatenate([part.representation for part in parts])[order],
        blocks("embeddings"),
        blocks("predicted"),
    )


def cosines(
    embeddings: Mapping[str, np.ndarray], targets: Mapping[str, Table], rows: np.ndarray
) -> np.ndarray:
    """Mean over blocks of the cosine of embedding and standardised target, float32 (m, n_rows).

    Targets are read and compared a piece at a time.

    Parameters
    ----------
    embeddings : dict of block to (m, n_features)
    targets : dict of block to table of (g, n_features)
    rows : int, (n_rows,)
        Of the tables.
    """
    known = {name: _of_length_one(values) for name, values in embeddings.items()}
    n_columns = sum(values.shape[1] for values in known.values())
    scores = np.empty((len(next(iter(known.values()))), len(rows)), np.float32)
    for part in pieces(len(rows), n_columns):
        found = [v @ _of_length_one(targets[name][rows[part]]).T for name, v in known.items()]
        scores[:, part] = np.mean(found, axis=0)
    return scores


def _of_length_one(values: np.ndarray) -> np.ndarray:
    unit: np.ndarray = values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)
    return unit


def held_out_ranks(model: SharedModel, trials: PooledTrials, validation: np.ndarray) -> np.ndarray:
    """Rank (0: first) of each held-out trial's own stimulus among those of all of them."""
    candidates, own = np.unique(trials.stimulus[validation], return_inverse=True)
    n_columns = sum(table.shape[1] for table in trials.targets.values())
    found = []
    for part in pieces(len(validation), n_columns, CHUNK):
        encoded = encode(model, trials, validation[part], wanted="embeddings")
        scores = cosines(encoded.embeddings, trials.targets, candidates)
        found.append(ranks(scores, own[part]))
    return np.concatenate(found)


def fit_shared(
    model: SharedModel,
    trials: PooledTrials,
    training: np.ndarray,
    validation: np.ndarray,
    settings: LoopSettings,
    *,
    every: int,
    patience: int,
    random_state: int,
    device: str = "cpu",
    checkpoint_folder: Path | None = None,
    on_progress: Callable[[int, float], None] | None = None,
) -> EarlyStopping:
    """Train what requires a gradient; keep the weights with the lowest mean log rank held out.

    Without validation trials the run is not stopped early; see `training.contrastive.fit_encoder`.
    """
    stopping = EarlyStopping(
        lambda: -float(np.log1p(held_out_ranks(model, trials, validation)).mean()), every, patience
    )
    train(
        model,
        lambda indices, step: collate(trials, training[indices], step / settings.n_steps),
        len(training),
        settings,
        random_state=random_state,
        device=device,
        checkpoint_folder=checkpoint_folder,
        on_progress=on_progress,
        early_stopping=stopping if len(validation) else None,
    )
    return stopping
