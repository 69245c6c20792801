"""Selective state spaces (Mamba: Gu & Dao 2023, arXiv:2312.00752), in time linear in length.

A state of each feature decays and takes in at rates read from the tokens themselves. What differs:
the recurrence is computed in plain torch, chunk by chunk: all chunks side by side, first what each
leaves behind, then, from what came before it, its states. Forward and backward need as many steps in
Python as a chunk has tokens and as there are chunks. On a GPU the kernel of ``mamba_ssm`` is used
where it is installed.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import silu, softplus

#: Tokens of a chunk.
CHUNK = 32
#: Range of the step sizes that a new layer starts from.
SLOWEST, FASTEST = 1e-3, 0.1


def recur(decay: Tensor, drive: Tensor, chunk: int = CHUNK) -> Tensor:
    """Compute state[t] = decay[t] * state[t - 1] + drive[t] from a state of 0, by chunks.

    Parameters
    ----------
    decay, drive : Tensor, (n, n_times, ...)
    chunk : int
        Tokens of a chunk; the result does not depend on it but for rounding.

    Returns
    -------
    Tensor, (n, n_times, ...)
    """
    n, n_times = drive.shape[:2]
    chunk = min(chunk, n_times)
    n_chunks = -(-n_times // chunk)
    missing = n_chunks * chunk - n_times
    if missing:
        tail = drive.new_zeros((n, missing, *drive.shape[2:]))
        decay, drive = torch.cat([decay, tail], 1), torch.cat([drive, tail], 1)
    decay, drive = decay.unflatten(1, (n_chunks, chunk)), drive.unflatten(1, (n_chunks, chunk))
    before = torch.zeros_like(drive[:, :, 0])  # the state before each chunk (n, n_chunks, ...)
    if n_chunks > 1:
        left, share = drive[:, :, 0].clone(), decay[:, :, 0].clone()
        for place in range(1, chunk):
            left.mul_(decay[:, :, place]).add_(drive[:, :, place])
            share.mul_(decay[:, :, place])
        for number in range(1, n_chunks):
            earlier = share[:, number - 1] * before[:, number - 1]
            torch.add(left[:, number - 1], earlier, out=before[:, number])
    states = torch.empty_like(drive)
    for place in range(chunk):
        before = torch.addcmul(drive[:, :, place], decay[:, :, place], before)
        states[:, :, place] = before
    return states.flatten(1, 2)[:, :n_times]


class Recurrence(torch.autograd.Function):
    """`recur` with its gradient, which is the same recurrence backwards."""

    @staticmethod
    def forward(ctx: Any, decay: Tensor, drive: Tensor) -> Tensor:
        """Return the states, (n, n_times, ...)."""
        states = recur(decay, drive)
        ctx.save_for_backward(decay, states)
        return states

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """Return the gradients of decay and drive."""
        decay, states = ctx.saved_tensors
        later = torch.cat([torch.zeros_like(decay[:, :1]), decay[:, 1:].flip(1)], 1)
        of_drive = recur(later, gradient.flip(1)).flip(1)
        of_decay = torch.zeros_like(decay)
        torch.mul(of_drive[:, 1:], states[:, :-1], out=of_decay[:, 1:])
        return of_decay, of_drive


def selective_scan(
    values: Tensor, steps: Tensor, rates: Tensor, enter: Tensor, leave: Tensor
) -> Tensor:
    """Return the output of a selective state space.

    h[t] = exp(steps[t] rates) h[t - 1] + steps[t] values[t] enter[t], and out[t] = h[t] leave[t].

    Parameters
    ----------
    values, steps : Tensor of float32, (n, n_times, n_features)
    rates : Tensor of float32, (n_features, n_states)
        Negative.
    enter, leave : Tensor of float32, (n, n_times, n_states)

    Returns
    -------
    Tensor, (n, n_times, n_features)
    """
    kernel = _kernel() if values.is_cuda else None
    if kernel is not None:
        turned = [part.transpose(1, 2).contiguous() for part in (values, steps, enter, leave)]
        fused: Tensor = kernel(turned[0], turned[1], rates, turned[2], turned[3])
        return fused.transpose(1, 2)
    decay = (steps[..., None] * rates).exp()  # (n, n_times, n_features, n_states)
    drive = (steps * values)[..., None] * enter[:, :, None]
    states: Tensor = Recurrence.apply(decay, drive)
    return (states @ leave[..., None])[..., 0]


@cache
def _kernel() -> Callable[..., Any] | None:
    """Return the fused kernel, where it is installed."""
    try:
        module = importlib.import_module("mamba_ssm.ops.selective_scan_interface")
    except ImportError:
        return None
    kernel: Callable[..., Any] = module.selective_scan_fn
    return kernel


class StateSpace(nn.Module):
    """A Mamba layer: gate, short causal convolution, selective state space.

    Parameters
    ----------
    n_features : int
        Features of a token.
    n_states : int
        Numbers kept of each inner feature.
    expand : int
        Inner features over features.
    kernel_size : int
        Tokens that the convolution sees.
    """

    def __init__(
        self, n_features: int, *, n_states: int = 16, expand: int = 2, kernel_size: int = 4
    ) -> None:
        super().__init__()
        n_inner, rank = expand * n_features, -(-n_features // 16)
        self.sizes = (rank, n_states, n_states)
        self.open = nn.Linear(n_features, 2 * n_inner, bias=False)
        self.convolve = nn.Conv1d(
            n_inner, n_inner, kernel_size, padding=kernel_size - 1, groups=n_inner
        )
        self.select = nn.Linear(n_inner, sum(self.sizes), bias=False)
        self.step = nn.Linear(rank, n_inner)
        nn.init.uniform_(self.step.weight, -(rank**-0.5), rank**-0.5)
        spread = math.log(SLOWEST) + torch.rand(n_inner) * math.log(FASTEST / SLOWEST)
        with torch.no_grad():  # softplus of the bias is the step
            self.step.bias.copy_(spread.exp().expm1().log())
        rates = torch.arange(1, n_states + 1).float().log()
        self.log_rates = nn.Parameter(rates.repeat(n_inner, 1))
        self.skip = nn.Parameter(torch.ones(n_inner))
        self.close = nn.Linear(n_inner, n_features, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return tokens (n, n_times, n_features) that know of those before them; same shape."""
        values, gate = self.open(tokens).chunk(2, dim=-1)
        seen = self.convolve(values.transpose(1, 2))[..., : tokens.shape[1]]
        values = silu(seen).transpose(1, 2)  # (n, n_times, n_inner)
        rank, enter, leave = self.select(values).split(self.sizes, dim=-1)
        with torch.autocast(tokens.device.type, enabled=False):
            steps = softplus(self.step(rank.float()))
            found = selective_scan(
                values.float(), steps, -self.log_rates.float().exp(), enter.float(), leave.float()
            )
        found = found + self.skip * values
        closed: Tensor = self.close(found.to(gate.dtype) * silu(gate))
        return closed


class StateSpaceBlock(nn.Module):
    """One or two state spaces, forward and backward in time, added to the tokens; norm at the end.

    Parameters
    ----------
    n_features, n_states, expand : int
        See `StateSpace`.
    bidirectional : bool
        Whether tokens know of those after them.
    """

    def __init__(
        self, n_features: int, *, n_states: int = 16, expand: int = 2, bidirectional: bool = True
    ) -> None:
        super().__init__()
        sizes = {"n_states": n_states, "expand": expand}
        self.forwards = StateSpace(n_features, **sizes)
        self.backwards = StateSpace(n_features, **sizes) if bidirectional else None
        self.norm = nn.LayerNorm(n_features)

    def forward(self, tokens: Tensor) -> Tensor:
        """(n, n_times, n_features), same shape."""
        found = tokens + self.forwards(tokens)
        if self.backwards is not None:
            found = found + self.backwards(tokens.flip(1)).flip(1)
        normed: Tensor = self.norm(found)
        return normed
