"""One tokenizer of EEG and MEG on layouts that it has never seen, and guessing its hidden tokens.

Twelve dipoles of everybody, seen by 32 electrodes and by 102 magnetometers in training, by 19 and 64
electrodes of other people afterwards (`afterimage.simulate.sensor_layouts`). Spherical splines know
the head is a sphere and nothing else; the known field is the best linear filter of one sample.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tests.brain_tokenizer_study import (
    code_use,
    layout_scores,
    recordings,
    signal_of,
    stage_errors,
    trained,
)

from afterimage.evaluation.token_baselines import CodeGuesses
from afterimage.pretraining.brain_omni import BrainOmni, BrainOmniSettings
from afterimage.pretraining.masked_tokens import TokenMaskSettings
from afterimage.simulate.sensor_layouts import draw_sources
from afterimage.tokenizers.brain_tokenizer import BrainTokenizer, BrainTokenizerSettings
from afterimage.tokenizers.quantiser import QuantiserSettings

SMALL: dict[str, Any] = {
    "sfreq_hz": 64.0, "window_s": 2.0, "ratios": (4, 4), "n_filters": 8, "warmup_steps": 20,
}  # fmt: skip
SEEN, UNSEEN = ("eeg32", "mag102"), ("eeg19", "eeg64")
#: Of the masked-token model: a window of the tokenizer has 8 steps.
GRID: dict[str, Any] = {
    "n_features": 64, "n_layers": 2, "n_heads": 4, "context_steps": 16, "batch_size": 16,
    "learning_rate": 8e-3, "warmup_steps": 10, "mask": TokenMaskSettings(block_steps=8),
}  # fmt: skip


def guesses(model: BrainOmni, training: list[Any], held_out: list[Any]) -> dict[str, list[float]]:
    """Cross-entropy of each stage on held-out tokens, nats: of the model and of its rivals."""
    found: dict[str, list[float]] = {}
    losses = np.mean([model.cross_entropy(one) for one in held_out], axis=0)
    found["model"] = losses.tolist()
    size = model.network_.codebooks.shape[1]
    for stage in range(len(losses)):
        rivals = CodeGuesses([one.codes[..., stage] for one in training], size)
        said = [rivals.losses(one.codes[..., stage]) for one in held_out]
        for name in said[0]:
            found.setdefault(name, []).append(float(np.mean([one[name] for one in said])))
    return found


def tokens_of(tokenizer: BrainTokenizer, layouts: tuple[str, ...], seeds: range) -> list[Any]:
    """Tokens of people, one layout each in turn."""
    sources = draw_sources()
    return [
        tokenizer.encode(signal_of(one))
        for number, seed in enumerate(seeds)
        for one in recordings(
            sources,
            layouts[number % len(layouts)],
            [seed],
            duration_s=64,
            sfreq_hz=tokenizer.settings.sfreq_hz,
        )
    ]


def check_layouts(
    tokenizer: BrainTokenizer, people: range, duration_s: float
) -> dict[str, dict[str, float]]:
    """Score all layouts, with places shuffled too; hold what must hold however long it trained."""
    sources, rate_hz = draw_sources(), tokenizer.settings.sfreq_hz
    found, codes = {}, []
    for layout in (*SEEN, *UNSEEN):
        heads = recordings(sources, layout, people, duration_s=duration_s, sfreq_hz=rate_hz)
        found[layout], shuffled = (
            {k: float(v.mean()) for k, v in layout_scores(tokenizer, heads, shuffled=lost).items()}
            for lost in (False, True)
        )
        assert shuffled["all"] <= found[layout]["all"] - 0.1, layout
        assert shuffled["dropped"] <= found[layout]["dropped"] - 0.3, layout
        errors = stage_errors(tokenizer, heads)
        assert all(np.diff(errors) < 0), (layout, errors)  # each stage lowers the error
        codes += [tokenizer.encode(signal_of(one)).codes for one in heads]
    for layout in UNSEEN:  # of EEG, as they are
        for score in ("all", "dropped"):
            assert found[layout][score] >= 0.8 * found["eeg32"][score], (layout, score)
    size = tokenizer.settings.quantiser.codebook_size
    for perplexity, used in code_use(np.concatenate(codes, axis=1), size):
        assert perplexity > 0.5
        assert used >= 0.9
    return found


@pytest.fixture(scope="module")
def quick() -> BrainTokenizer:
    """Train for seconds."""
    settings = BrainTokenizerSettings(
        **SMALL, n_features=48, n_steps=110, batch_size=8, channels_per_window=24,
        learning_rate=8e-3, continuous_share=0.5,
        quantiser=QuantiserSettings(codebook_size=64, n_stages=4),
    )  # fmt: skip
    return trained(settings, 4, 64)[0]


def test_unseen_layouts_are_said_about_as_well_as_seen_ones(quick: BrainTokenizer) -> None:
    found = check_layouts(quick, range(1000, 1002), 16)
    assert found["eeg32"]["all"] > 0.5
    assert found["mag102"]["all"] > 0.5


def test_hidden_windows_of_sources_are_guessed_from_the_others(quick: BrainTokenizer) -> None:
    training = tokens_of(quick, SEEN, range(200, 210))
    held_out = tokens_of(quick, (*SEEN, "eeg64"), range(2000, 2003))
    model = BrainOmni(BrainOmniSettings(**GRID, n_steps=60))
    model.fit(training, quick.codebooks())
    found = guesses(model, training, held_out)
    for rival in ("unigram", "bigram", "copy neighbour"):
        assert found["model"][0] < found[rival][0] - 0.3, rival  # of the first stage
        assert np.mean(found["model"]) < np.mean(found[rival]) - 0.05, rival


@pytest.fixture(scope="module", params=[0, 1])
def full(request: pytest.FixtureRequest) -> BrainTokenizer:
    """Train for minutes, from two seeds."""
    settings = BrainTokenizerSettings(
        **SMALL, n_features=64, n_steps=500, batch_size=12, channels_per_window=32,
        random_state=request.param,
        learning_rate=7e-3, quantiser=QuantiserSettings(codebook_size=128, n_stages=4),
    )  # fmt: skip
    return trained(settings, 12, 64)[0]


@pytest.mark.slow
def test_dropped_channels_of_unseen_layouts_are_told_better_than_by_splines(
    full: BrainTokenizer,
) -> None:
    found = check_layouts(full, range(1000, 1006), 32)
    print(found)
    for layout in ("eeg32", *UNSEEN):
        assert found[layout]["dropped"] > found[layout]["spline"], layout


@pytest.mark.slow
def test_hidden_tokens_are_guessed_better_than_by_any_table(full: BrainTokenizer) -> None:
    training = tokens_of(full, SEEN, range(200, 240))
    held_out = tokens_of(full, (*SEEN, *UNSEEN), range(2000, 2008))
    model = BrainOmni(BrainOmniSettings(**GRID, n_steps=300))
    model.fit(training, full.codebooks())
    found = guesses(model, training, held_out)
    print(found)
    for rival in ("unigram", "bigram", "copy neighbour"):
        assert found["model"][0] < found[rival][0] - 1.0, rival
        assert np.mean(found["model"]) < np.mean(found[rival]) - 0.2, rival
