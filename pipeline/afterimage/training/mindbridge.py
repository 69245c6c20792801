"""The model of MindBridge (Wang et al. 2024, arXiv:2404.07850) and its loss; see `decoding.mindbridge`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_max_pool1d, mse_loss

from afterimage.networks.residual_mlp import ResidualMLP
from afterimage.networks.shared_subjects import Batch, SharedModel
from afterimage.training.objectives import soft_contrastive_loss


@dataclass(frozen=True)
class BridgeSizes:
    """Sizes and weights of a `MindBridge`."""

    aggregation: Literal["maxpool", "linear"]
    n_common: int  # values of a response after aggregation
    n_bottleneck: int
    n_hidden: int
    n_blocks: int
    dropout_embedder: float
    dropout: float
    temperature: float
    weight_error: float
    weight_reconstruction: float
    weight_cycle: float
    adaptation_weight_cycle: float


class Adapter(nn.Module):
    """A bottleneck that is added to its input, and adds nothing to begin with."""

    def __init__(self, n_features: int, n_bottleneck: int) -> None:
        super().__init__()
        self.fall = nn.Linear(n_features, n_bottleneck, bias=False)
        self.rise = nn.Linear(n_bottleneck, n_features, bias=False)
        nn.init.zeros_(self.rise.weight)

    def forward(self, values: Tensor) -> Tensor:
        """Map (n, n_features) to (n, n_features)."""
        changed: Tensor = values + self.rise(self.fall(values))
        return changed


class Bridge(nn.Module):
    """What one subject has of its own: the way in (embedder) and the way back (builder)."""

    def __init__(self, n_units: int, sizes: BridgeSizes) -> None:
        super().__init__()
        self.pooled = sizes.n_common if sizes.aggregation == "maxpool" else 0
        first = [] if self.pooled else [nn.Linear(n_units, sizes.n_common, bias=False)]
        last = [] if self.pooled else [nn.Linear(sizes.n_common, n_units)]
        self.embedder = nn.Sequential(
            *first,
            Adapter(sizes.n_common, sizes.n_bottleneck),
            nn.Linear(sizes.n_common, sizes.n_hidden),
            nn.LayerNorm(sizes.n_hidden),
            nn.GELU(),
            nn.Dropout(sizes.dropout_embedder),
        )
        self.builder = nn.Sequential(
            nn.Linear(sizes.n_hidden, sizes.n_common),
            Adapter(sizes.n_common, sizes.n_bottleneck),
            *last,
        )

    def aggregate(self, responses: Tensor) -> Tensor:
        """Bring responses (n, n_units) to the common width, if by pooling."""
        if not self.pooled:
            return responses
        return adaptive_max_pool1d(responses[:, None], self.pooled)[:, 0]


class MindBridge(SharedModel):
    """Embedders and builders of subjects around one translator, with a head a block.

    Parameters
    ----------
    n_targets : dict of block to int
        Features of each block that has a head; the first is the one stimuli are found by.
    sizes : BridgeSizes
    n_bank : int
        Embeddings of trained subjects that a new one is bridged to.
    """

    bank: Tensor

    def __init__(self, n_targets: Mapping[str, int], sizes: BridgeSizes, n_bank: int = 0) -> None:
        super().__init__()
        self.blocks, self.sizes = tuple(n_targets), sizes
        self.translator = ResidualMLP(
            sizes.n_hidden, sizes.n_blocks, sizes.dropout, norm_first=False
        )
        self.heads = nn.ModuleList(nn.Linear(sizes.n_hidden, n) for n in n_targets.values())
        self.register_buffer("bank", torch.zeros(n_bank, sizes.n_hidden))

    def new_layers(self, n_units: int) -> Bridge:  # noqa: D102
        return Bridge(n_units, self.sizes)

    def first_layer(self, subject: str) -> nn.Linear:  # noqa: D102
        embedder = self.layers(subject).embedder
        return next(layer for layer in embedder if isinstance(layer, nn.Linear))

    def begin(self, subject: str, like: str) -> None:
        """Begin as a known subject, but for what depends on the units: zero, and untrained."""
        own, other = self.layers(subject), self.layers(like)
        for mine, known in ((own.embedder, other.embedder), (own.builder, other.builder)):
            for layer, trained in zip(mine, known, strict=True):
                wanted = {key: value.shape for key, value in layer.state_dict().items()}
                if wanted == {key: value.shape for key, value in trained.state_dict().items()}:
                    layer.load_state_dict(trained.state_dict())
        super().begin(subject, like)

    def enter(self, responses: Tensor, subject: str) -> Tensor:  # noqa: D102
        bridge = self.layers(subject)
        entered: Tensor = bridge.embedder(bridge.aggregate(responses))
        return entered

    def represent(self, hidden: Tensor) -> Tensor:  # noqa: D102
        represented: Tensor = self.translator(hidden)
        return represented

    def predict(self, representation: Tensor) -> dict[str, Tensor]:  # noqa: D102
        heads = zip(self.blocks, self.heads, strict=True)
        return {name: head(representation) for name, head in heads}

    def embed(self, representation: Tensor) -> dict[str, Tensor]:  # noqa: D102
        return self.predict(representation)

    def loss(self, batch: Batch) -> Tensor:
        """SoftCLIP and squared error of every block, reconstruction of responses, and the cycle."""
        entered = self.entered(batch)
        predicted = self.predict(self.represent(torch.cat(list(entered.values()))))
        total = torch.zeros((), device=batch["stimulus"].device)
        for name, guess in predicted.items():
            truth = batch[f"targets/{name}"]
            total = total + soft_contrastive_loss(guess, truth, self.sizes.temperature)
            total = total + self.sizes.weight_error * mse_loss(guess.float(), truth)
        n = sum(map(len, entered.values()))
        for name, hidden in entered.items():
            bridge = self.layers(name)
            seen = bridge.aggregate(batch[f"responses/{name}"])
            share = self.sizes.weight_reconstruction * len(hidden) / n
            total = total + share * mse_loss(bridge.builder(hidden).float(), seen)
        bridged = self.sizes.adaptation_weight_cycle if self.adapting else self.sizes.weight_cycle
        return total + bridged * self._cycle(entered)

    def _cycle(self, entered: Mapping[str, Tensor]) -> Tensor:
        """Error of what one subject embeds, gone through the responses of another one."""
        names = list(entered)
        hidden = next(iter(entered.values()))
        if self.adapting:  # the other subjects are as they were: what they embedded is enough
            rows = torch.randint(len(self.bank), (len(hidden),), device=hidden.device)
            first, second = self.bank[rows], names[0]
        elif len(names) > 1:
            a, b = torch.randperm(len(names))[:2].tolist()
            first, second = entered[names[a]], names[b]
        else:
            return hidden.new_zeros(())
        bridge = self.layers(second)
        return mse_loss(bridge.embedder(bridge.builder(first)).float(), first.float())
