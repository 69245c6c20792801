"""What the linear decoders share: checks of a fit, scaling, prediction and state."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias

import numpy as np
from pydantic import Field

from afterimage.decoding.leaks import check_fit
from afterimage.errors import InputError
from afterimage.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from typing import Self


#: Makes a float32 array of a shape, under a name: in memory, or on disk where it would not fit.
Allocate: TypeAlias = Callable[[str, tuple[int, ...]], np.ndarray]


#: Units whose statistics are computed together.
N_UNITS_BATCH = 512


def in_memory(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Make an array in memory."""
    return np.empty(shape, np.float32)


def columns_of(block: Any, part: slice) -> np.ndarray:
    """Return some columns of a block, all rows, checked; they are read now if they lie on disk."""
    values = block[:, part] if isinstance(block, np.ndarray) else block.columns(part)
    if not np.isfinite(values).all():
        raise _not_finite("features")
    return np.asarray(values)


def _not_finite(what: str) -> InputError:
    return InputError(
        "a value that is not finite",
        where="decoder fit",
        found=what,
        expected="finite numbers",
        fix="leave out the units or trials that have missing values",
    )


class LinearSettings(Settings):
    """Settings common to the linear decoders."""

    n_folds: int = Field(5, ge=2, description="Inner folds, by stimulus, of the training part.")
    random_state: int = Field(
        0,
        description="Seed of the inner folds; the workflow gives that of train_decoder.",
        json_schema_extra={"workflow": True},
    )
    rescale: Literal["block", "target", "none"] = Field(
        "block",
        description="Give predictions the spread of the training features: one gain a block, "
        "one a target, or leave them shrunk towards the mean.",
    )
    keep_shrunk: tuple[str, ...] = Field(
        ("pixels",), description="Blocks never rescaled: their squared error is what counts."
    )


def checked(
    responses: np.ndarray,
    features: Mapping[str, Any],
    groups: np.ndarray,
    held_out: Collection[str],
) -> np.ndarray:
    """Refuse a fit that cannot work; return the stimulus of each trial as str (n_trials,).

    Blocks that are read by columns are checked by `columns_of`, when they are read.
    """
    stimuli = np.asarray(groups).astype(str)
    check_fit(stimuli, held_out)
    wrong = [name for name, block in features.items() if block.shape[:1] != stimuli.shape]
    if responses.ndim != 2 or responses.shape[:1] != stimuli.shape or wrong or not features:
        raise InputError(
            "responses, features and stimuli of the fit do not belong together",
            where="decoder fit",
            found=f"responses {responses.shape}, stimuli {stimuli.shape}, "
            f"features { {name: block.shape for name, block in features.items()} }",
            expected="one row a trial in each",
        )
    finite = {
        name: np.isfinite(block).all()
        for name, block in features.items()
        if isinstance(block, np.ndarray)
    }
    rows = range(0, len(responses), N_UNITS_BATCH)
    known = all(np.isfinite(responses[row : row + N_UNITS_BATCH]).all() for row in rows)
    if not known or not all(finite.values()):
        raise _not_finite(", ".join([k for k, ok in finite.items() if not ok] or ["responses"]))
    return stimuli


