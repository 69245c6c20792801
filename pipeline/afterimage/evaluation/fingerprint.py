"""Identification of people by their connectivity (Finn 2015, doi:10.1038/nn.4135).

Discriminability is that of Bridgeford et al. (2021, doi:10.1371/journal.pcbi.1009279). What differs:
chance is the accuracy under permuted identities, which keeps the dependence between people that the
gallery makes. Intervals of identification are Wilson's (1927, doi:10.1080/01621459.1927.10502953)
over people, since a bootstrap of hits that are all alike has no width; those of discriminability are
bootstrap intervals over people.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from afterimage.errors import InputError
from afterimage.evaluation.statistics import (
    bootstrap_interval,
    permutation_chance,
    permuted_pairs,
    wilson_interval,
)

#: Header of tables of scores of connectivity.
COLUMNS = (
    "seg", "measure", "metric", "first", "second", "value", "ci_low", "ci_high", "chance",
    "chance_low", "chance_high", "p", "n", "protocol",
)  # fmt: skip


@dataclass(frozen=True)
class Score:
    """One score with its interval over people and its chance level."""

    metric: str
    value: float
    ci_low: float
    ci_high: float
    chance: float
    chance_low: float
    chance_high: float
    p: float
    n: int

    def row(self) -> dict[str, object]:
        """Return it as part of a row of a table."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


def edges(matrices: np.ndarray) -> np.ndarray:
    """Return the values below the diagonal, (..., n_units, n_units) to (..., n_edges) float32."""
    rows, columns = np.tril_indices(matrices.shape[-1], -1)
    return np.asarray(matrices[..., rows, columns], dtype=np.float32)


def similarity(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Correlate the connectivity of everybody in one session with everybody in another.

    Parameters
    ----------
    first, second : array of shape (n_people, n_edges)
        Row i of both is of the same person.

    Returns
    -------
    array of shape (n_people, n_people), float64
        Entry [i, j]: person i in the first session with person j in the second.
    """
    scaled = []
    for values in (first, second):
        centred = values - values.mean(axis=1, keepdims=True, dtype=np.float64)
        length = np.linalg.norm(centred, axis=1, keepdims=True)
        if not (length > 0).all():
            raise InputError(
                "the connectivity of a person does not vary over edges",
                found=f"{int((length == 0).sum())} people", expected="edges that differ",
                fix="leave these people out",
            )  # fmt: skip
        scaled.append(centred / length)
    return np.asarray(scaled[0] @ scaled[1].T)


def identification(
    similar: np.ndarray, *, n_permutations: int = 1000, random_state: int = 0
) -> Score:
    """Score how often a person of the rows is most similar to the same person of the columns.

    Parameters
    ----------
    similar : array of shape (n_people, n_people)
        From `similarity`; transposed for the other direction.
    n_permutations, random_state : int

    Returns
    -------
    Score
        ``identification``: share of people; a tie counts as the share of the tied that is right.
    """
    best = similar == similar.max(axis=1, keepdims=True)
    hits = best / best.sum(axis=1, keepdims=True)
    score = _scored("identification", hits, 1, n_permutations, random_state)
    low, high = wilson_interval(score.value, score.n)
    return replace(score, ci_low=low, ci_high=high)


def discriminability(
    similar: np.ndarray,
    *,
    n_bootstraps: int = 1000,
    n_permutations: int = 1000,
    random_state: int = 0,
) -> Score:
    """Score how often a person is more similar to themself than to somebody else.

    Returns
    -------
    Score
        ``discriminability``: over all pairs of people, the share in which similarity within the
        row's person is higher; a tie counts half. Chance is .5.
    """
    n = len(similar)
    # rank[i, j]: share of the other columns that column j beats in row i.
    order = np.sort(similar, axis=1)
    below = np.stack([np.searchsorted(order[i], similar[i], "left") for i in range(n)])
    upto = np.stack([np.searchsorted(order[i], similar[i], "right") for i in range(n)])
    rank = (below + (upto - below - 1) / 2) / (n - 1)
    return _scored("discriminability", rank, n_bootstraps, n_permutations, random_state)


def _scored(
    metric: str, table: np.ndarray, n_bootstraps: int, n_permutations: int, random_state: int
) -> Score:
    """Score a table whose entry [i, j] is what row i scores if column j is the same person."""
    n = len(table)
    if n < 2:
        raise InputError(
            "people can be told apart only where there are two", found=f"{n}", expected="2 or more"
        )
    own = np.diag(table)
    low, high = bootstrap_interval(own, n_bootstraps=n_bootstraps, random_state=random_state)
    drawn = permuted_pairs(n, n_permutations, random_state=random_state)
    chance = permutation_chance(table, drawn)
    return Score(
        metric, float(own.mean()), low, high, chance.mean, chance.low, chance.high, chance.p, n
    )


def within_and_between(similar: np.ndarray) -> tuple[float, float]:
    """Return the mean similarity within and between people, (n_people, n_people) in."""
    n = len(similar)
    own = float(np.trace(similar) / n)
    return own, float((similar.sum() - np.trace(similar)) / (n * (n - 1)))
