"""One look for all plots: small, quiet, colour-blind safe, for light and for dark screens."""

from __future__ import annotations

import io
import re
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

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


def recolour(svg: bytes, old: Theme, new: Theme) -> bytes:
    """Turn a plot of one theme into another, colour by colour, without drawing it again."""
    change = {value: getattr(new, name) for name, value in asdict(old).items()}
    text = _COLOUR.sub(lambda found: change.get(found.group(), found.group()), svg.decode("utf-8"))
    return text.encode("utf-8")


def new_axes(height_in: float, theme: Theme, *, grid: str = "y") -> tuple[Figure, Axes]:
    """Make one panel of the standard width with open axes and a light grid."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(_RC):
        figure = Figure(figsize=(PANEL_WIDTH_IN, height_in), layout="constrained")
        axes = figure.add_subplot()
    figure.patch.set_alpha(0)
    axes.patch.set_alpha(0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(theme.muted)
    axes.spines["bottom"].set_linewidth(0.8)
    axes.tick_params(colors=theme.muted, labelcolor=theme.ink, length=0, labelsize=8.5, pad=4)
    axes.grid(axis=grid, color=theme.grid, linewidth=0.8)  # type: ignore[arg-type]
    axes.set_axisbelow(True)
    return figure, axes


def label_axes(axes: Axes, theme: Theme, x: str, y: str = "") -> None:
    """Write the axis labels in the quiet colour."""
    axes.set_xlabel(x, color=theme.muted, fontsize=8.5)
    if y:
        axes.set_ylabel(y, color=theme.muted, fontsize=8.5)


def to_svg(figure: Figure) -> bytes:
    """Write a figure as SVG; the same figure gives the same bytes."""
    import matplotlib as mpl

    with mpl.rc_context(_RC), io.BytesIO() as buffer:
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
        drawn = buffer.getvalue().decode("utf-8")
    drawn = _PATH.sub(lambda path: _LONG_NUMBER.sub(r"\1", path.group()), drawn)
    return re.sub(r"\s*\n\s*", "\n", drawn).encode("utf-8")
