"""Ridge regression (Hoerl & Kennard 1970, doi:10.1080/00401706.1970.10488634).

From responses to features, one penalty a target (as himalaya, Dupre la Tour et al. 2022,
doi:10.1016/j.neuroimage.2022.119728, which it is tested against). What differs: units are weighted
by how well the stimulus predicts them, once more inside every fold, so that the folds share no
kernel; one eigendecomposition a fold serves all penalties; targets are read, solved and kept by
columns; inner folds keep all repeats of a stimulus together; predictions get back the spread that
shrinkage takes, estimated on the folds.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np
from pydantic import Field

from afterimage.decoding.leaks import grouped_folds
from afterimage.decoding.linear import (
    Allocate,
    LinearDecoder,
    LinearSettings,
    checked,
    columns_of,
    gain_of_spreads,
    in_memory,
    prediction_summary,
    unit_statistics,
)
from afterimage.decoding.registry import DECODERS
from afterimage.decoding.regression_axes import RegressionAxes, regression_axes
from afterimage.decoding.unit_models import (
    average_repeats,
    explained_variance,
    shrunk_covariance,
    whitening,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

NO_AXES = np.empty((0, 0))
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
class PlacedGallery:
    """Candidates where `RidgeDecoder.scores` compares them, and the way of responses to there.

    Attributes
    ----------
    candidates : array of shape (g, n_components)
    axes : array of shape (n_used, n_components)
    sizes : array of shape (g,)
        What each candidate is worth without a response.
    """

    candidates: np.ndarray
    axes: np.ndarray
    sizes: np.ndarray


@DECODERS.register("ridge", RidgeSettings)
class RidgeDecoder(LinearDecoder):
    """Linear regression with a quadratic penalty, chosen by cross-validation for every target.

    Standardised responses are multiplied by w_u = sqrt(r2_u / (1 - r2_u)), where r2_u is the
    explained variance of unit u when it is predicted from left-out training stimuli, zero where
    that is negative: the square root of a unit's signal-to-noise ratio.
    """

    settings: RidgeSettings
    streams: ClassVar[bool] = True

    def fit(
        self,
        responses: np.ndarray,
        features: Mapping[str, Any],
        groups: np.ndarray,
        held_out: Collection[str] = (),
        allocate: Allocate = in_memory,
    ) -> Self:
        """Fit on the training part.

        Parameters
        ----------
        responses : float32, (n_trials, n_units)
        features : dict of block to float32 (n_trials, n_features)
            Arrays, or blocks read by columns (`streams.Targets`); the same for all trials of a
            stimulus.
        groups : (n_trials,) of str
            Stimulus of each trial.
        held_out : collection of str
            Stimuli of other splits: the fit is refused when one of them is in ``groups``.
        allocate : callable
            Makes the arrays that grow with the targets, so that they can lie on disk.
        """
        stimuli = checked(responses, features, groups, held_out)
        _, first, stimulus = np.unique(stimuli, return_index=True, return_inverse=True)
        folds = grouped_folds(stimuli, self.settings.n_folds, self.settings.random_state)
        grams = {name: self._gram(block, first) for name, block in features.items()}
        parts = []
        for train, test in folds:
            part = self._regression(responses[train], grams, stimulus[train])
            # the axes themselves have done their work: they are as large as the responses
            parts.append((replace(part, axes=NO_AXES), part.coordinates(responses[test]), test))
        whole = self._regression(responses, grams, stimulus)
        self._state = {
            "unit_mean": whole.mean.astype(np.float32),
            "unit_scale": whole.scale.astype(np.float32),
            "units": whole.units,
        }
        self.cross_validation_ = {}
        basis, n_blocks = self._basis(grams)
        errors = np.zeros((len(stimuli), basis.shape[1]))
        for name, block in features.items():
            power = _centred(grams[name])[1]
            loading = basis / (power * n_blocks) if power > 0 else 0 * basis
            report = self._fit_block(
                name, block, (first, stimulus), parts, whole, allocate, (loading, errors)
            )
            self.cross_validation_[name] = report
        self._state["whitener"] = whitening(shrunk_covariance(errors)).astype(np.float32)
        self._state = dict(sorted(self._state.items()))
        return self

    def scores(
        self, responses: np.ndarray, gallery: Mapping[str, Any] | PlacedGallery
    ) -> np.ndarray:
        """Evidence for each candidate: log p(features | response) - log p(features).

        Both densities are Gaussian in the whitened principal components g of the training
        features: N(g; prediction, R) with R the shrunk covariance of the errors on the inner
        folds, against N(g; 0, I). By Bayes' rule the difference ranks candidates as the likelihood
        of the response does; components that the brain does not predict cancel.

        Parameters
        ----------
        responses : (m, n_units)
        gallery : dict of block to (g, n_features)
            Features of the candidates, every block of the fit; arrays, or read by columns. Or
            what `placed` made of them.

        Returns
        -------
        float32, (m, g)
        """
        from scipy.spatial.distance import cdist

        standard = self._inputs(responses)
        if isinstance(gallery, PlacedGallery):
            distance = cdist(standard @ gallery.axes, gallery.candidates, "sqeuclidean")
            return (gallery.sizes - 0.5 * distance).astype(np.float32)
        candidates, guesses = np.float64(0), np.float64(0)
        for name in self.blocks:
            mean = self._state[f"mean/{name}"]
            for part in self._batches(len(mean)):
                loading = self._state[f"loading/{name}"][part].astype(np.float64)
                known = columns_of(gallery[name], part) - mean[part]
                candidates = candidates + known @ loading
                guesses = guesses + (standard @ self._state[f"coef/{name}"][:, part]) @ loading
        whitener = self._state["whitener"].astype(np.float64)
        distance = cdist(guesses @ whitener, candidates @ whitener, "sqeuclidean")
        return (0.5 * (candidates**2).sum(1) - 0.5 * distance).astype(np.float32)

    def placed(self, gallery: Mapping[str, np.ndarray]) -> PlacedGallery:
        """Prepare candidates that many single trials are compared with, one after the other."""
        whitener = self._state["whitener"].astype(np.float64)
        candidates: Any = 0.0
        axes: Any = 0.0
        for name in self.blocks:
            loading = self._state[f"loading/{name}"].astype(np.float64)
            candidates = candidates + (gallery[name] - self._state[f"mean/{name}"]) @ loading
            axes = axes + self._state[f"coef/{name}"] @ loading
        sizes = 0.5 * (candidates**2).sum(1)
        return PlacedGallery(candidates @ whitener, axes @ whitener, sizes)

    def _regression(
        self, responses: np.ndarray, grams: Mapping[str, np.ndarray], stimulus: np.ndarray
    ) -> RegressionAxes:
        """Statistics, weights and axes of these trials."""
        mean, scale = unit_statistics(responses)
        weights = self._unit_weights((responses - mean) / scale, grams, stimulus)
        scale = scale / np.maximum(weights, np.float32(1e-30))
        units = np.flatnonzero((weights > 0) & np.isfinite(scale))
        # a brain without any unit that varies is decoded as the mean
        units = units if len(units) else np.arange(1)
        n_stimuli = len(next(iter(grams.values())))
        return regression_axes(responses, (mean, scale), units, stimulus, n_stimuli)

    def _unit_weights(
        self, standard: np.ndarray, grams: Mapping[str, np.ndarray], stimulus: np.ndarray
    ) -> np.ndarray:
        """Weight of each unit, (n_units,); equal weights when the stimulus predicts no unit."""
        n_units = standard.shape[1]
        if self.settings.unit_weights == "equal":
            return np.full(n_units, n_units**-0.5, np.float32)
        seen, own = np.unique(stimulus, return_inverse=True)
        known = [_centred(gram[np.ix_(seen, seen)]) for gram in grams.values()]
        useful = [gram / power for gram, power in known if power > 0]
        explained = np.zeros(n_units)
        if useful:
            eigen = np.linalg.eigh(np.mean(useful, axis=0))
            targets = average_repeats(standard, own)
            explained = explained_variance(eigen, [ENCODING_PENALTY], targets)[0]
        explained = np.clip(explained, 0, 0.99)
        weights = np.sqrt(explained / (1 - explained))
        norm = np.sqrt((weights**2).sum())
        equal = np.full(n_units, n_units**-0.5)
        return np.asarray(weights / norm if norm > 0 else equal, np.float32)

    def _gram(self, block: Any, first: np.ndarray) -> np.ndarray:
        """Inner products of the features of the stimuli, (n_stimuli, n_stimuli)."""
        gram = np.zeros((len(first), len(first)))
        for part in self._batches(block.shape[1]):
            values = columns_of(block, part)[first].astype(np.float64)
            values -= values.mean(0)  # a large offset would take the digits
            gram += values @ values.T
        return gram

    def _basis(self, grams: Mapping[str, np.ndarray]) -> tuple[np.ndarray, int]:
        """Whitened components of all blocks together, (n_stimuli, k), and the number of blocks."""
        centred = [_centred(gram) for gram in grams.values()]
        mean = np.mean([gram / power if power > 0 else gram for gram, power in centred], axis=0)
        values, vectors = np.linalg.eigh(mean)
        kept = np.flatnonzero(values > 1e-6 * max(values[-1], 1e-12))[
            -self.settings.n_components :
        ]
        # more components than stimuli allow a covariance of would be noise
        kept = kept[-max(1, len(values) // 3) :]
        basis = vectors[:, kept] * np.sqrt(len(values)) / np.maximum(values[kept], 1e-12)
        return basis, len(grams)

    def _fit_block(
        self,
        name: str,
        block: Any,
        place: tuple[np.ndarray, np.ndarray],
        parts: list[tuple[RegressionAxes, np.ndarray, np.ndarray]],
        whole: RegressionAxes,
        allocate: Allocate,
        gallery: tuple[np.ndarray, np.ndarray],
    ) -> dict[str, Any]:
        """Solve one block batch by batch: penalties, coefficients, summary, and the errors.

        ``place`` is a trial of each stimulus, and the stimulus of each trial; ``gallery`` are the
        loadings of the stimuli, and the errors in the components, which are added up here.
        """
        first, stimulus = place
        basis, errors = gallery
        n_targets, mode = block.shape[1], self._mode(name)
        state: dict[str, np.ndarray] = {
            "mean": np.zeros(n_targets, np.float32),
            "coef": allocate(f"coef/{name}", (len(whole.units), n_targets)),
            "loading": allocate(f"loading/{name}", (n_targets, basis.shape[1])),
        }
        report: dict[str, np.ndarray] = {k: np.zeros(n_targets) for k in ("r", "r2", "alpha")}
        wanted, present = np.zeros(n_targets), np.zeros(n_targets)
        one = None
        if not self.settings.alpha_per_target:
            one = sum(
                self._errors(columns_of(block, part)[first], stimulus, parts).sum(1)
                for part in self._batches(n_targets)
            )
        for part in self._batches(n_targets):
            values = columns_of(block, part)[first]
            found = self._errors(values, stimulus, parts) if one is None else one[:, None]
            alphas = np.asarray(self.settings.alphas, float)[found.argmin(0)]
            report["alpha"][part] = alphas
            guess = np.empty((len(stimulus), values.shape[1]), np.float32)
            for axes, asked, test in parts:
                solved = axes.solve(axes.project(values), report["alpha"][part])
                guess[test] = asked @ solved + axes.centre(values)
            observed = values[stimulus]
            summary = prediction_summary(guess, observed)
            report["r"][part], report["r2"][part] = summary["r"], summary["r2"]
            wanted[part] = observed.var(0, dtype=np.float64)
            present[part] = guess.var(0, dtype=np.float64)
            state["mean"][part] = whole.centre(values)
            solved = whole.solve(whole.project(values), report["alpha"][part])
            state["coef"][:, part] = whole.axes @ solved
            loading = (values - values.mean(0, dtype=np.float64)).T @ basis
            state["loading"][part] = loading
            errors += (observed - guess) @ loading
        state["gain"] = gain_of_spreads(wanted, present, mode)
        self._state |= {f"{key}/{name}": array for key, array in state.items()}
        return {**report, "gain": state["gain"], "n_units": float(len(whole.units))}

    def _errors(
        self,
        values: np.ndarray,
        stimulus: np.ndarray,
        parts: list[tuple[RegressionAxes, np.ndarray, np.ndarray]],
    ) -> np.ndarray:
        """Squared errors on left-out trials, (n_penalties, n_targets)."""
        errors = np.zeros((len(self.settings.alphas), values.shape[1]))
        for axes, asked, test in parts:
            truth = values[stimulus[test]] - axes.centre(values)
            projected = axes.project(values)
            for row, alpha in enumerate(self.settings.alphas):
                errors[row] += ((asked @ axes.solve(projected, alpha) - truth) ** 2).sum(0)
        return errors

    def _batches(self, n_targets: int) -> list[slice]:
        """Targets solved together, to bound the memory."""
        step = self.settings.n_targets_batch
        return [slice(i, min(i + step, n_targets)) for i in range(0, n_targets, step)]


def _centred(gram: np.ndarray) -> tuple[np.ndarray, float]:
    """Inner products of rows less their mean, and the mean squared norm of these."""
    means = gram.mean(0)
    centred = gram - means - means[:, None] + means.mean()
    power = float(np.trace(centred)) / len(gram)
    # constant features leave rounding errors
    return centred, power if power > 1e-12 * float(np.trace(gram)) / len(gram) else 0.0
