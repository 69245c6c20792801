"""Checks of the encoding models and covariances that the decoders share."""

import numpy as np
import pytest
from sklearn.covariance import ledoit_wolf
from sklearn.linear_model import Ridge

from afterimage.decoding import unit_models


def small_problem(n: int = 15, n_features: int = 6, n_units: int = 4) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(n, n_features))
    responses = features @ rng.normal(size=(n_features, n_units)) + rng.normal(size=(n, n_units))
    return features - features.mean(0), responses - responses.mean(0)


def test_left_out_residuals_equal_refitting_without_each_stimulus() -> None:
    features, responses = small_problem()
    eigen = np.linalg.eigh(features @ features.T)
    fast = unit_models.leave_one_out_residuals(eigen, 2.0, responses)
    for row in range(len(features)):
        others = np.arange(len(features)) != row
        # the closed form keeps the centre of the features, hence no intercept but the mean's
        hat = np.ones((len(features),) * 2) / len(features)
        hat += features @ np.linalg.solve(features.T @ features + 2.0 * np.eye(6), features.T)
        weights = hat[row, others] / (1 - hat[row, row])
        np.testing.assert_allclose(fast[row], responses[row] - weights @ responses[others])
    slow = np.empty_like(responses)
    for row in range(len(features)):
        others = np.arange(len(features)) != row
        model = Ridge(alpha=2.0).fit(features[others], responses[others])
        slow[row] = responses[row] - model.predict(features[[row]])[0]
    np.testing.assert_allclose(fast, slow, rtol=1e-9)


def test_explained_variance_is_generalised_cross_validation() -> None:
    features, responses = small_problem()
    n = len(features)
    eigen = np.linalg.eigh(features @ features.T)
    penalties = [0.5, 5.0]
    found = unit_models.explained_variance(eigen, penalties, responses)
    for penalty, row in zip(penalties, found, strict=True):
        hat = (
            features @ np.linalg.solve(features.T @ features + penalty * np.eye(6), features.T)
            + 1 / n
        )
        error = ((responses - hat @ responses) ** 2).sum(0) / (1 - np.trace(hat) / n) ** 2
        total = (responses**2).sum(0) * (n / (n - 1)) ** 2
        np.testing.assert_allclose(row, 1 - error / total)
        one = unit_models.explained_variance_of(
            features @ features.T, penalty, lambda part: responses[:, part], responses.shape[1]
        )
        np.testing.assert_allclose(one, row)


def test_explained_variance_of_noise_and_of_constant_units() -> None:
    features, responses = small_problem(n=60)
    noise = np.random.default_rng(1).normal(size=(60, 300))
    eigen = np.linalg.eigh(features @ features.T)
    assert unit_models.explained_variance(eigen, [1.0], responses).min() > 0.4
    assert np.mean(unit_models.explained_variance(eigen, [1.0], noise)) < 0
    assert (unit_models.explained_variance(eigen, [1.0], np.zeros((60, 2))) == 0).all()


def test_unit_batches_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    features, responses = small_problem()
    eigen = np.linalg.eigh(features @ features.T)
    whole = unit_models.explained_variance(eigen, [1.0], responses)
    monkeypatch.setattr(unit_models, "UNIT_BATCH", 3)
    np.testing.assert_allclose(unit_models.explained_variance(eigen, [1.0], responses), whole)


def test_average_repeats_and_gram() -> None:
    values = np.array([[1.0], [5.0], [3.0], [7.0]])
    stimulus = np.array([1, 0, 1, 0])
    np.testing.assert_array_equal(unit_models.average_repeats(values, stimulus), [[6.0], [2.0]])
    gram, power = unit_models.centred_gram(values)
    centred = values - values.mean()
    np.testing.assert_allclose(gram * power, centred @ centred.T)
    np.testing.assert_allclose(np.trace(gram), len(gram))
    assert unit_models.centred_gram(np.ones((3, 2)))[1] == 0


def test_shrunk_covariance_is_ledoit_wolf_on_standard_scores() -> None:
    rng = np.random.default_rng(2)
    residuals = rng.normal(size=(40, 8)) @ rng.normal(size=(8, 8))
    deviations = np.sqrt((residuals**2).mean(0))
    expected, _ = ledoit_wolf(residuals / deviations, assume_centered=True)
    found = unit_models.shrunk_covariance(residuals)
    np.testing.assert_allclose(found, expected * np.outer(deviations, deviations), rtol=1e-6)


def test_whitening_inverts_a_covariance_even_with_few_trials() -> None:
    residuals = np.random.default_rng(3).normal(size=(5, 30))
    residuals[:, 4] = 0
    covariance = unit_models.shrunk_covariance(residuals)
    matrix = unit_models.whitening(covariance)
    np.testing.assert_allclose(matrix.T @ covariance @ matrix, np.eye(30), atol=1e-8)
