"""Whole clusters and categories of stimuli are held out, once, and the split file says so."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from afterimage.errors import ConfigError, InputError
from afterimage.io.images import write_png
from afterimage.preprocess.responses import cluster_stimuli, grouped_split
from afterimage.stages.held_out import HeldOut, hold_out


def test_whole_groups_are_on_one_side_and_the_share_is_near() -> None:
    groups = {f"s{i:03d}": f"g{i % 10}" for i in range(200)}
    split = grouped_split(groups, 0.2, 0)
    assert Counter(split.values()) == {"train": 160, "test": 40}
    sides = {
        group: {split[s] for s, g in groups.items() if g == group} for group in groups.values()
    }
    assert all(len(side) == 1 for side in sides.values())
    assert grouped_split(dict(reversed(groups.items())), 0.2, 0) == split
    assert grouped_split(groups, 0.2, 1) != split
    two = grouped_split({"a": "x", "b": "x", "c": "y"}, 0.01, 0)
    assert two == {"a": "train", "b": "train", "c": "test"}


def test_planted_clusters_are_found() -> None:
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((4, 6)) * 10
    true = np.repeat(np.arange(4), 15)
    found = cluster_stimuli(centres[true] + rng.standard_normal((60, 6)), 4, 0)
    assert len({(int(a), int(b)) for a, b in zip(true, found, strict=True)}) == 4


def stimuli(folder: Path) -> dict[str, dict[str, str]]:
    """Plain pictures of three colours with some noise."""
    rng = np.random.default_rng(0)
    rows = {}
    for number in range(18):
        colour = [(220, 30, 30), (30, 220, 30), (30, 30, 220)][number % 3]
        picture = np.clip(rng.normal(colour, 8, (32, 32, 3)), 0, 255).astype(np.uint8)
        name = f"p{number:02d}"
        write_png(folder / f"{name}.png", picture)
        rows[name] = {"stimulus_id": name, "file": f"{name}.png", "category": "rgb"[number % 3]}
    return rows


@pytest.mark.parametrize("kind", ["clusters", "categories"])
def test_a_colour_is_held_out_as_a_whole(tmp_path: Path, kind: str) -> None:
    rows = stimuli(tmp_path)
    split = hold_out(
        HeldOut(kind=kind, n_clusters=3), rows, tmp_path, "stimuli.tsv",
        test_fraction=0.3, random_state=0,
    )  # fmt: skip
    assert split is not None
    held = {rows[name]["category"] for name, side in split.items() if side == "test"}
    assert len(held) == 1 and Counter(split.values()) == {"train": 12, "test": 6}
    assert {row["held_out"] for row in rows.values()} == {kind}
    groups = {(row["group"], row["category"]) for row in rows.values()}
    assert len(groups) == 3


def test_what_cannot_be_held_out_is_said(tmp_path: Path) -> None:
    rows = {"a": {"stimulus_id": "a", "file": "a.png"}, "b": {"stimulus_id": "b", "file": "b.png"}}
    options = {"folder": tmp_path, "where": "stimuli.tsv", "test_fraction": 0.2, "random_state": 0}
    assert hold_out(HeldOut(), rows, **options) is None
    with pytest.raises(InputError, match="some stimuli have none"):
        hold_out(HeldOut(kind="categories"), rows, **options)
    with pytest.raises(ConfigError, match="too many clusters"):
        hold_out(HeldOut(kind="clusters", n_clusters=5), rows, **options)
    for row in rows.values():
        row["category"] = "one"
    with pytest.raises(InputError, match="one group"):
        hold_out(HeldOut(kind="categories"), rows, **options)
