"""Drawn pictures with known attributes: the stimuli of the simulated studies.

Each picture shows one object of one of eight categories, in one of eight colours, at a known place
and size, with a known texture, on a soft background. A picture is a deterministic function of its
attributes, drawn at twice the resolution and averaged, so that what a decoder gets wrong can be
named. The eight categories follow the classes of category-selective visual cortex (face, place,
body, word, ...; Grill-Spector & Weiner 2014, doi:10.1038/nrn3747).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

CATEGORIES = ("face", "place", "body", "word", "food", "animal", "vehicle", "tool")
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (220, 25, 30),
    "orange": (250, 130, 10),
    "yellow": (245, 220, 20),
    "green": (25, 150, 45),
    "cyan": (20, 200, 215),
    "blue": (30, 60, 220),
    "purple": (120, 30, 165),
    "pink": (250, 95, 185),
}
TEXTURES = ("plain", "stripes", "dots")
BACKGROUNDS: dict[str, tuple[int, int, int]] = {
    "white": (246, 246, 246),
    "light blue": (186, 216, 242),
    "light green": (196, 230, 190),
    "cream": (248, 234, 200),
    "grey": (160, 160, 165),
    "dark grey": (100, 104, 116),
}
POSITIONS = {
    (-1, -1): "top left", (0, -1): "top", (1, -1): "top right",
    (-1, 0): "left", (0, 0): "centre", (1, 0): "right",
    (-1, 1): "bottom left", (0, 1): "bottom", (1, 1): "bottom right",
}  # fmt: skip
SIZE_RANGES = {"small": (0.22, 0.28), "large": (0.32, 0.38)}  # half width, in image widths
_CENTRE = 0.07  # an object nearer to the middle than this (image widths) is "in the centre"
_MARGIN = 0.02

# Palette of one picture: index 0 is the background, 1 the object's colour, 2 the other colour of
# its texture.
_OBJECT, _DARK, _WHITE, _TAN, _METAL = 1, 3, 4, 5, 6
_FIXED_COLOURS = ((22, 18, 26), (252, 252, 252), (205, 150, 90), (112, 118, 130))
_GLYPHS = {
    "S": ("###", "#..", "###", "..#", "###"),
    "U": ("#.#", "#.#", "#.#", "#.#", "###"),
    "N": ("#..#", "##.#", "#.##", "#..#", "#..#"),
}

Array = NDArray[np.float32]
Mask = NDArray[np.bool_]
Layers = list[tuple[Mask, int]]


def _ellipse(u: Array, v: Array, x: float, y: float, width: float, height: float) -> Mask:
    inside: Mask = ((u - x) / width) ** 2 + ((v - y) / height) ** 2 < 1
    return inside


def _box(u: Array, v: Array, left: float, right: float, top: float, bottom: float) -> Mask:
    inside: Mask = (u > left) & (u < right) & (v > top) & (v < bottom)
    return inside


def _bar(
    u: Array, v: Array, start: tuple[float, float], end: tuple[float, float], half_width: float
) -> Mask:
    """Mark the points within ``half_width`` of the segment from ``start`` to ``end``."""
    du, dv = end[0] - start[0], end[1] - start[1]
    along = ((u - start[0]) * du + (v - start[1]) * dv) / (du * du + dv * dv)
    along = np.clip(along, 0, 1)
    inside: Mask = (u - start[0] - along * du) ** 2 + (
        v - start[1] - along * dv
    ) ** 2 < half_width**2
    return inside


def _face(u: Array, v: Array) -> Layers:
    smile = _ellipse(u, v, 0, 0.28, 0.48, 0.42) & (v > 0.36)
    return [
        (_ellipse(u, v, 0, 0, 0.86, 1), _OBJECT),
        (_ellipse(u, v, -0.34, -0.2, 0.24, 0.2) | _ellipse(u, v, 0.34, -0.2, 0.24, 0.2), _WHITE),
        (_ellipse(u, v, -0.34, -0.2, 0.12, 0.15) | _ellipse(u, v, 0.34, -0.2, 0.12, 0.15), _DARK),
        (_box(u, v, -0.56, -0.14, -0.56, -0.45) | _box(u, v, 0.14, 0.56, -0.56, -0.45), _DARK),
        (smile | _box(u, v, -0.07, 0.07, -0.02, 0.2), _DARK),
    ]


def _place(u: Array, v: Array) -> Layers:
    roof = (v > -1) & (v < -0.1) & (np.abs(u) < (v + 1) / 0.9)
    windows = _box(u, v, -0.6, -0.26, 0.12, 0.46) | _box(u, v, 0.26, 0.6, 0.12, 0.46)
    return [
        (_box(u, v, 0.42, 0.66, -0.95, -0.3), _DARK),
        (_box(u, v, -0.82, 0.82, -0.12, 1), _OBJECT),
        (roof, _DARK),
        (windows, _WHITE),
        (_box(u, v, -0.17, 0.17, 0.4, 1), _DARK),
    ]


def _body(u: Array, v: Array) -> Layers:
    trunk = _box(u, v, -0.34, 0.34, -0.4, 0.3)
    arms = _bar(u, v, (-0.26, -0.28), (-0.76, 0.1), 0.13) | _bar(
        u, v, (0.26, -0.28), (0.76, 0.1), 0.13
    )
    legs = _bar(u, v, (-0.18, 0.24), (-0.36, 0.86), 0.14) | _bar(
        u, v, (0.18, 0.24), (0.36, 0.86), 0.14
    )
    return [
        (legs, _DARK),
        (arms | trunk, _OBJECT),
        (_ellipse(u, v, 0, -0.7, 0.27, 0.29), _TAN),
        (_ellipse(u, v, 0, -0.7, 0.27, 0.29) & (v < -0.8), _DARK),
    ]


def _word(u: Array, v: Array) -> Layers:
    n_columns = sum(len(glyph[0]) for glyph in _GLYPHS.values()) + len(_GLYPHS) - 1
    rows = [".".join(glyph[row] for glyph in _GLYPHS.values()) for row in range(5)]
    cells = np.array([[cell == "#" for cell in row] for row in rows])
    column = np.floor((u + 1) / 2 * n_columns).astype(np.int32)
    row = np.floor((v + 0.65) / 1.3 * 5).astype(np.int32)
    inside = (column >= 0) & (column < n_columns) & (row >= 0) & (row < 5)
    letters = cells[np.clip(row, 0, 4), np.clip(column, 0, n_columns - 1)] & inside
    return [(letters, _OBJECT)]


def _food(u: Array, v: Array) -> Layers:
    cone = (v > 0) & (v < 1) & (np.abs(u) < 0.52 * (1 - v))
    return [
        (cone, _TAN),
        (cone & (np.abs(np.mod(u + v, 0.34) - 0.17) < 0.05), _DARK),
        (_ellipse(u, v, 0, -0.32, 0.84, 0.6) | _box(u, v, -0.74, 0.74, -0.2, 0.12), _OBJECT),
        (_ellipse(u, v, 0, -0.86, 0.15, 0.14), _DARK),
    ]


def _animal(u: Array, v: Array) -> Layers:
    legs = np.zeros_like(u, dtype=bool)
    for x in (-0.56, -0.2, 0.22, 0.5):
        legs |= _box(u, v, x - 0.11, x + 0.11, 0.2, 0.84)
    tail = _bar(u, v, (-0.62, -0.06), (-0.92, -0.52), 0.08)
    head = _ellipse(u, v, 0.6, -0.42, 0.32, 0.28) | _box(u, v, 0.6, 0.99, -0.42, -0.16)
    return [
        (legs | tail | head | _ellipse(u, v, -0.06, 0.06, 0.7, 0.36), _OBJECT),
        (_ellipse(u, v, 0.4, -0.42, 0.13, 0.28), _DARK),
        (_ellipse(u, v, 0.7, -0.48, 0.07, 0.07) | _box(u, v, 0.88, 1, -0.42, -0.3), _DARK),
    ]


def _vehicle(u: Array, v: Array) -> Layers:
    cabin = (v > -0.62) & (v < 0) & (np.abs(u + 0.06) < 0.42 + (v + 0.62) * 0.45)
    glass = (v > -0.48) & (v < -0.06) & (np.abs(u + 0.06) < 0.28 + (v + 0.62) * 0.45)
    wheels = _ellipse(u, v, -0.55, 0.42, 0.27, 0.27) | _ellipse(u, v, 0.55, 0.42, 0.27, 0.27)
    hubs = _ellipse(u, v, -0.55, 0.42, 0.11, 0.11) | _ellipse(u, v, 0.55, 0.42, 0.11, 0.11)
    return [
        (cabin | _box(u, v, -1, 1, -0.1, 0.42), _OBJECT),
        (glass & (np.abs(u + 0.06) > 0.06), _WHITE),
        (wheels, _DARK),
        (hubs, _WHITE),
    ]


def _tool(u: Array, v: Array) -> Layers:
    claw = _bar(u, v, (-0.3, -0.7), (-0.86, -0.38), 0.12)
    head = _box(u, v, -0.4, 0.5, -0.86, -0.46) | _box(u, v, 0.5, 0.92, -0.94, -0.38)
    return [
        (_box(u, v, -0.25, 0.25, -0.98, 1), _OBJECT),
        (head | claw, _METAL),
    ]


_SHAPES: dict[str, Callable[[Array, Array], Layers]] = {
    "face": _face, "place": _place, "body": _body, "word": _word,
    "food": _food, "animal": _animal, "vehicle": _vehicle, "tool": _tool,
}  # fmt: skip


def draw_attributes(n: int, random_state: int) -> dict[str, NDArray[np.generic]]:
    """Draw the attributes of ``n`` pictures.

    Parameters
    ----------
    n : int
        Number of pictures.
    random_state : int
        Seed; the first pictures do not depend on ``n``.

    Returns
    -------
    dict of str to ndarray, each of length ``n``
        ``category``, ``colour``, ``texture``, ``background``, ``size_name`` and ``position`` are
        names; ``size`` is half the object's width, ``x`` and ``y`` its centre, from the left and
        from the top, all in image widths; ``gradient`` (-1, 0 or 1) says where the background is
        lighter: bottom, nowhere, top.
    """
    uniform = np.random.default_rng(random_state).random((n, 9))

    def choose(column: int, names: tuple[str, ...]) -> NDArray[np.str_]:
        return np.array(names)[(uniform[:, column] * len(names)).astype(int)]

    size_name = choose(0, tuple(SIZE_RANGES))
    low, high = np.array([SIZE_RANGES[name] for name in size_name]).reshape(-1, 2).T
    size = low + (high - low) * uniform[:, 1]
    reach = 0.5 - _MARGIN - size
    x, y = 0.5 + reach * (2 * uniform[:, 2] - 1), 0.5 + reach * (2 * uniform[:, 3] - 1)
    return {
        "category": choose(4, CATEGORIES),
        "colour": choose(5, tuple(COLOURS)),
        "texture": choose(6, TEXTURES),
        "background": choose(7, tuple(BACKGROUNDS)),
        "gradient": (uniform[:, 8] * 3).astype(int) - 1,
        "size": size,
        "size_name": size_name,
        "x": x,
        "y": y,
        "position": np.array([_position_name(*place) for place in zip(x, y, strict=True)]),
    }


def render_stimuli(
    attributes: Mapping[str, NDArray[np.generic]], size_px: int = 64
) -> NDArray[np.uint8]:
    """Draw the pictures of given attributes; the same attributes give the same bytes.

    Parameters
    ----------
    attributes : mapping of str to ndarray, each of length n
        As from `draw_attributes` (``size_name`` and ``position`` are not read).
    size_px : int
        Width and height of a picture.

    Returns
    -------
    ndarray of uint8, (n, size_px, size_px, 3)
    """
    category = np.asarray(attributes["category"])
    images = np.empty((len(category), size_px, size_px, 3), np.uint8)
    for name in np.unique(category):
        members = np.flatnonzero(category == name)
        for chunk in np.split(members, range(32, len(members), 32)):
            part = {key: np.asarray(values)[chunk] for key, values in attributes.items()}
            images[chunk] = _render_category(str(name), part, size_px)
    return images


def _render_category(
    category: str, attributes: Mapping[str, NDArray[np.generic]], size_px: int
) -> NDArray[np.uint8]:
    """Draw pictures of one category: label every fine pixel, colour the labels, average 2 x 2."""
    n, fine = len(attributes["x"]), 2 * size_px
    grid = ((np.arange(fine) + 0.5) / fine).astype(np.float32)
    x, y, size = (attributes[key].astype(np.float32)[:, None, None] for key in ("x", "y", "size"))
    u = np.broadcast_to((grid[None, None, :] - x) / size, (n, fine, fine))
    v = np.broadcast_to((grid[None, :, None] - y) / size, (n, fine, fine))
    label = np.zeros((n, fine, fine), np.uint8)
    for mask, index in _SHAPES[category](u, v):
        label[mask] = index
    stripes = np.mod(v + 1.125, 0.5) < 0.25
    dots = (np.mod(u + 0.25, 0.5) - 0.25) ** 2 + (np.mod(v + 0.25, 0.5) - 0.25) ** 2 < 0.15**2
    texture = attributes["texture"][:, None, None]
    label[
        (label == _OBJECT) & (((texture == "stripes") & stripes) | ((texture == "dots") & dots))
    ] = 2

    colours = np.array([COLOURS[str(name)] for name in attributes["colour"]], np.float32)
    light = attributes["texture"].astype(str)[:, None] == "dots"
    palette = np.zeros((n, 7, 3), np.float32)
    palette[:, _OBJECT] = colours
    palette[:, 2] = np.where(light, 0.4 * colours + 0.6 * 255, 0.45 * colours)
    palette[:, 3:] = np.array(_FIXED_COLOURS, np.float32)
    fine_image = palette[np.arange(n)[:, None, None], label]
    background = np.array(
        [BACKGROUNDS[str(name)] for name in attributes["background"]], np.float32
    )
    slope = attributes["gradient"].astype(np.float32)[:, None] * (0.5 - grid)[None, :] * 0.3
    rows = np.clip(background[:, None, :] * (1 + slope[:, :, None]), 0, 255)
    fine_image = np.where((label == 0)[..., None], rows[:, :, None, :], fine_image)
    mean = fine_image.reshape(n, size_px, 2, size_px, 2, 3).mean((2, 4))
    drawn: NDArray[np.uint8] = np.rint(mean).astype(np.uint8)
    return drawn


def describe(attributes: Mapping[str, NDArray[np.generic]]) -> list[str]:
    """Write a caption each: size, colour, category, texture, position, background."""
    captions = []
    for i, category in enumerate(attributes["category"]):
        texture, position = str(attributes["texture"][i]), str(attributes["position"][i])
        pattern = "" if texture == "plain" else f" with {texture}"
        preposition = {"centre": "in", "left": "on", "right": "on"}.get(position, "at")
        captions.append(
            f"a {attributes['size_name'][i]} {attributes['colour'][i]} {category}{pattern} "
            f"{preposition} the {position} on a {attributes['background'][i]} background"
        )
    return captions


def draw_stimuli(
    n: int, random_state: int, size_px: int = 64
) -> tuple[NDArray[np.uint8], dict[str, NDArray[np.generic]], list[str]]:
    """Draw ``n`` pictures with their attributes and captions.

    Parameters
    ----------
    n : int
        Number of pictures.
    random_state : int
        Seed.
    size_px : int
        Width and height of a picture.

    Returns
    -------
    images : ndarray of uint8, (n, size_px, size_px, 3)
    attributes : dict of str to ndarray
        See `draw_attributes`.
    captions : list of str
    """
    attributes = draw_attributes(n, random_state)
    return render_stimuli(attributes, size_px), attributes, describe(attributes)


def _position_name(x: float, y: float) -> str:
    """Name the place of an object whose centre is at (x, y), in image widths."""
    column, row = (int(np.sign(d)) if abs(d) > _CENTRE else 0 for d in (x - 0.5, y - 0.5))
    return POSITIONS[column, row]
