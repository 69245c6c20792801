"""Sliding-window correlation against a loop of numpy.corrcoef, in one run.

400 units x 1,200 volumes, windows of 60 volumes, step 1. Run from the root: python
tests/benchmarks/bench_windows.py [threads]. Prints wall time and the time of all cores together;
times are the least of seven passes, as other programs may run on the machine.
"""

from __future__ import annotations

import os
import resource
import sys
import time
from collections.abc import Callable

import numpy as np

from afterimage.signal.windows import CHUNK_BYTES, n_edges, sliding_correlations, window_starts

N_UNITS, N_TIMES, WIDTH = 400, 1200, 60
#: Ratio that has to be reached, and largest difference allowed.
LIMIT, TOLERANCE = 20.0, 1e-6


def timed(function: Callable[[], None], n: int = 7) -> tuple[float, float]:
    """Return the least wall time and the least time of the cores, s."""
    found = []
    for _ in range(n):
        wall, cores = time.perf_counter(), time.process_time()
        function()
        found.append((time.perf_counter() - wall, time.process_time() - cores))
    return min(one[0] for one in found), min(one[1] for one in found)


def main() -> int:
    """Print both times, their ratio, the largest difference, and peak memory."""
    threads = int(sys.argv[1]) if len(sys.argv) > 1 else len(os.sched_getaffinity(0))
    rng = np.random.default_rng(0)
    series = rng.standard_normal((N_TIMES, 20)) @ rng.standard_normal((20, N_UNITS))
    series += rng.standard_normal(series.shape)
    starts = window_starts(N_TIMES, WIDTH)
    lower = np.tril_indices(N_UNITS, -1)

    def loop() -> None:
        for start in starts:
            np.corrcoef(series[start : start + WIDTH], rowvar=False)

    def rolled() -> None:
        for _ in sliding_correlations(series, WIDTH, n_threads=threads):
            pass

    compiled = time.perf_counter()
    rolled()
    compiled = time.perf_counter() - compiled
    before_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    (wall, cores), (loop_wall, loop_cores) = timed(rolled), timed(loop)
    memory_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    difference = 0.0
    for windows, found in sliding_correlations(series, WIDTH):
        for row, window in enumerate(range(windows.start, windows.stop)):
            expected = np.corrcoef(series[window : window + WIDTH], rowvar=False)[lower]
            difference = max(difference, float(np.abs(found[row] - expected).max()))
    print(
        f"{len(starts)} windows, {threads} threads: {wall:.3f} s (cores {cores:.3f} s), loop of "
        f"corrcoef {loop_wall:.3f} s (cores {loop_cores:.3f} s): {loop_wall / wall:.1f} times faster "
        f"({loop_cores / cores:.1f} in time of cores); largest difference {difference:.1e}; peak "
        f"{memory_mb:.0f} MB ({before_mb:.0f} after the first pass; a chunk is "
        f"{CHUNK_BYTES / 1e6:.0f} MB, all windows "
        f"{4 * len(starts) * n_edges(N_UNITS) / 1e6:.0f} MB); first call {compiled:.1f} s"
    )
    return int(loop_wall / wall < LIMIT or difference > TOLERANCE)


if __name__ == "__main__":
    sys.exit(main())
