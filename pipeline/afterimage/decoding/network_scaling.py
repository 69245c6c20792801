"""Scaling and whitening of a network decoder's responses, as arrays of its state."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from afterimage.decoding.streams import (
    Statistics,
    Stream,
    column_means,
    spread,
    stream_statistics,
    whitening_over_times,
)
from afterimage.training.pieces import pieces

if TYPE_CHECKING:
    from collections.abc import Mapping

    from afterimage.decoding.layout import LayoutLike
    from afterimage.decoding.network_settings import NetworkSettings

CHUNK = 256  # trials read together


def subject_numbers(
    subjects: np.ndarray | None, layout: LayoutLike, n_trials: int
) -> tuple[list[str], np.ndarray]:
    """Names of the subjects, and the number of each trial's."""
    if subjects is None:
        return [str(layout.subject)], np.zeros(n_trials, np.int64)
    names, number = np.unique(np.asarray(subjects).astype(str), return_inverse=True)
    return [str(name) for name in names], number.astype(np.int64)


def scaling_arrays(
    responses: Any,
    subject: np.ndarray,
    names: list[str],
    layout: LayoutLike,
    settings: NetworkSettings,
    first: int = 0,
) -> dict[str, np.ndarray]:
    """Mean, scale and whitening of subjects, numbered from ``first``.

    Whitening over times is estimated with the first subjects, and is that of later ones too.
    """
    rows = spread(subject, settings.n_statistics_max)
    found = stream_statistics(responses, subject, len(names), layout, CHUNK, rows)
    arrays = {}
    for number, name in enumerate(names):
        key = f"{first + number:04d}/{name}"
        arrays[f"unit_mean/{key}"] = found.mean[number]
        arrays[f"unit_scale/{key}"] = found.scale[number]
        if found.space.size:
            arrays[f"unit_whitener/{key}"] = found.space[number]
    if found.space.size and not first:
        stream = Stream(responses, layout, subject, found, settings.clamp)
        arrays["time_whitener"] = whitening_over_times(stream, rows, CHUNK)
    return arrays


def target_scaling(block: np.ndarray) -> dict[str, np.ndarray]:
    """Mean and scale, one number, of the target's features."""
    mean = column_means(block)
    squares = sum(float(((block[part] - mean) ** 2).sum()) for part in pieces(*block.shape))
    scale = np.sqrt(squares / block.size) or 1.0
    return {
        "target_mean": mean.astype(np.float32),
        "target_scale": np.array([scale], np.float32),
    }


def stream_of(
    state: Mapping[str, np.ndarray],
    responses: Any,
    layout: LayoutLike,
    subject: np.ndarray,
    clamp: float,
) -> Stream:
    """Responses as the network reads them."""

    def stacked(prefix: str) -> np.ndarray:
        found = [value for key, value in sorted(state.items()) if key.startswith(prefix)]
        return np.stack(found) if found else np.zeros((0, 0, 0))

    parts = (stacked(f"unit_{name}/") for name in ("mean", "scale", "whitener"))
    return Stream(
        responses, layout, subject, Statistics(*parts), clamp, state.get("time_whitener")
    )
