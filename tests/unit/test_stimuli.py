"""Drawn stimuli: deterministic, as their attributes say, and apart from each other."""

from __future__ import annotations

import numpy as np
import pytest

from afterimage.simulate.stimuli import (
    BACKGROUNDS,
    CATEGORIES,
    COLOURS,
    SIZE_RANGES,
    TEXTURES,
    draw_attributes,
    draw_stimuli,
    render_stimuli,
)


def one(**changes: object) -> dict[str, np.ndarray]:
    """Return the attributes of one picture: a large plain red face in the centre, on white."""
    attributes = {
        "category": "face", "colour": "red", "texture": "plain", "background": "white",
        "gradient": 0, "size": 0.35, "x": 0.5, "y": 0.5,
    }  # fmt: skip
    return {key: np.array([value]) for key, value in (attributes | changes).items()}


def foreground(**changes: object) -> np.ndarray:
    """Return where a picture differs from its background."""
    image = render_stimuli(one(**changes))[0].astype(int)
    return np.abs(image - image[0, 0]).sum(-1) > 60


def test_same_seed_same_bytes_other_seed_other_pictures() -> None:
    first, _, captions = draw_stimuli(40, 3)
    again, _, captions_again = draw_stimuli(40, 3)
    assert np.array_equal(first, again)
    assert captions == captions_again
    assert not np.array_equal(first, draw_stimuli(40, 4)[0])


def test_first_pictures_do_not_depend_on_how_many_are_drawn() -> None:
    assert np.array_equal(draw_stimuli(70, 5)[0][:30], draw_stimuli(30, 5)[0])


def test_shapes_types_and_names() -> None:
    images, attributes, captions = draw_stimuli(400, 0)
    assert images.shape == (400, 64, 64, 3)
    assert images.dtype == np.uint8
    assert set(attributes["category"]) == set(CATEGORIES)
    assert set(attributes["colour"]) == set(COLOURS)
    assert set(attributes["texture"]) == set(TEXTURES)
    assert set(attributes["background"]) == set(BACKGROUNDS)
    assert list(CATEGORIES) == [
        "face",
        "place",
        "body",
        "word",
        "food",
        "animal",
        "vehicle",
        "tool",
    ]
    for i, caption in enumerate(captions):
        for key in ("category", "colour", "background", "size_name", "position"):
            assert str(attributes[key][i]) in caption


@pytest.mark.parametrize("category", CATEGORIES)
def test_object_stays_inside_and_is_at_least_a_third_wide(category: str) -> None:
    for size in (SIZE_RANGES["small"][0], SIZE_RANGES["large"][1]):
        reach = 0.5 - 0.02 - size
        for x in (0.5 - reach, 0.5 + reach):
            mask = foreground(category=category, size=size, x=x, y=1 - x, colour="blue")
            columns = np.flatnonzero(mask.any(0))
            assert columns[0] > 0
            assert columns[-1] < 63
            assert columns[-1] - columns[0] + 1 >= 64 / 3


def test_position_moves_the_object_by_as_many_pixels() -> None:
    left, right = foreground(x=0.4375), foreground(x=0.5625)
    assert np.array_equal(np.roll(left, 8, axis=1), right)


@pytest.mark.parametrize("colour", COLOURS)
@pytest.mark.parametrize("category", CATEGORIES)
def test_object_shows_its_colour(category: str, colour: str) -> None:
    image = render_stimuli(one(category=category, colour=colour))[0].astype(int)
    near = np.abs(image - np.array(COLOURS[colour])).sum(-1) < 12
    assert near.mean() > 0.03


def test_colours_are_clearly_apart() -> None:
    values = np.array(list(COLOURS.values()), float)
    distance = np.linalg.norm(values[:, None] - values[None], axis=-1)
    assert distance[~np.eye(8, dtype=bool)].min() > 75


def test_every_attribute_changes_the_picture() -> None:
    base = render_stimuli(one())
    for change in (
        {"category": "tool"}, {"colour": "cyan"}, {"texture": "dots"}, {"texture": "stripes"},
        {"background": "cream"}, {"gradient": 1}, {"size": 0.25}, {"x": 0.45}, {"y": 0.55},
    ):  # fmt: skip
        assert not np.array_equal(base, render_stimuli(one(**change)))


def test_attributes_are_balanced_and_independent() -> None:
    attributes = draw_attributes(8000, 1)
    counts = np.array([(attributes["category"] == name).sum() for name in CATEGORIES])
    assert np.all(np.abs(counts - 1000) < 150)
    red = attributes["colour"] == "red"
    share = np.array([red[attributes["category"] == name].mean() for name in CATEGORIES])
    assert np.all(np.abs(share - 1 / 8) < 0.05)
    assert abs(np.corrcoef(attributes["x"], attributes["y"])[0, 1]) < 0.05
