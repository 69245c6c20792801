"""Time of shrunk noise covariances, batched, against a loop of scikit-learn's over epochs.

1,000 epochs of 63 channels and 100 samples (1 s at 100 Hz) and of 63 by 250. The loop that has to be
beaten is that of the field's scripts: ``sklearn.discriminant_analysis._cov`` with automatic shrinkage.
Ours multiplies in float32, as single epochs are fitted.
The bare ``ledoit_wolf`` is timed too. Run: python tests/benchmarks/bench_whitening.py
"""

from __future__ import annotations

import sys
import time
from functools import partial

import numpy as np

from afterimage.preprocess.meeg.whitening import shrunk_covariances

N_EPOCHS, N_UNITS = 1000, 63
#: Ratio and equality that have to be reached.
FASTER, TOLERANCE = 15.0, 1e-6


def batched(epochs: np.ndarray, standardise: bool) -> np.ndarray:
    """Fit all covariances at once; the function works through them in parts of its own."""
    return shrunk_covariances(epochs, standardise=standardise, dtype=np.float32)[0]


def main() -> int:
    """Print times, ratios and differences; 1 where one is not reached."""
    from sklearn.covariance import ledoit_wolf
    from sklearn.discriminant_analysis import _cov

    rng = np.random.default_rng(0)
    failed = False
    for n_times in (100, 250):
        mixing = rng.normal(size=(N_UNITS, N_UNITS))
        epochs = 1e-6 * np.matmul(mixing, rng.normal(size=(N_EPOCHS, N_UNITS, n_times)))
        for name, fit, needed in (
            ("_cov", partial(_cov, shrinkage="auto"), FASTER),
            ("ledoit_wolf", lambda x: ledoit_wolf(x)[0], 0.0),
        ):
            fit(epochs[0].T), batched(epochs[:10], needed > 0)
            seconds: dict[str, list[float]] = {"loop": [], "batched": []}
            for _ in range(3):  # in turns, and the best of each: other work on the machine varies
                start = time.perf_counter()
                expected = np.array([fit(epoch.T) for epoch in epochs])
                middle = time.perf_counter()
                found = batched(epochs, needed > 0)
                seconds["loop"].append(middle - start)
                seconds["batched"].append(time.perf_counter() - middle)
            slow, fast = min(seconds["loop"]), min(seconds["batched"])
            ratio = slow / fast
            difference = np.abs(found - expected).max() / np.abs(expected).max()
            print(
                f"{n_times} samples: loop of {name} {slow:.2f} s, batched "
                f"{fast:.3f} s, {ratio:.1f} times, largest relative difference {difference:.1g}"
            )
            failed |= ratio < needed or difference > TOLERANCE
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
