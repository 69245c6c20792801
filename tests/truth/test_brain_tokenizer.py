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
