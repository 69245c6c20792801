"""Planted states are found in clean windows, and nothing is found where nothing switches."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from afterimage.connectivity.dynamics import all_windows, cluster, surrogate_null
from afterimage.connectivity.hidden_states import find_hidden_states, held_out_gain
from afterimage.connectivity.window_states import find_window_states
from afterimage.signal.forward_backward import match_states
from afterimage.signal.surrogates import p_above, phase_randomised
from afterimage.signal.windows import window_starts

sys.path.insert(0, str(Path(__file__).parent))
from switching_example import stationary, switching

WIDTH, STEP = 30, 6


def windows_of(values: np.ndarray):
    kept = np.ones(len(values), bool)
    return all_windows([values], [kept], WIDTH, STEP, 15), kept


def clean_windows(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Windows that lie inside one state, and that state."""
    starts = window_starts(len(labels), WIDTH, STEP)
    inside = np.array([len(np.unique(labels[s : s + WIDTH])) == 1 for s in starts])
    return inside, labels[starts]


@pytest.mark.parametrize("seed", [0, 1])
def test_window_states_are_found_in_clean_windows(seed: int) -> None:
    values, labels = switching(seed)
    windows, kept = windows_of(values)
    inside, truth = clean_windows(labels)
    chosen = find_window_states(windows.correlations, windows.groups, gap=WIDTH // STEP)
    assert chosen.n_states >= 3  # windows across a change may add some
    found = cluster(windows, 3, 10, 0)
    order = match_states(found.labels[inside], truth[inside], 3)
    assert (order[found.labels] == truth)[inside].mean() >= 0.9
    null = surrogate_null(
        [values], [kept], WIDTH, STEP, 15, n_states=3, n_components=10, n_surrogates=19
    )
    assert p_above(windows.variance[0], null.variance[:, 0]) == 0.05
    explained = cluster(windows, 3, 10, 0).explained
    assert p_above(explained, null.explained) == 0.05


def test_hidden_states_are_found_and_predict_held_out_samples() -> None:
    values, labels = switching(2)
    found = find_hidden_states([values], candidates=(1, 2, 3, 4), n_components=15, n_restarts=4)
    assert found.n_states >= 3
    three = find_hidden_states([values], candidates=(3,), n_components=15).labels[0]
    order = match_states(three, labels, 3)
    assert (order[three] == labels).mean() >= 0.9
    settings = {"n_components": 15, "n_restarts": 4}
    surrogate = held_out_gain(phase_randomised(values, 0), 3, **settings)
    assert held_out_gain(values, 3, **settings) > 0.5
    assert surrogate < 0.1


def test_one_state_where_nothing_switches() -> None:
    windows, _ = windows_of(stationary(0, n_times=1200, n_units=15))
    found = find_window_states(windows.correlations, windows.groups, gap=WIDTH // STEP)
    assert found.n_states == 1


def false_positives(n_seeds: int) -> tuple[int, int]:
    variance = explained = 0
    for seed in range(n_seeds):
        values = stationary(100 + seed)
        windows, kept = windows_of(values)
        null = surrogate_null(
            [values], [kept], WIDTH, STEP, 15, n_states=2, n_components=5, n_surrogates=19,
            random_state=seed,
        )  # fmt: skip
        variance += p_above(windows.variance[0], null.variance[:, 0]) <= 0.05
        found = cluster(windows, 2, 5, 0)
        explained += p_above(found.explained, null.explained) <= 0.05
    return variance, explained


@pytest.mark.slow
def test_the_null_is_quiet_on_a_stationary_autoregression() -> None:
    """At alpha .05, 40 series give 2 false alarms; more than 6 has a probability of .3 %."""
    variance, explained = false_positives(40)
    assert variance <= 6
    assert explained <= 6
