"""MindBridge: pooling as published, adapters, the cycle, and what reset-tuning leaves alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from afterimage.decoding.mindbridge import MindBridgeDecoder, MindBridgeSettings
from afterimage.decoding.shared import SubjectData
from afterimage.training.mindbridge import BridgeSizes, MindBridge
from afterimage.training.objectives import mixed_contrastive_loss, soft_contrastive_loss

SIZES = BridgeSizes(
    aggregation="maxpool", n_common=4, n_bottleneck=2, n_hidden=8, n_blocks=1,
    dropout_embedder=0.0, dropout=0.0, temperature=0.1, weight_error=0.0,
    weight_reconstruction=0.0, weight_cycle=0.0, adaptation_weight_cycle=0.0,
)  # fmt: skip


def sizes(**more: Any) -> BridgeSizes:
    from dataclasses import replace

    return replace(SIZES, **more)


def test_pooling_takes_the_largest_of_neighbours_and_repeats_where_there_are_few() -> None:
    bridge = MindBridge({"clip": 3}, SIZES).new_layers(8)
    values = torch.tensor([[1.0, 5.0, 2.0, 2.5, -1.0, -3.0, 0.0, 9.0]])
    assert bridge.aggregate(values).tolist() == [[5.0, 2.5, -1.0, 9.0]]
    assert bridge.aggregate(torch.tensor([[3.0, 7.0]])).tolist() == [[3.0, 3.0, 7.0, 7.0]]


def test_an_adapter_begins_as_nothing() -> None:
    bridge = MindBridge({"clip": 3}, SIZES).new_layers(8)
    values = torch.randn(5, 4)
    torch.testing.assert_close(bridge.embedder[0](values), values)


def test_soft_contrast_is_its_formula() -> None:
    rng = np.random.default_rng(0)
    p, t = rng.normal(size=(2, 6, 5))

    def unit(v: np.ndarray) -> np.ndarray:
        return np.asarray(v / np.linalg.norm(v, axis=1, keepdims=True))

    def log_softmax(v: np.ndarray) -> np.ndarray:
        return np.asarray(v - np.log(np.exp(v).sum(1, keepdims=True)))

    p, t = unit(p), unit(t)
    wanted = np.exp(log_softmax(t @ t.T / 0.3))
    rows = -(wanted * log_softmax(p @ t.T / 0.3)).sum(1).mean()
    columns = -(wanted * log_softmax(t @ p.T / 0.3)).sum(1).mean()
    found = soft_contrastive_loss(torch.tensor(3 * p), torch.tensor(2 * t), 0.3)
    assert float(found) == pytest.approx((rows + columns) / 2, rel=1e-5)


def test_mixtures_of_one_trial_are_plain_contrast() -> None:
    torch.manual_seed(0)
    p, t = torch.randn(6, 5), torch.randn(6, 5)
    own = torch.arange(6)
    found = mixed_contrastive_loss(p, t, own.flip(0), torch.ones(6), 0.2)
    logits = torch.nn.functional.normalize(p) @ torch.nn.functional.normalize(t).T / 0.2
    cross = torch.nn.functional.cross_entropy
    torch.testing.assert_close(found, (cross(logits, own) + cross(logits.T, own)) / 2)
    # a half-half mixture of two is explained best by both
    both = (torch.nn.functional.normalize(t) + torch.nn.functional.normalize(t[own.flip(0)])) / 2
    half = torch.full((6,), 0.5)
    mixed = mixed_contrastive_loss(both, t, own.flip(0), half, 0.2)
    assert mixed < mixed_contrastive_loss(t, t, own.flip(0), half, 0.2)


def test_the_cycle_is_the_error_of_the_way_through_another_subject() -> None:
    torch.manual_seed(1)
    model = MindBridge({"clip": 3}, sizes(aggregation="linear", weight_cycle=1.0))
    model.add_subject("a", 5)
    model.add_subject("b", 7)
    entered = {name: torch.randn(6, 8) for name in ("a", "b")}
    possible = []
    for one, other in (("a", "b"), ("b", "a")):
        bridge = model.layers(other)
        way = bridge.embedder(bridge.builder(entered[one]))
        possible.append(float((way - entered[one]).detach().square().mean()))
    found = {round(float(model._cycle(entered).detach()), 5) for _ in range(20)}
    assert found == {round(value, 5) for value in possible}
    assert float(model._cycle({"a": entered["a"]})) == 0.0


def test_reset_tuning_trains_the_new_subject_alone() -> None:
    rng = np.random.default_rng(0)

    def person(label: str, n_units: int) -> SubjectData:
        features = {"clip": rng.normal(size=(20, 4)).astype(np.float32)}
        responses = rng.normal(size=(20, n_units)).astype(np.float32)
        return SubjectData(responses, features, np.array([f"{label}-{i}" for i in range(20)]))

    settings = MindBridgeSettings(
        n_steps=3, adaptation_steps=3, n_hidden=8, n_common=4, n_blocks=1, batch_size=10,
        adaptation_weight_cycle=1.0,
    )  # fmt: skip
    decoder = MindBridgeDecoder(settings).fit({"1": person("1", 6), "2": person("2", 9)})
    before = decoder.state()
    assert before["network/bank"].shape == (36, 8)
    decoder.adapt("3", person("3", 5))
    after = decoder.state()
    for key, value in before.items():
        np.testing.assert_array_equal(after[key], value)
    assert {key for key in after if key not in before} == set(decoder.state("3"))
    assert decoder.synthesise(rng.normal(size=(2, 6)), "1", "3").shape == (2, 5)
