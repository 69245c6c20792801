"""Training of a model of several subjects, and what it makes of their trials."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from afterimage.networks.shared_subjects import Batch, SharedModel
from afterimage.training.contrastive import ranks
from afterimage.training.loop import EarlyStopping, LoopSettings, train

CHUNK = 256  # trials encoded together


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
    """

    sources: Mapping[str, Callable[[np.ndarray], np.ndarray]]
    subject: np.ndarray
    row: np.ndarray
    stimulus: np.ndarray
    targets: Mapping[str, np.ndarray]


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
    embeddings: dict[str, np.ndarray]  # (n, n_features) by block, to find stimuli by
    predicted: dict[str, np.ndarray]  # (n, n_features) by block; empty unless asked for


def encode_one(
    model: SharedModel, responses: np.ndarray, subject: str, *, predict: bool
) -> Encoded:
    """Encode standardised responses (n, n_units) of one subject."""
    device = next(model.parameters()).device
    with torch.inference_mode():
        hidden = model.enter(torch.from_numpy(responses).to(device), subject)
        representation = model.represent(hidden)
        embeddings = model.embed(representation)
        predicted = model.predict(representation) if predict else {}

    def plain(values: torch.Tensor) -> np.ndarray:
        array: np.ndarray = values.float().cpu().numpy()
        return array

    return Encoded(
        plain(hidden),
        plain(representation),
        {name: plain(values) for name, values in embeddings.items()},
        {name: plain(values) for name, values in predicted.items()},
    )


def encode(
    model: SharedModel, trials: PooledTrials, indices: np.ndarray, *, predict: bool = False
) -> Encoded:
    """Encode some trials, in the order asked for."""
    names = list(trials.sources)
    order, pieces = [], []
    for number in np.unique(trials.subject[indices]):
        own = np.flatnonzero(trials.subject[indices] == number)
        for start in range(0, len(own), CHUNK):
            part = own[start : start + CHUNK]
            responses = trials.sources[names[number]](trials.row[indices[part]])
            pieces.append(encode_one(model, responses, names[number], predict=predict))
            order.append(part)
    back = np.argsort(np.concatenate(order))
    return joined(pieces, back)


def joined(pieces: Sequence[Encoded], order: np.ndarray | None = None) -> Encoded:
    """Put encoded trials after each other, then in an order."""
    order = np.arange(sum(len(p.hidden) for p in pieces)) if order is None else order

    def blocks(kind: str) -> dict[str, np.ndarray]:
        parts = [getattr(piece, kind) for piece in pieces]
        return {name: np.concatenate([part[name] for part in parts])[order] for name in parts[0]}

    return Encoded(
        np.concatenate([piece.hidden for piece in pieces])[order],
        np.concatenate([piece.representation for piece in pieces])[order],
        blocks("embeddings"),
        blocks("predicted"),
    )


def cosines(embeddings: Mapping[str, np.ndarray], targets: Mapping[str, np.ndarray]) -> np.ndarray:
    """Mean over blocks of the cosine of embedding and standardised target, float32 (m, g)."""
    found = []
    for name, embedding in embeddings.items():
        pair = (embedding, targets[name])
        a, b = (v / np.maximum(np.linalg.norm(v, axis=1, keepdims=True), 1e-12) for v in pair)
        found.append(a @ b.T)
    return np.mean(found, axis=0).astype(np.float32)


def held_out_ranks(model: SharedModel, trials: PooledTrials, validation: np.ndarray) -> np.ndarray:
    """Rank (0: first) of each held-out trial's own stimulus among those of all of them."""
    candidates, own = np.unique(trials.stimulus[validation], return_inverse=True)
    encoded = encode(model, trials, validation)
    targets = {name: trials.targets[name][candidates] for name in encoded.embeddings}
    return ranks(cosines(encoded.embeddings, targets), own)


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
