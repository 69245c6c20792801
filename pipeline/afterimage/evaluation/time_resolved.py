"""When the brain tells which image was seen: retrieval in sliding and in growing windows.

Representational dynamics of object vision (Cichy, Pantazis and Oliva 2014, doi:10.1038/nn.3635) for
decoding by time; features and windows as in Brain decoding: toward real-time reconstruction of visual
perception (Benchetrit, Banville and King 2024, arXiv:2310.19812).

What differs: a linear decoder is fitted in every window on training trials only, with a penalty from
grouped folds inside them; chance is by permuted pairs and corrected over windows by the maximum
statistic; the windows before the onset are scored like all others and ring an alarm when they can be
decoded, for then something other than the response to this image is told (a filter that looks ahead,
a slow drift with blocked images, the image before).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from afterimage.errors import ConfigError, InputError
from afterimage.evaluation.gallery import (
    Curve,
    CurveBuilder,
    average_by,
    centred_gallery,
    curve_rows,
    metrics_of,
    pair_scores,
)
from afterimage.evaluation.metrics import protocol
from afterimage.evaluation.scores import Resampling
from afterimage.evaluation.window_ridge import ALPHAS, LinearMap, fit_ridge, folds_by_group

Kind = Literal["sliding", "growing"]


@dataclass(frozen=True)
class Window:
    """Samples of one window: start <= time < end, seconds from stimulus onset."""

    start_s: float
    end_s: float
    samples: slice

    @property
    def centre_s(self) -> float:
        """Middle of the window."""
        return (self.start_s + self.end_s) / 2


@dataclass(frozen=True)
class Decoding:
    """The data of one subject for one target block.

    Attributes
    ----------
    train : ndarray of float32, shape (n_trials, n_units, n_times)
    targets : ndarray, shape (n_trials, n_features)
        Features of the image of each training trial.
    groups : ndarray of str, shape (n_trials,)
        Image of each training trial.
    test : ndarray of float32, shape (n_test_trials, n_units, n_times)
    test_stimuli : ndarray of str, shape (n_test_trials,)
    gallery_names : sequence of str
    gallery : ndarray, shape (n_gallery, n_features)
    times_s : ndarray, shape (n_times,)
        Seconds from stimulus onset, evenly spaced.
    """

    train: NDArray[np.float32]
    targets: NDArray[np.floating]
    groups: NDArray[np.str_]
    test: NDArray[np.float32]
    test_stimuli: NDArray[np.str_]
    gallery_names: Sequence[str]
    gallery: NDArray[np.floating]
    times_s: NDArray[np.float64]

    def __post_init__(self) -> None:
        shared = set(np.unique(self.groups)) & set(np.unique(self.test_stimuli))
        same = self.train.shape[1:] == self.test.shape[1:]
        if shared or not same or self.train.shape[2] != len(self.times_s):
            raise InputError(
                "test images are among the training images" if shared
                else "training and test trials differ in units or times",
                where="time-resolved decoding",
                found=", ".join(sorted(shared)[:5]) if shared
                else f"{self.train.shape} and {self.test.shape}, {len(self.times_s)} times",
                expected="other images, the same units and times",
            )  # fmt: skip

    def averaged(self) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Test responses averaged over repeats, and the gallery column of each."""
        shown = set(self.test_stimuli.tolist())
        names = [str(name) for name in self.gallery_names]
        columns = [number for number, name in enumerate(names) if name in shown]
        wanted = [names[number] for number in columns]
        return average_by(self.test, self.test_stimuli, wanted), np.array(columns)


def make_windows(
    times_s: NDArray[np.float64], window_s: float, step_s: float, kind: Kind = "sliding"
) -> list[Window]:
    """Windows that lie within the times; one edge is the stimulus onset wherever it is recorded.

    Parameters
    ----------
    times_s : ndarray, shape (n_times,)
    window_s : float
        Length of a sliding window; ignored for growing ones.
    step_s : float
        Between starts (sliding) or ends (growing).
    kind : {"sliding", "growing"}
        Growing windows all start at the onset (or at the first sample after it).

    Returns
    -------
    list of Window
    """
    period = float(np.median(np.diff(times_s))) if len(times_s) > 1 else step_s
    first, last = float(times_s[0]), float(times_s[-1]) + period
    slack = period * 1e-3
    if kind == "sliding":
        before = int(np.floor((0.0 - first + slack) / step_s))
        after = int(np.floor((last - window_s + slack) / step_s))
        edges = [(n * step_s, n * step_s + window_s) for n in range(-before, after + 1)]
    else:
        onset = max(first, 0.0)
        n_steps = int(np.floor((last - onset + slack) / step_s))
        edges = [(onset, onset + n * step_s) for n in range(1, n_steps + 1)]
    windows = []
    for start, end in edges:
        low, high = np.searchsorted(times_s, [start - slack, end - slack])
        if high > low:
            windows.append(Window(round(start, 6), round(end, 6), slice(int(low), int(high))))
    if not windows:
        raise ConfigError(
            "no window lies within the trials", where="time-resolved decoding",
            found=f"window_s {window_s}, step_s {step_s}, times {first:g} to {last:g} s",
            expected="window_s at most the length of a trial", fix="make window_s smaller",
        )  # fmt: skip
    return windows


