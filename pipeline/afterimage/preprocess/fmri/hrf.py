"""Haemodynamic responses to a brief stimulus (Friston et al. 1998, doi:10.1006/nimg.1997.0306).

The library follows the idea of GLMsingle (Prince et al. 2022, doi:10.7554/eLife.77599): a small set
of plausible responses from which one is chosen for each voxel. What differs: its members are not
measured ones but double gammas laid on a grid of peak times and widths, so that the peak time of
the chosen member is a number with a meaning.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

#: Step of the sampled responses; responses between two samples are interpolated.
DT_S = 0.02
#: Every response has died away by then.
LENGTH_S = 36.0
#: Peaks of the library, on a grid of 0.25 s.
PEAKS_S = tuple(np.arange(3.5, 8.51, 0.25).tolist())
#: Scale of the gamma that makes the peak; SPM's response has 1 s. The wider, the longer it lasts.
DISPERSIONS_S = (0.6, 1.0, 1.5)
#: The undershoot comes this long after the peak (SPM's response: 15 s after 5 s) ...
UNDERSHOOT_DELAY_S = 10.0
#: ... and its gamma has this share of the area of the first.
UNDERSHOOT_RATIO = 1 / 6

HrfName = Literal["canonical", "glover", "library"]


@dataclass(frozen=True)
class HrfLibrary:
    """Sampled responses to a brief stimulus.

    Attributes
    ----------
    peaks_s : (n_hrfs,) float64
        Time of the maximum of each response after the stimulus.
    kernels : (n_hrfs, n_times) float64
        The responses from time 0 in steps of ``dt_s``, each with a maximum of 1.
    dt_s : float
        Step of the samples.
    """

    peaks_s: np.ndarray
    kernels: np.ndarray
    dt_s: float

    def __len__(self) -> int:
        return len(self.peaks_s)


def hrf_library(
    peaks_s: Sequence[float] = PEAKS_S,
    dispersions_s: Sequence[float] = DISPERSIONS_S,
    dt_s: float = DT_S,
) -> HrfLibrary:
    """Lay double gammas on a grid of peak times and widths.

    A member is ``gamma(t; 1 + p / d, d) - gamma(t; 1 + p + 10, 1) / 6`` with ``gamma(t; shape,
    scale)`` the density, so that the first gamma has its maximum at p. The undershoot moves the
    maximum of the difference by 0.03 s at most.

    Parameters
    ----------
    peaks_s : sequence of float
        Peak times p.
    dispersions_s : sequence of float
        Scales d of the first gamma; its standard deviation is ``sqrt(d * (p + d))``.
    dt_s : float
        Step of the samples.

    Returns
    -------
    HrfLibrary
        One member a peak and dispersion; the peak varies slowest.
    """
    from scipy.stats import gamma

    times_s = np.arange(round(LENGTH_S / dt_s) + 1) * dt_s
    peak, dispersion = (
        grid.ravel()[:, None] for grid in np.meshgrid(peaks_s, dispersions_s, indexing="ij")
    )
    rise = gamma.pdf(times_s, 1 + peak / dispersion, scale=dispersion)
    undershoot = gamma.pdf(times_s, 1 + peak + UNDERSHOOT_DELAY_S)
    kernels = rise - UNDERSHOOT_RATIO * undershoot
    return HrfLibrary(peak[:, 0], kernels / kernels.max(axis=1, keepdims=True), dt_s)


def canonical_hrf(
    model: Literal["canonical", "glover"] = "canonical", dt_s: float = DT_S
) -> HrfLibrary:
    """Return SPM's canonical response, or Glover's (1999), as nilearn defines them.

    Parameters
    ----------
    model : {"canonical", "glover"}
    dt_s : float
        Step of the samples.

    Returns
    -------
    HrfLibrary
        With one member.
    """
    from nilearn.glm.first_level import glover_hrf, spm_hrf

    sample = {"canonical": spm_hrf, "glover": glover_hrf}[model]
    # nilearn's responses begin one sample late: sample finely, so that this is a millisecond
    fine = sample(0.001, oversampling=1, time_length=LENGTH_S)
    times_s = np.arange(round(LENGTH_S / dt_s) + 1) * dt_s
    kernel = np.interp(times_s, np.linspace(0, LENGTH_S, len(fine)), fine)
    peak_s = float(kernel.argmax() * dt_s)
    return HrfLibrary(np.array([peak_s]), (kernel / kernel.max())[None], dt_s)


def hrf_set(name: HrfName) -> HrfLibrary:
    """Return the responses a setting names: one canonical response, or the library."""
    return hrf_library() if name == "library" else canonical_hrf(name)
