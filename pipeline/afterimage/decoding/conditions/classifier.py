"""What all classifiers of conditions share: a part each trial tells alone, and a part that learns.

The two are apart so that nothing is learnt outside the training trials of a fold, and what needs
no labels is done once however often the labels are permuted.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Self

import numpy as np

from afterimage.errors import ConfigError, InputError

#: Samples at the borders of the window, in parts of a sample, that rounding must not move.
SLACK = 1e-6


class ConditionClassifier(ABC):
    """A classifier of trials, in the manner of scikit-learn.

    Parameters
    ----------
    settings : object
        The settings class of the method, filled.
    times_s : array_like of shape (n_times,)
        Seconds from onset, evenly spaced.
    tmin_s, tmax_s : float or None
        Window that is classified, both ends included; None for the first or last sample. Filters
        see all of the trials, so that their edges lie outside the window where there is room.

    Attributes
    ----------
    classes_ : array of shape (n_classes,)
        After `fit`: the labels, sorted; the columns of `predict_proba`.
    """

    def __init__(
        self,
        settings: Any,
        times_s: np.ndarray,
        tmin_s: float | None = None,
        tmax_s: float | None = None,
    ) -> None:
        self.settings: Any = settings
        self.times_s = np.asarray(times_s, np.float64)
        self.tmin_s, self.tmax_s = tmin_s, tmax_s
        if len(self.times_s) < 2:
            raise InputError(
                "trials need a time axis to be classified",
                found=f"{len(self.times_s)} samples", expected="at least two samples a trial",
                fix="choose a longer window",
            )  # fmt: skip
        step = float(np.diff(self.times_s).mean())
        self.sampling_rate_hz = 1 / step
        low = -np.inf if tmin_s is None else tmin_s - SLACK * step
        high = np.inf if tmax_s is None else tmax_s + SLACK * step
        self.inside = (self.times_s >= low) & (self.times_s <= high)
        if self.inside.sum() < 2:
            raise ConfigError(
                "the window to classify holds too few samples",
                found=f"{tmin_s} to {tmax_s} s: {int(self.inside.sum())} samples",
                expected=f"a window within {self.times_s[0]:.3f} to {self.times_s[-1]:.3f} s",
                fix="change tmin_s and tmax_s",
            )

    @abstractmethod
    def extract(self, trials: np.ndarray) -> np.ndarray:
        """Return what each trial tells alone; (n_trials, n_channels, n_times) to (n_trials, ...).

        Nothing is learnt: a trial gives the same whichever trials stand beside it.
        """

    def label_free(self) -> Any:
        """Return an unfitted transformer that learns from training trials without their labels."""
        from sklearn.preprocessing import FunctionTransformer

        return FunctionTransformer()

    @abstractmethod
    def supervised(self, n_classes: int) -> Any:
        """Return an unfitted scikit-learn classifier, the part that learns from labels."""

    def fit_model(self, features: np.ndarray, labels: np.ndarray) -> Any:
        """Fit the part that learns from labels on features that `label_free` transformed."""
        return self.supervised(len(np.unique(labels))).fit(features, labels)

    def fit(self, trials: np.ndarray, labels: np.ndarray) -> Self:
        """Fit on training trials.

        Parameters
        ----------
        trials : array of shape (n_trials, n_channels, n_times)
        labels : array of shape (n_trials,)
        """
        features = self.extract(self._checked(trials))
        if len(features) != len(labels):
            raise InputError(
                "trials and labels do not belong together",
                found=f"{len(features)} trials, {len(labels)} labels",
                expected="one label a trial",
            )
        if len(np.unique(labels)) < 2:
            raise InputError(
                "there is nothing to tell apart", found=f"one class: {np.unique(labels)}",
                expected="trials of at least two classes", fix="choose other conditions",
            )  # fmt: skip
        self._n_channels = trials.shape[1]
        self._transformer = self.label_free().fit(features)
        self._model = self.fit_model(self._transformer.transform(features), labels)
        self.classes_ = self._model.classes_
        return self

    def predict_proba(self, trials: np.ndarray) -> np.ndarray:
        """Return the probability of each class; float64, (n_trials, n_classes)."""
        return np.asarray(self._model.predict_proba(self._transformed(trials)), np.float64)

    def decision_function(self, trials: np.ndarray) -> np.ndarray:
        """Return the evidence, float64: of two classes (n_trials,), else (n_trials, n_classes)."""
        return np.asarray(self._model.decision_function(self._transformed(trials)), np.float64)

    def predict(self, trials: np.ndarray) -> np.ndarray:
        """Return the most probable class of each trial, (n_trials,)."""
        return np.asarray(self.classes_[self.predict_proba(trials).argmax(axis=1)])

    def _transformed(self, trials: np.ndarray) -> np.ndarray:
        if trials.shape[1:2] != (self._n_channels,):
            raise InputError(
                "trials have another number of channels than those of the fit",
                found=str(trials.shape), expected=f"(n_trials, {self._n_channels}, n_times)",
            )  # fmt: skip
        return np.asarray(self._transformer.transform(self.extract(self._checked(trials))))

    def _checked(self, trials: np.ndarray) -> np.ndarray:
        if trials.ndim != 3 or trials.shape[2] != len(self.times_s):
            raise InputError(
                "trials do not fit the time axis", found=f"shape {trials.shape}",
                expected=f"(n_trials, n_channels, {len(self.times_s)})",
            )  # fmt: skip
        if not np.isfinite(trials).all():
            raise InputError(
                "some trials are not finite", found="NaN or infinity",
                fix="leave those trials or channels out",
            )  # fmt: skip
        return np.asarray(trials, np.float64)


def band_pass(
    trials: np.ndarray, sampling_rate_hz: float, low_hz: float | None, high_hz: float | None
) -> np.ndarray:
    """Filter each trial alone, forward and backward (Butterworth, order 4); same shape."""
    if low_hz is None and high_hz is None:
        return trials
    nyquist = sampling_rate_hz / 2
    if max(low_hz or 0, high_hz or 0) >= nyquist:
        raise ConfigError(
            "a band ends above half the sampling rate",
            found=f"{low_hz} to {high_hz} Hz at {sampling_rate_hz:.6g} Hz",
            expected=f"below {nyquist:.6g} Hz", fix="lower high_hz, or keep a higher rate",
        )  # fmt: skip
    import mne

    filtered: np.ndarray = mne.filter.filter_data(
        trials.astype(np.float64), sampling_rate_hz, low_hz, high_hz, method="iir",
        iir_params={"order": 4, "ftype": "butter", "output": "sos"}, verbose="error",
    )  # fmt: skip
    return filtered


def oas_covariances(trials: np.ndarray) -> np.ndarray:
    """Covariance of every trial by oracle approximating shrinkage, all trials at once.

    With S the empirical covariance of T samples of p channels, mu = tr(S) / p and a = mean(S_ij^2),
    the estimate is (1 - r) S + r mu I, r = min(1, (a + mu^2) / ((T + 1) (a - mu^2 / p))) (Chen et al.
    2010, doi:10.1109/TSP.2010.2053029; the same as scikit-learn's ``oas``, one trial after another).

    Parameters
    ----------
    trials : array of shape (n_trials, n_channels, n_times)

    Returns
    -------
    array of shape (n_trials, n_channels, n_channels), float64
    """
    n_channels, n_times = trials.shape[1:]
    centred = trials - trials.mean(axis=2, keepdims=True)
    empirical = centred @ centred.transpose(0, 2, 1) / n_times
    alpha = np.mean(empirical**2, axis=(1, 2))
    mu = np.trace(empirical, axis1=1, axis2=2) / n_channels
    wanted = (n_times + 1.0) * (alpha - mu**2 / n_channels)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(wanted == 0, 1.0, np.minimum((alpha + mu**2) / wanted, 1.0))
    shrunk: np.ndarray = (1 - share)[:, None, None] * empirical
    diagonal = np.arange(n_channels)
    shrunk[:, diagonal, diagonal] += (share * mu)[:, None]
    return shrunk


def time_bins(trials: np.ndarray, sampling_rate_hz: float, bin_s: float) -> np.ndarray:
    """Average samples in bins of ``bin_s`` from the first one on; the last bin may be shorter.

    Returns
    -------
    array of shape (n_trials, n_channels, n_bins), float64
    """
    n_times = trials.shape[2]
    width = bin_s * sampling_rate_hz
    edges = np.unique(np.ceil(np.arange(0, n_times, max(width, 1)) - SLACK).astype(int))
    edges = edges[edges < n_times]
    counts = np.diff(np.append(edges, n_times))
    return np.add.reduceat(trials, edges, axis=2) / counts
