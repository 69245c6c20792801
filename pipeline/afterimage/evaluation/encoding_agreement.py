"""Do reconstructions predict the brain they come from? Agreement by region, beside true images.

As the brain correlation of MindEye2 (Scotti et al. 2024, arXiv:2403.11207), whose encoder is GNet.

What differs: the encoder is a ridge from features of the pictures, fitted on this subject's training
trials (penalty by unit, leave-one-out inside the training images); the interval resamples images, chance
re-pairs reconstructions and responses, and the ceiling is the score of the true images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from afterimage.evaluation.measures import Resampling, plain_number
from afterimage.evaluation.metrics import COLUMNS, protocol
from afterimage.evaluation.statistics import permutation_chance, permuted_pairs
from afterimage.signal.large_matrices import row_products

ALPHAS = tuple(10.0**power for power in range(-1, 7))
#: Values of one chunk of training responses.
CHUNK_VALUES = 2**24
#: Resamples of images counted at once.
CHUNK_BOOTSTRAPS = 250


@dataclass(frozen=True)
class EncodingModel:
    """Ridge from standardised features to standardised responses of each unit.

    Attributes
    ----------
    feature_mean, feature_scale : ndarray, shape (n_features,)
    coef : ndarray of float32, shape (n_features, n_units)
    """

    feature_mean: NDArray[np.float64]
    feature_scale: NDArray[np.float64]
    coef: NDArray[np.float32]

    def predict(self, features: NDArray[np.generic]) -> NDArray[np.float32]:
        """Return predicted responses (n, n_units), standardised and without offset."""
        values = (np.asarray(features, np.float64) - self.feature_mean) / self.feature_scale
        return np.asarray(values.astype(np.float32) @ self.coef)


def fit_encoding(features: NDArray[np.generic], responses: NDArray[np.generic]) -> EncodingModel:
    """Fit one ridge a unit on training images.

    As scikit-learn's RidgeCV (penalty by unit, least squared left-out error), with one decomposition
    for all chunks of units, which thousands of images would otherwise need again for each.

    Parameters
    ----------
    features : ndarray, shape (n_images, n_features)
        Of the training images only.
    responses : ndarray, shape (n_images, n_units)
        Mean training response to each of them.

    Returns
    -------
    EncodingModel
    """
    from scipy.linalg import eigh

    values = np.asarray(features, np.float64).reshape(len(features), -1)
    mean, scale = values.mean(axis=0), values.std(axis=0)
    scale = np.where(scale > 1e-12, scale, 1.0)
    inputs = (values - mean) / scale
    few = inputs.shape[1] <= len(inputs)
    power, vectors = eigh(row_products(inputs.T if few else inputs), driver="evd")
    kept = power > 1e-10 * max(float(power[-1]), 1e-300)
    power, vectors = power[kept], vectors[:, kept]
    left = inputs @ (vectors / np.sqrt(power)) if few else vectors  # orthonormal, (n_images, r)
    right = vectors if few else inputs.T @ (vectors / np.sqrt(power))
    shrunk = [power / (power + alpha) for alpha in ALPHAS]
    n_images, n_units = np.shape(responses)
    # Of an image on its own prediction; the mean, which is fitted too, has a share of it.
    leverage = [np.einsum("ir,ir,r->i", left, left, share) + 1 / n_images for share in shrunk]
    coef = np.empty((inputs.shape[1], n_units), np.float32)
    step = max(1, CHUNK_VALUES // n_images)
    for start in range(0, n_units, step):
        chunk = np.asarray(responses[:, start : start + step], np.float64)
        chunk = (chunk - chunk.mean(axis=0)) / np.maximum(chunk.std(axis=0), 1e-12)
        projected = left.T @ chunk
        errors = []
        for share, own in zip(shrunk, leverage, strict=True):
            missed = chunk - left @ (share[:, None] * projected)
            missed /= np.maximum(1 - own, 1e-12)[:, None]
            errors.append(np.einsum("iu,iu->u", missed, missed))
        penalty = np.asarray(ALPHAS)[np.argmin(errors, axis=0)]
        weights = np.sqrt(power)[:, None] / (power[:, None] + penalty) * projected
        coef[:, start : start + step] = right @ weights
    return EncodingModel(mean, scale, coef)


class Agreement:
    """Scores predicted against measured responses of the test images, by region.

    Parameters
    ----------
    model : EncodingModel
    measured : ndarray, shape (n_images, n_units)
        Mean measured response to each test image.
    regions : sequence of str, length n_units
        ``n/a`` where none is known; all units are also scored together, as ``all``.
    encoder : str
        Feature blocks of the encoding model, for the protocol.
    noise_ceiling : ndarray, shape (n_units,), optional
        Of the averaged test responses; its mean over the units of a region goes to the rows.
    drawing : Resampling, optional

    Attributes
    ----------
    rows : list of dict
        ``encoding_agreement_<region>``, as far as labels were added.
    """

    def __init__(
        self,
        model: EncodingModel,
        measured: NDArray[np.floating],
        regions: Sequence[str],
        *,
        encoder: str,
        noise_ceiling: NDArray[np.floating] | None = None,
        drawing: Resampling | None = None,
    ) -> None:
        drawing = drawing or Resampling()
        self.rows: list[dict[str, Any]] = []
        self._model, self._measured, self._encoder = model, measured, encoder
        self._noise, self._target = noise_ceiling, _unit_columns(measured)
        names = np.asarray(regions, dtype=str)
        known = [str(name) for name in dict.fromkeys(names) if name not in ("n/a", "")]
        self._groups = {"all": np.ones(len(names), bool)} | {name: names == name for name in known}
        n, state = len(measured), drawing.random_state
        self._permutations = permuted_pairs(n, drawing.n_permutations, random_state=state)
        self._counts = _counts(n, drawing.n_bootstraps, state)

    def add(
        self,
        features: NDArray[np.generic],
        identity: Mapping[str, str],
        selection: str,
        extra: Sequence[str] = (),
    ) -> None:
        """Score the pictures of one label.

        Parameters
        ----------
        features : ndarray, shape (n_images, n_features)
            Of the reconstructions, or of the true images, in the order of the responses.
        identity : mapping
            Columns subject, label, decoder, method and role.
        selection, extra : str and sequence of str
            For the protocol.
        """
        n = len(self._measured)
        responses = self._model.predict(features)
        guess = _unit_columns(responses)
        # A unit whose prediction does not vary agrees with nothing: r = 0, and it stays in the mean.
        usable = np.abs(self._target).sum(axis=0) > 0
        resampled = _resampled_r(responses[:, usable], self._measured[:, usable], self._counts)
        for region, members in self._groups.items():
            inside = members & usable
            if not inside.any() or n < 2:
                continue
            # Mean over units of r, for every re-pairing of images: the sum over images of a look-up.
            pairs = guess[:, inside] @ self._target[:, inside].T * (n / inside.sum())
            chance = permutation_chance(pairs, self._permutations)
            spread = resampled[:, inside[usable]].mean(axis=1)
            low, high = np.quantile(spread, [0.025, 0.975])
            text = protocol(
                size=f"ridge from {self._encoder}", n=n, repeats="averaged", selection=selection,
                extra=(f"{int(inside.sum())} units", *extra),
            )  # fmt: skip
            row: dict[str, Any] = dict.fromkeys(COLUMNS)
            row |= {**identity, "metric": f"encoding_agreement_{region}", "n": n}
            row |= {"value": float(np.trace(pairs) / n), "protocol": text}
            row |= {"ci_low": plain_number(low), "ci_high": plain_number(high)}
            row |= {"chance": plain_number(chance.mean), "p": plain_number(chance.p)}
            row |= {"chance_low": plain_number(chance.low)}
            row |= {"chance_high": plain_number(chance.high)}
            if self._noise is not None and np.isfinite(self._noise[inside]).any():
                row["noise_ceiling"] = float(np.nanmean(self._noise[inside]))
            self.rows.append(row)


def with_ceiling(rows: Sequence[dict[str, Any]], truth: str) -> list[dict[str, Any]]:
    """Put the score of the true images beside every other row of the same region."""
    values = {row["metric"]: row["value"] for row in rows if row["label"] == truth}
    for row in rows:
        row["ceiling"] = None if row["label"] == truth else values.get(row["metric"])
    return list(rows)


def _unit_columns(values: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return columns less their mean, of length 1; zeros where a unit does not vary."""
    centred = np.asarray(values, np.float64) - np.mean(values, axis=0, dtype=np.float64)
    norm = np.linalg.norm(centred, axis=0)
    return np.asarray(np.divide(centred, norm, out=np.zeros_like(centred), where=norm > 1e-9))


