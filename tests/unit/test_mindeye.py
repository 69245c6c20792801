"""MindEye2: samples of the prior against closed forms, mixing within a subject, frozen weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from afterimage.decoding.mindeye import MindEyeDecoder, MindEyeSettings
from afterimage.decoding.shared import SubjectData
from afterimage.errors import ConfigError
from afterimage.networks.prior import PriorTransformer
from afterimage.training.prior import prior_loss, sample_prior, shares

MEAN, SPREAD = 1.5, 0.5


class Exact:
    """The best guess of an embedding drawn from N(MEAN, SPREAD^2), from its place on a path."""

    def __init__(self, path: Any) -> None:
        self.path = path

    def __call__(self, noisy: Any, _condition: Any, time: Any) -> Any:
        signal, noise = (part[:, None, None] for part in shares(time, self.path))
        gain = signal * SPREAD**2 / (signal**2 * SPREAD**2 + noise**2)
        return MEAN + gain * (noisy - signal * MEAN)


@pytest.mark.parametrize("path", ["diffusion", "flow"])
def test_samples_have_the_distribution_of_what_was_learned(path: Any) -> None:
    torch.manual_seed(0)
    noise = torch.randn(4000, 1, 1)
    found = sample_prior(Exact(path), torch.zeros(4000, 1, 1), noise, 100, path)  # type: ignore[arg-type]
    assert float(found.mean()) == pytest.approx(MEAN, abs=0.03)
    assert float(found.std()) == pytest.approx(SPREAD, abs=0.03)
    # A path is a map: the order of the noises is that of the samples.
    assert torch.corrcoef(torch.stack([found.flatten(), noise.flatten()]))[0, 1] > 0.99


def test_few_steps_are_enough_for_the_straight_line() -> None:
    torch.manual_seed(0)
    noise = torch.randn(4000, 1, 1)
    few, many = (
        sample_prior(Exact("flow"), torch.zeros(4000, 1, 1), noise, n, "flow")  # type: ignore[arg-type]
        for n in (4, 100)
    )
    # Four steps lose a third of the spread and keep the order.
    assert float(few.std()) > 0.65 * SPREAD
    assert torch.corrcoef(torch.stack([few.flatten(), many.flatten()]))[0, 1] > 0.99


def test_an_untrained_prior_is_the_guess_of_the_brain() -> None:
    prior = PriorTransformer(3, 5, n_hidden=16, n_layers=1, n_heads=2)
    condition, noisy = torch.randn(2, 4, 3, 5)
    torch.testing.assert_close(prior(noisy, condition, torch.rand(4)), condition)
    told = torch.tensor([True, False, True, False])
    found = prior(noisy, condition, torch.rand(4), told)
    torch.testing.assert_close(found, condition * told[:, None, None])


def test_the_loss_of_a_prior_that_knows_is_that_of_those_not_told() -> None:
    torch.manual_seed(0)
    prior = PriorTransformer(1, 5, n_hidden=16, n_layers=1, n_heads=2)
    clean = torch.randn(4000, 1, 5)
    loss = prior_loss(prior, clean, clean, "diffusion", 0.25)
    assert float(loss.detach()) == pytest.approx(0.25, abs=0.03)


def person(label: str, n_units: int, n: int = 24) -> SubjectData:
    rng = np.random.default_rng(len(label) + n_units)
    features = {
        "clip": rng.normal(size=(n, 6)).astype(np.float32),
        "vae": rng.normal(size=(n, 4)).astype(np.float32),
    }
    responses = rng.normal(size=(n, n_units)).astype(np.float32)
    return SubjectData(responses, features, np.array([f"{label}-{i}" for i in range(n)]))


def settings(**more: Any) -> MindEyeSettings:
    return MindEyeSettings(
        n_steps=4, adaptation_steps=3, n_hidden=8, n_blocks=1, batch_size=10, prior_hidden=16,
        prior_layers=1, prior_heads=2, prior_steps=2, **more,
    )  # fmt: skip


def test_mixtures_stay_within_a_subject() -> None:
    decoder = MindEyeDecoder(settings()).fit({"1": person("1", 5), "2": person("2", 7)})
    torch.manual_seed(0)
    partner, share = decoder._model._pairs([6, 5], torch.device("cpu"))
    assert sorted(partner[:6].tolist()) == list(range(6))
    assert sorted(partner[6:].tolist()) == list(range(6, 11))
    assert float(share.max()) == 1.0
    assert float(share.min()) >= 0.0


@pytest.mark.parametrize("prior", ["diffusion", "flow", "none"])
def test_ridge_only_adaptation_trains_one_layer(prior: Any) -> None:
    decoder = MindEyeDecoder(settings(prior=prior, n_tokens=2)).fit({"1": person("1", 5)})
    before = decoder.state()
    assert any(key.startswith("network/prior.") for key in before) == (prior != "none")
    decoder.adapt("new", person("new", 9))
    after = decoder.state()
    for key, value in before.items():
        np.testing.assert_array_equal(after[key], value)
    assert set(after) - set(before) == {
        "unit_mean/new", "unit_scale/new", "network/subjects.sub-new.weight",
        "network/subjects.sub-new.bias",
    }  # fmt: skip
    assert decoder.cross_validation_["vae"]["predicted_by"] == "a head of the network"


def test_settings_that_do_not_fit_are_named() -> None:
    with pytest.raises(ConfigError, match="cut into so many tokens"):
        MindEyeDecoder(settings(n_tokens=4)).fit({"1": person("1", 5)})
    with pytest.raises(ValueError, match="no multiple of twice prior_heads"):
        MindEyeSettings(prior_hidden=20, prior_heads=4)
    without = MindEyeDecoder(settings(low_level="")).fit({"1": person("1", 5)})
    assert without.cross_validation_["vae"]["predicted_by"] == "ridge on the representation"
