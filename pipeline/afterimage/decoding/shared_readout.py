"""Readouts of a model of several subjects, and what all blocks are worth on held-out stimuli.

Nothing here holds a wide block: features are read, predicted and compared some rows or some columns
at a time.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from afterimage.decoding.readout import fit_readout, judged
from afterimage.decoding.streams import column_means, spread

if TYPE_CHECKING:
    from collections.abc import Mapping

    from afterimage.decoding.linear import Allocate
    from afterimage.decoding.readout import Columns
    from afterimage.decoding.shared import SharedSettings

CHUNK = 256  # trials read together
N_OFFSET = 512  # training trials that the mean of a head is taken over


def read_out_blocks(
    model: Any,
    trials: Any,
    training: np.ndarray,
    validation: np.ndarray,
    table: Mapping[str, np.ndarray],
    scales: Mapping[str, np.ndarray],
    settings: SharedSettings,
    allocate: Allocate,
) -> tuple[dict[str, np.ndarray], dict[str, dict[str, Any]]]:
    """Fit the readouts of the blocks without a head, and judge all on held-out stimuli.

    Parameters
    ----------
    table : dict of block to (n_stimuli, n_features)
    scales : dict of block to float32, (1,)
        Of the blocks that the model has a head for.
    allocate : callable
        Makes the arrays that held-out predictions of the heads are kept in.

    Returns
    -------
    arrays : dict
        ``offset/<block>`` of heads, readouts, and ``mean/<block>`` and ``gain/<block>`` of all.
    cross_validation : dict
        See `afterimage.decoding.shared_decoder.SharedDecoder`.
    """
    from afterimage.training.shared import encode, held_out_ranks

    means = {name: column_means(block) for name, block in table.items()}
    offsets = usual_predictions(
        model, trials, training[spread(trials.subject[training], N_OFFSET)]
    )
    arrays = {f"offset/{name}": offset for name, offset in offsets.items()}
    predicted = _of_heads(model, trials, validation, offsets, scales, allocate)
    rest = {name: block for name, block in table.items() if name not in offsets}
    if rest:
        read, made = fit_readout(
            lambda part: encode(model, trials, part).representation,
            training[spread(trials.subject[training], settings.n_statistics_max)],
            (encode(model, trials, validation).representation, validation),
            trials.stimulus, rest, means, settings.alphas, CHUNK,
        )  # fmt: skip
        arrays |= read
        predicted |= made
    own = trials.stimulus[validation]
    cross_validation: dict[str, dict[str, Any]] = {}
    for name, block in table.items():
        mode = "none" if name in settings.keep_shrunk else settings.rescale
        shape = (len(own), block.shape[1])
        found = judged(predicted[name], partial(_centred, block, own, means[name]), shape, mode)
        arrays |= {f"mean/{name}": means[name], f"gain/{name}": found["gain"]}
        by = "ridge on the representation" if name in rest else "a head of the network"
        cross_validation[name] = {**found, "predicted_by": by}
    ranks = held_out_ranks(model, trials, validation)
    cross_validation[settings.target] |= {
        "top1": float((ranks < 1).mean()),
        "top5": float((ranks < 5).mean()),
        "n_candidates": float(len(np.unique(own))),
        "n_trials": float(len(own)),
    }
    return arrays, cross_validation


def usual_predictions(model: Any, trials: Any, some: np.ndarray) -> dict[str, np.ndarray]:
    """Mean over some trials of what every head says, standardised, (n_features,).

    The contrast does not mind a constant in what heads say; a regression has none.
    """
    from afterimage.training.shared import encode_each

    total: dict[str, Any] = {}
    for _, encoded in encode_each(model, trials, some, wanted="predicted"):
        for name, values in encoded.predicted.items():
            first = total.get(name, np.zeros_like(values[0]))
            total[name] = np.add.reduce(np.concatenate([first[None], values]), axis=0)
    return {name: values / np.float32(len(some)) for name, values in total.items()}


def _of_heads(
    model: Any,
    trials: Any,
    validation: np.ndarray,
    offsets: Mapping[str, np.ndarray],
    scales: Mapping[str, np.ndarray],
    allocate: Allocate,
) -> dict[str, Columns]:
    """Held-out predictions of the heads, centred, by columns."""
    from afterimage.training.shared import encode_each

    kept = {
        name: allocate(f"held out/{name}", (len(validation), len(offset)))
        for name, offset in offsets.items()
    }
    for places, encoded in encode_each(model, trials, validation, wanted="predicted"):
        for name, values in encoded.predicted.items():
            kept[name][places] = (values - offsets[name]) * scales[name]
    return {name: partial(_columns, values) for name, values in kept.items()}


def _columns(values: np.ndarray, part: slice) -> np.ndarray:
    return values[:, part]


def _centred(block: np.ndarray, rows: np.ndarray, mean: np.ndarray, part: slice) -> np.ndarray:
    """Return some columns of some rows of a block, less their mean."""
    centred: np.ndarray = block[rows, part] - mean[part]
    return centred
