"""Plots of the responses estimated from scans: onsets, design, response functions, maps."""

from __future__ import annotations

import re
from functools import partial
from itertools import groupby

import numpy as np

from afterimage.reports.figures.mosaic import choose_slices, draw_map
from afterimage.reports.figures.style import (
    Theme,
    bare,
    label_axes,
    legend_above,
    new_axes,
    new_stack,
    time_axis,
    to_svg,
)
from afterimage.reports.model import SubjectReport
from afterimage.reports.page import Panel
from afterimage.reports.scan_words import ONSET_TOLERANCE_S, seconds, signed
from afterimage.reports.scans import ResponseQuality, ScanQuality

#: What a column of the design is, by its name; anything else is a trial or a condition.
COLUMN_KINDS = (
    ("motion", r"(d_?)?(trans|rot)[_-]?[xyz].*|motion_?\d*.*|rp_?\d+"),
    ("drift", r"drift.*|cosine.*|poly.*|legendre.*"),
    ("CompCor", r".*comp_?cor.*|noise.*"),
    ("censored", r"censor.*|spike.*|.*outlier.*|scrub.*"),
    ("constant", r"constant|intercept|mean"),
    ("nuisance", r"nuisance.*"),
    ("signals", r"(global_signal|csf|white_matter).*"),
)
#: Map name: heading, label, whether zero starts the colour bar.
MAPS = {
    "ceiling": ("Noise ceiling", "largest r a perfect model could reach", True),
    "split_half": ("Split-half reliability", "r between halves of the repeats", True),
    "r2": ("Variance explained by the design", "R²", True),
    "fraction": ("Ridge fraction", "length of the response kept, 1 is unregularised", True),
}


def draw_onset_shift(
    shifts_s: np.ndarray, curve: np.ndarray, best_s: float | None, label: str, theme: Theme
) -> bytes:
    """Draw how well the onsets explain the signal when all of them are moved.

    Parameters
    ----------
    shifts_s, curve : array of shape (n_shifts,)
    best_s : float or None
        Where the best shift is marked.
    label : str
        What the curve is.
    theme : Theme
    """
    figure, axes = new_axes(2.5, theme)
    curve = 100 * np.asarray(curve, dtype=float)
    axes.axvspan(-ONSET_TOLERANCE_S, ONSET_TOLERANCE_S, color=theme.band, linewidth=0)
    axes.axvline(0, color=theme.muted, linewidth=0.8)
    axes.plot(shifts_s, curve, ".-", color=theme.accent, linewidth=1.4, markersize=5)
    low, high = float(np.nanmin(curve)), float(np.nanmax(curve))
    room = max(high - low, 1e-6)
    axes.set_ylim(min(low, 0) if low > -0.1 * room else low - 0.05 * room, high + 0.24 * room)
    top_s = float(shifts_s[np.nanargmax(curve)]) if best_s is None else best_s
    fits = abs(top_s) <= ONSET_TOLERANCE_S
    colour = theme.muted if best_s is None else theme.accent if fits else theme.second
    value = float(np.interp(top_s, shifts_s, curve))
    axes.plot(top_s, value, "o", color=colour, markersize=7)
    middle, half = float(np.mean(shifts_s)), float(np.ptp(shifts_s)) / 2
    near = abs(top_s - middle) < 0.6 * half
    axes.annotate(
        f"no clear peak, highest at {signed(top_s)} s" if best_s is None
        else f"best at {signed(top_s)} s",
        (middle if best_s is None else top_s, value),
        xytext=(0, 8),
        textcoords="offset points",
        ha="center" if near or best_s is None else "left" if top_s < middle else "right",
        color=colour, fontweight="bold",
    )  # fmt: skip
    axes.locator_params(axis="x", nbins=6, steps=[1, 2, 5, 10])
    label_axes(axes, theme, "all onsets moved by (s)", label)
    return to_svg(figure)


