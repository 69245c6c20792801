"""Plots of EEG and MEG responses: evoked curves, maps at their peaks, ceiling, whitening."""

from __future__ import annotations

from functools import partial

import numpy as np

from afterimage.reports.figures.meeg import unit_of
from afterimage.reports.figures.sensors import draw_maps, flat_sensors
from afterimage.reports.figures.style import (
    Theme,
    label_axes,
    legend_above,
    new_axes,
    new_stack,
    to_svg,
)
from afterimage.reports.model import SubjectReport
from afterimage.reports.page import Panel
from afterimage.reports.recordings import EvokedResponses, Sensors

N_CONDITIONS = 3
N_LINES = 32
N_TIMES = 120
N_PEAKS = 4


def thin_times(times_s: np.ndarray, n_points: int = N_TIMES) -> np.ndarray:
    """Choose times evenly."""
    return np.unique(np.linspace(0, len(times_s) - 1, min(len(times_s), n_points)).astype(int))


def field_power(evoked: np.ndarray) -> np.ndarray:
    """Return the spread over channels at every time: global field power.

    Parameters
    ----------
    evoked : array of shape (..., n_units, n_times)

    Returns
    -------
    gfp : array of shape (..., n_times)
    """
    return np.nanstd(np.asarray(evoked, dtype=np.float64), axis=-2)


def find_peaks(times_s: np.ndarray, power: np.ndarray, n_peaks: int = N_PEAKS) -> np.ndarray:
    """Return the numbers of the times at which the response is strongest, in order.

    Peaks lie after the onset, at least 40 ms apart and above what the baseline reaches; without a
    baseline all local maxima count.
    """
    from scipy.signal import find_peaks as local_maxima

    power = np.nan_to_num(np.asarray(power, dtype=np.float64))
    step = float(np.median(np.diff(times_s))) if len(times_s) > 1 else 1.0
    before = power[times_s < 0]
    floor = float(before.max()) if before.size else 0.0
    found, _ = local_maxima(power, distance=max(1, round(0.04 / step)), height=floor)
    found = found[times_s[found] > 0]
    # Small bumps on a slope are no peaks.
    found = found[power[found] > floor + 0.2 * (power.max() - floor)]
    if not len(found) and (times_s > 0).any():
        after = np.flatnonzero(times_s > 0)
        found = after[[power[after].argmax()]]
    return np.sort(found[np.argsort(-power[found])][:n_peaks])


def draw_butterfly(
    times_s: np.ndarray, lines: np.ndarray, power: np.ndarray, unit: str, theme: Theme
) -> bytes:
    """Draw all channels on each other, and the field power below.

    Parameters
    ----------
    times_s : array of shape (n_times,)
    lines : array of shape (n_units, n_times)
        In the shown unit.
    power : array of shape (n_times,)
    unit : str
    theme : Theme
    """
    figure, (axes, below) = new_stack([1.9, 0.95], theme, share_x=True)
    kept = thin_times(times_s)
    x = 1000 * times_s[kept]
    drawn = np.unique(np.linspace(0, len(lines) - 1, min(len(lines), N_LINES)).astype(int))
    # The band holds every channel, also those whose line is not drawn.
    axes.fill_between(
        x, np.nanmin(lines[:, kept], axis=0), np.nanmax(lines[:, kept], axis=0),
        color=theme.band, linewidth=0,
    )  # fmt: skip
    for number in drawn:
        axes.plot(x, lines[number, kept], color=theme.accent, linewidth=0.5, alpha=0.55)
    below.fill_between(x, 0, power[kept], color=theme.soft, linewidth=0)
    below.plot(x, power[kept], color=theme.accent, linewidth=1.4)
    for one in (axes, below):
        one.axvline(0, color=theme.muted, linewidth=0.8)
        one.locator_params(axis="y", nbins=4)
    below.set_ylim(0, None)
    below.set_xlim(x[0], x[-1])
    axes.set_ylabel(unit, color=theme.muted, fontsize=8.5)
    below.set_ylabel(f"GFP ({unit})", color=theme.muted, fontsize=7.5)
    below.set_xlabel("time from onset (ms)", color=theme.muted, fontsize=8.5)
    figure.align_ylabels([axes, below])
    return to_svg(figure)


def butterfly_panels(report: SubjectReport) -> list[Panel]:
    """Evoked response of a few conditions, one panel a condition and kind of channel."""
    found = _known(report)
    if found is None:
        return []
    sensors, data, evoked = found
    panels = []
    for kind in sensors.known_kinds:
        numbers = sensors.of_kind(kind)
        called, unit, factor = unit_of(kind)
        for place in shown_conditions(data):
            lines = factor * evoked[place][numbers]
            power = field_power(lines)
            if not np.isfinite(lines).any():
                continue
            condition = str(data.conditions[place])
            count = f", {data.n_trials[place]} trials" if len(data.n_trials) > place else ""
            peak = data.times_s[int(np.nanargmax(power))]
            panels.append(
                Panel(
                    f"{condition} · {called}{count}",
                    f"Evoked response to {condition} in {len(numbers)} {called} channels{count}: "
                    f"strongest at {1000 * peak:.0f} ms".replace("-", "−"),
                    partial(draw_butterfly, data.times_s, lines, power, unit),
                )
            )
    return panels


