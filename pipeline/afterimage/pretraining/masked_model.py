"""What masked models of series share: their settings, training, embedding and storing.

A recording is standardised by itself, region by region over the volumes that are kept; a censored
volume is 0 and the segment that holds it is neither seen nor scored for it.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from afterimage.errors import InputError
from afterimage.settings import Settings
from afterimage.training.masks import MaskSettings, draw_mask

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


class MaskedSettings(Settings):
    """Settings common to the masked models."""

    segment_volumes: int = Field(10, ge=1, description="Volumes of a segment, the unit of time.")
    n_segments: int = Field(32, ge=2, description="Segments of a training example, at most.")
    mask: MaskSettings = Field(MaskSettings(), description="What is hidden in training.")
    target: Literal["signal", "ema-latent"] = Field(
        "signal", description="What is filled in: the signal, or latents of a moving teacher."
    )
    teacher_decay: float = Field(
        0.99, ge=0, lt=1, description="Decay of the teacher's weights a step."
    )
    n_features: int = Field(64, ge=4, description="Features of a token.")
    n_layers: int = Field(4, ge=1, description="Layers of the network.")
    n_heads: int = Field(4, ge=1, description="Heads of attention; they share the features.")
    n_steps: int = Field(2000, ge=1, description="Optimiser steps.")
    batch_size: int = Field(32, ge=1, description="Examples a step.")
    learning_rate: float = Field(2e-3, gt=0, description="Highest learning rate of AdamW.")
    weight_decay: float = Field(0.01, ge=0, description="Decoupled weight decay of AdamW.")
    warmup_steps: int = Field(100, ge=0, description="Steps of rise of the learning rate.")
    checkpoint_every: int = Field(200, ge=1, description="Steps between two checkpoints.")
    bf16: bool = Field(default=False, description="Compute in bfloat16 where safe.")
    random_state: int = Field(
        0,
        description="Seed; the workflow gives that of pretrain_series.",
        json_schema_extra={"workflow": True},
    )


@dataclass(frozen=True, eq=False)
class Prepared:
    """One recording as the models take it.

    Attributes
    ----------
    series : ndarray of float32, (n_times, n_regions)
        Standardised, 0 where censored.
    kept : ndarray of bool, (n_times,)
    """

    series: NDArray[np.float32]
    kept: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Filled:
    """What a model filled in for one recording.

    Attributes
    ----------
    tokens, predicted : ndarray of float32, (n_segments, n_regions, n_samples)
        What is there, and what the model says. Of graphs (n_windows, 4, n_pairs), edges before, at
        and after the window filled in and their mean elsewhere, and (n_windows, n_pairs) logits.
    hidden : ndarray of bool, (n_segments, n_regions)
        What the model could not see, and is scored on.
    known : ndarray of bool, (n_segments, n_regions)
        Tokens without censored volumes.
    """

    tokens: NDArray[np.float32]
    predicted: NDArray[np.float32]
    hidden: NDArray[np.bool_]
    known: NDArray[np.bool_]


def prepare(series: NDArray[np.floating], kept: NDArray[np.bool_] | None = None) -> Prepared:
    """Standardise one recording, region by region over the volumes that are kept.

    Parameters
    ----------
    series : ndarray, (n_times, n_regions)
    kept : ndarray of bool, (n_times,), optional
        Volumes that are not censored; default: all.

    Returns
    -------
    Prepared
        A region that never changes is 0 throughout.
    """
    values = np.asarray(series, np.float64)
    kept = np.ones(len(values), bool) if kept is None else np.asarray(kept, bool)
    if kept.sum() < 2 or not np.isfinite(values[kept]).all():
        raise InputError(
            "a series cannot be learned from",
            found="values that are not finite" if kept.sum() > 1 else f"{kept.sum()} volumes kept",
            expected="two or more uncensored volumes of finite values",
            fix="leave the recording out, or look at its censoring",
        )
    centred = values - values[kept].mean(0)
    scale = values[kept].std(0)
    moving = scale > 1e-6 * max(1e-300, float(np.abs(values[kept]).max()))
    standard = np.where(moving, centred / np.where(moving, scale, 1.0), 0.0)
    standard[~kept] = 0.0
    return Prepared(standard.astype(np.float32), kept)


class MaskedModel(ABC):
    """A masked model of series; a subclass says what its tokens and its network are.

    Parameters
    ----------
    settings : MaskedSettings
        Of the subclass.

    Attributes
    ----------
    losses_ : ndarray of float32, (n_steps,)
        Loss of each step of the last `fit`.
    """

    #: What `fill_in` returns: "samples" of the series, or "edges" of graphs.
    fills: ClassVar[str] = "samples"

    def __init__(self, settings: MaskedSettings) -> None:
        self.settings = settings
        self.losses_: NDArray[np.float32] = np.zeros(0, np.float32)
        self.n_regions_ = 0
        self.network_: Any = None

    @abstractmethod
    def new_network(self, n_regions: int) -> nn.Module:
        """Return an untrained network; a `afterimage.training.masked.MaskedNetwork`."""

    def tokens(self, recording: Prepared) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Cut a recording into tokens.

        Returns
        -------
        tokens : ndarray of float32, (n_segments, n_regions, n_samples)
        known : ndarray of bool, (n_segments, n_regions)
            False where a volume of the segment is censored.
        """
        length = self.settings.segment_volumes
        n_segments = len(recording.series) // length
        if n_segments < 2:
            raise InputError(
                "a recording is too short for the segments", found=f"{len(recording.series)} volumes",
                expected=f"two segments of {length} volumes or more",
                fix="set a smaller segment_volumes, or leave the recording out",
            )  # fmt: skip
        cut = recording.series[: n_segments * length].reshape(n_segments, length, -1)
        whole = np.all(recording.kept[: n_segments * length].reshape(n_segments, length), axis=1)
        known = np.repeat(np.atleast_1d(whole)[:, None], cut.shape[2], axis=1)
        return np.ascontiguousarray(cut.transpose(0, 2, 1)), known

    def examples(
        self, recordings: Sequence[Prepared], generator: np.random.Generator
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Cut one training example from each recording, from a random sample on.

        Returns
        -------
        tokens : ndarray of float32, (n, n_segments, n_regions, n_samples)
        known : ndarray of bool, (n, n_segments, n_regions)
        """
        length = self.settings.segment_volumes
        shortest = min(len(recording.series) for recording in recordings)
        n_volumes = min(self.settings.n_segments, shortest // length) * length
        parts = []
        for recording in recordings:
            slack = len(recording.series) - n_volumes
            start = self.first_volume(slack, generator)
            here = slice(start, start + n_volumes)
            parts.append(self.tokens(Prepared(recording.series[here], recording.kept[here])))
        return np.stack([tokens for tokens, _ in parts]), np.stack([known for _, known in parts])

    def first_volume(self, slack: int, generator: np.random.Generator) -> int:
        """Return where an example begins, 0 to ``slack``; whole segments from the beginning."""
        length = self.settings.segment_volumes
        return int(generator.integers(slack // length + 1)) * length

    def draw(self, shape: tuple[int, int, int], generator: torch.Generator) -> Tensor:
        """Draw what is hidden from the network; see `afterimage.training.masks.draw_mask`."""
        return draw_mask(self.settings.mask, shape, generator)

    def initialise(self, n_regions: int) -> Self:
        """Make the network with the random weights of the seed, untrained."""
        import torch

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.settings.random_state)
            self.network_ = self.new_network(n_regions).eval()
        self.n_regions_ = n_regions
        return self

    def fit(
        self,
        recordings: Sequence[Prepared],
        *,
        device: str = "cpu",
        checkpoint_folder: Path | None = None,
        on_progress: Callable[[int, float], None] | None = None,
    ) -> Self:
        """Pretrain on recordings, without any label.

        Parameters
        ----------
        recordings : sequence of Prepared
            The training part; all have the same regions.
        device, checkpoint_folder, on_progress
            See `afterimage.training.loop.train`.
        """
        import torch

        from afterimage.training.loop import Batch, LoopSettings, train
        from afterimage.training.masked import masked_objective

        settings = self.settings
        widths = sorted({recording.series.shape[1] for recording in recordings})
        if len(widths) != 1:
            raise InputError(
                "recordings to be pretrained on differ in their regions",
                found=", ".join(map(str, widths)) or "no recording",
                expected="one number of regions", fix="use one atlas for all recordings",
            )  # fmt: skip
        self.initialise(widths[0])

        def batch_of(indices: NDArray[np.int64], step: int) -> Batch:
            generator = np.random.default_rng((settings.random_state, step, 1))
            tokens, known = self.examples([recordings[i] for i in indices], generator)
            return {"tokens": torch.from_numpy(tokens), "known": torch.from_numpy(known)}

        objective = masked_objective(
            self.network_, self.draw, target=settings.target, teacher_decay=settings.teacher_decay
        )
        self.losses_ = train(
            objective,
            batch_of,
            len(recordings),
            LoopSettings(
                n_steps=settings.n_steps, batch_size=settings.batch_size,
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

    def latents(self, recording: Prepared) -> NDArray[np.float32]:
        """Return what the network makes of a recording of which nothing is hidden.

        Returns
        -------
        ndarray of float32, (n_segments, n_outputs)
            Embedding of each segment; those with censored volumes are left out.
        """
        import torch

        tokens, known = self.tokens(recording)
        with torch.inference_mode():
            hidden = torch.from_numpy(~known)[None]
            found = self.network_.embed(torch.from_numpy(tokens)[None], hidden)[0]
        values: NDArray[np.float32] = found.float().numpy()
        seen = known.any(1)
        return values[seen] if seen.any() else values

    def encode(self, recordings: Sequence[Prepared]) -> NDArray[np.float32]:
        """Embed recordings: the mean of their segments' embeddings, (n_recordings, n_outputs)."""
        return np.stack([self.latents(recording).mean(0) for recording in recordings])

    def stacked(
        self, recordings: Sequence[Prepared]
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Return the tokens of recordings, cut to the shortest, and which of them are known.

        Returns
        -------
        tokens : ndarray of float32, (n_recordings, n_segments, n_regions, n_samples)
        known : ndarray of bool, (n_recordings, n_segments, n_regions)
        """
        parts = [self.tokens(recording) for recording in recordings]
        n_segments = min(len(tokens) for tokens, _ in parts)
        tokens = np.stack([tokens[:n_segments] for tokens, _ in parts])
        return tokens, np.stack([known[:n_segments] for _, known in parts])

    def fill_in(
        self, recordings: Sequence[Prepared], random_state: int, mask: MaskSettings | None = None
    ) -> list[Filled]:
        """Hide tokens of recordings as in training and fill them in.

        Parameters
        ----------
        recordings : sequence of Prepared
        random_state : int
            Seed of what is hidden.
        mask : MaskSettings, optional
            What is hidden; default: as in training.
        """
        import torch

        found = []
        for number, recording in enumerate(recordings):
            tokens, known = self.tokens(recording)
            generator = torch.Generator().manual_seed(random_state * 100003 + number)
            shape = (1, *known.shape)
            hidden = draw_mask(mask or self.settings.mask, shape, generator).contiguous()
            with torch.inference_mode():
                values = torch.from_numpy(tokens)[None]
                latents = self.network_.encode(values, hidden | ~torch.from_numpy(known)[None])
                predicted = self.network_.decode(latents)[0].float().numpy()
            found.append(Filled(tokens, predicted, hidden[0].numpy() & known, known))
        return found

    def state(self) -> tuple[dict[str, NDArray[np.float32]], dict[str, Any]]:
        """Return the weights, and a card of plain values that `from_state` needs beside them."""
        weights = {k: t.float().numpy() for k, t in self.network_.state_dict().items()}
        settings = json.loads(self.settings.model_dump_json())
        return weights, {"n_regions": self.n_regions_, "settings": settings}

    @classmethod
    def from_state(
        cls, arrays: Mapping[str, NDArray[np.float32]], card: Mapping[str, Any]
    ) -> Self:
        """Make the model again from what `state` returned."""
        import torch

        from afterimage.pretraining.registry import MASKED_MODELS

        kind: Any = MASKED_MODELS.settings(card["settings"]["kind"])
        settings = kind(**card["settings"])
        model = cls(settings).initialise(int(card["n_regions"]))
        weights = {k: torch.from_numpy(np.array(array)) for k, array in arrays.items()}
        model.network_.load_state_dict(weights)
        return model
