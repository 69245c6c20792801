"""Maps of the brain as a mosaic of slices, with a colour bar or with outlines.

Axial slices are turned so that left is left and front is up, whatever the order of axes on disk.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from afterimage.reports.figures.style import PANEL_WIDTH_IN, Theme, bare, new_stack, to_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_COLUMNS = 6
MAX_ROWS = 3
#: Pictures of more pixels than this are thinned out.
MAX_PIXELS = 160_000
#: Colours of a map: as many as an eye tells apart, which compresses well.
N_LEVELS = 48
#: Blue and orange of Okabe and Ito, bright enough on a grey image in either theme.
OUTLINES = ("#56b4e9", "#e69f00")
#: No colour of a theme, so that it stays as it is on dark screens.
ON_GREY = "#f4f4f4"
COLOUR_MAP = "viridis"


#: Slicing axis of the turned volume: the axes that run to the right and up, and its letter.
PLANES = {2: ((0, 1, 2), "z"), 1: ((0, 2, 1), "y"), 0: ((1, 2, 0), "x")}


@dataclass(frozen=True, eq=False)
class Slices:
    """Which slices are shown, and how a volume becomes a mosaic of them.

    Parameters
    ----------
    affine : array of shape (4, 4)
        From array index to mm.
    axis : int
        Slicing axis of the turned volume: 2 for axial slices, 1 coronal, 0 sagittal.
    rows, columns, numbers : array of int
        What is cut out of the turned volume: upwards, to the right, and the slices.
    place_mm : array of shape (n_slices,)
        Place of each slice on the slicing axis.
    aspect : float
        Height of a voxel over its width.
    """

    affine: np.ndarray
    axis: int
    rows: np.ndarray
    columns: np.ndarray
    numbers: np.ndarray
    place_mm: np.ndarray
    aspect: float

    @property
    def headroom(self) -> int:
        """Empty rows above each slice, where its place is written."""
        share = 0.2 * self.n_columns / MAX_COLUMNS
        return max(2, round(share * len(self.columns) / self.aspect))

    @property
    def n_columns(self) -> int:
        """Slices in a row; one alone does not fill the whole width."""
        return min(max(len(self.numbers), 2), MAX_COLUMNS)

    @property
    def n_rows(self) -> int:
        """Rows of slices."""
        return -(-len(self.numbers) // self.n_columns)

    def filled(self) -> np.ndarray:
        """Return 1 where the mosaic has a slice or the room above it, 0 behind the last one."""
        height, width = len(self.rows) + self.headroom, len(self.columns)
        place = np.arange(self.n_rows * self.n_columns).reshape(self.n_rows, self.n_columns)
        cells = np.kron(place < len(self.numbers), np.ones((height, width)))
        return np.asarray(cells, dtype=float)

    def mosaic(self, volume: np.ndarray, fill: float) -> np.ndarray:
        """Lay out the slices of a volume; array of shape (height, width), first row on top."""
        turned = turn(volume, self.affine)[0].transpose(PLANES[self.axis][0])
        height, width = len(self.rows) + self.headroom, len(self.columns)
        out = np.full((self.n_rows * height, self.n_columns * width), fill, dtype=float)
        for place, number in enumerate(self.numbers):
            piece = turned[np.ix_(self.columns, self.rows[::-1], [number])][:, :, 0].T
            top, left = place // self.n_columns * height, place % self.n_columns * width
            out[top + self.headroom : top + height, left : left + width] = piece
        return out


def turn(volume: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Turn a volume so that its axes run to the right, to the front and up.

    Returns
    -------
    volume : array of shape (x, y, z)
    affine : array of shape (4, 4)
        Of the turned volume.
    """
    from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation

    orientation = io_orientation(affine)
    turned = apply_orientation(volume, orientation)
    return turned, affine @ inv_ornt_aff(orientation, volume.shape)


def choose_slices(mask: np.ndarray, affine: np.ndarray) -> Slices:
    """Choose evenly spaced slices that hold the mask, cut to its extent and a margin.

    Slices are axial, unless the scan is a thin slab in another plane.

    Parameters
    ----------
    mask : array of shape (x, y, z), bool
        Not empty.
    affine : array of shape (4, 4)
    """
    turned, turned_affine = turn(np.asarray(mask, dtype=bool), affine)
    extent = [
        int(turned.any(axis=tuple(other for other in range(3) if other != axis)).sum())
        for axis in range(3)
    ]
    axis = 2 if extent[2] <= 3 or min(extent[:2]) > 3 else int(np.argmin(extent))
    order = PLANES[axis][0]
    turned = turned.transpose(order)
    size = np.linalg.norm(turned_affine[:3, :3], axis=0)[list(order)]
    columns, rows, levels = (
        np.flatnonzero(turned.any(axis=tuple(other for other in range(3) if other != direction)))
        for direction in range(3)
    )
    # A slice that only grazes the mask shows nothing.
    area = turned.sum(axis=(0, 1))[levels]
    levels = levels[area >= 0.2 * area.max()]
    shown = min(len(levels), MAX_COLUMNS * MAX_ROWS)
    numbers = levels[np.unique(np.linspace(0, len(levels) - 1, shown).round().astype(int))]
    columns = np.arange(max(columns[0] - 1, 0), min(columns[-1] + 2, turned.shape[0]))
    rows = np.arange(max(rows[0] - 1, 0), min(rows[-1] + 2, turned.shape[1]))
    step = 1
    while len(columns) * len(rows) * len(numbers) / step**2 > MAX_PIXELS:
        step += 1
    place_mm = turned_affine[axis, 3] + turned_affine[axis, axis] * numbers
    return Slices(
        affine, axis, rows[::step], columns[::step], numbers, place_mm, float(size[1] / size[0])
    )


