"""The sources of simulated EEG and MEG: units that share dipoles, other currents, how strong all are.

When visual areas answer follows Cichy et al. 2014 (doi:10.1038/nn.3635): low-level features around
100 ms after the picture, categories later.

What differs: each unit of `visual_brain` has one latency and a Gaussian course around it; see `meeg`
for the sum and for the calibration.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from afterimage.simulate.meeg_geometry import folded_directions, head_places
from afterimage.simulate.visual_brain import EARLY, SELECTIVE

if TYPE_CHECKING:
    from afterimage.simulate.meeg_geometry import Anatomy, Dipoles
    from afterimage.simulate.visual_brain import VisualBrain

N_BACKGROUND, N_ALPHA = 200, 6
#: Standard deviation in time of the response of early and of category-selective units.
EARLY_WIDTH_S, LATE_WIDTH_S = 0.015, 0.04
#: Standard deviations after its peak when a response counts as over.
N_WIDTHS = 3.5


@dataclass(frozen=True)
class Units:
    """How the units of the brain speak through dipoles.

    Attributes
    ----------
    dipole : array of int, shape (n_units,)
    weight : array of shape (n_units,)
    latency_s, width_s : array of shape (n_units,)
        Peak of the response and its standard deviation in time.
    """

    dipole: np.ndarray
    weight: np.ndarray
    latency_s: np.ndarray
    width_s: np.ndarray

    def kernels(self, times_s: np.ndarray) -> np.ndarray:
        """Courses of the units' responses after a picture, (n_times, n_units)."""
        late = (times_s[:, None] - self.latency_s) / self.width_s
        course: np.ndarray = np.exp(-0.5 * late**2)
        return course

    @property
    def response_s(self) -> float:
        """When the last response to a picture is over."""
        return float((self.latency_s + N_WIDTHS * self.width_s).max())

    def mixture(self, n_dipoles: int) -> np.ndarray:
        """Weight of each unit in each dipole, (n_units, n_dipoles)."""
        weights = np.zeros((len(self.dipole), n_dipoles))
        weights[np.arange(len(self.dipole)), self.dipole] = self.weight
        return weights

    def mean_course(self, n_dipoles: int, times_s: np.ndarray) -> np.ndarray:
        """Sum of the kernels of each dipole's units, weighted, (n_dipoles, n_times)."""
        return np.asarray((self.kernels(times_s) @ self.mixture(n_dipoles)).T)


def draw_units(
    brain: VisualBrain,
    dipoles: Dipoles,
    early_latency_s: tuple[float, float],
    late_latency_s: tuple[float, float],
    rng: np.random.Generator,
) -> Units:
    """Give each unit a dipole of its area, and a latency.

    Parameters
    ----------
    brain : VisualBrain
    dipoles : Dipoles
    early_latency_s, late_latency_s : tuple of float
        Earliest and latest peak of the units of V1, V2 and V4, in this order, and of
        category-selective units, each region around a time of its own.
    rng : Generator
    """
    n_units = len(brain.roi)
    dipole, latency_s, width_s = np.zeros(n_units, int), np.zeros(n_units), np.zeros(n_units)
    low_s, high_s = early_latency_s
    step_s = (high_s - low_s) / (len(EARLY) + 1)
    for number, name in enumerate(EARLY):
        for side, sees in (("L", brain.x >= 0.5), ("R", brain.x < 0.5)):
            units = np.flatnonzero((brain.roi == name) & sees)
            places = np.flatnonzero((dipoles.roi == name) & (dipoles.hemisphere == side))
            # V1 and V2 are maps of the visual field; colours have places of their own in V4.
            in_order = units[np.argsort((brain.hue if name == "V4" else brain.y)[units])]
            for place, part in zip(places, np.array_split(in_order, len(places)), strict=True):
                dipole[part] = place
        units = np.flatnonzero(brain.roi == name)
        latency_s[units] = low_s + step_s * (number + rng.uniform(0, 2, len(units)))
        width_s[units] = EARLY_WIDTH_S
    low_s, high_s = late_latency_s
    for name in SELECTIVE:
        units = np.flatnonzero(brain.roi == name)
        dipole[units] = np.resize(np.flatnonzero(dipoles.roi == name), len(units))
        middle_s = rng.uniform(low_s, high_s)
        spread_s = rng.normal(0, 0.1 * (high_s - low_s), len(units))
        latency_s[units] = np.clip(middle_s + spread_s, low_s, high_s)
        width_s[units] = LATE_WIDTH_S
    share = np.bincount(dipole, minlength=len(dipoles.roi))
    return Units(dipole, 1 / np.sqrt(share[dipole]), latency_s, width_s)


def draw_other_sources(
    anatomy: Anatomy, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Place the background, alpha and the two eyes, in this order.

    Returns
    -------
    place_m, direction : array of shape (N_BACKGROUND + N_ALPHA + 2, 3)
        Head coordinates, and unit vectors.
    """
    inside = rng.standard_normal((N_BACKGROUND, 3))
    inside[:, 2] = np.abs(inside[:, 2]) - 0.3
    inside /= np.linalg.norm(inside, axis=1, keepdims=True)
    inside *= rng.uniform(0.45, 0.85, (N_BACKGROUND, 1))
    rhythm = np.array([-0.3, -0.68, 0.15]) + rng.normal(0, 0.06, (N_ALPHA, 3))
    rhythm[::2, 0] *= -1
    eyes = np.array([[-0.33, 0.78, -0.25], [0.33, 0.78, -0.25]])
    place_m = head_places(anatomy, np.concatenate([inside, rhythm, eyes]))
    direction = folded_directions(place_m, 2.0, rng)
    # The cornea is positive, and the closing lid carries its charge to the forehead.
    direction[-2:] = np.array([0.0, 0.96, 0.28])
    return place_m, direction


def calibrate(
    units: Units,
    potential_v: np.ndarray,
    n_dipoles: int,
    mean_response: float,
    asked_uv: tuple[float, float, float, float],
) -> np.ndarray:
    """Scale the visual dipoles, the background, alpha and the eyes; see `meeg`.

    Parameters
    ----------
    units : Units
    potential_v : array of shape (n_electrodes, n_sources)
        Of 1 A m, the sources in the order above, after the visual dipoles.
    n_dipoles : int
        Visual dipoles.
    mean_response : float
    asked_uv : tuple of float
        Size of the evoked response, the background, alpha and a blink.

    Returns
    -------
    array of shape (4,)
        A m.
    """
    average = potential_v - potential_v.mean(axis=0)
    parts = np.split(average, np.cumsum([n_dipoles, N_BACKGROUND, N_ALPHA]), axis=1)
    course = mean_response * units.mean_course(n_dipoles, np.arange(0, units.response_s, 0.002))
    found = [
        np.abs(parts[0] @ course).max(),
        np.median(np.sqrt((parts[1] ** 2).sum(axis=1))),
        np.sqrt((parts[2] ** 2).sum(axis=1)).max(),
        np.abs(parts[3].sum(axis=1)).max(),
    ]
    return 1e-6 * np.array(asked_uv) / np.array(found)