def _counts(n: int, n_bootstraps: int, random_state: int) -> NDArray[np.float64]:
    """How often each image is drawn in each resample, (n_bootstraps, n)."""
    generator = np.random.default_rng(random_state)
    drawn = generator.integers(0, n, size=(n_bootstraps, n)) + n * np.arange(n_bootstraps)[:, None]
    return np.bincount(drawn.ravel(), minlength=n_bootstraps * n).reshape(n_bootstraps, n) / n


def _resampled_r(
    predicted: NDArray[np.floating], measured: NDArray[np.floating], counts: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Pearson r of every unit over resampled images, (n_bootstraps, n_units).

    Exact, with weights: cov = E[xy] - E[x]E[y] over the images drawn.
    """
    x, y = _unit_columns(predicted), _unit_columns(measured)
    found = np.empty((len(counts), x.shape[1]), np.float32)
    products = [np.asarray(v, np.float32) for v in (x, y, x * y, x * x, y * y)]
    for start in range(0, len(counts), CHUNK_BOOTSTRAPS):
        part = slice(start, start + CHUNK_BOOTSTRAPS)
        weights = counts[part].astype(np.float32)
        mx, my, mxy, mxx, myy = (weights @ values for values in products)
        scale = np.sqrt(np.maximum(mxx - mx**2, 0) * np.maximum(myy - my**2, 0))
        zero = np.zeros_like(scale)
        found[part] = np.divide(mxy - mx * my, scale, out=zero, where=scale > 1e-12)
    return found