def window_inputs(
    responses: NDArray[np.floating],
    window: Window,
    scale: NDArray[np.float64],
    n_per_bin: int = 1,
) -> NDArray[np.float64]:
    """Responses of a window over the scale of each unit, averaged in bins of samples.

    Parameters
    ----------
    responses : ndarray, shape (n, n_units, n_times)
    window : Window
    scale : ndarray, shape (n_units, 1)
        From `unit_scale`.
    n_per_bin : int
        Samples a bin; the last bin holds what is left over.

    Returns
    -------
    ndarray of float64, shape (n, n_units * n_bins)
    """
    part = responses[:, :, window.samples]
    if n_per_bin > 1:
        starts = np.arange(0, part.shape[2], n_per_bin)
        sizes = np.diff([*starts, part.shape[2]])
        part = np.add.reduceat(part, starts, axis=2) / sizes
    return np.asarray(part / scale, np.float64).reshape(len(part), -1)


def n_samples(length_s: float, times_s: NDArray[np.float64]) -> int:
    """Count the samples in a length of time, at least one."""
    if len(times_s) < 2:
        return 1
    return max(1, round(length_s / float(np.median(np.diff(times_s)))))


def unit_scale(train: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the spread of each unit over training trials, (n_units, 1); never zero.

    Around the mean response at each time: a large evoked response common to all images must not
    make a unit count less.
    """
    scale = np.sqrt(train.var(axis=0, dtype=np.float64).mean(axis=1))
    return np.asarray(np.where(scale > 0, scale, 1.0))[:, None]


def fit_windows(
    data: Decoding,
    windows: Sequence[Window],
    *,
    bin_s: float = 0.0,
    alphas: Sequence[float] = ALPHAS,
    n_folds: int = 5,
    concepts: NDArray[np.str_] | None = None,
    random_state: int = 0,
) -> Iterator[tuple[LinearMap, NDArray[np.float64]]]:
    """Fit a ridge decoder in each window, and give its predictions of the averaged test trials.

    Parameters
    ----------
    data : Decoding
    windows : sequence of Window
    bin_s : float
        Samples are averaged in bins of this length first; 0 keeps them.
    alphas : sequence of float
        Penalties in units of the mean squared norm of a trial; one is chosen for each window.
    n_folds, random_state : int
        Of the grouped folds inside the training trials.
    concepts : ndarray of str, shape (n_trials,), optional
        What no fold may cut; by default the image of each training trial.

    Yields
    ------
    LinearMap
    ndarray of float64, shape (n_images, n_features)
        Predicted features of the shown gallery images, as ordered by `Decoding.averaged`.
    """
    n_per_bin = n_samples(bin_s, data.times_s)
    scale = unit_scale(data.train)
    groups = data.groups if concepts is None else concepts
    folds = folds_by_group(groups, n_folds, random_state)
    average = data.averaged()[0]
    for window in windows:
        inputs = window_inputs(data.train, window, scale, n_per_bin)
        model = fit_ridge(inputs, data.targets, folds, alphas)
        yield model, model.predict(window_inputs(average, window, scale, n_per_bin))


def window_curves(
    data: Decoding,
    windows: Sequence[Window],
    *,
    bin_s: float = 0.0,
    alphas: Sequence[float] = ALPHAS,
    n_folds: int = 5,
    concepts: NDArray[np.str_] | None = None,
    resampling: Resampling | None = None,
) -> dict[str, Curve]:
    """Score averaged test trials in each window, by every metric of the gallery.

    Parameters
    ----------
    data, windows, bin_s, alphas, n_folds, concepts
        As in `fit_windows`.
    resampling : Resampling, optional
        Its seed is also that of the folds.

    Returns
    -------
    dict of str to Curve
        One point a window.
    """
    drawing = resampling or Resampling()
    columns = data.averaged()[1]
    mean = np.asarray(np.mean(data.targets, axis=0, dtype=np.float64))
    candidates = centred_gallery(data.gallery, mean)
    builders = {name: CurveBuilder(name, columns, drawing) for name in metrics_of(len(candidates))}
    fits = fit_windows(
        data, windows, bin_s=bin_s, alphas=alphas, n_folds=n_folds, concepts=concepts,
        random_state=drawing.random_state,
    )  # fmt: skip
    for _, predicted in fits:
        similarities = np.round((predicted - mean) @ candidates.T, 10)
        for name, values in pair_scores(similarities).items():
            builders[name].add(values)
    return {name: builder.curve() for name, builder in builders.items()}


def window_rows(
    curves: dict[str, Curve],
    windows: Sequence[Window],
    *,
    subject: str,
    label: str,
    analysis: str,
    n_gallery: int,
    decoder: str,
) -> list[dict[str, Any]]:
    """Rows of the table, one a window and metric; keys are `gallery.COLUMNS`."""
    n = next(iter(curves.values())).per_image.shape[1]
    text = protocol(
        size="decoded features", n=n, repeats="averaged", selection="no selection",
        direction="brain_to_image", gallery=n_gallery,
        extra=("centred on training mean", f"{analysis} windows", decoder,
               "p_corrected: maximum statistic over windows"),
    )  # fmt: skip
    identity = {"subject": subject, "label": label, "analysis": analysis}
    points = [{"window_start_s": one.start_s, "window_end_s": one.end_s} for one in windows]
    return [row for curve in curves.values() for row in curve_rows(curve, identity, points, text)]
