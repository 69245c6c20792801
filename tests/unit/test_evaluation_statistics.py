"""Intervals cover, p-values are uniform under the null, and few images give no false certainty."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from afterimage.errors import InputError
from afterimage.evaluation.identification import count_beaten, similarity, two_way
from afterimage.evaluation.statistics import (
    bootstrap_interval,
    bootstrap_means,
    holm,
    paired_bootstrap_difference,
    permutation_chance,
    permuted_pairs,
)


def two_way_rates(n: int, seed: int, signal: float = 0.0):
    generator = np.random.default_rng(seed)
    true, predicted = generator.standard_normal((2, n, 12))
    return count_beaten(similarity(predicted + signal * true, true)) / (n - 1)


def test_bootstrap_covers_the_mean() -> None:
    generator = np.random.default_rng(0)
    covered = []
    for seed in range(600):
        low, high = bootstrap_interval(
            generator.exponential(size=60), n_bootstraps=400, random_state=seed
        )
        covered.append(low <= 1.0 <= high)
    assert 0.90 <= np.mean(covered) <= 0.97


def test_bootstrap_agrees_with_scipy() -> None:
    from scipy.stats import bootstrap

    values = np.random.default_rng(1).gamma(2.0, size=80)
    other = bootstrap((values,), np.mean, n_resamples=20000, method="percentile", rng=0)
    ours = bootstrap_interval(values, n_bootstraps=20000)
    width = other.confidence_interval.high - other.confidence_interval.low
    np.testing.assert_allclose(ours, other.confidence_interval, atol=0.03 * width)


def test_bootstrap_columns_share_draws_and_chunks() -> None:
    values = np.random.default_rng(2).random((30, 2))
    together = bootstrap_means(values, n_bootstraps=50)
    np.testing.assert_allclose(together[:, 1], bootstrap_means(values[:, 1], n_bootstraps=50))
    assert together.shape == (50, 2)


def test_bootstrap_repeats_with_the_same_seed() -> None:
    values = np.random.default_rng(3).random(25)
    assert bootstrap_interval(values, random_state=4) == bootstrap_interval(values, random_state=4)
    assert bootstrap_interval(values, random_state=4) != bootstrap_interval(values, random_state=5)


@pytest.mark.parametrize("values", [[], [0.3]])
def test_no_interval_without_two_images(values) -> None:
    assert np.isnan(bootstrap_interval(values)).all()


def test_interval_of_two_images_spans_them() -> None:
    assert bootstrap_interval([0.2, 0.6]) == pytest.approx((0.2, 0.6))


@pytest.mark.parametrize("groups", [None, np.repeat([0, 1, 2], [10, 8, 6])])
def test_permutation_p_is_uniform_under_the_null(groups) -> None:
    from scipy.stats import kstest

    p = [
        permutation_chance(
            two_way_rates(24, seed),
            permuted_pairs(24, 199, random_state=seed, groups=groups),
        ).p
        for seed in range(300)
    ]
    jitter = np.random.default_rng(0).random(300) / 200  # p is a multiple of 1/200
    assert kstest(np.array(p) - jitter, "uniform").pvalue > 0.01


def test_permutation_finds_a_signal_and_the_binomial_would_lie() -> None:
    chance = permutation_chance(two_way_rates(200, 0, signal=1.0), permuted_pairs(200, 999))
    assert chance.p == 1 / 1000
    assert chance.mean == pytest.approx(0.5, abs=0.01)
    width = chance.high - chance.low
    binomial = 2 * 1.96 * np.sqrt(0.25 / (200 * 199))
    assert width > 5 * binomial


def test_null_of_a_thousand_unrelated_pairs() -> None:
    """reference: mean .4995, standard deviation about .008 (a binomial claims .0005)."""
    scores = []
    for seed in range(80):
        true, predicted = np.random.default_rng(seed).standard_normal((2, 1000, 64))
        scores.append(two_way(similarity(predicted, true)).mean())
    assert np.mean(scores) == pytest.approx(0.4995, abs=0.004)
    assert 0.0065 < np.std(scores) < 0.0110
    rates = count_beaten(similarity(predicted, true)) / 999
    chance = permutation_chance(rates, permuted_pairs(1000, 500))
    assert chance.mean == pytest.approx(0.5, abs=0.002)
    assert chance.high - chance.low == pytest.approx(2 * 1.96 * 0.0085, rel=0.25)


def test_exhaustive_null_of_four_images() -> None:
    scores = np.random.default_rng(5).random((4, 4))
    rows = np.arange(4)
    null = [scores[rows, list(order)].mean() for order in itertools.permutations(range(4))]
    chance = permutation_chance(scores, permuted_pairs(4, 20000))
    observed = np.trace(scores) / 4
    assert chance.mean == pytest.approx(np.mean(null), abs=0.005)
    assert chance.p == pytest.approx(np.mean(np.array(null) >= observed - 1e-9), abs=0.02)


def test_lower_is_better_looks_at_the_other_side() -> None:
    errors = 1 - np.eye(20)
    pairs = permuted_pairs(20, 99)
    assert permutation_chance(errors, pairs, higher_is_better=False).p == 1 / 100
    assert permutation_chance(errors, pairs, higher_is_better=True).p == 1.0


def test_index_names_the_right_column() -> None:
    scores = np.zeros((3, 5))
    scores[[0, 1, 2], [4, 2, 0]] = 1.0
    chance = permutation_chance(scores, permuted_pairs(3, 6000), index=[4, 2, 0])
    assert chance.p == pytest.approx(1 / 6, abs=0.02)


def test_one_image_has_no_chance_level_and_two_have_no_significance() -> None:
    assert np.isnan(permutation_chance(np.ones((1, 1)), permuted_pairs(1, 10)).p)
    assert permutation_chance(np.eye(2), permuted_pairs(2, 1000)).p == pytest.approx(0.5, abs=0.06)


def test_pairs_without_a_score_are_refused() -> None:
    scores = np.where(np.eye(6) == 1, 1.0, np.nan)
    with pytest.raises(InputError, match="pairs without a score"):
        permutation_chance(scores, permuted_pairs(6, 20))


def test_permutations_stay_inside_groups() -> None:
    groups = np.array([0, 1, 0, 1, 1, 2])
    pairs = permuted_pairs(6, 200, groups=groups)
    assert np.all(groups[pairs] == groups)
    assert np.all(np.sort(pairs, axis=1) == np.arange(6))
    assert len(np.unique(pairs, axis=0)) == 12


def test_paired_difference_is_tighter_than_two_intervals() -> None:
    generator = np.random.default_rng(6)
    shared = generator.standard_normal(100)
    better = shared + 0.1 + 0.1 * generator.standard_normal(100)
    difference = paired_bootstrap_difference(better, shared)
    assert 0 < difference.low < difference.value < difference.high
    assert difference.p == pytest.approx(2 / 1001)
    none = paired_bootstrap_difference(shared, shared)
    assert (none.value, none.p) == (0.0, 1.0)
    single = paired_bootstrap_difference([0.4], [0.1])
    assert single.value == pytest.approx(0.3)
    assert np.isnan(single.p)
    with pytest.raises(InputError, match="same images"):
        paired_bootstrap_difference([0.1, 0.2], [0.1])


def test_holm_by_hand() -> None:
    np.testing.assert_allclose(
        holm([0.01, 0.04, 0.03, np.nan, 0.005]), [0.03, 0.06, 0.06, np.nan, 0.02]
    )
    np.testing.assert_allclose(holm([0.9, 0.8]), [1.0, 1.0])
    assert holm([]).shape == (0,)
