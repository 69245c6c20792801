"""Plots of masked models: losses, what was filled in, embeddings, probes with their controls."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from afterimage.reports.figures.dots import DotRow
from afterimage.reports.figures.style import (
    PANEL_WIDTH_IN,
    Theme,
    bare,
    label_axes,
    legend_above,
    new_axes,
    new_stack,
    to_svg,
)
from afterimage.reports.figures.time_resolved import draw_conditions
from afterimage.reports.labels import as_number
from afterimage.reports.model import GroupReport
from afterimage.reports.page import Panel

COLOUR_MAP = "RdBu_r"
N_LEVELS = 48
#: What only the model can say; the other predictors and representations are rivals.
OWN = ("model", "pretrained", "fine-tuned", "gain")
MAX_POINTS = 2000
TITLES = {"r2": "R2 of what was hidden", "auc": "area under the curve of edges",
          "balanced_accuracy": "balanced accuracy", "r": "correlation"}  # fmt: skip


def draw_losses(losses: np.ndarray, theme: Theme) -> bytes:
    """Draw the loss of each step, and its running mean over a fiftieth of the run."""
    figure, axes = new_axes(2.2, theme)
    width = max(1, len(losses) // 50)
    steps = np.arange(1, len(losses) + 1)
    every = max(1, len(losses) // 400)
    axes.plot(steps[::every], losses[::every], color=theme.soft, linewidth=0.8, label="a step")
    if len(losses) >= 2 * width:
        mean = np.convolve(losses, np.ones(width) / width, "valid")
        axes.plot(steps[width - 1 :], mean, color=theme.accent, linewidth=1.6, label="mean")
    legend_above(axes, theme, n_columns=2)
    label_axes(axes, theme, "optimiser step", "loss")
    return to_svg(figure)


def draw_filled(arrays: Mapping[str, np.ndarray], theme: Theme) -> bytes:
    """Draw what one recording did, what the model saw of it, and what it filled in."""
    import matplotlib as mpl

    tokens, predicted, hidden = (arrays[key] for key in ("tokens", "predicted", "hidden"))
    covered = np.repeat(hidden.astype(bool)[..., None], tokens.shape[2], axis=2)
    limit = max(float(np.quantile(np.abs(tokens), 0.98)), 1e-6)
    colours = mpl.colormaps[COLOUR_MAP]
    pictures = []
    for values, shown in (
        (tokens, np.ones_like(covered)),
        (tokens, ~covered),
        (np.where(covered, predicted, tokens), np.ones_like(covered)),
    ):
        flat, seen = (
            part.transpose(1, 0, 2).reshape(part.shape[1], -1) for part in (values, shown)
        )
        level = np.round((np.clip(flat / limit, -1, 1) + 1) / 2 * (N_LEVELS - 1)) / (N_LEVELS - 1)
        picture = colours(level)
        picture[~seen] = (0.55, 0.55, 0.55, 1.0)
        pictures.append((picture * 255).round().astype(np.uint8))
    figure, stack = new_stack([1.15] * 3, theme)
    names = ("what happened", "what the model saw", "filled in")
    for axes, picture, name in zip(stack, pictures, names, strict=True):
        axes.imshow(picture, aspect="auto", interpolation="none")
        bare(axes)
        axes.set_ylabel(name, color=theme.muted, fontsize=8)
    label_axes(stack[-1], theme, "time (volumes); rows are regions", names[-1])
    return to_svg(figure)


def draw_embedding(embedding: np.ndarray, connectivity: np.ndarray, theme: Theme) -> bytes:
    """Draw the similarity of region embeddings over the static connectivity of the pairs."""
    similarity, correlation = embedding_pairs(embedding, connectivity)
    chosen = np.linspace(0, len(similarity) - 1, min(len(similarity), MAX_POINTS)).astype(int)
    figure, axes = new_axes(0.6 * PANEL_WIDTH_IN, theme)
    axes.plot(correlation[chosen], similarity[chosen], ".", color=theme.accent, markersize=2.5)
    label_axes(axes, theme, "connectivity of a pair of regions", "cosine of embeddings")
    return to_svg(figure)


def embedding_pairs(
    embedding: np.ndarray, connectivity: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the cosine of the embeddings, and the connectivity, of every pair of regions."""
    length = np.linalg.norm(embedding, axis=1, keepdims=True)
    unit = embedding / np.maximum(length, 1e-12)
    pairs = np.triu_indices(len(unit), 1)
    return (unit @ unit.T)[pairs], connectivity[pairs]


def dot_rows(rows: Any, title: str) -> tuple[list[DotRow], list[str]]:
    """Turn rows of a table into dots, the model's own in colour."""
    columns = ("ci_low", "ci_high", "chance", "chance_low", "chance_high")
    found, kinds = [], []
    for row in rows:
        value = as_number(row.get("value"))
        if value is None:
            continue
        low, high, *chance = (as_number(row.get(column)) for column in columns)
        found.append(DotRow(str(row[title]), "real", value, low, high, *chance))
        kinds.append("real" if row[title] in OWN else "before")
    return found, kinds


def _dot_panel(rows: Any, title: str, heading: str) -> Panel:
    found, kinds = dot_rows(rows, title)
    measure = TITLES.get(str(rows[0]["metric"]), str(rows[0]["metric"]))
    told = ", ".join(f"{dot.title} {dot.value:.3f}" for dot in found)
    return Panel(heading, f"{measure}: {told}", partial(draw_conditions, found, kinds, measure))


def pretext_panels(report: GroupReport) -> list[Panel]:
    """Loss and score of what is filled in, one pair a model; then an example and embeddings."""
    panels = []
    for model in report.pretraining:
        losses = model.arrays.get("losses", np.zeros(0))
        if len(losses):
            told = f"loss {losses[: max(1, len(losses) // 50)].mean():.3f} at first, "
            told += f"{losses[-max(1, len(losses) // 50) :].mean():.3f} at the end"
            panels.append(Panel(f"{model.name}: loss", told, partial(draw_losses, losses)))
        # The gain is a difference, on another scale.
        rows = [row for row in model.pretext if row["predictor"] != "gain"]
        if rows:
            panels.append(_dot_panel(rows, "predictor", f"{model.name}: what was hidden"))
        if "tokens" in model.arrays:
            told = "series of one recording: as it was, with what was hidden in grey, filled in"
            draw = partial(draw_filled, model.arrays)
            panels.append(Panel(f"{model.name}: an example", told, draw))
        if "embedding" in model.arrays:
            embedding, connectivity = (model.arrays[k] for k in ("embedding", "connectivity"))
            r = float(np.corrcoef(*embedding_pairs(embedding, connectivity))[0, 1])
            told = f"similarity of embeddings over connectivity of pairs, r = {r:.2f}"
            draw_pairs = partial(draw_embedding, embedding, connectivity)
            panels.append(Panel(f"{model.name}: embeddings", told, draw_pairs))
    return panels


def probe_panels(report: GroupReport) -> list[Panel]:
    """Scores of every representation, one panel a model and label."""
    panels = []
    for model in report.pretraining:
        for label in dict.fromkeys(str(row["label"]) for row in model.probes):
            rows = [row for row in model.probes if row["label"] == label]
            panels.append(_dot_panel(rows, "features", f"{model.name}: {label}"))
    return panels
