"""Several processes that train, or paint, together: what each has, put together in all of them.

Each process holds its share of a batch. A contrastive loss needs the whole of it: embeddings are
gathered from all processes, with their gradients, and every process computes the same loss. The
mean over processes of the gradients, which accelerate takes, is then the gradient of one big batch.
With one process nothing is done.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from torch import Tensor

Value = TypeVar("Value")


def process_count() -> int:
    """Return how many processes work on this job together."""
    import torch.distributed as dist

    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def process_number() -> int:
    """Return which of them this one is; 0 is the one that writes."""
    import torch.distributed as dist

    return dist.get_rank() if process_count() > 1 else 0


def gathered(values: Tensor) -> Tensor:
    """Put the rows of all processes together, in the order of the processes; gradients flow back.

    Parameters
    ----------
    values : Tensor, (n, ...)
        n may differ between processes.

    Returns
    -------
    Tensor, (n of all processes, ...)
    """
    if process_count() == 1:
        return values
    import torch
    from torch.distributed.nn.functional import all_gather

    sizes = _sizes(values)
    padded = torch.cat([values, values.new_zeros(max(sizes) - len(values), *values.shape[1:])])
    parts = all_gather(padded.contiguous())
    return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])


def rows_before(values: Tensor) -> int:
    """Return the place of this process's first row among the `gathered` ones."""
    return 0 if process_count() == 1 else sum(_sizes(values)[: process_number()])


def _sizes(values: Tensor) -> list[int]:
    import torch
    import torch.distributed as dist

    own = torch.tensor([len(values)], device=values.device)
    found = [torch.zeros_like(own) for _ in range(process_count())]
    dist.all_gather(found, own)
    return [int(size) for size in found]


def from_first(make: Callable[[], Value]) -> Value:
    """Return in every process what the first one makes."""
    if process_count() == 1:
        return make()
    import torch.distributed as dist

    made: list[Any] = [make() if process_number() == 0 else None]
    dist.broadcast_object_list(made)
    value: Value = made[0]
    return value


def together(own: dict[int, Value]) -> dict[int, Value]:
    """Return in every process what all of them have, each under its own numbers, in their order."""
    if process_count() == 1:
        return own
    import torch.distributed as dist

    found: list[Any] = [None] * process_count()
    dist.all_gather_object(found, own)
    return dict(sorted(pair for part in found for pair in part.items()))
