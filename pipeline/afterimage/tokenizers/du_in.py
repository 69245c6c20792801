"""Du-IN (Zheng et al. 2024, arXiv:2405.11459): tokens of regions of intracranial recordings.

A region is coded as a whole, so that what its channels say only together is not lost. What differs
of the network is said in `afterimage.networks.region_codes`. Beside that, weights belong to channels,
by name, so that people, whose electrodes differ, share all else, and a recording may lack some: names
that mean other places in other people must say so, such as ``sub-01/A1``. Channels whose region is
not known form one region, ``all``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from afterimage.errors import ConfigError, InputError
from afterimage.tokenizers.quantiser import QuantiserSettings, new_quantiser
from afterimage.tokenizers.registry import TOKENIZERS
from afterimage.tokenizers.signals import Signal, WindowSource
from afterimage.tokenizers.tokenizer import SignalTokenizer, TokenizerSettings

if TYPE_CHECKING:
    from torch import Tensor, nn

#: Windows read at once to see which channels there are.
READ_AT_ONCE = 16


class DuINSettings(TokenizerSettings):
    """Tokens of regions, of the published size: codes of 100 ms, 160 features."""

    kind: Literal["du_in"] = Field("du_in", description="Regions as a whole.")
    sfreq_hz: float = Field(1000.0, gt=0, description="Rate that signals are brought to, Hz.")
    quantiser: QuantiserSettings = Field(
        QuantiserSettings(codebook_size=2048, codebook_dim=64, decay=0.99, commitment_weight=1.0),
        description="The codebook.",
    )
    token_s: float = Field(0.1, gt=0, description="Length of a token, s.")
    stride: int = Field(10, ge=2, description="Samples a place of the convolutions stands for.")
    n_mixed: int = Field(
        16, ge=1, description="Series that the channels of a region are mixed to."
    )
    n_filters: int = Field(128, ge=1, description="Filters of the convolutions.")
    n_out: int = Field(16, ge=1, description="Filters of the last; times places: the features.")
    n_layers: int = Field(8, ge=1, description="Blocks of the transformer before the codes.")
    n_back_layers: int = Field(4, ge=1, description="Blocks of the transformer after the codes.")
    n_heads: int = Field(8, ge=1, description="Heads of attention; they share the features.")


@TOKENIZERS.register("du_in", DuINSettings)
class DuIN(SignalTokenizer):
    """One token a step of each region."""

    settings: DuINSettings

    @property
    def step_samples(self) -> int:
        """Samples of a token, whole places of the convolutions."""
        settings = self.settings
        return settings.stride * max(
            1, round(settings.token_s * settings.sfreq_hz / settings.stride)
        )

    def fit(self, source: WindowSource, **more: Any) -> Self:
        """Learn to say regions in tokens; all windows are looked through for channels first."""
        chunks = np.array_split(np.arange(len(source)), -(-len(source) // READ_AT_ONCE) or 1)
        self.facts_ = _names(one for chunk in chunks for one in source.read(chunk))
        return super().fit(source, **more)

    def look_at(self, windows: Sequence[Signal]) -> dict[str, Any]:
        """Return ``channels``: their names."""
        return self.facts_ or _names(windows)

    def new_network(self) -> nn.Module:
        """Return an untrained `afterimage.networks.region_codes.RegionNetwork`."""
        from afterimage.networks.region_codes import RegionNetwork

        settings = self.settings
        n_features = settings.n_out * self.step_samples // settings.stride
        if n_features % (2 * settings.n_heads):
            raise ConfigError(
                "heads of attention do not share the features",
                found=f"{settings.n_heads} heads, {n_features} features (n_out times places)",
                expected="features a multiple of twice the heads", fix="set n_heads or n_out",
            )  # fmt: skip
        return RegionNetwork(
            new_quantiser(n_features, settings.quantiser),
            len(self.facts_["channels"]),
            step_samples=self.step_samples,
            stride=settings.stride,
            n_mixed=settings.n_mixed,
            n_filters=settings.n_filters,
            n_out=settings.n_out,
            n_layers=settings.n_layers,
            n_back_layers=settings.n_back_layers,
            n_heads=settings.n_heads,
        )

    def batch_of(
        self, windows: Sequence[Signal], generator: np.random.Generator
    ) -> dict[str, NDArray[Any]]:
        """Return the regions of each window, below each other."""
        parts = [(one, part) for one in windows for part in self._parts(one).values()]
        shape = (len(parts), max(len(channels) for _, (channels, _) in parts))
        values = np.zeros((*shape, windows[0].n_times), np.float32)
        columns, known = np.zeros(shape, np.int64), np.zeros(shape, np.bool_)
        for row, (window, (channels, own)) in enumerate(parts):
            values[row, : len(own)], columns[row, : len(own)] = window.values[channels], own
            known[row, : len(own)] = window.values[channels].any(axis=1)  # flat ones do not count
        return {"values": values, "columns": columns, "known": known}

    def _parts(self, signal: Signal) -> dict[str, tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """Return the channels of each region that are known, and the numbers of their weights."""
        number = {name: place for place, name in enumerate(self.facts_["channels"])}
        found: dict[str, list[tuple[int, int]]] = {}
        for channel, name in enumerate(signal.names.tolist()):
            if name in number:
                region = str(signal.regions[channel]) or "all"
                found.setdefault(region, []).append((channel, number[name]))
        if not found:
            raise InputError(
                "no channel of a recording is known to the tokenizer",
                found=", ".join(signal.names[:8].tolist()),
                expected="names of channels of a recording that it was trained on",
                fix="train it on recordings of this person too, or look at the names",
            )  # fmt: skip
        arrays = {region: np.array(pairs).T for region, pairs in found.items()}
        return {region: (arrays[region][0], arrays[region][1]) for region in sorted(arrays)}

    def streams_of(self, signal: Signal) -> NDArray[np.str_]:
        """Return the names of the regions that are known."""
        return np.array(list(self._parts(signal)))

    def codes_of(self, windows: Sequence[Signal]) -> Tensor:
        """Return the codes, (n_windows, n_regions, n_steps, n_stages)."""
        import torch

        arrays = self.batch_of(windows, np.random.default_rng(0))
        values, columns = (torch.from_numpy(arrays[key]) for key in ("values", "columns"))
        codes: Tensor = self.network_.quantiser(self.network_.latents(values, columns))[1]
        return codes.unflatten(0, (len(windows), -1))

    def signals_of(self, codes: Tensor, like: Signal) -> Tensor:
        """Return the signals, (n_windows, n_channels, n_samples); 0 where a channel is not known."""
        import torch

        parts = self._parts(like)
        if len(parts) != codes.shape[1]:
            raise InputError(
                "tokens are not of the regions of the signal asked for",
                found=f"{codes.shape[1]} regions", expected=", ".join(parts),
                fix="ask for the channels of the recording that was encoded",
            )  # fmt: skip
        n_windows, _, n_steps, _ = codes.shape
        found = torch.zeros(n_windows, like.n_channels, n_steps * self.step_samples)
        vectors = self.network_.quantiser.lookup(codes)
        for place, (channels, columns) in enumerate(parts.values()):
            own = torch.from_numpy(columns).expand(n_windows, -1)
            found[:, torch.from_numpy(channels)] = self.network_.series(vectors[:, place], own)
        return found


def _names(windows: Iterable[Signal]) -> dict[str, Any]:
    """Return the names of the channels, sorted, under ``channels``."""
    return {"channels": sorted({name for window in windows for name in window.names.tolist()})}
