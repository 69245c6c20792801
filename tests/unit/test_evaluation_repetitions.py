"""Repetition curves: theory against drawing, averaging before and after, unequal repeats."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from afterimage.errors import InputError
from afterimage.evaluation.gallery import COLUMNS
from afterimage.evaluation.repetitions import (
    expected_top_k,
    fit_d_prime,
    repetition_curve,
    repetition_rows,
)
from afterimage.evaluation.scores import Resampling

RESAMPLING = Resampling(n_bootstraps=150, n_permutations=150, random_state=4)


def study(repeats, noise=3.0, n_features=20, seed=0):
    rng = np.random.default_rng(seed)
    gallery = rng.standard_normal((len(repeats), n_features))
    rows = np.repeat(np.arange(len(repeats)), repeats)
    trials = gallery[rows] + noise * rng.standard_normal((len(rows), n_features))
    names = np.array([f"image{number}" for number in range(len(repeats))])
    return trials, names[rows], names, gallery


def test_expectation_of_two_choices_is_the_known_formula():
    for d_prime in (0.0, 0.5, 2.0):
        known = norm.cdf(d_prime / np.sqrt(2))
        assert expected_top_k(d_prime, 2, 1) == pytest.approx(known, abs=1e-6)
    assert expected_top_k(0.0, 200, 5) == pytest.approx(5 / 200)


def test_expectation_equals_drawing():
    rng = np.random.default_rng(0)
    right, wrong = rng.standard_normal(20000) + 1.5, rng.standard_normal((20000, 49))
    better = (wrong > right[:, None]).sum(axis=1)
    for top_k in (1, 5):
        drawn = (better < top_k).mean()
        assert expected_top_k(1.5, 50, top_k) == pytest.approx(drawn, abs=0.012)


def test_fitting_inverts_the_expectation():
    assert fit_d_prime(expected_top_k(1.3, 200, 5), 200, 5) == pytest.approx(1.3, abs=1e-6)
    assert np.isnan(fit_d_prime(0.02, 200, 5))
    assert np.isnan(fit_d_prime(1.0, 200, 5))


def test_linear_decoder_may_average_before_or_after():
    trials, stimuli, names, gallery = study([6] * 15)
    weights = np.random.default_rng(1).standard_normal((20, 20))
    mean = gallery.mean(0)
    settings = {"k_values": (1, 3), "n_draws": 3, "resampling": RESAMPLING}
    after = repetition_curve(trials @ weights, stimuli, names, gallery, mean, **settings)
    before = repetition_curve(
        trials, stimuli, names, gallery, mean, predict=lambda values: values @ weights, **settings
    )
    for metric, curves in after.curves.items():
        for one, other in zip(curves, before.curves[metric], strict=True):
            np.testing.assert_allclose(one.per_image, other.per_image)


def test_images_with_too_few_repeats_are_left_out_and_counted():
    trials, stimuli, names, gallery = study([2] * 6 + [5] * 4)
    result = repetition_curve(
        trials, stimuli, names, gallery, gallery.mean(0), k_values=(1, 2, 4, 9),
        resampling=RESAMPLING,
    )  # fmt: skip
    assert result.k == (1, 2, 4, 5)
    assert result.n == (10, 10, 4, 4)
    assert result.n_gallery == 10


def test_all_repeats_equal_the_plain_average():
    trials, stimuli, names, gallery = study([4] * 12)
    mean = np.zeros(20)
    result = repetition_curve(
        trials, stimuli, names, gallery, mean, k_values=(4,), resampling=RESAMPLING
    )
    average = trials.reshape(12, 4, 20).mean(1)
    hits = np.corrcoef(average, gallery)[:12, 12:].argmax(1) == np.arange(12)
    assert result.curves["retrieval_top1"][0].value[0] == pytest.approx(hits.mean())


def test_rows_carry_k_protocol_and_ceiling():
    trials, stimuli, names, gallery = study([3] * 8)
    result = repetition_curve(
        trials, stimuli, names, gallery, np.zeros(20), k_values=(1,), resampling=RESAMPLING
    )
    rows = repetition_rows(
        result, subject="01", label="ridge", decoder="ridge", window_s=(0.0, 0.6),
        ceilings={"retrieval_top1": [0.5, 0.9]},
    )  # fmt: skip
    assert len(rows) == 2 * 3
    assert all(set(row) == set(COLUMNS) for row in rows)
    top = [row for row in rows if row["metric"] == "retrieval_top1"]
    assert [row["k"] for row in top] == [1, 3]
    assert [row["ceiling"] for row in top] == [0.5, 0.9]
    assert "single trials" in top[0]["protocol"]
    assert "3 of up to 3 averaged" in top[1]["protocol"]
    assert {row["ceiling"] for row in rows if row["metric"] == "twoway"} == {None}


def test_trials_of_unknown_images_are_refused():
    trials, stimuli, names, gallery = study([2] * 4)
    with pytest.raises(InputError, match="not in the gallery") as caught:
        repetition_curve(trials, stimuli, names[:3], gallery[:3], np.zeros(20))
    assert "image3" in str(caught.value)
