"""Ridge regression (Hoerl & Kennard 1970, doi:10.1080/00401706.1970.10488634).

From responses to features, on himalaya (Dupre la Tour et al. 2022,
doi:10.1016/j.neuroimage.2022.119728). What differs: units are weighted by how well the stimulus
predicts them, once more inside every fold, so that the folds share no kernel and the penalties are
compared here, on one eigendecomposition a fold; one penalty a target; inner folds keep all repeats
of a stimulus together; predictions get back the spread that shrinkage takes, estimated on the folds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Self

import numpy as np
from pydantic import Field

from afterimage.decoding.leaks import grouped_folds
from afterimage.decoding.linear import LinearDecoder, LinearSettings, checked, unit_statistics
from afterimage.decoding.registry import DECODERS
from afterimage.decoding.unit_models import (
    average_repeats,
    centred_gram,
    explained_variance,
    shrunk_covariance,
    whitening,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

ENCODING_PENALTY = 3.0  # of the models that weigh units; the ranking hardly depends on it


class RidgeSettings(LinearSettings):
    """Settings of the ridge decoder."""

    kind: Literal["ridge"] = Field("ridge", description="Ridge regression, one penalty a target.")
    alphas: tuple[float, ...] = Field(
        (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0),
        min_length=1,
        description="Penalties to choose from, in units of the mean squared norm of a response.",
    )
    alpha_per_target: bool = Field(True, description="One penalty a target, or one for a block.")
    unit_weights: Literal["encoding", "equal"] = Field(
        "encoding", description="Weigh units by how well the stimulus predicts them, or equally."
    )
    n_components: int = Field(
        100, ge=1, description="Principal components of the features in which scores are computed."
    )
    n_targets_batch: int = Field(1024, ge=1, description="Targets solved together.")


@dataclass(frozen=True)
class Regression:
    """Responses of some trials, standardised and weighted, in the axes of their kernel."""

    mean: np.ndarray  # (n_units,)
    scale: np.ndarray  # (n_units,) standard deviation over weight
    units: np.ndarray  # (n_used,)
    inputs: np.ndarray  # (n_trials, n_used), centred
    values: np.ndarray  # (r,) eigenvalues of inputs @ inputs.T
    vectors: np.ndarray  # (n_trials, r)
    level: float  # mean squared norm of a response: the unit of the penalties

    def coordinates(self, responses: np.ndarray) -> np.ndarray:
        """Kernel of other trials with these, in the axes: (m, n_units) to (m, r)."""
        asked = (responses[:, self.units] - self.mean[self.units]) / self.scale[self.units]
        return asked.astype(np.float64) @ (self.inputs.T @ self.vectors)

    def project(self, targets: np.ndarray) -> np.ndarray:
        """Centred targets in the axes: (n_trials, n_targets) to float64 (r, n_targets)."""
        return self.vectors.T @ (targets - targets.mean(0, dtype=np.float64))

    def solve(self, projected: np.ndarray, alphas: np.ndarray | float) -> np.ndarray:
        """Dual weights in the axes, (r, n_targets), for one penalty or one a target."""
        return projected / (self.values[:, None] + alphas * self.level)


@DECODERS.register("ridge", RidgeSettings)
class RidgeDecoder(LinearDecoder):
    """Linear regression with a quadratic penalty, chosen by cross-validation for every target.

    Standardised responses are multiplied by w_u = sqrt(r2_u / (1 - r2_u)), where r2_u is the
    explained variance of unit u when it is predicted from left-out training stimuli, zero where
    that is negative: the square root of a unit's signal-to-noise ratio.
    """

    settings: RidgeSettings

    def fit(
        self,
        responses: np.ndarray,
        features: Mapping[str, np.ndarray],
        groups: np.ndarray,
        held_out: Collection[str] = (),
    ) -> Self:
        """Fit on the training part.

        Parameters
        ----------
        responses : float32, (n_trials, n_units)
        features : dict of block to float32 (n_trials, n_features)
        groups : (n_trials,) of str
            Stimulus of each trial.
        held_out : collection of str
            Stimuli of other splits: the fit is refused when one of them is in ``groups``.
        """
        stimuli = checked(responses, features, groups, held_out)
        folds = grouped_folds(stimuli, self.settings.n_folds, self.settings.random_state)
        whole = self._regression(responses, features, stimuli)
        parts = []
        for train, test in folds:
            known = {name: block[train] for name, block in features.items()}
            part = self._regression(responses[train], known, stimuli[train])
            parts.append((part, part.coordinates(responses[test])))
        arrays: dict[str, np.ndarray] = {
            "unit_mean": whole.mean,
            "unit_scale": whole.scale,
            "units": whole.units,
        }
        predicted = {}
        self.cross_validation_ = {}
        for name, block in features.items():
            alphas, predicted[name] = self._cross_validate(block, folds, parts)
            arrays[f"mean/{name}"] = block.mean(0, dtype=np.float64)
            arrays[f"coef/{name}"] = self._solve(whole, block, alphas)
            report = self._calibrate(name, predicted[name], block)
            arrays[f"gain/{name}"] = np.asarray(report["gain"])
            n_used = float(len(whole.units))
            self.cross_validation_[name] = {**report, "alpha": alphas, "n_units": n_used}
        arrays |= self._gallery_model(features, predicted, stimuli)
        self._store(arrays)
        return self

    def scores(self, responses: np.ndarray, gallery: Mapping[str, np.ndarray]) -> np.ndarray:
        """Evidence for each candidate: log p(features | response) - log p(features).

        Both densities are Gaussian in the whitened principal components g of the training
        features: N(g; prediction, R) with R the shrunk covariance of the errors on the inner
        folds, against N(g; 0, I). By Bayes' rule the difference ranks candidates as the likelihood
        of the response does; components that the brain does not predict cancel.

        Parameters
        ----------
        responses : (m, n_units)
        gallery : dict of block to (g, n_features)
            Features of the candidates, every block of the fit.

        Returns
        -------
        float32, (m, g)
        """
        from scipy.spatial.distance import cdist

        standard = self._inputs(responses)
        candidates, guesses = np.float64(0), np.float64(0)
        for name in self.blocks:
            loading = self._state[f"loading/{name}"].astype(np.float64)
            candidates = candidates + (gallery[name] - self._state[f"mean/{name}"]) @ loading
            guesses = guesses + (standard @ self._state[f"coef/{name}"]) @ loading
        whitener = self._state["whitener"].astype(np.float64)
        distance = cdist(guesses @ whitener, candidates @ whitener, "sqeuclidean")
        return (0.5 * (candidates**2).sum(1) - 0.5 * distance).astype(np.float32)

    def _regression(
        self, responses: np.ndarray, features: Mapping[str, np.ndarray], stimuli: np.ndarray
    ) -> Regression:
        """Statistics, weights and kernel of these trials."""
        mean, scale = unit_statistics(responses)
        weights = self._unit_weights((responses - mean) / scale, features, stimuli)
        scale = scale / np.maximum(weights, np.float32(1e-30))
        units = np.flatnonzero((weights > 0) & np.isfinite(scale))
        # a brain without any unit that varies is decoded as the mean
        units = units if len(units) else np.arange(1)
        inputs = ((responses[:, units] - mean[units]) / scale[units]).astype(np.float64)
        inputs -= inputs.mean(0)
        values, vectors = np.linalg.eigh(inputs @ inputs.T)
        kept = values > 1e-9 * values[-1]
        return Regression(
            mean=mean,
            scale=scale,
            units=units,
            inputs=inputs,
            values=values[kept],
            vectors=vectors[:, kept],
            level=float(values.sum()) / len(values) or 1.0,
        )

    def _unit_weights(
        self, standard: np.ndarray, features: Mapping[str, np.ndarray], stimuli: np.ndarray
    ) -> np.ndarray:
        """Weight of each unit, (n_units,); equal weights when the stimulus predicts no unit."""
        n_units = standard.shape[1]
        if self.settings.unit_weights == "equal":
            return np.full(n_units, n_units**-0.5, np.float32)
        stimulus = np.unique(stimuli, return_inverse=True)[1]
        grams = [centred_gram(average_repeats(block, stimulus)) for block in features.values()]
        useful = [gram for gram, power in grams if power > 0]
        explained = np.zeros(n_units)
        if useful:
            eigen = np.linalg.eigh(np.mean(useful, axis=0))
            targets = average_repeats(standard, stimulus)
            explained = explained_variance(eigen, [ENCODING_PENALTY], targets)[0]
        explained = np.clip(explained, 0, 0.99)
        weights = np.sqrt(explained / (1 - explained))
        norm = np.sqrt((weights**2).sum())
        equal = np.full(n_units, n_units**-0.5)
        return np.asarray(weights / norm if norm > 0 else equal, np.float32)

    def _solve(self, whole: Regression, block: np.ndarray, alphas: np.ndarray) -> np.ndarray:
        """Coefficients of the whole training part, (n_used, n_targets), solved by himalaya."""
        from himalaya.kernel_ridge import KernelRidge

        targets = block - block.mean(0, dtype=np.float64)
        kernel = whole.inputs @ whole.inputs.T
        dual = np.empty(block.shape)
        # Target by target himalaya would build a matrix of trials x trials for each: group them.
        for alpha in np.unique(alphas):
            model = KernelRidge(float(alpha) * whole.level, kernel="precomputed")
            same = alphas == alpha
            dual[:, same] = model.fit(kernel, targets[:, same]).dual_coef_
        coefficients: np.ndarray = whole.inputs.T @ dual
        return coefficients

    def _cross_validate(
        self,
        block: np.ndarray,
        folds: list[tuple[np.ndarray, np.ndarray]],
        parts: list[tuple[Regression, np.ndarray]],
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the penalty of each target and the predictions on the inner folds with it."""
        settings = self.settings
        penalties = np.asarray(settings.alphas, float)
        error = np.zeros((len(penalties), block.shape[1]))
        for columns in self._batches(block.shape[1]):
            for (train, test), (part, asked) in zip(folds, parts, strict=True):
                truth = block[test, columns] - block[train, columns].mean(0, dtype=np.float64)
                projected = part.project(block[train, columns])
                for row, alpha in enumerate(penalties):
                    guess = asked @ part.solve(projected, alpha)
                    error[row, columns] += ((guess - truth) ** 2).sum(0)
        if not settings.alpha_per_target:
            error[:] = error.sum(1, keepdims=True)
        alphas = penalties[error.argmin(0)]
        predicted = np.empty(block.shape, np.float32)
        for columns in self._batches(block.shape[1]):
            for (train, test), (part, asked) in zip(folds, parts, strict=True):
                projected = part.project(block[train, columns])
                guess = asked @ part.solve(projected, alphas[columns])
                predicted[test, columns] = guess + block[train, columns].mean(0, dtype=np.float64)
        return alphas, predicted

    def _batches(self, n_targets: int) -> list[slice]:
        """Targets solved together, to bound the memory."""
        step = self.settings.n_targets_batch
        return [slice(start, start + step) for start in range(0, n_targets, step)]

    def _gallery_model(
        self,
        features: Mapping[str, np.ndarray],
        predicted: Mapping[str, np.ndarray],
        stimuli: np.ndarray,
    ) -> dict[str, np.ndarray]:
        """Whitened components of all blocks together and the errors of their prediction."""
        stimulus = np.unique(stimuli, return_inverse=True)[1]
        rows = {name: average_repeats(block, stimulus) for name, block in features.items()}
        grams = {name: centred_gram(block) for name, block in rows.items()}
        values, vectors = np.linalg.eigh(np.mean([gram for gram, _ in grams.values()], axis=0))
        kept = np.flatnonzero(values > 1e-6 * max(values[-1], 1e-12))[
            -self.settings.n_components :
        ]
        # more components than stimuli allow a covariance of would be noise
        kept = kept[-max(1, len(values) // 3) :]
        basis = vectors[:, kept] * np.sqrt(len(values)) / np.maximum(values[kept], 1e-12)
        arrays: dict[str, np.ndarray] = {}
        errors = np.zeros((len(stimuli), len(kept)))
        for name, block in features.items():
            power = grams[name][1]
            scale = 1 / (power * len(grams)) if power > 0 else 0.0
            loading = (rows[name] - rows[name].mean(0)).T @ basis * scale
            arrays[f"loading/{name}"] = loading
            errors += (block - predicted[name]) @ loading
        noise = shrunk_covariance(errors)
        arrays["whitener"] = whitening(noise)
        return arrays
