"""Sensors to latent sources and back (BrainTokenizer of BrainOmni, Xiao et al. 2025, arXiv:2505.18185).

A sensor is known by its place, its orientation and its kind, never by its number: learned queries
collect what all sensors of a window show ("backward solution"), tokens are made of what the queries
hold, and any sensor, seen or not, asks the queries for its own series ("forward solution").

What differs: places are those in the head, not centred and scaled by the layout at hand, which would
move when electrodes are left out. The sign of an oriented sensor is a convention: a sensor whose
orientation points against a fixed field of directions is turned round together with its series, so
that to flip an orientation flips the series exactly, in and out. Channels of a batch are stacked, so
that windows with few of them cost little. The error of the phase is wrapped, and weighs as much as
the target has amplitude: the phase of what is not there tells nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize, scaled_dot_product_attention, selu

from afterimage.networks.waveforms import WaveformDecoder, WaveformEncoder

#: Kinds of sensors, in the order of their embeddings.
KINDS = ("eeg", "mag", "grad", "ieeg")
#: Middle of the head and a length about its radius, head coordinates, m.
CENTRE_M, LENGTH_M = (0.0, 0.0, 0.04), 0.1
#: The field of directions that tells which of two opposite orientations is used: outwards, and a
#: fixed direction, which decides where an orientation lies along the head's surface.
AGAINST = (0.41, 0.23, 0.13)

Batch = dict[str, Tensor]


def turn_round(sensors: Tensor) -> tuple[Tensor, Tensor]:
    """Choose one of the two descriptions of every oriented sensor.

    Parameters
    ----------
    sensors : Tensor, (n_sensors, 6)
        Place and orientation as the networks take them; the orientation of an electrode is 0.

    Returns
    -------
    sensors : Tensor, (n_sensors, 6)
        Orientations that point against the field of directions are turned round.
    sign : Tensor, (n_sensors,)
        -1 where that was done and the series must be multiplied too, else 1.
    """
    places, orientations = sensors[:, :3], sensors[:, 3:]
    field = places + places.new_tensor(AGAINST)
    sign = torch.where((orientations * field).sum(-1) < 0, -1.0, 1.0)
    return torch.cat([places, sign[:, None] * orientations], dim=-1), sign


class SensorEncoder(nn.Module):
    """What a sensor is: place, orientation and kind to features.

    Parameters
    ----------
    n_features : int
    """

    def __init__(self, n_features: int) -> None:
        super().__init__()
        self.rise, self.fall = nn.Linear(6, 2 * n_features), nn.Linear(2 * n_features, n_features)
        self.kind = nn.Embedding(len(KINDS), n_features)
        self.mix = nn.Sequential(
            nn.Linear(n_features, 2 * n_features), nn.SELU(), nn.Linear(2 * n_features, n_features)
        )
        self.norm = nn.RMSNorm(n_features)

    def forward(self, sensors: Tensor, kinds: Tensor) -> Tensor:
        """Encode (n_sensors, 6) and int64 (n_sensors,) to (n_sensors, n_features)."""
        known = self.fall(selu(self.rise(sensors))) + self.kind(kinds)
        encoded: Tensor = self.norm(known + self.mix(known))
        return encoded


class SourceQueries(nn.Module):
    """Windows of any sensors to tokens of latent sources, and back.

    Parameters
    ----------
    quantiser : nn.Module
        ``quantiser(latents) -> (quantised, codes, commitment loss a stage)`` of (n, n_vectors,
        n_features).
    n_features, n_sources, n_heads : int
        Features of a latent, number of queries, heads of attention.
    n_filters, ratios
        See `afterimage.networks.waveforms.WaveformEncoder`.
    dropped : float
        Share of the sensors of each training window that the encoder does not see.
    noise : float
        Standard deviation of the noise added to what the encoder sees in training.
    """

    def __init__(
        self,
        quantiser: Any,
        *,
        n_features: int,
        n_sources: int,
        n_heads: int,
        n_filters: int,
        ratios: Sequence[int],
        dropped: float = 0.25,
        noise: float = 0.1,
    ) -> None:
        super().__init__()
        self.n_heads, self.dropped, self.noise = n_heads, dropped, noise
        self.sensors = SensorEncoder(n_features)
        self.encoder = WaveformEncoder(n_features, n_filters, ratios)
        self.queries = nn.Parameter(torch.randn(n_sources, n_features))
        self.collect_key = nn.Linear(n_features, n_features)
        self.collect_value = nn.Linear(n_features, n_features)
        self.collect_gain = nn.Linear(n_features, n_features)
        self.collect_out = nn.Linear(n_features, n_features)
        self.quantiser = quantiser
        self.ask = nn.Linear(n_features, n_features)
        self.answer = nn.Linear(n_features, 2 * n_features)
        self.answer_gain = nn.Linear(n_features, n_features)
        self.answer_out = nn.Linear(n_features, n_features)
        self.decoder = WaveformDecoder(n_features, n_filters, ratios)

    def latents(self, batch: Batch, seen: Tensor | None = None, noise: Any = None) -> Tensor:
        """Collect what sensors show into sources.

        Parameters
        ----------
        batch : dict of Tensor
            ``series`` (n_sensors, n_times) of all windows below each other; ``sensors``
            (n_sensors, 6) and ``kinds`` int64 (n_sensors,); ``window`` and ``place``, int64
            (n_sensors,): whose window a sensor is, and which of its sensors.
        seen : Tensor of bool, (n_sensors,), optional
            Sensors that count; default: all.
        noise : Tensor, (n_sensors, n_times), optional
            Added to the series.

        Returns
        -------
        Tensor, (n_windows, n_sources, n_steps, n_features)
            Of length 1.
        """
        sensors, sign = turn_round(batch["sensors"])
        series = batch["series"] * sign[:, None]
        known = self.sensors(sensors, batch["kinds"])
        steps = self.encoder(series if noise is None else series + noise)  # (sensors, steps, f)
        key = self._heads(self.collect_key(steps + known[:, None]))
        value = self._heads(self.collect_value(steps) * self.collect_gain(known)[:, None])
        seen = torch.ones_like(sign, dtype=torch.bool) if seen is None else seen
        rows = (batch["window"], batch["place"])
        mask = _padded(seen, rows)[:, None, None, None]  # (windows, 1, 1, 1, places)
        query = self._heads(self.queries).transpose(0, 1)  # (heads, sources, f)
        # (windows, places, steps, heads, f) to (windows, steps, heads, places, f)
        key, value = (_padded(part, rows).permute(0, 2, 3, 1, 4) for part in (key, value))
        found = scaled_dot_product_attention(query.expand(*key.shape[:2], *query.shape), key, value, mask)
        # (windows, steps, heads, sources, f) to (windows, sources, steps, heads * f)
        sources = self.collect_out(found.permute(0, 3, 1, 2, 4).flatten(3))
        return normalize(sources.float(), dim=-1)

    def series(self, sources: Tensor, batch: Batch) -> Tensor:
        """Ask sources (n_windows, n_sources, n_steps, n_features) for series (n_sensors, n_times).

        Of the batch ``sensors``, ``kinds``, ``window`` and ``place`` are used.
        """
        sensors, sign = turn_round(batch["sensors"])
        known = self.sensors(sensors, batch["kinds"])
        query = self._heads(self.ask(known))
        rows = (batch["window"], batch["place"])
        query = _padded(query, rows).transpose(1, 2)[:, None]  # (windows, 1, heads, places, f)
        key, value = (
            self._heads(part).permute(0, 2, 3, 1, 4)  # (windows, steps, heads, sources, f)
            for part in self.answer(sources).chunk(2, dim=-1)
        )
        query = query.expand(-1, key.shape[1], -1, -1, -1)
        told = scaled_dot_product_attention(query, key, value)  # (windows, steps, heads, places, f)
        steps = told.permute(0, 3, 1, 2, 4).flatten(3)[rows]  # (sensors, steps, heads * f)
        decoded: Tensor = self.decoder(self.answer_out(steps * self.answer_gain(known)[:, None]))
        return sign[:, None] * decoded

    def quantise(self, sources: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return sources as their codes say, codes (..., n_stages), and the commitment loss."""
        quantised, codes, commitment = self.quantiser(sources.flatten(1, 2).float())
        return (
            quantised.view(sources.shape),
            codes.view(*sources.shape[:3], -1),
            commitment.sum() * sources.shape[-1],
        )

    def forward(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """Return the loss of a batch of standardised windows, and its parts.

        A share of the sensors of each window is hidden from the encoder; all are reconstructed.
        """
        target = batch["series"]
        draws = torch.rand(len(target), generator=generator).to(target.device)
        order = _padded(draws, (batch["window"], batch["place"]), 2.0).argsort(-1).argsort(-1)
        n_sensors = torch.bincount(batch["window"])
        n_hidden = (self.dropped * n_sensors).floor().long()
        seen = (order >= n_hidden[:, None])[batch["window"], batch["place"]]
        noise = self.noise * torch.randn(target.shape, generator=generator).to(target.device)
        sources = self.latents(batch, seen, noise)
        quantised, _, commitment = self.quantise(sources)
        found = self.series(quantised, batch)
        parts = reconstruction_parts(found.float(), target)
        loss = parts["time"] + parts["correlation"] + parts["amplitude"] + 0.5 * parts["phase"]
        return {"loss": loss + commitment, **parts, "commitment": commitment}

    def _heads(self, values: Tensor) -> Tensor:
        """Share features among heads: (..., n_features) to (..., n_heads, n_each)."""
        return values.unflatten(-1, (self.n_heads, -1))


def reconstruction_parts(found: Tensor, target: Tensor) -> dict[str, Tensor]:
    r"""Return how far series are from those wanted, (n, n_times) each.

    .. math:: |x - \hat x|, \quad e^{-r}, \quad \big||X| - |\hat X|\big|, \quad
        \tfrac{1}{\pi} \frac{\sum |X| |\angle X \hat X^*|}{\sum |X|}

    with r the correlation and X the spectrum of the series under a Hamming window.
    """
    both = torch.stack([found, target])
    centred = both - both.mean(-1, keepdim=True)
    correlation = torch.cosine_similarity(centred[0], centred[1], dim=-1, eps=1e-6)
    window = torch.hamming_window(target.shape[-1], device=target.device)
    spectra = torch.fft.rfft(both * window, norm="ortho")
    amplitude = spectra.abs()
    turned = torch.angle(spectra[0] * spectra[1].conj() + 1e-8).abs() / torch.pi
    return {
        "time": (found - target).abs().mean(),
        "correlation": torch.exp(-correlation).mean(),
        "amplitude": (amplitude[0] - amplitude[1]).abs().mean(),
        "phase": (amplitude[1] * turned).sum() / amplitude[1].sum().clamp(min=1e-6),
    }


def _padded(values: Tensor, rows: tuple[Tensor, Tensor], fill: float = 0.0) -> Tensor:
    """Lay stacked sensors out as (n_windows, n_places, ...); places without a sensor are filled."""
    shape = (int(rows[0].max()) + 1, int(rows[1].max()) + 1, *values.shape[1:])
    laid = values.new_full(shape, fill)
    laid[rows] = values
    return laid
