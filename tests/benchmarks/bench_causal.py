"""Latency of one trial in causal mode: from its last block of samples to the decoded features.

63 channels at 1 kHz in blocks of 20 ms, kept at 250 Hz; whitening, then a linear decoder to 512
features and the scores of 200 pictures. Run on one core: OMP_NUM_THREADS=1 python
tests/benchmarks/bench_causal.py
"""

from __future__ import annotations

import sys
import time

import numpy as np

from afterimage.preprocess.meeg.causal import CausalSettings, CausalStream

N_UNITS, RATE_HZ, BLOCK, N_TRIALS, N_FEATURES, N_PICTURES = 63, 1000.0, 20, 300, 512, 200
#: 95th percentile that has to be reached.
LIMIT_MS = 20.0


def main() -> int:
    """Print the distribution of latencies; 1 where the 95th percentile is above the limit."""
    rng = np.random.default_rng(0)
    whitening = rng.normal(size=(N_UNITS, N_UNITS))
    settings = CausalSettings(RATE_HZ, 0.1, 40.0, 50.0, decimate=4)
    stream = CausalStream(settings, N_UNITS, whitening)
    weights = rng.normal(size=(N_UNITS * len(stream.times_s), N_FEATURES)).astype(np.float32)
    pictures = rng.normal(size=(N_FEATURES, N_PICTURES)).astype(np.float32)
    decoded, latencies_ms, blocks_ms = 0, [], []
    onset = 1000
    while decoded < N_TRIALS:
        block = 1e-5 * rng.normal(size=(BLOCK, N_UNITS))
        while onset < stream.n_samples + BLOCK:
            stream.mark(onset)
            onset += 200
        start = time.perf_counter()
        scores = [
            (epoch.astype(np.float32).reshape(1, -1) @ weights @ pictures).argmax()
            for _, epoch in stream.push(block)
        ]
        elapsed_ms = 1000 * (time.perf_counter() - start)
        (latencies_ms if scores else blocks_ms).append(elapsed_ms)
        decoded += len(scores)
    p50, p95, p100 = np.percentile(latencies_ms, [50, 95, 100])
    print(
        f"{decoded} trials: median {p50:.2f} ms, 95th percentile {p95:.2f} ms, slowest {p100:.2f} ms; "
        f"blocks without a trial {np.median(blocks_ms):.2f} ms"
    )
    return int(p95 > LIMIT_MS)


if __name__ == "__main__":
    sys.exit(main())
