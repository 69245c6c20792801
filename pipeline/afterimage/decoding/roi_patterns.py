"""ROI-optimal features: what a decoder takes a region alone to stand for (Brain-Diffuser).

Ozcelik & VanRullen 2023, doi:10.1038/s41598-023-42891-8: the binary mask of a region is decoded as
if it were a response, and the features are given a usual norm. What differs: the norm is that of the
training features around their mean instead of a number chosen by eye, and what the decoder makes of
no region at all is taken off first, so that decoders with an offset of their own have none here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from afterimage.decoding.linear import columns_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

#: Targets read at once.
N_TARGETS_BATCH = 4096
#: Labels of units that belong to no region.
NO_REGION = ("", "n/a", "nan", "none", "unknown")


def region_masks(roi: np.ndarray, n_times: int = 0) -> dict[str, np.ndarray]:
    """Binary patterns of the regions of units, by name: each float32 (n_units [* n_times],)."""
    labels = np.asarray(roi).astype(str)
    names = [name for name in np.unique(labels) if name.lower() not in NO_REGION]
    return {name: np.repeat(labels == name, max(1, n_times)).astype(np.float32) for name in names}


def roi_optimal_features(
    predict: Callable[[np.ndarray], Mapping[str, np.ndarray]],
    mean: np.ndarray,
    scale: np.ndarray,
    masks: Mapping[str, np.ndarray],
    training: Mapping[str, Any],
) -> dict[str, np.ndarray]:
    """Decode regions, each active by one standard deviation while all else is at its mean.

    Parameters
    ----------
    predict : callable
        Responses (m, n_values) to blocks (m, n_features).
    mean, scale : (n_values,)
        Mean and standard deviation of training responses.
    masks : dict of region to (n_values,)
        Of `region_masks`.
    training : dict of block to (n_stimuli, n_features)
        Training features, arrays or blocks read by columns.

    Returns
    -------
    dict of block to float32, (n_regions, n_features)
        mean_b + norm_b * d / length(d) with d the prediction of the region less that of the mean
        response and norm_b the mean distance of training features from their mean.
    """
    finite = np.where(np.isfinite(scale), scale, 0)
    # one at a time: a prediction must not depend on the other regions
    base = predict(mean[None].astype(np.float32))
    decoded = [predict((mean + finite * mask)[None].astype(np.float32)) for mask in masks.values()]
    features = {}
    for name, block in training.items():
        centre, norm = _centre_and_norm(block)
        away = np.concatenate([one[name] for one in decoded]) - base[name]
        length = np.linalg.norm(away.astype(np.float64), axis=1, keepdims=True)
        features[name] = (centre + norm * away / np.where(length > 0, length, 1)).astype(
            np.float32
        )
    return features


def _centre_and_norm(block: Any) -> tuple[np.ndarray, float]:
    """Mean (n_features,) of training features, and their mean distance from it."""
    n_stimuli, n_features = block.shape
    centre, squares = np.zeros(n_features), np.zeros(n_stimuli)
    for start in range(0, n_features, N_TARGETS_BATCH):
        part = slice(start, min(start + N_TARGETS_BATCH, n_features))
        values = columns_of(block, part).astype(np.float64)
        centre[part] = values.mean(0)
        squares += ((values - centre[part]) ** 2).sum(1)
    return centre, float(np.sqrt(squares).mean())