def expected_response(times_s: np.ndarray, duration_s: float) -> np.ndarray:
    """Return the canonical response to a stimulus of that length at these times, largest 1."""
    from afterimage.preprocess.fmri.hrf import canonical_hrf

    library = canonical_hrf()
    kernel, step = library.kernels[0], library.dt_s
    on = np.ones(max(round(duration_s / step), 1))
    whole = np.convolve(on, kernel)
    return np.interp(
        times_s, np.arange(len(whole)) * step, whole / whole.max(), left=0.0, right=0.0
    )


def draw_average(quality: ResponseQuality, theme: Theme) -> bytes:
    """Draw the mean signal around onset beside the canonical response of the same size."""
    times = np.asarray(quality.response_time_s, dtype=float)
    response = np.asarray(quality.average_response, dtype=float)
    error = np.asarray(quality.average_response_sem, dtype=float)
    fine = np.linspace(times[0], times[-1], 160)
    scale, offset = _same_size(response, expected_response(times, quality.duration_s))
    figure, axes = new_axes(2.5, theme)
    if error.shape == response.shape:
        axes.fill_between(times, response - error, response + error, color=theme.band, lw=0)
    axes.plot(
        fine, scale * expected_response(fine, quality.duration_s) + offset,
        color=theme.second, linewidth=1.4, linestyle=(0, (4, 2)), label="canonical, same size",
    )  # fmt: skip
    axes.plot(times, response, color=theme.accent, linewidth=1.8, label="measured")
    axes.axvline(0, color=theme.muted, linewidth=0.8)
    if quality.duration_s > 0.5:
        axes.axvspan(0, quality.duration_s, ymax=0.03, color=theme.soft, linewidth=0)
    legend_above(axes, theme)
    label_axes(axes, theme, "time from onset (s)", "signal change (%)")
    return to_svg(figure)


def _same_size(response: np.ndarray, expected: np.ndarray) -> tuple[float, float]:
    """Return scale and offset that give the expected curve the range and level of the measured.

    A least-squares fit would shrink it where the two differ in time, which is what must be seen.
    """
    known = np.isfinite(response)
    response, expected = response[known], expected[known]
    scale = float(np.ptp(response)) / max(float(np.ptp(expected)), 1e-6)
    if (
        np.ptp(response) > 0
        and np.ptp(expected) > 0
        and np.corrcoef(response, expected)[0, 1] < -0.5
    ):
        scale = -scale  # a signal that falls
    return scale, float(np.median(response) - scale * np.median(expected))


def draw_peaks(peaks_s: np.ndarray, theme: Theme) -> bytes:
    """Draw how many voxels have which peak time, one bar a response function of the library."""
    from afterimage.preprocess.fmri.hrf import hrf_library

    library = np.unique(np.round(hrf_library().peaks_s, 3))
    figure, axes = new_axes(2.5, theme)
    times, counts = np.unique(np.round(peaks_s, 3), return_counts=True)
    if len(times) > 60:
        counts, edges = np.histogram(peaks_s, bins=30)
        times = (edges[:-1] + edges[1:]) / 2
    width = 0.8 * float(np.diff(library).min())
    at_end = (times <= library.min() + 1e-3) | (times >= library.max() - 1e-3)
    colours = np.where(at_end, theme.second, theme.soft).tolist()
    axes.set_xlim(min(library.min(), times.min()) - width, max(library.max(), times.max()) + width)
    axes.bar(times, counts, width=width, color=colours, linewidth=0)
    median = float(np.median(peaks_s))
    axes.axvline(median, color=theme.accent, linewidth=1.8)
    top = float(counts.max()) * 1.22
    axes.set_ylim(0, top)
    left = median < float(library.mean())
    axes.annotate(
        f"median {median:.2f} s", (median, top), xytext=(5 if left else -5, -3),
        textcoords="offset points", ha="left" if left else "right", va="top",
        color=theme.accent, fontweight="bold",
    )  # fmt: skip
    label_axes(axes, theme, "peak (s after onset)", "voxels")
    return to_svg(figure)


