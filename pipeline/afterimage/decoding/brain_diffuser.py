"""Ridge to latents and token grids (Brain-Diffuser: Ozcelik & VanRullen 2023).

doi:10.1038/s41598-023-42891-8: latents of an autoencoder, image tokens and text tokens are each
predicted by ridge regression with a fixed penalty, and every target is then brought back to its
training spread. What differs: the spread of predictions is estimated on left-out training stimuli;
theirs, of the test predictions themselves, needs the whole test set at once (``transductive``) and
is an option, named wherever its numbers appear. Penalties are in units of the mean squared norm of a
response, so that they fit any number of units, and are chosen by cross-validation where several are
given. The fit is written as weights of training stimuli, which cost the same for any number of targets.
"""

from __future__ import annotations

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
from afterimage.decoding.regression_axes import product, products, rows_product, standardised
from afterimage.signal.large_matrices import cholesky_in_place

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

#: Patterns fewer than these have no spread of their own.
N_MIN_TRANSDUCTIVE = 3


class BrainDiffuserSettings(LinearSettings):
    """Settings of ridge regression with the penalties and the rescaling of Brain-Diffuser."""

    kind: Literal["brain_diffuser"] = Field(
        "brain_diffuser", description="Ridge with fixed penalties, every target rescaled."
    )
    alphas: tuple[float, ...] = Field(
        (3.8,),
        min_length=1,
        description="Penalties to choose from by cross-validation, one a block, in units of the "
        "mean squared norm of a response; one alone is fixed. 3.8 is the 6e4 of the paper's image "
        "tokens at 15,724 standardised units.",
    )
    block_alphas: dict[str, tuple[float, ...]] = Field(
        {"vae": (3.2,), "text": (6.4,)},
        description="Penalties of single blocks: 5e4 (latents) and 1e5 (text tokens) of the paper.",
    )
    rescale: Literal["target", "block", "none", "transductive"] = Field(  # type: ignore[assignment]
        "target",
        description="Spread of predictions: estimated on left-out training stimuli for every target "
        "or block, left shrunk, or taken from the test predictions themselves (transductive, as in "
        "the paper: not possible for single patterns, and said beside every number).",
    )
    n_targets_batch: int = Field(4096, ge=1, description="Targets predicted together.")


