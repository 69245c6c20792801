"""Rows of retrieval curves: metrics as elsewhere, chance by permuted pairs, maximum statistic."""

from __future__ import annotations

import numpy as np
import pytest

from afterimage.evaluation.gallery import (
    COLUMNS,
    average_by,
    centred_gallery,
    curve_rows,
    metrics_of,
    pair_scores,
    score_curve,
)
from afterimage.evaluation.identification import retrieval, similarity, two_way
from afterimage.evaluation.scores import Resampling
from afterimage.evaluation.statistics import permutation_chance, permuted_pairs

RESAMPLING = Resampling(n_bootstraps=200, n_permutations=199, random_state=1)


@pytest.fixture
def decoded():
    rng = np.random.default_rng(2)
    gallery = rng.standard_normal((30, 16))
    return gallery + 2 * rng.standard_normal(gallery.shape), gallery


def test_pair_scores_equal_the_metrics_of_identification(decoded):
    predicted, gallery = decoded
    similarities = similarity(predicted, gallery)
    scores = pair_scores(similarities)
    rows = np.arange(30)
    np.testing.assert_allclose(scores["twoway"][rows, rows], two_way(similarities), rtol=1e-6)
    for top_k in (1, 5):
        np.testing.assert_array_equal(
            scores[f"retrieval_top{top_k}"][rows, rows], retrieval(similarities, top_k)
        )


def test_a_gallery_once_centred_ranks_as_pearson_does(decoded):
    predicted, gallery = decoded
    mean = np.random.default_rng(0).standard_normal(16)
    quick = (predicted - mean) @ centred_gallery(gallery, mean).T
    exact = similarity(predicted, gallery, training_mean=mean)
    np.testing.assert_array_equal(np.argsort(quick, axis=1), np.argsort(exact, axis=1))


def test_chance_and_p_equal_those_of_one_point(decoded):
    predicted, gallery = decoded
    scores = pair_scores(similarity(predicted, gallery))["twoway"]
    curve = score_curve("twoway", [scores, scores.T], None, RESAMPLING)
    one = permutation_chance(scores, permuted_pairs(30, 199, random_state=1))
    assert curve.chance[0] == pytest.approx(one.mean)
    assert curve.p[0] == pytest.approx(one.p)
    assert curve.low[0] < curve.value[0] < curve.high[0]
    assert (curve.p_corrected >= curve.p).all()


def test_the_maximum_statistic_keeps_the_familywise_error():
    rng = np.random.default_rng(7)
    alone = together = 0
    for study in range(60):
        windows = [pair_scores(rng.standard_normal((20, 20)))["twoway"] for _ in range(15)]
        drawing = Resampling(n_bootstraps=100, n_permutations=199, random_state=study)
        curve = score_curve("twoway", windows, None, drawing)
        alone += bool((curve.p < 0.05).any())
        together += bool((curve.p_corrected < 0.05).any())
    assert together <= 8  # 5 % of 60 is 3; 8 or fewer with probability 0.995
    assert alone >= 20  # what the correction is for: 1 - 0.95 ** 15 of 60 is 32


def test_one_image_has_a_value_and_nothing_else():
    curve = score_curve("twoway", [np.ones((1, 3), np.float32)], [2], RESAMPLING)
    row = curve_rows(curve, {"subject": "01"}, [{"k": 1}], "words")[0]
    assert set(row) == set(COLUMNS)
    assert row["value"] == 1.0
    assert row["n"] == 1
    assert all(row[name] is None for name in ("ci_low", "chance", "p", "p_corrected"))


def test_small_galleries_have_fewer_metrics():
    assert metrics_of(5) == ("twoway", "retrieval_top1")
    assert set(pair_scores(np.eye(3))) == {"twoway", "retrieval_top1"}


def test_average_by_keeps_the_order_asked_for():
    values = np.arange(8.0).reshape(4, 2)
    means = average_by(values, np.array(["b", "a", "b", "a"]), ["a", "b"])
    np.testing.assert_allclose(means, [[4, 5], [2, 3]])
