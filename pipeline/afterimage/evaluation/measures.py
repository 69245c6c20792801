"""What is measured for all pairs of decoded patterns and images, and how a row comes of it.

Chance of an image metric needs it for all pairs. Where that costs too much, images are put at
random into equal blocks (the same for all labels) and pairs permuted within blocks: still an exact
test, whose null holds the right pairs in a share of 1/block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from afterimage.evaluation import images as pixels
from afterimage.evaluation.identification import (
    Direction,
    count_beaten,
    oriented,
    right_columns,
    within_cluster_rates,
)
from afterimage.evaluation.metrics import COLUMNS, PROTOCOL, describe, protocol
from afterimage.evaluation.statistics import (
    bootstrap_interval,
    permutation_chance,
    permuted_pairs,
)

TOP_K = (1, 5)
SMALLEST_BLOCK = 8

PairMetric = Callable[[NDArray[np.float32], NDArray[np.float32]], NDArray[np.float64]]
# Per image, for all pairs, and how many image pixels x pairs the latter may cost for one label.
IMAGE_METRICS: dict[str, tuple[PairMetric, PairMetric, float]] = {
    "pixcorr": (pixels.pixcorr, pixels.pairwise_pixcorr, 1e10),
    "mse": (pixels.mse, pixels.pairwise_mse, 1e10),
    "ssim": (pixels.ssim, pixels.pairwise_ssim, 2e7),
}


@dataclass(frozen=True)
class Resampling:
    """How intervals and chance levels are drawn.

    Attributes
    ----------
    n_bootstraps, n_permutations, random_state : int
    level : float
        Coverage of the intervals, 0..1.
    """

    n_bootstraps: int = 1000
    n_permutations: int = 1000
    level: float = 0.95
    random_state: int = 0


@dataclass(frozen=True)
class Scores:
    """Rows of the table, and the per-image values they are means of.

    Attributes
    ----------
    rows : list of dict
        Keys are `COLUMNS`; what cannot be computed is None.
    per_image : dict
        label -> metric -> ndarray of float64, shape (n,); NaN where an image has no value.
    n_constant : dict of str to int
        label -> reconstructions of one single colour; their pixcorr is 0.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    per_image: dict[str, dict[str, NDArray[np.float64]]] = field(default_factory=dict)
    n_constant: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Measure:
    """One metric for every pairing: scores[i, index[i]] is the value of image i."""

    name: str
    scores: NDArray[np.generic]
    index: NDArray[np.int64]
    direction: Direction | None = None
    groups: NDArray[np.generic] | None = None


