"""Signals to try tokenizers on: rhythms shared by channels, in noise."""

from __future__ import annotations

import numpy as np

from afterimage.tokenizers.signals import Signal, new_signal

NAMES = ("Fp1", "Fz", "C3", "Cz", "C4", "Pz", "O1", "O2")


def rhythms(
    seconds: float = 12.0, sfreq_hz: float = 200.0, seed: int = 0, n_channels: int = 8
) -> Signal:
    """Return EEG in V: bursts of 6, 10 and 20 Hz, each strongest at some channels, in noise."""
    rng = np.random.default_rng(seed)
    times = np.arange(round(seconds * sfreq_hz)) / sfreq_hz
    bursts = []
    for rate_hz in (6.0, 10.0, 20.0):
        on = np.repeat(rng.random(int(np.ceil(seconds))) < 0.5, round(sfreq_hz))[: len(times)]
        bursts.append(on * np.sin(2 * np.pi * rate_hz * times + rng.uniform(0, 2 * np.pi)))
    weights = np.random.default_rng(99).uniform(0.2, 1.0, (n_channels, 3))
    noise = rng.standard_normal((n_channels, len(times)))
    values = 1e-5 * (weights @ np.array(bursts) * 2 + 0.3 * noise)
    angle = np.linspace(0, 2 * np.pi, n_channels, endpoint=False)
    places = np.stack([0.08 * np.cos(angle), 0.08 * np.sin(angle), np.full(n_channels, 0.04)], 1)
    regions = np.where(np.arange(n_channels) < n_channels // 2, "front", "back")
    return new_signal(
        values, sfreq_hz, NAMES[:n_channels], "eeg", positions_m=places, regions=regions
    )
