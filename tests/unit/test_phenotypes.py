"""Prediction of phenotypes from arrays: equal to scikit-learn, and blind to what it may not see."""

from __future__ import annotations

import time

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression, Ridge
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from afterimage.errors import InputError
from afterimage.evaluation import phenotype_scores as scores
from afterimage.evaluation import phenotypes as ph


def predict(
    features: np.ndarray, labels: np.ndarray, folds: ph.Folds, **more: object
) -> np.ndarray:
    products = [[ph.gram(features)] * len(parts) for parts in folds.repeats]
    return ph.cross_validate(products, labels, folds, **more)  # type: ignore[arg-type]


def with_permutations(labels: np.ndarray, people: np.ndarray, n: int) -> np.ndarray:
    drawn = ph.permuted_rows(people, people, n_permutations=n)
    return np.concatenate([labels, np.moveaxis(labels[:, 0][drawn], 0, 1)], axis=1)


def test_equals_ridge_of_scikit_learn_on_residuals_of_the_training_rows() -> None:
    rng = np.random.default_rng(0)
    features, age = rng.standard_normal((40, 90)), rng.standard_normal((40, 1))
    features += age
    target = features[:, :1] + rng.standard_normal((40, 1))
    folds = ph.make_folds(np.arange(40), n_folds=4, n_repeats=2)
    found = predict(features, target, folds, confounds=age, penalties=(0.3,))
    for repeat, parts in enumerate(folds.repeats):
        for train, test in parts:
            clean = LinearRegression().fit(age[train], features[train])
            inside = features[train] - clean.predict(age[train])
            outside = features[test] - clean.predict(age[test])
            scale = np.square(inside).sum() / train.sum()
            model = Ridge(alpha=0.3 * scale).fit(inside, target[train, 0])
            np.testing.assert_allclose(
                found[repeat, test, 0], model.predict(outside) - target[train].mean(), atol=1e-8
            )


@pytest.mark.parametrize("logistic", [False, True])
def test_planted_phenotypes_are_found_and_permuted_ones_are_not(logistic: bool) -> None:
    rng = np.random.default_rng(1)
    n = 60
    features = rng.standard_normal((n, 400))
    side = rng.integers(0, 2, n)
    features[:, :30] += 0.8 * side[:, None]
    labels = np.eye(2)[side][:, None]
    people = np.arange(n)
    every = with_permutations(labels, people, 20 if logistic else 200)
    folds = ph.make_folds(people, n_folds=5, n_repeats=1 if logistic else 3)
    guess = predict(
        features, every, folds, logistic=logistic, penalties=(1.0,) if logistic else (0.1, 1.0)
    )
    for metric in ("balanced_accuracy", "auc"):
        scored = scores.score(every, guess, folds, metric)
        assert scored.value > 0.75
        assert scored.ci_low < scored.value < scored.ci_high
        if logistic:  # 39 permutations are needed
            assert (scored.ci_all_low, scored.ci_all_high) == (0, 1)
        else:
            assert scored.chance < scored.ci_all_low < scored.value < scored.ci_all_high <= 1
        assert scored.chance == pytest.approx(0.5, abs=0.06)
        assert scored.p < 0.06


def test_with_many_features_and_no_relation_everything_is_chance() -> None:
    """Fitted on all rows instead of the training rows, the correlation would be 1."""
    rng = np.random.default_rng(2)
    ps, values = [], []
    people = np.arange(40)
    for seed in range(12):
        features, target = rng.standard_normal((40, 3000)), rng.standard_normal((40, 1))
        every = with_permutations(target, people, 100)
        folds = ph.make_folds(people, n_repeats=2, random_state=seed)
        guess = predict(features, every, folds)
        scored = scores.score(every, guess, folds, "r")
        ps.append(scored.p)
        both = 2 * min(scored.p, 1 + 1 / 101 - scored.p)
        assert (scored.ci_all_low <= scored.chance <= scored.ci_all_high) == (both > 0.05)
        tried = scores.score(every, guess, folds, "r", n_tries=8)
        assert tried.ci_all_low <= min(scored.ci_all_low, tried.chance)
        assert tried.ci_all_high >= max(scored.ci_all_high, tried.chance)
        values.append(scored.value)
        # A little below zero, as the penalty is chosen where the rows left out are contrary; with
        # the means of training rows left in, it would be -0.2 to -0.3.
        assert -0.16 < scored.chance < 0.05
    assert 0.15 < np.mean(ps) < 0.85
    assert abs(np.mean(values)) < 0.2


def test_two_sessions_of_a_person_are_never_on_both_sides() -> None:
    """Were they, a person's second session would tell their label though nothing general does."""
    rng = np.random.default_rng(3)
    people = np.repeat(np.arange(30), 2)
    traits = rng.standard_normal((30, 500))
    features = traits[people] + 0.3 * rng.standard_normal((60, 500))
    target = rng.standard_normal((30, 1))[people]
    apart = ph.make_folds(people, n_repeats=3)
    for parts in apart.repeats:
        for train, test in parts:
            assert not set(people[train]) & set(people[test])
            for fitted, held in ph._inner(apart.groups, train, 5, 0):
                assert not set(people[fitted]) & set(people[held])
                assert not ((fitted | held) & ~train).any()
    every = with_permutations(target, people, 200)
    honest = scores.score(every, predict(features, every, apart), apart, "r")
    assert honest.p > 0.05
    leaky = ph.make_folds(np.arange(60), n_repeats=3)
    assert predict(features, target, leaky).shape == (3, 60, 1)
    assert scores.score(target, predict(features, target, leaky), leaky, "r").value > 0.7


