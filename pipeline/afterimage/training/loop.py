"""The one training loop: AdamW, warm-up and decay, averaged weights, resumable to the step.

Everything random in a step is derived from ``(random_state, step)`` alone, so a run that stops and
resumes ends with the same bytes on a CPU as one that never stopped. Several processes (of torchrun)
share every step: process p of n takes each n-th example from the p-th on, and the first one writes.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from afterimage.errors import ConfigError
from afterimage.settings import Settings
from afterimage.training.processes import from_first

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

Batch = dict[str, "Tensor"]

#: A checkpoint is written at least so often, whatever the number of steps between two says.
CHECKPOINT_S = 60.0


class LoopSettings(Settings):
    """Settings of the training loop."""

    n_steps: int = Field(default=1000, ge=1, description="Optimiser steps.")
    batch_size: int = Field(default=32, ge=1, description="Examples in a step.")
    n_parts: int = Field(
        default=1, ge=1, description="Parts of a step, one in memory at a time; gradients add up."
    )
    learning_rate: float = Field(default=1e-3, gt=0, description="Highest learning rate of AdamW.")
    weight_decay: float = Field(default=0.01, ge=0, description="Decoupled weight decay of AdamW.")
    warmup_steps: int = Field(default=50, ge=0, description="Steps of rise of the learning rate.")
    decay_start: float = Field(
        default=0.6, ge=0, le=1, description="Part of the run after which the rate falls to 0."
    )
    ema_decay: float = Field(
        default=0.995, ge=0, lt=1, description="Decay of the averaged weights a step; 0: none."
    )
    gradient_clip: float = Field(default=1.0, gt=0, description="Largest norm of the gradient.")
    bf16: bool = Field(default=False, description="Compute in bfloat16 where safe.")
    checkpoint_every: int = Field(default=500, ge=1, description="Steps between two checkpoints.")


@dataclass
class EarlyStopping:
    """Keeps the averaged weights that score best on held-out examples, and says when to stop.

    The weights a run begins with are the first to be looked at.

    Parameters
    ----------
    score : callable
        Returns the score of the objective's model, higher is better; called with the averaged
        weights in place and the objective in evaluation mode.
    every : int
        Steps between two looks.
    patience : int
        Looks without a better score after which the run stops.
    """

    score: Callable[[], float]
    every: int
    patience: int
    best: float = -float("inf")
    n_worse: int = 0
    history: list[tuple[int, float]] = field(default_factory=list)
    weights: dict[str, Tensor] = field(default_factory=dict)

    @property
    def stopped(self) -> bool:
        """Whether patience is at its end."""
        return self.n_worse >= self.patience

    def look(
        self,
        step: int,
        objective: nn.Module,
        parameters: dict[str, nn.Parameter],
        average: dict[str, Tensor],
    ) -> None:
        """Score the averaged weights after ``step`` steps; keep a copy where they are the best."""
        import torch

        own = {k: p.detach().clone() for k, p in parameters.items()}
        _copy_into(parameters, average)
        objective.eval()
        with torch.inference_mode():
            # One process decides: a last bit of another device must not make them disagree.
            score = from_first(lambda: float(self.score()))
        objective.train()
        _copy_into(parameters, own)
        self.history.append((step, score))
        if score > self.best:
            self.best, self.n_worse = score, 0
            self.weights = {k: t.detach().clone() for k, t in average.items()}
        else:
            self.n_worse += 1


def learning_rate_factor(step: int, settings: LoopSettings) -> float:
    """Return the factor on the learning rate at ``step`` (0-based): rise, plateau, linear fall."""
    rise = min(1.0, (step + 1) / settings.warmup_steps) if settings.warmup_steps else 1.0
    start = settings.decay_start * settings.n_steps
    if step < start:
        return rise
    return rise * (settings.n_steps - step) / (settings.n_steps - start)


def batch_indices(
    n_items: int, batch_size: int, step: int, random_state: int
) -> NDArray[np.int64]:
    """Return which of ``n_items`` examples step number ``step`` uses.

    Examples come in a fresh order each epoch; the order of epoch e follows from ``(random_state,
    e)``.

    Returns
    -------
    ndarray of int64, (batch_size,)
    """
    first = step * batch_size
    positions = np.arange(first, first + batch_size)
    indices = np.empty(batch_size, np.int64)
    for epoch in np.unique(positions // n_items):
        order = np.random.default_rng((random_state, int(epoch))).permutation(n_items)
        here = positions // n_items == epoch
        indices[here] = order[positions[here] % n_items]
    return indices


def train(
    objective: nn.Module,
    batch_of: Callable[[NDArray[np.int64], int], Batch],
    n_items: int,
    settings: LoopSettings,
    *,
    random_state: int,
    device: str = "cpu",
    checkpoint_folder: Path | None = None,
    on_progress: Callable[[int, float], None] | None = None,
    early_stopping: EarlyStopping | None = None,
) -> NDArray[np.float32]:
    """Minimise an objective; its parameters end as their running average over the steps.

    With early stopping they end as the running average that scored best on held-out examples.

    Parameters
    ----------
    objective : torch.nn.Module
        ``forward(batch, generator) -> loss``; it holds the model, and `generator` (on the CPU) is
        its only source of randomness.
    batch_of : callable
        ``(indices, step) -> {name: tensor}``, the examples of a step, on any device.
    n_items : int
        Number of examples.
    settings : LoopSettings
    random_state : int
        Seed of the order of the examples and of the randomness in the objective.
    device : str
        ``"cpu"`` or ``"cuda"``.
    checkpoint_folder : Path, optional
        Where the state is kept; a run that finds a state there goes on from it.
    on_progress : callable, optional
        Called after each step with the number of steps done and the loss.
    early_stopping : EarlyStopping, optional
        It is part of the checkpoint, so that a resumed run stops where the other would have.

    Returns
    -------
    losses : ndarray of float32, (n_steps,) or as many as were done
    """
    import torch

    accelerator = _new_accelerator(device, settings.bf16)
    _check_shares(settings, accelerator.num_processes)
    objective.to(accelerator.device).train()
    parameters = {k: p for k, p in objective.named_parameters() if p.requires_grad}
    optimizer = torch.optim.AdamW(
        parameters.values(), settings.learning_rate, weight_decay=settings.weight_decay
    )
    model, optimizer = accelerator.prepare(objective, optimizer)
    average = {k: p.detach().clone() for k, p in parameters.items()}
    losses = np.zeros(settings.n_steps, np.float32)
    # What is no trained weight but changes all the same, such as a teacher or a running mean.
    others = {k: t for k, t in objective.state_dict().items() if k not in parameters}
    kept = (parameters, others, average, optimizer, losses, early_stopping)
    done = 0 if checkpoint_folder is None else load_checkpoint(checkpoint_folder, *kept)
    saved_s = time.monotonic()
    if early_stopping and not done:
        early_stopping.look(0, objective, parameters, average)
    while done < settings.n_steps and not (early_stopping and early_stopping.stopped):
        indices = batch_indices(n_items, settings.batch_size, done, random_state)
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * learning_rate_factor(done, settings)
        optimizer.zero_grad()
        losses[done] = _backward(
            accelerator, model, batch_of, indices, done, random_state, settings.n_parts
        )
        accelerator.clip_grad_norm_(parameters.values(), settings.gradient_clip)
        optimizer.step()
        _update_average(average, parameters, done, settings.ema_decay)
        done += 1
        if early_stopping and (done % early_stopping.every == 0 or done == settings.n_steps):
            early_stopping.look(done, objective, parameters, average)
        due = done % settings.checkpoint_every == 0 or done == settings.n_steps
        due = due or time.monotonic() - saved_s > CHECKPOINT_S
        if checkpoint_folder is not None and due and accelerator.is_main_process:
            save_checkpoint(checkpoint_folder, done, *kept)
            saved_s = time.monotonic()
        if on_progress is not None:
            on_progress(done, float(losses[done - 1]))
    accelerator.wait_for_everyone()  # nobody goes on before the last state is written
    _copy_into(parameters, (early_stopping and early_stopping.weights) or average)
    objective.eval()
    return losses[:done]


def _backward(
    accelerator: Any,
    model: nn.Module,
    batch_of: Callable[[NDArray[np.int64], int], Batch],
    indices: NDArray[np.int64],
    step: int,
    random_state: int,
    n_parts: int,
) -> float:
    """Add up the gradients of the parts of a step; return its mean loss, over all processes."""
    import torch

    generator = _generator(random_state, step, accelerator.process_index)
    n_processes, n_examples = accelerator.num_processes, len(indices)
    indices = indices[accelerator.process_index :: n_processes]
    total = 0.0
    parts = [part for part in np.array_split(indices, n_parts) if len(part)]
    for number, part in enumerate(parts):
        batch = {k: t.to(accelerator.device) for k, t in batch_of(part, step).items()}
        last = number == len(parts) - 1
        # Several processes share their gradients once a step.
        with nullcontext() if last else accelerator.no_sync(model):
            with accelerator.autocast():
                loss = model(batch, generator)
            # Gradients become their mean over processes, whose shares may differ by an example.
            accelerator.backward(loss * (n_processes * len(part) / n_examples))
        total += float(loss.detach()) * len(part) / n_examples
    if n_processes > 1:
        total = float(accelerator.reduce(torch.tensor(total, device=accelerator.device), "sum"))
    return total


def _check_shares(settings: LoopSettings, n_processes: int) -> None:
    """Refuse a step in which a process would have nothing to do: the others would wait for it."""
    if n_processes > 1 and settings.batch_size < n_processes * settings.n_parts:
        raise ConfigError(
            "a step cannot be shared by so many processes", where="batch_size",
            found=f"{settings.batch_size} examples, {settings.n_parts} parts, {n_processes} processes",
            expected=f"{n_processes * settings.n_parts} examples or more",
            fix="raise batch_size, lower n_parts, or train on fewer devices",
        )  # fmt: skip


def _copy_into(parameters: dict[str, nn.Parameter], values: dict[str, Tensor]) -> None:
    import torch

    with torch.no_grad():
        for key, parameter in parameters.items():
            parameter.copy_(values[key])


def _new_accelerator(device: str, bf16: bool) -> Any:
    """Return an accelerator of its own: one run must not inherit the precision of the last."""
    from accelerate import Accelerator, DistributedDataParallelKwargs
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(reset_partial_state=True)
    # A process may have no trial of a subject whose layers another one trains in this step.
    handlers = [DistributedDataParallelKwargs(find_unused_parameters=True)]
    precision = "bf16" if bf16 else "no"
    return Accelerator(cpu=device == "cpu", mixed_precision=precision, kwargs_handlers=handlers)


def _generator(random_state: int, step: int, process: int) -> torch.Generator:
    """Return the source of randomness of one step, on the CPU."""
    import torch

    state = np.random.SeedSequence((random_state, step, process)).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0] >> np.uint64(1)))


def _update_average(
    average: dict[str, Tensor], parameters: dict[str, nn.Parameter], step: int, decay: float
) -> None:
    """Move the averaged weights towards the weights; early steps count for less inertia."""
    import torch

    weight = 1 - min(decay, (1 + step) / (10 + step)) if decay else 1.0
    targets = [p.detach() for p in parameters.values()]
    torch._foreach_lerp_(list(average.values()), targets, weight)


def save_checkpoint(
    folder: Path,
    step: int,
    parameters: dict[str, nn.Parameter],
    others: dict[str, Tensor],
    average: dict[str, Tensor],
    optimizer: torch.optim.Optimizer,
    losses: NDArray[np.float32],
    early_stopping: EarlyStopping | None = None,
) -> None:
    """Write the whole state of a run after ``step`` steps: one safetensors file, replaced at once.

    The file carries the step and the optimiser's counters as JSON in its header.
    """
    import torch
    from safetensors.torch import save_file

    tensors: dict[str, Tensor] = {"losses": torch.from_numpy(losses.copy())}
    tensors |= {f"weight/{k}": p.detach().cpu().contiguous() for k, p in parameters.items()}
    tensors |= {f"other/{k}": t.detach().cpu().contiguous() for k, t in others.items()}
    tensors |= {f"average/{k}": t.cpu().contiguous() for k, t in average.items()}
    for number, state in optimizer.state_dict()["state"].items():
        for name, tensor in state.items():
            tensors[f"optimizer/{number}/{name}"] = tensor.cpu().contiguous().clone()
    record: dict[str, Any] = {"step": step}
    if early_stopping:
        tensors |= {f"best/{k}": t.cpu().contiguous() for k, t in early_stopping.weights.items()}
        record |= {"n_worse": early_stopping.n_worse, "history": early_stopping.history}
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / "checkpoint.safetensors.partial"
    try:
        save_file(tensors, partial, metadata={"state": json.dumps(record)})
        with partial.open("rb") as written:  # the content reaches the disk before the name does
            os.fsync(written.fileno())
        partial.replace(folder / "checkpoint.safetensors")
    finally:
        partial.unlink(missing_ok=True)


def _read_checkpoint(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
    from safetensors import safe_open

    if not path.is_file():
        return None
    with safe_open(path, "pt") as file:
        keys = file.keys()
        return json.loads(file.metadata()["state"]), {key: file.get_tensor(key) for key in keys}


def load_checkpoint(
    folder: Path,
    parameters: dict[str, nn.Parameter],
    others: dict[str, Tensor],
    average: dict[str, Tensor],
    optimizer: torch.optim.Optimizer,
    losses: NDArray[np.float32],
    early_stopping: EarlyStopping | None = None,
) -> int:
    """Set all that is kept to the state in ``folder``; return its step, or 0 without one."""
    found = from_first(lambda: _read_checkpoint(folder / "checkpoint.safetensors"))
    if found is None:
        return 0
    record, tensors = found
    _copy_into(parameters, {key: tensors[f"weight/{key}"] for key in parameters})
    for key, mean in average.items():
        mean.copy_(tensors[f"average/{key}"])
    for key, other in others.items():
        other.copy_(tensors[f"other/{key}"])
    state: dict[int, dict[str, Any]] = {}
    for key, tensor in tensors.items():
        if key.startswith("optimizer/"):
            _, number, name = key.split("/")
            state.setdefault(int(number), {})[name] = tensor
    optimizer.load_state_dict(optimizer.state_dict() | {"state": state})
    step = int(record["step"])
    if early_stopping and "history" in record:
        early_stopping.n_worse = int(record["n_worse"])
        early_stopping.history = [(int(at), float(score)) for at, score in record["history"]]
        early_stopping.best = max((s for _, s in early_stopping.history), default=-float("inf"))
        early_stopping.weights = {
            k: tensors[f"best/{k}"].to(p.device)
            for k, p in parameters.items()
            if f"best/{k}" in tensors
        }
    known = tensors["losses"].numpy()[:step]
    losses[: len(known)] = known[: len(losses)]
    return min(step, len(losses))
