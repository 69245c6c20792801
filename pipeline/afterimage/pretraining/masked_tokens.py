"""The trainer of masked-token models (BERT, Devlin et al. 2019, arXiv:1810.04805) over grids of codes.

Of the hidden tokens most are replaced by a mask, some by other tokens of the batch; what they were is
guessed, all stages of the quantiser at once, as of BrainOmni (arXiv:2505.18185). With ``symmetric``
every example is seen twice, once with the complement hidden (LaBraM, arXiv:2405.18765). What differs:
tokens may be hidden in blocks of steps, since tokens of one window were made from the same samples
and tell of each other; some recordings train without the names of their streams, so that streams with
other names can be read; loss and scores are said stage by stage.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from afterimage.errors import InputError
from afterimage.settings import Settings

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

#: Share of the training examples whose streams are not named.
NAMELESS = 0.05


class TokenMaskSettings(Settings):
    """Which tokens are hidden."""

    kind: Literal["tokens", "steps"] = Field(
        "tokens", description="Hide tokens of each stream, or all streams of a step."
    )
    share: float = Field(0.5, gt=0, lt=1, description="Share of the tokens that is hidden.")
    block_steps: int = Field(
        1, ge=1, description="Steps hidden together, such as those of a tokenizer's window."
    )
    random_share: float = Field(
        0.2, ge=0, lt=1, description="Of the hidden: replaced by tokens of the batch, not a mask."
    )
    symmetric: bool = Field(False, description="See every example again with the rest hidden.")


class MaskedTokenSettings(Settings):
    """Settings common to the masked-token models."""

    mask: TokenMaskSettings = Field(TokenMaskSettings(), description="What is hidden.")
    context_steps: int = Field(128, ge=2, description="Steps of a training example, at most.")
    n_features: int = Field(256, ge=4, description="Features of a token.")
    n_layers: int = Field(12, ge=1, description="Blocks of the network.")
    n_heads: int = Field(8, ge=1, description="Heads of attention; they share the features.")
    n_steps: int = Field(2000, ge=1, description="Optimiser steps.")
    batch_size: int = Field(16, ge=1, description="Examples a step.")
    n_parts: int = Field(1, ge=1, description="Parts of a step, one in memory at a time.")
    learning_rate: float = Field(5e-4, gt=0, description="Highest learning rate of AdamW.")
    weight_decay: float = Field(0.05, ge=0, description="Decoupled weight decay of AdamW.")
    warmup_steps: int = Field(100, ge=0, description="Steps of rise of the learning rate.")
    checkpoint_every: int = Field(200, ge=1, description="Steps between two checkpoints.")
    bf16: bool = Field(default=False, description="Compute in bfloat16 where safe.")
    random_state: int = Field(
        0,
        description="Seed; the workflow gives that of the stage.",
        json_schema_extra={"workflow": True},
    )


class TokensLike(Protocol):
    """The tokens of one recording; see `afterimage.tokenizers.tokenizer.Tokens`."""

    codes: NDArray[np.signedinteger]  # (n_streams, n_steps, n_stages)
    streams: NDArray[np.str_]  # (n_streams,)


def draw_hidden(
    settings: TokenMaskSettings, shape: tuple[int, int, int], generator: torch.Generator
) -> Tensor:
    """Draw which tokens are hidden, bool (n, n_streams, n_steps).

    In each row, of a stream or of all streams together, the same share of blocks is hidden; where
    it is no whole number of blocks, the one below or above is drawn.

    Parameters
    ----------
    settings : TokenMaskSettings
    shape : (n, n_streams, n_steps)
    generator : torch.Generator
        On the CPU.
    """
    import torch

    n, n_streams, n_steps = shape
    n_blocks = -(-n_steps // settings.block_steps)
    rows = (n, n_streams if settings.kind == "tokens" else 1)
    wanted = settings.share * n_blocks
    size = (wanted + torch.rand((*rows, 1), generator=generator)).floor()
    rank = torch.rand((*rows, n_blocks), generator=generator).argsort(-1).argsort(-1)
    blocks = (rank < size).repeat_interleave(settings.block_steps, dim=-1)[..., :n_steps]
    return blocks.expand(shape)


class MaskedTokenModel(ABC):
    """A masked-token model; a subclass says what its network is.

    Parameters
    ----------
    settings : MaskedTokenSettings
        Of the subclass.

    Attributes
    ----------
    losses_ : ndarray of float32, (n_steps,)
        Cross-entropy of each step of the last `fit`, nats, mean over stages.
    streams_ : list of str
        Streams that were trained on, sorted; others share one vector.
    """

    def __init__(self, settings: MaskedTokenSettings) -> None:
        self.settings = settings
        self.losses_: NDArray[np.float32] = np.zeros(0, np.float32)
        self.streams_: list[str] = []
        self.network_: Any = None

    @abstractmethod
    def new_network(self, codebooks: NDArray[np.floating], n_names: int) -> nn.Module:
        """Return an untrained network; see `afterimage.networks.token_grid.TokenGrid`.

        It has ``forward(codes, hidden, streams, known, wanted)``, which returns logits (n_wanted,
        n_stages, codebook_size) of the tokens wanted, and ``embed`` of all but the last, (n,
        n_streams, n_steps, n_outputs).
        """

    def initialise(self, streams: Sequence[str], codebooks: NDArray[np.floating]) -> Self:
        """Make the network with the random weights of the seed, untrained.

        Parameters
        ----------
        streams : sequence of str
            Names of the streams of the training part.
        codebooks : ndarray, (n_stages, codebook_size, n_dimensions)
            Vectors of the tokenizer's codes.
        """
        import torch

        self.streams_ = sorted(set(streams))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.settings.random_state)
            self.network_ = self.new_network(codebooks, len(self.streams_)).eval()
        return self

    def fit(
        self,
        recordings: Sequence[TokensLike],
        codebooks: NDArray[np.floating],
        *,
        device: str = "cpu",
        checkpoint_folder: Path | None = None,
        on_progress: Callable[[int, float], None] | None = None,
    ) -> Self:
        """Learn to say which tokens are hidden.

        Parameters
        ----------
        recordings : sequence of TokensLike
            The training part.
        codebooks : ndarray, (n_stages, codebook_size, n_dimensions)
        device, checkpoint_folder, on_progress
            See `afterimage.training.loop.train`.
        """
        from afterimage.training.loop import Batch, LoopSettings, train

        settings = self.settings
        long_enough = [one for one in recordings if one.codes.shape[1] > settings.mask.block_steps]
        if not long_enough:
            raise InputError(
                "there are no tokens to pretrain on",
                found=f"{len(recordings)} recordings, none longer than a block",
                expected=f"one of more than {settings.mask.block_steps} steps",
                fix="give longer recordings, or set a smaller block_steps",
            )  # fmt: skip
        self.initialise([name for one in long_enough for name in one.streams.tolist()], codebooks)

        def batch_of(indices: NDArray[np.int64], step: int) -> Batch:
            generator = np.random.default_rng((settings.random_state, step, int(indices[0])))
            return self.examples([long_enough[i] for i in indices], generator)

        self.losses_ = train(
            _objective(self.network_, settings.mask),
            batch_of,
            len(long_enough),
            LoopSettings(
                n_steps=settings.n_steps, batch_size=settings.batch_size, n_parts=settings.n_parts,
                learning_rate=settings.learning_rate, weight_decay=settings.weight_decay,
                warmup_steps=settings.warmup_steps, bf16=settings.bf16, ema_decay=0.99,
                checkpoint_every=settings.checkpoint_every,
            ),
            random_state=settings.random_state,
            device=device,
            checkpoint_folder=checkpoint_folder,
            on_progress=on_progress,
        )  # fmt: skip
        self.network_.to("cpu").eval()
        return self

    def examples(
        self, recordings: Sequence[TokensLike], generator: np.random.Generator
    ) -> dict[str, Tensor]:
        """Cut one training example from each recording, from the start of a block on.

        Examples are as long as the shortest; streams that one lacks are not known.

        Returns
        -------
        dict of Tensor
            ``codes``, ``streams`` and ``known``, as the network takes them.
        """
        size = self.settings.mask.block_steps
        n_steps = min(self.settings.context_steps, *(one.codes.shape[1] for one in recordings))
        parts, names = [], []
        for one in recordings:
            start = size * int(generator.integers((one.codes.shape[1] - n_steps) // size + 1))
            parts.append(one.codes[:, start : start + n_steps])
            named = generator.random() >= NAMELESS
            names.append(one.streams if named else np.full(len(one.streams), ""))
        return self._batch(parts, names)

    def _batch(
        self, parts: Sequence[NDArray[Any]], names: Sequence[NDArray[np.str_]]
    ) -> dict[str, Tensor]:
        """Lay codes (n_streams, n_steps, n_stages) of equal length out as a batch."""
        import torch

        number = {name: place for place, name in enumerate(self.streams_, 1)}
        shape = (len(parts), max(len(part) for part in parts))
        codes = np.zeros((*shape, *parts[0].shape[1:]), np.int64)
        streams, known = np.zeros(shape, np.int64), np.zeros(shape, np.bool_)
        for row, (part, own) in enumerate(zip(parts, names, strict=True)):
            codes[row, : len(part)], known[row, : len(part)] = part, True
            streams[row, : len(part)] = [number.get(name, 0) for name in own.tolist()]
        arrays = {"codes": codes, "streams": streams, "known": known}
        return {key: torch.from_numpy(array) for key, array in arrays.items()}

    def cross_entropy(
        self,
        recording: TokensLike,
        *,
        n_draws: int = 4,
        random_state: int = 0,
        mask: TokenMaskSettings | None = None,
    ) -> NDArray[np.float64]:
        """Hide tokens of a recording, all behind the mask, and guess them.

        Parameters
        ----------
        recording : TokensLike
        n_draws : int
            Times that tokens are hidden anew.
        random_state : int
        mask : TokenMaskSettings, optional
            What is hidden; default: as in training.

        Returns
        -------
        ndarray of float64, (n_stages,)
            Nats a token, mean over what was hidden.
        """
        import torch

        mask = mask or self.settings.mask
        generator = torch.Generator().manual_seed(random_state)
        total, n_hidden = np.zeros(recording.codes.shape[2]), 0
        for batch in self._contexts(recording):
            codes = batch["codes"]
            for _ in range(n_draws):
                shape = (1, codes.shape[1], codes.shape[2])
                hidden = draw_hidden(mask, shape, generator)
                with torch.inference_mode():
                    logits = self.network_(codes, hidden, batch["streams"], batch["known"], hidden)
                    losses = stage_losses(logits, codes[hidden], "sum")
                total += losses.double().numpy()
                n_hidden += int(hidden.sum())
        return total / max(n_hidden, 1)

    def latents(self, recording: TokensLike) -> NDArray[np.float32]:
        """Return what the network makes of the tokens of a recording, none of them hidden.

        Returns
        -------
        ndarray of float32, (n_streams, n_steps, n_outputs)
        """
        import torch

        found = []
        for batch in self._contexts(recording):
            hidden = torch.zeros(batch["codes"].shape[:3], dtype=torch.bool)
            with torch.inference_mode():
                some = self.network_.embed(
                    batch["codes"], hidden, batch["streams"], batch["known"]
                )
            found.append(some[0].float().numpy())
        return np.concatenate(found, axis=1)

    def _contexts(self, recording: TokensLike) -> list[dict[str, Tensor]]:
        """Cut a recording into contexts as long as in training; the last may be shorter."""
        size, n_steps = self.settings.context_steps, recording.codes.shape[1]
        size = max(1, size // self.settings.mask.block_steps) * self.settings.mask.block_steps
        return [
            self._batch([recording.codes[:, at : at + size]], [recording.streams])
            for at in range(0, n_steps, size)
        ]

    def state(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Return the weights, and a card of plain values that `from_state` needs beside them."""
        weights = {k: t.numpy() for k, t in self.network_.state_dict().items()}
        settings = json.loads(self.settings.model_dump_json())
        return weights, {"streams": self.streams_, "settings": settings}

    @classmethod
    def from_state(cls, arrays: Mapping[str, NDArray[Any]], card: Mapping[str, Any]) -> Self:
        """Make the model again from what `state` returned."""
        import torch

        from afterimage.pretraining.registry import TOKEN_MODELS

        kind: Any = TOKEN_MODELS.settings(card["settings"]["kind"])
        model = cls(kind(**card["settings"]))
        model.initialise(card["streams"], arrays["codebooks"])
        weights = {k: torch.from_numpy(np.array(array)) for k, array in arrays.items()}
        model.network_.load_state_dict(weights)
        return model


