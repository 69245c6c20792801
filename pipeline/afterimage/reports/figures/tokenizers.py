"""Plots of tokenizers: what comes back, how codes are used, what they look like and stand for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from afterimage.reports.figures.pretraining import draw_losses
from afterimage.reports.figures.style import (
    Theme,
    bare,
    label_axes,
    legend_above,
    new_axes,
    to_svg,
)
from afterimage.reports.figures.time_resolved import DotRow, draw_conditions
from afterimage.reports.labels import as_number
from afterimage.reports.model import GroupReport
from afterimage.reports.page import Panel
from afterimage.reports.tokenizer_words import rows_of
from afterimage.reports.tokenizers import TokenizerCard

COLOUR_MAP = "RdBu_r"
#: What is the tokenizer's own; the other rows are rivals and chance.
OWN = ("unseen", "seen", "layout unseen")
#: Motifs a row, and rows.
GRID = (4, 4)


def draw_example(
    target: np.ndarray, decoded: np.ndarray, step_s: float, rate_hz: float, theme: Theme
) -> bytes:
    """Draw some channels as they were and as they came back, with the grid of the tokens."""
    figure, axes = new_axes(0.55 * len(target) + 0.6, theme, grid="x")
    times = np.arange(target.shape[1]) / rate_hz
    gap = 4 * float(np.median(target.std(1))) + 1e-9
    for row, (before, after) in enumerate(zip(target, decoded, strict=True)):
        first = row == 0
        axes.plot(
            times, before - row * gap, color=theme.muted, linewidth=0.8,
            label="as recorded" if first else None,
        )  # fmt: skip
        axes.plot(
            times, after - row * gap, color=theme.accent, linewidth=1.1,
            label="from its tokens" if first else None,
        )  # fmt: skip
    axes.set_yticks([])
    if times[-1] / step_s <= 60:
        axes.set_xticks(np.arange(0, times[-1] + step_s, step_s), minor=True)
        axes.grid(axis="x", which="minor", color=theme.grid, linewidth=0.4)
    legend_above(axes, theme, n_columns=2)
    label_axes(axes, theme, "time (s); fine lines are tokens")
    return to_svg(figure)


def draw_spectrogram(target: np.ndarray, decoded: np.ndarray, theme: Theme) -> bytes:
    """Draw the spectra of one channel as they were (above) and as they came back."""
    figure, axes = new_axes(2.4, theme)
    both = np.concatenate([decoded[0].T, target[0].T])
    low, high = np.quantile(both, [0.02, 0.98])
    axes.imshow(both, aspect="auto", origin="lower", cmap="viridis", vmin=low, vmax=high)
    axes.axhline(len(decoded[0].T) - 0.5, color=theme.paper, linewidth=2)
    bare(axes)
    label_axes(axes, theme, "tokens in time; above as recorded, below from the tokens", "bin")
    return to_svg(figure)


def draw_use(uses: Sequence[tuple[float, float]], size: float, theme: Theme) -> bytes:
    """Draw perplexity over codebook size, and the share of codes that occur, a stage."""
    figure, axes = new_axes(2.0, theme)
    stages = np.arange(1, len(uses) + 1)
    evenness = [perplexity / size for perplexity, _ in uses]
    axes.bar(stages - 0.19, [used for _, used in uses], 0.36, color=theme.band,
             label="codes that occur")  # fmt: skip
    axes.bar(stages + 0.19, evenness, 0.36, color=theme.accent, label="perplexity, of all codes")
    for stage, (perplexity, _) in zip(stages, uses, strict=True):
        axes.text(stage + 0.19, perplexity / size + 0.02, f"{perplexity:.0f}", ha="center",
                  fontsize=7.5, color=theme.ink)  # fmt: skip
    axes.set_xticks(stages)
    axes.set_ylim(0, 1.12)
    legend_above(axes, theme, n_columns=2)
    label_axes(axes, theme, "stage of the quantiser", "share")
    return to_svg(figure)


def draw_motifs(arrays: Mapping[str, np.ndarray], theme: Theme) -> bytes:
    """Draw what the most used codes stand for: their examples and mean, a cell a code."""
    n_columns, n_rows = GRID
    motifs = arrays["motifs"][: n_columns * n_rows]
    examples = arrays["examples"][: len(motifs)]
    rows = -(-len(motifs) // n_columns)
    figure, axes = new_axes(0.85 * rows + 0.35, theme)
    # Most of what is seen fits; a few large examples may leave their cell.
    scale = 0.42 / max(float(np.nanquantile(np.abs(examples), 0.99)), 1e-9)
    x = np.linspace(0, 0.9, motifs.shape[1])
    for place, (motif, some) in enumerate(zip(motifs, examples, strict=True)):
        left, below = place % n_columns, -(place // n_columns)
        for example in some:
            axes.plot(
                left + x, below + scale * np.clip(example, -1 / scale, 1 / scale),
                color=theme.soft, linewidth=0.5,
            )  # fmt: skip
        axes.plot(left + x, below + scale * motif, color=theme.accent, linewidth=1.3)
        code, share = int(arrays["codes"][place]), float(arrays["shares"][place])
        axes.text(left, below + 0.4, f"{code}  ({share:.1%})", fontsize=7, color=theme.ink)
    bare(axes)
    axes.set_xlim(-0.05, n_columns)
    axes.set_ylim(-rows + 0.4, 0.62)
    return to_svg(figure)


def draw_map(
    values: np.ndarray, rows: Sequence[str], ticks: Mapping[float, str], label: str, unit: str,
    theme: Theme,
) -> bytes:  # fmt: skip
    """Draw a table of codes as colours around 0, the same to both sides."""
    figure, axes = new_axes(0.16 * len(values) + 1.0, theme)
    limit = max(float(np.nanquantile(np.abs(values), 0.98)), 1e-6)
    image = axes.imshow(values, aspect="auto", cmap=COLOUR_MAP, vmin=-limit, vmax=limit)
    axes.grid(visible=False)
    axes.set_yticks(np.arange(len(rows)), rows)
    axes.tick_params(axis="y", labelsize=6.5)
    axes.set_xticks(list(ticks), list(ticks.values()))
    bar = figure.colorbar(image, ax=axes, pad=0.01, fraction=0.035)
    bar.outline.set_visible(False)
    bar.ax.tick_params(colors=theme.muted, labelcolor=theme.ink, length=0, labelsize=7)
    bar.set_label(unit, color=theme.muted, fontsize=7.5)
    label_axes(axes, theme, label, "code")
    return to_svg(figure)


def return_panels(report: GroupReport) -> list[Panel]:
    """Loss, what comes back, an example, and the use of codes: four panels a tokenizer."""
    panels = []
    for card in report.tokenizers:
        losses = card.arrays.get("losses", np.zeros(0))
        if len(losses):
            told = f"loss {losses[: max(1, len(losses) // 50)].mean():.3f} at first, "
            told += f"{losses[-max(1, len(losses) // 50) :].mean():.3f} at the end"
            panels.append(Panel(f"{card.name}: loss", told, partial(draw_losses, losses)))
        panels += [_dots(card), *_example(card), *_use(card)]
    return panels


def _dots(card: TokenizerCard) -> Panel:
    """Correlations of people, layouts and rivals, and of the first stages alone."""
    rows, kinds = [], []
    for row in [*rows_of(card, "correlation"), *rows_of(card, "correlation by stages")[:-1]]:
        stage = str(row.get("stage", "n/a"))
        title = str(row["part"]) if stage == "n/a" else f"{stage} of its stages"
        low, high = (as_number(row.get(key)) for key in ("ci_low", "ci_high"))
        rows.append(DotRow(title, "real", float(row["value"]), low, high))
        kinds.append("real" if row["part"] in OWN else "before")
    told = ", ".join(f"{row.title} {row.value:.3f}" for row in rows)
    draw = partial(draw_conditions, rows, kinds, "correlation with what was recorded")
    return Panel(f"{card.name}: what comes back", told, draw)


def _example(card: TokenizerCard) -> list[Panel]:
    if "target" not in card.arrays:
        return []
    target, decoded = card.arrays["target"], card.arrays["decoded"]
    told = "channels of a person never seen, as recorded and from their tokens"
    draw: Any = partial(draw_spectrogram, target, decoded)
    if target.ndim == 2:
        details = card.details
        draw = partial(
            draw_example, target, decoded, float(details["step_s"]), float(details["sfreq_hz"])
        )
    return [Panel(f"{card.name}: an example", told, draw)]


def _use(card: TokenizerCard) -> list[Panel]:
    perplexities, used = rows_of(card, "perplexity"), rows_of(card, "codes used")
    uses = [
        (float(a["value"]), float(b["value"])) for a, b in zip(perplexities, used, strict=True)
    ]
    if not uses:
        return []
    told = "; ".join(
        f"stage {n}: perplexity {perplexity:.1f}, {share:.0%} of the codes occur"
        for n, (perplexity, share) in enumerate(uses, start=1)
    )
    size = float(card.details["codebook_size"])
    return [Panel(f"{card.name}: codes", told, partial(draw_use, uses, size))]


def meaning_panels(report: GroupReport) -> list[Panel]:
    """Motifs, frequencies and events of the most used codes."""
    panels = []
    for card in report.tokenizers:
        arrays, codes = card.arrays, card.details.get("codes", [])
        if not codes or "motifs" not in arrays:
            continue
        told = "what the most used codes stand for: examples pale, their mean strong"
        panels.append(Panel(f"{card.name}: motifs", told, partial(draw_motifs, arrays)))
        told = "; ".join(f"code {c['code']}: {c['band']}, {c['peak_hz']:.0f} Hz" for c in codes)
        frequency = arrays["frequency_hz"]
        inside = (frequency >= 1) & (frequency <= 45)
        shown = np.flatnonzero(inside)
        ticks = {
            float(np.abs(frequency[shown] - f).argmin()): str(f)
            for f in (1, 4, 8, 13, 20, 30, 45)
            if f <= frequency[shown][-1] + 0.5
        }
        names = [str(int(code)) for code in arrays["codes"]]
        draw = partial(
            draw_map, arrays["spectra"][:, inside], names, ticks, "frequency (Hz)",
            "dB beside all tokens",
        )  # fmt: skip
        panels.append(Panel(f"{card.name}: frequencies", told, draw))
        if card.details.get("events"):
            panels.append(_events(card))
    return panels


def _events(card: TokenizerCard) -> Panel:
    events = card.details["events"]
    names = [str(code["code"]) for code in card.details["codes"]]
    rates = np.array(
        [[np.nan if v is None else v for v in events["rates"][name]] for name in names], float
    )
    values = np.log2(np.maximum(rates, 2.0**-4))
    ticks = {float(place): str(kind) for place, kind in enumerate(events["kinds"])}
    told = (
        f"how much more often codes follow a kind of event; "
        f"{events['information_bits']:.4f} bits, {events['chance_bits']:.4f} by chance"
    )
    draw = partial(draw_map, values, names, ticks, "kind of event", "log2 of the rate ratio")
    return Panel(f"{card.name}: events", told, draw)
