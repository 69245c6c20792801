"""Checks of the Bayesian decoder against quadrature and direct encoding models."""

import numpy as np
import pytest
from scipy.stats import multivariate_normal
from sklearn.linear_model import Ridge

from afterimage.decoding.bayesian import BayesianDecoder, BayesianSettings
from afterimage.errors import InputError


def problem(n: int = 12, n_units: int = 5, noise: float = 1.0) -> tuple:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(n, 2)) * [1.0, 0.5] + [3.0, -1.0]
    responses = features @ rng.normal(size=(2, n_units)) + noise * rng.normal(size=(n, n_units))
    groups = np.array([f"image-{i:02d}" for i in range(n)])
    return responses.astype(np.float32), {"block": features.astype(np.float32)}, groups


@pytest.mark.parametrize("inside", [1.0, 0.3])
@pytest.mark.parametrize("isotropy", [0.0, 0.6])
def test_posterior_mean_equals_quadrature_over_features(inside: float, isotropy: float) -> None:
    responses, features, groups = problem()
    settings = BayesianSettings(
        rescale="none", isotropy=isotropy, component_variances=(inside,), penalties=(1.0,)
    )
    decoder = BayesianDecoder(settings).fit(responses, features, groups)
    state = decoder.state()
    centred = features["block"].astype(float) - features["block"].mean(0)
    n, power = len(centred), (centred**2).sum() / len(centred)
    covariance = ((1 - isotropy) * centred.T @ centred + isotropy * power * np.eye(2)) / n
    axis = np.linspace(-6, 6, 241)
    grid = np.stack(np.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2)
    centres = centred * np.sqrt(1 - inside)
    prior = np.mean(
        [multivariate_normal(c, inside * covariance).pdf(grid) for c in centres], axis=0
    )
    used = (responses - state["unit_mean"]) / state["unit_scale"]
    coordinates = used[:, state["units"]] @ state["projection"]
    expected_coordinates = grid @ state["encoding/block"]
    expected = []
    for measured in coordinates[:4]:
        likelihood = np.exp(-0.5 * ((measured - expected_coordinates) ** 2).sum(1))
        weight = prior * likelihood
        expected.append(weight @ grid / weight.sum() + features["block"].mean(0))
    np.testing.assert_allclose(decoder.predict(responses[:4])["block"], expected, atol=2e-4)


def test_encoding_weights_are_ridge_regression_of_the_responses() -> None:
    responses, features, groups = problem(n=30)
    settings = BayesianSettings(penalties=(3.0,))
    decoder = BayesianDecoder(settings).fit(responses, features, groups)
    state = decoder.state()
    standard = (responses - responses.mean(0)) / responses.std(0)
    centred = features["block"] - features["block"].mean(0)
    power = (centred.astype(float) ** 2).sum() / len(centred)
    expected = Ridge(alpha=3.0 * power).fit(centred, standard).predict(centred)
    np.testing.assert_allclose(
        centred @ state["encoding/block"],
        expected[:, state["units"]] @ state["projection"],
        atol=1e-4,
    )


def test_scores_are_log_likelihoods_up_to_a_constant_of_the_response() -> None:
    responses, features, groups = problem(n=30, n_units=6)
    decoder = BayesianDecoder(BayesianSettings()).fit(responses, features, groups)
    found = decoder.scores(responses[:5], features)
    state = decoder.state()
    standard = (responses - state["unit_mean"]) / state["unit_scale"]
    coordinates = standard[:5] @ state["projection"]
    centred = features["block"] - features["block"].mean(0)
    distance = (coordinates[:, None] - (centred @ state["encoding/block"])[None]) ** 2
    np.testing.assert_allclose(found, -0.5 * distance.sum(-1), rtol=1e-4, atol=1e-3)
    # noise in the coordinates has variance one by construction
    assert 0.6 < (coordinates - centred[:5] @ state["encoding/block"]).std() < 1.6


def test_noise_free_responses_give_back_the_features() -> None:
    responses, features, groups = problem(n=60, n_units=20, noise=0.02)
    settings = BayesianSettings(rescale="none", penalties=(0.001,), component_variances=(1.0,))
    decoder = BayesianDecoder(settings).fit(responses, features, groups)
    np.testing.assert_allclose(decoder.predict(responses)["block"], features["block"], atol=0.1)


def test_block_outside_the_kernel_is_decoded_too() -> None:
    responses, features, groups = problem(n=80, n_units=20, noise=0.3)
    features["copy"] = features["block"] * 4 - 2
    settings = BayesianSettings(encoding_blocks=("block",), rescale="none")
    decoder = BayesianDecoder(settings).fit(responses, features, groups)
    found = decoder.predict(responses)
    np.testing.assert_allclose(found["copy"], found["block"] * 4 - 2, atol=1e-3)
    assert decoder.cross_validation_["copy"]["encodes"] == 0


def test_block_that_the_brain_follows_is_chosen_for_encoding() -> None:
    responses, features, groups = problem(n=80, n_units=20)
    noise = np.random.default_rng(1).normal(size=(80, 50)).astype(np.float32)
    blocks = {"noise": noise, "flat": np.ones((80, 3), np.float32), **features}
    decoder = BayesianDecoder(BayesianSettings()).fit(responses, blocks, groups)
    used = {name: report["encodes"] for name, report in decoder.cross_validation_.items()}
    assert used == {"noise": 0, "flat": 0, "block": 1}


def test_features_that_never_differ_are_refused() -> None:
    responses, _, groups = problem()
    with pytest.raises(InputError, match="no feature block"):
        BayesianDecoder(BayesianSettings()).fit(responses, {"flat": np.ones((12, 3))}, groups)


def test_components_help_when_stimuli_come_in_clusters() -> None:
    rng = np.random.default_rng(2)
    centres = rng.normal(size=(8, 10)) * 3
    features = (centres[rng.integers(0, 8, 240)] + 0.3 * rng.normal(size=(240, 10))).astype("f4")
    responses = features @ rng.normal(size=(10, 15)) + 12 * rng.normal(size=(240, 15))
    responses, groups = responses.astype("f4"), np.array([f"{i}" for i in range(240)])
    error = {}
    for shares in ((1.0,), (0.4, 0.6, 0.8, 1.0)):
        settings = BayesianSettings(component_variances=shares, rescale="none")
        decoder = BayesianDecoder(settings)
        decoder.fit(responses[:160], {"block": features[:160]}, groups[:160])
        found = decoder.predict(responses[160:])["block"]
        error[len(shares)] = ((found - features[160:]) ** 2).mean()
    assert error[4] < 0.97 * error[1]


def test_unit_limit_keeps_the_units_that_follow_the_stimulus() -> None:
    responses, features, groups = problem(n=80, n_units=10, noise=0.5)
    noise = np.random.default_rng(3).normal(size=(80, 60)).astype(np.float32)
    both = np.concatenate([noise, responses], axis=1)
    decoder = BayesianDecoder(BayesianSettings(n_units_max=10)).fit(both, features, groups)
    assert (decoder.state()["units"] >= 60).sum() >= 8


def test_choosing_units_does_not_leak_into_the_inner_folds() -> None:
    rng = np.random.default_rng(6)
    features = rng.normal(size=(40, 5)).astype(np.float32)
    responses = rng.normal(size=(40, 2000)).astype(np.float32)
    groups = np.array([f"image-{i:02d}" for i in range(40)])
    settings = BayesianSettings(n_units_max=100)
    decoder = BayesianDecoder(settings).fit(responses, {"block": features}, groups)
    assert np.mean(decoder.cross_validation_["block"]["r"]) < 0.2
