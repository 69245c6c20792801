"""One tokenizer of EEG and MEG on layouts that it has never seen, and guessing its hidden tokens.

Twelve dipoles of everybody, seen by 32 electrodes and by 102 magnetometers in training, by 19 and 64
electrodes of other people afterwards (`afterimage.simulate.sensor_layouts`). Spherical splines know
the head is a sphere and nothing else; the known field is the best linear filter of one sample.
"""

from __future__ import annotations

from types import SimpleNamespace
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

SIZE = 64
SMALL: dict[str, Any] = {
    "sfreq_hz": 64.0, "window_s": 2.0, "ratios": (4, 4), "n_features": 48, "n_filters": 8,
    "batch_size": 8, "channels_per_window": 24, "warmup_steps": 20, "learning_rate": 6e-3,
    "quantiser": QuantiserSettings(codebook_size=SIZE, n_stages=4),
}  # fmt: skip


def guesses(
    model: BrainOmni, training: list[Any], held_out: list[Any]
) -> dict[str, list[float]]:
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
