"""Temporal generalisation: decoders fitted at one time, asked at all others.

Characterizing the dynamics of mental representations: the temporal generalization method (King and
Dehaene 2014, doi:10.1016/j.tics.2014.01.002).

What differs: the decoded thing is the image among a gallery, not a class; one ridge fit a training
time serves all test times in one matrix product; responses at a test time are centred by the TRAINING
trials at that time, so that neither an evoked response common to all images nor a statistic of the
test trials enters; p is corrected over the whole matrix by the maximum statistic.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from afterimage.evaluation.gallery import (
    Curve,
    CurveBuilder,
    centred_gallery,
    metrics_of,
    pair_scores,
)
from afterimage.evaluation.scores import Resampling
from afterimage.evaluation.statistics import CHUNK_VALUES
from afterimage.evaluation.time_resolved import Decoding, unit_scale
from afterimage.evaluation.window_ridge import ALPHAS, LinearMap, fit_ridge, folds_by_group


@dataclass(frozen=True)
class Generalisation:
    """Scores of every pair of training time and test time.

    Attributes
    ----------
    times_s : ndarray, shape (n_times,)
        Middle of each time bin.
    curves : dict of str to Curve
        Metric to its (n_times * n_times) points: training time slow, test time fast.
    """

    times_s: NDArray[np.float64]
    curves: dict[str, Curve]

    def matrix(self, metric: str, field: str = "value") -> NDArray[np.float64]:
        """Return one field of `Curve` as (n_times, n_times): training time, test time."""
        n = len(self.times_s)
        return np.asarray(getattr(self.curves[metric], field)).reshape(n, n)


def bin_times(
    responses: NDArray[np.floating], times_s: NDArray[np.float64], bin_s: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Average samples in bins that do not overlap, one edge at the onset where it is recorded.

    Parameters
    ----------
    responses : ndarray, shape (n, n_units, n_times)
    times_s : ndarray, shape (n_times,)
    bin_s : float

    Returns
    -------
    binned : ndarray of float64, shape (n, n_units, n_bins)
        Bins at the edges that hold less than half of the samples of a whole one are left out.
    centres_s : ndarray, shape (n_bins,)
    """
    period = float(np.median(np.diff(times_s))) if len(times_s) > 1 else bin_s
    number = np.floor(times_s / bin_s + 1e-3 * period / bin_s).astype(int)
    values, starts, counts = np.unique(number, return_index=True, return_counts=True)
    sums = np.add.reduceat(np.asarray(responses, np.float64), starts, axis=2)
    kept = 2 * counts >= counts.max()
    return (sums / counts)[:, :, kept], (values[kept] + 0.5) * bin_s


def fit_times(
    train: NDArray[np.floating],
    targets: NDArray[np.floating],
    groups: NDArray[np.generic],
    *,
    alphas: Sequence[float] = ALPHAS,
    n_folds: int = 5,
    random_state: int = 0,
) -> list[LinearMap]:
    """Fit one ridge decoder at each time.

    Parameters
    ----------
    train : ndarray, shape (n_trials, n_units, n_times)
    targets : ndarray, shape (n_trials, n_features)
    groups : ndarray, shape (n_trials,)
    alphas, n_folds, random_state
        As in `time_resolved.fit_windows`.

    Returns
    -------
    list of LinearMap, length n_times
    """
    folds = folds_by_group(groups, n_folds, random_state)
    return [fit_ridge(train[:, :, t], targets, folds, alphas) for t in range(train.shape[2])]


def predict_times(
    model: LinearMap, centred: NDArray[np.floating], candidates: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Evidence for every candidate at all test times at once.

    Parameters
    ----------
    model : LinearMap
        Of one training time.
    centred : ndarray, shape (n_times, n_images, n_units)
        Test responses less the training mean at each test time.
    candidates : ndarray, shape (n_gallery, n_features)
        From `gallery.centred_gallery`.

    Returns
    -------
    ndarray of float64, shape (n_times, n_images, n_gallery)
    """
    return np.asarray(centred @ (model.coefficients @ candidates.T))


def temporal_generalisation(
    data: Decoding,
    *,
    bin_s: float = 0.05,
    alphas: Sequence[float] = ALPHAS,
    n_folds: int = 5,
    concepts: NDArray[np.str_] | None = None,
    resampling: Resampling | None = None,
) -> Generalisation:
    """Score decoders of every time bin at every time bin, on averaged test trials.

    Parameters
    ----------
    data : Decoding
    bin_s : float
        Length of a time bin; the matrix costs with its inverse squared.
    alphas, n_folds, concepts
        As in `time_resolved.fit_windows`.
    resampling : Resampling, optional

    Returns
    -------
    Generalisation
    """
    drawing = resampling or Resampling()
    scale = unit_scale(data.train)
    train, times_s = bin_times(data.train / scale, data.times_s, bin_s)
    average, columns = data.averaged()
    test, _ = bin_times(average / scale, data.times_s, bin_s)
    centred = np.ascontiguousarray((test - train.mean(axis=0)).transpose(2, 0, 1))
    mean = np.asarray(np.mean(data.targets, axis=0, dtype=np.float64))
    candidates = centred_gallery(data.gallery, mean)
    models = fit_times(
        train, data.targets, data.groups if concepts is None else concepts, alphas=alphas, n_folds=n_folds,
        random_state=drawing.random_state,
    )  # fmt: skip
    n_times, n_images, n_gallery = len(times_s), len(columns), len(candidates)
    builders = {name: CurveBuilder(name, columns, drawing) for name in metrics_of(n_gallery)}
    step = max(1, CHUNK_VALUES // (n_images * n_gallery))
    for model in models:
        for start in range(0, n_times, step):
            evidence = predict_times(model, centred[start : start + step], candidates)
            pairs = pair_scores(np.round(evidence, 10).reshape(-1, n_gallery))
            for name, values in pairs.items():
                for one in values.reshape(-1, n_images, n_gallery):
                    builders[name].add(one)
    return Generalisation(times_s, {name: one.curve() for name, one in builders.items()})