def test_permutations_keep_persons_families_and_sites_together() -> None:
    people = np.array([0, 0, 1, 2, 3, 4, 4, 5, 6, 6])
    family = np.array([0, 0, 0, 1, 1, 2, 2, 2, 3, 3])
    sites = np.array([0, 0, 0, 0, 0, 0, 0, 0, 1, 1])
    drawn = ph.permuted_rows(people, family, sites, n_permutations=300)
    assert np.array_equal(np.sort(drawn, axis=1), np.tile(np.arange(10), (300, 1)))
    for row in drawn:
        assert np.array_equal(row[8:], [8, 9])  # the only family of that make-up at its site
        assert people[row[0]] == people[row[1]]  # a person's rows stay together
        assert len(set(family[row[:3]].tolist())) == 1
        assert set(row[3:5].tolist()) == {3, 4}
    assert len({tuple(row) for row in drawn.tolist()}) == 4  # two families swap, two siblings swap


def test_sites_are_left_out_with_the_families_of_their_people() -> None:
    sites = np.array(["a", "a", "b", "b", "c", "c"])
    folds = ph.make_folds(np.array([0, 1, 1, 2, 3, 4]), sites=sites)
    train, test = folds.repeats[0][0]
    assert test.tolist() == [True, True, False, False, False, False]
    assert train.tolist() == [False, False, False, True, True, True]
    with pytest.raises(InputError, match="one site"):
        ph.make_folds(np.arange(6), sites=np.full(6, "a"))
    with pytest.raises(InputError, match="fewer people than folds"):
        ph.make_folds(np.arange(4), n_folds=5)


def test_weighted_scores_equal_those_of_repeated_rows() -> None:
    rng = np.random.default_rng(4)
    truth, guess = rng.standard_normal((30, 1)), rng.standard_normal((30, 1))
    weights = rng.integers(0, 3, (30, 4)).astype(float)
    labels = np.eye(2)[rng.integers(0, 2, 30)][:, None]
    outputs = rng.integers(0, 4, (30, 1, 2)).astype(float)
    for column in range(4):
        rows = np.repeat(np.arange(30), weights[:, column].astype(int))
        a, b = truth[rows, 0], guess[rows, 0]
        assert scores.correlation(truth, guess, weights)[column] == pytest.approx(
            np.corrcoef(a, b)[0, 1]
        )
        expected = 1 - np.square(a - b).sum() / np.square(a - a.mean()).sum()
        assert scores.explained(truth, guess, weights)[column] == pytest.approx(expected)
        own, hit = labels[rows, 0].argmax(1), outputs[rows, 0].argmax(1)
        assert scores.balanced_accuracy(labels, outputs, weights)[column] == pytest.approx(
            balanced_accuracy_score(own, hit)
        )
        assert scores.auc(labels, outputs, weights)[column] == pytest.approx(
            roc_auc_score(own, outputs[rows, 0, 1])
        )
    assert scores.correlation(truth, np.ones((30, 1)), np.ones((30, 1)))[0] == 0


def test_confounds_are_taken_out_of_features() -> None:
    rng = np.random.default_rng(5)
    motion = rng.standard_normal((80, 1))
    features = motion + 0.2 * rng.standard_normal((80, 100))
    folds = ph.make_folds(np.arange(80), n_repeats=1)
    even = np.ones((80, 1))
    for confounds, low, high in ((None, 0.9, 1.0), (motion, -1.0, 0.3)):
        guess = predict(features, motion, folds, confounds=confounds)[0]
        assert low <= scores.correlation(motion, guess, even)[0] <= high


def test_scaling_is_fitted_on_training_rows_and_missing_values_are_their_mean() -> None:
    table = np.array([[1.0, 5.0], [3.0, 5.0], [np.nan, 5.0], [1000.0, 9.0]])
    scaled = ph.standardised(table, np.array([True, True, True, False]))
    np.testing.assert_allclose(scaled[:3, 0], [-np.sqrt(1), np.sqrt(1), 0.0])
    assert scaled[3, 0] == pytest.approx(998.0)
    assert (scaled[:, 1] == 0).all()


def test_a_thousand_permutations_take_seconds() -> None:
    rng = np.random.default_rng(6)
    people = np.arange(50)
    target = rng.standard_normal((50, 1))
    every = with_permutations(target, people, 1000)
    folds = ph.make_folds(people, n_repeats=2)
    features = rng.standard_normal((50, 20000)).astype(np.float32)
    started = time.process_time()
    scores.score(every, predict(features, every, folds), folds, "r")
    assert time.process_time() - started < 20
