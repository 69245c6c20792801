"""Time the vectorised evaluation against the plain ways, all in one run."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.stats import bootstrap

from afterimage.evaluation.audit import near_duplicates
from afterimage.evaluation.identification import count_beaten, similarity, two_way
from afterimage.evaluation.scores import ReconstructionSet, Resampling, reconstruction_rows
from afterimage.evaluation.statistics import (
    bootstrap_interval,
    permutation_chance,
    permuted_pairs,
)

N_IMAGES, N_FEATURES, N_DRAWS = 1000, 512, 1000
N_LABELS, N_ENCODERS, SIDE_PX = 10, 5, 32


def seconds(call: Callable[[], object], repeats: int = 1) -> float:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


def loop_two_way(similarities: NDArray[np.float64], order: NDArray[np.int32]) -> float:
    n = len(similarities)
    beaten = 0
    for j in range(n):
        right = similarities[j, order[j]]
        for k in range(n):
            beaten += int(k != order[j] and similarities[j, k] < right)
    return beaten / n / (n - 1)


def compare(name: str, ours_s: float, theirs_s: float, other: str) -> None:
    print(f"{name:<42}{ours_s:>9.4f} s{theirs_s:>12.4f} s{theirs_s / ours_s:>10.0f} x  {other}")


def main() -> None:
    generator = np.random.default_rng(0)
    true, predicted = generator.standard_normal((2, N_IMAGES, N_FEATURES))
    matrix = similarity(predicted, true)
    rates = two_way(matrix)
    pairs = permuted_pairs(N_IMAGES, N_DRAWS)
    loop_s = seconds(lambda: loop_two_way(matrix, np.arange(N_IMAGES)))
    compare("two-way, 1000 x 1000", seconds(lambda: two_way(matrix), 3), loop_s, "double loop")

    def null() -> object:
        return permutation_chance(count_beaten(matrix) / (N_IMAGES - 1), pairs)

    ours_s = seconds(null, 3)
    compare(
        "two-way null, 1000 permutations", ours_s, loop_s * N_DRAWS, "double loop (1 timed x 1000)"
    )

    def recompute() -> None:
        for order in pairs[:5]:
            two_way(similarity(predicted, true[order]))

    again_s = seconds(recompute) / 5 * N_DRAWS
    compare("two-way null, 1000 permutations", ours_s, again_s, "recomputed (5 timed x 200)")

    def scipy_interval() -> object:
        return bootstrap((rates,), np.mean, n_resamples=N_DRAWS, method="percentile", rng=0)

    def scipy_plain() -> object:
        return bootstrap(
            (rates,), np.mean, n_resamples=N_DRAWS, method="percentile", rng=0, vectorized=False
        )

    ours_s = seconds(lambda: bootstrap_interval(rates, n_bootstraps=N_DRAWS), 3)
    compare(
        "bootstrap, 1000 images x 1000", ours_s, seconds(scipy_interval, 3), "scipy vectorised"
    )
    compare("bootstrap, 1000 images x 1000", ours_s, seconds(scipy_plain), "scipy, one at a time")

    truth = generator.random((N_IMAGES, SIDE_PX, SIDE_PX, 3), np.float32)
    encoders = {f"encoder{i}": true + i for i in range(N_ENCODERS)}
    sets = [
        ReconstructionSet(
            f"label{i}", "ridge", "low_level", "reconstruction", truth[::-1], encoders
        )
        for i in range(N_LABELS)
    ]
    draws = Resampling(n_bootstraps=N_DRAWS, n_permutations=N_DRAWS)
    table_s = seconds(
        lambda: reconstruction_rows(truth, encoders, sets, subject="01", resampling=draws)
    )
    print(f"whole table, {N_LABELS} labels x {N_ENCODERS} encoders, {SIDE_PX} px: {table_s:.1f} s")
    train = generator.integers(0, 256, (10_000, 32, 32, 3)).astype(np.uint8)
    test = train[:1000]
    names = [str(i) for i in range(10_000)]
    scan_s = seconds(lambda: near_duplicates(train, test, train_ids=names, test_ids=names[:1000]))
    print(f"near-duplicates, 10,000 training x 1,000 test images: {scan_s:.1f} s")


if __name__ == "__main__":
    main()
