"""Sensors to latent sources and back (BrainTokenizer of BrainOmni, Xiao et al. 2025, arXiv:2505.18185).

A sensor is known by its place, its orientation and its kind, never by its number: learned queries
collect what all sensors of a window show ("backward solution"), tokens are made of what the queries
hold, and any sensor, seen or not, asks the queries for its own series ("forward solution").

What differs:

* Places are those in the head, not centred and scaled by the layout at hand, which would move when
  electrodes are left out.
* The sign of an oriented sensor is a convention. A sensor whose orientation points against a fixed
  field of directions is turned round together with its series, so that to flip an orientation flips
  the series exactly, in and out.
* A field has both signs, and electrodes have a mean of 0: attention, whose weights are positive,
  finds nothing to begin with. Weights here are inner products without a softmax, learned functions
  of place, orientation and kind alone. What sources collect is then explained to the sensors and
  what is left is collected again, since the fields of sources overlap, and other layouts sample
  them in other ways.
* Latents are standardised over the batch and shifted by a learned vector before they are brought to
  length 1: a direction alone has no amplitude. In the first batches they are not quantised, and the
  codes start from what was learned. Without both, latents become constant and nothing is learned.
* The error of the phase is wrapped, and weighs as much as the target has amplitude: the phase of
  what is not there tells nothing.
* Channels of a batch are stacked, so that windows with few of them cost little.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize, selu

from afterimage.networks.waveforms import WaveformDecoder, WaveformEncoder

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
    n_features, n_kinds : int
    """

    def __init__(self, n_features: int, n_kinds: int) -> None:
        super().__init__()
        self.rise, self.fall = nn.Linear(6, 2 * n_features), nn.Linear(2 * n_features, n_features)
        self.kind = nn.Embedding(n_kinds, n_features)
        self.mix = nn.Sequential(
            nn.Linear(n_features, 2 * n_features), nn.SELU(), nn.Linear(2 * n_features, n_features)
        )
        self.norm = nn.RMSNorm(n_features)

    def forward(self, sensors: Tensor, kinds: Tensor) -> Tensor:
        """Encode (n_sensors, 6) and int64 (n_sensors,) to (n_sensors, n_features)."""
        known = self.fall(selu(self.rise(sensors))) + self.kind(kinds)
        encoded: Tensor = self.norm(known + self.mix(known))
        return encoded


