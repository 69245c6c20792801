"""Haemodynamic responses that vary over the cortex.

The variability of human, BOLD hemodynamic responses (Aguirre et al. 1998,
doi:10.1006/nimg.1998.0369) for how much they vary; a difference of two gammas as in Friston et al.
1998 (doi:10.1006/nimg.1997.0306) for their form.

What differs: the time of the peak varies smoothly over the brain with some scatter from voxel to
voxel; the width and the undershoot vary independently of it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

STEP_S = 0.02
LENGTH_S = 34.0
#: The undershoot is deepest this long after the peak.
UNDERSHOOT_DELAY_S = 10.0
#: Part of the variance of the peak time that is scatter between neighbours.
SCATTER = 0.15
MAP_MM = 14.0


@dataclass(frozen=True)
class Responses:
    """What one trial does to the signal of each unit.

    Attributes
    ----------
    tables : array of shape (n_units, n_times), float32
        Response to one trial from its onset in steps of `STEP_S`; the maximum is 1.
    peaks_s : array of shape (n_units,)
        When the response to a brief stimulus is largest.
    dispersions_s : array of shape (n_units,)
        Scale of the gamma that makes the peak.
    """

    tables: np.ndarray
    peaks_s: np.ndarray
    dispersions_s: np.ndarray


def draw_responses(
    places_mm: np.ndarray,
    peak_range_s: tuple[float, float],
    duration_s: float,
    rng: np.random.Generator,
) -> Responses:
    """Draw the haemodynamic response of each unit.

    Parameters
    ----------
    places_mm : array of shape (n_units, 3)
        Neighbours get similar peak times.
    peak_range_s : tuple of float
        Earliest and latest peak; most lie in the middle.
    duration_s : float
        How long a stimulus is on.
    rng : Generator
    """
    n_units = len(places_mm)
    field = _smooth_field(places_mm, rng)
    field = np.sqrt(1 - SCATTER) * field + np.sqrt(SCATTER) * rng.standard_normal(n_units)
    low, high = peak_range_s
    # Two standard deviations reach from the middle to either end.
    peaks = np.clip(0.5 * (low + high) + 0.25 * (high - low) * field, low, high)
    dispersions = rng.uniform(0.8, 1.2, n_units)
    undershoot = rng.uniform(0.1, 0.2, n_units)
    tables, peaks = response_tables(peaks, dispersions, undershoot, duration_s)
    return Responses(tables, peaks, dispersions)


def response_tables(
    peaks_s: np.ndarray, dispersions_s: np.ndarray, undershoot: np.ndarray, duration_s: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return the responses to a stimulus of some duration, and where the brief response peaks.

    The response to a brief stimulus is ``gamma(t; 1 + p / d, d) - u gamma(t; 11 + p, 1)`` with
    ``gamma(t; shape, scale)`` the density, p the peak, d the dispersion and u the undershoot; to a
    longer one, its integral over the time since onset less that since offset.

    Parameters
    ----------
    peaks_s, dispersions_s, undershoot : array of shape (n_units,)
    duration_s : float

    Returns
    -------
    tables : array of shape (n_units, n_times), float32
        In steps of `STEP_S`; each has a maximum of 1.
    peaks_s : array of shape (n_units,)
        Of the difference of the gammas; the undershoot moves it by some hundredths of a second.
    """
    from scipy.special import gammainc

    n_times = round((LENGTH_S + duration_s) / STEP_S) + 1
    times_s = np.arange(n_times) * STEP_S
    peak, dispersion = peaks_s[:, None], dispersions_s[:, None]
    integral = gammainc(1 + peak / dispersion, times_s / dispersion)
    integral -= undershoot[:, None] * gammainc(1 + peak + UNDERSHOOT_DELAY_S, times_s)
    brief = np.diff(integral, axis=1)
    ended = np.zeros_like(integral)
    n_on = max(1, round(duration_s / STEP_S))
    ended[:, n_on:] = integral[:, :-n_on]
    tables = integral - ended
    tables /= tables.max(axis=1, keepdims=True)
    return tables.astype(np.float32), (brief.argmax(axis=1) + 0.5) * STEP_S


def trial_regressors(tables: np.ndarray, onsets_s: np.ndarray, times_s: np.ndarray) -> np.ndarray:
    """Return the response of some units to each trial at the times of their slice.

    Parameters
    ----------
    tables : array of shape (n_units, n_times), float32
    onsets_s : array of shape (n_trials,)
    times_s : array of shape (n_volumes,)

    Returns
    -------
    array of shape (n_units, n_volumes, n_trials), float32
    """
    lags = (times_s[:, None] - onsets_s[None]) / STEP_S
    regressors = np.zeros((len(tables), *lags.shape), dtype=np.float32)
    rows, columns = np.nonzero((lags > 0) & (lags < tables.shape[1] - 1))
    lags = lags[rows, columns]
    before = lags.astype(np.intp)
    share = (lags - before).astype(np.float32)
    regressors[:, rows, columns] = tables[:, before] * (1 - share) + tables[:, before + 1] * share
    return regressors


def _smooth_field(places_mm: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Random values of mean 0 and variance 1 that are alike at neighbouring places."""
    # A Gaussian process of squared-exponential covariance, from random waves.
    n_waves = 200
    waves = rng.normal(scale=1 / MAP_MM, size=(3, n_waves))
    field = np.cos(places_mm @ waves + rng.uniform(0, 2 * np.pi, n_waves)).sum(axis=1)
    standard: np.ndarray = (field - field.mean()) / max(float(field.std()), 1e-9)
    return standard
