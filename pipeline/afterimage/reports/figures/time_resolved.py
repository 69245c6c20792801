"""Plots of decoding over time, over repetitions, and of conditions."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from afterimage.reports.figures.dots import ROW_HEIGHT_IN, DotRow
from afterimage.reports.figures.style import (
    PANEL_WIDTH_IN,
    Theme,
    colour_bar,
    label_axes,
    legend_above,
    new_axes,
    new_stack,
    to_svg,
)
from afterimage.reports.labels import inline, metric
from afterimage.reports.model import GroupReport, SubjectReport
from afterimage.reports.page import Panel
from afterimage.reports.recordings import ConditionScore, Generalisation, TimeCurve
from afterimage.reports.time_words import condition_metric, condition_name, contrasts

#: Order and number of the metrics that are drawn.
METRIC_ORDER = ("retrieval_top1", "retrieval_top5", "twoway")
N_LEVELS = 48
COLOUR_MAP = "viridis"


def _percent(curve: TimeCurve | Generalisation) -> float:
    return 100.0 if metric(curve.metric).percent else 1.0


def draw_windows(curves: Sequence[TimeCurve], rings: bool, theme: Theme) -> bytes:
    """Draw a score in sliding and in growing windows, with the chance band of the first.

    Parameters
    ----------
    curves : sequence of TimeCurve
        Of one metric; sliding first.
    rings : bool
        Whether the time before the onset is marked as an alarm.
    theme : Theme
    """
    factor = _percent(curves[0])
    figure, axes = new_axes(2.8, theme)
    first = curves[0]
    if len(first.chance_low) and len(first.chance_high):
        axes.fill_between(
            1000 * first.x, factor * first.chance_low, factor * first.chance_high,
            color=theme.band, linewidth=0,
        )  # fmt: skip
    if len(first.chance):
        axes.plot(1000 * first.x, factor * first.chance, color=theme.muted, linewidth=0.9)
    bottom, top = axes.get_ylim()
    for curve in curves:
        colour = theme.accent if curve.kind == "sliding" else theme.second
        x = 1000 * curve.x
        if len(curve.low) and len(curve.high):
            axes.fill_between(
                x, factor * curve.low, factor * curve.high, color=colour, alpha=0.22, linewidth=0
            )
        axes.plot(x, factor * curve.value, color=colour, linewidth=1.7, label=_window_name(curve))
    axes.axvline(0, color=theme.muted, linewidth=0.8)
    bottom, top = axes.get_ylim()
    axes.set_ylim(bottom, top + 0.08 * (top - bottom))
    significant = first.x[first.p_corrected < 0.05] if len(first.p_corrected) else np.empty(0)
    if len(significant):
        level = np.full(len(significant), top + 0.03 * (top - bottom))
        axes.plot(1000 * significant, level, "s", color=theme.accent, markersize=2.4, mew=0)
    if rings and first.x[0] < 0:
        axes.axvspan(1000 * first.x[0], 0, color=theme.second, alpha=0.16, linewidth=0)
        axes.annotate(
            "alarm", (1000 * float(first.x[0]), 0.97), xycoords=("data", "axes fraction"),
            xytext=(3, -9), textcoords="offset points", va="top", color=theme.second,
            fontweight="bold",
        )  # fmt: skip
    axes.locator_params(axis="x", nbins=7)
    legend_above(axes, theme, n_columns=2)
    unit = "%" if factor > 1 else metric(first.metric).title
    label_axes(
        axes, theme, "time from onset (ms): middle of sliding, end of growing windows", unit
    )
    return to_svg(figure)


def _window_name(curve: TimeCurve) -> str:
    if curve.kind == "growing":
        start = f"{1000 * curve.start_s:.0f} ms on" if np.isfinite(curve.start_s) else "onset on"
        return f"growing, from {start}".replace("-", "−")
    return f"sliding {1000 * curve.width_s:.0f} ms" if np.isfinite(curve.width_s) else "sliding"


def window_panels(report: SubjectReport) -> list[Panel]:
    """Score over time, one panel a metric."""
    timing = report.timing
    panels = []
    for name in _metrics(timing.curves if timing else ()):
        curves = [
            curve
            for kind in ("sliding", "growing")
            for curve in (timing.curves if timing else ())
            if curve.metric == name and curve.kind == kind and np.isfinite(curve.value).any()
        ]
        if not curves:
            continue
        described, first = metric(name), curves[0]
        rings = any(a.rings and a.metric == name for a in (timing.alarms if timing else ()))
        best = int(np.nanargmax(first.value))
        told = f"{described.write(first.value[best])} at {1000 * first.x[best]:.0f} ms"
        panels.append(
            Panel(
                described.title,
                f"{described.title} in {' and '.join(c.kind for c in curves)} windows of time: "
                f"highest {told}" + (", above chance before the onset" if rings else ""),
                partial(draw_windows, curves, rings),
            )
        )
    return panels


def _metrics(found: Sequence[TimeCurve] | Sequence[Generalisation]) -> list[str]:
    names = dict.fromkeys(one.metric for one in found)
    known = [name for name in METRIC_ORDER if name in names]
    return known + [name for name in names if name not in known]


def draw_generalisation(found: Generalisation, theme: Theme) -> bytes:
    """Draw scores of decoders trained at one time (up) and tested at another (across)."""
    import matplotlib as mpl

    factor = _percent(found)
    values = factor * np.asarray(found.value, dtype=np.float64)
    low = factor * found.chance if np.isfinite(found.chance) else float(np.nanmin(values))
    high = max(float(np.nanmax(values)), low + 1e-3)
    level = np.clip((np.nan_to_num(values, nan=low) - low) / (high - low), 0, 1)
    colours = mpl.colormaps[COLOUR_MAP]
    picture = colours(np.round(level * (N_LEVELS - 1)) / (N_LEVELS - 1))
    figure, (axes, bar) = new_stack([0.86 * PANEL_WIDTH_IN, 0.42], theme)
    axes.grid(False)
    edges = [_edges(1000 * times) for times in (found.test_s, found.train_s)]
    axes.imshow(
        (picture * 255).round().astype(np.uint8), origin="lower", interpolation="none",
        extent=(*edges[0], *edges[1]),
    )  # fmt: skip
    if np.isfinite(found.threshold) and (values > factor * found.threshold).any():
        axes.contour(
            1000 * found.test_s, 1000 * found.train_s, values,
            levels=[factor * found.threshold], colors=["#f4f4f4"], linewidths=1.0,
        )  # fmt: skip
    for line in (axes.axhline, axes.axvline):
        line(0, color="#f4f4f4", linewidth=0.8, linestyle=(0, (3, 2)))
    for one in (axes.xaxis, axes.yaxis):
        one.set_major_locator(mpl.ticker.MaxNLocator(6))
    label_axes(axes, theme, "tested at (ms)", "trained at (ms)")
    title = metric(found.metric).title
    told = f"{title} (%), from chance" if factor > 1 else title
    colour_bar(bar, COLOUR_MAP, (low, high), told, theme)
    return to_svg(figure)


def _edges(times: np.ndarray) -> tuple[float, float]:
    half = float(np.median(np.diff(times))) / 2 if len(times) > 1 else 0.5
    return float(times[0]) - half, float(times[-1]) + half


def generalisation_panels(report: SubjectReport) -> list[Panel]:
    """Temporal generalisation, one panel a metric."""
    matrices = report.timing.matrices if report.timing else ()
    panels = []
    for name in _metrics(matrices):
        for found in matrices:
            if found.metric != name or not np.isfinite(found.value).any():
                continue
            described = metric(name)
            diagonal = float(np.nanmean(np.diag(found.value)))
            panels.append(
                Panel(
                    described.title,
                    f"{described.title} of decoders trained at one time and tested at another: "
                    f"{described.write(diagonal)} on the diagonal, "
                    f"{described.write(np.nanmean(found.value))} over all pairs of times",
                    partial(draw_generalisation, found),
                )
            )
    return panels


def draw_repetitions(curve: TimeCurve, theme: Theme) -> bytes:
    """Draw a score over the number of trials averaged, and what independent noise would give."""
    factor = _percent(curve)
    x = np.asarray(curve.x, dtype=np.float64)
    figure, axes = new_axes(2.5, theme)
    if len(curve.chance_low) and len(curve.chance_high):
        axes.fill_between(
            x, factor * curve.chance_low, factor * curve.chance_high, color=theme.band, linewidth=0
        )
    if len(curve.chance):
        axes.plot(x, factor * curve.chance, color=theme.muted, linewidth=0.9)
    if len(curve.expected) and np.isfinite(curve.expected).any():
        axes.plot(
            x, factor * curve.expected, color=theme.second, linewidth=1.3,
            linestyle=(0, (4, 2)), label="expected of independent noise",
        )  # fmt: skip
    if len(curve.low) and len(curve.high):
        axes.vlines(x, factor * curve.low, factor * curve.high, color=theme.accent, linewidth=2)
    axes.plot(x, factor * curve.value, "o-", color=theme.accent, linewidth=1.2, label="measured")
    if len(x) > 2 and x[-1] / x[0] > 8:
        axes.set_xscale("log")
    ticks = x if len(x) <= 8 else x[np.unique(np.linspace(0, len(x) - 1, 8).astype(int))]
    axes.set_xticks(ticks, [f"{k:.0f}" for k in ticks])
    axes.set_xticks([], minor=True)
    legend_above(axes, theme, n_columns=2)
    label_axes(axes, theme, "trials of a picture averaged (k)", "%" if factor > 1 else "")
    return to_svg(figure)


def repetition_panels(report: SubjectReport) -> list[Panel]:
    """Score over the number of trials averaged, one panel a metric."""
    curves = [
        c for c in (report.timing.curves if report.timing else ()) if c.kind == "repetitions"
    ]
    panels = []
    for name in _metrics(curves):
        for curve in curves:
            if curve.metric != name or len(curve.x) < 2:
                continue
            described = metric(name)
            told = (
                f"{described.write(curve.value[0])} with {curve.x[0]:.0f}, "
                f"{described.write(curve.value[-1])} with {curve.x[-1]:.0f}"
            )
            panels.append(
                Panel(
                    described.title,
                    f"{described.title} over the number of trials averaged: {told}",
                    partial(draw_repetitions, curve),
                )
            )
    return panels


def draw_conditions(
    rows: Sequence[DotRow], kinds: Sequence[str], label: str, theme: Theme
) -> bytes:
    """Draw scores with intervals and chance, one row a classifier; alarms in their own colour.

    Parameters
    ----------
    rows : sequence of DotRow
    kinds : sequence of str
        ``"real"``, ``"before"`` (before the stimulus), ``"rings"`` or ``"leaks"``, one a row.
    label : str
    theme : Theme
    """
    figure, axes = new_axes(0.7 + 1.5 * ROW_HEIGHT_IN * len(rows), theme, grid="x")
    colours = {"real": theme.accent, "before": theme.muted, "rings": theme.second,
               "leaks": theme.second}  # fmt: skip
    for place, (row, kind) in enumerate(zip(rows, kinds, strict=True)):
        y, colour = -place, colours[kind]
        if row.chance_low is not None and row.chance_high is not None:
            axes.barh(
                y, row.chance_high - row.chance_low, left=row.chance_low, height=0.86,
                color=theme.band, linewidth=0,
            )  # fmt: skip
        if row.chance is not None:
            axes.plot([row.chance] * 2, [y - 0.43, y + 0.43], color=theme.muted, linewidth=1)
        if row.low is not None and row.high is not None:
            axes.plot([row.low, row.high], [y, y], color=colour, linewidth=2)
        face = theme.paper if kind == "leaks" else colour
        axes.plot(row.value, y, "o", color=colour, mfc=face, markersize=6.5, mew=1.5)
        axes.text(
            1.015, y, f"{row.value:.3f}", transform=axes.get_yaxis_transform(), va="center",
            color=colour, fontweight="bold" if kind == "real" else "normal",
        )  # fmt: skip
    axes.set_yticks([-place for place in range(len(rows))], [row.title for row in rows])
    for text, kind in zip(axes.get_yticklabels(), kinds, strict=True):
        text.set_color(theme.ink if kind == "real" else colours[kind])
        text.set_fontsize(7.5)
    axes.set_ylim(-len(rows) + 0.4, 0.6)
    axes.margins(x=0.05)
    axes.locator_params(axis="x", nbins=5)
    label_axes(axes, theme, label)
    return to_svg(figure)


def row_kind(score: ConditionScore) -> str:
    """Say how a row is drawn."""
    if score.leaks:
        return "leaks"
    if score.before_stimulus:
        return "rings" if score.rings else "before"
    return "real"


def condition_panels(report: SubjectReport | GroupReport) -> list[Panel]:
    """Scores of the classifiers of conditions, one panel a contrast and metric."""
    panels = []
    for contrast, name in contrasts(report.conditions):
        scores = [s for s in report.conditions if (s.contrast, s.metric) == (contrast, name)]
        rows = [
            DotRow(condition_name(s), "real", s.value, s.low, s.high, s.chance, s.chance_low,
                   s.chance_high)
            for s in scores
        ]  # fmt: skip
        called = condition_metric(name)
        told = "; ".join(f"{row.title.replace(chr(10), ', ')} {row.value:.3f}" for row in rows)
        panels.append(
            Panel(
                f"{contrast} · {inline(called) if called != 'AUC' else called}",
                f"{called} of {contrast}: {told}",
                partial(draw_conditions, rows, [row_kind(s) for s in scores], called),
            )
        )
    return panels
