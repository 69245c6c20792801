"""The forward-backward recursion against every path there is."""

from __future__ import annotations

import itertools

import numpy as np

from afterimage.signal.forward_backward import (
    forward_backward,
    match_states,
    most_likely_states,
    sequence_log_likelihood,
)


def models(n_models: int, n_sequences: int, n_times: int, n_states: int, scale: float = 2.0):
    rng = np.random.default_rng(0)
    emission = scale * rng.standard_normal((n_models, n_sequences, n_times, n_states)) - 5
    initial = rng.dirichlet(np.ones(n_states), n_models)
    transition = rng.dirichlet(np.ones(n_states), (n_models, n_states))
    return emission, initial, transition


def test_equals_the_sum_over_all_paths() -> None:
    emission, initial, transition = models(2, 3, 6, 3)
    found = forward_backward(emission, initial, transition)
    for r in range(2):
        pairs = np.zeros((3, 3))
        for b in range(3):
            states, likelihood = np.zeros((6, 3)), 0.0
            these = np.zeros((3, 3))
            for path in itertools.product(range(3), repeat=6):
                p = initial[r, path[0]] * np.exp(emission[r, b, np.arange(6), path].sum())
                p *= np.prod([transition[r, i, j] for i, j in itertools.pairwise(path)])
                likelihood += p
                states[np.arange(6), path] += p
                np.add.at(these, (path[:-1], path[1:]), p)
            assert abs(found.log_likelihood[r, b] - np.log(likelihood)) < 1e-6
            np.testing.assert_allclose(found.states[r, b], states / likelihood, atol=1e-6)
            pairs += these / likelihood
        np.testing.assert_allclose(found.transitions[r], pairs, atol=1e-6)


def test_a_long_sequence_neither_underflows_nor_loses_probability() -> None:
    emission, initial, transition = models(1, 2, 5000, 4, scale=30.0)
    found = forward_backward(emission, initial, transition)
    assert np.isfinite(found.log_likelihood).all()
    np.testing.assert_allclose(found.states.sum(-1), 1, atol=1e-9)
    np.testing.assert_allclose(found.transitions.sum(), 2 * 4999, rtol=1e-9)
    alone = sequence_log_likelihood(emission, initial, transition)
    np.testing.assert_allclose(alone, found.log_likelihood, rtol=1e-12)


def test_states_are_matched_one_to_one() -> None:
    rng = np.random.default_rng(1)
    truth = rng.integers(0, 4, 500)
    names = np.array([2, 0, 3, 1])
    found = names[truth]
    found[:40] = rng.integers(0, 4, 40)
    order = match_states(found, truth, 4)
    assert sorted(order) == [0, 1, 2, 3]
    assert (order[found] == truth).mean() > 0.9
    assert most_likely_states(np.eye(4)[None, None]).tolist() == [[[0, 1, 2, 3]]]
