"""Ridge regression from sums over trials, and its correction for a new subject."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from afterimage.evaluation.subject_protocols import SubjectTrials
from afterimage.evaluation.subject_ridge import Moments, SubjectRidge, correct, solve_moments

RNG = np.random.default_rng(0)
X = RNG.normal(3, 2, (90, 12)) @ RNG.normal(size=(12, 12))
Y = 0.3 * X @ RNG.normal(size=(12, 5)) + RNG.normal(1, 4, (90, 5))
FOLD = RNG.integers(0, 4, 90)


def folds() -> list[Moments]:
    return [Moments.of(X[number == FOLD], Y[number == FOLD]) for number in range(4)]


def level(inputs: np.ndarray) -> float:
    return float(((inputs - inputs.mean(0)) ** 2).sum() / len(inputs))


def test_sums_give_the_coefficients_of_scikit_learn() -> None:
    found = solve_moments(folds(), (0.1,))
    expected = Ridge(alpha=0.1 * level(X)).fit(X, Y)
    np.testing.assert_allclose(found.coefficients, expected.coef_.T, rtol=1e-7)
    np.testing.assert_allclose(found.target_mean - found.mean @ found.coefficients,
                               expected.intercept_, rtol=1e-6)  # fmt: skip


def test_the_penalty_is_that_whose_left_out_predictions_agree_best() -> None:
    alphas = (1e-3, 1e-2, 0.1, 1.0, 10.0)
    aligned, length = np.zeros(len(alphas)), np.zeros(len(alphas))
    for number in range(4):
        inside = number == FOLD
        for place, alpha in enumerate(alphas):
            model = Ridge(alpha=alpha * level(X[~inside])).fit(X[~inside], Y[~inside])
            made = model.predict(X[inside]) - Y[~inside].mean(0)
            aligned[place] += (made * (Y[inside] - Y[~inside].mean(0))).sum()
            length[place] += (made**2).sum()
    best = int(np.argmax(aligned / np.sqrt(length)))
    assert solve_moments(folds(), alphas).alpha == alphas[best]
    assert 0 < best < len(alphas) - 1  # the grid holds the answer


def test_sums_of_parts_are_those_of_the_whole() -> None:
    whole = Moments.of(X, Y)
    parts = folds()
    joined = parts[0] + parts[1] + parts[2] + parts[3]
    for name in ("n", "x", "y", "xx", "xy"):
        np.testing.assert_allclose(getattr(joined, name), getattr(whole, name))
    rest = joined - parts[0]
    np.testing.assert_allclose(rest.xx, Moments.of(X[FOLD > 0], Y[FOLD > 0]).xx)
    around, crossed = whole.around(X.mean(0), Y.mean(0))
    centred, truth = X - X.mean(0), Y - Y.mean(0)
    np.testing.assert_allclose(around, centred.T @ centred, atol=1e-8)
    np.testing.assert_allclose(crossed, centred.T @ truth, atol=1e-8)


def test_a_correction_is_ridge_on_what_is_left_over() -> None:
    inputs, residual = X - X.mean(0), Y - Y.mean(0)
    guess = RNG.normal(size=Y.shape)
    rows = [np.flatnonzero(number == FOLD) for number in range(4)]
    found, alpha = correct(inputs, guess + residual, guess, rows, (0.1,))
    assert alpha == 0.1
    penalty = 0.1 * float((inputs**2).sum() / len(inputs))
    expected = Ridge(alpha=penalty, fit_intercept=False).fit(inputs, residual)
    np.testing.assert_allclose(found, expected.coef_.T, rtol=1e-6)


def test_a_perfect_guess_is_not_corrected_and_left_out_rows_are_exact() -> None:
    inputs, truth = X - X.mean(0), Y - Y.mean(0)
    rows = [np.flatnonzero(number == FOLD) for number in range(4)]
    found, alpha = correct(inputs, truth, truth, rows, (1e-3, 0.1))
    assert alpha == np.inf
    assert not found.any()
    # Of a guess of nothing, the penalty is the best of fits that never saw the fold.
    alphas = (1e-3, 0.03, 1.0)
    scale = float((inputs**2).sum() / len(inputs))
    agreement = []
    for one in alphas:
        made = np.empty_like(truth)
        for number in range(4):
            inside = number == FOLD
            model = Ridge(alpha=one * scale, fit_intercept=False)
            made[inside] = model.fit(inputs[~inside], truth[~inside]).predict(inputs[inside])
        agreement.append((made * truth).sum() / np.sqrt((made**2).sum()))
    _, chosen = correct(inputs, truth, np.zeros_like(truth), rows, alphas)
    assert chosen == alphas[int(np.argmax(agreement))]


def test_a_subject_that_is_like_the_others_keeps_their_coefficients_and_batches_do_not_matter(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names = np.array([f"i{row}" for row in range(90)])
    features = dict(zip(names.tolist(), Y, strict=True))
    trials = X.reshape(90, 4, 3).astype(np.float32)
    one = SubjectTrials(trials, names, names, trials[:2], np.array(["a", "b"]))
    subjects = {"01": one, "02": one, "03": one}
    gallery = np.random.default_rng(1).normal(size=(2, 5))
    whole = SubjectRidge(subjects, features, gallery).fit(["01", "02"])
    monkeypatch.setattr("afterimage.evaluation.subject_ridge.N_TRIALS_BATCH", 7)
    learner = SubjectRidge(subjects, features, gallery)
    parts = learner.fit(["01", "02"])
    np.testing.assert_allclose(parts.coefficients, whole.coefficients, rtol=1e-3, atol=1e-4)
    found = learner.similarities(parts, trials[:6], "01")
    assert found.shape == (6, 2)
    axes = np.linalg.qr(np.random.default_rng(3).normal(size=(4, 4)))[0]
    turned = SubjectRidge(subjects, features, gallery, components=axes)
    again = turned.similarities(turned.fit(["01", "02"]), trials[:6], "01")
    np.testing.assert_allclose(again, found, atol=1e-3)
