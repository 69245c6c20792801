"""How long static connectivity takes, against the matrix product it is made of, in the same run.

Correlation of 400 regions in 1,000 recordings of 1,200 volumes should reach 60 % of the rate of
``np.matmul`` on arrays of the same shapes. Recordings are drawn anew in blocks, outside the clock, so
that a block, not the study, is in memory. Prints one JSON line.

    python tests/benchmarks/bench_connectivity.py [n_recordings] [n_times] [n_regions]
"""

from __future__ import annotations

import json
import sys
import time

import numpy as np

from afterimage.signal.correlation import correlation_matrix

BLOCK = 20


def main(n_recordings: int, n_times: int, n_regions: int) -> None:
    """Run both on the same blocks, in turns, so that other load meets both alike."""
    rng = np.random.default_rng(0)
    block = 400 + rng.standard_normal((BLOCK, n_times, n_regions), dtype=np.float32)
    ours = np.empty((BLOCK, n_regions, n_regions), dtype=np.float32)
    plain = np.empty_like(ours)
    correlation_matrix(block[0], ours[0])
    np.matmul(block[0].T.copy(), block[0])
    seconds = {"correlation": 0.0, "matmul": 0.0}
    turned = np.ascontiguousarray(block.transpose(0, 2, 1))  # other memory: no symmetric shortcut
    done = 0
    while done < n_recordings:
        started = time.perf_counter()
        for index in range(BLOCK):
            correlation_matrix(block[index], ours[index])
        seconds["correlation"] += time.perf_counter() - started
        started = time.perf_counter()
        for index in range(BLOCK):
            np.matmul(turned[index], block[index], out=plain[index])
        seconds["matmul"] += time.perf_counter() - started
        done += BLOCK
    expected = np.corrcoef(block[0].astype(np.float64), rowvar=False)
    flops = 2.0 * done * n_times * n_regions**2
    print(
        json.dumps(
            {
                "n_recordings": done, "n_times": n_times, "n_regions": n_regions,
                "seconds": {name: round(value, 3) for name, value in seconds.items()},
                "matmul_gflops": round(flops / seconds["matmul"] / 1e9, 1),
                "share_of_matmul_rate": round(seconds["matmul"] / seconds["correlation"], 3),
                "largest_error": float(np.abs(ours[0] - expected).max()),
            }
        )
    )  # fmt: skip


if __name__ == "__main__":
    numbers = [int(value) for value in sys.argv[1:]]
    main(*(numbers + [1000, 1200, 400][len(numbers) :]))
