"""Training brain encoders to find the image among others, and to predict its features.

The loss is that of Benchetrit et al. 2023 (arXiv:2310.19812): lambda * CLIP + (1 - lambda) * MSE.
Image features are normalised, brain features are not, and their length sets the temperature. What
differs: images are projected too, linearly (as in NeuroBridge, arXiv:2511.06836): normalised whole,
an image that varies most in what a brain does not show would be found less often than it could be.
An encoder that begins as a model of responses compares by likelihood instead: the length of an
image, in each brain, says how large a response it should have made.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss, normalize

from afterimage.networks.subject_layers import SubjectLayers
from afterimage.training.loop import Batch, EarlyStopping, LoopSettings, train
from afterimage.training.processes import gathered


class TrialSource(Protocol):
    """Trials that are read in pieces: ``trials(indices)`` is float32 (n, n_units, n_times)."""

    def __call__(self, indices: np.ndarray) -> np.ndarray: ...  # noqa: D102


@dataclass(frozen=True)
class Trials:
    """Trials of a fit, and the features of their stimuli."""

    source: TrialSource
    stimulus: np.ndarray  # int64 (n_trials,), rows of targets
    subject: np.ndarray  # int64 (n_trials,)
    targets: np.ndarray  # float32 (n_stimuli, n_features), standardised
    places: np.ndarray  # float32 (n_units, 2)


def image_to_brain_loss(logits: Tensor, stimulus: Tensor) -> Tensor:
    """InfoNCE from a trial to the images of the batch; the same image again is no negative.

    Parameters
    ----------
    logits : Tensor, (n, n)
        Similarity of trial (row) and image (column); image i belongs to trial i.
    stimulus : Tensor of int64, (n,)
    """
    own = torch.arange(len(logits), device=logits.device)
    duplicate = (stimulus[:, None] == stimulus[None]) & (own[:, None] != own[None])
    return cross_entropy(logits.masked_fill(duplicate, -torch.inf), own)


class BrainToImage(nn.Module):
    """An encoder with a contrastive and a regression head; as an objective, the loss of a batch.

    Parameters
    ----------
    network : nn.Module
        ``network(signals, subjects, places)`` to (n, network.n_representation).
    n_features : int
        Features of the target.
    n_embedding : int
        Dimensions in which brain and image meet.
    contrastive_weight : float
        lambda.
    n_subjects : int, optional
        Compare by likelihood, with matrices of so many subjects; default: by cosine.
    """

    def __init__(
        self,
        network: Any,
        n_features: int,
        n_embedding: int,
        contrastive_weight: float,
        n_subjects: int = 0,
    ) -> None:
        super().__init__()
        self.network = network
        self.contrastive_weight = contrastive_weight
        self.sizes: Any = SubjectLayers(n_subjects, n_embedding) if n_subjects else None
        self.contrastive = nn.Linear(network.n_representation, n_embedding)
        self.images = nn.Linear(n_features, n_embedding, bias=False)
        self.regression = nn.Linear(n_embedding, n_features)

    def encode(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Return the representation, the contrastive embedding and the predicted features."""
        encoded = self.network(batch["signals"], batch["subjects"], batch["places"])
        embedding = self.contrastive(encoded)
        return encoded, embedding, self.regression(embedding)

    def similarity(self, embedding: Tensor, images: Tensor, subjects: Tensor) -> Tensor:
        """Compare trials and images where they meet.

        By likelihood it is ``b'a - |M a|^2 / 2`` for a trial b and an image a, the log-likelihood
        of the image up to a constant of the trial, if b'a is the response filtered for what a
        evokes, and ``|M a|`` the size of it, M being the subject's matrix. Else ``b'a / |a|``.

        Parameters
        ----------
        embedding : Tensor, (m, n_embedding)
        images : Tensor, (g, n_embedding)
        subjects : Tensor of int64, (m,)

        Returns
        -------
        Tensor, (m, g)
        """
        embedding, images = embedding.float(), images.float()
        if self.sizes is None:
            return embedding @ normalize(images, dim=-1).T
        sizes = [(images @ one.T).square().sum(1) for one in self.sizes.matrices]
        return embedding @ images.T - 0.5 * torch.stack(sizes)[subjects]

    def forward(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """Loss of a batch; dropout follows from the generator, so that a run can resume."""
        seed = int(torch.randint(2**62, (1,), generator=generator))
        device = batch["signals"].device
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(seed)
            _, embedding, predicted = self.encode(batch)
        # Trials and images of all processes that train together.
        images = gathered(self.images(batch["targets"]))
        logits = self.similarity(gathered(embedding), images, gathered(batch["subjects"]))
        contrast = image_to_brain_loss(logits, gathered(batch["stimulus"]))
        error = mse_loss(predicted.float(), batch["targets"])
        share = self.contrastive_weight
        return share * contrast + (1 - share) * error


def held_out_groups(
    concept: np.ndarray, share: float, random_state: int
) -> tuple[np.ndarray, np.ndarray]:
    """Split trials by concept.

    Returns
    -------
    train, validation : int64
        Trial numbers; no concept is in both.
    """
    names, number = np.unique(np.asarray(concept).astype(str), return_inverse=True)
    n_held = min(max(1, round(share * len(names))), len(names) - 2)
    held = np.random.default_rng((random_state, 1)).permutation(len(names))[:n_held]
    inside = np.isin(number, held)
    return np.flatnonzero(~inside), np.flatnonzero(inside)


def collate(trials: Trials, indices: np.ndarray) -> Batch:
    """Read some trials as the batch of a model."""
    stimulus = trials.stimulus[indices]
    return {
        "signals": torch.from_numpy(trials.source(indices)),
        "subjects": torch.from_numpy(trials.subject[indices]),
        "stimulus": torch.from_numpy(stimulus),
        "targets": torch.from_numpy(trials.targets[stimulus]),
        "places": torch.from_numpy(trials.places),
    }


def encode(model: BrainToImage, trials: Trials, indices: np.ndarray) -> list[np.ndarray]:
    """Representation, embedding and predicted features of some trials, float32 each."""
    device = next(model.parameters()).device
    batch = {key: value.to(device) for key, value in collate(trials, indices).items()}
    with torch.inference_mode():
        return [part.float().cpu().numpy() for part in model.encode(batch)]


def ranks(scores: np.ndarray, own: np.ndarray) -> np.ndarray:
    """Rank (0: first) of each trial's own stimulus among all; ties count in full.

    Parameters
    ----------
    scores : (m, g)
    own : int (m,)
        Column of the own stimulus.
    """
    mine = np.take_along_axis(scores, own[:, None], 1)
    found: np.ndarray = (scores >= mine).sum(1) - 1
    return found


def held_out_score(
    model: BrainToImage, trials: Trials, validation: np.ndarray, chunk: int
) -> float:
    """Minus the mean log rank of the own image among those of the same trials."""
    candidates, own = np.unique(trials.stimulus[validation], return_inverse=True)
    targets = trials.targets[candidates]
    logs = []
    for part, row in zip(_pieces(validation, chunk), _pieces(own, chunk), strict=True):
        embedding = encode(model, trials, part)[1]
        logs.append(np.log1p(ranks(compare(model, embedding, targets, trials.subject[part]), row)))
    return -float(np.concatenate(logs).mean())


def compare(
    model: BrainToImage, embedding: np.ndarray, targets: np.ndarray, subject: np.ndarray
) -> np.ndarray:
    """Similarity of trials and images, float32 (m, g); see `BrainToImage.similarity`.

    Parameters
    ----------
    embedding : (m, n_embedding)
    targets : (g, n_features)
        Features of the images, standardised as those of the fit.
    subject : int, (m,)
    """
    device = next(model.parameters()).device
    with torch.inference_mode():
        parts = (torch.from_numpy(part).to(device) for part in (embedding, targets, subject))
        brain, images, subjects = parts
        found = model.similarity(brain, model.images(images), subjects)
        return found.float().cpu().numpy()


def fit_encoder(
    model: BrainToImage,
    trials: Trials,
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
    chunk: int = 256,
) -> EarlyStopping:
    """Train; keep the averaged weights with the lowest mean log rank on held-out concepts.

    Parameters
    ----------
    model : BrainToImage
        Only parameters that require a gradient are trained.
    training, validation : int64
        Trials trained on and looked at; without any of the latter the run is not stopped early.
    every, patience : int
        See `afterimage.training.loop.EarlyStopping`.

    Returns
    -------
    EarlyStopping
        With the history of (step, minus the mean log rank).
    """
    stopping = EarlyStopping(
        lambda: held_out_score(model, trials, validation, chunk), every, patience
    )
    train(
        model,
        lambda indices, _step: collate(trials, training[indices]),
        len(training),
        settings,
        random_state=random_state,
        device=device,
        checkpoint_folder=checkpoint_folder,
        on_progress=on_progress,
        early_stopping=stopping if len(validation) else None,
    )
    return stopping


def _pieces(values: np.ndarray, size: int) -> Sequence[np.ndarray]:
    return [values[start : start + size] for start in range(0, len(values), size)]
