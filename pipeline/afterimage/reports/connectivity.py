"""What a report knows of connectivity: recordings and matrices of a person, or of the group."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

#: Names of measures in words; others are named as they were configured.
TITLES = {
    "correlation": "Pearson correlation",
    "partial": "Partial correlation",
    "tangent": "Tangent space",
    "covariance": "Covariance",
    "precision": "Precision",
    "coherence": "Coherence",
    "imaginary_coherence": "Imaginary coherence",
    "wpli": "Weighted phase lag index",
    "envelope_correlation": "Envelope correlation",
}


@dataclass(frozen=True, eq=False)
class ConnectedRun:
    """One recording as its connectivity was computed from.

    Parameters
    ----------
    name : str
        ``ses-1_task-rest``.
    n_samples, n_censored : int
        Samples used and left out.
    n_confounds, degrees_of_freedom : int
        -1 where not known.
    sampling_rate_hz : float
        0 where not known.
    carpet : array of shape (n_rows, n_times), optional
        Series in standard deviations, bins of units.
    censored : array of bool, shape (n_times,), optional
    """

    name: str
    n_samples: int
    n_censored: int
    n_confounds: int = -1
    degrees_of_freedom: int = -1
    sampling_rate_hz: float = 0.0
    carpet: np.ndarray | None = None
    censored: np.ndarray | None = None

    @property
    def length_s(self) -> float:
        """Length of what is used, NaN where the sampling rate is not known."""
        return self.n_samples / self.sampling_rate_hz if self.sampling_rate_hz else math.nan


@dataclass(frozen=True, eq=False)
class RegionGraph:
    """The graph of the strongest connections of a person.

    Parameters
    ----------
    density : float
        Share of the pairs that is kept.
    modularity : float
    modules : array of int, shape (n_units,)
        From 1 on.
    measures : mapping of str to array of shape (n_units,)
        ``degree``, ``clustering``, ``cycles``, ...
    """

    density: float
    modularity: float
    modules: np.ndarray
    measures: Mapping[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class VoxelMaps:
    """Maps of the graph of voxels of a person, means over recordings.

    Parameters
    ----------
    maps : mapping of str to array of shape (x, y, z)
        NaN outside the brain.
    affine : array of shape (4, 4)
    densities, thresholds : sequence of float
        Of each recording.
    """

    maps: Mapping[str, np.ndarray]
    affine: np.ndarray
    densities: Sequence[float]
    thresholds: Sequence[float]


@dataclass(frozen=True, eq=False)
class Connectivity:
    """Connectivity on one set of regions or sensors: of a person, or averaged over people.

    Parameters
    ----------
    seg : str
        Label of the regions.
    names, networks : sequence of str, shape (n_units,)
        ``n/a`` where the network is not known.
    centres : array of shape (n_units, 3)
        In mm; NaN where not known.
    matrices : mapping of str to array of shape (n_units, n_units)
        By measure, averaged over recordings, or over people.
    runs : sequence of ConnectedRun
    n_people : int
        1 for a person.
    scores : sequence of rows
        Of the whole group, as in ``group/connectivity.tsv``.
    similarity : mapping of str to array of shape (n_people, n_people)
        By measure: row, person in the first session; column, in the second.
    parcels : bool
        Whether units are regions, not sensors.
    notes : sequence of str
    graphs : sequence of RegionGraph
        Of a person, one a density.
    voxels : VoxelMaps, optional
        Of a person, with the first set of regions.
    """

    seg: str
    names: Sequence[str]
    networks: Sequence[str]
    centres: np.ndarray
    matrices: Mapping[str, np.ndarray]
    runs: Sequence[ConnectedRun] = ()
    n_people: int = 1
    scores: Sequence[Mapping[str, Any]] = ()
    similarity: Mapping[str, np.ndarray] = field(default_factory=dict)
    parcels: bool = True
    notes: Sequence[str] = ()
    graphs: Sequence[RegionGraph] = ()
    voxels: VoxelMaps | None = None


def title_of(measure: str) -> str:
    """Return a measure in words."""
    return TITLES.get(measure, measure)