def column_groups(names: list[str]) -> list[tuple[str, int, int]]:
    """Name neighbouring columns of one kind: (kind, first, last)."""
    kinds = [
        next(
            (kind for kind, pattern in COLUMN_KINDS if re.fullmatch(pattern, name, re.I)), "trials"
        )
        for name in names
    ]
    groups = []
    for kind, members in groupby(range(len(names)), key=lambda i: kinds[i]):
        found = list(members)
        groups.append((kind, found[0], found[-1]))
    return groups


def spread_out(wanted: np.ndarray, gap: float, high: float) -> np.ndarray:
    """Move sorted places apart until each is ``gap`` from the next and none is above ``high``."""
    places = np.asarray(wanted, dtype=float).copy()
    for i in range(1, len(places)):
        places[i] = max(places[i], places[i - 1] + gap)
    if len(places):
        places[-1] = min(places[-1], high)
    for i in range(len(places) - 2, -1, -1):
        places[i] = min(places[i], places[i + 1] - gap)
    return places


def draw_design(design: np.ndarray, names: list[str], t_r_s: float, theme: Theme) -> bytes:
    """Draw a design matrix, each column scaled to its largest value, with the kinds of columns.

    Parameters
    ----------
    design : array of shape (n_volumes, n_columns)
    names : list of str
    t_r_s : float
    theme : Theme
    """
    size = np.abs(design).max(axis=0)
    level = np.clip(0.5 + 0.5 * design / np.where(size > 0, size, 1), 0, 1)
    level = np.round(level * 31) / 31
    picture = np.repeat((level * 255).round().astype(np.uint8)[..., None], 3, axis=-1)
    times, label = time_axis(np.arange(len(design)) * (t_r_s if np.isfinite(t_r_s) else 1.0))
    n_columns = design.shape[1]
    figure, (axes, below) = new_stack([2.6, 0.95], theme)
    bottom, top = float(times[-1]), float(times[0])
    axes.imshow(picture, aspect="auto", interpolation="none", extent=(0, n_columns, bottom, top))
    axes.grid(False)
    axes.spines["bottom"].set_visible(False)
    axes.set_xticks([])
    axes.locator_params(axis="y", nbins=6)
    label_axes(axes, theme, "", label if np.isfinite(t_r_s) else "volume")
    bare(below)
    below.set_xlim(0, n_columns)
    below.set_ylim(0, 1)
    groups = column_groups(names)
    centres = np.array([(first + last + 1) / 2 for _, first, last in groups])
    places = spread_out(centres, 0.048 * n_columns, 0.985 * n_columns)
    for (kind, first, last), centre, place in zip(groups, centres, places, strict=True):
        inset = 0.006 * n_columns if last > first else 0.002 * n_columns
        below.plot(
            [first + inset, last + 1 - inset], [0.98, 0.98], color=theme.accent, linewidth=2
        )
        below.plot([centre, place], [0.95, 0.8], color=theme.muted, linewidth=0.7)
        n = last - first + 1
        text = f"{kind} ({n})" if n > 1 else kind
        below.text(place, 0.76, text, rotation=90, ha="center", va="top", color=theme.ink)
    return to_svg(figure)


def onset_panels(report: SubjectReport) -> list[Panel]:
    """Shift of the onsets, and the average response around them."""
    quality = report.scans.responses if report.scans else None
    panels: list[Panel] = []
    if quality is None:
        return panels
    if len(quality.onset_shift_s) > 2 and np.isfinite(quality.onset_shift_r2).any():
        best = quality.best_onset_shift_s
        told = "" if best is None else f": best when moved by {signed(best)} s"
        panels.append(
            Panel(
                "Do the onsets fit the signal?",
                f"Variance explained when all onsets are moved{told}",
                partial(
                    draw_onset_shift, np.asarray(quality.onset_shift_s, dtype=float),
                    quality.onset_shift_r2, best, "variance (%)",
                ),
            )
        )  # fmt: skip
    response = np.asarray(quality.average_response, dtype=float)
    if response.size > 2 and np.isfinite(response).sum() > 2:
        peak = float(np.asarray(quality.response_time_s)[np.nanargmax(response)])
        panels.append(
            Panel(
                "Average response around onset",
                f"Mean signal change after onset, largest {np.nanmax(response):.2f} % at "
                f"{seconds(peak)} s, beside the canonical response",
                partial(draw_average, quality),
            )
        )
    return panels


