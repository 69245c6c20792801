"""Scores of what was filled in: closed forms of every predictor."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from afterimage.evaluation.pretext import (
    copy_nearest,
    score_edges,
    score_samples,
    visible_mean,
)

RIVALS = ("persistence", "average", "mean graph", "own mean graph")


def filled(tokens: np.ndarray, hidden: np.ndarray, predicted: np.ndarray | None = None) -> Any:
    return SimpleNamespace(
        tokens=tokens.astype(np.float32),
        predicted=(tokens if predicted is None else predicted).astype(np.float32),
        hidden=hidden,
        known=np.ones_like(hidden),
    )


def factor_tokens(n: int, seed: int) -> list[np.ndarray]:
    """One factor, loading .8 on 6 regions: the best predictor is known."""
    generator = np.random.default_rng(seed)
    found = []
    for _ in range(n):
        factor = generator.standard_normal((20, 1, 5))
        noise = generator.standard_normal((20, 6, 5))
        found.append(0.8 * factor + 0.6 * noise)
    return found


def test_ridge_reaches_the_best_linear_predictor_and_perfection_is_one() -> None:
    test, train = factor_tokens(40, 0), factor_tokens(40, 1)
    hidden = np.zeros((20, 6), bool)
    hidden[::2, :3], hidden[1::2, 3:] = True, True
    scores = {s.predictor: s for s in score_samples([filled(t, hidden) for t in test], train)}
    # From 3 regions of correlation .64: R2 = .64^2 * 3 / (1 + 2 * .64)
    best = 0.64**2 * 3 / (1 + 2 * 0.64)
    assert scores["ridge"].value == pytest.approx(best, abs=0.02)
    assert scores["ridge"].ci_low < best < scores["ridge"].ci_high
    assert scores["model"].value == 1.0
    assert scores["mean"].value == 0.0
    # The mean of three: 2 cov - var = 2 * .64 - (1 + 2 * .64) / 3
    assert scores["visible mean"].value == pytest.approx(1.28 - 2.28 / 3, abs=0.03)
    assert scores["copy"].value < 0  # white in time


def test_hidden_segments_are_predicted_from_those_around() -> None:
    generator = np.random.default_rng(0)

    def walk() -> np.ndarray:
        """First-order autoregression of segments: neighbours tell a known part."""
        values = np.zeros((60, 2, 1))
        state = generator.standard_normal((2, 1))
        for row in values:
            state = 0.8 * state + 0.6 * generator.standard_normal((2, 1))
            row[:] = state
        return values

    hidden = np.zeros((60, 2), bool)
    hidden[5:55:5] = True
    test = [filled(walk(), hidden) for _ in range(40)]
    scores = {s.predictor: s for s in score_samples(test, [walk() for _ in range(40)])}
    best = 2 * 0.64 / (1 + 0.64)  # of an AR(1) process from both neighbours
    assert scores["ridge"].value == pytest.approx(best, abs=0.03)
    assert scores["copy"].value == pytest.approx(2 * 0.8 - (1 + 0.64) / 2, abs=0.04)


def test_copy_interpolates_and_visible_mean_averages() -> None:
    tokens = np.arange(12.0).reshape(4, 1, 3).repeat(2, axis=1)
    tokens[:, 1] *= 2
    hidden = np.zeros((4, 2), bool)
    hidden[1, 0] = True
    one = filled(tokens, hidden)
    np.testing.assert_allclose(copy_nearest(one), tokens)
    np.testing.assert_allclose(visible_mean(one)[1, 0], tokens[1, 1])


def test_edges_are_scored_beside_persistence_average_and_mean_graph() -> None:
    generator = np.random.default_rng(0)
    edges = (generator.random((2, 9, 4, 40)) < 0.3).astype(np.float32)
    truth = edges[:, :, 1] + 0.5 * generator.standard_normal((2, 9, 40))
    recordings = [
        SimpleNamespace(tokens=e, predicted=t.astype(np.float32))
        for e, t in zip(edges, truth, strict=True)
    ]
    training = [(generator.random((30, 40)) < 0.3).astype(np.float32)]
    scores = {s.predictor: s for s in score_edges(recordings, training)}
    expected = np.mean(
        [roc_auc_score(edges[i, j, 1], truth[i, j]) for i in range(2) for j in range(9)]
    )
    assert scores["model"].value == pytest.approx(expected, abs=1e-6)
    rivals = [scores[name].value for name in RIVALS]
    assert scores["gain"].value == pytest.approx(expected - max(rivals), abs=1e-6)
    assert abs(scores["persistence"].value - 0.5) < 0.1


def test_recordings_of_one_person_are_drawn_together() -> None:
    test = factor_tokens(8, 0)
    hidden = np.zeros((20, 6), bool)
    hidden[:, :2] = True
    people = list("aabbccdd")
    scores = score_samples([filled(t, hidden) for t in test], test, groups=people)
    assert all(score.n == 4 for score in scores)
