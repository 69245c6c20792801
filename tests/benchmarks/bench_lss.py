"""Time LSS in closed form against nilearn's loop of one model a trial, in one run.

300 trials, 20,000 voxels, 1,200 volumes. A few of nilearn's 300 models are timed and scaled;
``--full`` times all of them.
"""

from __future__ import annotations

import argparse
import time
import tracemalloc

import numpy as np
from nilearn.glm.first_level import run_glm

from afterimage.preprocess.fmri.design import RunDesign, trial_regressors
from afterimage.preprocess.fmri.hrf import canonical_hrf
from afterimage.preprocess.fmri.registry import ESTIMATORS

N_TRIALS, N_VOXELS, N_VOLUMES, TR_S, N_TIMED = 300, 20_000, 1_200, 1.5, 3


def simulated() -> tuple[RunDesign, np.ndarray]:
    """One run with drift and six confounds, and noise for signal: time depends on shapes only."""
    generator = np.random.default_rng(0)
    times_s = np.arange(N_VOLUMES) * TR_S
    phases = np.pi * (np.arange(N_VOLUMES) + 0.5)[:, None] * np.arange(29) / N_VOLUMES
    confounds = generator.standard_normal((N_VOLUMES, 6)).cumsum(axis=0)
    onsets_s = 8 + np.arange(N_TRIALS) * 5.9
    design = RunDesign(
        volume_times_s=times_s,
        onsets_s=onsets_s,
        durations_s=np.full(N_TRIALS, 2.0),
        stimulus=np.array([f"image{trial}" for trial in range(N_TRIALS)]),
        training=np.ones(N_TRIALS, bool),
        nuisance=np.concatenate([np.cos(phases), confounds], axis=1),
    )
    return design, generator.standard_normal((N_VOLUMES, N_VOXELS), dtype=np.float32)


def ours(design: RunDesign, signal: np.ndarray) -> np.ndarray:
    estimator = ESTIMATORS.get("lss")(ESTIMATORS.settings("lss")())
    found = estimator.estimate([design], lambda _, voxels: signal[:, voxels], N_VOXELS)
    return np.concatenate([part.betas for part in found], axis=1)


def theirs(design: RunDesign, signal: np.ndarray, trials: range) -> np.ndarray:
    """One of nilearn's models a trial: the trial, the others together, the nuisance."""
    regressors = trial_regressors(design, canonical_hrf())[0]
    values = signal.astype(np.float64)
    betas = np.empty((len(trials), N_VOXELS))
    for row, trial in enumerate(trials):
        others = regressors.sum(axis=1) - regressors[:, trial]
        matrix = np.column_stack([regressors[:, trial], others, design.nuisance])
        labels, results = run_glm(values, matrix, noise_model="ols")
        for label in np.unique(labels):
            betas[row, labels == label] = results[label].theta[0]
    return betas


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help="time all 300 models of nilearn")
    n_timed = N_TRIALS if parser.parse_args().full else N_TIMED
    design, signal = simulated()
    ours(design, signal)  # imports and threads are up for both
    times = []
    for _ in range(3):
        start = time.perf_counter()
        betas = ours(design, signal)
        times.append(time.perf_counter() - start)
    ours_s = min(times)
    start = time.perf_counter()
    reference = theirs(design, signal, range(n_timed))
    theirs_s = (time.perf_counter() - start) * N_TRIALS / n_timed
    worst = np.abs(betas[:n_timed] - reference).max()
    tracemalloc.start()
    ours(design, signal)
    peak = tracemalloc.get_traced_memory()[1] / 2**20
    how = "all timed" if n_timed == N_TRIALS else f"{n_timed} timed x {N_TRIALS // n_timed}"
    print(f"LSS, {N_TRIALS} trials x {N_VOXELS} voxels x {N_VOLUMES} volumes")
    print(f"  closed form  {ours_s:10.2f} s   peak {peak:.0f} MiB beyond the signal itself")
    print(f"  nilearn      {theirs_s:10.2f} s   {how}")
    print(f"  ratio        {theirs_s / ours_s:10.0f} x   largest difference {worst:.1e}")


if __name__ == "__main__":
    main()
