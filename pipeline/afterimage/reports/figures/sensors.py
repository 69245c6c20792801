"""Maps over the sensors: the head from above, nose up, with values between sensors interpolated.

Positions are laid flat by an azimuthal equidistant projection from the centre of the sphere that
fits them; values between sensors come from a thin-plate spline.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from afterimage.reports.figures.style import PANEL_WIDTH_IN, Theme, bare, new_stack, to_svg
from afterimage.reports.recordings import Sensors

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MIN_SENSORS = 6
#: Pixels of a map in each direction.
N_PIXELS = 56
N_LEVELS = 40
N_COLUMNS = 4
#: Blue over near white to orange, as elsewhere on the page; and from near white to blue.
DIVERGING = ("#0a4a78", "#3f8fc4", "#b9d7ea", "#f6f6f4", "#f2c49c", "#dd7a2b", "#97420a")
RISING = ("#f6f6f4", "#c3dcec", "#6faed6", "#1f78b4", "#0a3a60")
#: Lines on a map, which is light in either theme.
ON_MAP = "#20262b"
QUALITY = 80


@dataclass(frozen=True, eq=False)
class FlatSensors:
    """Sensors of one kind, laid flat.

    Parameters
    ----------
    numbers : sequence of array of int
        The channels that share each place: one, or the two gradiometers of a pair.
    places : array of shape (n_places, 2)
        To the right and to the front; the head is the circle of radius 1.
    radius : float
        Of the circle that holds all places.
    kind : str
    """

    numbers: Sequence[np.ndarray]
    places: np.ndarray
    radius: float
    kind: str

    @property
    def paired(self) -> bool:
        """Whether several channels share a place, so that only their strength can be shown."""
        return any(len(found) > 1 for found in self.numbers)

    def gather(self, values: np.ndarray) -> np.ndarray:
        """Return one value a place: the channel's own, or the root mean square of a pair."""
        values = np.asarray(values, dtype=np.float64)
        if not self.paired:
            return values[..., np.concatenate(list(self.numbers))]
        squares = [np.mean(values[..., found] ** 2, axis=-1) for found in self.numbers]
        return np.sqrt(np.stack(squares, axis=-1))


def fit_centre(positions: np.ndarray) -> np.ndarray:
    """Return the centre of the sphere nearest to the positions, in their unit."""
    design = np.column_stack([2 * positions, np.ones(len(positions))])
    solution, _, rank, _ = np.linalg.lstsq(design, (positions**2).sum(axis=1), rcond=None)
    centre = solution[:3]
    spread = np.linalg.norm(positions - positions.mean(axis=0), axis=1).max()
    # Sensors on a small patch do not tell where the centre is.
    if rank < 4 or np.linalg.norm(centre - positions.mean(axis=0)) > 2 * spread:
        return np.zeros(3)
    return np.asarray(centre)


def lay_flat(positions: np.ndarray) -> np.ndarray:
    """Project positions around a head onto a plane.

    Parameters
    ----------
    positions : array of shape (n, 3)
        Right, front, up.

    Returns
    -------
    places : array of shape (n, 2)
        Distance from the top is the angle to it, 1 at a right angle.
    """
    rays = positions - fit_centre(positions)
    angle = np.arctan2(np.hypot(rays[:, 0], rays[:, 1]), rays[:, 2]) / (np.pi / 2)
    around = np.arctan2(rays[:, 1], rays[:, 0])
    return np.column_stack([angle * np.cos(around), angle * np.sin(around)])


def flat_sensors(sensors: Sensors | None, kind: str) -> FlatSensors | None:
    """Lay the sensors of one kind flat; None where too few positions are known."""
    if sensors is None:
        return None
    numbers = sensors.of_kind(kind)
    positions = np.asarray(sensors.positions, dtype=np.float64)
    known = numbers[np.isfinite(positions[numbers]).all(axis=1)]
    if len(known) < MIN_SENSORS:
        return None
    # Gradiometers of a pair lie within a fraction of a millimetre.
    _, first, group = np.unique(
        np.round(positions[known], 3), axis=0, return_index=True, return_inverse=True
    )
    group = group.ravel()
    if len(first) < MIN_SENSORS:
        return None
    order = np.argsort(first)
    members = [known[group == number] for number in order]
    places = lay_flat(positions[known[first[order]]])
    far = float(np.hypot(*places.T).max())
    return FlatSensors(members, places, max(1.0, 1.06 * far), kind)


def interpolate(flat: FlatSensors, values: np.ndarray) -> np.ndarray:
    """Interpolate maps between the sensors.

    Parameters
    ----------
    flat : FlatSensors
    values : array of shape (n_maps, n_places)

    Returns
    -------
    maps : array of shape (n_maps, N_PIXELS, N_PIXELS)
        Rows from back to front; NaN outside the circle and where no value is known.
    """
    from scipy.interpolate import RBFInterpolator

    axis = np.linspace(-flat.radius, flat.radius, N_PIXELS)
    x, y = np.meshgrid(axis, axis)
    inside = np.hypot(x, y) <= flat.radius
    points = np.column_stack([x[inside], y[inside]])
    maps = np.full((len(values), N_PIXELS, N_PIXELS), np.nan)
    for number, row in enumerate(np.asarray(values, dtype=np.float64)):
        known = np.isfinite(row)
        if known.sum() < MIN_SENSORS:
            continue
        scale = np.abs(row[known]).max() or 1.0
        spline = RBFInterpolator(flat.places[known], row[known] / scale, smoothing=1e-4)
        # Beyond the outermost sensors a spline runs away.
        found = np.clip(spline(points), row[known].min() / scale, row[known].max() / scale)
        maps[number, inside] = found * scale
    return maps