def shown_conditions(data: EvokedResponses) -> list[int]:
    """Choose the conditions with the most trials, in their order."""
    counts = list(data.n_trials) + [0] * (len(data.conditions) - len(data.n_trials))
    most = sorted(range(len(data.conditions)), key=lambda i: (-counts[i], i))
    return sorted(most[:N_CONDITIONS])


def mean_response(data: EvokedResponses, evoked: np.ndarray) -> np.ndarray:
    """Return the response over all conditions, weighted by their trials: (n_units, n_times)."""
    if "all" in data.conditions:
        return np.asarray(evoked[list(data.conditions).index("all")])
    weights = np.asarray(data.n_trials, dtype=float)
    if len(weights) != len(evoked) or not weights.sum():
        weights = np.ones(len(evoked))
    return np.tensordot(weights / weights.sum(), evoked, axes=1)


def topography_panels(report: SubjectReport) -> list[Panel]:
    """Draw the mean response at its peaks as maps, one panel a kind of channel."""
    found = _known(report)
    if found is None:
        return []
    sensors, data, evoked = found
    mean = mean_response(data, evoked)
    panels = []
    for kind in sensors.known_kinds:
        flat = flat_sensors(sensors, kind)
        if flat is None:
            continue
        called, unit, factor = unit_of(kind)
        peaks = find_peaks(data.times_s, field_power(mean[sensors.of_kind(kind)]))
        if not len(peaks):
            continue
        maps = flat.gather(factor * mean[:, peaks].T)
        times = [f"{1000 * data.times_s[peak]:.0f} ms" for peak in peaks]
        what = f"{unit}, strength of both of a pair" if flat.paired else unit
        panels.append(
            Panel(
                f"At the peaks · {called}",
                f"Maps of the mean evoked response of the {called} at {', '.join(times)}",
                partial(
                    draw_maps, flat, maps, times, float(np.nanmax(np.abs(maps))) or 1.0, what
                ),
            )
        )  # fmt: skip
    return panels


def draw_ceiling(times_s: np.ndarray, ceiling: np.ndarray, theme: Theme) -> bytes:
    """Draw the ceiling over time: median and spread over channels, and the best channel.

    Parameters
    ----------
    times_s : array of shape (n_times,)
    ceiling : array of shape (n_units, n_times)
    theme : Theme
    """
    kept = thin_times(times_s)
    x, values = 1000 * times_s[kept], ceiling[:, kept]
    low, middle, high, top = np.nanpercentile(values, (25, 50, 75, 100), axis=0)
    figure, axes = new_axes(2.5, theme)
    axes.fill_between(x, low, high, color=theme.soft, linewidth=0)
    axes.plot(x, middle, color=theme.accent, linewidth=1.7, label="median channel")
    axes.plot(x, top, color=theme.muted, linewidth=1.0, label="best channel")
    axes.axvline(0, color=theme.muted, linewidth=0.8)
    axes.axhline(0, color=theme.muted, linewidth=0.8)
    axes.set_xlim(x[0], x[-1])
    axes.set_ylim(min(0.0, float(np.nanmin(low))), max(0.1, 1.08 * float(np.nanmax(top))))
    legend_above(axes, theme)
    label_axes(axes, theme, "time from onset (ms)", "noise ceiling (r)")
    return to_svg(figure)


def ceiling_panels(report: SubjectReport) -> list[Panel]:
    """Ceiling over time, and where on the head it is high."""
    data = report.recordings.responses if report.recordings else None
    sensors = _sensors(report)
    if data is None or data.ceiling is None or not np.isfinite(data.ceiling).any():
        return []
    ceiling = np.asarray(data.ceiling, dtype=np.float64)
    with np.errstate(all="ignore"):
        middle = np.nanmedian(ceiling, axis=0)
    best = int(np.nanargmax(middle))
    at = f"{1000 * data.times_s[best]:.0f} ms".replace("-", "−")
    panels = [
        Panel(
            "Noise ceiling over time",
            f"Noise ceiling of single trials over time: the median channel reaches "
            f"{middle[best]:.2f} at {at}",
            partial(draw_ceiling, data.times_s, ceiling),
        )
    ]
    for kind in sensors.known_kinds if sensors else ():
        flat = flat_sensors(sensors, kind)
        if flat is None or len(ceiling) != len(sensors.names if sensors else ()):
            continue
        values = np.clip(np.nan_to_num(flat.gather(ceiling[:, best][None])), 0, None)
        panels.append(
            Panel(
                f"Noise ceiling at {at} · {unit_of(kind)[0]}",
                f"Map of the noise ceiling at {at}: largest {values.max():.2f}",
                partial(draw_maps, flat, values, [at], max(float(values.max()), 0.05),
                        "noise ceiling (r)"),
            )
        )  # fmt: skip
    return panels


