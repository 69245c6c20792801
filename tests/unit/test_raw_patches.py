"""The yardstick: vector-quantised patches of single channels."""

from __future__ import annotations

from typing import Any

import numpy as np
from tests.tokenizer_example import rhythms

from afterimage.tokenizers.quantiser import QuantiserSettings
from afterimage.tokenizers.raw_patches import RawPatches, RawPatchesSettings


def fitted(n_stages: int, **more: Any) -> RawPatches:
    tokenizer = RawPatches(
        RawPatchesSettings(
            n_steps=400, window_s=2.0, n_features=32, n_hidden=64, learning_rate=3e-3,
            quantiser=QuantiserSettings(codebook_size=64, n_stages=n_stages), **more,
        )
    )  # fmt: skip
    return tokenizer.fit(tokenizer.source([rhythms(seed=n) for n in range(4)]))


def correlation(tokenizer: RawPatches, n_stages: int | None = None) -> float:
    signal = tokenizer.prepare(rhythms(seed=50))
    found = tokenizer.decode(tokenizer.encode(signal, prepared=True), signal, n_stages)
    target = tokenizer.target(signal)
    return float(np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(target, found, strict=True)]))


def test_patches_of_unseen_recordings_come_back_and_stages_add() -> None:
    one, three = fitted(1), fitted(3)
    assert correlation(one) > 0.6
    assert correlation(three) > correlation(one) + 0.03
    assert correlation(three) > correlation(three, 2) > correlation(three, 1)
    codes = three.encode(rhythms(seed=50)).codes
    shares = np.bincount(codes[..., 0].reshape(-1), minlength=64) / codes[..., 0].size
    assert np.exp(-np.sum(shares * np.log(shares + 1e-12))) > 32  # perplexity, of 64
    assert (shares > 0).mean() >= 0.9


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
