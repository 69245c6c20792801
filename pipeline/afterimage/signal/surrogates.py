"""Multivariate phase-randomised surrogates (Prichard and Theiler 1994, doi:10.1103/PhysRevLett.73.951).

The same random phase is added to a frequency of all units: spectra, lagged correlations and so the
static connectivity stay as they are, while anything that changes over time is gone. This is the
null hypothesis of a linear, stationary, Gaussian process (Liegeois et al. 2017,
doi:10.1016/j.neuroimage.2017.09.012): a rejection says that one of the three does not hold.
"""

from __future__ import annotations

import numpy as np

from afterimage.errors import InputError


def phase_randomised(series: np.ndarray, random_state: int | np.random.Generator) -> np.ndarray:
    """Return one surrogate of a series.

    Parameters
    ----------
    series : array of shape (n_times, n_units)
        Without gaps: `filled` bridges censored samples.
    random_state : int or numpy.random.Generator

    Returns
    -------
    array of shape (n_times, n_units), float64
        X_k exp(i phi_k), phi_k uniform and the same in all units, back in time; the mean, and at
        even lengths the highest frequency, keep their phase.
    """
    values = np.asarray(series, dtype=np.float64)
    if len(values) < 4 or not np.isfinite(values).all():
        raise InputError(
            "phases of a series cannot be randomised",
            found=f"{len(values)} samples, {int((~np.isfinite(values)).sum())} values not finite",
            expected="four or more samples, all finite", fix="bridge or leave out what is missing",
        )  # fmt: skip
    spectrum = np.fft.rfft(values, axis=0)
    phases = np.random.default_rng(random_state).uniform(0, 2 * np.pi, len(spectrum))
    phases[0] = 0.0
    if len(values) % 2 == 0:
        phases[-1] = 0.0
    result: np.ndarray = np.fft.irfft(spectrum * np.exp(1j * phases)[:, None], len(values), axis=0)
    return result


def filled(series: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Return the series with samples that are not kept bridged by straight lines, float64."""
    values = np.asarray(series, dtype=np.float64).copy()
    if not kept.any():
        raise InputError("all samples of a series are censored", fix="leave this recording out")
    times, gaps = np.flatnonzero(kept), np.flatnonzero(~kept)
    if len(gaps):
        after = np.searchsorted(times, gaps).clip(1, max(len(times) - 1, 1))
        left, right = times[after - 1], times[np.minimum(after, len(times) - 1)]
        share = np.clip((gaps - left) / np.maximum(right - left, 1), 0, 1)[:, None]
        values[gaps] = (1 - share) * values[left] + share * values[right]
    return values


def p_above(observed: float, null: np.ndarray) -> float:
    """Return the share of the null at or above the observed, which counts among them."""
    return float((1 + np.sum(null >= observed)) / (1 + len(null)))
