"""Time the decoders of sliding windows against scikit-learn refitting every fold, in one run.

600 trials, 64 channels, 1 s at 250 Hz, 19 windows, 128 targets, ten penalties, five folds. A few of
the windows of the plain loop are timed and scaled.
"""

from __future__ import annotations

import time

import numpy as np
from sklearn.linear_model import Ridge

from afterimage.evaluation.time_resolved import (
    Decoding,
    fit_windows,
    make_windows,
    unit_scale,
    window_inputs,
)
from afterimage.evaluation.window_ridge import ALPHAS, folds_by_group

N_TRIALS, N_TEST, N_UNITS, N_TIMES, N_TARGETS, N_TIMED = 600, 200, 64, 250, 128, 2


def simulated() -> Decoding:
    """Noise for data: time depends on shapes only."""
    rng = np.random.default_rng(0)
    train = rng.standard_normal((N_TRIALS, N_UNITS, N_TIMES)).astype(np.float32)
    test = rng.standard_normal((N_TEST, N_UNITS, N_TIMES)).astype(np.float32)
    names = [f"image{number}" for number in range(N_TRIALS + N_TEST)]
    features = rng.standard_normal((N_TRIALS + N_TEST, N_TARGETS))
    return Decoding(
        train, features[:N_TRIALS], np.array(names[:N_TRIALS]), test, np.array(names[N_TRIALS:]),
        names[N_TRIALS:], features[N_TRIALS:], (np.arange(N_TIMES) - 50) / 250.0,
    )  # fmt: skip


def main() -> None:
    data = simulated()
    windows = make_windows(data.times_s, 0.1, 0.05)
    start = time.perf_counter()
    fits = [model for model, _ in fit_windows(data, windows)]
    ours = time.perf_counter() - start

    scale, folds = unit_scale(data.train), folds_by_group(data.groups)
    start = time.perf_counter()
    for window, model in zip(windows[:N_TIMED], fits, strict=False):
        inputs = window_inputs(data.train, window, scale)
        level = model.penalty / model.alpha
        errors = np.zeros(len(ALPHAS))
        for row, alpha in enumerate(ALPHAS):
            for test in folds:
                train = np.setdiff1d(np.arange(N_TRIALS), test)
                fold = Ridge(alpha * level).fit(inputs[train], data.targets[train])
                errors[row] += ((data.targets[test] - fold.predict(inputs[test])) ** 2).sum()
        best = ALPHAS[int(errors.argmin())]
        assert best == model.alpha, "another penalty"
        plain = Ridge(best * level).fit(inputs, data.targets)
        np.testing.assert_allclose(model.coefficients.T, plain.coef_, atol=1e-6)
    theirs = (time.perf_counter() - start) / N_TIMED * len(windows)
    print(f"ours {ours:.1f} s, plain loop {theirs:.1f} s, {theirs / ours:.1f} times faster")


if __name__ == "__main__":
    main()
