"""What tokenizers share: their settings, how they are trained, encode, decode and are stored."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from afterimage.errors import ConfigError, InputError
from afterimage.settings import Settings
from afterimage.tokenizers.quantiser import QuantiserSettings
from afterimage.tokenizers.signals import (
    ListSource,
    Signal,
    UnknownPositions,
    WindowSource,
    place,
    resample,
    standardise,
)

if TYPE_CHECKING:
    from torch import Tensor, nn

#: Windows that `encode` and `decode` hold at once.
WINDOWS_AT_ONCE = 16


class TokenizerSettings(Settings):
    """Settings common to the tokenizers."""

    sfreq_hz: float = Field(200.0, gt=0, description="Rate that signals are brought to, Hz.")
    window_s: float = Field(4.0, gt=0, description="Length of a window the network sees, s.")
    unknown_positions: UnknownPositions = Field(
        "template", description="Sensors without a position: skip, template by name, or fail."
    )
    quantiser: QuantiserSettings = Field(QuantiserSettings(), description="The codebooks.")
    n_steps: int = Field(2000, ge=1, description="Optimiser steps.")
    batch_size: int = Field(16, ge=1, description="Windows a step.")
    n_parts: int = Field(1, ge=1, description="Parts of a step, one in memory at a time.")
    learning_rate: float = Field(1e-3, gt=0, description="Highest learning rate of AdamW.")
    weight_decay: float = Field(0.01, ge=0, description="Decoupled weight decay of AdamW.")
    warmup_steps: int = Field(50, ge=0, description="Steps of rise of the learning rate.")
    checkpoint_every: int = Field(200, ge=1, description="Steps between two checkpoints.")
    bf16: bool = Field(default=False, description="Compute in bfloat16 where safe.")
    random_state: int = Field(
        0,
        description="Seed; the workflow gives that of train_tokenizer.",
        json_schema_extra={"workflow": True},
    )


@dataclass(frozen=True, eq=False)
class Tokens:
    """The tokens of one recording.

    Attributes
    ----------
    codes : ndarray of int16 or int32, (n_streams, n_steps, n_stages)
        From 0 to ``codebook_size - 1``.
    streams : ndarray of str, (n_streams,)
        What a row of tokens is of: a channel, a latent source, a region.
    step_s : float
        From the start of one token to the start of the next, s.
    start_s : float
        Start of the first token in the recording, s.
    codebook_size : int
        Codes of a stage.
    """

    codes: NDArray[np.signedinteger]
    streams: NDArray[np.str_]
    step_s: float
    start_s: float
    codebook_size: int


class SignalTokenizer(ABC):
    """A tokenizer of signals; a subclass says what its network is, sees and returns.

    A subclass gives `new_network`, `batch_of`, `codes_of` and `signals_of`, ``step_samples`` and,
    where a token sees more than its step, ``span_samples``.

    Parameters
    ----------
    settings : TokenizerSettings
        Of the subclass.

    Attributes
    ----------
    losses_ : ndarray of float32, (n_steps,)
        Loss of each step of the last `fit`.
    facts_ : dict
        What the network was built on, of `look_at`; plain values.
    network_ : torch.nn.Module
        It holds the quantiser under the name ``quantiser``.
    """

    #: Whether sensors without a position cannot be used.
    needs_positions: ClassVar[bool] = False
    #: What `decode` returns: the "signal", or the "spectrum" where phases are not kept.
    decodes: ClassVar[str] = "signal"

    def __init__(self, settings: TokenizerSettings) -> None:
        self.settings = settings
        self.losses_: NDArray[np.float32] = np.zeros(0, np.float32)
        self.facts_: dict[str, Any] = {}
        self.network_: Any = None

    # What a subclass says.

    @property
    @abstractmethod
    def step_samples(self) -> int:
        """Samples from the start of a token to the start of the next."""

    @property
    def span_samples(self) -> int:
        """Samples that a token stands for, at least those of a step."""
        return self.step_samples

    def look_at(self, windows: Sequence[Signal]) -> dict[str, Any]:
        """Return what the network is built on, such as the names of regions; plain values."""
        return {}

    @abstractmethod
    def new_network(self) -> nn.Module:
        """Return an untrained network: ``forward(batch) -> {"loss": scalar, part: scalar, ...}``.

        Its randomness is torch's global one, which is seeded for every step.
        """

    @abstractmethod
    def batch_of(
        self, windows: Sequence[Signal], generator: np.random.Generator
    ) -> dict[str, NDArray[Any]]:
        """Return what the network is trained on of these windows, which may differ in channels."""

    def streams_of(self, signal: Signal) -> NDArray[np.str_]:
        """Return the names of the streams of tokens of a prepared signal; default: its channels."""
        return signal.names

    @abstractmethod
    def codes_of(self, windows: Sequence[Signal]) -> Tensor:
        """Return the codes of equally long windows of one recording.

        Returns
        -------
        Tensor of int64, (n_windows, n_streams, n_steps, n_stages)
        """

    @abstractmethod
    def signals_of(self, codes: Tensor, like: Signal) -> Tensor:
        """Return what the codes (n_windows, n_streams, n_steps, n_stages) say the windows were.

        Returns
        -------
        Tensor of float32, (n_windows, n_channels, n_samples)
            Or (n_windows, n_channels, n_steps, n_bins) of one that decodes spectra.
        """

    def target(self, signal: Signal) -> NDArray[np.float32]:
        """Return what `decode` should return of a prepared signal; spectra are the subclass's."""
        return signal.values[:, : self._covered(signal.n_times)]

    # What all share.

    @property
    def window_steps(self) -> int:
        """Steps of a window."""
        asked = round(self.settings.window_s * self.settings.sfreq_hz)
        steps = 1 + (asked - self.span_samples) // self.step_samples
        if steps < 1:
            raise ConfigError(
                "a window holds no token", found=f"window_s of {self.settings.window_s:g}",
                expected=f"{self.span_samples / self.settings.sfreq_hz:g} s or more",
                fix="set a longer window_s",
            )  # fmt: skip
        return steps

    @property
    def window_samples(self) -> int:
        """Samples of a window, whole steps."""
        return (self.window_steps - 1) * self.step_samples + self.span_samples

    def prepare(self, signal: Signal) -> Signal:
        """Settle positions, standardise a recording, and bring it to the rate."""
        if self.needs_positions:
            signal = place(signal, self.settings.unknown_positions)
        return resample(standardise(signal), self.settings.sfreq_hz)

    def source(self, signals: Sequence[Signal], overlap: float = 0.0) -> ListSource:
        """Return the windows of recordings in memory."""
        return ListSource([self.prepare(one) for one in signals], self.window_samples, overlap)

    def initialise(self, windows: Sequence[Signal] = ()) -> Self:
        """Make the network with the random weights of the seed, untrained."""
        import torch

        self.facts_ = self.look_at(windows) if windows else self.facts_
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.settings.random_state)
            self.network_ = self.new_network().eval()
        return self

    def fit(
        self,
        source: WindowSource,
        *,
        device: str = "cpu",
        checkpoint_folder: Path | None = None,
        on_progress: Callable[[int, float], None] | None = None,
    ) -> Self:
        """Learn to say windows in tokens.

        Parameters
        ----------
        source : WindowSource
            Windows of ``window_samples`` of the training part; see `source`.
        device, checkpoint_folder, on_progress
            See `afterimage.training.loop.train`.
        """
        import torch

        from afterimage.training.loop import Batch, LoopSettings, train
        from afterimage.training.objectives import seeded_objective

        settings = self.settings
        if not len(source):
            raise InputError(
                "there is nothing to train a tokenizer on", found="no window",
                expected="one recording or more", fix="look at what was left out, and why",
            )  # fmt: skip
        few = np.unique(np.linspace(0, len(source) - 1, 64).astype(np.int64))
        self.initialise(source.read(few))

        def batch_of(indices: NDArray[np.int64], step: int) -> Batch:
            # Parts of a step must not draw the same.
            seed = (settings.random_state, step, int(indices[0]))
            arrays = self.batch_of(source.read(indices), np.random.default_rng(seed))
            return {k: torch.from_numpy(np.ascontiguousarray(a)) for k, a in arrays.items()}

        # The averaged weights are the last ones: the codebooks follow the encoder as it is.
        self.losses_ = train(
            seeded_objective(self.network_),
            batch_of,
            len(source),
            LoopSettings(
                n_steps=settings.n_steps, batch_size=settings.batch_size, n_parts=settings.n_parts,
                learning_rate=settings.learning_rate, weight_decay=settings.weight_decay,
                warmup_steps=settings.warmup_steps, bf16=settings.bf16, ema_decay=0.0,
                checkpoint_every=settings.checkpoint_every,
            ),
            random_state=settings.random_state,
            device=device,
            checkpoint_folder=checkpoint_folder,
            on_progress=on_progress,
        )  # fmt: skip
        self.network_.to("cpu").eval()
        return self

    def encode(self, signal: Signal, *, prepared: bool = False) -> Tokens:
        """Say a recording in tokens: all its whole steps, in windows as in training.

        Parameters
        ----------
        signal : Signal
            One window or longer.
        prepared : bool
            It went through `prepare` already.
        """
        import torch

        signal = signal if prepared else self.prepare(signal)
        starts = self._starts(signal.n_times)
        parts = []
        with torch.inference_mode():
            for first in range(0, len(starts), WINDOWS_AT_ONCE):
                some = starts[first : first + WINDOWS_AT_ONCE] * self.step_samples
                cut = [signal.crop(at, at + self.window_samples) for at in some.tolist()]
                parts.append(self.codes_of(cut).cpu().numpy())
        codes = np.concatenate(parts)  # (n_windows, n_streams, window_steps, n_stages)
        n_steps = int(starts[-1]) + self.window_steps
        size = self.settings.quantiser.codebook_size
        joined = np.zeros((codes.shape[1], n_steps, codes.shape[3]), np.int64)
        for start, window in zip(starts.tolist(), codes, strict=True):
            joined[:, start : start + self.window_steps] = window
        return Tokens(
            codes=joined.astype(np.int16 if size <= np.iinfo(np.int16).max else np.int32),
            streams=self.streams_of(signal), step_s=self.step_samples / self.settings.sfreq_hz,
            start_s=0.0, codebook_size=size,
        )  # fmt: skip

    def decode(self, tokens: Tokens, like: Signal, n_stages: int | None = None) -> Any:
        """Return what tokens say the recording was, on the scale and at the rate of `prepare`.

        Parameters
        ----------
        tokens : Tokens
            One window or more.
        like : Signal
            Whose sensors the signal is wanted at; its values do not matter.
        n_stages : int, optional
            Stages of the quantiser to go by; default: all.

        Returns
        -------
        ndarray of float32, (n_channels, n_times)
            Or (n_channels, n_steps, n_bins) of one that decodes spectra.
        """
        import torch

        if self.needs_positions:
            like = place(like, self.settings.unknown_positions)
        n_steps = tokens.codes.shape[1]
        starts = self._starts((n_steps - 1) * self.step_samples + self.span_samples)
        codes = torch.from_numpy(tokens.codes.astype(np.int64))
        if n_stages is not None:
            codes[..., n_stages:] = -1
        spectra = self.decodes == "spectrum"
        hop = 1 if spectra else self.step_samples
        total: NDArray[np.float32] | None = None
        for first in range(0, len(starts), WINDOWS_AT_ONCE):
            some = starts[first : first + WINDOWS_AT_ONCE].tolist()
            with torch.inference_mode():
                cut = torch.stack([codes[:, at : at + self.window_steps] for at in some])
                found = self.signals_of(cut, like).float().cpu().numpy()
            if total is None:
                last = int(starts[-1]) * hop
                shape = (found.shape[1], last + found.shape[2], *found.shape[3:])
                total = np.zeros(shape, np.float32)
                times = np.zeros((shape[1], *[1] * (len(shape) - 2)), np.float32)
            for at, window in zip(some, found, strict=True):
                here = slice(at * hop, at * hop + window.shape[1])
                total[:, here] += window
                times[here] += 1
        assert total is not None  # noqa: S101  # `_starts` returns one window or more
        return total / times

    def _starts(self, n_times: int) -> NDArray[np.int64]:
        """Return the first steps of the windows that cover all whole steps of ``n_times``."""
        if n_times < self.window_samples:
            raise InputError(
                "a recording is shorter than a window of the tokenizer",
                found=f"{n_times / self.settings.sfreq_hz:.3g} s",
                expected=f"{self.window_samples / self.settings.sfreq_hz:g} s or more",
                fix="set a shorter window_s, or leave the recording out",
            )  # fmt: skip
        n_steps = 1 + (n_times - self.span_samples) // self.step_samples
        last = n_steps - self.window_steps
        return np.unique(np.append(np.arange(0, last + 1, self.window_steps), last))

    def _covered(self, n_times: int) -> int:
        """Return the samples that the tokens of ``n_times`` samples stand for."""
        n_steps = 1 + (n_times - self.span_samples) // self.step_samples
        return (n_steps - 1) * self.step_samples + self.span_samples

    def codebooks(self) -> NDArray[np.float32]:
        """Return the vectors of the codes, (n_stages, codebook_size, codebook_dim)."""
        found: NDArray[np.float32] = self.network_.quantiser.codebooks().detach().numpy()
        return found

    def state(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Return the weights, and a card of plain values that `from_state` needs beside them."""
        weights = {k: t.numpy() for k, t in self.network_.state_dict().items()}
        settings = json.loads(self.settings.model_dump_json())
        return weights, {"settings": settings, "facts": self.facts_}

    @classmethod
    def from_state(cls, arrays: Mapping[str, NDArray[Any]], card: Mapping[str, Any]) -> Self:
        """Make the tokenizer again from what `state` returned."""
        import torch

        from afterimage.tokenizers.registry import TOKENIZERS

        kind: Any = TOKENIZERS.settings(card["settings"]["kind"])
        tokenizer = cls(kind(**card["settings"]))
        tokenizer.facts_ = dict(card["facts"])
        tokenizer.initialise()
        weights = {k: torch.from_numpy(np.array(array)) for k, array in arrays.items()}
        tokenizer.network_.load_state_dict(weights)
        return tokenizer
