"""BrainTokenizer of BrainOmni (Xiao et al. 2025, arXiv:2505.18185): one tokenizer of EEG and MEG.

Tokens are of latent sources, not of channels: learned queries collect what sensors show, whatever
their number, order, places and kinds, and any sensor can be asked for. What differs of the network
is said in `afterimage.networks.source_queries`, which has the method. Beside that, a window trains
on some of its channels, drawn anew, so that layouts vary and large ones cost no more than small.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from afterimage.errors import InputError
from afterimage.tokenizers.quantiser import QuantiserSettings, new_quantiser
from afterimage.tokenizers.registry import TOKENIZERS
from afterimage.tokenizers.signals import Signal
from afterimage.tokenizers.tokenizer import SignalTokenizer, TokenizerSettings

if TYPE_CHECKING:
    from torch import Tensor, nn

#: Kinds of sensors, in the order of their embeddings.
KINDS = ("eeg", "mag", "grad", "ieeg")
#: Middle of the head and a length about its radius, head frame, m.
CENTRE_M, LENGTH_M = (0.0, 0.0, 0.04), 0.1
#: No sensor is farther from the middle of a head, m.
FARTHEST_M = 0.3


class BrainTokenizerSettings(TokenizerSettings):
    """Tokens of latent sources that sensors of any layout show."""

    kind: Literal["brain_tokenizer"] = Field("brain_tokenizer", description="Latent sources.")
    sfreq_hz: float = Field(256.0, gt=0, description="Rate that signals are brought to, Hz.")
    window_s: float = Field(2.0, gt=0, description="Length of a window the network sees, s.")
    quantiser: QuantiserSettings = Field(
        QuantiserSettings(n_stages=4), description="The codebooks."
    )
    n_features: int = Field(128, ge=4, description="Features of a latent; a multiple of n_heads.")
    n_sources: int = Field(16, ge=1, description="Latent sources: tokens a step.")
    n_heads: int = Field(4, ge=1, description="Heads of attention; they share the features.")
    n_rounds: int = Field(
        3, ge=1, description="Times that sources collect what they do not yet explain."
    )
    n_filters: int = Field(16, ge=1, description="Filters of the waveforms at the full rate.")
    ratios: tuple[int, ...] = Field(
        (8, 4, 2), min_length=1, description="By how much each level divides the rate; even."
    )
    dropped: float = Field(
        0.25, ge=0, lt=1, description="Share of channels hidden from the encoder in training."
    )
    noise: float = Field(
        0.1, ge=0, description="Deviation of the noise added to what the encoder sees in training."
    )
    channels_per_window: int = Field(
        32, ge=2, description="Channels drawn of a window in training: a third of this to all."
    )
    continuous_share: float = Field(
        0.3, ge=0, lt=1, description="Part of the training before codes are used."
    )


@TOKENIZERS.register("brain_tokenizer", BrainTokenizerSettings)
class BrainTokenizer(SignalTokenizer):
    """One token a step of each latent source."""

    needs_positions: ClassVar[bool] = True
    settings: BrainTokenizerSettings

    @property
    def step_samples(self) -> int:
        """Samples that a step of the waveform encoder stands for."""
        return prod(self.settings.ratios)

    def new_network(self) -> nn.Module:
        """Return an untrained `afterimage.networks.source_queries.SourceQueries`."""
        from afterimage.networks.source_queries import SourceQueries

        settings = self.settings
        return SourceQueries(
            new_quantiser(settings.n_features, settings.quantiser),
            n_features=settings.n_features,
            n_kinds=len(KINDS),
            n_sources=settings.n_sources,
            n_heads=settings.n_heads,
            n_filters=settings.n_filters,
            ratios=settings.ratios,
            n_rounds=settings.n_rounds,
            dropped=settings.dropped,
            noise=settings.noise,
            n_continuous=int(settings.continuous_share * settings.n_steps) * settings.n_parts,
        )

    def batch_of(
        self, windows: Sequence[Signal], generator: np.random.Generator
    ) -> dict[str, NDArray[Any]]:
        """Return some channels of each window, below each other; flat ones are left out."""
        drawn = []
        for window in windows:
            moving = np.flatnonzero(window.values.any(axis=1))
            moving = moving if len(moving) else np.arange(window.n_channels)
            most = min(self.settings.channels_per_window, len(moving))
            n_drawn = int(generator.integers(-(-most // 3), most, endpoint=True))
            drawn.append(window.pick(generator.choice(moving, n_drawn, replace=False)))
        series = np.concatenate([window.values for window in drawn])
        return {"series": series} | stacked_sensors(drawn)

    def streams_of(self, signal: Signal) -> NDArray[np.str_]:
        """Return the names of the sources."""
        return np.array([f"source-{number:02d}" for number in range(self.settings.n_sources)])

    def codes_of(self, windows: Sequence[Signal]) -> Tensor:
        """Return the codes, (n_windows, n_sources, n_steps, n_stages); flat channels are not seen."""
        import torch

        moving = np.any([window.values.any(axis=1) for window in windows], axis=0)
        seen = [window.pick(moving) for window in windows] if moving.any() else list(windows)
        arrays = {"series": np.concatenate([window.values for window in seen])}
        batch = {k: torch.from_numpy(a) for k, a in (arrays | stacked_sensors(seen)).items()}
        codes: Tensor = self.network_.quantiser(self.network_.latents(batch))[1]
        return codes

    def signals_of(self, codes: Tensor, like: Signal) -> Tensor:
        """Return the signals at the sensors of ``like``, (n_windows, n_channels, n_samples)."""
        import torch

        sensors = stacked_sensors([like] * len(codes))
        batch = {k: torch.from_numpy(a) for k, a in sensors.items()}
        sources = self.network_.quantiser.lookup(codes)
        found: Tensor = self.network_.series(sources, batch)
        return found.unflatten(0, (len(codes), -1))


def stacked_sensors(windows: Sequence[Signal]) -> dict[str, NDArray[Any]]:
    """Return the sensors of windows as `afterimage.networks.source_queries` takes them.

    Raises
    ------
    InputError
        Where a sensor is too far from a head for positions in m in the head frame.
    """
    positions = np.concatenate([window.positions_m for window in windows])
    offsets = positions - np.array(CENTRE_M, np.float32)
    away = np.linalg.norm(offsets, axis=1)
    if away.max() > FARTHEST_M:
        raise InputError(
            "a sensor is too far from the head", found=f"{away.max():.3g} m from its middle",
            expected=f"at most {FARTHEST_M:g} m: positions in m, in the head frame",
            fix="look at the unit and the coordinate system of the positions",
        )  # fmt: skip
    orientations = np.concatenate([window.orientations for window in windows])
    kinds = np.concatenate([window.kinds for window in windows])
    numbers = [np.full(window.n_channels, number) for number, window in enumerate(windows)]
    places = [np.arange(window.n_channels) for window in windows]
    return {
        "sensors": np.concatenate([offsets / LENGTH_M, orientations], axis=1).astype(np.float32),
        "kinds": np.array([KINDS.index(kind) for kind in kinds.tolist()]),
        "window": np.concatenate(numbers),
        "place": np.concatenate(places),
    }
