"""Networks over spectra of single channels: that of TFM-Tokenizer, that of EEGFormer, and masks.

TFM-Tokenizer: Pradeepkumar et al. 2025, arXiv:2502.16060. EEGFormer: Chen et al. 2024,
arXiv:2401.10278. The quantiser is given. What differs is said in `afterimage.tokenizers`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool1d, mse_loss, normalize

from afterimage.networks.transformer import Encoder

#: Level of a frame, in deviations of a bin, below which it is quiet and stays so.
QUIET = 0.3


class Frames(nn.Module):
    """Cuts windows of single channels into frames and takes their spectra.

    Parameters
    ----------
    frame, hop : int
        Samples of a frame, and from one to the next.
    centre, scale : Tensor, (n_bins,)
        Mean and deviation of the magnitude of each bin from 0 Hz on, which spectra are
        standardised by; as many bins are kept.
    """

    def __init__(self, frame: int, hop: int, centre: Tensor, scale: Tensor) -> None:
        super().__init__()
        self.frame, self.hop, self.n_bins = frame, hop, len(centre)
        self.register_buffer("taper", torch.hann_window(frame))
        self.register_buffer("centre", centre.float())
        self.register_buffer("scale", scale.float())

    def forward(self, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return frames, spectra and standardised magnitudes of windows (n, n_times).

        A window is first divided by the .95 quantile of its absolute values.

        Returns
        -------
        frames : Tensor, (n, n_frames, frame)
        spectra : Tensor of complex, (n, n_frames, n_bins)
            Of tapered frames.
        magnitudes : Tensor, (n, n_frames, n_bins)
        """
        rank = max(1, round(0.95 * values.shape[-1]))
        level = values.abs().float().kthvalue(rank, dim=-1, keepdim=True).values
        frames = (values / torch.where(level > 0, level, 1.0)).unfold(-1, self.frame, self.hop)
        spectra = torch.fft.rfft(frames.float() * self.taper)[..., : self.n_bins]
        return frames, spectra, (spectra.abs() - self.centre) / self.scale

    def shape(self, magnitudes: Tensor) -> Tensor:
        """Return magnitudes with loud and soft frames brought nearer: what codes are to say.

        ``x / (rms(x) + QUIET)`` over bins: a code is not spent on how loud a motif is.
        """
        level = magnitudes.square().mean(-1, keepdim=True).sqrt()
        return magnitudes / (level + QUIET)

    def back(self, spectra: Tensor) -> Tensor:
        """Return frames (n, n_frames, frame) of spectra: tapered, and whitened by their scale."""
        return torch.fft.irfft(spectra / self.scale, n=self.frame)


