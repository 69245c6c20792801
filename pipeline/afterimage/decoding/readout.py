"""Ridge regression from a network's representation to feature blocks, trials read in batches."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from afterimage.decoding.linear import gain_of_spreads, prediction_summary
from afterimage.training.pieces import pieces

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Columns = Callable[[slice], np.ndarray]


def fit_readout(
    represent: Callable[[np.ndarray], np.ndarray],
    training: np.ndarray,
    held_out: tuple[np.ndarray, np.ndarray],
    stimulus: np.ndarray,
    blocks: Mapping[str, np.ndarray],
    means: Mapping[str, np.ndarray],
    alphas: tuple[float, ...],
    chunk: int,
) -> tuple[dict[str, np.ndarray], dict[str, Columns]]:
    """Fit all blocks from sums over trials; one penalty a block, judged on held-out trials.

    Parameters
    ----------
    represent : callable
        Trial numbers (n,) to float32 (n, d).
    training : int, trial numbers of the fit
    held_out : (representation (m, d), trial numbers (m,))
        Penalties are chosen by the squared error there, since the representation of trained trials
        is better than it is of new ones.
    stimulus : int, (n_trials,)
        Row of each trial in the blocks.
    blocks : dict of block to (n_stimuli, n_features)
        Of which some rows, or some columns, are read at a time.
    means : dict of block to (n_features,)
        Taken off the blocks.
    alphas : penalties, in units of the number of trials

    Returns
    -------
    arrays : dict
        ``readout_mean``, ``readout_scale`` (d,) and ``coef/<block>`` (d, n_features).
    predicted : dict of block to callable
        ``predicted[block](columns)``, a slice, are centred predictions of the held-out trials.
    """
    total: np.ndarray | float = 0.0
    gram: np.ndarray | float = 0.0
    # trials of one stimulus share features: sums a stimulus are enough, and small
    sums: np.ndarray | None = None
    counts = np.bincount(stimulus[training], minlength=next(iter(blocks.values())).shape[0])
    for start in range(0, len(training), chunk):
        part = training[start : start + chunk]
        values = represent(part).astype(np.float64)
        sums = np.zeros((len(counts), values.shape[1])) if sums is None else sums
        np.add.at(sums, stimulus[part], values)
        total, gram = total + values.sum(0), gram + values.T @ values
    n = len(training)
    assert sums is not None and isinstance(gram, np.ndarray)  # noqa: S101 -- there are trials
    mean = total / n
    scale = np.sqrt(np.maximum(np.diag(gram) / n - mean**2, 1e-12))
    values, vectors = np.linalg.eigh((gram / n - np.outer(mean, mean)) / np.outer(scale, scale))
    values = np.maximum(values, 0)
    weights = (sums - counts[:, None] * mean) / scale / n
    representation, trials = held_out
    asked = (representation - mean) / scale @ vectors
    arrays: dict[str, np.ndarray] = {"readout_mean": np.asarray(mean), "readout_scale": scale}
    predicted: dict[str, Columns] = {}
    for name, block in blocks.items():
        covariance = np.zeros((len(gram), block.shape[1]))
        for rows in pieces(*block.shape):
            covariance += weights[rows].T @ (block[rows] - means[name])
        projected = vectors.T @ covariance
        errors = np.zeros(len(alphas))
        for columns in pieces(block.shape[1], len(trials)):
            truth = block[stimulus[trials], columns] - means[name][columns]
            for number, alpha in enumerate(alphas):
                guess = asked @ (projected[:, columns] / (values + alpha)[:, None])
                errors[number] += ((guess - truth) ** 2).sum()
        solved = projected / (values + alphas[int(np.argmin(errors))])[:, None]
        predicted[name] = partial(_predicted, asked, solved)
        arrays[f"coef/{name}"] = vectors @ solved
    return arrays, predicted


def _predicted(asked: np.ndarray, solved: np.ndarray, part: slice) -> np.ndarray:
    """Return some columns of the predictions of what was asked, (m, n_columns)."""
    made: np.ndarray = asked @ solved[:, part]
    return made


def judged(
    predicted: Columns, truth: Columns, shape: tuple[int, int], mode: str
) -> dict[str, np.ndarray]:
    """Summary and gain of the predictions of one block, made and compared some columns at a time.

    Parameters
    ----------
    predicted, truth : callable
        Columns (a slice) to (m, n_columns); held-out trials, centred on the training mean.
    shape : (m, n_features)
    mode : {"block", "target", "none"}
        See `afterimage.decoding.linear.prediction_gain`.

    Returns
    -------
    dict
        ``r``, ``r2`` and ``gain``, (n_features,) each.
    """
    found: dict[str, list[np.ndarray]] = {"r": [], "r2": [], "wanted": [], "present": []}
    for part in pieces(shape[1], shape[0]):
        guess, right = predicted(part), truth(part)
        for key, values in prediction_summary(guess, right).items():
            found[key].append(values)
        found["wanted"].append(right.var(0, dtype=np.float64))
        found["present"].append(guess.var(0, dtype=np.float64))
    r, r2, wanted, present = (np.concatenate(parts) for parts in found.values())
    return {"r": r, "r2": r2, "gain": gain_of_spreads(wanted, present, mode)}


def read_out(
    arrays: Mapping[str, np.ndarray], name: str, representation: np.ndarray
) -> np.ndarray:
    """Return the centred prediction of a block, (m, n_features)."""
    standard = (representation - arrays["readout_mean"]) / arrays["readout_scale"]
    prediction: np.ndarray = standard @ arrays[f"coef/{name}"]
    return prediction
