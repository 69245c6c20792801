"""Planted switching couplings are found, and priors help where data are few."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from hmm_glm_study import measure, plant, reference


def test_the_gaussian_prior_beats_the_naive_model_with_three_trials() -> None:
    planted = plant(1, 13)
    known = reference(planted, 3)
    settings = {"n_restarts": 3, "n_iterations": 20}
    naive = measure(planted, 3, "none", **settings)
    gaussian = measure(planted, 3, "gaussian", **settings)
    assert known["one_state_ll"] + 0.1 < gaussian["ll"] < known["oracle_ll"]
    assert gaussian["ll"] >= naive["ll"]
    assert gaussian["accuracy"] >= 0.9


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_low_data_one_hot_finds_couplings_that_the_naive_model_does_not() -> None:
    """Three trials of 500 samples; mean of three data sets, ten held-out trials each."""
    naive, gaussian, one_hot = [], [], []
    for seed in (0, 1, 2):
        planted = plant(seed, 13)
        for prior, rows in (("none", naive), ("gaussian", gaussian), ("one_hot", one_hot)):
            rows.append(measure(planted, 3, prior))

    def mean(rows: list[dict[str, float]], name: str) -> float:
        return float(np.mean([row[name] for row in rows]))

    assert mean(one_hot, "ll") >= mean(naive, "ll") + 0.05
    assert mean(gaussian, "ll") >= mean(naive, "ll")
    assert mean(one_hot, "wcorr") >= 0.85
    assert mean(one_hot, "adjacency") >= 0.85
    assert mean(one_hot, "accuracy") >= 0.95


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("prior", ["none", "gaussian", "one_hot"])
def test_with_ample_data_all_come_near_the_oracle(prior: str) -> None:
    planted = plant(1, 30)
    oracle = reference(planted, 20)["oracle_accuracy"]
    assert measure(planted, 20, prior)["accuracy"] >= 0.97 * oracle  # type: ignore[arg-type]