def stage_losses(logits: Tensor, codes: Tensor, reduction: str) -> Tensor:
    """Cross-entropy of each stage, (n_stages,), of (n, n_stages, size) and int64 (n, n_stages)."""
    import torch
    from torch.nn.functional import cross_entropy

    pairs = zip(logits.float().unbind(1), codes.unbind(1), strict=True)
    return torch.stack([cross_entropy(a, b, reduction=reduction) for a, b in pairs])


def _objective(network: nn.Module, mask: TokenMaskSettings) -> nn.Module:
    """Return the objective for `afterimage.training.loop.train`."""
    import torch
    from torch import nn

    class Objective(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, batch: dict[str, Tensor], generator: torch.Generator) -> Tensor:
            codes, streams, known = batch["codes"], batch["streams"], batch["known"]
            n, n_streams, n_steps, _ = codes.shape
            hidden = draw_hidden(mask, (n, n_streams, n_steps), generator).to(codes.device)
            views = [hidden, ~hidden] if mask.symmetric else [hidden]
            loss = torch.zeros((), device=codes.device)
            for view in views:
                counted = view & known[:, :, None]
                draws = torch.rand(view.shape, generator=generator).to(codes.device)
                swapped = counted & (draws < mask.random_share)
                shown = _swap(codes, swapped, known, generator)
                logits = self.network(shown, counted & ~swapped, streams, known, counted)
                loss = loss + stage_losses(logits, codes[counted], "mean").mean()
            return loss / len(views)

    return Objective()


def _swap(codes: Tensor, swapped: Tensor, known: Tensor, generator: torch.Generator) -> Tensor:
    """Replace some tokens by others of the batch, whole tokens with all their stages."""
    import torch

    there = codes[known].flatten(0, 1)  # (n_tokens, n_stages)
    chosen = torch.randint(len(there), (int(swapped.sum()),), generator=generator)
    replaced = codes.clone()
    replaced[swapped] = there[chosen.to(codes.device)]
    return replaced