@DECODERS.register("brain_diffuser", BrainDiffuserSettings)
class BrainDiffuserDecoder(LinearDecoder):
    """Kernel ridge regression, one penalty a block, and a gain and an offset a target.

    With X the standardised responses of the training trials, S which stimulus each shows and Y the
    centred features of the stimuli, the prediction of x is x' A Y with
    A = X' (X X' + a I)^-1 S = (X' X + a I)^-1 X' S, whichever of the two is smaller. A column of Y
    is never solved for: Y is the model.
    """

    settings: BrainDiffuserSettings
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
            Arrays, or blocks read by columns (`streams.Targets`).
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
        mean, scale = unit_statistics(responses)
        units = np.flatnonzero(np.isfinite(scale))
        units = units if len(units) else np.arange(1)
        self._state = {"unit_mean": mean, "unit_scale": scale, "units": units}
        wanted = {name: self._alphas(name) for name in features}
        asked = sorted({alpha for alphas in wanted.values() for alpha in alphas})
        parts = []
        for train, test in folds:
            own_mean, own_scale = unit_statistics(responses[train])
            known, left_out = (
                standardised(responses, rows, (own_mean, own_scale), slice(None))
                for rows in (train, test)
            )
            weights = stimulus_weights(known, stimulus[train], len(first), asked, left_out)
            del known, left_out
            counts = np.bincount(stimulus[train], minlength=len(first))
            parts.append((test, counts, weights))
        chosen = {
            name: self._choose(
                block, first, stimulus, parts, [asked.index(a) for a in wanted[name]]
            )
            for name, block in features.items()
        }
        inputs = standardised(responses, np.arange(len(stimuli)), (mean, scale), units)
        used = sorted(set(chosen.values()))
        axes = stimulus_weights(inputs, stimulus, len(first), [asked[i] for i in used])
        self.cross_validation_ = {}
        for name, block in features.items():
            index = chosen[name]
            self._state[f"axes/{name}"] = axes[used.index(index)]
            report = self._fit_block(name, block, first, stimulus, parts, index, allocate)
            self.cross_validation_[name] = {**report, "alpha": asked[index]}
        self._state = dict(sorted(self._state.items()))
        return self

    def predict(self, responses: np.ndarray) -> dict[str, np.ndarray]:
        """Decode features, (m, n_units) to blocks of float32 (m, n_features).

        With ``rescale: transductive`` a prediction depends on the other patterns of the call, where
        there are at least three; fewer get the spread of the training part.
        """
        inputs = self._inputs(responses)
        found = {}
        for name in self.blocks:
            weights, mean = inputs @ self._state[f"axes/{name}"], self._state[f"mean/{name}"]
            found[name] = np.empty((len(inputs), len(mean)), np.float32)
            for part in self._parts(name):
                found[name][:, part] = mean[part] + self._centred(weights, name, part)
        return found

    def scores(self, responses: np.ndarray, gallery: Mapping[str, Any]) -> np.ndarray:
        """Correlate predicted features with those of candidates, (m, n_candidates) float32.

        Features are centred by the training mean, divided by the training spread, and all blocks
        weigh the same.
        """
        inputs = self._inputs(responses)
        total: Any = 0.0
        for name in self.blocks:
            weights = inputs @ self._state[f"axes/{name}"]
            own: list[Any] = [0.0, 0.0, 0.0]
            for part in self._parts(name):
                spread = self._state[f"spread/{name}"][part]
                spread = np.where(spread > 0, spread, np.inf)
                guess = (self._centred(weights, name, part) / spread).astype(np.float64)
                known = columns_of(gallery[name], part) - self._state[f"mean/{name}"][part]
                known = (known / spread).astype(np.float64)
                added = (guess @ known.T, (guess**2).sum(1), (known**2).sum(1))
                own = [before + now for before, now in zip(own, added, strict=True)]
            norm = np.sqrt(own[1][:, None] * own[2][None])
            total = total + own[0] / np.maximum(norm, 1e-12)
        return np.asarray(total / len(self.blocks), np.float32)

    def _alphas(self, name: str) -> tuple[float, ...]:
        return self.settings.block_alphas.get(name, self.settings.alphas)

    def _parts(self, name: str) -> list[slice]:
        return self._batches(len(self._state[f"mean/{name}"]))

    def _batches(self, n_targets: int) -> list[slice]:
        step = self.settings.n_targets_batch
        return [slice(i, min(i + step, n_targets)) for i in range(0, n_targets, step)]

    def _centred(self, weights: np.ndarray, name: str, part: slice) -> np.ndarray:
        """Rescaled prediction without its mean from weights of stimuli, (m, n_columns) float32."""
        state = self._state
        raw = weights @ state[f"coef/{name}"][:, part]
        shrunk = name in self.settings.keep_shrunk
        if (
            self.settings.rescale == "transductive"
            and not shrunk
            and len(raw) >= N_MIN_TRANSDUCTIVE
        ):
            spread = raw.std(0, dtype=np.float64)
            gain = state[f"spread/{name}"][part] / np.where(spread > 0, spread, np.inf)
            rescaled = (raw - raw.mean(0, dtype=np.float64)) * gain
        else:
            offset, gain = state[f"offset/{name}"][part], state[f"gain/{name}"][part]
            rescaled = (raw - offset) * gain
        return np.asarray(rescaled, np.float32)

    def _left_out(
        self, values: np.ndarray, n_trials: int, parts: list[Any], index: int
    ) -> np.ndarray:
        """Predictions of every trial from the fold that left it out, (n_trials, n_columns)."""
        guess = np.empty((n_trials, values.shape[1]), np.float32)
        for test, counts, weights in parts:
            mean = (counts @ values.astype(np.float64) / counts.sum()).astype(np.float32)
            guess[test] = mean + weights[index] @ (values - mean)
        return guess

    def _choose(
        self,
        block: Any,
        first: np.ndarray,
        stimulus: np.ndarray,
        parts: list[Any],
        indices: list[int],
    ) -> int:
        """Index of the penalty with the least squared error on left-out trials."""
        if len(indices) == 1:
            return indices[0]
        errors = np.zeros(len(indices))
        for part in self._batches(block.shape[1]):
            values = columns_of(block, part)[first]
            for row, index in enumerate(indices):
                guess = self._left_out(values, len(stimulus), parts, index)
                errors[row] += ((guess - values[stimulus]).astype(np.float64) ** 2).sum()
        return indices[int(errors.argmin())]

    def _fit_block(
        self,
        name: str,
        block: Any,
        first: np.ndarray,
        stimulus: np.ndarray,
        parts: list[Any],
        index: int,
        allocate: Allocate,
    ) -> dict[str, float | np.ndarray]:
        """Fill the state of one block in one pass over its targets; return its summary."""
        n_targets = block.shape[1]
        coef = allocate(f"coef/{name}", (len(first), n_targets))
        vectors: dict[str, np.ndarray] = {
            key: np.zeros(n_targets, np.float32) for key in ("mean", "spread", "offset")
        }
        report = {key: np.zeros(n_targets) for key in ("r", "r2")}
        wanted, present = np.zeros(n_targets), np.zeros(n_targets)
        counts = np.bincount(stimulus, minlength=len(first))
        for part in self._batches(n_targets):
            values = columns_of(block, part)[first]
            mean = (counts @ values.astype(np.float64) / counts.sum()).astype(np.float32)
            coef[:, part] = values - mean
            observed = values[stimulus]
            guess = self._left_out(values, len(stimulus), parts, index)
            summary = prediction_summary(guess, observed)
            for key in report:
                report[key][part] = summary[key]
            wanted[part] = observed.var(0, dtype=np.float64)
            present[part] = guess.var(0, dtype=np.float64)
            vectors["mean"][part] = mean
            vectors["offset"][part] = guess.mean(0, dtype=np.float64) - mean
        vectors["spread"] = np.sqrt(wanted).astype(np.float32)
        vectors["gain"] = gain_of_spreads(wanted, present, self._mode(name))
        if self.settings.rescale not in ("target", "transductive"):
            vectors["offset"][:] = 0  # left where the regression puts it
        self._state |= {f"{key}/{name}": values for key, values in vectors.items()}
        self._state[f"coef/{name}"] = coef
        return {**report, "gain": vectors["gain"]}


