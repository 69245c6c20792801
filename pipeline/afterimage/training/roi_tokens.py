"""The model of ROITok (CVPR 2026) and its loss: a token a region, half of them hidden; see `decoding`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import l1_loss, mse_loss

from afterimage.networks.residual_mlp import ResidualMLP
from afterimage.networks.shared_subjects import Batch, SharedModel
from afterimage.training.objectives import soft_contrastive_loss


@dataclass(frozen=True)
class TokenSizes:
    """Sizes and weights of a `RoiTokens`."""

    n_token: int
    n_hidden: int
    n_blocks: int
    dropout: float
    mask_share: float
    nested: bool
    temperature: float
    weight_error: float
    weight_low: float
    weight_fill: float


class RegionLayers(nn.Module):
    """What one subject has of its own: a way in and a way back a region.

    Both are one matrix over all units in which only the units of a token's region count, so that
    a batch costs one product.
    """

    region: Tensor

    def __init__(self, n_units: int, n_regions: int, sizes: TokenSizes) -> None:
        super().__init__()
        self.embedder = nn.Linear(n_units, sizes.n_token, bias=False)
        self.builder = nn.Linear(sizes.n_hidden, n_units)
        # Number of each unit's region; set by whoever adds the subject. -1: a region not known.
        self.register_buffer("region", torch.full((n_units,), -1, dtype=torch.int64))
        self.n_regions = n_regions

    def forward(self, responses: Tensor) -> Tensor:
        """Tokens (n, n_regions, n_token) of responses (n, n_units)."""
        numbers = torch.arange(self.n_regions, device=responses.device)
        inside = (self.region[None] == numbers[:, None]).to(responses.dtype)  # (regions, units)
        # Regions differ in size; a token's variance should not.
        inside = inside / inside.sum(1, keepdim=True).clamp(min=1).sqrt()
        weights = self.embedder.weight * self.embedder.in_features**0.5
        return torch.einsum("nu,ru,tu->nrt", responses, inside, weights)


class RoiTokens(SharedModel):
    """Region embedders of subjects before one residual perceptron, and heads.

    Parameters
    ----------
    n_targets : dict of block to int
        Features of the target, first, and of the low-level block, if there is one.
    n_regions : int
    sizes : TokenSizes
    """

    shown: Tensor

    def __init__(self, n_targets: Mapping[str, int], n_regions: int, sizes: TokenSizes) -> None:
        super().__init__()
        self.blocks, self.sizes, self.n_regions = tuple(n_targets), sizes, n_regions
        self.absent = nn.Parameter(0.02 * torch.randn(n_regions, sizes.n_token))
        self.join = nn.Linear(n_regions * sizes.n_token, sizes.n_hidden)
        self.backbone = ResidualMLP(sizes.n_hidden, sizes.n_blocks, sizes.dropout, norm_first=True)
        self.heads = nn.ModuleList(nn.Linear(sizes.n_hidden, n) for n in n_targets.values())
        self.register_buffer("shown", torch.ones(n_regions, dtype=torch.bool), persistent=False)

    def new_layers(self, n_units: int) -> RegionLayers:  # noqa: D102
        return RegionLayers(n_units, self.n_regions, self.sizes)

    def first_layer(self, subject: str) -> nn.Linear:  # noqa: D102
        embedder = self.layers(subject).embedder
        assert isinstance(embedder, nn.Linear)  # noqa: S101 -- made above
        return embedder

    def enter(self, responses: Tensor, subject: str) -> Tensor:
        """Join the tokens of the regions shown; in training, of a part of them, cut short."""
        layers = self.layers(subject)
        tokens = layers(responses)  # (n, regions, token)
        present = torch.stack([(layers.region == r).any() for r in range(self.n_regions)])
        seen = (present & self.shown).expand(len(tokens), -1)
        if self.training and not self.adapting:
            seen = seen & self._drawn(len(tokens), tokens.device)
            if self.sizes.nested:
                tokens = tokens * self._cut(len(tokens), tokens.device)[:, None]
        tokens = torch.where(seen[:, :, None], tokens, self.absent)
        self._seen = seen
        joined: Tensor = self.join(tokens.flatten(1))
        return joined

    def represent(self, hidden: Tensor) -> Tensor:  # noqa: D102
        represented: Tensor = self.backbone(hidden)
        return represented

    def predict(self, representation: Tensor) -> dict[str, Tensor]:  # noqa: D102
        heads = zip(self.blocks, self.heads, strict=True)
        return {name: head(representation) for name, head in heads}

    def embed(self, representation: Tensor) -> dict[str, Tensor]:  # noqa: D102
        return {self.blocks[0]: self.heads[0](representation)}

    def loss(self, batch: Batch) -> Tensor:
        """SoftCLIP and squared error of the target, absolute error of latents, hidden regions."""
        sizes = self.sizes
        keys = [key for key in batch if key.startswith("responses/")]
        representations, fill = [], torch.zeros((), device=batch["stimulus"].device)
        for key in keys:
            name = key.removeprefix("responses/")
            representation = self.represent(self.enter(batch[key], name))
            representations.append(representation)
            layers = self.layers(name)
            # Units of regions that were hidden, by what the others say.
            known = layers.region.clamp(min=0)
            hidden = ~self._seen[:, known] & (layers.region >= 0)
            error = (layers.builder(representation).float() - batch[key]).square() * hidden
            share = len(batch[key]) / len(batch["stimulus"])
            fill = fill + share * error.sum() / hidden.sum().clamp(min=1)
        predicted = self.predict(torch.cat(representations))
        target, *low = self.blocks
        truth = batch[f"targets/{target}"]
        total = soft_contrastive_loss(predicted[target], truth, sizes.temperature)
        total = total + sizes.weight_error * mse_loss(predicted[target].float(), truth)
        for name in low:
            error = l1_loss(predicted[name].float(), batch[f"targets/{name}"])
            total = total + sizes.weight_low * error
        return total + sizes.weight_fill * fill

    def _drawn(self, n: int, device: torch.device) -> Tensor:
        """Regions that each trial keeps: one at least."""
        drawn = torch.rand(n, self.n_regions)
        kept = drawn >= self.sizes.mask_share
        kept[torch.arange(n), drawn.argmax(1)] = True
        return kept.to(device)

    def _cut(self, n: int, device: torch.device) -> Tensor:
        """Features that each trial's tokens keep, the first ones: all, a half, a quarter, an eighth.

        Matryoshka representations (Kusupati et al. 2022, arXiv:2205.13147).
        """
        kept = self.sizes.n_token / 2 ** torch.randint(0, 4, (n, 1))
        places = torch.arange(self.sizes.n_token)[None]
        return (places < kept.clamp(min=1)).float().to(device)
