"""Regions that say what no channel says: which relation two groups of their channels have."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from afterimage.tokenizers.du_in import DuIN, DuINSettings
from afterimage.tokenizers.quantiser import QuantiserSettings
from afterimage.tokenizers.signals import Signal, new_signal

RATE_HZ, TOKEN_S, N_EACH = 200.0, 0.1, 6


def relations(
    person: int, n_tokens: int, seed: int, *, steady: bool = False
) -> tuple[Signal, NDArray[np.int64]]:
    """Record two regions; the bits of each are said by the phases of its channels together.

    In each token the channels of a region have a rhythm of 20 Hz. Half of them, which half depends
    on the person, have a phase that is drawn anew, the others the same or the opposite one: that is
    the bit (exclusive or), and every channel by itself has a random phase.

    Parameters
    ----------
    person, n_tokens, seed : int
    steady : bool
        Phases go on from token to token by about a third of a turn, and bits change once in ten
        tokens, so that hidden tokens can be guessed.

    Returns
    -------
    signal : Signal
        V; noise has half the deviation of the rhythm.
    bits : ndarray of int, (2, n_tokens)
        Of the regions in the order of their names.
    """
    rng = np.random.default_rng((person, seed))
    layout = np.random.default_rng((person, 77))
    width = round(TOKEN_S * RATE_HZ)
    times = np.arange(width) / RATE_HZ
    values, names, regions, bits = [], [], [], []
    for region in ("insula", "temporal"):
        bit = rng.integers(0, 2, n_tokens)
        phase = rng.uniform(0, 2 * np.pi, n_tokens)
        if steady:
            bit = np.cumsum(rng.random(n_tokens) < 0.1) % 2
            phase = np.cumsum(rng.normal(2 * np.pi * 0.3, 0.2, n_tokens)) + phase[0]
        other = layout.permutation(N_EACH) < N_EACH // 2
        gains = layout.uniform(0.7, 1.4, N_EACH)
        shift = np.pi * other[:, None] * bit  # (N_EACH, n_tokens)
        angle = 2 * np.pi * 20 * times + (phase + shift)[..., None]
        rhythm = gains[:, None] * np.cos(angle).reshape(N_EACH, -1)
        values.append(rhythm + 0.35 * rng.standard_normal(rhythm.shape))
        names += [f"sub-{person}/{region[0]}{number}" for number in range(N_EACH)]
        regions += [region] * N_EACH
        bits.append(bit)
    signal = new_signal(1e-5 * np.concatenate(values), RATE_HZ, names, "ieeg", regions=regions)
    return signal, np.array(bits)


def small(**more: Any) -> dict[str, Any]:
    return {
        "sfreq_hz": RATE_HZ, "window_s": 1.0, "batch_size": 8, "learning_rate": 6e-3,
        "warmup_steps": 20, "quantiser": QuantiserSettings(codebook_size=64), **more,
    }  # fmt: skip


def du_in(**more: Any) -> DuIN:
    sizes = {"token_s": TOKEN_S, "stride": 5, "n_mixed": 16, "n_filters": 32, "n_out": 8,
             "n_layers": 1, "n_back_layers": 1, "n_heads": 2}  # fmt: skip
    return DuIN(DuINSettings(**small(**(sizes | more))))
