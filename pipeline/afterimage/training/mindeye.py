"""The model of MindEye2 (Scotti et al. 2024, arXiv:2403.11207) and its loss; see `decoding.mindeye`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import cos, pi
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import l1_loss, mse_loss

from afterimage.networks.prior import PriorTransformer
from afterimage.networks.residual_mlp import ResidualMLP
from afterimage.networks.shared_subjects import Batch, SharedModel
from afterimage.training.objectives import mixed_contrastive_loss, soft_contrastive_loss
from afterimage.training.prior import prior_loss, sample_prior

#: Temperatures of SoftCLIP at its start and end, in units of that of BiMixCo: .004 and .0075 of .006.
SOFT_TEMPERATURES = (0.004 / 0.006, 0.0075 / 0.006)


@dataclass(frozen=True)
class EyeSizes:
    """Sizes and weights of a `MindEye`."""

    n_tokens: int
    n_hidden: int
    n_blocks: int
    dropout: float
    prior: Literal["diffusion", "flow", "none"]
    prior_hidden: int
    prior_layers: int
    prior_heads: int
    prior_steps: int
    prior_dropout: float
    n_samples: int
    mix_share: float
    mix_beta: float
    temperature: float
    temperature_low: float
    weight_prior: float
    weight_contrast: float
    weight_low: float
    weight_low_contrast: float


class MindEye(SharedModel):
    """A linear layer a subject, one backbone, and heads for retrieval, prior and low level.

    Parameters
    ----------
    n_targets : dict of block to int
        Features of the target, first, and of the low-level block, if there is one.
    sizes : EyeSizes
    random_state : int
        Seed of the noise that samples of the prior begin with: the same for every trial.
    """

    noise: Tensor

    def __init__(self, n_targets: Mapping[str, int], sizes: EyeSizes, random_state: int) -> None:
        super().__init__()
        self.blocks, self.sizes = tuple(n_targets), sizes
        n_target, *n_low = n_targets.values()
        n_each = n_target // sizes.n_tokens
        n_hidden = sizes.n_hidden
        self.backbone = ResidualMLP(n_hidden, sizes.n_blocks, sizes.dropout, norm_first=True)
        self.guess = nn.Linear(n_hidden, n_target)
        self.projector = nn.Sequential(
            nn.Linear(n_each, n_hidden),
            nn.GELU(),
            nn.Linear(n_hidden, n_hidden),
            nn.GELU(),
            nn.Linear(n_hidden, n_each),
        )
        self.low = None
        if n_low:
            rest = [nn.LayerNorm(n_hidden), nn.GELU(), nn.Linear(n_hidden, n_low[0])]
            self.low = nn.Sequential(nn.Linear(n_hidden, n_hidden), *rest)
        self.prior = None
        if sizes.prior != "none":
            self.prior = PriorTransformer(
                sizes.n_tokens,
                n_each,
                n_hidden=sizes.prior_hidden,
                n_layers=sizes.prior_layers,
                n_heads=sizes.prior_heads,
            )
        drawn = torch.Generator().manual_seed(random_state)
        noise = torch.randn(sizes.n_samples, sizes.n_tokens, n_each, generator=drawn)
        self.register_buffer("noise", noise, persistent=False)

    def new_layers(self, n_units: int) -> nn.Module:  # noqa: D102
        return nn.Linear(n_units, self.sizes.n_hidden)

    def first_layer(self, subject: str) -> nn.Linear:  # noqa: D102
        layer = self.layers(subject)
        assert isinstance(layer, nn.Linear)  # noqa: S101 -- made above
        return layer

    def enter(self, responses: Tensor, subject: str) -> Tensor:  # noqa: D102
        entered: Tensor = self.layers(subject)(responses)
        return entered

    def represent(self, hidden: Tensor) -> Tensor:  # noqa: D102
        represented: Tensor = self.backbone(hidden)
        return represented

    def predict(self, representation: Tensor) -> dict[str, Tensor]:
        """Return the mean of the prior's samples, or the guess itself, and the low-level block."""
        guess = self._tokens(representation)
        if self.prior is not None:
            draw, steps = self.sizes.prior, self.sizes.prior_steps
            samples = [
                sample_prior(self.prior, guess, one[None], steps, draw)  # type: ignore[arg-type]
                for one in self.noise
            ]
            guess = torch.stack(samples).mean(0)
        found = {self.blocks[0]: guess.flatten(1)}
        if self.low is not None:
            found[self.blocks[1]] = self.low(representation)
        return found

    def embed(self, representation: Tensor) -> dict[str, Tensor]:  # noqa: D102
        return {self.blocks[0]: self._projected(self._tokens(representation))}

    def loss(self, batch: Batch) -> Tensor:
        """Prior, contrast (BiMixCo, later SoftCLIP) and low level."""
        sizes, progress = self.sizes, float(batch["progress"])
        mixing = progress < sizes.mix_share
        entered = self.entered(batch)
        hidden = torch.cat(list(entered.values()))
        partner = torch.arange(len(hidden), device=hidden.device)
        share = torch.ones(len(hidden), device=hidden.device)
        if mixing:
            partner, share = self._pairs([len(part) for part in entered.values()], hidden.device)
            # Linear layers: to mix behind them is to mix the responses, each subject's its own.
            hidden = share[:, None] * hidden + (1 - share)[:, None] * hidden[partner]
        representation = self.represent(hidden)
        truth = batch[f"targets/{self.blocks[0]}"]
        guess = self._tokens(representation)
        found = self._projected(guess)
        if mixing:
            contrast = mixed_contrastive_loss(found, truth, partner, share, sizes.temperature)
        else:
            done = (progress - sizes.mix_share) / max(1 - sizes.mix_share, 1e-9)
            first, last = SOFT_TEMPERATURES
            factor = last + 0.5 * (first - last) * (1 + cos(pi * done))
            contrast = soft_contrastive_loss(found, truth, sizes.temperature * factor)
        # What a mixture is a picture of is not known: the other heads see the trials that are not.
        whole = share > 1 - 1e-6
        clean = truth.unflatten(1, guess.shape[1:])
        total = sizes.weight_contrast * contrast
        total = total + sizes.weight_prior * self._error(guess[whole], clean[whole])
        if self.low is not None:
            wanted = batch[f"targets/{self.blocks[1]}"][whole]
            low = self.low(representation[whole]).float()
            soft = soft_contrastive_loss(low, wanted, sizes.temperature_low)
            error = l1_loss(low, wanted) + sizes.weight_low_contrast * soft
            total = total + sizes.weight_low * error
        return total

    def _error(self, guess: Tensor, clean: Tensor) -> Tensor:
        if self.prior is None:
            return mse_loss(guess.float(), clean)
        path, dropout = self.sizes.prior, self.sizes.prior_dropout
        return prior_loss(self.prior, clean, guess, path, dropout)  # type: ignore[arg-type]

    def _tokens(self, representation: Tensor) -> Tensor:
        """Guess of the target, (n, n_tokens, n_features)."""
        guess: Tensor = self.guess(representation).unflatten(1, (self.sizes.n_tokens, -1))
        return guess

    def _projected(self, guess: Tensor) -> Tensor:
        projected: Tensor = (guess + self.projector(guess)).flatten(1)
        return projected

    def _pairs(self, sizes: list[int], device: torch.device) -> tuple[Tensor, Tensor]:
        """Partner of each trial, of the same subject, and its own share: one for half of them."""
        starts = [sum(sizes[:i]) for i in range(len(sizes))]
        orders = [first + torch.randperm(n) for first, n in zip(starts, sizes, strict=True)]
        partner = torch.cat(orders)
        beta = torch.distributions.Beta(self.sizes.mix_beta, self.sizes.mix_beta)
        share = beta.sample((len(partner),))
        share = torch.where(torch.rand(len(partner)) < 0.5, share, torch.ones(()))
        return partner.to(device), share.to(device)
