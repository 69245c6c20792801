"""What tokenizers of spectra of single channels share: frames, their scale, and what is decoded.

A channel is divided by its own level in the window, so that a code stands for a course and not for
how far the electrode is from its source. Codes stand for magnitudes: phases are not kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from afterimage.errors import ConfigError, InputError
from afterimage.tokenizers.signals import Signal
from afterimage.tokenizers.tokenizer import SignalTokenizer, TokenizerSettings

if TYPE_CHECKING:
    from torch import Tensor

    from afterimage.networks.time_frequency import Frames

#: Bins vary by this share of the bin that varies most, at least: what a filter emptied stays small.
FLOOR = 0.02


class SpectralSettings(TokenizerSettings):
    """Settings common to tokenizers of spectra."""

    window_s: float = Field(10.0, gt=0, description="Length of a window the network sees, s.")
    frame_s: float = Field(1.0, gt=0, description="Length of a frame, whose spectrum is taken, s.")
    hop_s: float = Field(0.5, gt=0, description="From one frame to the next, s; one token each.")
    n_features: int = Field(32, ge=4, description="Features of the network.")
    n_code_features: int = Field(
        8, ge=2, description="Dimensions that codes are directions in; few keep noise out."
    )
    n_layers: int = Field(1, ge=1, description="Layers of each transformer of the encoder.")
    n_decoder_layers: int = Field(
        0, ge=0, description="Layers over frames of the decoder; 0: each code says its own frame."
    )
    reach_frames: int = Field(
        1,
        ge=0,
        description="A code says the mean spectrum of its frame and this many on either side: one "
        "frame alone is mostly noise; 0: published.",
    )
    n_heads: int = Field(2, ge=1, description="Heads of attention; they share the features.")
    batch_size: int = Field(12, ge=1, description="Windows a step.")
    learning_rate: float = Field(4e-3, gt=0, description="Highest learning rate of AdamW.")
    channels_per_window: int = Field(
        2, ge=1, description="Channels drawn of a window in training, at most."
    )
    free_share: float = Field(
        0.7,
        ge=0,
        lt=1,
        description="Part of the steps before codes are used: codes that start on an untrained "
        "network collapse.",
    )

    @property
    def frame_samples(self) -> int:
        """Samples of a frame."""
        return round(self.frame_s * self.sfreq_hz)

    @property
    def hop_samples(self) -> int:
        """Samples from one frame to the next."""
        return round(self.hop_s * self.sfreq_hz)

    @property
    def free_steps(self) -> int:
        """Steps before codes are used."""
        return round(self.free_share * self.n_steps)


class SpectralTokenizer(SignalTokenizer):
    """One token a frame of one channel; a subclass gives `new_network`."""

    settings: SpectralSettings
    decodes: ClassVar[str] = "spectrum"

    @property
    def step_samples(self) -> int:
        """Samples from one frame to the next."""
        return self.settings.hop_samples

    @property
    def span_samples(self) -> int:
        """Samples of a frame."""
        return self.settings.frame_samples

    @property
    def n_bins(self) -> int:
        """Bins of a spectrum; that of half the rate is left out."""
        frame, hop = self.settings.frame_samples, self.settings.hop_samples
        if frame < 4 or not 1 <= hop <= frame:
            raise ConfigError(
                "frames of a tokenizer leave samples out, or are empty",
                found=f"frames of {frame} samples every {hop} samples",
                expected="a hop of 1 sample or more, not longer than a frame",
                fix="set hop_s to frame_s or less, and frame_s to 4 samples or more",
            )
        return frame // 2

    def look_at(self, windows: Sequence[Signal]) -> dict[str, Any]:
        """Return mean and deviation of the magnitude of each bin over channels that change."""
        import torch

        frames = self._frames(np.zeros(self.n_bins), np.ones(self.n_bins))
        rows = [row for window in windows for row in window.values if row.any()]
        if not rows:
            raise InputError(
                "a tokenizer cannot learn from windows that do not change",
                found=f"{len(windows)} windows, all of them flat", expected="one that changes",
                fix="look at the recordings; leave flat ones out",
            )  # fmt: skip
        magnitudes = frames(torch.from_numpy(np.stack(rows)))[2].flatten(0, 1).double()
        centre, scale = magnitudes.mean(0), magnitudes.std(0)
        scale = scale.clamp(min=FLOOR * float(scale.max()))
        return {"centre": centre.tolist(), "scale": scale.tolist()}

    def new_frames(self) -> Frames:
        """Return the first layer of the network: frames and their standardised magnitudes."""
        unit = {"centre": [0.0] * self.n_bins, "scale": [1.0] * self.n_bins}
        facts = self.facts_ or unit
        return self._frames(np.asarray(facts["centre"]), np.asarray(facts["scale"]))

    def _frames(self, centre: NDArray[np.float64], scale: NDArray[np.float64]) -> Frames:
        import torch

        from afterimage.networks.time_frequency import Frames

        return Frames(
            self.settings.frame_samples,
            self.settings.hop_samples,
            torch.from_numpy(centre),
            torch.from_numpy(scale),
        )

    def batch_of(
        self, windows: Sequence[Signal], generator: np.random.Generator
    ) -> dict[str, NDArray[Any]]:
        """Return some channels of each window, (n, window_samples)."""
        parts = []
        for window in windows:
            n_drawn = min(self.settings.channels_per_window, window.n_channels)
            drawn = generator.choice(window.n_channels, n_drawn, replace=False)
            parts.append(window.values[drawn])
        return {"values": np.concatenate(parts)}

    def codes_of(self, windows: Sequence[Signal]) -> Tensor:
        """Return the codes, (n_windows, n_channels, n_frames, n_stages)."""
        import torch

        values = torch.from_numpy(np.stack([window.values for window in windows]))
        codes: Tensor = self.network_.encode(values.flatten(0, 1))
        return codes.unflatten(0, values.shape[:2])

    def signals_of(self, codes: Tensor, like: Signal) -> Tensor:
        """Return standardised magnitudes, (n_windows, n_channels, n_frames, n_bins)."""
        quantised = self.network_.quantiser.lookup(codes.flatten(0, 1))
        spectra: Tensor = self.network_.spectra(quantised)
        return spectra.unflatten(0, codes.shape[:2])

    def target(self, signal: Signal) -> NDArray[np.float32]:
        """Return standardised magnitudes, (n_channels, n_frames, n_bins), as windows see them."""
        import torch

        starts = self._starts(signal.n_times)
        shape = (signal.n_channels, int(starts[-1]) + self.window_steps, self.n_bins)
        total, times = np.zeros(shape, np.float32), np.zeros((shape[1], 1), np.float32)
        for start in starts.tolist():
            at = start * self.step_samples
            window = torch.from_numpy(signal.values[:, at : at + self.window_samples])
            total[:, start : start + self.window_steps] += self.network_.look(window).numpy()
            times[start : start + self.window_steps] += 1
        return total / times
