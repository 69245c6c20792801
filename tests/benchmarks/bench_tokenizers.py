"""Speed of tokenising 64 channels on one core, every tokenizer at its default size.

A minute at 250 Hz, with standardising and resampling. Judged by processor time, so that other
programs on the machine do not matter. Run: OMP_NUM_THREADS=1 python
tests/benchmarks/bench_tokenizers.py [tokenizer ...]
"""

from __future__ import annotations

import sys
import time
from typing import Any

import numpy as np

N_CHANNELS, SECONDS, RATE_HZ, N_REPEATS = 64, 60.0, 250.0, 5
#: Times real time that the fastest tokenizer has to reach.
LIMIT = 200.0


def signal() -> Any:
    """Return EEG of 64 electrodes of the 10-05 system, noise with the spectrum of EEG."""
    import mne

    from afterimage.tokenizers.signals import new_signal

    positions = mne.channels.make_standard_montage("biosemi64").get_positions()["ch_pos"]
    n_times = round(SECONDS * RATE_HZ)
    shape = 1 / np.maximum(np.fft.rfftfreq(n_times, 1 / RATE_HZ), 0.5) ** 0.75
    noise = np.random.default_rng(0).standard_normal((N_CHANNELS, n_times))
    values = np.fft.irfft(np.fft.rfft(noise) * shape, n_times)
    places = np.array(list(positions.values()))
    regions = np.repeat([f"region {n}" for n in range(8)], N_CHANNELS // 8)
    return new_signal(
        1e-5 * values / values.std(), RATE_HZ, list(positions), positions_m=places, regions=regions
    )


def main() -> int:
    """Print the speed of each tokenizer; 1 where the fastest does not reach the limit."""
    import torch

    from afterimage.tokenizers.registry import TOKENIZERS

    torch.set_num_threads(1)
    eeg, fastest = signal(), 0.0
    for name in sys.argv[1:] or TOKENIZERS.names():
        # Codebooks are those of one step of training: speed does not depend on what they hold.
        settings = TOKENIZERS.settings(name)(n_steps=1, batch_size=8)
        tokenizer = TOKENIZERS.get(name)(settings)
        tokenizer.fit(tokenizer.source([eeg]))
        tokenizer.encode(eeg)
        times = []
        for _ in range(N_REPEATS):
            before = time.process_time()
            tokens = tokenizer.encode(eeg)
            times.append(time.process_time() - before)
        speed = SECONDS / float(np.median(times))
        fastest = max(fastest, speed)
        print(
            f"{name}: {speed:.0f} times real time (slowest {SECONDS / max(times):.0f}, fastest "
            f"{SECONDS / min(times):.0f}), codes {tokens.codes.shape}"
        )
    return int(fastest < LIMIT)


if __name__ == "__main__":
    sys.exit(main())
