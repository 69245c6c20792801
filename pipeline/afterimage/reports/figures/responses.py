"""Plots of single-trial responses: spread, drift, reliability, ceiling, what was dropped."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import pairwise

import numpy as np

from afterimage.reports.figures.style import Theme, label_axes, new_axes, to_svg
from afterimage.reports.model import Responses, SubjectReport
from afterimage.reports.page import Panel

N_DRAWN_UNITS = 240
N_DRAWN_TRIALS = 400
MAX_ROIS = 12


def repeat_reliability(responses: np.ndarray, stimulus: Sequence[str]) -> np.ndarray:
    """Correlate two halves of the repeats of each unit, across stimuli.

    Parameters
    ----------
    responses : array of shape (n_trials, n_units[, n_times])
    stimulus : sequence of str, shape (n_trials,)
        Stimuli seen once are left out.

    Returns
    -------
    reliability : array of shape (n_units[, n_times]), float64
        Pearson r between the mean of the odd and the mean of the even repeats; empty with fewer
        than three repeated stimuli.
    """
    order: dict[str, list[int]] = {}
    for trial, name in enumerate(stimulus):
        order.setdefault(str(name), []).append(trial)
    repeated = [trials for trials in order.values() if len(trials) > 1]
    if len(repeated) < 3:
        return np.empty(0)
    odd = np.stack([responses[trials[0::2]].mean(axis=0) for trials in repeated]).astype(float)
    even = np.stack([responses[trials[1::2]].mean(axis=0) for trials in repeated]).astype(float)
    odd -= odd.mean(axis=0)
    even -= even.mean(axis=0)
    scale = np.sqrt((odd**2).sum(axis=0) * (even**2).sum(axis=0))
    with np.errstate(invalid="ignore", divide="ignore"):
        return (odd * even).sum(axis=0) / scale


def draw_spread(responses: np.ndarray, theme: Theme) -> bytes:
    """Draw the median, the middle half and the 5th to 95th percentile of each unit, sorted."""
    quantiles = np.percentile(responses, (5, 25, 50, 75, 95), axis=0)
    order = np.argsort(quantiles[2], kind="stable")
    quantiles = quantiles[:, order]
    figure, axes = new_axes(2.5, theme)
    x = np.linspace(0, 100, quantiles.shape[1])
    axes.fill_between(x, quantiles[0], quantiles[4], color=theme.band, linewidth=0)
    axes.fill_between(x, quantiles[1], quantiles[3], color=theme.soft, linewidth=0)
    axes.plot(x, quantiles[2], color=theme.accent, linewidth=1.6)
    axes.set_xlim(0, 100)
    label_axes(axes, theme, "units, sorted by their median (%)", "response")
    return to_svg(figure)


def draw_drift(level: np.ndarray, n_trials: int, label: str, theme: Theme) -> bytes:
    """Draw the size of the response in an even choice of the trials, with a running mean."""
    figure, axes = new_axes(2.5, theme)
    edges = np.linspace(0, len(level), min(len(level), N_DRAWN_TRIALS) + 1).astype(int)
    binned = np.array([level[a:b].mean() for a, b in pairwise(edges)])
    x = (edges[:-1] + edges[1:] - 1) / 2 * n_trials / len(level) + 1
    axes.plot(x, binned, ".", color=theme.soft, markersize=3.5)
    width = max(3, len(binned) // 15)
    kernel = np.ones(width)
    weight = np.convolve(np.ones(len(binned)), kernel, mode="same")
    if len(binned) >= width:
        axes.plot(x, np.convolve(binned, kernel, mode="same") / weight, color=theme.accent, lw=1.8)
    label_axes(axes, theme, "trial, in order of recording", label)
    return to_svg(figure)


def histogram_range(values: np.ndarray) -> tuple[float, float]:
    """Range of a histogram that always shows zero."""
    finite = values[np.isfinite(values)]
    return min(0.0, float(finite.min())), max(float(finite.max()), 0.1)


def draw_histogram(
    values: np.ndarray, label: str, limits: tuple[float, float], theme: Theme
) -> bytes:
    """Draw a histogram over `limits` with its median and a line at zero."""
    values = values[np.isfinite(values)]
    figure, axes = new_axes(2.5, theme)
    low, high = limits
    counts, _, _ = axes.hist(
        values, bins=np.linspace(low, high, 31).tolist(), color=theme.soft, linewidth=0
    )
    median = float(np.median(values))
    axes.axvline(0, color=theme.muted, linewidth=0.8)
    axes.axvline(median, color=theme.accent, linewidth=1.8)
    top = float(np.max(counts)) * 1.12
    axes.set_ylim(0, top)
    side = "left" if median < (low + high) / 2 else "right"
    axes.annotate(
        f"median {median:.{0 if abs(median) >= 20 else 2}f}".replace("-", "−"),
        (median, top),
        xytext=(5 if side == "left" else -5, -3),
        textcoords="offset points",
        ha=side,
        va="top",
        color=theme.accent,
        fontweight="bold",
        bbox={"facecolor": theme.paper, "edgecolor": "none", "pad": 1.5},
    )
    label_axes(axes, theme, label, "count")
    return to_svg(figure)


def draw_rois(values: np.ndarray, roi: np.ndarray, label: str, theme: Theme) -> bytes:
    """Draw the median and the middle half of a per-unit number in each region."""
    known = np.unique(roi[np.isfinite(values)])
    names = [str(name) for name in known if str(name)]
    names.sort(key=lambda name: float(np.nanmedian(values[roi == name])))
    figure, axes = new_axes(0.7 + 0.27 * len(names), theme, grid="x")
    for row, name in enumerate(names):
        inside = values[roi == name]
        low, middle, high = np.nanpercentile(inside, (25, 50, 75))
        axes.plot([low, high], [row, row], color=theme.soft, linewidth=5, solid_capstyle="butt")
        axes.plot(middle, row, "o", color=theme.accent, markersize=6)
    axes.set_yticks(range(len(names)), [f"{name} ({int((roi == name).sum())})" for name in names])
    axes.set_ylim(-0.7, len(names) - 0.3)
    axes.axvline(0, color=theme.muted, linewidth=0.8)
    label_axes(axes, theme, label)
    return to_svg(figure)


def draw_kept(kept: int, dropped: int, theme: Theme) -> bytes:
    """Draw one bar: units used and units dropped."""
    figure, axes = new_axes(1.15, theme, grid="x")
    axes.barh([0], [kept], color=theme.soft, height=0.5)
    axes.barh([0], [dropped], left=[kept], color=theme.second, height=0.5)
    axes.text(kept / 2, 0, f"{kept} used", ha="center", va="center", color=theme.ink)
    axes.text(
        kept + dropped, 0.42, f"{dropped} dropped", ha="right", va="bottom", color=theme.second
    )
    axes.set_yticks([])
    axes.set_ylim(-0.45, 0.9)
    label_axes(axes, theme, "units")
    return to_svg(figure)


def spread_panels(report: SubjectReport) -> list[Panel]:
    """Response spread of the units, and drift over the recording."""
    data = report.responses
    if data is None or data.responses.size == 0:
        return []
    values = _mean_over_time(data.responses)
    n_trials = sum(data.n_shown or ()) or len(values)
    level, label = values.mean(axis=1), "mean response"
    if data.responses.ndim == 3:  # the mean over channels is zero by their reference
        squares = np.square(data.responses, dtype=np.float64)
        level, label = np.sqrt(squares.mean(axis=(1, 2))), "root mean square"
    keep = np.linspace(0, values.shape[1] - 1, min(values.shape[1], N_DRAWN_UNITS)).astype(int)
    panels = [
        Panel(
            f"Spread of each {data.unit_kind}",
            f"Median and percentiles of {values.shape[1]} units, sorted by median",
            partial(draw_spread, values[:, np.unique(keep)]),
        ),
        Panel(
            "Drift over the recording",
            f"{label[0].upper()}{label[1:]} over units in {values.shape[0]} of {n_trials} trials",
            partial(draw_drift, level, n_trials, label),
        ),
    ]
    if data.n_dropped_units:
        panels.append(
            Panel(
                "Units used and dropped",
                f"{values.shape[1]} units used, {data.n_dropped_units} dropped",
                partial(draw_kept, values.shape[1], data.n_dropped_units),
            )
        )
    return panels


def reliability_panels(report: SubjectReport) -> list[Panel]:
    """Repeat reliability and noise ceiling of the units, and the last of them known, by region."""
    data = report.responses
    if data is None or data.responses.size == 0:
        return []
    panels: list[Panel] = []
    shown: tuple[np.ndarray, str] | None = None
    reliability, window = _reliability(data)
    for values, title, label in (
        (reliability, "Repeat reliability", f"split-half r of each unit, repeats{window}"),
        (data.ceiling, "Noise ceiling", "noise ceiling of each unit"),
    ):
        if values is None or not np.isfinite(values).any():
            continue
        values = np.asarray(values, dtype=float)
        shown = (values, label)
        median = float(np.nanmedian(values))
        panels.append(
            Panel(
                title,
                f"Histogram, {label}: median {median:.2f}",
                partial(draw_histogram, values, label, histogram_range(values)),
            )
        )
    if shown and data.roi is not None:
        roi = np.asarray([str(name) for name in data.roi])
        n_rois = len({name for name in roi if name})
        if 1 < n_rois <= MAX_ROIS:
            panels.append(
                Panel(
                    "By region (units)",
                    f"Median and middle half in {n_rois} regions, {shown[1]}",
                    partial(draw_rois, shown[0], roi, shown[1]),
                )
            )
    return panels


def _reliability(data: Responses) -> tuple[np.ndarray, str]:
    """Return the reliability of each unit, and over which times; not that of a mean over time.

    A response that rises and falls has a mean near zero, and before the onset there is none.
    """
    reliability = repeat_reliability(data.responses, data.stimulus)
    if reliability.ndim < 2:
        return reliability, " of one stimulus"
    times_s = np.zeros(reliability.shape[1]) if data.times_s is None else data.times_s
    after = times_s >= 0 if (times_s >= 0).any() else np.ones(len(times_s), dtype=bool)
    return reliability[:, after].mean(axis=1), ", mean over times after onset"


def _mean_over_time(responses: np.ndarray) -> np.ndarray:
    return responses.mean(axis=2) if responses.ndim == 3 else responses
