"""The objective of masked models (He et al. 2022, arXiv:2111.06377): hide tokens, fill them in.

Tokens, mask policy, network and target are given: the signal itself, or the latents of a slowly
moving teacher that sees everything (data2vec, arXiv:2202.03555; I-JEPA, arXiv:2301.08243).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

Target = Literal["signal", "ema-latent"]
Draw = Callable[[tuple[int, int, int], "torch.Generator"], "Tensor"]


class MaskedNetwork(Protocol):
    """What is asked of a network; it is a ``torch.nn.Module``.

    Tokens form a grid (n, n_segments, n_regions, ...); latents (n, n_segments, n_places,
    n_features) have one place a region, or fewer, each for an equal number of regions.
    """

    def encode(self, tokens: Tensor, hidden: Tensor) -> Tensor:
        """Return latents of tokens, which must not depend on those that are hidden."""

    def decode(self, latents: Tensor) -> Tensor:
        """Return the prediction of all tokens from the latents."""

    def embed(self, tokens: Tensor, hidden: Tensor) -> Tensor:
        """Return what is made of each segment, for other tasks (n, n_segments, n_outputs)."""

    def predict(self, latents: Tensor) -> Tensor:
        """Return the prediction of the teacher's latents; same shape."""

    def loss(self, predicted: Tensor, tokens: Tensor, hidden: Tensor, known: Tensor) -> Tensor:
        """Return how far `decode` is from the tokens; those not known do not count."""


def masked_objective(
    network: nn.Module,
    draw: Draw,
    *,
    target: Target = "signal",
    teacher_decay: float = 0.99,
) -> nn.Module:
    """Return the objective of a masked model for `afterimage.training.loop.train`.

    The batch holds ``tokens`` (n, n_segments, n_regions, ...) and ``known`` (n, n_segments,
    n_regions), bool: tokens that are censored or beyond the end of a recording are neither seen
    nor scored. With ``ema-latent`` the target is what the teacher, a running average of the
    network, makes of all known tokens, standardised over the examples and segments of the batch,
    place by place: what never changes, such as which region it is, is not worth predicting. The
    network fills in places whose tokens are hidden. Smooth L1 loss.

    Parameters
    ----------
    network : torch.nn.Module
        A `MaskedNetwork`.
    draw : callable
        ``((n, n_segments, n_regions), generator) -> hidden``, bool: the mask policy.
    target : str
        ``"signal"`` or ``"ema-latent"``.
    teacher_decay : float
        Decay of the teacher's weights a step.
    """
    import torch
    from torch import nn
    from torch.nn.functional import smooth_l1_loss
    from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

    class MaskedObjective(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network
            if target == "ema-latent":
                average = get_ema_multi_avg_fn(teacher_decay)
                self.teacher = AveragedModel(network, multi_avg_fn=average)
                self.teacher.requires_grad_(requires_grad=False)

        def forward(self, batch: dict[str, Tensor], generator: torch.Generator) -> Tensor:
            tokens, known = batch["tokens"], batch["known"]
            n, n_segments, n_regions = known.shape
            hidden = draw((n, n_segments, n_regions), generator).to(known.device)
            latents = self.network.encode(tokens, hidden | ~known)
            if target == "signal":
                predicted = self.network.decode(latents)
                loss: Tensor = self.network.loss(predicted, tokens, hidden, known)
                return loss
            with torch.no_grad():
                self.teacher.update_parameters(self.network)
                goal = self.teacher.module.encode(tokens, ~known).float()
                centred = goal - goal.mean((0, 1), keepdim=True)
                goal = centred / (centred.square().mean((0, 1), keepdim=True).sqrt() + 1e-3)
            places = (n, n_segments, latents.shape[2], -1)
            share = (hidden & known).view(places).float().mean(-1)
            predicted = self.network.predict(latents).float()
            error = smooth_l1_loss(predicted, goal, reduction="none").mean(-1)
            return (error * share).sum() / share.sum().clamp(min=1e-6)

    return MaskedObjective()
