"""DemoVAE: connectivity sampled by demographics (Orlichenko et al. 2024, arXiv:2405.07977), by demovae.

The network and its training are those of the authors' package. What differs: it sees the leading
principal components of the connectivity of training people, scaled down, so that its encoder stays
nearly linear (a bent one hides demographics where no correlation finds them); the losses of the mean
of latents and of their correlation with demographics weigh more (else a latent becomes a constant,
and samples are decoded from where no person was); samples are drawn with the mean and covariance of
training latents, not the ones the loss asks for; there are as many latents as components, beyond
demographics, that lie above those of shuffled people (Horn 1965, doi:10.1007/BF02289447), because
spare ones fill with bent functions of demographics; numbers among the demographics are standardised
(its decoder does not centre them); all training people are one batch up to 1,000 (its covariance
loss is a moment of the batch); matrices that are not positive definite are repaired and counted.
`evaluation/generative.py` has the held-out checks.
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
N_SHUFFLES = 10
#: Root mean square of the scores that the network sees.
INPUT_SCALE = 1 / 40
#: Weights of the losses of the package: reconstruction in these units, mean, correlation.
LOSSES = {"loss_rec_mult": 2500.0, "loss_mu_mult": 100.0, "loss_decor_mult": 100.0}


class DemoVAE:
    """Connectivity in, latents without demographics, and connectivity with chosen demographics out.

    Parameters
    ----------
    latent_size : int
        At most; `latent_size_` are used.
    n_epochs : int
    learning_rate : float
        Of Adam. The paper has 60 latents, 3,000 epochs and 1e-4; fewer latents of principal
        components with a rate of 1e-3 need a fifth of the epochs.
    n_components : int
        Principal components of connectivity; what others hold is not in samples.
    random_state : int
    """

    def __init__(
        self,
        latent_size: int = 20,
        n_epochs: int = 600,
        learning_rate: float = 1e-3,
        n_components: int = 30,
        random_state: int = 0,
    ) -> None:
        self.latent_size, self.n_epochs = latent_size, n_epochs
        self.learning_rate, self.n_components = learning_rate, n_components
        self.random_state = random_state

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
        found = n_beyond(edges, self._design(demographics), self.random_state)
        self.latent_size_ = max(1, min(self.latent_size, found))
        self._model = Package(
            latent_dim=self.latent_size_, use_cuda=False, nepochs=self.n_epochs,
            bsize=min(len(edges), MAX_BATCH), lr=self.learning_rate, pperiod=self.n_epochs, **LOSSES,
        )  # fmt: skip
        self._centre = edges.mean(axis=0, dtype=np.float64)
        _, sizes, maps = np.linalg.svd(edges - self._centre, full_matrices=False)
        n = min(self.n_components, len(edges) - 1, edges.shape[1])
        # Scores are what is left after these maps; the maps carry the scale.
        rms = np.sqrt(np.square(sizes[:n]).sum() / (n * len(edges)))
        self._maps = maps[:n] * (max(float(rms), 1e-12) / INPUT_SCALE)  # (n_components, n_edges)
        scores = self._scores(edges)
        with _quiet_and_seeded(self.random_state):
            self._model.fit(scores, *self._encoded(demographics))
        latents = np.asarray(self._model.get_latents(scores), np.float64)
        self._mean = latents.mean(axis=0)
        spread = np.cov(latents, rowvar=False).reshape(self.latent_size_, self.latent_size_)
        sizes, axes = np.linalg.eigh(spread)
        self._root = axes * np.sqrt(np.maximum(sizes, 1e-9 * sizes[-1])) @ axes.T  # symmetric
        return self

    def _scores(self, edges: np.ndarray) -> np.ndarray:
        """Return what the network sees of people, (n_people, n_components) float32."""
        length = np.square(self._maps).sum(axis=1)
        return ((edges - self._centre) @ self._maps.T / length).astype(np.float32)

    def _edges(self, scores: np.ndarray) -> np.ndarray:
        result: np.ndarray = (scores @ self._maps + self._centre).astype(np.float32)
        return result

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

    def _design(self, demographics: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return a constant, numbers and indicators of categories, (n_people, n_columns)."""
        columns = [np.ones(len(next(iter(demographics.values()))))]
        for values, kind in zip(*self._encoded(demographics), strict=True):
            if kind == "continuous":
                columns.append(values)
            else:
                columns += [(values == name).astype(float) for name in np.unique(values)[1:]]
        return np.column_stack(columns)

    def latents(self, edges: np.ndarray) -> np.ndarray:
        """Return what is left of people without their demographics, (n_people, latent_size_).

        Latents of training people have mean 0, variance 1 and no correlations.
        """
        found = np.asarray(self._model.get_latents(self._scores(edges)), np.float64)
        result: np.ndarray = np.linalg.solve(self._root, (found - self._mean).T).T
        return result

    def sample(self, demographics: Mapping[str, np.ndarray], random_state: int = 0) -> np.ndarray:
        """Draw one new person for each entry of the demographics, (n_people, n_edges)."""
        import torch
        from demovae.model import demo_to_torch

        n = len(next(iter(demographics.values())))
        drawn = np.random.default_rng(random_state).standard_normal((n, self.latent_size_))
        drawn = drawn @ self._root + self._mean
        with torch.no_grad():
            given = demo_to_torch(*self._encoded(demographics), self._model.pred_stats, False)
            scores = self._model.vae.dec(torch.as_tensor(drawn, dtype=torch.float32), given)
        return self._edges(scores.numpy())

    def rewrite(self, edges: np.ndarray, demographics: Mapping[str, np.ndarray]) -> np.ndarray:
        """Give people other demographics: one site for all removes the site, (n_people, n_edges)."""
        encoded = self._encoded(demographics)
        return self._edges(np.asarray(self._model.transform(self._scores(edges), *encoded)))


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


def n_beyond(edges: np.ndarray, design: np.ndarray, random_state: int = 0) -> int:
    """Count components of people that demographics do not explain, by parallel analysis.

    Parameters
    ----------
    edges : array of shape (n_people, n_edges)
    design : array of shape (n_people, n_columns)
        Demographics and a constant; what is linear in them is taken out first.
    random_state : int

    Returns
    -------
    int
        How many of the largest components lie above those of the same rank in all of
        `N_SHUFFLES` copies whose connections are shuffled over people, one by one.
    """
    rng = np.random.default_rng(random_state)
    left = edges - design @ np.linalg.lstsq(design, edges, rcond=None)[0]
    largest = np.zeros(len(left))
    for _ in range(N_SHUFFLES):
        mixed = rng.permuted(left, axis=0)
        largest = np.maximum(largest, np.linalg.eigvalsh(mixed @ mixed.T)[::-1])
    above = np.linalg.eigvalsh(left @ left.T)[::-1] > largest
    return int(above.argmin()) if not above.all() else len(above)


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
