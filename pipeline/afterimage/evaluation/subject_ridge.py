"""Ridge regression that subjects share (Evgeniou and Pontil 2004, doi:10.1145/1014052.1014067).

Each fit is a sum of the subjects' normal equations X'X and X'Y, gathered once by folds of images while
trials are read in batches: own data, all others and everybody are three sums, whatever the number of
trials. With W0 the coefficients fitted on the others, a new subject's are

    argmin_W |Y - X W|^2 + penalty |W - W0|^2 = W0 + X' (X X' + penalty)^-1 (Y - X W0)

so that few trials correct what other people's brains say, and no trial leaves it as it is.

What differs: penalties are those whose predictions of left-out images, the same folds in all
subjects, correlate best with the truth, for retrieval ranks by correlation (the squared error of
noisy trials is least for predictions near zero, whatever they tell); of more than ``max_units`` units
their principal components are used; offsets are not adapted, since the mean picture of a few trials
would shift every prediction towards it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from afterimage.evaluation.gallery import centred_gallery
from afterimage.evaluation.subject_protocols import SubjectTrials
from afterimage.evaluation.window_ridge import ALPHAS, decompose, folds_by_group
from afterimage.signal.large_matrices import row_products

#: Trials read at once.
N_TRIALS_BATCH = 512
#: Penalties tried for the correction of a new subject, in units of the mean squared norm of a
#: trial; the last ones leave the coefficients of the others nearly as they are.
CORRECTIONS = (*ALPHAS, 1e4, 1e5, 1e6)


@dataclass
class Moments:
    """Sums over trials: of inputs x, targets y and their products.

    Attributes
    ----------
    n : float
    x : ndarray, shape (n_inputs,)
    y : ndarray, shape (n_targets,)
    xx : ndarray, shape (n_inputs, n_inputs)
    xy : ndarray, shape (n_inputs, n_targets)
    """

    n: float
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    xx: NDArray[np.floating]
    xy: NDArray[np.floating]

    @classmethod
    def of(cls, inputs: NDArray[np.float64], targets: NDArray[np.float64]) -> Moments:
        """Return the sums over these trials."""
        return cls(
            float(len(inputs)), inputs.sum(0), targets.sum(0), row_products(inputs.T),
            inputs.T @ targets,
        )  # fmt: skip

    def __add__(self, other: Moments) -> Moments:
        return self._with(other, 1.0)

    def __sub__(self, other: Moments) -> Moments:
        return self._with(other, -1.0)

    def _with(self, other: Moments, sign: float) -> Moments:
        return Moments(
            self.n + sign * other.n, self.x + sign * other.x, self.y + sign * other.y,
            np.asarray(self.xx, np.float64) + sign * other.xx,
            np.asarray(self.xy, np.float64) + sign * other.xy,
        )  # fmt: skip

    def packed(self) -> Moments:
        """Return the same in half the memory: products as float32."""
        return Moments(
            self.n, self.x, self.y, self.xx.astype(np.float32), self.xy.astype(np.float32)
        )

    def around(
        self, x: NDArray[np.float64], y: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Products of inputs less ``x`` and targets less ``y``: xx and xy."""
        xx = self.xx - np.outer(x, self.x) - np.outer(self.x - self.n * x, x)
        xy = self.xy - np.outer(x, self.y) - np.outer(self.x - self.n * x, y)
        return xx, xy


@dataclass(frozen=True)
class SharedMap:
    """Fitted coefficients.

    Attributes
    ----------
    mean : ndarray, shape (n_inputs,)
    target_mean : ndarray, shape (n_targets,)
    coefficients : ndarray, shape (n_inputs, n_targets)
    alpha : float
        Penalty chosen, in units of the mean squared norm of a trial.
    """

    mean: NDArray[np.float64]
    target_mean: NDArray[np.float64]
    coefficients: NDArray[np.float64]
    alpha: float


