"""What a masked model must fill in: policies that hide tokens of a grid (segment, region).

Regions within each segment at a random ratio (BrainMAE, arXiv:2406.17086), whole segments, one
block of neighbouring segments, tubes (the same regions throughout: Tong et al. 2022,
arXiv:2203.12602), regions and segments together (after Brain-JEPA, arXiv:2409.19407), and small
rectangles (FEMBA, arXiv:2502.06438).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field, PositiveInt

from afterimage.settings import Settings

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class MaskSettings(Settings):
    """Which tokens are hidden, and how many."""

    kind: Literal["regions", "segments", "block", "tube", "both", "rectangles"] = Field(
        "regions",
        description="regions of each segment, whole segments, one block of segments, the same "
        "regions throughout, regions and segments, or rectangles of them",
    )
    low: float = Field(0.0, ge=0, lt=1, description="Smallest share that is hidden.")
    high: float = Field(0.8, gt=0, lt=1, description="Largest share that is hidden.")
    rectangle: tuple[PositiveInt, PositiveInt] = Field(
        (1, 2), description="Segments and neighbouring regions of a rectangle."
    )


def draw_mask(
    settings: MaskSettings, shape: tuple[int, int, int], generator: torch.Generator
) -> Tensor:
    """Draw which tokens are hidden.

    The share is drawn anew, uniform from ``low`` to ``high``: for each segment where regions are
    hidden, else for each example. At least one token is hidden where tokens are drawn, and one
    stays visible.

    Parameters
    ----------
    settings : MaskSettings
    shape : (n, n_segments, n_regions)
    generator : torch.Generator
        On the CPU.

    Returns
    -------
    Tensor of bool, (n, n_segments, n_regions)
        True where a token is hidden.
    """
    n, n_segments, n_regions = shape
    if settings.kind == "regions":
        return _choose(settings, (n, n_segments, n_regions), generator)
    if settings.kind == "tube":
        return _choose(settings, (n, 1, n_regions), generator).expand(shape)
    if settings.kind == "block":
        return _block(settings, n, n_segments, generator)[:, :, None].expand(shape)
    if settings.kind == "rectangles":
        return _rectangles(settings, shape, generator)
    segments = _choose(settings, (n, n_segments), generator)[:, :, None].expand(shape)
    if settings.kind == "segments":
        return segments
    return segments | _choose(settings, (n, n_segments, n_regions), generator)


def _choose(settings: MaskSettings, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Hide a random subset along the last axis; its size is drawn for each row."""
    import torch

    size = _sizes(settings, (*shape[:-1], 1), shape[-1], generator)
    rank = torch.rand(shape, generator=generator).argsort(-1).argsort(-1)
    return rank < size


def _rectangles(
    settings: MaskSettings, shape: tuple[int, int, int], generator: torch.Generator
) -> Tensor:
    """Hide rectangles of a tiling of the grid; those at its far edges may be smaller."""
    n, *sides = shape
    tiles = [-(-side // size) for side, size in zip(sides, settings.rectangle, strict=True)]
    hidden = _choose(settings, (n, tiles[0] * tiles[1]), generator).unflatten(1, tiles)
    for axis, size in enumerate(settings.rectangle, 1):
        hidden = hidden.repeat_interleave(size, dim=axis)
    return hidden[:, : sides[0], : sides[1]]


def _block(settings: MaskSettings, n: int, n_segments: int, generator: torch.Generator) -> Tensor:
    """Hide one run of neighbouring segments: (n, n_segments)."""
    import torch

    size = _sizes(settings, (n, 1), n_segments, generator)
    start = (torch.rand((n, 1), generator=generator) * (n_segments - size + 1)).floor().long()
    place = torch.arange(n_segments)
    return (place >= start) & (place < start + size)


def _sizes(
    settings: MaskSettings, shape: tuple[int, ...], n_tokens: int, generator: torch.Generator
) -> Tensor:
    """Draw how many of ``n_tokens`` are hidden, 1 to n_tokens - 1."""
    import torch

    share = settings.low + (settings.high - settings.low) * torch.rand(shape, generator=generator)
    return (share * n_tokens).round().long().clamp(1, max(1, n_tokens - 1))
