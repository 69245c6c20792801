"""Telling people apart: closed forms, chance on noise, ties, intervals."""

from __future__ import annotations

import numpy as np
import pytest

from afterimage.errors import InputError
from afterimage.evaluation.fingerprint import (
    discriminability,
    edges,
    identification,
    similarity,
    within_and_between,
)
from afterimage.evaluation.statistics import wilson_interval


def make_people(n: int, own: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Edges of people in two sessions, who have ``own`` times the noise in common with themselves."""
    rng = np.random.default_rng(seed)
    trait = own * rng.standard_normal((n, 300))
    return trait + rng.standard_normal((n, 300)), trait + rng.standard_normal((n, 300))


def test_edges_are_the_values_below_the_diagonal() -> None:
    matrix = np.arange(9.0).reshape(1, 3, 3)
    np.testing.assert_array_equal(edges(matrix), [[3, 6, 7]])


def test_similarity_is_the_correlation_of_edges() -> None:
    first, second = make_people(5, 1.0)
    expected = np.corrcoef(first, second)[:5, 5:]
    np.testing.assert_allclose(similarity(first, second), expected, atol=1e-12)


def test_scores_of_a_table_by_hand() -> None:
    table = np.array([[0.9, 0.1, 0.2], [0.5, 0.4, 0.3], [0.3, 0.2, 0.6]])
    assert identification(table).value == pytest.approx(2 / 3)
    # Rows: beats 2 of 2, 1 of 2, 2 of 2.
    assert discriminability(table).value == pytest.approx((1 + 0.5 + 1) / 3)
    assert within_and_between(table) == pytest.approx((1.9 / 3, 1.6 / 6))


def test_the_interval_of_a_share_is_that_of_scipy() -> None:
    from scipy.stats import binomtest

    for hits in (0, 29, 37):
        expected = binomtest(hits, 37).proportion_ci(method="wilson")
        assert wilson_interval(hits / 37, 37) == pytest.approx(
            (expected.low, expected.high), abs=1e-6
        )


def test_ties_are_shared() -> None:
    table = np.ones((4, 4))
    assert identification(table).value == pytest.approx(0.25)
    assert discriminability(table).value == pytest.approx(0.5)


def test_noise_is_at_chance_and_its_interval_covers_it() -> None:
    scores = [identification(similarity(*make_people(40, 0.0, seed))) for seed in range(20)]
    assert abs(np.mean([score.value for score in scores]) - 1 / 40) < 0.02
    assert scores[0].chance == pytest.approx(1 / 40, abs=0.005)
    assert np.mean([score.p <= 0.05 for score in scores]) <= 0.2
    pairs = [discriminability(similarity(*make_people(40, 0.0, seed))) for seed in range(20)]
    assert abs(np.mean([score.value for score in pairs]) - 0.5) < 0.04


def test_people_who_are_themselves_are_found() -> None:
    score = identification(similarity(*make_people(40, 1.0)))
    assert score.value == 1.0
    assert score.p == pytest.approx(1 / 1001)
    assert score.chance_high < 0.2
    some = identification(similarity(*make_people(40, 0.42, 3)))
    assert 0.2 < some.ci_low < some.value < some.ci_high <= 1.0


def test_one_person_and_flat_connectivity_are_refused() -> None:
    with pytest.raises(InputError, match="only where there are two"):
        identification(np.ones((1, 1)))
    with pytest.raises(InputError, match="does not vary"):
        similarity(np.ones((3, 5)), np.ones((3, 5)))
