"""Residual vector quantisation (Zeghidour et al. 2021, arXiv:2107.03312), the one of all tokenizers.

Codebooks follow running averages of what falls on them and dead codes are replaced; gradients pass
by rotation (Fifty et al. 2024, arXiv:2410.06424). What is computed is vector-quantize-pytorch's.
What differs: it always computes in float32, and cosine distance with more than one stage is a
normalised input to Euclidean stages, since what is left after a stage is no direction.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from afterimage.settings import Settings

if TYPE_CHECKING:
    from torch import Tensor, nn


class QuantiserSettings(Settings):
    """Settings of the quantiser."""

    codebook_size: int = Field(512, ge=2, le=65536, description="Codes of a stage.")
    n_stages: int = Field(1, ge=1, description="Stages; each codes what is left by the last.")
    codebook_dim: int | None = Field(
        None, ge=1, description="Dimensions of a code; null: those of the network."
    )
    decay: float = Field(0.95, gt=0, lt=1, description="Decay of a codebook's averages a step.")
    commitment_weight: float = Field(
        0.25, ge=0, description="Weight of the loss that keeps the encoder near its codes."
    )
    threshold_ema_dead_code: float = Field(
        0.5, ge=0, description="A code used less often a step than this is replaced; 0: never."
    )
    kmeans_init: bool = Field(True, description="Start the codes from k-means of the first batch.")
    rotation_trick: bool = Field(
        True, description="Pass gradients by rotation, not straight through."
    )
    distance: Literal["euclidean", "cosine"] = Field(
        "euclidean", description="How near a code is; cosine: by direction alone."
    )


def new_quantiser(n_features: int, settings: QuantiserSettings) -> nn.Module:
    """Return an untrained quantiser of vectors of ``n_features``.

    ``forward(latents, valid=None) -> (quantised, codes, loss)``: of latents (..., n_features)
    float32 come quantised (..., n_features), codes (..., n_stages) int64 and the commitment loss,
    a scalar, 0 in evaluation. ``valid`` (...) bool leaves padding out; its codes are -1 and what is
    quantised is 0. ``lookup(codes)`` returns (..., n_features) of codes (..., n_stages), and
    ``lookup(codes, n_stages)`` what the first stages alone give. ``codebooks()`` returns (n_stages,
    codebook_size, codebook_dim). All state is in the state_dict; randomness is torch's global one,
    which `SignalTokenizer.fit` seeds for every step.
    """
    import torch
    from torch import nn
    from torch.nn.functional import normalize
    from vector_quantize_pytorch import ResidualVQ

    cosine = settings.distance == "cosine"

    class Quantiser(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stages = ResidualVQ(
                dim=n_features,
                num_quantizers=settings.n_stages,
                codebook_size=settings.codebook_size,
                codebook_dim=settings.codebook_dim,
                decay=settings.decay,
                commitment_weight=settings.commitment_weight,
                threshold_ema_dead_code=settings.threshold_ema_dead_code,
                kmeans_init=settings.kmeans_init,
                rotation_trick=settings.rotation_trick,
                use_cosine_sim=cosine and settings.n_stages == 1,
            )

        def forward(
            self, latents: Tensor, valid: Tensor | None = None
        ) -> tuple[Tensor, Tensor, Tensor]:
            shape = latents.shape[:-1]
            with torch.autocast(latents.device.type, enabled=False):
                flat = latents.float().flatten(0, -2)  # (n, n_features)
                if cosine:
                    flat = normalize(flat, dim=-1)
                chosen = flat if valid is None else flat[valid.flatten()]
                if self.training:
                    quantised, codes, loss = (one[0] for one in self.stages(chosen[None]))
                else:
                    codes = self.nearest(chosen)
                    quantised, loss = self.lookup(codes), chosen.new_zeros(1)
            if valid is not None:
                here = valid.flatten()
                quantised = torch.zeros_like(flat).masked_scatter(here[:, None], quantised)
                everywhere = codes.new_full((len(flat), settings.n_stages), -1)
                codes = everywhere.masked_scatter(here[:, None], codes)
            return quantised.view(*shape, -1), codes.view(*shape, -1), loss.sum()

        def nearest(self, flat: Tensor) -> Tensor:
            # The library counts codes in evaluation too, which takes most of the time.
            left = self.stages.project_in(flat)  # (n, codebook_dim)
            found = []
            for book in self.stages.codebooks:
                if cosine and settings.n_stages == 1:
                    left = normalize(left, dim=-1)
                half = book.square().sum(1) / 2  # of |x - c|^2, without |x|^2
                parts = [
                    torch.addmm(half, part, book.T, alpha=-1).argmin(1)
                    for part in left.split(4096)
                ]
                found.append(torch.cat(parts))
                left = left - book[found[-1]]
            return torch.stack(found, dim=-1)

        def lookup(self, codes: Tensor, n_stages: int | None = None) -> Tensor:
            kept = codes.clone()
            if n_stages is not None:
                kept[..., n_stages:] = -1  # the library adds nothing for a code of -1
            flat = kept.flatten(0, -2)[None]  # (1, n, n_stages)
            found: Tensor = self.stages.get_output_from_indices(flat)[0]
            return found.view(*codes.shape[:-1], -1)

        def codebooks(self) -> Tensor:
            found: Tensor = self.stages.codebooks
            return found

    return Quantiser()
