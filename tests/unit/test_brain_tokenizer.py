"""BrainTokenizer knows sensors by what they are: order, sign, number and broken ones do not matter."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from afterimage.errors import InputError
from afterimage.tokenizers.brain_tokenizer import BrainTokenizer, BrainTokenizerSettings
from afterimage.tokenizers.quantiser import QuantiserSettings
from afterimage.tokenizers.signals import Signal, new_signal


def mixed_signal(n_channels: int = 9, seed: int = 0, kinds: Any = None) -> Signal:
    """Place electrodes, magnetometers and gradiometers around a head, each with its own series."""
    rng = np.random.default_rng(seed)
    kinds = np.resize(["eeg", "mag", "grad"], n_channels) if kinds is None else kinds
    outwards = rng.standard_normal((n_channels, 3))
    outwards /= np.linalg.norm(outwards, axis=1, keepdims=True)
    along = np.cross(outwards, rng.standard_normal((n_channels, 3)))
    along /= np.linalg.norm(along, axis=1, keepdims=True)
    orientations = np.select(
        [kinds[:, None] == "mag", kinds[:, None] == "grad"], [outwards, along], 0.0
    )
    return new_signal(
        rng.standard_normal((n_channels, 256)) * 1e-6, 64.0,
        [f"S{i}" for i in range(n_channels)], kinds,
        positions_m=[0, 0, 0.04] + 0.1 * outwards, orientations=orientations,
    )  # fmt: skip


def new_tokenizer(**more: Any) -> BrainTokenizer:
    """Make a small tokenizer whose running averages have seen something."""
    torch.set_num_threads(1)
    settings = BrainTokenizerSettings(
        **{
            "sfreq_hz": 64.0, "window_s": 2.0, "ratios": (4, 4), "n_features": 16, "n_filters": 4,
            "n_sources": 5, "n_steps": 3, "batch_size": 4, "warmup_steps": 0,
            "quantiser": QuantiserSettings(codebook_size=16, n_stages=2),
        } | more
    )  # fmt: skip
    tokenizer = BrainTokenizer(settings)
    return tokenizer.fit(tokenizer.source([mixed_signal(seed=1), mixed_signal(seed=2)]))


def latents_of(tokenizer: BrainTokenizer, signal: Signal) -> torch.Tensor:
    """Latents of the whole signal as one window, before they are quantised."""
    from afterimage.tokenizers.brain_tokenizer import stacked_sensors

    arrays = {"series": signal.values} | stacked_sensors([signal])
    with torch.inference_mode():
        found: torch.Tensor = tokenizer.network_.latents(
            {k: torch.from_numpy(np.ascontiguousarray(a)) for k, a in arrays.items()}
        )
    return found


def test_the_order_of_channels_does_not_matter() -> None:
    tokenizer, signal = new_tokenizer(), mixed_signal()
    order = np.random.default_rng(3).permutation(signal.n_channels)
    moved = signal.pick(order)
    prepared = [tokenizer.prepare(one) for one in (signal, moved)]
    before, after = (latents_of(tokenizer, one) for one in prepared)
    assert float((before - after).abs().max()) < 1e-5
    tokens = tokenizer.encode(signal)
    assert np.array_equal(tokenizer.encode(moved).codes, tokens.codes)
    series, permuted = tokenizer.decode(tokens, signal), tokenizer.decode(tokens, moved)
    assert np.abs(series[order] - permuted).max() < 1e-5
    # Places do matter: the same series at other places are other tokens.
    elsewhere = replace(signal, positions_m=signal.positions_m[order])
    assert float((latents_of(tokenizer, tokenizer.prepare(elsewhere)) - before).abs().max()) > 1e-3


def test_to_flip_an_orientation_flips_the_series() -> None:
    tokenizer, signal = new_tokenizer(), mixed_signal(30)
    tokens = tokenizer.encode(signal)
    series = tokenizer.decode(tokens, signal)
    for kind in ("grad", "mag"):
        here = signal.kinds == kind
        flipped = replace(
            signal,
            orientations=np.where(here[:, None], -signal.orientations, signal.orientations),
            values=np.where(here[:, None], -signal.values, signal.values),
        )
        assert np.array_equal(tokenizer.encode(flipped).codes, tokens.codes)
        told = tokenizer.decode(tokens, flipped)
        assert np.array_equal(told[here], -series[here])
        assert np.array_equal(told[~here], series[~here])
        # Turned round without its series, a sensor says something else.
        other = latents_of(tokenizer, tokenizer.prepare(replace(flipped, values=signal.values)))
        same = latents_of(tokenizer, tokenizer.prepare(signal))
        assert float((other - same).abs().max()) > 1e-3


def test_windows_of_a_batch_do_not_see_each_other() -> None:
    """Other windows, with more channels, leave the latents of a window as they are."""
    from afterimage.tokenizers.brain_tokenizer import stacked_sensors

    tokenizer = new_tokenizer()
    few, many = (tokenizer.prepare(mixed_signal(n)) for n in (4, 11))
    arrays = {"series": np.concatenate([few.values, many.values])} | stacked_sensors([few, many])
    with torch.inference_mode():
        both = tokenizer.network_.latents({k: torch.from_numpy(a) for k, a in arrays.items()})
    for row, signal in enumerate((few, many)):
        assert float((both[row] - latents_of(tokenizer, signal)[0]).abs().max()) < 1e-5


def test_a_flat_channel_is_not_seen_but_can_be_asked_for() -> None:
    tokenizer, signal = new_tokenizer(), mixed_signal()
    values = signal.values.copy()
    values[4] = 2e-6
    broken = replace(signal, values=values)
    tokens = tokenizer.encode(broken)
    without = tokenizer.encode(broken.pick(np.arange(9) != 4))
    assert np.array_equal(tokens.codes, without.codes)
    assert tokenizer.decode(tokens, broken)[4].std() > 0


def test_codes_are_used_after_the_continuous_part_and_commitment_moves_the_encoder() -> None:
    tokenizer = new_tokenizer(n_steps=2, continuous_share=0.5)
    network = tokenizer.network_.train()
    assert int(network.n_seen) == 2
    assert network.n_continuous == 1
    source = tokenizer.source([mixed_signal()])
    arrays = tokenizer.batch_of(source.read(np.arange(2)), np.random.default_rng(0))
    batch = {k: torch.from_numpy(np.ascontiguousarray(a)) for k, a in arrays.items()}
    network.n_seen.zero_()
    network.zero_grad()
    assert float(network(batch)["commitment"]) == 0
    parts = network(batch)
    parts["commitment"].backward()
    assert float(parts["commitment"].detach()) > 1e-3
    for name in ("first", "last"):
        assert float(getattr(network.encoder, name).weight.grad.norm()) > 1e-4
    assert float(network.sensors.rise.weight.grad.norm()) > 1e-6
    assert all(p.grad is None for p in network.decoder.parameters())


def test_hidden_sensors_do_not_reach_the_encoder() -> None:
    """In training as in use: what is told of a hidden sensor does not come from its series."""
    tokenizer, signal = new_tokenizer(), mixed_signal()
    from afterimage.tokenizers.brain_tokenizer import stacked_sensors

    prepared = tokenizer.prepare(signal)
    arrays = {"series": prepared.values.copy()} | stacked_sensors([prepared])
    batch = {k: torch.from_numpy(a) for k, a in arrays.items()}
    seen = torch.arange(9) != 2
    with torch.inference_mode():
        before = tokenizer.network_.latents(batch, seen)
        batch["series"][2] += 5.0
        assert torch.equal(tokenizer.network_.latents(batch, seen), before)
        batch["series"][3] += 5.0
        assert not torch.equal(tokenizer.network_.latents(batch, seen), before)


def test_positions_in_another_unit_are_refused() -> None:
    signal = mixed_signal()
    with pytest.raises(InputError, match="too far from the head"):
        new_tokenizer().encode(replace(signal, positions_m=1000 * signal.positions_m))


def test_intracranial_and_mixed_kinds_are_taken() -> None:
    tokenizer = new_tokenizer()
    signal = mixed_signal(kinds=np.resize(["ieeg", "eeg"], 9))
    tokens = tokenizer.encode(signal)
    assert tokens.codes.shape == (5, 16, 2)
    # Tokens of one layout can be asked what another would have measured.
    assert tokenizer.decode(tokens, mixed_signal(20)).shape == (20, 256)