def complement_masks(
    n: int, n_frames: int, n_bands: int, span: int, *, shared: bool, device: torch.device
) -> Tensor:
    """Draw what is seen of time and frequency, and what a second pass sees instead.

    Half of the bands and half of the runs of ``span`` frames are drawn for each example; the first
    pass sees where both were drawn (a quarter), the second all else.

    Parameters
    ----------
    n, n_frames, n_bands : int
    span : int
        Frames that are seen or hidden together.
    shared : bool
        One draw for the whole batch, as in the published code.

    Returns
    -------
    Tensor of bool, (2, n, n_frames, n_bands)
        Seen by the first and by the second pass.
    """
    rows, n_runs = (1 if shared else n), -(-n_frames // span)
    bands = torch.rand(rows, n_bands).argsort(1) < n_bands // 2  # (rows, n_bands)
    runs = (torch.rand(rows, n_runs).argsort(1) < max(1, n_runs // 2)).repeat_interleave(span, 1)
    seen = (runs[:, :n_frames, None] & bands[:, None]).expand(n, -1, -1)
    return torch.stack([seen, ~seen]).to(device)


class SpectralNetwork(nn.Module, ABC):
    """What networks over frames share: quantiser, decoder of spectra.

    Parameters
    ----------
    frames : Frames
    quantiser : torch.nn.Module
        ``forward(latents) -> (quantised, codes, loss)``, ``lookup(codes)``.
    n_features, n_code_features : int
        Of the network's latents, and of what is quantised: directions in few dimensions, so that
        what is kept before there are codes is what matters most.
    n_decoder_layers, n_heads : int
    free_steps : int
        First steps in training in which latents pass as they are, without codes.
    reach : int
        Frames before and after its own whose mean spectrum a code says.
    """

    def __init__(
        self, frames: Frames, quantiser: nn.Module, *, n_features: int, n_code_features: int,
        n_decoder_layers: int, n_heads: int, free_steps: int, reach: int,
    ) -> None:  # fmt: skip
        super().__init__()
        self.reach = reach
        self.frames, self.quantiser, self.free_steps = frames, quantiser, free_steps
        self.register_buffer("n_steps", torch.zeros((), dtype=torch.int64))
        self.narrow = nn.Linear(n_features, n_code_features)
        self.widen = nn.Linear(n_code_features, n_features)
        self.decoder = Encoder(n_features, n_decoder_layers, n_heads, norm=False)
        self.head = nn.Linear(n_features, frames.n_bins)
        self.bend = nn.Sequential(
            nn.Linear(n_features, 2 * n_features),
            nn.Tanh(),
            nn.Linear(2 * n_features, frames.n_bins),
        )

    def look(self, values: Tensor) -> Tensor:
        """Return what codes are to say of windows (n, n_times): (n, n_frames, n_bins).

        The mean of the shape of a frame and of those within reach, as in Welch's method.
        """
        shapes = self.frames.shape(self.frames(values)[2]).transpose(1, 2)  # (n, n_bins, n_frames)
        width = 2 * self.reach + 1
        mean = avg_pool1d(shapes, width, 1, self.reach, count_include_pad=False)
        return mean.transpose(1, 2)

    @abstractmethod
    def latents(self, values: Tensor) -> Tensor:
        """Return latents (n, n_frames, n_features) of windows (n, n_times)."""

    def quantised(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Return what the decoder is given of latents in training, and the commitment loss."""
        latents = normalize(self.narrow(latents), dim=-1)
        self.n_steps += 1
        if self.n_steps <= self.free_steps:
            return latents, latents.new_zeros(())
        quantised, _, commitment = self.quantiser(latents)
        return quantised, commitment

    def spectra(self, quantised: Tensor) -> Tensor:
        """Return the spectra (n, n_frames, n_bins) that vectors of codes stand for; see `look`."""
        at = torch.arange(quantised.shape[1], device=quantised.device)
        wide = self.decoder(self.widen(quantised), at)
        found: Tensor = (self.head(wide) + self.bend(wide)).float()
        return found

    def encode(self, values: Tensor) -> Tensor:
        """Return the codes of windows (n, n_times): (n, n_frames, n_stages)."""
        codes: Tensor = self.quantiser(normalize(self.narrow(self.latents(values)), dim=-1))[1]
        return codes


class FormerNetwork(SpectralNetwork):
    """Spectra of frames, one transformer over frames, quantiser, decoder: EEGFormer's."""

    def __init__(
        self, frames: Frames, quantiser: nn.Module, *, n_features: int, n_layers: int,
        n_code_features: int, n_decoder_layers: int, n_heads: int, free_steps: int, reach: int,
    ) -> None:  # fmt: skip
        super().__init__(
            frames, quantiser, n_features=n_features, n_code_features=n_code_features,
            n_decoder_layers=n_decoder_layers, n_heads=n_heads, free_steps=free_steps,
            reach=reach,
        )  # fmt: skip
        self.embed = nn.Linear(frames.n_bins, n_features)
        self.over_frames = Encoder(n_features, n_layers, n_heads, norm=False)

    def latents(self, values: Tensor) -> Tensor:
        """Return latents (n, n_frames, n_features) of windows (n, n_times)."""
        magnitudes = self.frames.shape(self.frames(values)[2])
        at = torch.arange(magnitudes.shape[1], device=values.device)
        found: Tensor = self.over_frames(self.embed(magnitudes), at)
        return found

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the loss: error of all bins, and commitment."""
        values = batch["values"]  # (n, n_times)
        quantised, commitment = self.quantised(self.latents(values))
        error = mse_loss(self.spectra(quantised), self.look(values))
        return {"loss": error + commitment, "error": error, "commitment": commitment}


class MotifNetwork(SpectralNetwork):
    """Dual path over frames, quantiser, decoder of spectra.

    Parameters
    ----------
    frames : Frames
    quantiser : torch.nn.Module
        ``forward(latents) -> (quantised, codes, loss)``, ``lookup(codes)``.
    n_features, n_layers : int
        Of each path's latents, twice as many for both; of the transformer over bands and of that
        over frames.
    n_code_features, n_decoder_layers, n_heads, free_steps, reach : int
        See `SpectralNetwork`.
    band : int
        Bins of a band; a divisor of the number of bins.
    span : int
        See `complement_masks`.
    mask_time_path : bool
        Whether the path of the raw frame is kept from seeing what is hidden.
    shared_masks : bool
        See `complement_masks`.
    """

    def __init__(
        self, frames: Frames, quantiser: nn.Module, *, n_features: int, n_layers: int,
        n_code_features: int, n_decoder_layers: int, n_heads: int, free_steps: int, reach: int,
        band: int, span: int, mask_time_path: bool, shared_masks: bool,
    ) -> None:  # fmt: skip
        wide = 2 * n_features
        super().__init__(
            frames, quantiser, n_features=wide, n_code_features=n_code_features,
            n_decoder_layers=n_decoder_layers, n_heads=n_heads, free_steps=free_steps,
            reach=reach,
        )  # fmt: skip
        self.band, self.span, self.n_bands = band, span, frames.n_bins // band
        self.mask_time_path, self.shared_masks = mask_time_path, shared_masks
        self.embed_band = nn.Linear(band, n_features)
        self.hidden_band = nn.Parameter(0.02 * torch.randn(n_features))
        self.place = nn.Parameter(0.02 * torch.randn(self.n_bands, n_features))
        self.over_bands = Encoder(n_features, n_layers, n_heads, norm=False)
        self.gate = nn.Linear(n_features, n_features)
        self.gather = nn.Linear(n_features, n_features)
        self.pool = nn.Linear(self.n_bands * n_features, n_features)
        self.raw = nn.Sequential(
            nn.Linear(frames.frame, wide), nn.GELU(), nn.Linear(wide, n_features)
        )
        self.over_frames = Encoder(wide, n_layers, n_heads, norm=False)

    def latents(self, values: Tensor, seen: Tensor | None = None) -> Tensor:
        """Return latents of frames, (n, n_frames, 2 n_features), before the quantiser.

        Parameters
        ----------
        values : Tensor, (n, n_times)
        seen : Tensor of bool, (n, n_frames, n_bands), optional
            What is not hidden; default: all.
        """
        frames, spectra, magnitudes = self.frames(values)
        n, n_frames = magnitudes.shape[:2]
        if seen is not None:
            magnitudes = magnitudes * seen.repeat_interleave(self.band, -1)
        magnitudes = self.frames.shape(magnitudes)
        bands = self.embed_band(magnitudes.unflatten(-1, (self.n_bands, self.band)))
        if seen is not None:
            bands = torch.where(seen[..., None], bands, self.hidden_band)
        bands = self.over_bands((bands + self.place).flatten(0, 1))  # (n n_frames, n_bands, d)
        pooled = self.pool((self.gate(bands).sigmoid() * self.gather(bands)).flatten(1))
        if self.mask_time_path:
            if seen is not None:
                spectra = spectra * seen.repeat_interleave(self.band, -1)
            frames = self.frames.back(spectra)
        both = torch.cat([pooled.unflatten(0, (n, n_frames)), self.raw(frames)], -1)
        found: Tensor = self.over_frames(both, torch.arange(n_frames, device=values.device))
        return found

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the loss of both passes: error of all bins, and commitment."""
        values = batch["values"]  # (n, n_times)
        target = self.look(values)
        n, n_frames = target.shape[:2]
        masks = complement_masks(
            n, n_frames, self.n_bands, self.span, shared=self.shared_masks, device=values.device
        )
        latents = self.latents(values.repeat(2, 1), masks.flatten(0, 1))
        quantised, commitment = self.quantised(latents)
        error = mse_loss(self.spectra(quantised), target.repeat(2, 1, 1))
        return {"loss": error + commitment, "error": error, "commitment": commitment}
