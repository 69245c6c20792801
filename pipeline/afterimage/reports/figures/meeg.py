"""Plots of EEG and MEG recordings: bad channels and segments, spectra, components removed."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from afterimage.reports.figures.sensors import (
    FlatSensors,
    draw_head,
    draw_maps,
    flat_sensors,
)
from afterimage.reports.figures.style import (
    Theme,
    bare,
    label_axes,
    legend_above,
    new_axes,
    to_svg,
)
from afterimage.reports.model import SubjectReport
from afterimage.reports.page import Panel
from afterimage.reports.recordings import RecordingRun, Recordings

#: Runs whose spectra and components are shown at once, and behind a click.
N_OPEN = 4
N_MORE = 8
N_FREQUENCIES = 160
#: Around the spectra of good channels as recorded; what lies beyond is drawn on the edge or cut.
ROOM_DB = 15.0
N_BAD_LINES = 8
N_COMPONENTS = 8
N_NAMES = 24
#: Kind: what one is called, SI unit, unit that is read, and how many of the latter make the former.
UNITS = {
    "eeg": ("EEG", "V", "µV", 1e6),
    "mag": ("magnetometers", "T", "fT", 1e15),
    "grad": ("gradiometers", "T/m", "fT/cm", 1e13),
}


def unit_of(kind: str) -> tuple[str, str, float]:
    """Return what channels of a kind are called, the unit they are shown in, and its factor."""
    name, _, shown, factor = UNITS.get(kind, (kind, "", "SI unit", 1.0))
    return name, shown, factor


def run_order(runs: Sequence[RecordingRun]) -> tuple[list[int], list[int], int]:
    """Choose whose spectra and components are shown at once, behind a click, and not at all.

    Returns
    -------
    first : list of int
        All runs where they are few; else those with the most bad channels and segments, in order.
    more : list of int
        The others in order, as many as keep the page small.
    n_left_out : int
    """
    worst = sorted(
        range(len(runs)), key=lambda i: (-len(runs[i].bad_channels), -runs[i].bad_share, i)
    )
    first = sorted(worst[:N_OPEN])
    others = [i for i in range(len(runs)) if i not in first]
    return first, others[:N_MORE], max(len(others) - N_MORE, 0)


def thin_frequencies(frequency_hz: np.ndarray) -> np.ndarray:
    """Choose frequencies evenly on a log axis, so that slow ones stay and fast ones are few."""
    usable = np.flatnonzero(frequency_hz > 0)
    if len(usable) <= N_FREQUENCIES:
        return usable
    wanted = np.geomspace(frequency_hz[usable[0]], frequency_hz[usable[-1]], N_FREQUENCIES)
    return np.unique(
        usable[np.searchsorted(frequency_hz[usable], wanted).clip(0, len(usable) - 1)]
    )


def decibels(psd: np.ndarray, factor: float) -> np.ndarray:
    """Turn SI unit squared a Hz into dB of the shown unit squared a Hz; NaN where nothing is left."""
    shown = np.asarray(psd, dtype=np.float64) * factor**2
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(shown > 0, 10 * np.log10(shown), np.nan)


def draw_spectra(
    run: RecordingRun, numbers: np.ndarray, bad: np.ndarray, kind: str, theme: Theme
) -> bytes:
    """Draw the power of all channels of a kind before and after cleaning.

    Parameters
    ----------
    run : RecordingRun
        With both spectra.
    numbers : array of int
        Channels of the kind.
    bad : array of int
        Those of them that were bad in this run.
    kind : str
    theme : Theme
    """
    _, shown, factor = unit_of(kind)
    chosen = thin_frequencies(run.frequency_hz)
    x = run.frequency_hz[chosen]
    figure, axes = new_axes(2.7, theme)
    good = np.setdiff1d(numbers, bad)
    floor, top = np.inf, -np.inf
    for psd, line, band, name in (
        (run.psd_before, theme.muted, theme.band, "before"),
        (run.psd_after, theme.accent, theme.soft, "after"),
    ):
        if psd is None or not len(good):
            continue
        level = decibels(psd[np.ix_(good, chosen)], factor)
        known = np.isfinite(level).any(axis=0)
        low, middle, high = np.nanpercentile(level[:, known], (5, 50, 95), axis=0)
        axes.fill_between(x[known], low, high, color=band, alpha=0.75, linewidth=0)
        axes.plot(x[known], middle, color=line, linewidth=1.7, label=name)
        if name == "before" or run.psd_before is None:
            floor, top = float(low.min()) - ROOM_DB, float(high.max()) + ROOM_DB
    if run.psd_before is not None:
        for place, number in enumerate(bad[:N_BAD_LINES]):
            level = decibels(run.psd_before[number, chosen], factor)
            # A channel that is flat or dead lies along the lower edge and does not stretch the axis.
            if floor < top:
                level = np.clip(np.nan_to_num(level, nan=floor), floor + 1, top - 1)
            axes.plot(
                x, level, color=theme.second, linewidth=0.9,
                label="bad channels, before" if place == 0 else None,
            )  # fmt: skip
    if np.isfinite(run.line_freq_hz) and x[0] < run.line_freq_hz < x[-1]:
        axes.axvline(run.line_freq_hz, color=theme.muted, linewidth=0.8, linestyle=(0, (2, 3)))
    if floor < top:
        axes.set_ylim(floor, top)
    axes.set_xscale("log")
    ticks = [tick for tick in (0.5, 1, 2, 5, 10, 20, 50, 100, 200) if x[0] <= tick <= x[-1]]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_xticks([], minor=True)
    axes.set_xlim(x[0], x[-1])
    axes.locator_params(axis="y", nbins=6)
    legend_above(axes, theme)
    label_axes(axes, theme, "frequency (Hz)", f"power (dB re 1 ({shown})²/Hz)")
    return to_svg(figure)


def spectra_panels(report: SubjectReport) -> list[Panel]:
    """Spectra that are shown at once."""
    recordings = report.recordings
    return _spectra(recordings, run_order(recordings.runs)[0]) if recordings else []


def more_spectra_panels(report: SubjectReport) -> list[Panel]:
    """Spectra that are shown on demand."""
    recordings = report.recordings
    return _spectra(recordings, run_order(recordings.runs)[1]) if recordings else []


def _spectra(recordings: Recordings, chosen: Sequence[int]) -> list[Panel]:
    sensors = recordings.sensors
    if sensors is None:
        return []
    panels = []
    names = np.asarray(sensors.names, dtype=str)
    for run in (recordings.runs[number] for number in chosen):
        if run.psd_before is None and run.psd_after is None:
            continue
        for kind in sensors.known_kinds:
            numbers = sensors.of_kind(kind)
            bad = numbers[np.isin(names[numbers], list(run.bad_channels))]
            called = unit_of(kind)[0]
            panels.append(
                Panel(
                    f"{run.name} · {len(numbers)} {called} channels" if kind == "eeg"
                    else f"{run.name} · {len(numbers)} {called}",
                    f"Power spectrum of {len(numbers)} {called} channels of {run.name}, before and "
                    f"after cleaning, {len(bad)} of them bad",
                    partial(draw_spectra, run, numbers, bad, kind),
                )
            )  # fmt: skip
    return panels


def draw_layout(
    flat: FlatSensors, counts: np.ndarray, names: Sequence[str], n_runs: int, theme: Theme
) -> bytes:
    """Draw where the sensors are, and mark those that were bad.

    Parameters
    ----------
    flat : FlatSensors
    counts : array of shape (n_places,)
        In how many runs a place had a bad channel.
    names : sequence of str, shape (n_places,)
        Written beside the bad ones.
    n_runs : int
    theme : Theme
    """
    figure, axes = new_axes(3.7, theme)
    bare(axes)
    draw_head(axes, flat.radius, theme)
    x, y = flat.places.T
    good = counts == 0
    size = 5.0 if len(x) <= 80 else 3.4
    axes.plot(x[good], y[good], "o", color=theme.soft, markersize=size, mew=0)
    for place in np.flatnonzero(~good):
        share = counts[place] / max(n_runs, 1)
        axes.plot(x[place], y[place], "o", color=theme.second, markersize=size * (1 + 0.9 * share))
    for place in np.flatnonzero(~good)[:N_NAMES]:
        axes.annotate(
            names[place], (x[place], y[place]), xytext=(0, size * 0.75 + 2.5),
            textcoords="offset points", ha="center", va="bottom", fontsize=7.5, color=theme.second,
            fontweight="bold", zorder=5,
            bbox={"facecolor": theme.paper, "edgecolor": "none", "pad": 0.6, "alpha": 0.8},
        )  # fmt: skip
    return to_svg(figure)


def layout_panels(report: SubjectReport) -> list[Panel]:
    """Map of the sensors with the bad ones marked, one a kind whose positions are known."""
    recordings = report.recordings
    if recordings is None or recordings.sensors is None or not recordings.runs:
        return []
    counts, names = recordings.bad_counts, recordings.sensors.names
    panels = []
    for kind in recordings.sensors.known_kinds:
        flat = flat_sensors(recordings.sensors, kind)
        if flat is None:
            continue
        called = unit_of(kind)[0]
        bad = [[str(names[n]) for n in found if names[n] in counts] for found in flat.numbers]
        times = np.array([max((counts[name] for name in found), default=0) for found in bad])
        told = ", ".join(name for found in bad for name in found) or "none"
        panels.append(
            Panel(
                f"{sum(map(len, flat.numbers))} {called} channels from above" if kind == "eeg"
                else f"{sum(map(len, flat.numbers))} {called} from above",
                f"Map of the {called} sensors; bad in at least one run: {told}",
                partial(
                    draw_layout, flat, times, ["/".join(found) for found in bad],
                    len(recordings.runs),
                ),
            )
        )  # fmt: skip
    return panels


def draw_segments(runs: Sequence[RecordingRun], theme: Theme) -> bytes:
    """Draw when each run was bad, one bar a run on a common axis of time."""
    longest = max(run.duration_s for run in runs)
    scale, label = (60.0, "time (min)") if longest > 300 else (1.0, "time (s)")
    step = 0.24 if len(runs) <= 30 else 0.09
    figure, axes = new_axes(0.75 + step * len(runs), theme, grid="x")
    for place, run in enumerate(runs):
        axes.barh(-place, run.duration_s / scale, height=0.72, color=theme.soft, linewidth=0)
        # A short stretch of a long run must still be seen.
        widths = np.maximum(np.diff(run.bad_segments, axis=1)[:, 0], 0.003 * longest)
        axes.barh(
            np.full(len(widths), -place), widths / scale, left=run.bad_segments[:, 0] / scale,
            height=0.72, color=theme.second, linewidth=0,
        )  # fmt: skip
        if len(runs) <= 30:
            axes.text(
                1.015, -place, f"{100 * run.bad_share:.1f} %", color=theme.ink, va="center",
                transform=axes.get_yaxis_transform(),
            )  # fmt: skip
    axes.set_ylim(-len(runs) + 0.4, 0.6)
    axes.set_xlim(0, longest / scale)
    shown = range(0, len(runs), 1 if len(runs) <= 30 else 10)
    axes.set_yticks([-place for place in shown], [runs[place].name for place in shown])
    label_axes(axes, theme, label)
    return to_svg(figure)


def segment_panels(report: SubjectReport) -> list[Panel]:
    """Bad stretches of all runs."""
    runs = [r for r in report.recordings.runs if r.duration_s > 0] if report.recordings else []
    if not any(len(run.bad_segments) for run in runs):
        return []
    told = "; ".join(f"{run.name} {100 * run.bad_share:.1f} %" for run in runs[:12])
    return [
        Panel("Bad stretches of each run", f"Share of each run that is bad: {told}",
              partial(draw_segments, runs))
    ]  # fmt: skip


def component_panels(report: SubjectReport) -> list[Panel]:
    """Topographies of the components taken out of each run."""
    recordings = report.recordings
    if recordings is None or recordings.sensors is None:
        return []
    kinds = recordings.sensors.known_kinds
    # Magnetometers tell the sign, which the strength of a gradiometer pair does not.
    found = [flat_sensors(recordings.sensors, kind) for kind in kinds]
    flat = next((one for one in found if one is not None), None)
    if flat is None:
        return []
    panels = []
    first, more, _ = run_order(recordings.runs)
    for run in (recordings.runs[number] for number in sorted(first + more)[: N_OPEN + N_OPEN]):
        removed = [c for c in run.components if c.removed and c.topography is not None]
        removed = sorted(removed, key=lambda c: -np.nan_to_num(c.variance))[:N_COMPONENTS]
        if not removed:
            continue
        maps = np.stack([flat.gather(np.asarray(c.topography)) for c in removed])
        titles = [_component_title(c.label, c.probability, c.variance) for c in removed]
        of = f"{run.n_removed} of {len(run.components)} components"
        panels.append(
            Panel(
                f"{run.name} · {of} taken out",
                f"Topographies of the components taken out of {run.name} ({of}): "
                + ", ".join(c.label for c in removed),
                partial(draw_maps, flat, maps, titles, None, ""),
            )
        )
    return panels


def _component_title(label: str, probability: float, variance: float) -> str:
    sure = f" {100 * probability:.0f} %" if np.isfinite(probability) else ""
    share = f"\n{100 * variance:.1f} % of variance" if np.isfinite(variance) else ""
    return f"{label}{sure}{share}"
