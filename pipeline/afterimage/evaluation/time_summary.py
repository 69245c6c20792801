"""What a curve of sliding windows says in one number: the leak alarm and the latency of the peak.

Latencies with intervals by resampling as in Cichy, Pantazis and Oliva 2014 (doi:10.1038/nn.3635).

What differs: images are resampled, not people; the peak is the centre of its upper part, since the
maximum alone jumps between windows that hold the same response; the windows before the onset are
tested together, so that one study has one alarm, not as many as it has windows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from afterimage.evaluation.gallery import COLUMNS, Curve, plain
from afterimage.evaluation.metrics import protocol
from afterimage.evaluation.scores import Resampling
from afterimage.evaluation.statistics import bootstrap_means
from afterimage.evaluation.time_resolved import Window

#: Share of the height above chance from which a part of the curve counts as its peak.
PEAK_HEIGHT = 0.75


@dataclass(frozen=True)
class LeakAlarm:
    """Mean score of the windows before the onset, where nothing can be known of the image.

    Attributes
    ----------
    value, low, high : float
        Mean over windows and images, and its interval by resampling images.
    chance : float
    rings : bool
        The whole interval lies above chance: without a leak, once in 40 studies.
    start_s, end_s : float
        From the first to the last time of the windows.
    n_windows : int
    """

    value: float
    low: float
    high: float
    chance: float
    rings: bool
    start_s: float
    end_s: float
    n_windows: int


def leak_alarm(
    curve: Curve, windows: Sequence[Window], resampling: Resampling | None = None
) -> LeakAlarm | None:
    """Test the windows that end before the onset together; None where there are none.

    Parameters
    ----------
    curve : Curve
        Of sliding windows.
    windows : sequence of Window
    resampling : Resampling, optional
    """
    drawing = resampling or Resampling()
    before = [number for number, window in enumerate(windows) if window.end_s <= 1e-9]
    if not before:
        return None
    values = curve.per_image[before].mean(axis=0)
    chance = float(curve.chance[before].mean())
    low = high = float("nan")
    if len(values) > 1:
        means = bootstrap_means(
            values, n_bootstraps=drawing.n_bootstraps, random_state=drawing.random_state
        )
        tail = (1 - drawing.level) / 2
        low, high = (float(edge) for edge in np.quantile(means, [tail, 1 - tail]))
    return LeakAlarm(
        float(values.mean()), low, high, chance, bool(low > chance),
        windows[before[0]].start_s, windows[before[-1]].end_s, len(before),
    )  # fmt: skip


def peak_latency(
    curve: Curve, windows: Sequence[Window], resampling: Resampling | None = None
) -> tuple[float, float, float]:
    """Where the curve peaks after the onset, with its interval by resampling images.

    The peak is the centre of mass of the stretch around the maximum that stays above
    `PEAK_HEIGHT` of the way from chance to the maximum: the maximum alone jumps between windows
    that all hold the same response.

    Parameters
    ----------
    curve : Curve
    windows : sequence of Window
        Those whose centre lies before the onset are left out.
    resampling : Resampling, optional

    Returns
    -------
    latency, low, high : float
        Seconds from the onset; all NaN where no window after the onset exceeds chance, corrected.
    """
    drawing = resampling or Resampling()
    after = [number for number, window in enumerate(windows) if window.centre_s > 0]
    nothing = (float("nan"),) * 3
    if not after or not (curve.p_corrected[after] < 0.05).any():
        return nothing
    centres = np.array([windows[number].centre_s for number in after])
    above = curve.per_image[after] - curve.chance[after, None]
    means = bootstrap_means(
        above.T, n_bootstraps=drawing.n_bootstraps, random_state=drawing.random_state
    )
    tail = (1 - drawing.level) / 2
    low, high = np.quantile([_peak(row, centres) for row in means], [tail, 1 - tail])
    return _peak(above.mean(axis=1), centres), float(low), float(high)


def _peak(above_chance: NDArray[np.float64], centres: NDArray[np.float64]) -> float:
    top = int(above_chance.argmax())
    inside = above_chance >= PEAK_HEIGHT * above_chance[top]
    first = top - int(np.argmin(inside[top::-1])) if not inside[: top + 1].all() else -1
    last = top + int(np.argmin(inside[top:])) if not inside[top:].all() else len(inside)
    part = slice(first + 1, last)
    weights = np.maximum(above_chance[part], 1e-12)
    return float((weights * centres[part]).sum() / weights.sum())


def alarm_row(
    alarm: LeakAlarm, curve: Curve, *, subject: str, label: str, n_gallery: int
) -> dict[str, Any]:
    """Row of the table for the leak alarm of one metric."""
    told = (
        f"mean of {alarm.n_windows} sliding windows before the onset",
        "rings where the interval lies above chance",
    )
    return _single_row(curve, "prestimulus", told, n_gallery) | {
        "subject": subject,
        "label": label,
        "window_start_s": alarm.start_s,
        "window_end_s": alarm.end_s,
        "value": plain(alarm.value),
        "ci_low": plain(alarm.low),
        "ci_high": plain(alarm.high),
        "chance": plain(alarm.chance),
        "alarm": "rings" if alarm.rings else "quiet",
    }


def peak_row(
    peak: tuple[float, float, float],
    curve: Curve,
    windows: Sequence[Window],
    *,
    subject: str,
    label: str,
    n_gallery: int,
) -> dict[str, Any]:
    """Row of the table for the peak latency of one metric, in seconds from the onset."""
    told = (
        f"centre of mass above {PEAK_HEIGHT:g} of the peak of the sliding windows",
        "empty where no window after the onset exceeds chance, corrected",
    )
    after = [window for window in windows if window.centre_s > 0]
    edges = (after[0].start_s, after[-1].end_s) if after else (None, None)
    return _single_row(curve, "peak_latency", told, n_gallery) | {
        "subject": subject,
        "label": label,
        "window_start_s": edges[0],
        "window_end_s": edges[1],
        "value": plain(peak[0]),
        "ci_low": plain(peak[1]),
        "ci_high": plain(peak[2]),
    }


def _single_row(
    curve: Curve, analysis: str, told: Sequence[str], n_gallery: int
) -> dict[str, Any]:
    n = curve.per_image.shape[1]
    text = protocol(
        size="decoded features", n=n, repeats="averaged", selection="no selection",
        direction="brain_to_image", gallery=n_gallery, extra=told,
    )  # fmt: skip
    row: dict[str, Any] = dict.fromkeys(COLUMNS)
    return row | {"analysis": analysis, "metric": curve.metric, "n": n, "protocol": text}
