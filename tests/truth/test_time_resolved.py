"""Planted latencies are found, silence stays silent, and repetitions gain what theory says."""

from __future__ import annotations

import numpy as np
import pytest

from afterimage.evaluation.generalisation import temporal_generalisation
from afterimage.evaluation.repetitions import expected_top_k, repetition_curve
from afterimage.evaluation.scores import Resampling
from afterimage.evaluation.time_resolved import (
    Decoding,
    make_windows,
    window_curves,
)
from afterimage.evaluation.time_summary import leak_alarm, peak_latency

N_TRAIN, N_TEST, N_REPEATS = 400, 60, 12
N_UNITS, N_FEATURES = 24, 12
TIMES_S = np.arange(-50, 150) / 250.0
RESAMPLING = Resampling(n_bootstraps=300, n_permutations=300, random_state=3)


def planted(
    courses: np.ndarray, *, seed: int = 0, noise: float = 3.0, moving: bool = False
) -> Decoding:
    """Feature family f drives the units with time course f; `moving`: a new pattern each 50 ms."""
    rng = np.random.default_rng(seed)
    n = N_TRAIN + N_TEST
    features = rng.standard_normal((n, N_FEATURES)).astype(np.float32)
    family = np.arange(N_FEATURES) % len(courses)
    patterns = rng.standard_normal((N_FEATURES, N_UNITS))
    trials = np.zeros((n, N_UNITS, len(TIMES_S)))
    for number, course in enumerate(courses):
        own = family == number
        if moving:
            for step in range(12):
                inside = (np.floor(TIMES_S / 0.05) == step) * course
                fresh = rng.standard_normal((int(own.sum()), N_UNITS))
                trials += (features[:, own] @ fresh)[:, :, None] * inside
        else:
            trials += (features[:, own] @ patterns[own])[:, :, None] * course
    evoked = rng.standard_normal(N_UNITS)[:, None] * np.exp(-(((TIMES_S - 0.15) / 0.05) ** 2))
    names = np.array([f"image{number:03d}" for number in range(n)])
    stimuli = np.repeat(names[N_TRAIN:], N_REPEATS)
    train = trials[:N_TRAIN] + 5 * evoked
    test = np.repeat(trials[N_TRAIN:], N_REPEATS, axis=0) + 5 * evoked
    train = (train + noise * rng.standard_normal(train.shape)).astype(np.float32)
    test = (test + noise * rng.standard_normal(test.shape)).astype(np.float32)
    return Decoding(
        train, features[:N_TRAIN], names[:N_TRAIN], test, stimuli, list(names[N_TRAIN:]),
        features[N_TRAIN:], TIMES_S,
    )  # fmt: skip


def bump(latency_s: float, width_s: float = 0.02) -> np.ndarray:
    return np.exp(-0.5 * ((TIMES_S - latency_s) / width_s) ** 2)


def of_family(data: Decoding, family: int) -> Decoding:
    """Ask the same trials for one family of features only."""
    own = np.arange(N_FEATURES) % 2 == family
    return Decoding(
        data.train, data.targets[:, own], data.groups, data.test, data.test_stimuli,
        data.gallery_names, data.gallery[:, own], data.times_s,
    )  # fmt: skip


@pytest.fixture(scope="module")
def two_families() -> Decoding:
    return planted(np.array([bump(0.1), bump(0.3)]))


@pytest.mark.parametrize(("family", "latency_s"), [(0, 0.1), (1, 0.3)])
def test_sliding_windows_peak_where_planted(two_families, family, latency_s) -> None:
    windows = make_windows(TIMES_S, 0.1, 0.02)
    data = of_family(two_families, family)
    curves = window_curves(data, windows, bin_s=0.02, resampling=RESAMPLING)
    for metric in ("twoway", "retrieval_top5"):
        found, low, high = peak_latency(curves[metric], windows, RESAMPLING)
        assert found == pytest.approx(latency_s, abs=0.03)
        assert low <= found <= high
        assert high - low < 0.1
    twoway = curves["twoway"]
    at_peak = int(np.argmin([abs(window.centre_s - latency_s) for window in windows]))
    assert twoway.value[at_peak] > 0.8
    assert twoway.p_corrected[at_peak] < 0.01
    # The other family's time, more than a window away, tells nothing of this one.
    other = int(np.argmin([abs(window.centre_s - (0.4 - latency_s)) for window in windows]))
    assert twoway.p_corrected[other] > 0.01
    assert abs(twoway.value[other] - 0.5) < 0.12


