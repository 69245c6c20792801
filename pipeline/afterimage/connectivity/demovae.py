"""DemoVAE: connectivity sampled by demographics (Orlichenko et al. 2024, arXiv:2405.07977), by demovae.

The network and its training are those of the authors' package. What differs: numbers among the
demographics are standardised (its decoder does not centre them), all training people are one batch up
to 1,000 (its covariance loss is a moment of the batch), and matrices that are not positive definite
are repaired and counted. Latents are free of demographics linearly and on the training people only:
see `evaluation/generative.py` for the held-out checks.
"""

from __future__ import annotations

import contextlib
import io
import random
from collections.abc import Mapping
from typing import Any, Self

import numpy as np

from afterimage.errors import InputError

#: Eigenvalues of a repaired matrix are at least this (the mean eigenvalue of a correlation is 1).
SMALLEST = 1e-4
MAX_BATCH = 1000


class DemoVAE:
    """Connectivity in, latents without demographics, and connectivity with chosen demographics out.

    Parameters
    ----------
    latent_size, n_epochs : int
    learning_rate : float
        Of Adam. The paper has 60 latents, 3,000 epochs and 1e-4; a third of the latents with a rate
        of 1e-3 needs a fifth of the epochs.
    random_state : int
    """

    def __init__(
        self,
        latent_size: int = 20,
        n_epochs: int = 600,
        learning_rate: float = 1e-3,
        random_state: int = 0,
    ) -> None:
        self.latent_size, self.n_epochs = latent_size, n_epochs
        self.learning_rate, self.random_state = learning_rate, random_state

    def fit(self, edges: np.ndarray, demographics: Mapping[str, np.ndarray]) -> Self:
        """Train on people.

        Parameters
        ----------
        edges : array of shape (n_people, n_edges)
            Values below the diagonal, row by row.
        demographics : dict of array of shape (n_people,)
            Numbers, or text for categories.

        Raises
        ------
        InputError
            If values are not finite, or a demographic has one value.
        """
        from demovae.sklearn import DemoVAE as Package

        self.scale_: dict[str, tuple[float, float]] = {}
        for name, values in demographics.items():
            if len(set(values.tolist())) < 2:
                raise InputError(
                    "a demographic has one value only", where=name, found=str(values[:1].tolist()),
                    expected="two or more among training people", fix="leave it out",
                )  # fmt: skip
            if values.dtype.kind in "fiu":
                self.scale_[name] = float(values.mean()), float(values.std())
        if not np.isfinite(edges).all():
            raise InputError("connectivity holds values that are no finite numbers")
        self._names = list(demographics)
        self._model = Package(
            latent_dim=self.latent_size, use_cuda=False, nepochs=self.n_epochs,
            bsize=min(len(edges), MAX_BATCH), lr=self.learning_rate, pperiod=self.n_epochs,
        )  # fmt: skip
        with _quiet_and_seeded(self.random_state):
            self._model.fit(np.asarray(edges, np.float32), *self._encoded(demographics))
        return self

    def _encoded(self, demographics: Mapping[str, np.ndarray]) -> tuple[list[Any], list[str]]:
        """Return demographics as the package takes them, and their types."""
        values, types = [], []
        for name in self._names:
            own = np.asarray(demographics[name])
            if name in self.scale_:
                mean, spread = self.scale_[name]
                values.append((own.astype(np.float64) - mean) / spread)
                types.append("continuous")
            else:
                values.append(own.astype(str))
                types.append("categorical")
        return values, types

    def latents(self, edges: np.ndarray) -> np.ndarray:
        """Return what is left of people without their demographics, (n_people, latent_size)."""
        return np.asarray(self._model.get_latents(np.asarray(edges, np.float32)))

    def sample(self, demographics: Mapping[str, np.ndarray], random_state: int = 0) -> np.ndarray:
        """Draw one new person for each entry of the demographics, (n_people, n_edges)."""
        n = len(next(iter(demographics.values())))
        with _quiet_and_seeded(random_state):
            return np.asarray(self._model.transform(n, *self._encoded(demographics)))

    def rewrite(self, edges: np.ndarray, demographics: Mapping[str, np.ndarray]) -> np.ndarray:
        """Give people other demographics: one site for all removes the site, (n_people, n_edges)."""
        encoded = self._encoded(demographics)
        return np.asarray(self._model.transform(np.asarray(edges, np.float32), *encoded))


@contextlib.contextmanager
def _quiet_and_seeded(seed: int) -> Any:
    """Seed the generators that the package uses and keep its prints; leave all as it was."""
    import torch

    state = random.getstate()
    with torch.random.fork_rng(devices=[]), contextlib.redirect_stdout(io.StringIO()):
        torch.manual_seed(seed)
        random.seed(seed)
        try:
            yield
        finally:
            random.setstate(state)


def repaired(edges: np.ndarray, smallest: float = SMALLEST) -> tuple[np.ndarray, np.ndarray]:
    """Turn vectors into correlation matrices that are positive definite.

    Eigenvalues are clipped from below and the diagonal is made 1 again: the nearest matrix of that
    kind but for the second step.

    Parameters
    ----------
    edges : array of shape (n_people, n_edges)
    smallest : float

    Returns
    -------
    edges : array of shape (n_people, n_edges), float32
    needed : array of bool, shape (n_people,)
        Whose matrix was not positive definite.
    """
    n_units = round((1 + np.sqrt(1 + 8 * edges.shape[1])) / 2)
    rows, columns = np.tril_indices(n_units, -1)
    result = np.array(edges, dtype=np.float32)
    needed = np.zeros(len(edges), dtype=bool)
    for index, values in enumerate(edges):
        matrix = np.eye(n_units)
        matrix[rows, columns] = matrix[columns, rows] = values
        sizes, vectors = np.linalg.eigh(matrix)
        if sizes[0] > 0:
            continue
        needed[index] = True
        matrix = (vectors * np.maximum(sizes, smallest)) @ vectors.T
        spread = np.sqrt(np.diag(matrix))
        result[index] = (matrix / spread / spread[:, None])[rows, columns]
    return result, needed


def draw_demographics(
    demographics: Mapping[str, np.ndarray], n: int, random_state: int = 0
) -> dict[str, np.ndarray]:
    """Draw people's demographics together, with replacement, so that they go together as they do."""
    n_people = len(next(iter(demographics.values())))
    drawn = np.random.default_rng(random_state).integers(0, n_people, n)
    return {name: np.asarray(values)[drawn] for name, values in demographics.items()}
