"""Retrieval as a function of how many trials of an image are averaged.

A large and rich EEG dataset for modeling human visual object recognition (Gifford et al. 2022,
doi:10.1016/j.neuroimage.2022.119754) for averages of test repetitions; the expectation by m-alternative
choice (Hacker and Ratcliff 1979, doi:10.3758/BF03208311).

What differs: published scores average all repetitions (often 80); here single trials and every k have
their value, interval over images and chance by permuted pairs, and stand beside what independent
noise would give, so that a gain which repetitions cannot explain shows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from afterimage.errors import InputError
from afterimage.evaluation.gallery import (
    TOP_K,
    Curve,
    centred_gallery,
    curve_rows,
    metrics_of,
    pair_scores,
    plain,
    score_curve,
)
from afterimage.evaluation.metrics import protocol
from afterimage.evaluation.scores import Resampling

Predict = Callable[[NDArray[np.floating]], NDArray[np.floating]]


@dataclass(frozen=True)
class RepetitionCurve:
    """Scores at every k.

    Attributes
    ----------
    k : tuple of int
        Trials averaged.
    n : tuple of int
        Images that have as many repeats: those scored at this k.
    curves : dict of str to list of Curve
        Metric to one Curve (of a single point) for every k: the images may differ between k.
    expected : dict of str to ndarray, shape (n_k,)
        What the first k predicts of the others when noise is independent between trials; NaN for
        metrics without a theory, or where the first k is at chance or at 1.
    n_gallery : int
    """

    k: tuple[int, ...]
    n: tuple[int, ...]
    curves: dict[str, list[Curve]]
    expected: dict[str, NDArray[np.float64]]
    n_gallery: int


def repetition_curve(
    trials: NDArray[np.floating],
    stimuli: Sequence[str] | NDArray[np.str_],
    gallery_names: Sequence[str] | NDArray[np.str_],
    gallery: NDArray[np.floating],
    training_mean: NDArray[np.floating],
    *,
    predict: Predict | None = None,
    k_values: Sequence[int] = (1, 2, 4, 8, 16, 32, 64),
    n_draws: int = 20,
    resampling: Resampling | None = None,
) -> RepetitionCurve:
    """Score averages of k test trials of an image against the full gallery.

    Parameters
    ----------
    trials : ndarray, shape (n_trials, ...)
        Responses of the test trials, averaged before `predict`; or, without `predict`, features
        decoded from them by a linear decoder, for which averaging before and after are the same.
    stimuli : sequence of str, length n_trials
    gallery_names : sequence of str, length n_gallery
        Images to choose from; those that nobody was shown are distractors.
    gallery : ndarray, shape (n_gallery, n_features)
    training_mean : ndarray, shape (n_features,)
        Mean of the training features, taken off both sides.
    predict : callable, optional
        From averaged responses to features, (n, ...) to (n, n_features).
    k_values : sequence of int
        Those above the repeats of the best repeated image are left out; its number is added, so that
        the last point is the one that papers report.
    n_draws : int
        Random subsets of k repeats for every image; an image's score is its mean over them.
    resampling : Resampling, optional

    Returns
    -------
    RepetitionCurve
    """
    drawing = resampling or Resampling()
    names = [str(name) for name in gallery_names]
    rows = _rows_by_image(np.asarray(stimuli).astype(str), names)
    repeats = {image: len(members) for image, members in rows.items()}
    most = max(repeats.values())
    wanted = sorted({k for k in k_values if 1 <= k < most} | {most})
    candidates = centred_gallery(gallery, training_mean)
    curves: dict[str, list[Curve]] = {name: [] for name in metrics_of(len(names))}
    counts = []
    for k in wanted:
        images = [image for image, n in repeats.items() if n >= k]
        draws = 1 if all(repeats[image] == k for image in images) else n_draws
        totals: dict[str, NDArray[np.float32]] = {}
        for draw in range(draws):
            chosen = _subsets(
                [rows[image] for image in images], k, (drawing.random_state, k, draw)
            )
            averaged = trials[chosen].mean(axis=1, dtype=np.float64)
            decoded = averaged if predict is None else predict(averaged)
            similarities = (decoded - training_mean) @ candidates.T
            for name, scores in pair_scores(np.round(similarities, 10)).items():
                totals[name] = totals.get(name, np.float32(0)) + scores
        for name, scores in totals.items():
            curves[name].append(score_curve(name, [scores / np.float32(draws)], images, drawing))
        counts.append(len(images))
    expected = {
        name: _expected([float(c.value[0]) for c in points], wanted, name, len(names))
        for name, points in curves.items()
    }
    return RepetitionCurve(tuple(wanted), tuple(counts), curves, expected, len(names))


def repetition_rows(
    result: RepetitionCurve,
    *,
    subject: str,
    label: str,
    decoder: str,
    window_s: tuple[float, float] | None = None,
    ceilings: dict[str, Sequence[float]] | None = None,
) -> list[dict[str, Any]]:
    """Rows of the table, one a k and metric.

    Parameters
    ----------
    result : RepetitionCurve
    subject, label : str
    decoder : str
        For the protocol, e.g. ``ridge on the window``.
    window_s : tuple of float, optional
        Window of the responses.
    ceilings : dict, optional
        Metric to its best possible value at every k, where it is known (a simulation's oracle).

    Returns
    -------
    list of dict
        Keys are `gallery.COLUMNS`.
    """
    rows = []
    most = max(result.k)
    for position, k in enumerate(result.k):
        how = "single trials" if k == 1 else f"{k} of up to {most} averaged"
        text = protocol(
            size="decoded features", n=result.n[position], repeats=how, selection="no selection",
            direction="brain_to_image", gallery=result.n_gallery,
            extra=("centred on training mean", decoder),
        )  # fmt: skip
        point: dict[str, Any] = {"k": k, "p_corrected": None}
        if window_s is not None:
            point |= {"window_start_s": window_s[0], "window_end_s": window_s[1]}
        for name, curves in result.curves.items():
            if ceilings and name in ceilings:
                point |= {"ceiling": plain(ceilings[name][position])}
            identity = {"subject": subject, "label": label, "analysis": "repetitions"}
            rows += curve_rows(curves[position], identity, [point], text)
            point.pop("ceiling", None)
    return rows


def expected_top_k(d_prime: float, n_gallery: int, top_k: int) -> float:
    """Probability that the right one is among the `top_k` of a gallery, for Gaussian evidence.

    Parameters
    ----------
    d_prime : float
        Mean evidence of the right image above that of the wrong ones, in standard deviations.
    n_gallery, top_k : int

    Returns
    -------
    float
    """
    from scipy.stats import binom, norm

    # An even grid is exact here: the integrand and all its derivatives vanish at both ends.
    nodes = np.linspace(-9, 9, 1501)
    weights = norm.pdf(nodes)
    beaten = norm.sf(nodes + d_prime)  # chance that one wrong image has more evidence
    success = binom.cdf(top_k - 1, n_gallery - 1, beaten)
    return float((weights * success).sum() / weights.sum())


def fit_d_prime(rate: float, n_gallery: int, top_k: int) -> float:
    """Invert `expected_top_k`; NaN for a rate at or below chance, or of 1."""
    from scipy.optimize import brentq

    if not top_k / n_gallery < rate < 1 - 1e-6:
        return float("nan")
    return float(brentq(lambda d: expected_top_k(d, n_gallery, top_k) - rate, 0.0, 20.0))


def _expected(
    values: list[float], k_values: Sequence[int], metric: str, n_gallery: int
) -> NDArray[np.float64]:
    if metric not in TOP_K:
        return np.full(len(values), np.nan)
    top_k = TOP_K[metric]
    d_prime = fit_d_prime(values[0], n_gallery, top_k)
    if np.isnan(d_prime):
        return np.full(len(values), np.nan)
    gains = np.sqrt(np.asarray(k_values) / k_values[0])
    return np.array([expected_top_k(d_prime * gain, n_gallery, top_k) for gain in gains])


def _rows_by_image(
    stimuli: NDArray[np.str_], gallery: Sequence[str]
) -> dict[int, NDArray[np.int64]]:
    """Rows of the trials of each gallery image that was shown."""
    place = {name: number for number, name in enumerate(gallery)}
    absent = sorted(set(stimuli.tolist()) - set(place))
    if absent or not len(stimuli):
        raise InputError(
            "test trials of images that are not in the gallery" if absent else "no test trials",
            where="repetition curve", found=", ".join(absent[:5]) or "0 trials",
            expected="trials of gallery images",
        )  # fmt: skip
    numbers = np.array([place[name] for name in stimuli.tolist()])
    return {int(image): np.flatnonzero(numbers == image) for image in np.unique(numbers)}


def _subsets(
    members: Sequence[NDArray[np.int64]], k: int, seed: tuple[int, ...]
) -> NDArray[np.int64]:
    """Draw k of the rows of each image, (n_images, k)."""
    generator = np.random.default_rng(seed)
    return np.array([generator.permutation(rows)[:k] for rows in members])
