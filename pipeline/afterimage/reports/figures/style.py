"""One look for all plots: small, quiet, colour-blind safe, for light and for dark screens."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANEL_WIDTH_IN = 4.5
PX_PER_IN = 96


@dataclass(frozen=True)
class Theme:
    """Colours of one screen mode, after the blue and orange of Okabe and Ito."""

    ink: str
    muted: str
    grid: str
    band: str
    accent: str
    soft: str
    second: str
    paper: str


LIGHT = Theme(
    ink="#1d2329",
    muted="#66707a",
    grid="#e3e7ea",
    band="#e6e9ec",
    accent="#0a5f97",
    soft="#a9cbe3",
    second="#c8580a",
    paper="#ffffff",
)
DARK = Theme(
    ink="#e4e8eb",
    muted="#98a3ad",
    grid="#2c343b",
    band="#333c44",
    accent="#6cb6ea",
    soft="#2d5775",
    second="#f0984e",
    paper="#171c21",
)

_RC = {
    "font.family": ["DejaVu Sans"],
    "font.size": 8.5,
    "svg.hashsalt": "afterimage",
    "svg.fonttype": "path",
    "path.simplify": True,
}


_PATH = re.compile(r' d="[^"]*"')
_COLOUR = re.compile(r"#[0-9a-f]{6}\b")
_LONG_NUMBER = re.compile(r"(\.\d\d)\d+")
_RASTER = re.compile(r'xlink:href="data:image/png;base64,([A-Za-z0-9+/=\s]+)"')


def recolour(svg: bytes, old: Theme, new: Theme) -> bytes:
    """Turn a plot of one theme into another, colour by colour, without drawing it again."""
    change = {value: getattr(new, name) for name, value in asdict(old).items()}
    text = _COLOUR.sub(lambda found: change.get(found.group(), found.group()), svg.decode("utf-8"))
    return text.encode("utf-8")


def new_axes(height_in: float, theme: Theme, *, grid: str = "y") -> tuple[Figure, Axes]:
    """Make one panel of the standard width with open axes and a light grid."""
    figure, (axes,) = new_stack([height_in], theme, grid=grid)
    return figure, axes


def new_stack(
    heights_in: Sequence[float], theme: Theme, *, grid: str = "y", share_x: bool = False
) -> tuple[Figure, list[Axes]]:
    """Make one panel of the standard width with axes below each other, of these heights."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(_RC):
        figure = Figure(figsize=(PANEL_WIDTH_IN, sum(heights_in)), layout="constrained")
        stack = figure.subplots(
            len(heights_in), sharex=share_x, squeeze=False, height_ratios=list(heights_in)
        )[:, 0]
    figure.patch.set_alpha(0)
    for axes in stack:
        axes.patch.set_alpha(0)
        for side in ("top", "right", "left"):
            axes.spines[side].set_visible(False)
        axes.spines["bottom"].set_color(theme.muted)
        axes.spines["bottom"].set_linewidth(0.8)
        axes.tick_params(colors=theme.muted, labelcolor=theme.ink, length=0, labelsize=8.5, pad=4)
        axes.grid(axis=grid, color=theme.grid, linewidth=0.8)
        axes.set_axisbelow(True)
    return figure, list(stack)


def bare(axes: Axes) -> None:
    """Take the ticks, the grid and the frame away from axes that hold a picture."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(False)
    axes.spines["bottom"].set_visible(False)


def label_axes(axes: Axes, theme: Theme, x: str, y: str = "") -> None:
    """Write the axis labels in the quiet colour."""
    axes.set_xlabel(x, color=theme.muted, fontsize=8.5)
    if y:
        axes.set_ylabel(y, color=theme.muted, fontsize=8.5)


def legend_above(axes: Axes, theme: Theme, n_columns: int = 3) -> None:
    """Name the lines in one row above the axes, where they cover nothing."""
    axes.legend(
        loc="lower left",
        bbox_to_anchor=(0, 1),
        ncols=n_columns,
        frameon=False,
        labelcolor=theme.ink,
        fontsize=8.5,
        borderaxespad=0.2,
        borderpad=0,
        handlelength=1.4,
        columnspacing=1.4,
    )


def to_svg(figure: Figure, *, smooth: int | None = None) -> bytes:
    """Write a figure as SVG; the same figure gives the same bytes.

    Parameters
    ----------
    figure : Figure
        Pictures in it should be drawn with ``interpolation="none"``, so that they are kept at
        their own size.
    smooth : int, optional
        Quality at which pictures are compressed, 1 to 100; without it every pixel is kept and
        drawn with sharp edges.
    """
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    with mpl.rc_context(_RC), io.BytesIO() as buffer:
        if (engine := figure.get_layout_engine()) is not None:
            engine.execute(figure)
            figure.set_layout_engine("none")
        # savefig would draw the whole figure twice
        FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None, "Creator": None})
        drawn = buffer.getvalue().decode("utf-8")
    drawn = _PATH.sub(lambda path: _LONG_NUMBER.sub(r"\1", path.group()), drawn)
    drawn = _RASTER.sub(lambda raster: _as_webp(raster.group(1), smooth), drawn)
    if smooth is not None:
        drawn = drawn.replace("image-rendering:crisp-edges;image-rendering:pixelated", "")
    return re.sub(r"\s*\n\s*", "\n", drawn).encode("utf-8")


def _as_webp(png: str, smooth: int | None) -> str:
    """Turn a PNG inside an SVG (base64) into a WebP, which takes a third of the place."""
    from PIL import Image as Picture

    with io.BytesIO() as buffer:
        picture = Picture.open(io.BytesIO(base64.b64decode(png)))
        if smooth is None:
            picture.save(buffer, "WEBP", lossless=True, quality=90, method=5)
        else:
            picture.save(buffer, "WEBP", quality=smooth, method=5)
        data = base64.b64encode(buffer.getvalue()).decode("ascii")
    return f'xlink:href="data:image/webp;base64,{data}"'


def time_axis(times_s: np.ndarray) -> tuple[np.ndarray, str]:
    """Return times in the unit that reads best, and the label of their axis."""
    if len(times_s) and float(times_s[-1]) > 300:
        return times_s / 60, "time (min)"
    return times_s, "time (s)"


def colour_bar(
    bar: Axes, name: str, limits: tuple[float, float], label: str, theme: Theme
) -> None:
    """Fill flat axes with the colours of a map between two values, and say what they mean."""
    import matplotlib as mpl

    bar.set_yticks([])
    bar.grid(False)
    bar.spines["bottom"].set_visible(False)
    gradient = (mpl.colormaps[name](np.linspace(0, 1, 64)[None]) * 255).astype(np.uint8)
    bar.imshow(gradient, extent=(*limits, 0, 1), aspect="auto", interpolation="none")
    bar.set_box_aspect(0.028)
    bar.locator_params(axis="x", nbins=5)
    label_axes(bar, theme, label)