class FieldMixer(nn.Module):
    """Weighted sums over sensors or sources, with weights of both signs.

    A weight is the inner product of features of what is asked for and of what is summed over, as in
    attention, but without a softmax: it is a field over places, and does not depend on the series.

    Parameters
    ----------
    n_features, n_heads : int
    """

    def __init__(self, n_features: int, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.query, self.key = nn.Linear(n_features, n_features), nn.Linear(n_features, n_features)
        self.value = nn.Linear(n_features, n_features, bias=False)
        self.out = nn.Linear(n_features, n_features, bias=False)

    def forward(self, asked: Tensor, known: Tensor, values: Tensor, share: Tensor) -> Tensor:
        """Sum up ``values`` for each that is asked for.

        Parameters
        ----------
        asked : Tensor, (n_windows, n_asked, n_features)
        known : Tensor, (n_windows, n_known, n_features)
        values : Tensor, (n_windows, n_known, n_steps, n_features)
        share : Tensor, (n_windows, n_known)
            What each counts, beside its weight.

        Returns
        -------
        Tensor, (n_windows, n_asked, n_steps, n_features)
        """
        query, key = (
            part.unflatten(-1, (self.n_heads, -1)).transpose(1, 2)  # (windows, heads, n, f)
            for part in (self.query(asked), self.key(known))
        )
        weights = query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5 * share[:, None, None]
        parts = self.value(values).unflatten(-1, (self.n_heads, -1)).permute(0, 3, 1, 2, 4)
        mixed = weights @ parts.flatten(3)  # (windows, heads, n_asked, n_steps * f)
        mixed = mixed.unflatten(-1, (values.shape[2], -1)).permute(0, 2, 3, 1, 4)
        found: Tensor = self.out(mixed.flatten(3))
        return found


class SourceQueries(nn.Module):
    """Windows of any sensors to tokens of latent sources, and back.

    Parameters
    ----------
    quantiser : nn.Module
        See `afterimage.tokenizers.quantiser.new_quantiser`.
    n_features, n_kinds, n_sources, n_heads : int
        Features of a latent, kinds of sensors, number of queries, heads of a mixer.
    n_filters, ratios
        See `afterimage.networks.waveforms.WaveformEncoder`.
    n_rounds : int
        Times that sources collect what sensors show and sources do not yet explain.
    dropped : float
        Share of the sensors of each training window that the encoder does not see.
    noise : float
        Standard deviation of the noise added to what the encoder sees in training.
    n_continuous : int
        Batches of training before codes are used.
    """

    n_seen: Tensor

    def __init__(
        self,
        quantiser: Any,
        *,
        n_features: int,
        n_kinds: int,
        n_sources: int,
        n_heads: int,
        n_filters: int,
        ratios: Sequence[int],
        n_rounds: int = 3,
        dropped: float = 0.25,
        noise: float = 0.1,
        n_continuous: int = 0,
    ) -> None:
        super().__init__()
        self.n_rounds, self.dropped, self.noise = n_rounds, dropped, noise
        self.n_continuous = n_continuous
        self.register_buffer("n_seen", torch.zeros((), dtype=torch.int64))
        self.sensors = SensorEncoder(n_features, n_kinds)
        self.encoder = WaveformEncoder(n_features, n_filters, ratios)
        self.queries = nn.Parameter(torch.randn(n_sources, n_features))
        self.collect = FieldMixer(n_features, n_heads)
        self.explain = FieldMixer(n_features, n_heads)
        self.spread = nn.BatchNorm1d(n_sources * n_features)
        self.quantiser = quantiser
        self.answer = FieldMixer(n_features, n_heads)
        self.decoder = WaveformDecoder(n_features, n_filters, ratios)
        # Signals must pass from end to end at the start: with smaller weights biases drown them.
        for part in self.modules():
            if isinstance(part, nn.Conv1d | nn.ConvTranspose1d | nn.Linear):
                nn.init.xavier_normal_(part.weight)
                if part.bias is not None:
                    nn.init.zeros_(part.bias)
        nn.init.zeros_(self.explain.out.weight)
        nn.init.ones_(self.spread.bias)

    def latents(
        self, batch: Batch, seen: Tensor | None = None, noise: Tensor | None = None
    ) -> Tensor:
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
        rows = (batch["window"], batch["place"])
        known = _padded(self.sensors(sensors, batch["kinds"]), rows)
        shown = _padded(self.encoder(series if noise is None else series + noise), rows)
        there = _padded(torch.ones_like(sign) if seen is None else seen.to(sign), rows)
        share = there / there.sum(-1, keepdim=True).clamp(min=1)
        queries = self.queries.expand(len(known), -1, -1)
        even = share.new_full(queries.shape[:2], queries.shape[1] ** -0.5)
        sources = self.collect(queries, known, shown, share)
        for _ in range(self.n_rounds - 1):
            left = shown - self.explain(known, queries, sources, even)
            sources = sources + self.collect(queries, known, left, share)
        flat = sources.float().transpose(1, 2)  # (windows, steps, sources, features)
        spread = self.spread(flat.flatten(0, 1).flatten(1)).view(flat.shape)
        return normalize(spread, dim=-1).transpose(1, 2)

    def series(self, sources: Tensor, batch: Batch) -> Tensor:
        """Ask sources (n_windows, n_sources, n_steps, n_features) for series (n_sensors, n_times).

        Of the batch ``sensors``, ``kinds``, ``window`` and ``place`` are used.
        """
        sensors, sign = turn_round(batch["sensors"])
        rows = (batch["window"], batch["place"])
        known = _padded(self.sensors(sensors, batch["kinds"]), rows)
        queries = self.queries.expand(len(known), -1, -1)
        even = known.new_full(queries.shape[:2], queries.shape[1] ** -0.5)
        decoded: Tensor = self.decoder(self.answer(known, queries, sources, even)[rows])
        return sign[:, None] * decoded

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Return the loss of a batch of standardised windows, and its parts.

        A share of the sensors of each window is hidden from the encoder; all are reconstructed.
        Randomness is torch's global one.
        """
        target = batch["series"]
        rows = (batch["window"], batch["place"])
        draws = torch.rand(len(target)).to(target.device)
        rank = _padded(draws, rows, 2.0).argsort(-1).argsort(-1)
        n_hidden = (self.dropped * torch.bincount(batch["window"])).floor().long()
        seen = (rank >= n_hidden[:, None])[rows]
        noise = self.noise * torch.randn(target.shape).to(target.device)
        sources = self.latents(batch, seen, noise)
        commitment = target.new_zeros(())
        if self.n_seen >= self.n_continuous:
            # Mean squares over the features of a unit vector are next to nothing; this is its sum.
            sources, _, loss = self.quantiser(sources)
            commitment = loss * sources.shape[-1]
        if self.training:
            self.n_seen += 1
        parts = reconstruction_parts(self.series(sources, batch).float(), target)
        loss = parts["time"] + parts["correlation"] + parts["amplitude"] + 0.5 * parts["phase"]
        return {"loss": loss + commitment, **parts, "commitment": commitment}


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
