"""How long a map of 3-cycles of 20,000 voxels takes, and how much memory; prints one JSON line.

Series are mixtures of smooth sources, so that degrees vary as in a brain; the graph joins 0.4 % of the
pairs (1.6 million nonzeros).

    python tests/benchmarks/bench_three_cycles.py [n_voxels] [n_times] [density]
"""

from __future__ import annotations

import json
import resource
import sys
import time

import numpy as np

from afterimage.connectivity.three_cycles import three_cycles, threshold_graph


def main(n_voxels: int, n_times: int, density: float) -> None:
    """Make series, the graph and the map."""
    rng = np.random.default_rng(0)
    sources = rng.standard_normal((n_times, 60), dtype=np.float32)
    place = np.sort(rng.uniform(0, 60, n_voxels)).astype(np.float32)
    mixing = np.exp(-np.square(place - np.arange(60)[:, None]) / 2).astype(np.float32)
    series = sources @ mixing
    series += 0.7 * rng.standard_normal(series.shape, dtype=np.float32)
    started, cpu = time.perf_counter(), time.process_time()
    graph = threshold_graph(series, density=density)
    seconds_graph = time.perf_counter() - started
    cycles = three_cycles(graph.weights)
    print(
        json.dumps(
            {
                "n_voxels": n_voxels, "n_times": n_times, "nonzeros": int(graph.weights.nnz),
                "threshold": graph.threshold, "largest_degree": int(np.diff(graph.weights.indptr).max()),
                "cycles": int(cycles.sum() // 3),
                "seconds_graph": round(seconds_graph, 1),
                "seconds": round(time.perf_counter() - started, 1),
                "seconds_cpu": round(time.process_time() - cpu, 1),
                "peak_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
            }
        )
    )  # fmt: skip


if __name__ == "__main__":
    given = sys.argv[1:]
    defaults = ["20000", "200", "0.004"]
    voxels, times, share = given + defaults[len(given) :]
    main(int(voxels), int(times), float(share))
