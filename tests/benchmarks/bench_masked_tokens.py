"""Tokens a second of the trainer of masked tokens, beside a plain loop over nn.TransformerEncoder.

Both have the same features, layers, heads, batches and codes, one thread, and are timed in turns by
the time of the processor, so that what else the machine does counts little. The trainer has all it
has in use: masks by block, tokens swapped, clipped gradients, averaged weights. The plain loop lays
the grid out as one series, with a table of positions, and reads out hidden tokens alone.
Run: python tests/benchmarks/bench_masked_tokens.py
"""

from __future__ import annotations

import sys
import time
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from afterimage.pretraining.masked_tokens import MaskedTokenModel
from afterimage.pretraining.registry import TOKEN_MODELS

#: Streams, steps and stages of an example, and the examples of a step.
SHAPES = {
    "brain_omni": (16, 64, 4, 1), "du_in_codes": (1, 128, 1, 8), "tfm_codes": (16, 32, 1, 2),
}  # fmt: skip
N_FEATURES, N_LAYERS, N_HEADS, CODEBOOK_SIZE = 128, 4, 4, 512
#: Steps that are timed at once, after some that are not, and how often.
N_STEPS, N_BEFORE, N_TURNS = 4, 2, 9
#: What the ratio of tokens a second is to be, at least.
GOAL = 1.0


class Plain(nn.Module):
    """Codes in, guesses of hidden ones out, by what torch has at hand."""

    def __init__(self, n_tokens: int, n_stages: int) -> None:
        super().__init__()
        self.code = nn.ModuleList(nn.Embedding(CODEBOOK_SIZE, N_FEATURES) for _ in range(n_stages))
        self.mask = nn.Parameter(torch.zeros(N_FEATURES))
        self.place = nn.Parameter(0.02 * torch.randn(n_tokens, N_FEATURES))
        layer = nn.TransformerEncoderLayer(
            N_FEATURES, N_HEADS, 4 * N_FEATURES, dropout=0.0, activation="gelu",
            batch_first=True, norm_first=True,
        )  # fmt: skip
        self.encoder = nn.TransformerEncoder(layer, N_LAYERS, enable_nested_tensor=False)
        self.read = nn.Linear(N_FEATURES, n_stages * CODEBOOK_SIZE)

    def forward(self, codes: Tensor, hidden: Tensor) -> Tensor:
        """Return the loss of codes (n, n_tokens, n_stages) that are hidden (n, n_tokens)."""
        tokens = sum(table(codes[..., stage]) for stage, table in enumerate(self.code))
        tokens = torch.where(hidden[..., None], self.mask, tokens) + self.place
        logits = self.read(self.encoder(tokens)[hidden]).unflatten(-1, (-1, CODEBOOK_SIZE))
        return cross_entropy(logits.flatten(0, 1), codes[hidden].flatten())


def plain_seconds(codes: np.ndarray, n_at_once: int) -> float:
    """Return the seconds a step of a plain loop."""
    rng = np.random.default_rng(0)
    n_stages = codes.shape[-1]
    tokens = torch.from_numpy(codes.reshape(len(codes), -1, n_stages).astype(np.int64))
    model = Plain(tokens.shape[1], n_stages)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    for step in range(N_BEFORE + N_STEPS):
        if step == N_BEFORE:
            started = time.process_time()
        batch = tokens[rng.integers(0, len(tokens), n_at_once)]
        optimizer.zero_grad()
        model(batch, torch.rand(batch.shape[:2]) < 0.5).backward()
        optimizer.step()
    return (time.process_time() - started) / N_STEPS


def trainer_seconds(name: str, codes: np.ndarray, n_at_once: int) -> float:
    """Return the seconds a look at a step's examples of the trainer."""
    sizes: dict[str, Any] = {
        "n_features": N_FEATURES, "n_layers": N_LAYERS, "n_heads": N_HEADS,
        "context_steps": codes.shape[2], "batch_size": n_at_once, "n_steps": N_BEFORE + N_STEPS,
    }  # fmt: skip
    model: MaskedTokenModel = TOKEN_MODELS.get(name)(TOKEN_MODELS.settings(name)(**sizes))
    streams = np.array([f"stream-{number}" for number in range(codes.shape[1])])
    codebooks = np.random.default_rng(0).standard_normal((codes.shape[3], CODEBOOK_SIZE, 64))
    times: list[float] = []
    model.fit(
        [SimpleNamespace(codes=one, streams=streams) for one in codes],
        codebooks,
        on_progress=lambda _step, _loss: times.append(time.process_time()),
    )
    n_looks = 2 if model.settings.mask.symmetric else 1
    return (times[-1] - times[N_BEFORE - 1]) / N_STEPS / n_looks


def main() -> int:
    """Compare both at each shape; return 1 if the trainer is slower in the middle pair."""
    torch.set_num_threads(1)
    slower = False
    for name in sys.argv[1:] or SHAPES:
        n_streams, n_steps, n_stages, n_at_once = SHAPES[name]
        shape = (32, n_streams, n_steps, n_stages)
        codes = np.random.default_rng(0).integers(0, CODEBOOK_SIZE, shape).astype(np.int16)
        turns = np.array([pair(name, codes, n_at_once, turn % 2) for turn in range(N_TURNS)])
        plain, own = n_streams * n_steps * n_at_once / np.median(turns, axis=0)
        ratios = np.sort(turns[:, 0] / turns[:, 1])
        middle = float(np.median(ratios))
        print(
            f"{name}: {n_streams} streams of {n_steps} steps, {n_stages} stages: plain {plain:,.0f} "
            f"tokens/s, trainer {own:,.0f} tokens/s, ratio {middle:.2f} (at least {GOAL:g}; second "
            f"lowest to second highest of {N_TURNS} pairs: {ratios[1]:.2f} to {ratios[-2]:.2f})",
            flush=True,
        )
        slower |= middle < GOAL
    return int(slower)


def pair(name: str, codes: np.ndarray, n_at_once: int, trainer_first: int) -> tuple[float, float]:
    """Return the seconds of both, one after the other; the order changes from pair to pair."""
    if trainer_first:
        own = trainer_seconds(name, codes, n_at_once)
        return plain_seconds(codes, n_at_once), own
    return plain_seconds(codes, n_at_once), trainer_seconds(name, codes, n_at_once)


if __name__ == "__main__":
    sys.exit(main())
