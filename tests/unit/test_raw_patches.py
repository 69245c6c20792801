"""The yardstick: vector-quantised patches of single channels."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from tests.tokenizer_example import rhythms

from afterimage.evaluation.token_card import channel_correlations, stage_use
from afterimage.tokenizers.quantiser import QuantiserSettings
from afterimage.tokenizers.raw_patches import RawPatches, RawPatchesSettings
from afterimage.tokenizers.signals import Signal


def steady(seed: int) -> Signal:
    """Return noise with the spectrum of EEG, the same at all times."""
    signal = rhythms(seconds=20.0, seed=seed)
    shape = 1 / np.maximum(np.fft.rfftfreq(signal.n_times, 1 / 200), 1.0)
    noise = np.random.default_rng(seed).standard_normal(signal.values.shape)
    values = np.fft.irfft(np.fft.rfft(noise) * shape, signal.n_times)
    return replace(signal, values=(1e-4 * values).astype(np.float32))


def fitted(n_stages: int, **more: Any) -> RawPatches:
    tokenizer = RawPatches(
        RawPatchesSettings(
            n_steps=150, batch_size=8, window_s=2.0, n_features=16, n_hidden=64,
            learning_rate=3e-3,
            quantiser=QuantiserSettings(codebook_size=32, n_stages=n_stages), **more,
        )
    )  # fmt: skip
    return tokenizer.fit(tokenizer.source([steady(n) for n in range(4)]))


def correlation(tokenizer: RawPatches, n_stages: int | None = None) -> float:
    signal = tokenizer.prepare(steady(50))
    found = tokenizer.decode(tokenizer.encode(signal, prepared=True), signal, n_stages)
    return float(channel_correlations(tokenizer.target(signal), found).mean())


def test_patches_of_unseen_recordings_come_back_and_stages_add() -> None:
    one, three = fitted(1), fitted(3)
    assert correlation(one) > 0.8
    assert correlation(three) > correlation(one) + 0.02
    assert correlation(three) > correlation(three, 2) > correlation(three, 1)
    for use in stage_use([three.encode(steady(50)).codes], 32):
        assert use.perplexity > 16, use  # of 32
        assert use.used >= 0.9, use


def test_a_channel_is_coded_without_its_neighbours() -> None:
    tokenizer = RawPatches(RawPatchesSettings(n_steps=5, window_s=2.0))
    tokenizer.fit(tokenizer.source([rhythms()]))
    signal = tokenizer.prepare(rhythms(seed=1))
    order = np.array([3, 1, 7, 0])
    whole = tokenizer.encode(signal, prepared=True)
    part = tokenizer.encode(signal.pick(order), prepared=True)
    assert np.array_equal(part.codes, whole.codes[order])
    assert part.streams.tolist() == whole.streams[order].tolist()
    # Tokens follow time: a shift by a patch shifts them.
    moved = tokenizer.encode(signal.crop(tokenizer.step_samples, signal.n_times), prepared=True)
    assert np.array_equal(moved.codes, whole.codes[:, 1:])