def design_panels(report: SubjectReport) -> list[Panel]:
    """Design matrix of the first run."""
    quality = report.scans.responses if report.scans else None
    if quality is None or quality.design is None or not quality.design.size:
        return []
    names = [str(name) for name in quality.column_names]
    groups = column_groups(names)
    told = ", ".join(f"{last - first + 1} {kind}" for kind, first, last in groups)
    return [
        Panel(
            "Design matrix of the first run",
            f"Design matrix, {quality.design.shape[0]} volumes by {len(names)} columns: {told}",
            partial(draw_design, np.asarray(quality.design), names, quality.t_r_s),
        )
    ]


def hrf_panels(report: SubjectReport) -> list[Panel]:
    """Map and histogram of the time of the response's peak."""
    found = _map(report.scans, "hrf_peak_s")
    if found is None:
        return []
    scans, volume = found
    shown = volume
    if scans.units_mask is not None and np.isfinite(volume[scans.units_mask > 0]).any():
        shown = np.where(scans.units_mask > 0, volume, np.nan)
    values = shown[np.isfinite(shown)]
    low, high = float(values.min()), float(values.max())
    if high - low < 0.1:
        return []  # one response function for all: no choice to show
    told = f"median {np.median(values):.1f} s over {values.size} voxels"
    return [
        Panel(
            "Peak of the response function",
            f"Map of the time from onset to the peak of the response: {told}",
            partial(
                draw_map, shown, choose_slices(_ground(scans, volume), scans.affine), (low, high),
                "peak (s after onset)", _underlay(scans),
            ),
        ),
        Panel(
            "Peak times of the voxels kept",
            f"Histogram of the time from onset to the peak of the response: {told}",
            partial(draw_peaks, values),
        ),
    ]  # fmt: skip


def map_panels(report: SubjectReport) -> list[Panel]:
    """Noise ceiling, reliability, explained variance and penalty as maps."""
    panels = []
    for name, (title, label, from_zero) in MAPS.items():
        found = _map(report.scans, name)
        if found is None:
            continue
        scans, volume = found
        values = volume[np.isfinite(volume)]
        top = 1.0 if name == "fraction" else float(np.percentile(values, 99.5))
        low = 0.0 if from_zero else float(values.min())
        kept = values
        if scans.units_mask is not None and np.isfinite(volume[scans.units_mask > 0]).any():
            kept = volume[scans.units_mask > 0]
        panels.append(
            Panel(
                title,
                f"Map in axial slices, {label}: median {np.nanmedian(kept):.2f} over the voxels "
                f"kept, {np.median(values):.2f} over all",
                partial(
                    draw_map, volume, choose_slices(_ground(scans, volume), scans.affine),
                    (low, max(top, low + 1e-3)), label, _underlay(scans),
                ),
            )
        )  # fmt: skip
    return panels


def _map(scans: ScanQuality | None, name: str) -> tuple[ScanQuality, np.ndarray] | None:
    volume = scans.responses.maps.get(name) if scans and scans.responses else None
    if scans is None or volume is None or not np.isfinite(volume).any():
        return None
    return scans, np.asarray(volume, dtype=float)


def _ground(scans: ScanQuality, volume: np.ndarray) -> np.ndarray:
    """Return what the slices must hold: the brain, or without its mask the map itself."""
    if scans.brain_mask is not None and np.any(scans.brain_mask):
        return np.asarray(scans.brain_mask, dtype=bool)
    return np.isfinite(volume)


def _underlay(scans: ScanQuality) -> tuple[np.ndarray, np.ndarray] | None:
    if scans.mean is None or scans.brain_mask is None:
        return None
    return scans.mean, np.asarray(scans.brain_mask, dtype=bool)
