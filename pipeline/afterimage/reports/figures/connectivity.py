"""Plots of connectivity: series as carpets, matrices sorted by network, connectomes, similarities."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from afterimage.reports.connectivity import ConnectedRun, Connectivity, title_of
from afterimage.reports.figures.style import (
    PANEL_WIDTH_IN,
    Theme,
    colour_bar,
    label_axes,
    new_stack,
    time_axis,
    to_svg,
)
from afterimage.reports.model import GroupReport, SubjectReport
from afterimage.reports.page import Panel

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Pixels of a matrix, at most; larger ones are averaged in blocks.
MAX_PIXELS = 240
#: Matrices of up to this many units are drawn with sharp cells.
SMALL = 100
#: Recordings whose series are shown.
MAX_RUNS = 4
#: Connections drawn in a brain.
N_EDGES = 150
N_LEVELS = 64
#: Networks with a smaller share of the units have no room for their name.
LEAST_SHARE = 0.03
SIGNED, UNSIGNED = "RdBu_r", "magma"


def order_of(networks: Sequence[str], matrix: np.ndarray) -> np.ndarray:
    """Return the order in which units are shown: by network where known, else by similarity.

    Parameters
    ----------
    networks : sequence of str, shape (n_units,)
    matrix : array of shape (n_units, n_units)
        Of the measure shown first.

    Returns
    -------
    array of int, shape (n_units,)
    """
    labels = np.asarray(networks, dtype=str)
    if len(set(labels.tolist()) - {"n/a"}) > 1:
        first = {label: index for index, label in reversed(list(enumerate(labels.tolist())))}
        return np.argsort([first[label] for label in labels.tolist()], kind="stable")
    from scipy.cluster.hierarchy import leaves_list, linkage

    if len(matrix) < 3:
        return np.arange(len(matrix))
    rows = np.array(matrix, dtype=np.float64)
    # As like itself as the likest other: alike units then have alike rows, whatever the measure.
    np.fill_diagonal(rows, 0.0)
    np.fill_diagonal(rows, np.abs(rows).max())
    return np.asarray(leaves_list(linkage(rows, method="average", metric="euclidean")))


def shrink(matrix: np.ndarray, n_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Average neighbouring rows and columns, so that at most ``n_pixels`` of each are left."""
    n = len(matrix)
    if n <= n_pixels:
        return matrix
    edges = np.linspace(0, n, n_pixels + 1).astype(int)[:-1]
    width = np.diff([*edges, n])
    rows = np.add.reduceat(matrix, edges, axis=0) / width[:, None]
    return np.asarray(np.add.reduceat(rows, edges, axis=1) / width[None])


def draw_matrix(
    matrix: np.ndarray, networks: Sequence[str], order: np.ndarray, label: str, theme: Theme
) -> bytes:
    """Draw a matrix with its networks, and the scale below."""
    import matplotlib as mpl

    shown = matrix[np.ix_(order, order)].astype(np.float64)
    np.fill_diagonal(shown, np.nan)
    signed = bool(np.nanmin(shown) < 0)
    top = float(np.nanquantile(np.abs(shown), 0.99)) or 1.0
    low = -top if signed else 0.0
    np.fill_diagonal(shown, 0.0 if signed else np.nan_to_num(np.nanmean(shown, axis=1)))
    level = np.clip((shrink(shown) - low) / (top - low), 0, 1)
    colours = mpl.colormaps[SIGNED if signed else UNSIGNED]
    picture = (colours(np.round(level * (N_LEVELS - 1)) / (N_LEVELS - 1)) * 255).round()
    figure, (axes, bar) = new_stack([0.88 * PANEL_WIDTH_IN, 0.42], theme)
    axes.grid(False)
    n = len(matrix)
    axes.imshow(picture.astype(np.uint8), interpolation="none", extent=(0, n, n, 0))
    _mark_networks(axes, np.asarray(networks, dtype=str)[order], theme)
    colour_bar(bar, SIGNED if signed else UNSIGNED, (low, top), label, theme)
    return to_svg(figure, smooth=75 if n > SMALL else None)


def _mark_networks(axes: Axes, networks: np.ndarray, theme: Theme) -> None:
    """Write the networks beside the matrix, with lines between them."""
    axes.spines["bottom"].set_visible(False)
    axes.set_xticks([])
    axes.set_yticks([])
    if len(set(networks.tolist()) - {"n/a"}) < 2:
        return
    change = np.flatnonzero(networks[1:] != networks[:-1]) + 1
    edges = [0, *change.tolist(), len(networks)]
    for edge in change.tolist():
        axes.axhline(edge, color=theme.muted, linewidth=0.6)
        axes.axvline(edge, color=theme.muted, linewidth=0.6)
    middles = [(a + b) / 2 for a, b in pairwise(edges)]
    words = [
        str(networks[a])[:18] if b - a >= LEAST_SHARE * len(networks) else ""
        for a, b in pairwise(edges)
    ]
    axes.set_yticks(middles, words, fontsize=7)