def unit_statistics(responses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each unit over trials; scale infinite for constant units.

    An infinite scale standardises a unit that never changes to zero, in the fit and ever after.
    """
    mean, scale = np.empty(responses.shape[1]), np.empty(responses.shape[1])
    for start in range(0, responses.shape[1], N_UNITS_BATCH):  # a deviation takes a float64 copy
        part = slice(start, start + N_UNITS_BATCH)
        mean[part] = responses[:, part].mean(0, dtype=np.float64)
        scale[part] = responses[:, part].std(0, dtype=np.float64)
    scale[scale <= 1e-7 * np.abs(mean)] = np.inf
    scale[scale == 0] = np.inf
    return mean.astype(np.float32), scale.astype(np.float32)


def prediction_gain(predicted: np.ndarray, observed: np.ndarray, mode: str) -> np.ndarray:
    """Factor that gives cross-validated predictions the spread of what they predict.

    Parameters
    ----------
    predicted, observed : (n_trials, n_features)
        Predictions on inner folds of the training part, and the training features.
    mode : {"block", "target", "none"}

    Returns
    -------
    float32, (n_features,)
        Never below 1 and at most 100.
    """
    return gain_of_spreads(
        observed.var(0, dtype=np.float64), predicted.var(0, dtype=np.float64), mode
    )


def gain_of_spreads(wanted: np.ndarray, present: np.ndarray, mode: str) -> np.ndarray:
    """Gain from the variances of features and of their predictions; see `prediction_gain`."""
    n_features = len(wanted)
    if mode == "none":
        return np.ones(n_features, np.float32)
    if mode == "block":
        wanted, present = (np.full(n_features, v.mean()) for v in (wanted, present))
    gain = np.sqrt(wanted / np.maximum(present, 1e-12 * wanted + 1e-300))
    return np.clip(np.where(wanted > 0, gain, 1.0), 1.0, 100.0).astype(np.float32)


def prediction_summary(predicted: np.ndarray, observed: np.ndarray) -> dict[str, np.ndarray]:
    """Correlation and explained variance of each target on the inner folds, (n_features,) each."""
    guess = predicted - predicted.mean(0, dtype=np.float64)
    truth = observed - observed.mean(0, dtype=np.float64)
    power = np.sqrt((guess**2).sum(0) * (truth**2).sum(0))
    total = (truth**2).sum(0)
    error = ((predicted.astype(np.float64) - observed) ** 2).sum(0)
    return {
        "r": np.where(power > 0, (guess * truth).sum(0) / np.where(power > 0, power, 1), 0.0),
        "r2": np.where(total > 0, 1 - error / np.where(total > 0, total, 1), 0.0),
    }


class LinearDecoder:
    """A fitted linear map from responses to feature blocks; all it knows is in ``state``.

    Subclasses fit and call `_store`. A prediction of block b from responses x is
    mean_b + gain_b * (((x - unit_mean) / unit_scale)[units] @ coef_b).

    Attributes
    ----------
    cross_validation_ : dict
        For each block, on the inner folds of the training part: ``r``, ``r2`` (one value a
        feature, before rescaling), ``gain`` and what the method chose. Empty after `from_state`.
    streams : bool
        The fit takes blocks that are read by columns, and ``allocate``; predictions and scores
        never need all columns at once.
    """

    streams: ClassVar[bool] = False

    def __init__(self, settings: LinearSettings) -> None:
        self.settings = settings
        self.cross_validation_: dict[str, dict[str, float | np.ndarray]] = {}
        self._state: dict[str, np.ndarray] = {}

    @property
    def blocks(self) -> list[str]:
        """Names of the feature blocks predicted, in order."""
        prefix = "coef/"
        return [key.removeprefix(prefix) for key in self._state if key.startswith(prefix)]

    def state(self) -> dict[str, np.ndarray]:
        """Return every array of the fitted decoder."""
        return dict(self._state)

    @classmethod
    def from_state(cls, settings: LinearSettings, state: Mapping[str, np.ndarray]) -> Self:
        """Return the fitted decoder that `state` came from."""
        decoder = cls(settings)
        decoder._state = dict(sorted(state.items()))
        return decoder

    def predict(self, responses: np.ndarray) -> dict[str, np.ndarray]:
        """Decode features.

        Parameters
        ----------
        responses : (m, n_units)

        Returns
        -------
        dict of block to float32 (m, n_features)
            Rescaled by gains estimated on the training part only (see ``settings.rescale``).
        """
        inputs = self._inputs(responses)
        return {
            name: self._state[f"mean/{name}"]
            + self._state[f"gain/{name}"] * (inputs @ self._state[f"coef/{name}"])
            for name in self.blocks
        }

    def _inputs(self, responses: np.ndarray) -> np.ndarray:
        """Return standard scores of the units in use: float32 (m, n_used)."""
        if not self._state:
            raise RuntimeError("the decoder is not fitted")
        mean, scale = self._state["unit_mean"], self._state["unit_scale"]
        if responses.ndim != 2 or responses.shape[1] != len(mean):
            raise InputError(
                "responses do not have the units the decoder was fitted on",
                where="decoder predict",
                found=f"shape {responses.shape}",
                expected=f"(n_trials, {len(mean)})",
            )
        units = self._state["units"]
        return ((responses[:, units] - mean[units]) / scale[units]).astype(np.float32)

    def _store(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Keep arrays in the form they are saved in, so that a saved decoder is the same one."""
        self._state = {
            key: np.ascontiguousarray(value, np.int64 if key == "units" else np.float32)
            for key, value in sorted(arrays.items())
        }

    def _mode(self, name: str) -> str:
        """How the predictions of a block get their spread back."""
        return "none" if name in self.settings.keep_shrunk else self.settings.rescale

    def _calibrate(
        self, name: str, predicted: np.ndarray, observed: np.ndarray
    ) -> dict[str, float | np.ndarray]:
        """Gain and summary of one block from its predictions on the inner folds."""
        summary = prediction_summary(predicted, observed)
        return {**summary, "gain": prediction_gain(predicted, observed, self._mode(name))}