def image_measures(
    truth: NDArray[np.generic],
    recon: NDArray[np.generic],
    drawing: Resampling,
    *,
    names: Sequence[str] | None = None,
    resize: Callable[[NDArray[np.generic]], NDArray[np.generic]] | None = None,
    size_px: int | None = None,
) -> Iterator[Measure]:
    """Compare pixels of reconstructions and images, for all pairs inside random blocks.

    Parameters
    ----------
    truth, recon : ndarray, shape (n, height, width, 3)
    drawing : Resampling
    names : sequence of str, optional
        Keys of `IMAGE_METRICS`; by default all of them.
    resize, size_px : callable and int, optional
        Brings some images to the size at which they are compared, a block at a time.
    """
    n = len(truth)
    n_pixels = truth.shape[1] * truth.shape[2] if size_px is None else size_px**2

    def sized(images: NDArray[np.generic]) -> NDArray[np.float32]:
        return pixels.as_unit_float(images if resize is None else resize(images))

    for name in names or IMAGE_METRICS:
        each, pairwise, budget = IMAGE_METRICS[name]
        per_block = max(SMALLEST_BLOCK, int(budget / max(1, n * n_pixels)))
        order = np.random.default_rng(drawing.random_state).permutation(n)
        blocks = np.array_split(order, max(1, -(-n // per_block)))
        scores, groups, values = np.full((n, n), np.nan), np.zeros(n, np.int64), np.empty(n)
        for number, block in enumerate(blocks):
            first, second = sized(truth[block]), sized(recon[block])
            scores[np.ix_(block, block)] = pairwise(first, second)
            values[block] = each(first, second)
            groups[block] = number
        # The exact values on the diagonal, so that a null draw can equal what was observed.
        np.fill_diagonal(scores, values)
        yield Measure(name, scores, np.arange(n), groups=groups)


def identification_measures(
    similarities: NDArray[np.floating],
    index: ArrayLike | None,
    suffix: str,
    clusters: ArrayLike | None,
) -> Iterator[Measure]:
    """Identify the right image among all: two-way, rank, within its cluster, and retrieval."""
    columns = right_columns(similarities, index)
    n_wrong = similarities.shape[1] - 1
    beaten = count_beaten(similarities)
    rates = beaten / n_wrong if n_wrong else np.full(beaten.shape, np.nan)
    yield Measure(f"twoway{suffix}", rates, columns, "brain_to_image")
    yield Measure(f"rank{suffix}", 1 - rates, columns, "brain_to_image")
    if clusters is not None:
        groups = np.asarray(clusters)
        within = within_cluster_rates(similarities, groups)
        name = f"twoway_within_cluster{suffix}"
        yield Measure(name, within, columns, "brain_to_image", groups[columns])
    yield from _top_k(beaten, columns, suffix, "brain_to_image")


def backward_measures(
    similarities: NDArray[np.floating], index: ArrayLike | None, suffix: str
) -> Iterator[Measure]:
    """Find the decoded pattern of an image, where every pattern has its own image."""
    columns = right_columns(similarities, index)
    if len(np.unique(columns)) < len(columns):
        return
    queries, answers = oriented(similarities, index, "image_to_brain")
    beaten = count_beaten(queries)
    yield from _top_k(beaten, answers, f"{suffix}_image_to_brain", "image_to_brain")


def _top_k(
    beaten: NDArray[np.int64], columns: NDArray[np.int64], suffix: str, direction: Direction
) -> Iterator[Measure]:
    gallery = beaten.shape[1]
    for top_k in TOP_K:
        if top_k < gallery:
            hits = gallery - beaten <= top_k
            yield Measure(f"retrieval_top{top_k}{suffix}", hits, columns, direction)


def add_rows(
    scores: Scores,
    measures: Sequence[Measure],
    identity: Mapping[str, str],
    told: Mapping[str, str],
    drawing: Resampling,
    extra: Sequence[str] = (),
    *,
    family: str = PROTOCOL,
) -> None:
    """Append a row for each measure, and its per-image values.

    Parameters
    ----------
    scores : Scores
    measures : sequence of Measure
    identity : mapping
        Columns that all rows share: subject, label, decoder, method, role.
    told : mapping
        ``size``, ``repeats`` and ``selection`` of the protocol.
    drawing : Resampling
    extra : sequence of str
        More of the protocol, at its end.
    family : str
        Name of the protocol, at its beginning.
    """
    state, n_permutations = drawing.random_state, drawing.n_permutations
    free: dict[int, NDArray[np.int32]] = {}
    for one in measures:
        values = one.scores[np.arange(len(one.index)), one.index].astype(np.float64)
        kept = np.flatnonzero(np.isfinite(values))
        n = len(kept)
        if one.groups is None:
            if n not in free:
                free[n] = permuted_pairs(n, n_permutations, random_state=state)
            permutations = free[n]
        else:
            permutations = permuted_pairs(
                n, n_permutations, random_state=state, groups=one.groups[kept]
            )
        chance = permutation_chance(
            one.scores[kept],
            permutations,
            index=one.index[kept],
            higher_is_better=describe(one.name).higher_is_better,
        )
        low, high = bootstrap_interval(
            values[kept],
            n_bootstraps=drawing.n_bootstraps,
            level=drawing.level,
            random_state=state,
        )
        gallery = None if one.direction is None else one.scores.shape[1]
        text = protocol(
            **told, n=n, direction=one.direction, gallery=gallery, extra=extra, family=family
        )
        row: dict[str, Any] = dict.fromkeys(COLUMNS)
        value = values[kept].mean() if n else None
        row |= {**identity, "metric": one.name, "value": plain_number(value)}
        row |= {
            "ci_low": plain_number(low),
            "ci_high": plain_number(high),
            "chance": plain_number(chance.mean),
        }
        row |= {"chance_low": plain_number(chance.low), "chance_high": plain_number(chance.high)}
        row |= {"p": plain_number(chance.p), "n": n, "protocol": text}
        scores.rows.append(row)
        scores.per_image.setdefault(identity["label"], {})[one.name] = values


def plain_number(value: float | np.floating | None) -> float | None:
    """Return a float for a table, None where it is not finite."""
    return None if value is None or not np.isfinite(value) else float(value)