def draw_connectome(matrix: np.ndarray, centres: np.ndarray, theme: Theme) -> bytes:
    """Draw the strongest connections in a glass brain, by nilearn."""
    from matplotlib.figure import Figure
    from nilearn.plotting import plot_connectome

    values = np.array(matrix, dtype=np.float64)
    np.fill_diagonal(values, 0.0)
    strong = np.sort(np.abs(values[np.tril_indices(len(values), -1)]))[::-1]
    least = strong[min(N_EDGES, len(strong)) - 1]
    values[np.abs(values) < max(float(least), 1e-12)] = 0.0
    figure = Figure(figsize=(PANEL_WIDTH_IN, 1.55))
    figure.patch.set_alpha(0)
    display = plot_connectome(
        values, centres, figure=figure, axes=(0, 0, 1, 1), display_mode="lzr", node_size=4,
        node_color=theme.ink, edge_cmap=SIGNED, edge_vmin=-strong[0], edge_vmax=strong[0],
        edge_kwargs={"linewidth": 0.7, "alpha": 0.8}, black_bg=False,
        colorbar=False, annotate=False, alpha=0.5,
    )  # fmt: skip
    display.annotate(size=8, color=theme.muted)
    for axes in figure.axes:
        axes.patch.set_alpha(0)
    return to_svg(figure)


def draw_series(run: ConnectedRun, theme: Theme) -> bytes:
    """Draw the series of one recording: rows are units, orange columns are censored."""
    assert run.carpet is not None  # noqa: S101  (panels are made of runs with one)
    n_times = run.carpet.shape[1]
    rate = run.sampling_rate_hz
    times, label = time_axis(np.arange(n_times) / rate) if rate else (np.arange(n_times), "sample")
    half = (times[1] - times[0]) / 2 if n_times > 1 else 0.5
    figure, (axes,) = new_stack([1.7], theme)
    axes.grid(False)
    axes.set_yticks([])
    level = np.clip(np.nan_to_num(run.carpet) / 6 + 0.5, 0, 1)
    picture = np.repeat((level * 255).round().astype(np.uint8)[..., None], 3, axis=-1)
    if run.censored is not None and run.censored.any():
        picture[:, run.censored] = (230, 159, 80)
    axes.imshow(
        picture, aspect="auto", interpolation="none",
        extent=(times[0] - half, times[-1] + half, 0, 1),
    )  # fmt: skip
    axes.locator_params(axis="x", nbins=6, steps=[1, 2, 5, 10])
    label_axes(axes, theme, label, "units")
    return to_svg(figure, smooth=55)


def draw_similarity(similar: np.ndarray, theme: Theme) -> bytes:
    """Draw the similarity of everybody in one session with everybody in another."""
    import matplotlib as mpl

    low, high = np.quantile(similar, [0.01, 1.0])
    level = np.clip((similar - low) / max(high - low, 1e-9), 0, 1)
    colours = mpl.colormaps[UNSIGNED]
    figure, (axes, bar) = new_stack([0.86 * PANEL_WIDTH_IN, 0.42], theme)
    axes.grid(False)
    n = len(similar)
    picture = (colours(shrink(level)) * 255).round().astype(np.uint8)
    axes.imshow(picture, interpolation="none", extent=(0, n, n, 0))
    axes.set_xticks([])
    axes.set_yticks([])
    label_axes(axes, theme, "person in the second session", "person in the first session")
    bar.set_yticks([])
    bar.grid(False)
    bar.spines["bottom"].set_visible(False)
    gradient = (colours(np.linspace(0, 1, N_LEVELS)[None]) * 255).astype(np.uint8)
    bar.imshow(gradient, extent=(low, high, 0, 1), aspect="auto", interpolation="none")
    bar.set_box_aspect(0.028)
    bar.locator_params(axis="x", nbins=5)
    label_axes(bar, theme, "correlation of connectivity")
    return to_svg(figure)


def matrix_panels(report: SubjectReport | GroupReport) -> list[Panel]:
    """One panel a measure and set of regions."""
    panels = []
    for part in report.connectivity:
        order: np.ndarray | None = None
        for measure, values in part.matrices.items():
            order = order_of(part.networks, values) if order is None else order
            below = values[np.tril_indices(len(values), -1)]
            panels.append(
                Panel(
                    f"{title_of(measure)}, {part.seg}",
                    f"{title_of(measure)} of {len(values)} units: mean {below.mean():.3f}, "
                    f"from {below.min():.2f} to {below.max():.2f}",
                    partial(draw_matrix, values, part.networks, order, title_of(measure)),
                )
            )
    return panels


def connectome_panels(report: SubjectReport | GroupReport) -> list[Panel]:
    """One panel a set of regions whose places are known, of its first measure."""
    panels = []
    for part in report.connectivity:
        if part.parcels and np.isfinite(part.centres).all() and part.matrices:
            measure, values = next(iter(part.matrices.items()))
            n_shown = min(N_EDGES, len(values) * (len(values) - 1) // 2)
            panels.append(
                Panel(
                    f"{title_of(measure)}, {part.seg}",
                    f"The {n_shown} strongest connections of {len(values)} regions in the brain",
                    partial(draw_connectome, values, part.centres),
                )
            )
    return panels


def series_panels(report: SubjectReport) -> list[Panel]:
    """One panel a recording, the first ones of each set of regions."""
    return [
        Panel(
            f"{run.name}, {part.seg}",
            f"Series of {run.name}: {run.n_samples} samples used, {run.n_censored} censored",
            partial(draw_series, run),
        )
        for part in report.connectivity
        for run in [run for run in part.runs if run.carpet is not None][:MAX_RUNS]
    ]


def similarity_panels(report: GroupReport) -> list[Panel]:
    """One panel a measure: who is like whom from one session to another."""
    return [
        Panel(
            f"{title_of(measure)}, {part.seg}",
            f"Similarity of {len(values)} people between two sessions: within people "
            f"{np.trace(values) / len(values):.2f}",
            partial(draw_similarity, values),
        )
        for part in _with_people(report.connectivity)
        for measure, values in part.similarity.items()
    ]


def _with_people(parts: Sequence[Connectivity]) -> list[Connectivity]:
    return [part for part in parts if part.similarity]
