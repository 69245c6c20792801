"""EEGFormer: codes of spectra of single channels, whatever their level and their neighbours."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from tests.tokenizer_example import rhythms

from afterimage.errors import ConfigError, InputError
from afterimage.tokenizers.eegformer import Eegformer, EegformerSettings
from afterimage.tokenizers.quantiser import QuantiserSettings


def tokenizer(**more: Any) -> Eegformer:
    small: dict[str, Any] = {
        "n_steps": 40, "window_s": 4.0, "batch_size": 4, "free_share": 0.5,
        "quantiser": QuantiserSettings(codebook_size=16),
    }  # fmt: skip
    return Eegformer(EegformerSettings(**(small | more)))


@pytest.fixture(scope="module")
def trained() -> Eegformer:
    made = tokenizer()
    return made.fit(made.source([rhythms(seconds=20.0, seed=n) for n in range(4)]))


def test_a_channel_is_coded_by_itself_and_its_level_does_not_matter(trained: Eegformer) -> None:
    signal = trained.prepare(rhythms(seconds=12.0, seed=9))
    codes = trained.encode(signal, prepared=True).codes
    gains = np.array([[3.0]] + [[0.2]] * (signal.n_channels - 1), np.float32)
    louder = trained.encode(replace(signal, values=gains * signal.values), prepared=True).codes
    assert (codes == louder).mean() > 0.99  # 1 but for rounding
    values = signal.values.copy()
    values[1:] = np.random.default_rng(0).standard_normal(values[1:].shape)
    others = trained.encode(replace(signal, values=values), prepared=True).codes
    assert np.array_equal(codes[0], others[0])
    assert not np.array_equal(codes[1:], others[1:])


def test_codes_are_directions_of_the_size_asked_for(trained: Eegformer) -> None:
    books = trained.codebooks()
    assert books.shape == (1, 16, 8)
    signal = rhythms(seconds=12.0, seed=9)
    said = trained.decode(trained.encode(signal), signal)
    target = trained.target(trained.prepare(signal))
    assert said.shape == target.shape == (signal.n_channels, 23, 100)
    # Each code says its own spectrum: no more than there are codes.
    assert len(np.unique(said.reshape(-1, 100).round(4), axis=0)) <= 16
    moved = np.random.default_rng(0).permutation(said.shape[1])
    assert np.mean((said - target) ** 2) < np.mean((said[:, moved] - target) ** 2)


def test_the_commitment_moves_the_encoder() -> None:
    made = tokenizer(free_share=0.0)
    made.initialise(made.source([rhythms(seconds=20.0)]).read([0]))
    network = made.network_.train()
    rng = np.random.default_rng(0)
    for _ in range(2):
        noise = rng.standard_normal((6, made.window_samples)).astype(np.float32)
        network.zero_grad()
        found = network({"values": torch.from_numpy(noise)})
        found["commitment"].backward()
    assert float(found["commitment"].detach()) > 0
    assert float(network.embed.weight.grad.norm()) > 1e-6
    assert network.head.weight.grad is None


def test_the_target_is_the_mean_of_frames_within_reach() -> None:
    noise = np.random.default_rng(0).standard_normal((2, 800)).astype(np.float32)
    alone, mean = (
        tokenizer(reach_frames=reach).initialise().network_.look(torch.from_numpy(noise))
        for reach in (0, 1)
    )
    torch.testing.assert_close(mean[:, 1:-1], (alone[:, :-2] + alone[:, 1:-1] + alone[:, 2:]) / 3)
    torch.testing.assert_close(mean[:, 0], alone[:, :2].mean(1))


def test_bad_input_is_refused() -> None:
    made = tokenizer()
    window = made.source([rhythms(seconds=20.0)]).read([0])[0]
    with pytest.raises(InputError, match="do not change"):
        made.look_at([replace(window, values=np.zeros_like(window.values))])
    with pytest.raises(ConfigError, match="leave samples out"):
        tokenizer(hop_s=2.0).initialise()
