"""A small subject with trials cut from series: the same data in both forms."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from afterimage.io.series import write_series
from afterimage.io.trials import Cuts, write_lazy_trials, write_trials

RATE_HZ = 100.0


def write_both(
    folder: Path,
    *,
    n_units: int = 5,
    n_samples: tuple[int, ...] = (400, 300),
    n_trials: int = 40,
    n_times: int = 30,
    columns: np.ndarray | None = None,
    whiten: bool = True,
    seed: int = 0,
) -> tuple[Path, Path, np.ndarray]:
    """Write series, trials stored and trials lazy; return both paths and the responses."""
    rng = np.random.default_rng(seed)
    signals = [rng.normal(3, 2, (n, n_units + 1)).astype(np.float32) for n in n_samples]
    files = [folder / f"sub-01_run-{run}_desc-clean_series.nc" for run in range(len(signals))]
    units = {"name": np.array([f"E{k}" for k in range(n_units + 1)])}
    units["kind"] = np.full(n_units + 1, "eeg")
    attributes: dict[str, Any] = {
        "sampling_rate_hz": RATE_HZ, "start_time_s": 0.0, "source": "raw"
    }  # fmt: skip
    for file, signal in zip(files, signals, strict=True):
        write_series(file, signal, units, attributes, np.zeros(len(signal), dtype=bool))
    columns = np.arange(n_units) if columns is None else columns
    index = rng.integers(0, len(files), n_trials)
    first = np.array([rng.integers(0, n_samples[place] - n_times + 1) for place in index])
    baseline = rng.normal(3, 1, (n_trials, len(columns))).astype(np.float32)
    shape = (2, len(columns), len(columns))
    whitening = rng.normal(size=shape) if whiten else np.array([np.eye(len(columns))] * 2)
    fit = rng.integers(0, 2, n_trials)
    responses = np.empty((n_trials, len(columns), n_times), dtype=np.float32)
    for trial in range(n_trials):
        cut = signals[index[trial]][first[trial] : first[trial] + n_times][:, columns]
        responses[trial] = whitening[fit[trial]] @ (cut - baseline[trial]).T.astype(float)
    trials = {
        "stimulus": np.array([f"s{k}" for k in rng.integers(0, 9, n_trials)]),
        "subject": np.full(n_trials, "01"),
        "split": rng.choice(["train", "test"], n_trials),
        "repeat": np.zeros(n_trials, dtype=np.int64),
    }
    kept = {
        "kind": np.full(len(columns), "eeg"),
        "x": rng.normal(size=len(columns)),
        "roi": np.full(len(columns), "n/a"),
    }
    times_s = (np.arange(n_times) - 10) / RATE_HZ
    about = {"subject": "01", "response_units": "uV", "position_units": "m"}
    stored, lazy = folder / "stored_trials.nc", folder / "sub-01" / "lazy_trials.nc"
    write_trials(stored, [responses], trials, kept, times_s, about)
    cuts = Cuts(files, index, first, columns, baseline, whitening.astype(np.float32), fit)
    write_lazy_trials(lazy, cuts, trials, kept, times_s, about)
    return stored, lazy, responses
