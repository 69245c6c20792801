"""The HMM-GLM: its likelihood, its history, its links, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm, poisson

from afterimage.connectivity.hmm_glm import HMMGLM, exponential_basis, history, signed_edges
from afterimage.errors import InputError


def counts(n: int = 2, n_times: int = 60, n_units: int = 4) -> np.ndarray:
    return np.random.default_rng(0).poisson(0.6, (n, n_times, n_units)).astype(float)


def test_the_past_does_not_hold_the_present() -> None:
    values = np.zeros((1, 8, 1))
    values[0, 2] = 1
    basis = exponential_basis(3)
    assert basis.sum() == pytest.approx(1)
    assert basis[0] / basis[1] == pytest.approx(np.e)
    np.testing.assert_allclose(history(values, basis)[0, :, 0], [0, 0, 0, *basis, 0, 0])


@pytest.mark.parametrize("link", ["sigmoid", "softplus", "identity"])
def test_the_likelihood_is_the_sum_over_all_paths(link: str) -> None:
    rng = np.random.default_rng(1)
    values, n_times = counts(1, 21, 2), 21
    model = HMMGLM(n_states=2, link=link, n_lags=2)  # type: ignore[arg-type]
    model.set_parameters(
        rng.standard_normal((2, 2, 2)), rng.standard_normal(2), np.array([0.3, 0.7]),
        np.array([[0.9, 0.1], [0.2, 0.8]]),
    )  # fmt: skip
    past = history(values, exponential_basis(2))[0]
    rates = past @ model.weights_.transpose(0, 2, 1) + model.bias_  # (S, T, N)
    if link == "identity":
        emission = norm.logpdf(values[0], rates).sum(-1)
    else:
        function = {
            "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
            "softplus": lambda x: np.log1p(np.exp(x)),
        }
        emission = poisson.logpmf(values[0], function[link](rates)).sum(-1)
    filtered = np.log(model.initial_) + emission[:, 0]
    for t in range(1, n_times):
        step = filtered[:, None] + np.log(model.transition_)
        filtered = np.logaddexp(*step) + emission[:, t]
    assert model.log_likelihood(values) == pytest.approx(
        np.logaddexp(*filtered) / n_times, rel=1e-5
    )


def test_a_switching_autoregression_is_found_in_continuous_series() -> None:
    rng = np.random.default_rng(2)
    weights = np.array([[[0.8, 0.0], [0.0, 0.8]], [[0.0, 0.9], [-0.9, 0.0]]])
    states = np.repeat([0, 1, 0, 1], 75)
    values = np.zeros((3, 300, 2))
    for t in range(1, 300):
        values[:, t] = values[:, t - 1] @ weights[states[t]].T + 0.5 * rng.standard_normal((3, 2))
    model = HMMGLM(n_states=2, link="identity", n_lags=1, n_restarts=3, n_iterations=15).fit(
        values
    )
    found = model.state_posterior(values).argmax(-1)
    accuracy = (found == states).mean()
    assert max(accuracy, 1 - accuracy) > 0.9
    if accuracy < 0.5:
        model.weights_ = model.weights_[::-1]
    assert np.abs(model.weights_ - weights).max() < 0.2
    assert model.bounds_.shape == (3,)


def test_self_coupling_can_be_left_out_and_a_fit_repeats() -> None:
    settings = {"n_states": 2, "prior": "one_hot", "self_coupling": False, "n_restarts": 2,
                "n_iterations": 2, "n_steps": 3}  # fmt: skip
    first, second = (HMMGLM(**settings).fit(counts()) for _ in range(2))
    assert not first.weights_[:, np.arange(4), np.arange(4)].any()
    assert set(np.unique(first.adjacency_)) <= {-1, 0, 1}
    np.testing.assert_array_equal(first.adjacency_, np.sign(first.weights_))
    np.testing.assert_array_equal(first.weights_, second.weights_)


def test_small_weights_are_no_edges() -> None:
    weights = np.array([[[2.0, 0.1], [-0.2, -1.8]]])
    assert signed_edges(weights, "none").tolist() == [[[1, 0], [0, -1]]]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([np.zeros((50, 3)), np.zeros((40, 3))], "differ in shape"),
        (np.full((1, 50, 3), np.nan), "not finite"),
        (np.full((1, 50, 3), 0.5), "counts"),
        (np.zeros((1, 12, 3)), "too short"),
    ],
)
def test_bad_sequences_are_refused(values: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message):
        HMMGLM(n_states=2).fit(values)
