"""Plots of the scans: carpets with displacement and DVARS, motion, signal-to-noise, masks.

The carpet follows Power (2017, doi:10.1016/j.neuroimage.2016.08.009); rows are bins of voxels.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from afterimage.reports.figures.mosaic import choose_slices, draw_map, draw_outlines
from afterimage.reports.figures.responses import draw_histogram
from afterimage.reports.figures.style import (
    Theme,
    label_axes,
    legend_above,
    new_axes,
    new_stack,
    time_axis,
    to_svg,
)
from afterimage.reports.model import SubjectReport
from afterimage.reports.page import Panel
from afterimage.reports.scans import RunQuality

if TYPE_CHECKING:
    pass

#: Runs whose carpet is shown at once, and behind a click; the table has all of them.
N_OPEN = 6
N_MORE = 18
CARPET_SHAPE = (100, 340)
CARPET_QUALITY = 45
MAX_POINTS = 300
MAX_BOUNDARIES = 40


def bin_rows(values: np.ndarray, n_bins: int) -> np.ndarray:
    """Average neighbouring rows, so that at most ``n_bins`` are left."""
    if len(values) <= n_bins:
        return values
    edges = np.linspace(0, len(values), n_bins + 1).astype(int)
    sums = np.add.reduceat(np.asarray(values, dtype=np.float64), edges[:-1], axis=0)
    return sums / np.diff(edges)[:, None]


def thin(values: np.ndarray, n_points: int = MAX_POINTS) -> tuple[np.ndarray, np.ndarray]:
    """Keep the largest and the smallest value of each stretch, so that no spike is lost.

    Returns
    -------
    index, values : array of shape (n_kept,)
        Of the points kept, in order.
    """
    known = np.flatnonzero(np.isfinite(values))
    if len(known) <= n_points:
        return known, values[known]
    stretches = np.array_split(known, n_points // 2)
    kept = [
        sorted({part[values[part].argmin()], part[values[part].argmax()]}) for part in stretches
    ]
    index = np.concatenate([np.asarray(pair) for pair in kept])
    return index, values[index]


def spans(flags: np.ndarray) -> list[tuple[int, int]]:
    """Return the stretches of True as (first, last) indices."""
    change = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(int), [0]])))
    return [(int(a), int(b) - 1) for a, b in zip(change[::2], change[1::2], strict=True)]


def draw_carpet(run: RunQuality, limit: float, top_mm: float, theme: Theme) -> bytes:
    """Draw displacement, DVARS and the carpet of one run on one time axis.

    Parameters
    ----------
    run : RunQuality
    limit : float
        Carpet values at which black and white are reached.
    top_mm : float
        Upper end of the axis of displacement.
    theme : Theme
    """
    times, label = time_axis(np.arange(run.n_volumes) * run.t_r_s)
    half = (times[1] - times[0]) / 2 if len(times) > 1 else 0.5
    # One volume of a long run must still be seen.
    wide = max(half, 0.003 * float(np.ptp(times)))
    heights = [0.62, 0.58, 1.35] if run.carpet is not None else [0.7, 0.85]
    figure, stack = new_stack(heights, theme, share_x=True)
    for axes, values, name in (
        (stack[0], run.framewise_displacement, "FD (mm)"),
        (stack[1], run.dvars, "DVARS"),
    ):
        for first, last in spans(run.censored):
            axes.axvspan(
                times[first] - wide, times[last] + wide, color=theme.second, alpha=0.45, lw=0
            )
        index, shown = thin(np.asarray(values, dtype=float))
        axes.plot(times[index], shown, color=theme.accent, linewidth=1)
        axes.locator_params(axis="y", nbins=3)
        axes.set_ylabel(name, color=theme.muted, fontsize=7.5)
    stack[0].set_ylim(0, top_mm)
    if run.carpet is not None:
        carpet = bin_rows(bin_rows(run.carpet, CARPET_SHAPE[0]).T, CARPET_SHAPE[1]).T
        level = np.clip(np.nan_to_num(carpet) / limit / 2 + 0.5, 0, 1)
        picture = np.repeat((level * 255).round().astype(np.uint8)[..., None], 3, axis=-1)
        stack[2].set_yticks([])
        stack[2].grid(False)
        stack[2].imshow(
            picture, aspect="auto", interpolation="none",
            extent=(times[0] - half, times[-1] + half, 0, 1),
        )  # fmt: skip
        stack[2].set_ylabel("voxels", color=theme.muted, fontsize=7.5)
    stack[-1].set_xlim(times[0] - half, times[-1] + half)
    stack[-1].tick_params(axis="x", labelbottom=True)
    stack[-1].locator_params(axis="x", nbins=6, steps=[1, 2, 5, 10])
    stack[-1].set_xlabel(label, color=theme.muted, fontsize=8.5)
    figure.align_ylabels(stack)
    return to_svg(figure, smooth=CARPET_QUALITY)


def draw_motion(
    runs: Sequence[np.ndarray], label: str, names: Sequence[str], theme: Theme
) -> bytes:
    """Draw three motion parameters over all runs, with a line between runs.

    Parameters
    ----------
    runs : sequence of array of shape (n_volumes, 3)
    label : str
        What they are, with their unit.
    names : sequence of str
        Of the three.
    theme : Theme
    """
    figure, axes = new_axes(2.3, theme)
    starts = np.concatenate([[0], np.cumsum([len(run) for run in runs])])
    colours = (theme.accent, theme.second, theme.muted)
    for column, (name, colour) in enumerate(zip(names, colours, strict=True)):
        for number, run in enumerate(runs):
            index, shown = thin(run[:, column], max(20, 3 * MAX_POINTS // len(runs) // 3))
            axes.plot(
                index + starts[number], shown, color=colour, linewidth=1,
                label=name if number == 0 else None,
            )  # fmt: skip
    if len(runs) <= MAX_BOUNDARIES:
        for start in starts[1:-1]:
            axes.axvline(start - 0.5, color=theme.grid, linewidth=0.8)
    axes.set_xlim(0, max(int(starts[-1]) - 1, 1))
    axes.locator_params(axis="x", nbins=6)
    legend_above(axes, theme)
    label_axes(axes, theme, "volume, all runs in order", label)
    return to_svg(figure)


def draw_strip(values: np.ndarray, label: str, flagged: np.ndarray, theme: Theme) -> bytes:
    """Draw one number a run, in the order of scanning, from zero.

    Parameters
    ----------
    values : array of shape (n_runs,)
    label : str
    flagged : array of shape (n_runs,), bool
        Runs drawn in the colour of what needs a look.
    theme : Theme
    """
    figure, axes = new_axes(1.75, theme)
    x = np.arange(1, len(values) + 1)
    size = 6 if len(values) <= 40 else 3
    for chosen, colour in ((~flagged, theme.accent), (flagged, theme.second)):
        axes.plot(x[chosen], values[chosen], "o", color=colour, markersize=size)
    top = float(np.nanmax(values)) if np.isfinite(values).any() else 0.0
    axes.set_ylim(0, 1.15 * top if top > 0 else 1)
    axes.set_xlim(0.3, len(values) + 0.7)
    axes.locator_params(axis="x", nbins=10, integer=True)
    axes.locator_params(axis="y", nbins=4)
    label_axes(axes, theme, "run, in order", label)
    return to_svg(figure)


def overview_panels(report: SubjectReport) -> list[Panel]:
    """Displacement, censored volumes and signal-to-noise of every run, where there are several."""
    runs = report.scans.runs if report.scans else ()
    if len(runs) < 2:
        return []
    panels = []
    for title, label, values, flagged in (
        ("Motion", "mean FD (mm)", [run.mean_fd_mm for run in runs], lambda v: v > 0.5),
        (
            "Censored volumes",
            "% of the run",
            [100 * run.censored_share for run in runs],
            lambda v: v > 20,
        ),
        (
            "Signal-to-noise",
            "median tSNR",
            [run.median_tsnr for run in runs],
            lambda v: v < 0.6 * np.nanmedian(v),
        ),
    ):
        numbers = np.asarray(values, dtype=float)
        alt = (
            f"{title} of {len(runs)} runs, {label}: from {np.nanmin(numbers):.3g} to "
            f"{np.nanmax(numbers):.3g}"
            if np.isfinite(numbers).any()
            else f"{title} of {len(runs)} runs: not known"
        )
        panels.append(
            Panel(title, alt, partial(draw_strip, numbers, label, np.asarray(flagged(numbers))))
        )
    return panels


def carpet_order(runs: Sequence[RunQuality]) -> tuple[list[int], list[int], int]:
    """Choose whose carpet is shown at once, behind a click, and not at all.

    Returns
    -------
    first : list of int
        All runs where they are few; else those with the largest mean displacement, in order.
    more : list of int
        The others in order, as many as keep the page small.
    n_left_out : int
        Runs without a carpet on the page.
    """
    known = [0.0 if np.isnan(run.mean_fd_mm) else run.mean_fd_mm for run in runs]
    worst = sorted(range(len(runs)), key=lambda i: (-known[i], i))
    first = sorted(worst[:N_OPEN])
    others = [i for i in range(len(runs)) if i not in first]
    return first, others[:N_MORE], max(len(others) - N_MORE, 0)


def carpet_panels(report: SubjectReport) -> list[Panel]:
    """Carpets that are shown at once."""
    runs = report.scans.runs if report.scans else ()
    return _carpets(runs, carpet_order(runs)[0])


def more_carpet_panels(report: SubjectReport) -> list[Panel]:
    """Carpets that are shown on demand."""
    runs = report.scans.runs if report.scans else ()
    return _carpets(runs, carpet_order(runs)[1])


def _carpets(runs: Sequence[RunQuality], chosen: Sequence[int]) -> list[Panel]:
    """Draw carpets on common scales, so that runs can be compared."""
    carpets = [np.abs(run.carpet) for run in runs if run.carpet is not None]
    limit = (
        max(float(np.median([np.nanpercentile(c, 97) for c in carpets])), 1e-6) if carpets else 1
    )
    tops = [float(np.nanmax(run.framewise_displacement)) for run in runs if run.n_volumes > 1]
    # One jump of some millimetres must not flatten the curves of all other runs.
    common = max(0.5, 1.1 * float(np.median(tops))) if tops else 0.5
    panels = []
    for number in chosen:
        run = runs[number]
        own = 1.1 * float(np.nanmax(run.framewise_displacement)) if run.n_volumes > 1 else 0.5
        told = f"mean FD {run.mean_fd_mm:.2f} mm, {run.n_censored} of {run.n_volumes} censored"
        panels.append(
            Panel(
                f"{run.name} · {told}",
                f"Carpet plot of {run.name} with framewise displacement and DVARS above: {told}, "
                f"largest displacement {own / 1.1:.2f} mm",
                partial(draw_carpet, run, limit, max(common, own)),
            )
        )
    return panels


def motion_panels(report: SubjectReport) -> list[Panel]:
    """Six motion parameters over all runs."""
    runs = report.scans.runs if report.scans else ()
    moved = [np.asarray(run.motion, dtype=float) for run in runs if run.motion.size]
    if not moved or not any(np.isfinite(run).any() for run in moved):
        return []
    shift = [run[:, :3] for run in moved]
    turn = [np.degrees(run[:, 3:]) for run in moved]
    panels = []
    for title, label, parts, names in (
        ("Translation", "mm", shift, ("left–right", "back–front", "down–up")),
        ("Rotation", "degrees", turn, ("pitch", "roll", "yaw")),
    ):
        whole = np.concatenate(parts)
        panels.append(
            Panel(
                title,
                f"{title} of the head over {len(runs)} runs, from {np.nanmin(whole):.2f} to "
                f"{np.nanmax(whole):.2f} {label}",
                partial(draw_motion, parts, label, names),
            )
        )
    return panels


def tsnr_panels(report: SubjectReport) -> list[Panel]:
    """Map and histogram of the temporal signal-to-noise ratio."""
    scans = report.scans
    if scans is None or scans.tsnr is None or scans.brain_mask is None:
        return []
    inside = np.asarray(scans.brain_mask, dtype=bool) & np.isfinite(scans.tsnr)
    if not inside.any():
        return []
    values = np.asarray(scans.tsnr, dtype=float)[inside]
    slices = choose_slices(inside, scans.affine)
    top = float(np.percentile(values, 98)) or 1.0
    told = f"median {np.median(values):.0f} over {values.size} voxels"
    of = f"mean of {len(scans.runs)} runs" if len(scans.runs) > 1 else "one run"
    return [
        Panel(
            f"tSNR, {of}",
            f"Map of the temporal signal-to-noise ratio in axial slices: {told}",
            partial(
                draw_map, np.where(inside, scans.tsnr, np.nan), slices, (0.0, top),
                "temporal signal-to-noise ratio", None,
            ),
        ),
        Panel(
            "tSNR of the brain's voxels",
            f"Histogram of the temporal signal-to-noise ratio: {told}",
            partial(draw_histogram, np.clip(values, 0, 1.15 * top), "tSNR", (0.0, 1.15 * top)),
        ),
    ]  # fmt: skip


def mask_panels(report: SubjectReport) -> list[Panel]:
    """Outlines of the brain mask and of the voxels kept, on the mean image."""
    scans = report.scans
    if scans is None or scans.mean is None or scans.brain_mask is None:
        return []
    brain = np.asarray(scans.brain_mask, dtype=bool)
    if not brain.any():
        return []
    masks = {f"brain mask ({int(brain.sum())})": brain}
    if scans.units_mask is not None:
        units = np.asarray(scans.units_mask, dtype=bool)
        masks[f"voxels kept ({int(units.sum())})"] = units
    slices = choose_slices(brain, scans.affine)
    return [
        Panel(
            "Masks on the mean image",
            "Mean image in axial slices with outlines: " + ", ".join(masks),
            partial(draw_outlines, scans.mean, masks, slices, brain),
        )
    ]
