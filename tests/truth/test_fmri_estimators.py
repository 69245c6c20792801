"""Single-trial estimators on simulated BOLD with known responses, response shapes and ceilings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from scipy.signal import lfilter
from scipy.stats import gamma, ttest_rel

from afterimage.preprocess.fmri.design import RunDesign, trial_regressors
from afterimage.preprocess.fmri.hrf import HrfLibrary
from afterimage.preprocess.fmri.registry import ESTIMATORS
from afterimage.preprocess.noise_ceiling import centre_runs, noise_ceiling

N_RUNS, N_TRIALS, N_STIMULI, N_RESPONSIVE, N_SILENT = 8, 60, 120, 300, 100


@dataclass(frozen=True)
class Study:
    designs: list[RunDesign]
    bold: list[np.ndarray]
    responses: np.ndarray  # (n_trials, n_responsive), planted
    peaks_s: np.ndarray  # (n_responsive,), planted

    @property
    def stimulus(self) -> np.ndarray:
        return np.concatenate([design.stimulus for design in self.designs])

    @property
    def runs(self) -> np.ndarray:
        return np.repeat(np.arange(len(self.designs)), [d.n_trials for d in self.designs])


def planted_shapes(rng: np.random.Generator) -> HrfLibrary:
    """Responses that are no members of the library: width and undershoot vary by voxel."""
    times = np.arange(0, 40, 0.05)
    peak = rng.uniform(4.25, 7.75, (N_RESPONSIVE, 1))
    width, undershoot_width = rng.uniform(0.7, 1.4, (2, N_RESPONSIVE, 1))
    late, ratio = rng.uniform(8, 12, peak.shape), rng.uniform(0, 0.3, peak.shape)
    rise = gamma.pdf(times, 1 + peak / width, scale=width)
    shape = 1 + (peak + late) / undershoot_width
    kernels = rise - ratio * gamma.pdf(times, shape, scale=undershoot_width)
    kernels /= kernels.max(axis=1, keepdims=True)
    return HrfLibrary(times[kernels.argmax(axis=1)], kernels, 0.05)


def noise(rng: np.random.Generator, drift: np.ndarray, level: float) -> np.ndarray:
    """Autoregressive noise of order 1 (0.35) with slow drift, (n_volumes, n_voxels)."""
    shape = (len(drift) + 50, N_RESPONSIVE + N_SILENT)
    fast = lfilter([np.sqrt(1 - 0.35**2)], [1, -0.35], rng.normal(size=shape), axis=0)[50:]
    slow = drift[:, 1:] @ rng.normal(size=(drift.shape[1] - 1, shape[1]))
    return level * np.asarray(fast + slow)


def simulate(tr_s: float, rests: float, level: float = 0.6, seed: int = 0) -> Study:
    """Trials of 2 s every 4 s, a share of further slots left empty; repeats in different runs."""
    rng = np.random.default_rng(seed)
    shapes = planted_shapes(rng)
    amplitudes = 1 + 0.5 * rng.normal(size=(N_STIMULI, N_RESPONSIVE))
    n_rounds = N_RUNS * N_TRIALS // N_STIMULI
    order = np.concatenate([rng.permutation(N_STIMULI) for _ in range(n_rounds)])
    designs, bold = [], []
    for number in range(N_RUNS):
        shown = order[number * N_TRIALS : (number + 1) * N_TRIALS]
        slots = np.sort(rng.permutation(round(N_TRIALS * (1 + rests)))[:N_TRIALS])
        onsets = 8.13 + 4 * slots
        n_volumes = int((onsets[-1] + 16) / tr_s)
        cycles = np.arange(int(2 * n_volumes * tr_s / 128) + 1)
        drift = np.cos(np.pi * (np.arange(n_volumes) + 0.5)[:, None] * cycles / n_volumes)
        design = RunDesign(
            volume_times_s=(np.arange(n_volumes) + 0.5) * tr_s,
            onsets_s=onsets,
            durations_s=np.full(N_TRIALS, 2.0),
            stimulus=np.array([f"image{i:03d}" for i in shown]),
            training=np.ones(N_TRIALS, bool),
            nuisance=drift,
            run=str(number + 1),
        )
        signal = noise(rng, drift, level)
        regressors = trial_regressors(design, shapes)
        signal[:, :N_RESPONSIVE] += np.einsum("hvt,th->vh", regressors, amplitudes[shown])
        designs.append(design)
        bold.append(signal.astype(np.float32))
    return Study(designs, bold, amplitudes[order], shapes.peaks_s)


def estimate(study: Study, name: str, **settings: Any) -> tuple[np.ndarray, np.ndarray]:
    """Responses (n_trials, n_responsive) and chosen peaks (n_responsive,)."""
    estimator = ESTIMATORS.get(name)(ESTIMATORS.settings(name)(**settings))
    n_voxels = study.bold[0].shape[1]
    parts = list(estimator.estimate(study.designs, lambda r, v: study.bold[r][:, v], n_voxels))
    betas = np.concatenate([part.betas for part in parts], axis=1)[:, :N_RESPONSIVE]
    peaks = [part.maps.get("hrf_peak_s", np.zeros(0)) for part in parts]
    return betas.astype(np.float64), np.concatenate(peaks)[:N_RESPONSIVE]


def correlation(found: np.ndarray, truth: np.ndarray) -> np.ndarray:
    found, truth = found - found.mean(axis=0), truth - truth.mean(axis=0)
    norm = np.sqrt((found**2).sum(axis=0) * (truth**2).sum(axis=0))
    return np.asarray((found * truth).sum(axis=0) / norm)


@pytest.mark.parametrize(
    ("tr_s", "rests"), [(1.6, 0.15), (2.0, 0.15), (1.6, 0.0)], ids=["tr1.6", "tr2", "no-rests"]
)
def test_estimators_rank_shapes_and_ceilings_hold(tr_s: float, rests: float) -> None:
    study = simulate(tr_s, rests)
    print(f"\ntrials 4 s apart, volumes every {tr_s} s, {rests:.0%} rests")
    reached = {}
    for name, hrf in (
        ("lsa", "canonical"), ("lss", "canonical"), ("lss", "library"), ("ridge_glm", "library")
    ):  # fmt: skip
        betas, peaks = estimate(study, name, hrf=hrf)
        reached[name, hrf] = correlation(betas, study.responses)
        true = correlation(centre_runs(betas, study.runs), study.responses)
        error = noise_ceiling(betas, study.stimulus, study.runs) - true
        slope = (
            ((betas - betas.mean(axis=0)) * (study.responses - study.responses.mean(axis=0))).sum(0)
            / ((study.responses - study.responses.mean(axis=0)) ** 2).sum(axis=0)
        )  # fmt: skip
        print(
            f"  {name + ', ' + hrf:<20} r with planted {reached[name, hrf].mean():.3f}, "
            f"slope {np.median(slope):.2f}, ceiling {true.mean():.3f}, its error: "
            f"median {np.median(np.abs(error)):.3f}, bias {error.mean():+.3f}"
        )
        # at ceilings near 0 (lsa without rests) 480 trials leave more sampling error than that
        assert np.median(np.abs(error)) <= (0.05 if true.mean() > 0.4 else 0.1)
        assert abs(error.mean()) <= 0.05
        if name == "ridge_glm":
            near = np.mean(np.abs(peaks - study.peaks_s) <= 0.5)
            bias = np.mean(peaks - study.peaks_s)
            print(f"  peak within 0.5 s in {near:.1%} of voxels, bias {bias:+.2f} s")
            assert near >= 0.8
            assert abs(bias) < 0.25
            assert np.median(slope) == pytest.approx(1, abs=0.1)
    ridge, lsa = reached["ridge_glm", "library"], reached["lsa", "canonical"]
    assert reached["lss", "library"].mean() == pytest.approx(0.6, abs=0.06)
    for better, worse in (
        (ridge, reached["lss", "canonical"]),
        (ridge, reached["lss", "library"]),
        (reached["lss", "canonical"], lsa),
    ):
        test = ttest_rel(better, worse, alternative="greater")
        print(f"  paired t({test.df}) = {test.statistic:.1f}, p = {test.pvalue:.1e}")
        assert test.pvalue < 1e-3