def solve_moments(folds: Sequence[Moments], alphas: Sequence[float] = ALPHAS) -> SharedMap:
    """Ridge regression from sums over trials, its penalty by the correlation on left-out folds.

    Parameters
    ----------
    folds : sequence of Moments
        Of the trials of each fold; empty ones are left out.
    alphas : sequence of float
        Penalties to choose from, times the mean squared norm of a centred trial.

    Returns
    -------
    SharedMap
    """
    parts = [fold for fold in folds if fold.n]
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    penalties = np.asarray(alphas, np.float64)
    aligned, length = np.zeros(len(penalties)), np.zeros(len(penalties))
    for part in parts if len(parts) > 1 and len(penalties) > 1 else ():
        rest = total - part
        values, axes, projected, level = _decomposed(rest)
        xx, xy = part.around(rest.x / rest.n, rest.y / rest.n)
        # Predictions P of truth T, with D = 1 / (values + penalty): P.T = D (projected o axes' xy),
        # P.P = D' (axes' xx axes o projected projected') D
        towards = (projected * (axes.T @ xy)).sum(1)
        spread = (axes.T @ xx @ axes) * (projected @ projected.T)
        for number, alpha in enumerate(penalties):
            shrink = 1.0 / (values + alpha * level)
            aligned[number] += shrink @ towards
            length[number] += shrink @ spread @ shrink
    best = int(np.argmax(aligned / np.sqrt(np.maximum(length, 1e-300))))
    values, axes, projected, level = _decomposed(total)
    shrunk = projected / (values + penalties[best] * level)[:, None]
    return SharedMap(total.x / total.n, total.y / total.n, axes @ shrunk, float(penalties[best]))


def _decomposed(
    moments: Moments,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], float]:
    """Eigenvalues and axes of the centred inputs, targets along them, and the unit of penalties."""
    from scipy.linalg import eigh

    xx, xy = moments.around(moments.x / moments.n, moments.y / moments.n)
    values, axes = eigh(xx, overwrite_a=True, driver="evd")
    values = np.maximum(values, 0.0)
    level = float(values.sum()) / moments.n or 1.0
    return values, axes, axes.T @ xy, level


def correct(
    inputs: NDArray[np.float64],
    truth: NDArray[np.float64],
    guess: NDArray[np.float64],
    folds: Sequence[NDArray[np.int64]],
    alphas: Sequence[float] = CORRECTIONS,
) -> tuple[NDArray[np.float64], float]:
    """Coefficients that correct a guess, without an offset; penalty by left-out folds.

    Parameters
    ----------
    inputs : ndarray, shape (n_trials, n_inputs)
    truth : ndarray, shape (n_trials, n_targets)
        Targets less their mean.
    guess : ndarray, shape (n_trials, n_targets)
        What other people's coefficients predict.
    folds : sequence of ndarray of int
    alphas : sequence of float

    Returns
    -------
    coefficients : ndarray, shape (n_inputs, n_targets)
    alpha : float
        Infinite where left-out images are predicted best without a correction.
    """
    values, left = decompose(inputs)
    level = float(values.sum()) / len(inputs) or 1.0
    residual = truth - guess
    projected = left.T @ residual
    best, most = np.inf, _agreement(guess, truth)
    for alpha in alphas:
        shrink = values / (values + alpha * level)
        rest = residual - left @ (shrink[:, None] * projected)
        for rows in folds:  # exact: as if fitted without these rows
            hat = np.eye(len(rows)) - (left[rows] * shrink) @ left[rows].T
            rest[rows] = np.linalg.solve(hat, rest[rows])
        found = _agreement(truth - rest, truth)
        if found > most:
            best, most = float(alpha), found
    if not np.isfinite(best):
        return np.zeros((inputs.shape[1], truth.shape[1])), best
    return inputs.T @ (left @ (projected / (values + best * level)[:, None])), best


def _agreement(predicted: NDArray[np.float64], truth: NDArray[np.float64]) -> float:
    """Cosine of all predictions with the truth."""
    length = float(np.sqrt((predicted**2).sum() * (truth**2).sum()))
    return float((predicted * truth).sum()) / max(length, 1e-300)


