r"""Training of a prior over image embeddings, and sampling from it.

Two paths from noise to an embedding x: diffusion (Ho et al. 2020, arXiv:2006.11239) with the cosine
schedule (Nichol & Dhariwal 2021, arXiv:2102.09672), sampled by DDIM (Song et al. 2021,
arXiv:2010.02502), and rectified flow (Liu et al. 2023, arXiv:2209.03003), the straight line, sampled
by a few Euler steps. Both networks are asked for x itself; the velocity of the line is then
:math:`(\hat x - x_t) / t` towards the embedding.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor
from torch.nn.functional import mse_loss

if TYPE_CHECKING:
    from afterimage.networks.prior import PriorTransformer

Path = Literal["diffusion", "flow"]
FIRST = 0.999  # the share of noise that sampling begins with; at 1 the cosine is zero
LAST = 0.001


def shares(time: Tensor, path: Path) -> tuple[Tensor, Tensor]:
    """Factors of the embedding and of the noise at times 0..1, of the shape of ``time``."""
    if path == "flow":
        return 1 - time, time
    angle = 0.5 * torch.pi * time
    return angle.cos(), angle.sin()


def prior_loss(
    prior: PriorTransformer, clean: Tensor, condition: Tensor, path: Path, dropout: float
) -> Tensor:
    """Mean squared error of the embedding guessed from a place on its path.

    Parameters
    ----------
    clean, condition : Tensor, (n, n_tokens, n_features)
    dropout : float
        Share of examples that are not told the condition.
    """
    n, device = len(clean), clean.device
    time = torch.rand(n, device=device) * (FIRST - LAST) + LAST
    told = torch.rand(n, device=device) >= dropout
    signal, noise = (part[:, None, None] for part in shares(time, path))
    noisy = signal * clean + noise * torch.randn_like(clean)
    return mse_loss(prior(noisy, condition, time, told).float(), clean)


def sample_prior(
    prior: PriorTransformer, condition: Tensor, noise: Tensor, n_steps: int, path: Path
) -> Tensor:
    """Walk from noise to embeddings.

    Parameters
    ----------
    condition : Tensor, (n, n_tokens, n_features)
    noise : Tensor, (n, n_tokens, n_features) or (1, n_tokens, n_features)
    n_steps : int

    Returns
    -------
    Tensor, (n, n_tokens, n_features)
    """
    place = noise.expand_as(condition).clone()
    times = torch.linspace(FIRST, LAST, n_steps + 1, device=condition.device)
    for now, later in pairwise(times.tolist()):
        time = torch.full((len(condition),), now, device=condition.device)
        guess = prior(place, condition, time).float()
        signal, share = shares(time[:1, None, None], path)
        left = (place - signal * guess) / share  # the noise that the guess leaves
        signal, share = shares(torch.full_like(signal, later), path)
        place = signal * guess + share * left
    return guess