def grey(slices: Slices, mean: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return the mean image as grey levels from 0 to 1, bright tissue at 0.9."""
    inside = np.asarray(mean, dtype=float)[mask]
    top = float(np.percentile(inside[np.isfinite(inside)], 98)) or 1.0
    levels = np.clip(slices.mosaic(np.nan_to_num(mean), 0.0) / top, 0, 1) * 0.9
    return np.round(levels * 32) / 32


def draw_map(
    volume: np.ndarray,
    slices: Slices,
    limits: tuple[float, float],
    label: str,
    underlay: tuple[np.ndarray, np.ndarray] | None,
    theme: Theme,
) -> bytes:
    """Draw a map over the mean image, with a colour bar.

    Parameters
    ----------
    volume : array of shape (x, y, z), float
        NaN where nothing is drawn; values outside the limits take the colours of the ends.
    slices : Slices
    limits : tuple of (low, high)
        Values at the ends of the colour bar.
    label : str
        What the values are.
    underlay : tuple of (mean, mask) or None
        Mean image, drawn in grey inside the mask.
    theme : Theme
    """
    import matplotlib as mpl

    low, high = limits
    values = slices.mosaic(volume, np.nan)
    known = np.isfinite(values)
    colours = mpl.colormaps[COLOUR_MAP]
    level = np.clip((np.where(known, values, low) - low) / (high - low), 0, 1)
    picture = colours(np.round(level * (N_LEVELS - 1)) / (N_LEVELS - 1))
    picture[..., 3] = known
    if underlay is not None:
        mean, mask = underlay
        ground = grey(slices, mean, mask) * 0.75 + 0.1
        show = ~known & (slices.mosaic(mask, 0.0) > 0)
        picture[show] = np.stack([ground] * 3 + [np.ones_like(ground)], axis=-1)[show]
    height = _height_in(picture, slices)
    figure, (axes, bar) = new_stack([height, 0.42], theme)
    _show(axes, (picture * 255).round().astype(np.uint8), slices, theme.muted)
    bar.set_yticks([])
    bar.grid(False)
    bar.spines["bottom"].set_visible(False)
    gradient = np.linspace(0, 1, N_LEVELS)[None]
    bar.imshow(
        (colours(gradient) * 255).astype(np.uint8), extent=(low, high, 0, 1), aspect="auto",
        interpolation="none",
    )  # fmt: skip
    bar.set_box_aspect(0.028)
    bar.locator_params(axis="x", nbins=5, steps=[1, 2, 2.5, 5, 10])
    bar.set_xlabel(label, color=theme.muted, fontsize=8.5)
    return to_svg(figure)


def draw_outlines(
    mean: np.ndarray,
    masks: Mapping[str, np.ndarray],
    slices: Slices,
    mask: np.ndarray,
    theme: Theme,
) -> bytes:
    """Draw the edges of masks on the mean image, and a legend.

    Parameters
    ----------
    mean : array of shape (x, y, z)
    masks : mapping of str to array of shape (x, y, z), bool
        At most two, by what they are called in the legend.
    slices : Slices
    mask : array of shape (x, y, z), bool
        Sets the brightness of the image.
    theme : Theme
    """
    ground = grey(slices, mean, mask)
    picture = np.stack([ground] * 3 + [slices.filled()], axis=-1)
    named = dict(zip(masks, OUTLINES, strict=False))
    height = _height_in(picture, slices)
    figure, (axes, legend) = new_stack([height, 0.26], theme)
    _show(axes, (picture * 255).round().astype(np.uint8), slices, ON_GREY)
    # The first line is the wider one: where both lie on each other, both are seen.
    for (name, colour), width in zip(named.items(), (1.7, 0.8), strict=False):
        inside = slices.mosaic(masks[name], 0.0)
        if inside.any():
            axes.contour(inside, levels=[0.5], colors=[colour], linewidths=width)
    bare(legend)
    legend.set_xlim(0, 1)
    legend.set_ylim(0, 1)
    for place, (name, colour) in enumerate(named.items()):
        left = 0.02 + 0.42 * place
        legend.plot([left, left + 0.05], [0.5, 0.5], color=colour, linewidth=2.5)
        legend.text(left + 0.065, 0.5, name, color=theme.ink, va="center")
    return to_svg(figure)


def _height_in(picture: np.ndarray, slices: Slices) -> float:
    return PANEL_WIDTH_IN * picture.shape[0] * slices.aspect / picture.shape[1] + 0.05


def _show(axes: Axes, picture: np.ndarray, slices: Slices, colour: str) -> None:
    """Put the mosaic on the axes and the place of each slice above it."""
    bare(axes)
    axes.imshow(picture, interpolation="none", aspect=slices.aspect)
    height = picture.shape[0] / slices.n_rows
    width = picture.shape[1] / slices.n_columns
    letter = PLANES[slices.axis][1]
    for place, mm in enumerate(slices.place_mm):
        text = f"{mm:.0f}".replace("-", "−")
        axes.text(
            (place % slices.n_columns + 0.04) * width - 0.5,
            place // slices.n_columns * height - 0.5,
            f"{letter} = {text}" if place == 0 else text,
            color=colour, fontsize=6.5, va="top",
        )  # fmt: skip
