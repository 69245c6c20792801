"""A made-up but realistic subject whose responses come from scans, for the report tests."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.ndimage import gaussian_filter

from afterimage.preprocess.fmri.hrf import canonical_hrf, hrf_library
from afterimage.reports.scans import ResponseQuality, RunQuality, ScanQuality, SkippedRun

SHAPE = (52, 62, 36)
SIZE_MM = 3.0
T_R_S = 2.0


def make_affine() -> np.ndarray:
    """Voxels of 3 mm, stored from right to left, as many scanners do."""
    affine = np.diag([-SIZE_MM, SIZE_MM, SIZE_MM, 1.0])
    affine[:3, 3] = np.array([SIZE_MM, -SIZE_MM, -SIZE_MM]) * np.array(SHAPE) / 2
    return affine


def make_anatomy(random_state: int = 0) -> dict[str, np.ndarray]:
    """Brain mask, mean image, cortex, and a patch of it at the back that responds."""
    rng = np.random.default_rng(random_state)
    x, y, z = (np.linspace(-1.12, 1.12, n) for n in SHAPE)
    x, y, z = np.meshgrid(x, y, z, indexing="ij")
    folds = gaussian_filter(rng.normal(size=SHAPE), 1.6)
    folds /= folds.std()
    radius = np.sqrt((x / 0.86) ** 2 + (y / 0.98) ** 2 + (z / 0.9) ** 2) + 0.02 * folds
    brain = radius < 0.95
    ventricle = (np.hypot(np.abs(x) - 0.13, (z - 0.1) / 1.6) < 0.09) & (np.abs(y) < 0.4) & brain
    cortex = brain & (radius + 0.05 * folds > 0.76)
    sulcus = brain & (np.abs(folds) < 0.22) & (radius > 0.5)
    mean = np.where(brain, 560 + 110 * cortex + 15 * folds, 0) + 330 * ventricle - 130 * sulcus
    mean *= 1 + 0.18 * radius  # brighter near the coils
    skull = (radius > 1.0) & (radius < 1.08)
    mean = gaussian_filter(mean + 160 * skull, 0.6) + np.abs(rng.normal(0, 9, SHAPE))
    # Signal is lost near air, in front and below.
    loss = np.exp(-(((x / 0.35) ** 2) + ((y - 0.75) / 0.3) ** 2 + ((z + 0.55) / 0.3) ** 2))
    mean *= 1 - 0.75 * loss
    visual = np.exp(
        -((np.abs(x) - 0.2) ** 2 / 0.09 + (y + 0.8) ** 2 / 0.07 + (z + 0.1) ** 2 / 0.12)
    )
    return {
        "brain": brain,
        "cortex": cortex,
        "mean": mean,
        "visual": visual * cortex,
        "loss": loss,
    }


def make_run(number: int, n_volumes: int = 180, restless: float = 1.0) -> RunQuality:
    """One run with drift, breathing, a few head movements, and their marks in the carpet."""
    rng = np.random.default_rng(100 + number)
    motion = np.cumsum(rng.normal(0, 0.012 * restless, (n_volumes, 6)), axis=0)
    motion[:, 3:] *= 0.01
    motion += rng.normal(0, [0.25] * 3 + [0.003] * 3)
    for at in rng.choice(np.arange(8, n_volumes - 8), 1 + number % 3, replace=False):
        motion[at : at + 2] += rng.normal(0, [0.8 * restless] * 3 + [0.01] * 3)
    step = np.abs(np.diff(motion, axis=0))
    moved = np.concatenate([[np.nan], step[:, :3].sum(axis=1) + 50 * step[:, 3:].sum(axis=1)])
    censored = np.nan_to_num(moved) > 0.9
    times = np.arange(n_volumes)
    rows = np.linspace(0.3, 1.4, 300)[:, None]
    carpet = gaussian_filter(rng.normal(0, 1.6, (300, n_volumes)), (2, 0.6))
    carpet += 0.25 * rows * np.sin(2 * np.pi * times * T_R_S / 11.3 + number)
    carpet += 0.5 * (rows - 0.8) * (times / n_volumes - 0.5) + 0.6 * rows * (
        np.nan_to_num(moved) > 0.7
    )
    dvars = 22 + rng.gamma(6, 0.5, n_volumes) + 16 * np.nan_to_num(moved)
    dvars[0] = np.nan
    return RunQuality(
        f"run-{number + 1:02d}",
        T_R_S,
        moved.astype(np.float32),
        dvars.astype(np.float32),
        motion.astype(np.float32),
        censored,
        carpet.astype(np.float32),
        int(censored.sum()),
        float(61 - 6 * (restless - 1) + rng.normal(0, 1.5)),
        float(np.nanmean(moved)),
        ("Slice timing was taken from the sidecar.",),
    )


def make_design(n_volumes: int, n_trials: int = 40) -> tuple[np.ndarray, list[str]]:
    """Trials four seconds apart, motion, drift and a constant."""
    library = canonical_hrf()
    times = np.arange(n_volumes) * T_R_S
    onsets = 6 + 8.4 * np.arange(n_trials)
    lag = np.arange(library.kernels.shape[1]) * library.dt_s
    trials = [np.interp(times - onset, lag, library.kernels[0], 0, 0) for onset in onsets]
    motion = make_run(0, n_volumes).motion
    drift = [np.cos(np.pi * (k + 1) * (np.arange(n_volumes) + 0.5) / n_volumes) for k in range(5)]
    names = [f"trial {i + 1}" for i in range(n_trials)]
    names += ["trans_x", "trans_y", "trans_z", "rot_x", "rot_y", "rot_z"]
    names += [f"cosine{k:02d}" for k in range(5)] + ["constant"]
    columns = [*trials, *motion.T, *drift, np.ones(n_volumes)]
    return np.stack(columns, axis=1).astype(np.float32), names


def make_response_quality(late_s: float = 0.0, anatomy: Any = None) -> ResponseQuality:
    """Quality of the responses; the onsets may be late by some seconds."""
    rng = np.random.default_rng(9)
    anatomy = anatomy or make_anatomy()
    brain, visual = anatomy["brain"], anatomy["visual"]
    noise = gaussian_filter(rng.normal(0, 1, SHAPE), 1.0)
    noise /= noise.std()

    def inside(values: np.ndarray) -> np.ndarray:
        return np.where(brain, values, np.nan).astype(np.float32)

    ceiling = np.clip(0.85 * visual**0.6 + 0.05 + 0.05 * noise, 0, 0.95)
    peaks = hrf_library().peaks_s
    smooth = gaussian_filter(rng.normal(0, 1, SHAPE), 2)
    wanted = 5.4 + 0.6 * smooth / smooth.std() + 1.1 * (visual < 0.1) * noise
    nearest = peaks[np.abs(wanted[..., None] - peaks).argmin(axis=-1)]
    shifts = np.arange(-10.0, 11.0)
    curve = 0.004 + 0.052 * np.exp(-((shifts + late_s) ** 2) / 9) + rng.normal(0, 5e-4, 21)
    lags = np.arange(0.0, 25.0, T_R_S)
    library = canonical_hrf()
    lag = np.arange(library.kernels.shape[1]) * library.dt_s
    response = 0.9 * np.interp(lags + late_s, lag, library.kernels[0]) + rng.normal(0, 0.02, 13)
    design, names = make_design(180)
    return ResponseQuality(
        "ridge_glm",
        design,
        names,
        T_R_S,
        shifts,
        curve,
        -late_s,
        "variance of single trials that repeats of a stimulus share",
        lags,
        response,
        np.full(13, 0.05),
        0.5,
        {
            "ceiling": inside(ceiling),
            "split_half": inside(ceiling**2 + 0.06 * noise),
            "r2": inside(0.5 * ceiling + 0.12 + 0.02 * noise),
            "hrf_peak_s": inside(nearest),
            "fraction": inside(np.clip(np.round(20 * (0.15 + ceiling)) / 20, 0.05, 1)),
        },
        ("812 voxels tell training stimuli apart (q < 0.05).",),
    )


def make_scans(n_runs: int = 4, late_s: float = 0.0, **changes: Any) -> ScanQuality:
    """Make the scans of one subject: the second run is restless, and one run was left out."""
    anatomy = make_anatomy()
    rng = np.random.default_rng(3)
    noise = gaussian_filter(rng.normal(0, 1, SHAPE), 1.2)
    tsnr = np.where(anatomy["brain"], 62 + 60 * noise - 14 * anatomy["cortex"], 6.0)
    parts: dict[str, Any] = {
        "runs": [make_run(i, restless=2.6 if i == 1 else 1.0) for i in range(n_runs)],
        "skipped": [
            SkippedRun(
                f"run-{n_runs + 1:02d}",
                "the file is truncated: 96 of 180 volumes (sub-01_task-pictures_bold.nii.gz)",
            )
        ],
        "source": "raw",
        "affine": make_affine(),
        "mean": anatomy["mean"],
        "tsnr": tsnr * (1 - 0.8 * anatomy["loss"]),
        "brain_mask": anatomy["brain"],
        "units_mask": anatomy["visual"] > 0.3,
        "responses": make_response_quality(late_s, anatomy),
    }
    return ScanQuality(**{**parts, **changes})