@dataclass
class SubjectRidge:
    """A learner for `subject_protocols.score_subjects`.

    Parameters
    ----------
    subjects : mapping of str to SubjectTrials
    features : mapping of str to ndarray, shape (n_features,)
        Of every training stimulus.
    gallery : ndarray, shape (n_gallery, n_features)
    alphas : sequence of float
    n_folds, random_state : int
        Of the folds by concept, the same in all subjects.
    components : ndarray, shape (n_units, n_components), optional
        Combinations of units that are used in their place.
    """

    subjects: Mapping[str, SubjectTrials]
    features: Mapping[str, NDArray[np.floating]]
    gallery: NDArray[np.floating]
    alphas: Sequence[float] = ALPHAS
    n_folds: int = 5
    random_state: int = 0
    components: NDArray[np.floating] | None = None
    label: str = "ridge"
    _moments: dict[str, list[Moments]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names = np.unique(np.concatenate([one.groups for one in self.subjects.values()]))
        order = np.random.default_rng(self.random_state).permutation(len(names))
        number = order % min(self.n_folds, len(names))
        self._fold = dict(zip(names.tolist(), number.tolist(), strict=True))

    def fit(self, names: Sequence[str]) -> SharedMap:
        """Fit on all training trials of these subjects."""
        every = [self._of(name) for name in names]
        folds = []
        for parts in zip(*every, strict=True):
            total = parts[0]
            for part in parts[1:]:
                total = total + part
            folds.append(total)
        return solve_moments(folds, self.alphas)

    def adapt(self, model: SharedMap, name: str, rows: NDArray[np.int64]) -> SharedMap:
        """Correct the coefficients of other people by some trials of a new subject."""
        own = self.subjects[name]
        inputs = self._inputs(own.train[rows]) - model.mean
        targets = self._targets(own.stimuli[rows])
        truth, guess = targets - model.target_mean, inputs @ model.coefficients
        groups = own.groups[rows]
        if len(np.unique(groups)) < 2:
            return model
        folds = folds_by_group(groups, self.n_folds, self.random_state)
        change, alpha = correct(inputs, truth, guess, folds)
        return SharedMap(model.mean, model.target_mean, model.coefficients + change, alpha)

    def similarities(
        self, model: SharedMap, responses: NDArray[np.floating], name: str
    ) -> NDArray[np.float64]:
        """Correlate predicted with gallery features, up to a factor a row: (n, n_gallery)."""
        candidates = centred_gallery(self.gallery, model.target_mean)
        predicted = (self._inputs(responses) - model.mean) @ model.coefficients
        return np.asarray(predicted @ candidates.T)

    def _of(self, name: str) -> list[Moments]:
        """Return sums over a subject's training trials, one a fold; read once, in batches."""
        if name in self._moments:
            return self._moments[name]
        own = self.subjects[name]
        fold = np.array([self._fold[str(group)] for group in own.groups])
        sums: dict[int, Moments] = {}
        for start in range(0, len(fold), N_TRIALS_BATCH):
            rows = np.arange(start, min(start + N_TRIALS_BATCH, len(fold)))
            inputs, targets = self._inputs(own.train[rows]), self._targets(own.stimuli[rows])
            for number in np.unique(fold[rows]).tolist():
                inside = fold[rows] == number
                found = Moments.of(inputs[inside], targets[inside])
                sums[number] = sums[number] + found if number in sums else found
        any_ = next(iter(sums.values()))
        empty = any_ - any_
        n_folds = 1 + max(self._fold.values())
        self._moments[name] = [sums.get(number, empty).packed() for number in range(n_folds)]
        return self._moments[name]

    def _inputs(self, responses: NDArray[np.floating]) -> NDArray[np.float64]:
        values = np.asarray(responses, np.float64)
        if self.components is not None:
            values = self.components.T @ values
        return values.reshape(len(values), -1)

    def _targets(self, stimuli: NDArray[np.str_]) -> NDArray[np.float64]:
        return np.array([self.features[name] for name in stimuli.tolist()], np.float64)
