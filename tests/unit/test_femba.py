"""FEMBA on coupled channels: hidden rectangles are filled in better than from the neighbours."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from afterimage.evaluation.pretext import score_samples
from afterimage.pretraining.femba import FEMBA, FEMBASettings
from afterimage.pretraining.masked_model import Filled, Prepared, prepare

N_CHANNELS, LAG = 6, 2
DECAY, ANGLE, PUSH = 0.95, 2 * np.pi / 20, 0.02
#: Deviation of the noise of a channel; with its oscillators it has about 10.
NOISE = 1.5
#: What channels show of the oscillators: their own, and some of those beside it.
MIXTURE = np.eye(N_CHANNELS) + 0.4 * (
    np.roll(np.eye(N_CHANNELS), 1, 0) + np.roll(np.eye(N_CHANNELS), -1, 0)
)


def coupled(n: int, n_times: int, seed: int) -> NDArray[np.float64]:
    """Noise-driven oscillators on a ring, each pushed by the one before, seen in mixture.

    Returns
    -------
    ndarray, (n, n_times, N_CHANNELS)
        A period is about 20 samples.
    """
    rng = np.random.default_rng(seed)
    before = 200
    x = np.zeros((n_times + before, n, N_CHANNELS))
    noise = rng.standard_normal(x.shape)
    for t in range(LAG, len(x)):
        own = 2 * DECAY * np.cos(ANGLE) * x[t - 1] - DECAY**2 * x[t - 2]
        x[t] = own + PUSH * np.roll(x[t - LAG], 1, axis=1) + noise[t]
    seen = x @ MIXTURE + NOISE * rng.standard_normal(x.shape)
    return np.ascontiguousarray(seen[before:].transpose(1, 0, 2))


def covariances(n_lags: int) -> NDArray[np.float64]:
    """Covariance of channels a at t + lag and b at t, (2 n_lags, a, b), lags below 0 from the end."""
    z = np.exp(-2j * np.pi * np.arange(4096) / 4096)[:, None, None]
    eye, pushed = np.eye(N_CHANNELS), np.roll(np.eye(N_CHANNELS), 1, 0)
    own = 1 - 2 * DECAY * np.cos(ANGLE) * z + DECAY**2 * z**2
    response = MIXTURE @ np.linalg.inv(own * eye - PUSH * z**LAG * pushed)
    found = np.fft.ifft(response @ response.conj().transpose(0, 2, 1), axis=0).real
    found[0] += NOISE**2 * eye
    return np.concatenate([found[:n_lags], found[-n_lags:]])


def best(one: Filled) -> NDArray[np.float32]:
    """Fill in as who knows how the signals were made: the mean, given all that is visible."""
    n_segments, _, n_samples = one.tokens.shape
    segments, channels, samples = np.indices(one.tokens.shape)
    times = segments * n_samples + samples
    hidden = np.repeat(one.hidden[..., None], n_samples, axis=2)
    table = covariances(n_segments * n_samples)
    scale = np.sqrt(table[0].diagonal().mean())

    def between(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> NDArray[np.float64]:
        lags = np.subtract.outer(times[first], times[second])
        found: NDArray[np.float64] = table[lags, channels[first][:, None], channels[second]]
        return found / scale**2

    weights = np.linalg.solve(between(~hidden, ~hidden), one.tokens[~hidden].astype(np.float64))
    found = one.tokens.copy()
    found[hidden] = between(hidden, ~hidden) @ weights
    return found


def interpolated(one: Filled, scale: float = 1.0) -> NDArray[np.float32]:
    """Fill in from the visible channels of the moment, by the inverse distance on the ring."""
    apart = np.abs(np.subtract.outer(np.arange(N_CHANNELS), np.arange(N_CHANNELS)))
    apart = np.minimum(apart, N_CHANNELS - apart)
    weights = np.where(apart > 0, 1.0 / np.maximum(apart, 1) ** 2, 0.0)
    seen = ~one.hidden  # (n_segments, n_channels)
    total = np.einsum("cd,sd,sdt->sct", weights, seen, one.tokens)
    share = np.einsum("cd,sd->sc", weights, seen)
    found = scale * total / np.maximum(share, 1e-9)[..., None]
    return found.astype(np.float32)


def best_scale(filled: list[Filled]) -> float:
    """Return the factor on the interpolation that suits the training part best."""
    pairs = [(interpolated(one)[one.hidden], one.tokens[one.hidden]) for one in filled]
    return float(sum((a * b).sum() for a, b in pairs) / sum((a * a).sum() for a, _ in pairs))


def r2(filled: list[Filled], predicted: list[NDArray[np.float32]]) -> float:
    error = sum(
        ((a.tokens - b)[a.hidden] ** 2).sum() for a, b in zip(filled, predicted, strict=True)
    )
    return 1 - float(error / sum((a.tokens[a.hidden] ** 2).sum() for a in filled))


def study(n_steps: int, seed: int, **more: Any) -> dict[str, float]:
    """R2 of hidden samples of 40 recordings: of models, and of what they are held against."""
    torch.set_num_threads(1)
    train = [prepare(one) for one in coupled(200, 320, seed)]
    test = [prepare(one) for one in coupled(40, 320, 1000 + seed)]
    sizes: dict[str, Any] = {
        "segment_volumes": 8, "n_segments": 40, "n_features": 16, "n_layers": 2, "n_states": 4,
        "expand": 2, "n_steps": n_steps, "batch_size": 8, "learning_rate": 4e-3,
        "warmup_steps": 20, "random_state": seed,
    }  # fmt: skip
    found = {}
    for name, bidirectional in (("both ways", True), ("one way", False)):
        model = FEMBA(FEMBASettings(**(sizes | more), bidirectional=bidirectional))
        untrained = FEMBA(model.settings).initialise(N_CHANNELS).fill_in(test, seed)
        filled = model.fit(train).fill_in(test, seed)
        scores = score_samples(
            filled, [model.tokens(one)[0] for one in train], untrained=untrained
        )
        found[name] = next(one.value for one in scores if one.predictor == "model")
    scale = best_scale(model.fill_in(train[:50], seed))
    found["interpolation"] = r2(filled, [interpolated(one, scale) for one in filled])
    found["best"] = r2(filled[:8], [best(one) for one in filled[:8]])
    return found | {one.predictor: one.value for one in scores if one.predictor != "model"}


def check(found: dict[str, float]) -> None:
    assert found["both ways"] > found["interpolation"] + 0.1
    assert found["both ways"] > found["one way"] + 0.03
    assert found["both ways"] > found["copy"]
    assert found["untrained"] < 0.05


def test_rectangles_are_filled_in_from_both_sides() -> None:
    found = study(80, 0)
    print(found)
    check(found)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_rectangles_are_filled_in_whatever_the_seed(seed: int) -> None:
    found = study(400, seed)
    print(found)
    check(found)
    assert found["both ways"] > found["ridge"]
    reached = found["both ways"] - found["interpolation"]
    assert reached > 0.6 * (found["best"] - found["interpolation"])


def quick(**more: Any) -> FEMBASettings:
    sizes: dict[str, Any] = {"n_features": 8, "n_layers": 2, "n_states": 4, "expand": 2,
                             "segment_volumes": 8}  # fmt: skip
    return FEMBASettings(**(sizes | more))


@pytest.mark.parametrize("bidirectional", [False, True])
def test_a_change_is_seen_later_only_or_both_ways(bidirectional: bool) -> None:
    model = FEMBA(quick(bidirectional=bidirectional)).initialise(N_CHANNELS)
    series = coupled(1, 240, 0)[0].astype(np.float32)
    series /= series.std()
    changed = series.copy()
    changed[15 * 8 + 3] += 1.0  # in segment 15 of 30
    first, second = (model.latents(Prepared(one, np.ones(240, bool))) for one in (series, changed))
    moved = np.abs(first - second).max(1)
    assert moved[15:].min() > 0
    assert (moved[:15].min() > 0) if bidirectional else (moved[:15].max() == 0)


def test_any_length_and_an_odd_number_of_channels_are_taken() -> None:
    long = coupled(1, 2000, 0)[0]
    model = FEMBA(quick(n_steps=2, batch_size=2, n_segments=10)).fit(
        [prepare(long[:100, :5]), prepare(long[:, :5])]
    )
    assert model.latents(prepare(long[:, :5])).shape == (250, 16)
    one = model.fill_in([prepare(long[:, :5])], 0)[0]
    assert one.predicted.shape == (250, 5, 8)
    assert abs(one.hidden.mean() - 0.6) < 0.03


def test_the_published_sizes_have_the_published_number_of_weights() -> None:
    for n_layers, n_features, millions in ((2, 35, 7.8), (12, 35, 47.7), (4, 79, 77.8)):
        with torch.device("meta"):
            network = FEMBA(FEMBASettings(n_layers=n_layers, n_features=n_features)).new_network(
                22
            )
        of_blocks = sum(math.prod(p.shape) for p in network.blocks.parameters()) / 1e6
        assert abs(of_blocks / millions - 1) < 0.1
