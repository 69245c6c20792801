"""A model of several subjects: what is each one's own, and what they share."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

Batch = dict[str, Tensor]


class SharedModel(nn.Module, ABC):
    """Each subject's responses enter by layers of its own; from there on all are alike.

    As an objective of the training loop it gives the loss of a batch. A batch holds
    ``responses/<subject>`` (n_subject, n_units), one after the other the trials of each subject;
    ``stimulus`` (n,), ``targets/<block>`` (n, n_features) and ``progress`` (), the share of the run
    that is done.

    Attributes
    ----------
    subjects : nn.ModuleDict
        The layers of each subject.
    blocks : tuple of str
        Feature blocks that are predicted by heads of their own.
    adapting : bool
        Whether a new subject is learned, all else frozen.
    """

    def __init__(self) -> None:
        super().__init__()
        self.subjects = nn.ModuleDict()
        self.blocks: tuple[str, ...] = ()
        self.adapting = False

    @abstractmethod
    def new_layers(self, n_units: int) -> nn.Module:
        """Return the untrained layers of one subject."""

    @abstractmethod
    def first_layer(self, subject: str) -> nn.Linear:
        """Return the layer that reads the responses of one subject."""

    @abstractmethod
    def enter(self, responses: Tensor, subject: str) -> Tensor:
        """Map responses (n, n_units) of one subject to the space of all, (n, n_hidden)."""

    @abstractmethod
    def represent(self, hidden: Tensor) -> Tensor:
        """Map the space of all to the representation, (n, n_hidden)."""

    @abstractmethod
    def predict(self, representation: Tensor) -> dict[str, Tensor]:
        """Return standardised features of every block of a head, (n, n_features) each."""

    @abstractmethod
    def embed(self, representation: Tensor) -> dict[str, Tensor]:
        """Return what is compared with standardised features to find a stimulus, by block."""

    @abstractmethod
    def loss(self, batch: Batch) -> Tensor:
        """Return the loss of a batch; random draws come from torch's own source."""

    def add_subject(self, subject: str, n_units: int) -> None:
        """Add untrained layers for one more subject."""
        self.subjects[f"sub-{subject}"] = self.new_layers(n_units)

    def begin(self, subject: str, like: str) -> None:
        """Set the layer that reads a new subject's responses to zero.

        Few trials span few directions of the responses: what a random layer does with all the
        others never goes away, and is noise. What else is its own may begin as that of a subject
        who is known (``like``).
        """
        nn.init.zeros_(self.first_layer(subject).weight)

    def layers(self, subject: str) -> nn.Module:
        """Return the layers of one subject."""
        return self.subjects[f"sub-{subject}"]

    def entered(self, batch: Batch) -> dict[str, Tensor]:
        """Return the trials of each subject of a batch in the space of all."""
        parts = {
            k.removeprefix("responses/"): v for k, v in batch.items() if k[:10] == "responses/"
        }
        return {name: self.enter(responses, name) for name, responses in parts.items()}

    def forward(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """Loss of a batch; what is drawn follows from the generator, so that a run can resume."""
        seed = int(torch.randint(2**62, (1,), generator=generator))
        device = batch["stimulus"].device
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(seed)
            return self.loss(batch)
