"""The card of a tokenizer, on codes whose meaning is planted."""

from __future__ import annotations

import numpy as np
import pytest

from afterimage.evaluation.token_baselines import CodeGuesses, PatchMeans
from afterimage.evaluation.token_card import (
    CodeMeanings,
    band_power,
    channel_correlations,
    event_table,
    mean_of_groups,
    power_told,
    stage_use,
    stream_values,
    token_segments,
)

RATE_HZ, STEP = 200.0, 40


def rhythm_tokens(seed: int, told: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Return values (2, 12000) and codes (2, 300): code 0 noise, 1 alpha, 2 beta, or any."""
    rng = np.random.default_rng(seed)
    state = rng.integers(3, size=(2, 60)).repeat(5, axis=1)
    times = np.arange(12000) / RATE_HZ
    sines = np.stack([np.zeros_like(times), *(np.sin(2 * np.pi * f * times) for f in (10, 20))])
    fine = state.repeat(STEP, axis=1)
    values = np.stack([sines[fine[row], np.arange(12000)] for row in range(2)]) * 2
    values += 0.5 * rng.standard_normal(values.shape)
    codes = state if told else rng.integers(3, size=state.shape)
    return values.astype(np.float32), codes


def test_correlations_are_of_channels_and_unknown_where_nothing_varies() -> None:
    rng = np.random.default_rng(0)
    target = rng.standard_normal((3, 500))
    decoded = np.stack([2 * target[0] + 1, rng.standard_normal(500), np.zeros(500)])
    found = channel_correlations(target, decoded)
    assert found[0] == pytest.approx(1.0)
    assert found[1] == pytest.approx(np.corrcoef(target[1], decoded[1])[0, 1])
    assert np.isnan(found[2])
    spectra = rng.standard_normal((3, 20, 9))
    assert channel_correlations(spectra, -spectra) == pytest.approx([-1, -1, -1])


def test_use_of_codes_is_counted_a_stage() -> None:
    codes = np.zeros((2, 64, 2), np.int16)
    codes[..., 1] = np.arange(64)
    first, second = stage_use([codes, codes], 64)
    assert (first.perplexity, first.used, first.entropy_bits) == (1.0, 1 / 64, 0.0)
    assert second.perplexity == pytest.approx(64)
    assert (second.used, second.entropy_bits) == (1.0, pytest.approx(6.0))


def test_streams_are_shown_on_their_channel_region_or_main_component() -> None:
    rng = np.random.default_rng(1)
    source = rng.standard_normal(400)
    values = np.stack([source, 2 * source, -source]) + 0.01 * rng.standard_normal((3, 400))
    shown = stream_values(
        values.astype(np.float32), np.array(["a", "b", "c"]), np.array(["x", "x", ""]),
        np.array(["b", "x", "source 1"]),
    )  # fmt: skip
    assert np.array_equal(shown[0], values[1].astype(np.float32))
    np.testing.assert_allclose(shown[1], values[:2].mean(0), rtol=1e-4, atol=1e-4)
    assert abs(np.corrcoef(shown[2], source)[0, 1]) > 0.99


def test_segments_lie_where_their_tokens_are() -> None:
    values = np.arange(12000, dtype=np.float32)[None].repeat(2, axis=0)
    found = token_segments(values, 300, STEP, STEP, RATE_HZ)
    assert found.shape == (2, 300, 200)
    assert found[1, 10, 80] == 10 * STEP  # a token in the middle of its second
    assert found[0, 0, 79] == 0
    assert not found[0, 299, 140:].any()


def test_what_codes_stand_for_is_found() -> None:
    values, codes = rhythm_tokens(0)
    segments = token_segments(values, 300, STEP, STEP, RATE_HZ)
    shares = np.bincount(codes.ravel(), minlength=8) / codes.size
    meanings = CodeMeanings(shares)
    meanings.add(codes, segments, RATE_HZ)
    rows = {row["code"]: row for row in meanings.table()}
    assert set(rows) == {0, 1, 2}  # codes that are never used are not shown
    assert (rows[1]["band"], rows[2]["band"]) == ("alpha", "beta")
    assert rows[1]["peak_hz"] == pytest.approx(10, abs=1)
    assert rows[2]["peak_hz"] == pytest.approx(20, abs=1)
    assert rows[0]["power_db"] < rows[1]["power_db"]
    arrays = meanings.arrays()
    assert arrays["motifs"].shape == (3, 200)
    assert arrays["examples"].shape == (3, 8, 200)
    assert arrays["spectra"].shape == (3, len(arrays["frequency_hz"]))


def test_power_is_told_only_by_codes_that_know_it() -> None:
    found = {}
    for told in (True, False):
        parts = []
        for seed in range(6):
            values, codes = rhythm_tokens(seed, told)
            segments = token_segments(values, 300, STEP, STEP, RATE_HZ)
            parts.append((codes.ravel(), band_power(segments, RATE_HZ)))
        found[told] = power_told(parts[:4], parts[4:], 8).mean()
    assert found[True] > 0.2
    assert found[False] < 0.02


def test_events_are_told_by_what_follows_them() -> None:
    rng = np.random.default_rng(3)

    def recording(tells: bool) -> tuple[np.ndarray, np.ndarray, list[str]]:
        codes = rng.integers(6, size=(3, 400))
        steps = np.arange(10, 390, 10)
        kinds = [str(k) for k in rng.choice(["left", "right"], len(steps))]
        if tells:
            for step, kind in zip(steps, kinds, strict=True):
                codes[0, step : step + 3] = 0 if kind == "left" else 5
        return codes, steps, kinds

    told = event_table([recording(True) for _ in range(3)], 6, 3, n_permutations=50)
    assert told is not None
    assert told.p == pytest.approx(1 / 51)
    assert told.information_bits > told.chance_high_bits
    assert told.kinds == ["left", "right"]
    assert told.rates[0, 0] > 1.5 > 1 > told.rates[0, 1]
    assert told.n_events == 3 * 38
    chance = event_table([recording(False) for _ in range(3)], 6, 3, n_permutations=50)
    assert chance is not None
    assert chance.p > 0.05
    one = [(codes, steps, ["same"] * len(steps)) for codes, steps, _ in [recording(False)]]
    assert event_table(one, 6, 3) is None


def test_tokens_that_follow_a_rule_are_guessed_by_the_rival_that_knows_it() -> None:
    rng = np.random.default_rng(4)
    size = 20

    def independent() -> np.ndarray:
        return rng.choice(size, p=np.r_[0.5, np.full(19, 0.5 / 19)], size=(2, 2000))

    def cycle() -> np.ndarray:
        return (np.arange(2000) + rng.integers(size, size=(2, 1))) % size

    def held() -> np.ndarray:
        return rng.integers(size, size=(2, 500)).repeat(4, axis=1)

    losses = {}
    for make in (independent, cycle, held):
        guesses = CodeGuesses([make() for _ in range(3)], size)
        losses[make.__name__] = guesses.losses(make())
    entropy = -(0.5 * np.log(0.5) + 0.5 * np.log(0.5 / 19))
    found = losses["independent"]
    assert found["chance"] == pytest.approx(np.log(20))
    assert found["unigram"] == pytest.approx(entropy, abs=0.05)
    assert found["bigram"] > entropy - 0.05
    assert found["copy neighbour"] == pytest.approx(found["unigram"], abs=0.05)
    assert losses["cycle"]["bigram"] < 0.3 < 2.9 < losses["cycle"]["unigram"]
    assert losses["cycle"]["copy neighbour"] > 2.9
    found = losses["held"]
    assert found["copy neighbour"] < found["bigram"] < found["unigram"]
    # A recording of one token has no neighbours.
    assert np.isfinite(list(guesses.losses(np.zeros((2, 1), int)).values())).all()


def test_means_of_patches_are_a_fair_rival() -> None:
    values, _ = rhythm_tokens(0)
    unseen, _ = rhythm_tokens(1)
    found = [
        channel_correlations(unseen, PatchMeans([values], STEP, 32, n).come_back(unseen)).mean()
        for n in (1, 3)
    ]
    assert 0.5 < found[0] < found[1] < 1


def test_intervals_are_over_people() -> None:
    found = mean_of_groups([1.0, 3.0, 5.0, np.nan], ["a", "a", "b", "c"], 200)
    assert (found["value"], found["n"]) == (3.5, 2)
    assert found["ci_low"] < 3.5 < found["ci_high"]
    assert mean_of_groups([np.nan], ["a"], 100)["n"] == 0
    assert np.isnan(mean_of_groups([1.0], ["a"], 100)["ci_low"])
