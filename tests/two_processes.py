"""What two processes compute together; `tests/unit/test_processes.py` starts it, by torchrun."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState

from afterimage.networks.subject_layers import SubjectLayers
from afterimage.reconstruction.candidates import paint_and_choose
from afterimage.reconstruction.registry import Material
from afterimage.training.contrastive import BrainToImage
from afterimage.training.loop import LoopSettings, train
from afterimage.training.objectives import (
    contrastive_loss,
    mixed_contrastive_loss,
    soft_contrastive_loss,
)
from afterimage.training.processes import process_count, process_number

N_TRIALS, N_UNITS, N_TIMES, N_FEATURES = 37, 4, 3, 6
SETTINGS = LoopSettings(
    n_steps=12, batch_size=13, n_parts=2, learning_rate=0.02, warmup_steps=2, checkpoint_every=5
)


class Layered(torch.nn.Module):
    """A network with layers of each subject: a process may have no trial of one of them."""

    n_representation = 5

    def __init__(self) -> None:
        super().__init__()
        self.subjects = torch.nn.ModuleList(
            torch.nn.Linear(N_UNITS * N_TIMES, 5) for _ in range(3)
        )

    def forward(self, signals: Any, subjects: Any, places: Any) -> Any:
        flat = signals.flatten(1)
        rows = torch.zeros(len(flat), 5)
        for number, layer in enumerate(self.subjects):
            own = subjects == number
            if own.any():
                rows = rows.index_put((own.nonzero()[:, 0],), layer(flat[own]))
        return torch.tanh(rows)


def trials() -> dict[str, torch.Tensor]:
    rng = np.random.default_rng(0)
    stimulus = rng.integers(9, size=N_TRIALS)
    targets = rng.normal(size=(9, N_FEATURES)).astype(np.float32)
    subject = np.where(rng.random(N_TRIALS) < 0.1, 2, rng.integers(2, size=N_TRIALS))
    return {
        "signals": torch.from_numpy(
            rng.normal(size=(N_TRIALS, N_UNITS, N_TIMES)).astype(np.float32)
        ),
        "subjects": torch.from_numpy(subject),
        "stimulus": torch.from_numpy(stimulus),
        "targets": torch.from_numpy(targets[stimulus]),
    }


class StopError(Exception):
    """Ends a run between two checkpoints."""


def trained(
    n_subjects: int, folder: Path | None, stop_after: int | None = None
) -> dict[str, np.ndarray]:
    """Train; return losses, weights, and which examples each step saw in this process."""
    torch.manual_seed(0)
    model = BrainToImage(Layered(), N_FEATURES, 4, 0.7, n_subjects)
    if n_subjects:
        assert isinstance(model.sizes, SubjectLayers)
    data, seen = trials(), []

    def batch_of(indices: np.ndarray, step: int) -> dict[str, torch.Tensor]:
        seen.append(np.append(indices, step))
        places = torch.zeros(N_UNITS, 2)
        return {k: v[torch.from_numpy(indices)] for k, v in data.items()} | {"places": places}

    def stop(step: int, loss: float) -> None:
        if step == stop_after:
            raise StopError

    losses = train(
        model, batch_of, N_TRIALS, SETTINGS, random_state=3, checkpoint_folder=folder,
        on_progress=stop,
    )  # fmt: skip
    found = {k: v.detach().numpy().copy() for k, v in model.state_dict().items()}
    order = np.concatenate(seen) if seen else np.zeros(0)
    return {"losses": losses, "order": order} | found


def losses(n: int = 11) -> dict[str, np.ndarray]:
    """Loss and gradients of each contrastive objective, of a batch that is shared unevenly."""
    generator = torch.Generator().manual_seed(1)
    found = {}
    own = slice(process_number(), None, process_count())
    partner, share = torch.randperm(n, generator=generator), torch.rand(n, generator=generator)
    if process_count() > 1:  # partners lie among the rows of the same process
        rows = torch.arange(n)[own]
        partner, share = torch.arange(len(rows)).flip(0), share[own]
    else:
        partner = torch.empty(n, dtype=torch.int64)
        for first in (0, 1):
            rows = torch.arange(n)[first::2]
            partner[first::2] = rows.flip(0)
    for name in ("contrastive", "soft", "mixed"):
        a, b = (torch.randn(n, 5, generator=generator) for _ in range(2))
        weight = torch.eye(5).requires_grad_()
        log_scale = torch.tensor(1.5, requires_grad=True)
        x, y = a[own] @ weight, b[own]
        if name == "contrastive":
            loss = contrastive_loss(x, y, log_scale)
        elif name == "soft":
            loss = soft_contrastive_loss(x, y, 0.3)
        else:
            loss = mixed_contrastive_loss(x, y, partner, share, 0.3)
        loss.backward()
        gradient = weight.grad
        assert gradient is not None
        if process_count() > 1:  # the mean over processes, as accelerate takes it
            torch.distributed.all_reduce(gradient)
            gradient /= process_count()
        found[f"{name}/loss"] = loss.detach().numpy()
        found[f"{name}/gradient"] = gradient.numpy()
    return found


def painted() -> dict[str, np.ndarray]:
    """Paint five pictures in batches of two; noise and a batch's own sum are in each of them."""

    def paint(rows: np.ndarray, seeds: list[int]) -> np.ndarray:
        noise = [np.random.default_rng(seed).integers(200, size=(4, 4, 3)) for seed in seeds]
        return (np.array(noise) + rows.sum() % 50).astype(np.uint8)

    target = np.random.default_rng(0).normal(size=(5, 48)).astype(np.float32)
    embed = {"clip": lambda images: np.array(images).reshape(len(images), -1).astype(np.float32)}
    material = Material([f"p{k}" for k in range(5)], 7, {}, {}, lambda k: np.zeros(0), embed)
    images, details = paint_and_choose(paint, target, "clip", material, 2, 4)
    return {"images": np.array(images), "seeds": np.array([one["seed"] for one in details])}


def main(folder: Path) -> None:
    """Compute everything and write it, each process for itself."""
    PartialState(cpu=True)
    number = process_number()
    found = {f"losses/{k}": v for k, v in losses().items()}
    found |= {f"painted/{k}": v for k, v in painted().items()}
    for n_subjects in (0, 3):
        kept = trained(n_subjects, folder / f"checkpoints-{n_subjects}" / str(number))
        found |= {f"trained{n_subjects}/{k}": v for k, v in kept.items()}
    # Interrupted after 7 steps, then resumed from 5: only the first process has a state.
    own = folder / ("resumed" if number == 0 else "empty")
    with contextlib.suppress(StopError):
        trained(0, own, 7)
    again = trained(0, own)
    assert len(again["order"]) and again["order"][-1] == SETTINGS.n_steps - 1
    found |= {f"resumed/{k}": v for k, v in again.items()}
    np.savez(folder / f"process-{number}.npz", **found)
    PartialState().destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
