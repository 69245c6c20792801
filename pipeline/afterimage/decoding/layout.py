"""What the values of a response are: which sensor, where it is, and at what time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from afterimage.errors import InputError

TIME_TOLERANCE_S = 1e-9  # by which a limit may miss a sample and still include it


class LayoutLike(Protocol):
    """Anything that says how a flat response of n_units * n_times values is laid out.

    ``times_s`` (n_times,) in seconds from stimulus onset; ``positions`` (n_units, 3), NaN where
    unknown; ``kind`` (n_units,) of str; ``subject`` of all trials, unless a fit is told otherwise.
    """

    @property
    def n_units(self) -> int: ...  # noqa: D102
    @property
    def n_times(self) -> int: ...  # noqa: D102
    @property
    def times_s(self) -> np.ndarray: ...  # noqa: D102
    @property
    def positions(self) -> np.ndarray: ...  # noqa: D102
    @property
    def kind(self) -> np.ndarray: ...  # noqa: D102
    @property
    def subject(self) -> str: ...  # noqa: D102


@dataclass(frozen=True)
class Layout:
    """A layout; see `LayoutLike`."""

    n_units: int
    n_times: int
    times_s: np.ndarray
    positions: np.ndarray
    kind: np.ndarray
    subject: str = "all"


def flat_layout(n_values: int) -> Layout:
    """Return the layout of responses without a time axis or known positions."""
    unknown = np.full((n_values, 3), np.nan)
    return Layout(n_values, 1, np.zeros(1), unknown, np.full(n_values, "n/a"))


def window(layout: LayoutLike, tmin_s: float | None, tmax_s: float | None) -> Layout:
    """Return the layout of the times from ``tmin_s`` to ``tmax_s``, both included.

    Responses without a time axis (no times at all) become responses of one time.
    """
    times = np.asarray(layout.times_s, float)
    low = -np.inf if tmin_s is None else tmin_s - TIME_TOLERANCE_S
    high = np.inf if tmax_s is None else tmax_s + TIME_TOLERANCE_S
    times = times[(times >= low) & (times <= high)] if len(times) else np.zeros(1)
    return Layout(
        n_units=int(layout.n_units),
        n_times=len(times),
        times_s=times,
        positions=np.asarray(layout.positions, float),
        kind=np.asarray(layout.kind).astype(str),
        subject=str(layout.subject),
    )


def check_layout(shape: tuple[int, ...], layout: LayoutLike, where: str) -> None:
    """Raise InputError unless responses of ``shape`` have the units and times of the layout."""
    n_units, n_times = int(layout.n_units), int(layout.n_times)
    if tuple(shape[1:]) not in ((n_units * n_times,), (n_units, n_times)):
        raise InputError(
            "responses do not have the units and times of their layout",
            where=where,
            found=f"shape {tuple(shape)}",
            expected=f"(n_trials, {n_units} * {n_times})",
        )


def in_units_and_times(chunk: Any, layout: LayoutLike) -> np.ndarray:
    """Return some responses as float32 (n, n_units, n_times)."""
    values = np.asarray(chunk, np.float32)
    return values.reshape(len(values), int(layout.n_units), int(layout.n_times))


def sensor_places(layout: LayoutLike) -> tuple[np.ndarray, np.ndarray]:
    """Project sensors to a plane and tell apart those that share a place.

    The plane is that of the azimuthal equidistant projection around the centre of the sensors: a
    sensor's angle from straight up is its distance from the middle.

    Returns
    -------
    plane : float32, (n_units, 2)
        In 0..1; NaN where the position is unknown.
    group : int64, (n_units,)
        Sensors of one kind and, among sensors of one kind at one place (the two gradiometers of an
        element), of one rank; numbered from 0.
    """
    positions = np.asarray(layout.positions, float)
    known = np.isfinite(positions).all(1)
    plane = np.full((len(positions), 2), np.nan)
    if known.any():
        points = positions[known]
        # the middle of the bounding box is closer to a helmet's centre than the mean of its sensors
        centre = (points.max(0) + points.min(0)) / 2
        centre[2] = points[:, 2].min()
        x, y, z = (points - centre).T
        angle = np.arctan2(np.hypot(x, y), z)
        azimuth = np.arctan2(y, x)
        flat = np.stack([angle * np.cos(azimuth), angle * np.sin(azimuth)], 1)
        reach = max(float(np.abs(flat).max()), 1e-12)
        plane[known] = 0.5 + 0.5 * flat / reach
    labels = []
    seen: dict[tuple[str, ...], int] = {}
    for kind, place in zip(np.asarray(layout.kind).astype(str), np.round(plane, 3), strict=True):
        here = (str(kind), *map(str, place)) if np.isfinite(place).all() else ()
        rank = seen.get(here, 0) if here else 0
        seen[here] = rank + 1
        labels.append(f"{kind}/{rank}")
    group = np.unique(labels, return_inverse=True)[1]
    return plane.astype(np.float32), group.astype(np.int64)