def test_before_the_onset_and_with_permuted_images_nothing_is_found(two_families) -> None:
    windows = make_windows(TIMES_S, 0.1, 0.05)
    curve = window_curves(two_families, windows, bin_s=0.02, resampling=RESAMPLING)["twoway"]
    alarm = leak_alarm(curve, windows, RESAMPLING)
    assert alarm is not None
    assert alarm.n_windows == 3
    assert not alarm.rings
    before = [number for number, window in enumerate(windows) if window.end_s <= 0]
    assert (curve.p_corrected[before] > 0.05).all()

    rng = np.random.default_rng(5)
    shuffled = Decoding(
        two_families.train, rng.permutation(two_families.targets), two_families.groups,
        two_families.test, two_families.test_stimuli, two_families.gallery_names,
        two_families.gallery, TIMES_S,
    )  # fmt: skip
    null = window_curves(shuffled, windows, bin_s=0.02, resampling=RESAMPLING)["twoway"]
    assert (null.p_corrected > 0.05).all()
    assert (np.abs(null.value - 0.5) < 0.12).all()
    assert np.isnan(peak_latency(null, windows, RESAMPLING)[0])


def test_a_planted_leak_before_the_onset_rings() -> None:
    data = planted(np.array([bump(0.1) + 0.5 * (TIMES_S < 0)]))
    windows = make_windows(TIMES_S, 0.1, 0.05)
    curve = window_curves(data, windows, bin_s=0.02, resampling=RESAMPLING)["twoway"]
    alarm = leak_alarm(curve, windows, RESAMPLING)
    assert alarm is not None
    assert alarm.rings
    assert alarm.value > 0.6


def test_growing_windows_gain_with_each_family() -> None:
    data = planted(np.array([bump(0.1), bump(0.3)]), noise=6.0)
    windows = make_windows(TIMES_S, 0.1, 0.05, "growing")
    curves = window_curves(data, windows, bin_s=0.05, resampling=RESAMPLING)
    value = dict(zip([one.end_s for one in windows], curves["retrieval_top1"].value, strict=True))
    assert value[0.15] > value[0.05] + 0.1
    assert value[0.4] > value[0.2] + 0.1  # the second family answers at 300 ms
    assert value[0.55] > value[0.4] - 0.1


def test_repetition_curve_follows_the_square_root_law() -> None:
    """Decoded features are the true ones and noise, so that d' is known exactly at every k."""
    rng = np.random.default_rng(1)
    n_images, n_repeats, n_features, noise = 200, 64, 400, 24.0
    gallery = rng.standard_normal((n_images, n_features))
    names = [f"image{number}" for number in range(n_images)]
    trials = np.repeat(gallery, n_repeats, axis=0)
    trials = trials + noise * rng.standard_normal(trials.shape)
    result = repetition_curve(
        trials, np.repeat(names, n_repeats), names, gallery, np.zeros(n_features),
        n_draws=20, resampling=RESAMPLING,
    )  # fmt: skip
    assert result.k == (1, 2, 4, 8, 16, 32, 64)
    for metric, top_k in (("retrieval_top1", 1), ("retrieval_top5", 5)):
        curves = result.curves[metric]
        for k, curve, expected in zip(result.k, curves, result.expected[metric], strict=True):
            # The right one has |f|^2 more evidence, in units of |f| sqrt(noise^2 / k + 1).
            d_prime = np.sqrt(n_features) / np.sqrt(noise**2 / k + 1.0)
            truth = expected_top_k(d_prime, n_images, top_k)
            low, high = curve.low[0] - 0.02, curve.high[0] + 0.02
            assert low < truth < high, (metric, k)
            assert low < expected < high, (metric, k)
            assert curve.chance[0] == pytest.approx(top_k / n_images, abs=0.01)
    values = [curve.value[0] for curve in result.curves["retrieval_top1"]]
    assert values == sorted(values)
    assert values[0] < 0.1
    assert values[-1] > 0.9


@pytest.mark.parametrize("moving", [True, False], ids=["transient", "sustained"])
def test_generalisation_is_a_diagonal_or_a_square(moving) -> None:
    sustained = ((TIMES_S >= 0.05) & (TIMES_S < 0.45)).astype(float)
    data = planted(sustained[None], noise=4.0, moving=moving)
    result = temporal_generalisation(data, bin_s=0.05, resampling=RESAMPLING)
    matrix = result.matrix("twoway")
    active = np.flatnonzero((result.times_s > 0.05) & (result.times_s < 0.45))
    silent = np.flatnonzero((result.times_s < 0.0) | (result.times_s > 0.45))
    inside = matrix[np.ix_(active, active)]
    diagonal = np.diag(inside)
    apart = inside[np.abs(active[:, None] - active[None, :]) >= 2]
    assert diagonal.min() > 0.7
    assert np.abs(matrix[np.ix_(silent, active)].mean() - 0.5) < 0.05
    assert np.abs(matrix[np.ix_(active, silent)].mean() - 0.5) < 0.05
    if moving:
        assert abs(apart.mean() - 0.5) < 0.05
    else:
        assert apart.mean() > diagonal.mean() - 0.05
    significant = result.matrix("twoway", "p_corrected") < 0.05
    assert significant[np.ix_(active, active)].diagonal().all()
    assert significant[np.ix_(silent, silent)].mean() < 0.05
