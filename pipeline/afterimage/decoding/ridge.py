"""Ridge regression (Hoerl & Kennard 1970, doi:10.1080/00401706.1970.10488634).

From responses to features, one penalty a target (as himalaya, Dupre la Tour et al. 2022,
doi:10.1016/j.neuroimage.2022.119728, which it is tested against). What differs: units are weighted
by how well the stimulus predicts them, once more inside every fold, so that the folds share no
kernel; one eigendecomposition a fold serves all penalties; targets are read, solved and kept by
columns; inner folds keep all repeats of a stimulus together; predictions get back the spread that
shrinkage takes, estimated on the folds.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
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
from afterimage.decoding.regression_axes import (
    LeftOut,
    RegressionAxes,
    regression_axes,
    standardised,
)
from afterimage.decoding.unit_models import (
    average_repeats,
    explained_variance_of,
    shrunk_covariance,
    whitening,
)
from afterimage.signal.large_matrices import add_row_products, row_products

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

#: Columns read at once: compressed chunks of a feature file are as wide.
N_COLUMNS_READ = 4096
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
        n_targets = sum(block.shape[1] for block in features.values())
        parts = []
        for number, (train, test) in enumerate(folds):
            _, axes = self._regression(responses, train, grams, stimulus, test)
            part = LeftOut(test, axes, self.settings.alphas)
            parts.append(part.weighed(n_targets, partial(allocate, f"left-out/{number}")))
        rows = np.arange(len(stimuli))
        (mean, scale, units), whole = self._regression(responses, rows, grams, stimulus)
        self._state = {
            "unit_mean": mean.astype(np.float32),
            "unit_scale": scale.astype(np.float32),
            "units": units,
        }
        self.cross_validation_ = {}
        basis, n_blocks = self._basis(grams)
        errors = np.zeros((len(stimuli), basis.shape[1]))
        for name, block in features.items():
            power = _centred(_inner(grams[name]))[1]
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
            for part in self._batches(len(mean), N_COLUMNS_READ):
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
        self,
        responses: np.ndarray,
        rows: np.ndarray,
        grams: Mapping[str, np.ndarray],
        stimulus: np.ndarray,
        asked: np.ndarray | None = None,
    ) -> tuple[tuple[np.ndarray, np.ndarray, np.ndarray], RegressionAxes]:
        """Mean, scale over weight and numbers of units; and axes: from the trials ``rows``."""
        mean, scale = unit_statistics(responses if asked is None else responses[rows])
        weights = self._unit_weights(responses, rows, (mean, scale), grams, stimulus)
        scale = scale / np.maximum(weights, np.float32(1e-30))
        units = np.flatnonzero((weights > 0) & np.isfinite(scale))
        # a brain without any unit that varies is decoded as the mean
        units = units if len(units) else np.arange(1)
        axes = regression_axes(responses, (mean, scale), units, stimulus, rows, asked)
        return (mean, scale, units), axes

    def _unit_weights(
        self,
        responses: np.ndarray,
        rows: np.ndarray,
        statistics: tuple[np.ndarray, np.ndarray],
        grams: Mapping[str, np.ndarray],
        stimulus: np.ndarray,
    ) -> np.ndarray:
        """Weight of each unit, (n_units,); equal weights when the stimulus predicts no unit."""
        n_units = responses.shape[1]
        equal = np.full(n_units, n_units**-0.5, np.float32)
        if self.settings.unit_weights == "equal":
            return equal
        seen, own = np.unique(stimulus[rows], return_inverse=True)
        kernel, n_useful = np.zeros((len(seen), len(seen))), 0
        for gram in grams.values():
            known, power = _centred(_inner(gram, seen))
            if power > 0:
                known /= power
                kernel += known
                n_useful += 1
        if not n_useful:
            return equal

        def means(part: slice) -> np.ndarray:
            return average_repeats(standardised(responses, rows, statistics, part), own)

        kernel /= n_useful
        explained = explained_variance_of(kernel, ENCODING_PENALTY, means, n_units)
        explained = np.clip(explained, 0, 0.99)
        weights = np.sqrt(explained / (1 - explained))
        norm = np.sqrt((weights**2).sum())
        return np.asarray(weights / norm if norm > 0 else equal, np.float32)

    def _gram(self, block: Any, first: np.ndarray) -> np.ndarray:
        """Inner products of the stimuli's features, (n, n); or the features, (n, fewer), less their mean."""
        narrow = 2 * block.shape[1] < len(first)
        gram = np.zeros((len(first), block.shape[1] if narrow else len(first)))
        for part, features in self._targets(block, first):
            values = features.astype(np.float64)
            values -= values.mean(0)  # a large offset would take the digits
            if narrow:
                gram[:, part] = values
            else:
                add_row_products(gram, values)
        return gram

    def _basis(self, grams: Mapping[str, np.ndarray]) -> tuple[np.ndarray, int]:
        """Whitened components of all blocks together, (n_stimuli, k), and the number of blocks."""
        from scipy.linalg import eigh

        n = len(next(iter(grams.values())))
        total = np.zeros((n, n))
        for gram in grams.values():
            known, power = _centred(_inner(gram))
            if power > 0:
                known /= power
                total += known
        total /= len(grams)
        largest = (max(0, n - self.settings.n_components), n - 1)
        values, vectors = eigh(
            total.T, subset_by_index=largest, overwrite_a=True, check_finite=False
        )
        kept = np.flatnonzero(values > 1e-6 * max(values[-1], 1e-12))
        # more components than stimuli allow a covariance of would be noise
        kept = kept[-max(1, n // 3) :]
        basis = vectors[:, kept] * np.sqrt(n) / np.maximum(values[kept], 1e-12)
        return basis, len(grams)

    def _fit_block(
        self,
        name: str,
        block: Any,
        place: tuple[np.ndarray, np.ndarray],
        parts: list[LeftOut],
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
            "coef": allocate(f"coef/{name}", (len(whole.axes), n_targets)),
            "loading": allocate(f"loading/{name}", (n_targets, basis.shape[1])),
        }
        report: dict[str, np.ndarray] = {k: np.zeros(n_targets) for k in ("r", "r2", "alpha")}
        wanted, present = np.zeros(n_targets), np.zeros(n_targets)
        one = None
        if not self.settings.alpha_per_target:
            one = np.zeros(len(self.settings.alphas))
            for _, values in self._targets(block, first):
                known = [fold.known(values) for fold in parts]
                one += self._errors(values, stimulus, parts, known).sum(1)
        for part, values in self._targets(block, first):
            known = [fold.known(values) for fold in parts]
            found = self._errors(values, stimulus, parts, known) if one is None else one[:, None]
            choice = np.broadcast_to(found.argmin(0), values.shape[1:])
            report["alpha"][part] = np.asarray(self.settings.alphas, float)[choice]
            guess = np.empty((len(stimulus), values.shape[1]), np.float32)
            for fold, (material, mean) in zip(parts, known, strict=True):
                guess[fold.test] = fold.chosen(material, choice) + mean
            del known
            observed = values[stimulus]
            summary = prediction_summary(guess, observed)
            report["r"][part], report["r2"][part] = summary["r"], summary["r2"]
            wanted[part] = observed.var(0, dtype=np.float64)
            present[part] = guess.var(0, dtype=np.float64)
            centred, state["mean"][part] = whole.centred(values)
            state["coef"][:, part] = whole.solve(centred, report["alpha"][part])
            loading = (values - values.mean(0, dtype=np.float64)).T @ basis
            state["loading"][part] = loading
            errors += (observed - guess) @ loading
        state["gain"] = gain_of_spreads(wanted, present, mode)
        self._state |= {f"{key}/{name}": array for key, array in state.items()}
        return {**report, "gain": state["gain"], "n_units": float(len(whole.axes))}

    def _errors(
        self,
        values: np.ndarray,
        stimulus: np.ndarray,
        parts: list[LeftOut],
        known: list[tuple[np.ndarray, np.ndarray]],
    ) -> np.ndarray:
        """Squared errors on left-out trials, (n_penalties, n_targets)."""
        errors = np.zeros((len(self.settings.alphas), values.shape[1]))
        for fold, (material, mean) in zip(parts, known, strict=True):
            truth = (values[stimulus[fold.test]] - mean).astype(np.float32)
            for row, guess in enumerate(fold.each(material)):
                guess -= truth
                errors[row] += np.einsum("ij,ij->j", guess, guess, dtype=np.float64)
        return errors

    def _targets(self, block: Any, first: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
        """Give the targets that are solved together, (n_stimuli, n); read in wider pieces from disk."""
        step, n_targets = self.settings.n_targets_batch, block.shape[1]
        wide = step * max(1, N_COLUMNS_READ // step)
        for start in range(0, n_targets, wide):
            values = columns_of(block, slice(start, min(start + wide, n_targets)))[first]
            for part in self._batches(values.shape[1]):
                yield slice(start + part.start, start + part.stop), values[:, part]

    def _batches(self, n_targets: int, at_least: int = 1) -> list[slice]:
        """Targets solved together, to bound the memory."""
        step = max(at_least, self.settings.n_targets_batch)
        return [slice(i, min(i + step, n_targets)) for i in range(0, n_targets, step)]


def _inner(gram: np.ndarray, rows: np.ndarray | slice = slice(None)) -> np.ndarray:
    """Inner products of some stimuli, from those of all or from their features: a new array."""
    part = gram[rows]
    if gram.shape[1] < len(gram):
        return row_products(part)
    return part[:, rows].copy() if isinstance(rows, slice) else part[:, rows]


def _centred(gram: np.ndarray) -> tuple[np.ndarray, float]:
    """Inner products of rows less their mean, and the mean squared norm of these."""
    means = gram.mean(0)
    centred = gram - means
    centred -= means[:, None] - means.mean()
    power = float(np.trace(centred)) / len(gram)
    # constant features leave rounding errors
    return centred, power if power > 1e-12 * float(np.trace(gram)) / len(gram) else 0.0
