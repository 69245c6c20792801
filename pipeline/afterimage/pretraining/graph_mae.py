"""Masked autoencoder of dynamic graphs (Choi et al. 2023, arXiv:2312.01994; latents: arXiv:2403.06432).

A window's graph joins the most correlated pairs of regions. In space, some nodes lose their features
and the edges among themselves; in time, a whole window is filled in from one before and one after.

What differs from the papers: windows of one example never share a volume, since overlapping ones
make filling in a matter of copying; node features are the mean and the spread of a region in the
window, beside its learned embedding, instead of the state of a recurrent network; layers add to
their input; normalisation is by node.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from afterimage.errors import InputError
from afterimage.pretraining.masked_model import Filled, MaskedModel, MaskedSettings, Prepared
from afterimage.pretraining.registry import MASKED_MODELS
from afterimage.signal.correlation import correlation_matrix
from afterimage.training.masks import MaskSettings, draw_mask

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

#: Windows of one example: before, filled in, after.
TRIPLE = 3
#: Triples that are filled in at once.
TRIPLES_AT_ONCE = 32
#: Features of a node: mean and logarithm of the standard deviation in the window.
N_INPUTS = 2


class GraphMAESettings(MaskedSettings):
    """Masked autoencoder of graphs of windows, in space and in time."""

    kind: Literal["graph_mae"] = Field("graph_mae", description="Masked graph autoencoder.")
    segment_volumes: int = Field(50, ge=4, description="Volumes of a window.")
    stride_volumes: int = Field(10, ge=1, description="Volumes from one window to the next.")
    gap_windows: float = Field(
        1.0, ge=1, description="From one window of an example to the next, in windows, at most +1."
    )
    density: float = Field(0.3, gt=0, lt=1, description="Share of pairs that are edges.")
    temporal_weight: float = Field(
        0.5, ge=0, le=1, description="Weight of whole windows in the loss; the rest: in space."
    )
    n_layers: int = Field(2, ge=1, description="Layers of graph convolution.")
    mask: MaskSettings = Field(
        MaskSettings(kind="regions", low=0.2, high=0.5),
        description="Nodes hidden in the windows around the one filled in.",
    )


def graph_tokens(window: NDArray[np.floating], density: float) -> NDArray[np.float32]:
    """Turn windows into graphs.

    Parameters
    ----------
    window : ndarray, (n_windows, length, n_regions)
    density : float
        Share of the pairs of regions, those of highest correlation, that are joined; the threshold
        is each graph's own.

    Returns
    -------
    ndarray of float32, (n_windows, n_regions, n_regions + 2)
        A node's row of the adjacency (0 or 1, no self-loop), its mean and its log spread.
    """
    n_regions = window.shape[2]
    matrices = np.stack([correlation_matrix(part) for part in window])
    rows, columns = np.triu_indices(n_regions, 1)
    pairs = matrices[:, rows, columns]
    n_edges = max(1, round(density * pairs.shape[1]))
    chosen = np.argpartition(-pairs, n_edges - 1, axis=1)[:, :n_edges]
    edges = np.zeros_like(pairs)
    np.put_along_axis(edges, chosen, 1.0, axis=1)
    tokens = np.zeros((len(window), n_regions, n_regions + N_INPUTS), np.float32)
    tokens[:, rows, columns] = edges
    tokens[:, columns, rows] = edges
    tokens[..., -2] = window.mean(1)
    tokens[..., -1] = np.log(window.std(1) + 1e-3)
    return tokens


@MASKED_MODELS.register("graph_mae", GraphMAESettings)
class GraphMAE(MaskedModel):
    """Graphs of windows, their hidden nodes and edges, and the window between two others."""

    settings: GraphMAESettings
    fills: ClassVar[str] = "edges"

    def new_network(self, n_regions: int) -> nn.Module:
        """Return an untrained `afterimage.networks.graph.GraphNetwork`."""
        from afterimage.networks.graph import GraphNetwork

        settings = self.settings
        return GraphNetwork(
            n_regions,
            N_INPUTS,
            n_features=settings.n_features,
            n_layers=settings.n_layers,
            temporal_weight=settings.temporal_weight,
        )

    def starts(self, recording: Prepared) -> NDArray[np.int64]:
        """Return the first volume of every window at least half of which is kept."""
        length = self.settings.segment_volumes
        first = np.arange(0, len(recording.series) - length + 1, self.settings.stride_volumes)
        kept = np.concatenate([[0], np.cumsum(recording.kept)])
        first = first[(kept[first + length] - kept[first]) * 2 >= length]
        if not len(first) or first[-1] - first[0] < 2 * self._gap():
            raise InputError(
                "a recording is too short for windows that share no volume",
                found=f"{len(recording.series)} volumes, {int(recording.kept.sum())} kept",
                expected=f"three windows of {length} volumes, {self._gap()} volumes from one start "
                "to the next", fix="set a smaller segment_volumes, or leave the recording out",
            )  # fmt: skip
        return first

    def tokens(self, recording: Prepared) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Turn all windows of a recording into graphs; see `graph_tokens`."""
        tokens = self._graphs(recording, self.starts(recording))
        return tokens, np.ones(tokens.shape[:2], bool)

    def examples(
        self, recordings: Sequence[Prepared], generator: np.random.Generator
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Draw three windows of each recording, none of which share a volume."""
        parts = []
        for recording in recordings:
            triples = self.triples(self.starts(recording))
            parts.append(self._graphs(recording, triples[generator.integers(len(triples))]))
        tokens = np.stack(parts)
        return tokens, np.ones(tokens.shape[:3], bool)

    def draw(self, shape: tuple[int, int, int], generator: torch.Generator) -> Tensor:
        """Hide the middle window, and some nodes of the windows around it."""
        hidden = draw_mask(self.settings.mask, shape, generator).clone()
        hidden[:, 1] = True
        return hidden

    def fill_in(
        self, recordings: Sequence[Prepared], random_state: int, mask: MaskSettings | None = None
    ) -> list[Filled]:
        """Fill in the edges of a window from one before and one after, for every such triple.

        Nothing is drawn: the windows around are seen whole. A fourth row of edges is the mean of
        all windows of the recording that share no volume with the one filled in.
        """
        import torch

        found = []
        for recording in recordings:
            starts = self.starts(recording)
            graphs = self._graphs(recording, starts)
            triples = np.searchsorted(starts, self.triples(starts))
            rows, columns = np.triu_indices(graphs.shape[1], 1)
            length = self.settings.segment_volumes
            edges = graphs[:, rows, columns]
            tokens, predicted = [], []
            for first in range(0, len(triples), TRIPLES_AT_ONCE):
                some = triples[first : first + TRIPLES_AT_ONCE]
                values = torch.from_numpy(graphs[some])
                hidden = torch.zeros(values.shape[:3], dtype=torch.bool)
                hidden[:, 1] = True
                with torch.inference_mode():
                    decoded = self.network_.decode(self.network_.encode(values, hidden))[:, 1]
                predicted.append(decoded[:, rows, columns].float().numpy())
                apart = np.abs(starts[None] - starts[some[:, 1], None]) >= length
                own = apart @ edges / apart.sum(1, keepdims=True)
                tokens.append(np.concatenate([edges[some], own[:, None]], axis=1))
            nothing = np.zeros((0, 0), bool)
            found.append(
                Filled(np.concatenate(tokens), np.concatenate(predicted), nothing, nothing)
            )
        return found

    def triples(self, starts: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return (n_triples, 3): starts of windows one gap apart, or up to one window more."""
        gap, length = self._gap(), self.settings.segment_volumes
        apart = starts[None] - starts[:, None]
        near = (apart >= gap) & (apart <= gap + length)
        found = [
            (starts[a], starts[t], starts[b])
            for t in range(len(starts))
            for a in np.flatnonzero(near[:, t])
            for b in np.flatnonzero(near[t])
        ]
        if not found:  # censoring left only distant windows
            found = [(starts[0], starts[len(starts) // 2], starts[-1])]
        return np.array(found)

    def _gap(self) -> int:
        return round(self.settings.gap_windows * self.settings.segment_volumes)

    def _graphs(self, recording: Prepared, starts: NDArray[np.int64]) -> NDArray[np.float32]:
        length = self.settings.segment_volumes
        window = np.stack([recording.series[start : start + length] for start in starts])
        return graph_tokens(window, self.settings.density)