def stimulus_weights(
    inputs: np.ndarray,
    stimulus: np.ndarray,
    n_stimuli: int,
    alphas: list[float],
    asked: np.ndarray | None = None,
) -> list[np.ndarray]:
    """Ridge regression as weights of stimuli: a response x predicts x' A Y.

    Parameters
    ----------
    inputs : float32, (n_trials, n_units), standardised
    stimulus : int, (n_trials,)
    n_stimuli : int
    alphas : list of float
        Penalties, in units of the mean squared norm of a row of ``inputs``.
    asked : float32, (m, n_units), optional
        Responses whose weights are wanted, instead of A itself.

    Returns
    -------
    list of float32, (n_units, n_stimuli) or (m, n_stimuli)
        A, or ``asked`` A, of each penalty; zero for stimuli without trials.
    """
    from scipy.linalg import cho_solve
    from scipy.sparse import csr_array

    n_trials, n_units = inputs.shape
    level = float(np.einsum("tu,tu->", inputs, inputs, dtype=np.float64)) / n_trials or 1.0
    ones = (np.ones(n_trials), (np.arange(n_trials), stimulus))
    shown = csr_array(ones, shape=(n_trials, n_stimuli))
    dual = n_trials <= n_units
    gram = products(inputs.T if dual else inputs)
    right = shown if dual else shown.T @ inputs  # what A has on the side of the stimuli
    left = None if asked is None else (product(asked, inputs.T) if dual else asked).T
    found = []
    for alpha in alphas:
        matrix = gram.copy()
        matrix[np.diag_indices(len(gram))] += alpha * level
        factor = cholesky_in_place(matrix), True
        if left is not None:
            solved = cho_solve(factor, left.astype(np.float64))
            weights = (right.T @ solved).T if dual else (right @ solved).T
        elif dual:
            weights = rows_product(inputs.T, cho_solve(factor, right.toarray(), overwrite_b=True))
        else:
            weights = cho_solve(factor, right.T.astype(np.float64))
        found.append(np.ascontiguousarray(weights, np.float32))
    return found
