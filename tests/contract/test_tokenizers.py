"""What every registered tokenizer must do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.tokenizer_example import rhythms

from afterimage.errors import InputError
from afterimage.tokenizers.quantiser import QuantiserSettings
from afterimage.tokenizers.registry import TOKENIZERS
from afterimage.tokenizers.signals import new_signal

NAMES = TOKENIZERS.names()
#: What makes a tokenizer small enough for these tests, beside what all share.
SMALL: dict[str, dict[str, Any]] = {
    "raw_patches": {"n_features": 16, "n_hidden": 32},
    "du_in": {
        "sfreq_hz": 200.0, "stride": 5, "n_filters": 16, "n_out": 8, "n_layers": 1,
        "n_back_layers": 1, "n_heads": 2,
    },
    "brain_tokenizer": {
        "sfreq_hz": 64.0, "ratios": (4, 4), "n_features": 16, "n_filters": 4, "n_sources": 4,
    },
}  # fmt: skip


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def make(name: str, **more: Any) -> Any:
    kind: Any = TOKENIZERS.settings(name)
    stages = kind.model_fields["quantiser"].default.n_stages
    quick = {"n_steps": 6, "batch_size": 4, "window_s": 2.0, "warmup_steps": 2,
             "quantiser": QuantiserSettings(codebook_size=16, n_stages=stages)}  # fmt: skip
    return TOKENIZERS.get(name)(kind(**(quick | SMALL.get(name, {}) | more)))


def fitted(name: str, **more: Any) -> Any:
    tokenizer = make(name, **more)
    return tokenizer.fit(tokenizer.source([rhythms(seed=0), rhythms(seed=1)]))


@pytest.mark.parametrize("name", NAMES)
def test_loss_falls_and_the_signal_comes_back_better_than_from_chance(name: str) -> None:
    tokenizer = fitted(name, n_steps=60, learning_rate=3e-3)
    assert np.isfinite(tokenizer.losses_).all()
    assert tokenizer.losses_[-10:].mean() < tokenizer.losses_[:10].mean()
    signal = tokenizer.prepare(rhythms(seed=7))
    target, found = (
        np.asarray(a).reshape(-1)
        for a in (
            tokenizer.target(signal),
            tokenizer.decode(tokenizer.encode(signal, prepared=True), signal),
        )
    )
    assert np.corrcoef(target, found)[0, 1] > 0.1


@pytest.mark.parametrize("name", NAMES)
def test_tokens_have_their_form(name: str) -> None:
    tokenizer = fitted(name)
    signal = rhythms(seconds=7.3, seed=5)
    tokens = tokenizer.encode(signal)
    size = tokenizer.settings.quantiser.codebook_size
    assert tokens.codes.dtype == np.int16
    assert tokens.codes.ndim == 3
    assert tokens.codes.shape[0] == len(tokens.streams)
    assert tokens.codes.shape[2] == tokenizer.settings.quantiser.n_stages
    assert tokens.codes.min() >= 0
    assert tokens.codes.max() < size
    # All whole steps of the recording are said, whatever its length.
    assert tokens.codes.shape[1] * tokens.step_s >= 7.3 - tokenizer.window_samples / 200
    found = tokenizer.decode(tokens, signal)
    assert found.shape == np.asarray(tokenizer.target(tokenizer.prepare(signal))).shape
    assert np.isfinite(found).all()
    first = tokenizer.decode(tokens, signal, n_stages=1)
    assert first.shape == found.shape
    assert tokenizer.codebooks().shape[:2] == (tokens.codes.shape[2], size)


@pytest.mark.parametrize("name", NAMES)
def test_other_rates_montages_and_lengths_are_taken(name: str) -> None:
    tokenizer = fitted(name)
    for signal in (
        rhythms(sfreq_hz=256.0, seed=3), rhythms(sfreq_hz=500.0, seed=3),
        rhythms(n_channels=1), rhythms(n_channels=5, seconds=2.5),
    ):  # fmt: skip
        tokens = tokenizer.encode(signal)
        assert np.isfinite(tokenizer.decode(tokens, signal)).all()
    mixed = tokenizer.source([rhythms(sfreq_hz=256.0), rhythms(n_channels=5)])
    assert np.isfinite(make(name).fit(mixed).losses_).all()


@pytest.mark.parametrize("name", NAMES)
def test_a_flat_channel_does_no_harm(name: str) -> None:
    tokenizer = fitted(name)
    signal = rhythms()
    values = signal.values.copy()
    values[2] = 3e-5
    found = tokenizer.decode(tokenizer.encode(replace(signal, values=values)), signal)
    assert np.isfinite(found).all()


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_gives_the_same_bytes_and_another_does_not(name: str) -> None:
    first, second = (fitted(name) for _ in range(2))
    other = fitted(name, random_state=1)
    for key, array in first.state()[0].items():
        assert np.array_equal(array, second.state()[0][key]), key
    signal = rhythms(seed=4)
    codes = first.encode(signal).codes
    assert np.array_equal(codes, second.encode(signal).codes)
    assert not np.array_equal(codes, other.encode(signal).codes)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_stored_makes_the_same_tokenizer(name: str, tmp_path: Path) -> None:
    from afterimage.io.weights import load_weights, save_weights

    tokenizer, signal = fitted(name), rhythms(seed=4)
    save_weights(tmp_path / "tokenizer.safetensors", *tokenizer.state())
    again = TOKENIZERS.get(name).from_state(*load_weights(tmp_path / "tokenizer.safetensors"))
    assert again.settings == tokenizer.settings
    tokens = tokenizer.encode(signal)
    assert np.array_equal(again.encode(signal).codes, tokens.codes)
    assert np.array_equal(again.decode(tokens, signal), tokenizer.decode(tokens, signal))


@pytest.mark.parametrize("name", NAMES)
def test_an_interrupted_run_ends_with_the_same_weights(name: str, tmp_path: Path) -> None:
    def stop(step: int, _loss: float) -> None:
        if step == 8:
            raise KeyboardInterrupt

    def start() -> tuple[Any, Any]:
        tokenizer = make(name, n_steps=9, checkpoint_every=3)
        return tokenizer, tokenizer.source([rhythms(seed=0), rhythms(seed=1)])

    tokenizer, source = start()
    expected = tokenizer.fit(source)
    tokenizer, source = start()
    with pytest.raises(KeyboardInterrupt):
        tokenizer.fit(source, checkpoint_folder=tmp_path, on_progress=stop)
    tokenizer, source = start()
    steps: list[int] = []
    resumed = tokenizer.fit(
        source, checkpoint_folder=tmp_path, on_progress=lambda step, _: steps.append(step)
    )
    assert steps[0] == 7
    for key, array in expected.state()[0].items():  # codebooks and their counts among them
        assert np.array_equal(array, resumed.state()[0][key]), key


@pytest.mark.parametrize("name", NAMES)
def test_the_commitment_loss_moves_the_encoder(name: str) -> None:
    tokenizer = fitted(name)
    network = tokenizer.network_.train()
    source = tokenizer.source([rhythms()])
    arrays = tokenizer.batch_of(source.read(np.arange(4)), np.random.default_rng(0))
    batch = {k: torch.from_numpy(np.ascontiguousarray(a)) for k, a in arrays.items()}
    network(batch)["commitment"].backward()
    norms = [p.grad.norm() for p in network.parameters() if p.grad is not None]
    assert max(float(norm) for norm in norms) > 1e-6


@pytest.mark.parametrize("name", NAMES)
def test_parts_of_a_step_add_up_to_a_step(name: str) -> None:
    whole, parted = (fitted(name, n_parts=n, n_steps=2, warmup_steps=0) for n in (1, 2))
    assert np.isfinite(parted.losses_).all()
    # Other windows start the codebooks, so only the size of the loss can be compared.
    assert abs(parted.losses_[0] / whole.losses_[0] - 1) < 0.5


@pytest.mark.parametrize("name", NAMES)
def test_the_input_is_left_alone(name: str) -> None:
    signal = rhythms()
    before = signal.values.copy()
    tokenizer = make(name)
    tokenizer.fit(tokenizer.source([signal])).encode(signal)
    assert np.array_equal(signal.values, before)


@pytest.mark.parametrize("name", NAMES)
def test_bad_input_is_refused(name: str) -> None:
    tokenizer = fitted(name)
    with pytest.raises(InputError, match="shorter than a window"):
        tokenizer.encode(rhythms(seconds=0.5))
    with pytest.raises(InputError, match="shorter than a window"):
        tokenizer.source([rhythms(seconds=0.5)])
    with pytest.raises(InputError, match="nothing to train"):
        tokenizer.fit(tokenizer.source([]))
    with pytest.raises(InputError, match="cannot be tokenised") as caught:
        tokenizer.encode(replace(rhythms(), values=np.zeros((8, 2400), np.float32)))
    assert caught.value.exit_code == 65
    if tokenizer.needs_positions:
        signal = rhythms()
        lost = new_signal(signal.values, 200.0, [f"X{i}" for i in range(8)], "eeg")
        with pytest.raises(InputError, match="positions of sensors are not known"):
            tokenizer.encode(lost)
