"""What a network begins with: principal components of images, and a low-rank encoding model."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np

from afterimage.decoding.low_rank import (
    Factors,
    cross_covariance,
    first_windows,
    low_rank_encoding,
    topographies,
)
from afterimage.decoding.streams import spread

if TYPE_CHECKING:
    from collections.abc import Mapping

    from afterimage.decoding.network_settings import NetworkSettings
    from afterimage.training.contrastive import BrainToImage, Trials

CHUNK = 256
SHRINKAGES = (0.1, 0.25, 0.5)  # of the encoding model, to choose from
REST = 0.02  # weight of image features that the low-rank model says nothing about


def feature_components(targets: np.ndarray, settings: NetworkSettings) -> dict[str, np.ndarray]:
    """Principal components of image features.

    Parameters
    ----------
    targets : (n_stimuli, n_features), centred

    Returns
    -------
    dict
        ``components`` (d, n_features), rows of length 1, and ``component_scale`` (d,): d is
        n_embedding, or fewer than the stimuli allow a covariance of.
    """
    from sklearn.decomposition import PCA

    n_stimuli, n_features = targets.shape
    d = max(1, min(settings.n_embedding, n_features, n_stimuli // 3))
    pca = PCA(d, random_state=settings.random_state).fit(targets)
    scale = np.sqrt(np.maximum(pca.explained_variance_, 1e-12))
    return {
        "components": pca.components_.astype(np.float32),
        "component_scale": scale.astype(np.float32),
    }


def start_low_rank(
    model: BrainToImage,
    trials: Trials,
    training: np.ndarray,
    validation: np.ndarray,
    state: Mapping[str, np.ndarray],
    times_s: np.ndarray,
    settings: Any,
) -> dict[str, np.ndarray]:
    """Give the network the filters, and the heads the scores, of a low-rank encoding model.

    Its rank, n_hidden or less by halves, and its shrinkage are those that find held-out concepts
    best.

    Returns
    -------
    dict
        ``factor_tuning``, ``factor_time`` and ``factor_power``, the mean squared size of responses,
        of the model taken, for the next subject.
    """
    from afterimage.training.contrastive import held_out_score

    whitened = trials.targets @ (state["components"] / state["component_scale"][:, None]).T
    basis = model.network.cosines.numpy()
    rows = training[spread(trials.subject[training], settings.n_statistics_max)]
    covariance, counts = cross_covariance(
        trials.source, rows, trials.subject, whitened, trials.stimulus, basis, CHUNK
    )
    windows = first_windows(times_s) @ basis.T
    best, chosen = -np.inf, None
    ranks = sorted({max(1, settings.n_hidden // part) for part in (1, 2, 4)})
    for rank, shrinkage in itertools.product(ranks, SHRINKAGES):
        factors = low_rank_encoding(covariance, counts, windows, rank, shrinkage)
        _begin(model, factors, counts, state, trials.places)
        model.eval()
        score = held_out_score(model, trials, validation, CHUNK)
        if score > best:
            best, chosen = score, factors
    assert chosen is not None  # noqa: S101 -- there is one rank at least
    _begin(model, chosen, counts, state, trials.places)
    sizes = [_size(space, chosen.tuning, chosen.time) for space in chosen.space]
    power = np.array([np.mean([(size**2).sum() for size in sizes])])
    return {"factor_tuning": chosen.tuning, "factor_time": chosen.time, "factor_power": power}


def _begin(
    model: BrainToImage,
    factors: Factors,
    counts: np.ndarray,
    state: Mapping[str, np.ndarray],
    places: np.ndarray,
) -> None:
    """Set network and heads so that the score is the log-likelihood.

    With z the filtered signals, u = T'e the tuned features and G what a subject's filters pass of
    each other's responses, the log-likelihood of an image is z'u - u'Gu / 2. The image's embedding
    is Pe with P'P = TGT' for the mean G, the brain's is pinv(P)'Tz: their product is z'u. Each
    subject's matrix is the root of TGT' times the inverse of P: the length of its product with Pe
    is the root of u'Gu.
    """
    import torch

    space, tuning, time = factors.space, factors.tuning, factors.time
    overlap = np.einsum("s,sur,suq->rq", counts / counts.sum(), space, space) * (time.T @ time)
    values, vectors = np.linalg.eigh(tuning @ overlap @ tuning.T)
    values = np.maximum(values, 0)
    used = values > 1e-6 * values[-1]
    root = (vectors * np.sqrt(values)) @ vectors.T
    inverse = (vectors[:, used] / np.sqrt(values[used])) @ vectors[:, used].T
    meeting = root + REST * np.sqrt(values[-1]) * np.eye(len(root))
    images = meeting @ (state["components"] / state["component_scale"][:, None])
    sizes = [_size(one, tuning, time) @ np.linalg.inv(meeting) for one in space]

    def tensor(array: np.ndarray) -> Any:
        return torch.from_numpy(np.ascontiguousarray(array, np.float32))

    model.network.start(tensor(space), tensor(time), tensor(places))
    with torch.no_grad():
        model.images.weight.copy_(tensor(images))
        model.contrastive.weight.zero_()
        model.contrastive.weight[:, : tuning.shape[1]] = tensor(inverse @ tuning)
        model.contrastive.bias.zero_()
        for matrix, size in zip(model.sizes.matrices, sizes, strict=True):
            matrix.copy_(tensor(size))


def _size(space: np.ndarray, tuning: np.ndarray, time: np.ndarray) -> np.ndarray:
    """Matrix that turns whitened features into as long a vector as the response they evoke."""
    values, vectors = np.linalg.eigh(tuning @ ((space.T @ space) * (time.T @ time)) @ tuning.T)
    size: np.ndarray = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    return size


def first_topographies(
    model: BrainToImage,
    trials: Trials,
    number: int,
    state: Mapping[str, np.ndarray],
    settings: Any,
) -> None:
    """Begin a new subject with the topographies of the tuning and courses of the others."""
    import torch

    whitened = trials.targets @ (state["components"] / state["component_scale"][:, None]).T
    rows = spread(trials.subject, settings.n_statistics_max)
    covariance, counts = cross_covariance(
        trials.source,
        rows,
        np.zeros(len(trials.subject), np.int64),
        whitened,
        trials.stimulus,
        model.network.cosines.numpy(),
        CHUNK,
    )
    tuning, time = state["factor_tuning"], state["factor_time"]
    space = topographies(covariance[0], int(counts[0]), tuning, time)
    model.network.start_subject(number, torch.from_numpy(space), torch.from_numpy(trials.places))
    # training has changed by how much the sizes of the others differ from those of the start
    scaled = state["components"] / state["component_scale"][:, None]
    with torch.no_grad():
        meeting = model.images.weight.double().numpy() @ np.linalg.pinv(scaled)
        known = [matrix.double().numpy() @ meeting for matrix in model.sizes.matrices[:number]]
        power = np.mean([(size**2).sum() for size in known]) / state["factor_power"][0]
        size = np.sqrt(power) * _size(space, tuning, time) @ np.linalg.pinv(meeting)
        model.sizes.matrices[number].copy_(torch.from_numpy(size))