def draw_eigenvalues(spectra: dict[str, np.ndarray], theme: Theme) -> bytes:
    """Draw the eigenvalues of the noise covariance, largest first, each over its median.

    Parameters
    ----------
    spectra : dict of str to array of shape (n_units,)
    theme : Theme
    """
    figure, axes = new_axes(2.5, theme)
    styles = ((theme.muted, 1.2), (theme.second, 1.5), (theme.accent, 1.8))
    lowest = []
    for (name, values), (colour, width) in zip(spectra.items(), styles, strict=False):
        shown = np.sort(np.asarray(values, dtype=np.float64))[::-1]
        shown = np.where(shown > 0, shown, np.nan) / float(np.nanmedian(shown[shown > 0]))
        lowest.append(np.nanmin(shown))
        axes.plot(np.arange(1, len(shown) + 1), shown, color=colour, linewidth=width, label=name)
    axes.set_yscale("log")
    axes.set_ylim(max(min(lowest) / 2, 1e-9), None)
    axes.axhline(1, color=theme.grid, linewidth=0.8)
    axes.set_yticks([], minor=True)
    legend_above(axes, theme)
    label_axes(axes, theme, "component, largest first", "variance over its median")
    return to_svg(figure)


def whitening_panels(report: SubjectReport) -> list[Panel]:
    """Eigenvalues of the noise covariance, and what whitening makes of them."""
    data = report.recordings.responses if report.recordings else None
    spectra = {
        name: values
        for name, values in (data.eigenvalues.items() if data else ())
        if (np.asarray(values) > 0).sum() > 1
    }
    if not spectra or data is None:
        return []
    name, values = next(iter(spectra.items()))
    values = np.sort(np.asarray(values)[np.asarray(values) > 0])
    told = f", shrinkage {data.shrinkage:.3f}" if np.isfinite(data.shrinkage) else ""
    return [
        Panel(
            f"Noise covariance{told}",
            f"Eigenvalues of the noise covariance ({', '.join(spectra)}): {name}, the largest is "
            f"{values[-1] / values[0]:.2g} times the smallest{told}",
            partial(draw_eigenvalues, dict(spectra)),
        )
    ]


def draw_dropped(counts: dict[str, int], kept: int, theme: Theme) -> bytes:
    """Draw how many trials were kept, and dropped for each reason."""
    rows = [("used", kept, theme.soft)] if kept else []
    rows += [(reason, count, theme.second) for reason, count in counts.items()]
    figure, axes = new_axes(0.62 + 0.27 * len(rows), theme, grid="x")
    for place, (_, count, colour) in enumerate(rows):
        axes.barh(-place, count, height=0.66, color=colour, linewidth=0)
        axes.text(
            1.015, -place, str(count), transform=axes.get_yaxis_transform(), va="center",
            color=theme.ink,
        )  # fmt: skip
    axes.set_yticks([-place for place in range(len(rows))], [name for name, _, _ in rows])
    axes.set_ylim(-len(rows) + 0.4, 0.6)
    axes.locator_params(axis="x", nbins=5)
    label_axes(axes, theme, "trials")
    return to_svg(figure)


def dropped_panels(report: SubjectReport) -> list[Panel]:
    """Trials left out, and why."""
    data = report.recordings.responses if report.recordings else None
    counts = {why: n for why, n in (data.dropped.items() if data else ()) if n}
    if data is None or not counts:
        return []
    told = "; ".join(f"{count} {reason}" for reason, count in counts.items())
    return [
        Panel(
            "Trials used and dropped",
            f"{data.n_kept} trials used; dropped: {told}",
            partial(draw_dropped, counts, data.n_kept),
        )
    ]


def _known(report: SubjectReport) -> tuple[Sensors, EvokedResponses, np.ndarray] | None:
    """Return what evoked curves need, or None where any of it is missing."""
    data = report.recordings.responses if report.recordings else None
    sensors = _sensors(report)
    if data is None or sensors is None or data.evoked is None:
        return None
    if data.evoked.shape[1] != len(sensors.names) or len(data.times_s) < 3:
        return None
    if not np.isfinite(data.evoked).any():
        return None
    return sensors, data, np.asarray(data.evoked, dtype=np.float64)


def _sensors(report: SubjectReport) -> Sensors | None:
    """Return the channels of the responses, which may be fewer than were recorded."""
    recordings = report.recordings
    if recordings is None:
        return None
    own = recordings.responses.sensors if recordings.responses else None
    return own or recordings.sensors
