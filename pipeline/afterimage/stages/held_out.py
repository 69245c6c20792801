"""Whole clusters or categories of stimuli held out for test, where that is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from afterimage.errors import ConfigError, InputError
from afterimage.features.vision import Vision, VisionSettings
from afterimage.io.images import read_image
from afterimage.io.tables import Row
from afterimage.preprocess.responses import cluster_stimuli, grouped_split
from afterimage.settings import Settings

#: Pictures embedded at once.
CHUNK = 64


class HeldOut(Settings):
    """What is held out together: single stimuli, or all stimuli that are alike."""

    kind: Literal["stimuli", "clusters", "categories"] = Field(
        "stimuli",
        description="stimuli: the dataset's own split, else one at random; clusters, categories: "
        "whole ones are the test set, whatever split the dataset has",
    )
    n_clusters: int = Field(20, ge=2, description="clusters that k-means makes of all stimuli")
    encoder: str = Field(
        "tiny/clip",
        description="folder of the transformers vision model whose features are clustered",
    )
    column: str = Field(
        "category", description="column of the table of stimuli that is the category"
    )


def hold_out(
    settings: HeldOut,
    everything: Mapping[str, Row],
    folder: Path,
    where: str,
    *,
    test_fraction: float,
    random_state: int,
) -> dict[str, str] | None:
    """Split all stimuli by group, and write the group of each into its row.

    Parameters
    ----------
    settings : HeldOut
    everything : mapping of str to dict
        Rows of all stimuli of the dataset by id; get ``group`` and ``held_out``.
    folder : Path
        Folder of the pictures.
    where : str
        Name of the table, for messages.
    test_fraction, random_state
        As in the stage's settings.

    Returns
    -------
    dict or None
        Stimulus id to ``train`` or ``test``; None where single stimuli are held out.
    """
    if settings.kind == "stimuli":
        return None
    if settings.kind == "categories":
        groups = _categories(settings, everything, where)
    else:
        groups = _clusters(settings, everything, folder, random_state)
    if len(set(groups.values())) < 2:
        raise InputError(
            f"there is one group, so no whole {settings.kind} can be held out", where=where,
            found=f"{len(groups)} stimuli of {next(iter(groups.values()), 'no group')}",
            expected="two groups or more", fix="set held_out.kind: stimuli",
        )  # fmt: skip
    for name, group in groups.items():
        everything[name]["group"] = group
        everything[name]["held_out"] = settings.kind
    return grouped_split(groups, test_fraction, random_state)


def _categories(settings: HeldOut, everything: Mapping[str, Row], where: str) -> dict[str, str]:
    groups = {name: row.get(settings.column, "n/a") for name, row in everything.items()}
    unknown = [name for name, group in groups.items() if group in ("n/a", "")]
    if unknown:
        raise InputError(
            "categories cannot be held out: some stimuli have none", where=where,
            found=f"no {settings.column} for {len(unknown)} of {len(groups)} stimuli, for example "
            f"{unknown[0]}",
            expected=f"a column {settings.column} of the table of stimuli, filled for each",
            fix="fill it, name another one in held_out.column, or set held_out.kind: clusters",
        )  # fmt: skip
    return groups


def _clusters(
    settings: HeldOut, everything: Mapping[str, Row], folder: Path, random_state: int
) -> dict[str, str]:
    names = sorted(everything)
    if len(names) < 2 * settings.n_clusters:
        raise ConfigError(
            "there are too many clusters for the stimuli", where="held_out.n_clusters",
            found=f"{settings.n_clusters} clusters of {len(names)} stimuli",
            expected=f"at most {len(names) // 2}",
        )  # fmt: skip
    encoder = Vision(VisionSettings(path=settings.encoder))
    parts = [
        encoder.encode(
            [read_image(folder / everything[name]["file"]) for name in names[i : i + CHUNK]]
        )
        for i in range(0, len(names), CHUNK)
    ]
    labels = cluster_stimuli(np.concatenate(parts), settings.n_clusters, random_state)
    return {name: f"cluster{label:03d}" for name, label in zip(names, labels, strict=True)}
