"""Du-IN where regions say what no channel says: which relation two groups of its channels have."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tests.relation_example import N_EACH, TOKEN_S, du_in, relations, small

from afterimage.errors import ConfigError, InputError
from afterimage.tokenizers.du_in import DuIN, DuINSettings
from afterimage.tokenizers.raw_patches import RawPatches, RawPatchesSettings
from afterimage.tokenizers.signals import Signal
from afterimage.tokenizers.tokenizer import Tokens


def accuracy(train: list[tuple[Any, Any]], test: list[tuple[Any, Any]], size: int) -> float:
    """Tell the bit from codes (n_tokens, n_streams), one weight a code and stream."""
    from sklearn.linear_model import LogisticRegression

    def rows(pairs: list[tuple[Any, Any]]) -> tuple[NDArray[Any], NDArray[Any]]:
        codes = np.concatenate([one for one, _ in pairs])
        return np.eye(size)[codes].reshape(len(codes), -1), np.concatenate([b for _, b in pairs])

    probe = LogisticRegression(C=1.0, max_iter=500).fit(*rows(train))
    return float(probe.score(*rows(test)))


def study(n_steps: int, seed: int) -> dict[str, float]:
    """Accuracy of the bits of two people from tokens of regions and of channels; chance is 0.5."""
    torch.set_num_threads(1)
    train = {p: [relations(p, 200, 100 * seed + n) for n in range(5)] for p in (1, 2)}
    test = {p: relations(p, 400, 100 * seed + 50) for p in (1, 2)}
    signals = [signal for one in train.values() for signal, _ in one]
    region = du_in(n_steps=n_steps, random_state=seed)
    channel = RawPatches(
        RawPatchesSettings(**small(patch_s=TOKEN_S, n_steps=n_steps, random_state=seed))
    )
    for tokenizer in (region, channel):
        tokenizer.fit(tokenizer.source(signals))

    def codes(tokenizer: Any, signal: Signal, place: int) -> NDArray[Any]:
        tokens: Tokens = tokenizer.encode(signal)
        n_each = len(tokens.streams) // 2  # streams of one region
        return tokens.codes[place * n_each : (place + 1) * n_each, :, 0].T

    found: dict[str, list[float]] = {"region": [], "channels": [], "best channel": []}
    for person in (1, 2):
        for place in (0, 1):
            pairs = {
                name: (
                    [(codes(one, s, place), b[place]) for s, b in train[person]],
                    [(codes(one, test[person][0], place), test[person][1][place])],
                )
                for name, one in (("region", region), ("channels", channel))
            }
            for name, (seen, new) in pairs.items():
                found[name].append(accuracy(seen, new, 64))
            seen, new = pairs["channels"]
            found["best channel"].append(
                max(
                    accuracy(*([(c[:, [at]], b) for c, b in part] for part in (seen, new)), 64)
                    for at in range(N_EACH)
                )
            )
    return {name: float(np.mean(values)) for name, values in found.items()}


def check(found: dict[str, float]) -> None:
    assert found["region"] >= 0.9
    assert found["channels"] <= 0.6
    assert found["best channel"] <= 0.6


def test_regions_say_what_no_channel_says() -> None:
    found = study(250, 0)
    print(found)
    check(found)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_regions_say_what_no_channel_says_whatever_the_seed(seed: int) -> None:
    found = study(500, seed)
    print(found)
    check(found)


def test_channels_may_lack_or_stand_in_another_order() -> None:
    tokenizer = du_in(n_steps=30)
    train = [relations(person, 60, 0)[0] for person in (1, 2)]
    tokenizer.fit(tokenizer.source(train))
    assert len(tokenizer.facts_["channels"]) == 4 * N_EACH
    signal = tokenizer.prepare(relations(1, 60, 5)[0])
    whole = tokenizer.encode(signal, prepared=True)
    assert whole.streams.tolist() == ["insula", "temporal"]
    order = np.random.default_rng(0).permutation(signal.n_channels)
    moved = tokenizer.encode(signal.pick(order), prepared=True)
    assert np.array_equal(moved.codes, whole.codes)
    decoded = tokenizer.decode(whole, signal)
    np.testing.assert_allclose(
        tokenizer.decode(whole, signal.pick(order)), decoded[order], atol=1e-5
    )
    # A channel nobody knows changes nothing; one region alone is coded as before.
    names = signal.names.copy()
    names[3] = "sub-1/new"
    unknown = replace(signal, names=names)
    zero = replace(signal, values=np.where(np.arange(12)[:, None] == 3, 0, signal.values))
    assert np.array_equal(
        tokenizer.encode(unknown, prepared=True).codes, tokenizer.encode(zero, prepared=True).codes
    )
    assert not tokenizer.decode(whole, unknown)[3].any()
    alone = tokenizer.encode(signal.pick(np.arange(N_EACH)), prepared=True)
    assert alone.streams.tolist() == ["insula"]
    assert np.array_equal(alone.codes[0], whole.codes[0])


def test_channels_that_come_late_are_learned_too() -> None:
    """All windows are looked through, not only the few that all tokenizers look at."""
    tokenizer = du_in(n_steps=2)
    signals = [relations(1, 600, 0)[0], relations(2, 10, 0)[0], relations(1, 600, 1)[0]]
    tokenizer.fit(tokenizer.source(signals))
    assert len(tokenizer.facts_["channels"]) == 4 * N_EACH


def test_bad_input_is_refused() -> None:
    tokenizer = du_in(n_steps=2)
    signal = relations(1, 60, 0)[0]
    tokenizer.fit(tokenizer.source([signal]))
    with pytest.raises(InputError, match="no channel of a recording is known"):
        tokenizer.encode(relations(2, 60, 0)[0])
    tokens = tokenizer.encode(signal)
    with pytest.raises(InputError, match="not of the regions"):
        tokenizer.decode(tokens, signal.pick(np.arange(3)))
    with pytest.raises(ConfigError, match="heads"):
        du_in(n_heads=5).initialise([signal])


def test_the_published_size_is_the_default() -> None:
    signal = relations(1, 60, 0)[0]
    network = DuIN(DuINSettings()).initialise([signal]).network_
    assert network.places == (16, 10)
    assert len(network.encoder.blocks) == 8
    assert network.quantiser.codebooks().shape == (1, 2048, 64)