def draw_head(axes: Axes, radius: float, theme: Theme) -> None:
    """Draw the outline of the head with nose and ears, and set the limits around it."""
    around = np.linspace(0, 2 * np.pi, 90)
    axes.plot(np.cos(around), np.sin(around), color=theme.muted, linewidth=0.9, zorder=3)
    axes.plot([-0.12, 0, 0.12], [0.993, 1.14, 0.993], color=theme.muted, linewidth=0.9, zorder=3)
    for side in (-1, 1):
        ear = np.linspace(-np.pi / 2, np.pi / 2, 24)
        axes.plot(
            side * (0.99 + 0.09 * np.cos(ear)), 0.19 * np.sin(ear),
            color=theme.muted, linewidth=0.9, zorder=3,
        )  # fmt: skip
    reach = max(radius, 1.1) + 0.05
    axes.set_xlim(-reach, reach)
    axes.set_ylim(-reach, max(radius, 1.15) + 0.05)
    axes.set_aspect("equal")


def draw_maps(
    flat: FlatSensors,
    values: np.ndarray,
    titles: Sequence[str],
    limit: float | None,
    label: str,
    theme: Theme,
    colours: Sequence[str] | None = None,
) -> bytes:
    """Draw maps side by side, with a colour bar.

    Parameters
    ----------
    flat : FlatSensors
    values : array of shape (n_maps, n_places)
    titles : sequence of str, shape (n_maps,)
        May have two lines.
    limit : float or None
        Value at the end of the colour bar; None scales every map to its own largest value, and
        leaves the bar out.
    label : str
        What the values are, for the colour bar.
    theme : Theme
    colours : sequence of str, optional
        Colours of the titles; default the ink.
    """
    from matplotlib.colors import LinearSegmentedColormap

    signed = not flat.paired and bool(np.nanmin(values, initial=0) < 0)
    colour_map = LinearSegmentedColormap.from_list("map", DIVERGING if signed else RISING)
    n_columns = min(max(len(titles), 2), N_COLUMNS)
    n_rows = -(-len(titles) // n_columns)
    lines = max((title.count("\n") + 1 for title in titles), default=1)
    row_in = PANEL_WIDTH_IN / n_columns * (1.0 if n_columns > 2 else 0.8) + 0.17 * lines
    heights = [row_in * n_rows] + ([0.42] if limit else [])
    figure, stack = new_stack(heights, theme)
    bare(stack[0])
    grid = stack[0].get_subplotspec().subgridspec(n_rows, n_columns)  # type: ignore[union-attr]
    maps = interpolate(flat, values)
    for number, (picture, title) in enumerate(zip(maps, titles, strict=True)):
        axes = figure.add_subplot(grid[number // n_columns, number % n_columns])
        axes.patch.set_alpha(0)
        bare(axes)
        for spine in axes.spines.values():
            spine.set_visible(False)
        top = limit or float(np.nanmax(np.abs(picture), initial=0)) or 1.0
        _paint(
            axes, flat, picture, (-top if signed else 0.0, top), colour_map, dots=limit is not None
        )
        draw_head(axes, flat.radius, theme)
        colour = colours[number] if colours else theme.ink
        axes.set_title(title, fontsize=7.5, color=colour, pad=2)
    if limit:
        _colour_bar(stack[1], (-limit if signed else 0.0, limit), colour_map, label, theme)
    return to_svg(figure, smooth=QUALITY)


def _paint(
    axes: Axes,
    flat: FlatSensors,
    picture: np.ndarray,
    limits: tuple[float, float],
    colour_map: object,
    *,
    dots: bool,
) -> None:
    """Put one map on its axes, with the sensors as dots where asked."""
    low, high = limits
    known = np.isfinite(picture)
    level = np.clip((np.where(known, picture, low) - low) / (high - low), 0, 1)
    painted = colour_map(np.round(level * (N_LEVELS - 1)) / (N_LEVELS - 1))  # type: ignore[operator]
    painted[..., 3] = known
    edge = flat.radius
    axes.imshow(
        (painted * 255).round().astype(np.uint8), extent=(-edge, edge, -edge, edge),
        origin="lower", interpolation="none",
    )  # fmt: skip
    if known.any():
        axes.contour(
            np.linspace(-edge, edge, N_PIXELS), np.linspace(-edge, edge, N_PIXELS), picture,
            levels=_contour_levels(low, high), colors=[ON_MAP], linewidths=0.35, alpha=0.5,
        )  # fmt: skip
    if dots:
        size = 1.1 if len(flat.places) <= 80 else 0.7
        axes.plot(*flat.places.T, "o", color=ON_MAP, markersize=size, alpha=0.6, mew=0)


def _contour_levels(low: float, high: float) -> list[float]:
    """Return levels away from zero, where noise would draw a tangle of lines."""
    return [high * share for share in ((-0.66, -0.33, 0.33, 0.66) if low < 0 else (0.33, 0.66))]


def _colour_bar(
    axes: Axes, limits: tuple[float, float], colour_map: object, label: str, theme: Theme
) -> None:
    axes.set_yticks([])
    axes.grid(False)
    axes.spines["bottom"].set_visible(False)
    gradient = colour_map(np.linspace(0, 1, N_LEVELS)[None])  # type: ignore[operator]
    axes.imshow(
        (gradient * 255).astype(np.uint8), extent=(*limits, 0, 1), aspect="auto",
        interpolation="none",
    )  # fmt: skip
    axes.set_box_aspect(0.028)
    axes.locator_params(axis="x", nbins=5, steps=[1, 2, 2.5, 5, 10])
    axes.set_xlabel(label, color=theme.muted, fontsize=8.5)
