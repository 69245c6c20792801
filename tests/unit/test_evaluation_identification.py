"""Identification against the published definition, written as loops."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from afterimage.errors import InputError
from afterimage.evaluation.identification import (
    count_beaten,
    n_way,
    ranks,
    retrieval,
    similarity,
    two_way,
    within_cluster_two_way,
)


def correlated(n: int, d: int = 20, noise: float = 2.0, seed: int = 0):
    generator = np.random.default_rng(seed)
    true = generator.standard_normal((n, d))
    return true + noise * generator.standard_normal((n, d)), true


def test_two_way_is_the_published_definition() -> None:
    predicted, true = correlated(40)
    r = np.corrcoef(true, predicted)[:40, 40:]
    success = r < np.diag(r)
    published = np.mean(np.sum(success, 0)) / 39
    rates = two_way(similarity(predicted, true))
    assert np.mean(rates) == pytest.approx(published, abs=1e-12)
    np.testing.assert_allclose(rates, success.sum(0) / 39)


def test_two_way_is_the_double_loop_and_ties_fail() -> None:
    generator = np.random.default_rng(1)
    similarities = generator.integers(0, 4, (12, 12)).astype(float)  # many ties
    expected = [
        np.mean([similarities[j, k] < similarities[j, j] for k in range(12) if k != j])
        for j in range(12)
    ]
    np.testing.assert_allclose(two_way(similarities), expected)


def test_rectangular_gallery() -> None:
    similarities = np.random.default_rng(2).random((4, 9))
    index = np.array([8, 0, 0, 3])
    expected = [
        np.mean([row[k] < row[right] for k in range(9) if k != right])
        for row, right in zip(similarities, index, strict=True)
    ]
    np.testing.assert_allclose(two_way(similarities, index), expected)
    assert ranks(similarities, index).tolist() == [
        1 + sum(row[k] >= row[right] for k in range(9) if k != right)
        for row, right in zip(similarities, index, strict=True)
    ]


def test_similarity_is_pearson_and_centring_uses_the_training_mean() -> None:
    predicted, true = correlated(6)
    np.testing.assert_allclose(
        similarity(predicted, true), np.corrcoef(predicted, true)[:6, 6:], atol=1e-9
    )
    mean = np.linspace(-3, 3, 20)
    np.testing.assert_allclose(
        similarity(predicted, true, training_mean=mean),
        np.corrcoef(predicted - mean, true - mean)[:6, 6:],
        atol=1e-9,
    )


def test_rows_without_variance_are_zero_not_nan() -> None:
    predicted, true = correlated(5)
    predicted[2] = 0.1
    matrix = similarity(predicted.astype(np.float32), true)
    assert np.all(matrix[2] == 0)
    assert np.all(np.isfinite(matrix))
    assert two_way(matrix)[2] == 0


def test_one_prediction_for_all_never_finds_its_pattern() -> None:
    """With equal decoded patterns every image_to_brain query is a tie, which must fail."""
    _, true = correlated(33, d=77)
    matrix = similarity(np.repeat(true[:1] + 1.0, 33, axis=0), true)
    assert retrieval(matrix, 1, direction="image_to_brain").sum() == 0
    assert np.all(ranks(matrix, direction="image_to_brain") == 33)
    assert np.mean(two_way(matrix)) == pytest.approx(0.5, abs=0.02)


def test_n_way_equals_all_draws() -> None:
    similarities = np.random.default_rng(3).random((5, 7))
    for n_ways in (2, 3, 5, 7):
        expected = []
        for row in range(5):
            wrong = [k for k in range(7) if k != row]
            draws = list(itertools.combinations(wrong, n_ways - 1))
            wins = [
                all(similarities[row, k] < similarities[row, row] for k in draw) for draw in draws
            ]
            expected.append(np.mean(wins))
        np.testing.assert_allclose(n_way(similarities, n_ways), expected, atol=1e-12)
    np.testing.assert_allclose(n_way(similarities, 7), retrieval(similarities, 1))


def test_directions_are_named_rightly() -> None:
    # Pattern 0 is closest to its image 0; image 1 is closest to pattern 0 too.
    similarities = np.array([[0.9, 0.8], [0.3, 0.5]])
    assert retrieval(similarities, 1, direction="brain_to_image").tolist() == [1, 1]
    assert retrieval(similarities, 1, direction="image_to_brain").tolist() == [1, 0]


def test_image_to_brain_needs_one_pattern_an_image() -> None:
    with pytest.raises(InputError, match="several right answers"):
        ranks(np.ones((3, 2)), [0, 0, 1], "image_to_brain")


def test_within_cluster_two_way_is_the_loop() -> None:
    similarities = np.random.default_rng(4).random((9, 9))
    clusters = np.array(list("aaabbbbbc"))
    rates = within_cluster_two_way(similarities, clusters)
    for j in range(8):
        rivals = [k for k in range(9) if k != j and clusters[k] == clusters[j]]
        assert rates[j] == pytest.approx(
            np.mean([similarities[j, k] < similarities[j, j] for k in rivals])
        )
    assert np.isnan(rates[8])


def test_gallery_of_one_has_no_two_way() -> None:
    assert np.isnan(two_way(np.ones((1, 1)))).all()
    assert count_beaten(np.ones((1, 1))).tolist() == [[0]]


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (lambda: two_way(np.array([[0.0, np.nan], [1.0, 0.0]])), "cannot be ranked"),
        (lambda: two_way(np.ones((2, 2)), [0, 2]), "not all in the gallery"),
        (lambda: two_way(np.ones((3, 2))), "not all in the gallery"),
        (lambda: n_way(np.ones((2, 2)), 1), "needs two images"),
        (lambda: similarity(np.ones((2, 3)), np.ones((2, 4))), "differ in length"),
        (lambda: similarity(np.full((2, 3), np.inf), np.ones((2, 3))), "not finite"),
    ],
)
def test_unusable_input_is_refused(call, reason) -> None:
    with pytest.raises(InputError, match=reason):
        call()
