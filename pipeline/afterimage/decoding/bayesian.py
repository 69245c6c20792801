"""Decode by inverting encoding models (Naselaris et al. 2009, doi:10.1016/j.neuron.2009.09.006).

The Gaussian case has a closed form (Schoenmakers 2013, doi:10.1016/j.neuroimage.2013.07.043).
What differs: the prior is a mixture of Gaussians, one around every training stimulus (between
the Gaussian prior of the second paper and the image library of the first); all feature blocks
share one posterior; the noise is the error on left-out stimuli, with shrunk correlations; only
the units that the stimulus predicts best take part.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal, Self

import numpy as np
from pydantic import Field

from afterimage.decoding.leaks import grouped_folds
from afterimage.decoding.linear import LinearDecoder, LinearSettings, checked, unit_statistics
from afterimage.decoding.registry import DECODERS
from afterimage.decoding.unit_models import (
    average_repeats,
    centred_gram,
    explained_variance,
    leave_one_out_residuals,
    shrunk_covariance,
    whitening,
)
from afterimage.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping


class BayesianSettings(LinearSettings):
    """Settings of the Bayesian linear-Gaussian decoder."""

    kind: Literal["bayesian"] = Field("bayesian", description="Inverted encoding models.")
    encoding_blocks: tuple[str, ...] = Field(
        (), description="Blocks the encoding models may use; empty: any, chosen in training."
    )
    penalties: tuple[float, ...] = Field(
        (1.0, 3.0, 10.0),
        min_length=1,
        description="Ridge penalties of the encoding models, in units of the mean squared norm of "
        "a stimulus, to choose from on the inner folds.",
    )
    n_units_max: int = Field(1000, ge=1, description="Units kept, those predicted best.")
    isotropy: float = Field(
        0.2, ge=0, le=1, description="Share of the prior spread evenly over all directions."
    )
    component_variances: tuple[Annotated[float, Field(gt=0, le=1)], ...] = Field(
        (0.4, 0.6, 0.8, 1.0),
        min_length=1,
        description="Shares of the prior's variance inside the components around single training "
        "stimuli, to choose from on the inner folds; 1: one Gaussian, a linear decoder.",
    )


@dataclass(frozen=True)
class EncodingChoice:
    """What is chosen within the training part."""

    blocks: tuple[str, ...]  # of the stimulus kernel that predicts responses best
    penalty: float  # of the encoding models
    inside: float  # share of the prior's variance inside a component


@dataclass(frozen=True)
class Posterior:
    """Encoding models with their noise, in the r coordinates of the response that carry signal.

    There the noise is the identity and the k-th coordinate has prior variance power[k] squared.
    """

    arrays: dict[str, np.ndarray]  # unit_mean, unit_scale, units and projection (n_used, r)
    power: np.ndarray  # (r,)
    back: np.ndarray  # (r, n): coordinates to mixture weights, before shrinkage
    centres: np.ndarray  # (n, r): expected coordinates of every training stimulus
    dual: np.ndarray  # (n, r): encoding weights on the training stimuli

    def linear(self, inside: float) -> np.ndarray:
        """Matrix (r, n) from coordinates to the linear part of the mixture weights."""
        return (inside * self.power / (inside * self.power**2 + 1))[:, None] * self.back

    def membership(self, coordinates: np.ndarray, inside: float) -> np.ndarray:
        """Probability of each component given the response: (m, r) to (m, n)."""
        root = np.sqrt(inside * self.power**2 + 1)
        return component_weights(coordinates, np.sqrt(1 - inside) * self.centres, root)

    def weights(self, coordinates: np.ndarray, inside: float) -> np.ndarray:
        """Posterior mean of the weights of the training stimuli: (m, r) to (m, n)."""
        linear = self.linear(inside)
        weights = coordinates @ linear
        if inside < 1:
            members = np.sqrt(1 - inside) * self.membership(coordinates, inside)
            weights += members - (members @ self.centres) @ linear
        return weights


def component_weights(
    coordinates: np.ndarray, centres: np.ndarray, deviations: np.ndarray
) -> np.ndarray:
    """Posterior probability of Gaussian components of equal weight and diagonal covariance.

    Parameters
    ----------
    coordinates : (m, r)
    centres : (n, r)
    deviations : (r,)

    Returns
    -------
    float64, (m, n), rows sum to one
    """
    from scipy.spatial.distance import cdist
    from scipy.special import softmax

    distance = cdist(coordinates / deviations, centres / deviations, "sqeuclidean")
    return softmax(-0.5 * distance, axis=1)


@DECODERS.register("bayesian", BayesianSettings)
class BayesianDecoder(LinearDecoder):
    """Posterior mean of the stimulus features given the responses.

    With standardised responses x of the units in use, stimulus features f = mean + F'a (rows of F:
    centred features of the n training stimuli, all blocks side by side), encoding weights B = F'W
    from ridge regression, K = FF', h the share of variance inside components and e_i the i-th unit
    vector:

        x | a ~ N(W'K a, S)
        a ~ mean over i of N(sqrt(1 - h) e_i, h P),    P = ((1 - isotropy) I + isotropy K^-1) / n
        E[a | x] = T'x + sqrt(1 - h) sum_i w_i (e_i - T'W'K e_i)
        T = G^-1 h W'K P,    G = h W'K P K W + S,    w_i ~ N(x; sqrt(1 - h) W'K e_i, G)
        E[f_b | x] = mean_b + F_b' E[a | x]

    The prior has the covariance of the training stimuli whatever h is (isotropy 0), or an equal
    variance in every direction (isotropy 1). K is the mean over the chosen blocks of Gram matrices
    of unit mean diagonal; blocks that are not in K are decoded all the same, through F_b. S is the
    covariance of single trials around predictions by models that left their stimulus out.
    """

    settings: BayesianSettings

    def fit(
        self,
        responses: np.ndarray,
        features: Mapping[str, np.ndarray],
        groups: np.ndarray,
        held_out: Collection[str] = (),
    ) -> Self:
        """Fit encoding models, noise and prior on the training part.

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
        stimulus = np.unique(stimuli, return_inverse=True)[1]
        folds = grouped_folds(stimuli, self.settings.n_folds, self.settings.random_state)
        rows = {name: average_repeats(block, stimulus) for name, block in features.items()}
        grams = {name: centred_gram(block) for name, block in rows.items()}
        blocks = self._encoding_blocks(responses, grams, stimulus)
        choice, weights = self._cross_validate(responses, grams, stimulus, blocks, folds)
        posterior = self._posteriors(responses, grams, stimulus, blocks, (choice.penalty,))[0]
        arrays = self._arrange(posterior, rows, choice.inside)
        self.cross_validation_ = {}
        for name, block in features.items():
            predicted = (weights @ rows[name]).astype(np.float32)
            report = self._calibrate(name, predicted, block)
            arrays[f"gain/{name}"] = np.asarray(report["gain"])
            self.cross_validation_[name] = {
                **report,
                "penalty": choice.penalty,
                "component_variance": choice.inside,
                "encodes": float(name in choice.blocks),
                "n_units": float(len(posterior.arrays["units"])),
            }
        for name in choice.blocks:
            centred = rows[name] - arrays[f"mean/{name}"]
            scale = grams[name][1] * len(choice.blocks)
            arrays[f"encoding/{name}"] = centred.T @ posterior.dual / scale
        self._store(arrays)
        return self

    def predict(self, responses: np.ndarray) -> dict[str, np.ndarray]:
        """Decode features: the posterior mean, rescaled (see ``settings.rescale``).

        Parameters
        ----------
        responses : (m, n_units)

        Returns
        -------
        dict of block to float32 (m, n_features)
        """
        decoded = super().predict(responses)
        if "centres" not in self._state:
            return decoded
        coordinates = self._inputs(responses).astype(np.float64)
        members = component_weights(
            coordinates, self._state["centres"], self._state["deviations"]
        ).astype(np.float32)
        return {
            name: block + self._state[f"gain/{name}"] * (members @ self._state[f"centre/{name}"])
            for name, block in decoded.items()
        }

    def scores(
        self, responses: np.ndarray, gallery: Mapping[str, np.ndarray] | np.ndarray
    ) -> np.ndarray:
        """Log-likelihood of each response under each candidate stimulus (Kay et al. 2008).

        log N(x; B'(f - mean), S) up to a constant of the response: the squared distance between
        measured and expected responses, whitened with the noise covariance of the training part.

        Parameters
        ----------
        responses : (m, n_units)
        gallery : dict of block to (g, n_features)
            The blocks of the encoding model must be there. Or what `placed` made of them.

        Returns
        -------
        float32, (m, g)
        """
        from scipy.spatial.distance import cdist

        expected = gallery if isinstance(gallery, np.ndarray) else self.placed(gallery)
        return (-0.5 * cdist(self._inputs(responses), expected, "sqeuclidean")).astype(np.float32)

    def placed(self, gallery: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return the responses that candidates would evoke, (g, r), to compare many trials with."""
        expected = np.float64(0)
        for key, encoding in self._state.items():
            if key.startswith("encoding/"):
                name = key.removeprefix("encoding/")
                centred = gallery[name].astype(np.float64) - self._state[f"mean/{name}"]
                expected = expected + centred @ encoding
        return np.asarray(expected)

    def _inputs(self, responses: np.ndarray) -> np.ndarray:
        """Return whitened coordinates that carry signal: float32 (m, r)."""
        return super()._inputs(responses) @ self._state["projection"]

    def _encoding_blocks(
        self,
        responses: np.ndarray,
        grams: Mapping[str, tuple[np.ndarray, float]],
        stimulus: np.ndarray,
    ) -> tuple[str, ...]:
        """Add blocks to the kernel one by one while units are predicted better on new stimuli."""
        settings = self.settings
        mean, scale = unit_statistics(responses)
        standard = average_repeats((responses - mean) / scale, stimulus)
        wanted = settings.encoding_blocks or tuple(grams)
        allowed = [name for name in wanted if name in grams and grams[name][1] > 0]
        if not allowed:
            raise InputError(
                "no feature block can predict the responses",
                where="bayesian decoder",
                found=", ".join(grams),
                expected=f"a block that differs between stimuli, among {', '.join(wanted)}",
                fix="add a block such as gabor or pixels to the features",
            )

        def quality(blocks: tuple[str, ...]) -> float:
            eigen = np.linalg.eigh(np.mean([grams[name][0] for name in blocks], axis=0))
            explained = explained_variance(eigen, settings.penalties, standard)
            best = -np.sort(-explained, axis=1)[:, : settings.n_units_max]
            return float(best.mean(1).max())

        chosen: tuple[str, ...] = ()
        best = -np.inf
        while left := [name for name in allowed if name not in chosen]:
            gains = {name: quality((*chosen, name)) for name in left}
            winner = max(left, key=lambda name: gains[name])
            if gains[winner] <= best:
                break
            chosen, best = (*chosen, winner), gains[winner]
        return chosen

    def _cross_validate(
        self,
        responses: np.ndarray,
        grams: Mapping[str, tuple[np.ndarray, float]],
        stimulus: np.ndarray,
        blocks: tuple[str, ...],
        folds: list[tuple[np.ndarray, np.ndarray]],
    ) -> tuple[EncodingChoice, np.ndarray]:
        """Choose penalty and component width by the error of decoded features on inner folds.

        Returns
        -------
        choice : EncodingChoice
        weights : (n_trials, n_stimuli)
            A trial's prediction of any block is ``weights @ features``, from the fold that left
            its stimulus out.
        """
        gram = np.mean([block for block, _ in grams.values()], axis=0)
        settings = self.settings
        candidates = [
            (penalty, inside)
            for penalty in settings.penalties
            for inside in settings.component_variances
        ]
        weights = {key: np.zeros((len(stimulus), len(gram)), np.float32) for key in candidates}
        error = dict.fromkeys(candidates, 0.0)
        for train, test in folds:
            kept = np.unique(stimulus[train])
            posteriors = self._posteriors(
                responses[train], grams, stimulus[train], blocks, settings.penalties
            )
            for penalty, posterior in zip(settings.penalties, posteriors, strict=True):
                self._store(posterior.arrays)
                coordinates = self._inputs(responses[test])
                for inside in settings.component_variances:
                    part = posterior.weights(coordinates, inside)
                    part += (1 - part.sum(1, keepdims=True)) / len(kept)
                    weights[penalty, inside][np.ix_(test, kept)] = part
                    cross = gram[np.ix_(stimulus[test], kept)]
                    # squared distance to the true features but for a term no choice changes
                    distance = (part @ gram[np.ix_(kept, kept)] - 2 * cross) * part
                    error[penalty, inside] += float(distance.sum())
        best = min(candidates, key=lambda key: error[key])
        return EncodingChoice(blocks, *best), weights[best]

    def _posteriors(
        self,
        responses: np.ndarray,
        grams: Mapping[str, tuple[np.ndarray, float]],
        stimulus: np.ndarray,
        blocks: tuple[str, ...],
        penalties: tuple[float, ...],
    ) -> list[Posterior]:
        """Fit encoding models and noise on these trials, once for each penalty."""
        mean, scale = unit_statistics(responses)
        kept, position = np.unique(stimulus, return_inverse=True)
        standard = (responses.astype(np.float64) - mean) / scale
        targets = average_repeats(standard, position)
        n = len(kept)
        centring = np.eye(n) - 1 / n
        kernel = np.mean([grams[name][0] for name in blocks], axis=0)[np.ix_(kept, kept)]
        eigen = np.linalg.eigh(centring @ kernel @ centring)
        fitted = []
        of_penalty = explained_variance(eigen, penalties, targets)
        for penalty, explained in zip(penalties, of_penalty, strict=True):
            ranked = np.argsort(-explained, kind="stable")
            units = np.sort(ranked[: self.settings.n_units_max])
            posterior = self._posterior(standard[:, units], position, eigen, penalty)
            posterior.arrays.update(unit_mean=mean, unit_scale=scale, units=units)
            fitted.append(posterior)
        return fitted

    def _posterior(
        self,
        standard: np.ndarray,
        position: np.ndarray,
        eigen: tuple[np.ndarray, np.ndarray],
        penalty: float,
    ) -> Posterior:
        """Fit encoding models and noise on standardised trials, given a kernel of their stimuli."""
        settings, targets = self.settings, average_repeats(standard, position)
        values, vectors = np.clip(eigen[0], 0, None), eigen[1]
        left_out = targets - leave_one_out_residuals(eigen, penalty, targets)
        whitener = whitening(shrunk_covariance(standard - left_out[position]))
        projected = vectors.T @ (targets - targets.mean(0)) @ whitener
        dual = projected / (values + penalty)[:, None]
        # square root of the prior covariance of the weights, times the kernel
        spread = ((1 - settings.isotropy) * values + settings.isotropy) * values
        prior = np.sqrt(spread / len(values))
        left, power, right = np.linalg.svd(prior[:, None] * dual, full_matrices=False)
        signal = power > 1e-9 * max(float(power[0]), 1e-300)
        left, power, right = left[:, signal], power[signal], right[signal]
        seen = values > 1e-10 * values[-1]
        root = np.divide(prior, values, out=np.zeros(len(values)), where=seen)
        return Posterior(
            arrays={"projection": whitener @ right.T},
            power=power,
            back=(left * root[:, None]).T @ vectors.T,
            centres=vectors @ (values[:, None] * (dual @ right.T)),
            dual=vectors @ (dual @ right.T),
        )

    def _arrange(
        self, posterior: Posterior, rows: Mapping[str, np.ndarray], inside: float
    ) -> dict[str, np.ndarray]:
        """Arrays that predict: the mixture weights multiplied out with the features."""
        arrays = dict(posterior.arrays)
        linear = posterior.linear(inside)
        if inside < 1:
            arrays["centres"] = np.sqrt(1 - inside) * posterior.centres
            arrays["deviations"] = np.sqrt(inside * posterior.power**2 + 1)
        for name, block in rows.items():
            arrays[f"mean/{name}"] = block.mean(0)
            centred = block - arrays[f"mean/{name}"]
            arrays[f"coef/{name}"] = linear @ centred
            if inside < 1:
                pulled = arrays["centres"] @ arrays[f"coef/{name}"]
                arrays[f"centre/{name}"] = np.sqrt(1 - inside) * centred - pulled
        return arrays
