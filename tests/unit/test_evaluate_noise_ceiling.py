"""The noise ceiling that stands beside every score."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from afterimage.io.trials import write_trials
from afterimage.stages.evaluate import _noise_ceiling


def trials(path: Path, ceiling: list[float], n_repeats: int) -> Path:
    names = ["a", "b", *["c"] * n_repeats]
    write_trials(
        path,
        [np.zeros((len(names), len(ceiling)), np.float32)],
        {
            "stimulus": np.array(names),
            "split": np.array(["train", "train", *["test"] * n_repeats]),
        },
        {"kind": np.array(["voxel"] * len(ceiling)), "ceiling": np.array(ceiling, np.float32)},
        None,
        {},
    )
    return path


def test_it_is_that_of_the_averaged_test_trials(tmp_path: Path) -> None:
    path = trials(tmp_path / "sub-01_trials.nc", [0.5, 0.6, np.nan, 0.7], n_repeats=4)
    snr = 0.6 / np.sqrt(1 - 0.6**2)
    assert _noise_ceiling(path) == pytest.approx(np.sqrt(snr**2 / (snr**2 + 1 / 4)), abs=1e-5)
    single = trials(tmp_path / "sub-02_trials.nc", [0.5, 0.6, 0.7], n_repeats=1)
    assert _noise_ceiling(single) == pytest.approx(0.6, abs=1e-5)


def test_without_repeats_there_is_none(tmp_path: Path) -> None:
    assert _noise_ceiling(trials(tmp_path / "sub-01_trials.nc", [np.nan] * 2, 2)) is None
