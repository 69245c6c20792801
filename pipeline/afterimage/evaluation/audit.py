"""Checks that a score means what it says: near-duplicates, leaks, and baselines that know little.

After Shirakawa et al. 2025 (Spurious reconstruction from brain activity, arXiv:2405.10078), who
showed that clusters shared by training and test images explain much of published scores.

What differs: the cluster oracle's score is measured besides the formula 1 - 1/(2K), and the leak
checks run on what the fits declare they used.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from afterimage.errors import InputError
from afterimage.evaluation.duplicates import near_duplicates, unit_rows
from afterimage.evaluation.identification import similarity, two_way

__all__ = [
    "ClusterOracle",
    "cluster_oracle",
    "leak_linter",
    "mean_training_image",
    "near_duplicates",
    "nearest_training",
    "normalisation_check",
    "selection_check",
]

CHUNK_ROWS = 2048
N_NAMED = 5


def leak_linter(
    trial_stimuli: Sequence[str],
    trial_splits: Sequence[str],
    *,
    fits: Mapping[str, Iterable[str]],
    repeats: Sequence[int] | None = None,
    image_hashes: Mapping[str, str] | None = None,
    training_splits: Sequence[str] = ("train",),
) -> list[dict[str, Any]]:
    """Check that nothing of the test set can have reached a fit.

    Parameters
    ----------
    trial_stimuli, trial_splits : sequences of str, length n_trials
        Stimulus id and split of every trial.
    fits : mapping of str to stimulus ids
        The ledger: for everything that was fitted or chosen (scaler, decoder, feature mean, ...),
        the stimuli it used.
    repeats : sequence of int, optional
        Number of the repeat of each trial, unique within a stimulus.
    image_hashes : mapping of str to str, optional
        SHA-256 of each stimulus's pixels or file.
    training_splits : sequence of str
        Splits a fit may use.

    Returns
    -------
    list of dict
        ``check``, ``ok``, ``detail`` each, in a fixed order.
    """
    splits: dict[str, list[str]] = defaultdict(list)
    for stimulus, split in zip(trial_stimuli, trial_splits, strict=True):
        splits[str(stimulus)].append(str(split))
    crossing = sorted(s for s, used in splits.items() if len(set(used)) > 1)
    repeated = [s for s, used in splits.items() if len(used) > 1]
    apart = [f"{s} ({_tally(splits[s])})" for s in crossing if s in set(repeated)]
    checks = [
        _check(
            "no stimulus in two splits", crossing, f"{len(splits)} stimuli, each in one split only"
        ),
        _check("repeats kept together", apart, f"{len(repeated)} stimuli have repeats"),
    ]
    if repeats is not None:
        counts = Counter(zip(map(str, trial_stimuli), map(int, repeats), strict=True))
        twice = sorted(f"{s} repeat {r}" for (s, r), n in counts.items() if n > 1)
        checks.append(_check("no trial counted twice", twice, f"{len(counts)} distinct trials"))
    allowed = {s for s, used in splits.items() if set(used) <= set(training_splits)}
    if not fits:
        checks.append(_check("fits declared", ["no fit says what it used"], ""))
    for name in sorted(fits):
        used = {str(stimulus) for stimulus in fits[name]}
        detail = f"{len(used)} stimuli, all of {', '.join(training_splits)}"
        checks.append(_check(f"fit on training only: {name}", sorted(used - allowed), detail))
    if image_hashes is not None:
        same, n_images = _identical_images(splits, image_hashes)
        same += [f"{stimulus} has no hash" for stimulus in splits if stimulus not in image_hashes]
        checks.append(
            _check("no identical image in two splits", same, f"{n_images} distinct images")
        )
    return checks


def selection_check(
    sources: Mapping[str, Sequence[str]], test_features: str, *, unknown: Sequence[str] = ()
) -> dict[str, Any]:
    """Check that nothing that made or chose reconstructions was given the test pictures' features.

    Parameters
    ----------
    sources : mapping of str to sequence of str
        What each file of predictions or reconstructions was made from.
    test_features : str
        Name of the file of the features of the test pictures.
    unknown : sequence of str
        Files that say nothing of their sources.
    """
    told = [f"{name} was given {test_features}" for name, used in sources.items()
            if any(test_features in source for source in used)]  # fmt: skip
    told += [f"{name} does not say what it was made from" for name in unknown]
    fine = f"{len(sources)} files, none made from {test_features}"
    return _check("no ground truth in selection", told, fine)


def normalisation_check(
    transductive: Mapping[str, bool],
    fitted_on: Mapping[str, set[str]],
    test_stimuli: set[str],
) -> dict[str, Any]:
    """Check that no decoder standardises by statistics of the test set.

    Parameters
    ----------
    transductive : mapping of str to bool
        Whether a decoder says that its predictions are rescaled over the whole test set.
    fitted_on : mapping of str to set of str
        Stimuli that its means and scales were computed on.
    test_stimuli : set of str
    """
    told = [f"{name} rescales its predictions over the test set" for name, yes in
            transductive.items() if yes]  # fmt: skip
    told += [f"statistics of {name} hold {stimulus}" for name, used in fitted_on.items()
             for stimulus in sorted(used & test_stimuli)]  # fmt: skip
    fine = f"{len(fitted_on)} decoders, means and scales from training trials only"
    return _check("no test statistics in normalisation", told, fine)


@dataclass(frozen=True)
class ClusterOracle:
    """What somebody who knows only the cluster of the seen image would score.

    Attributes
    ----------
    assigned : ndarray of int, shape (n_test,)
        Cluster of each true test image.
    centroids : ndarray of float32, shape (k, n_features)
        Means of the training features; ``centroids[assigned]`` is the oracle's prediction.
    members : list of ndarray of int
        Training images of each cluster.
    representatives : ndarray of int, shape (k,)
        Training image nearest to each centroid, to show as the oracle's picture.
    expected_twoway : float
        1 - 1/(2K): K equal clusters, right cluster, guess within it.
    expected_twoway_sizes : float
        The same with the sizes the clusters really have in the test set.
    measured_twoway : float
        Two-way identification by the centroids.
    """

    assigned: NDArray[np.int64]
    centroids: NDArray[np.float32]
    members: list[NDArray[np.int64]]
    representatives: NDArray[np.int64]
    expected_twoway: float
    expected_twoway_sizes: float
    measured_twoway: float


def cluster_oracle(
    train_features: NDArray[np.generic],
    test_features: NDArray[np.generic],
    k: int,
    *,
    random_state: int = 0,
) -> ClusterOracle:
    """Score an oracle that knows the cluster of the true test image and nothing else.

    Parameters
    ----------
    train_features : ndarray, shape (n_train, n_features)
        Embeddings of the training images; k-means sees only these.
    test_features : ndarray, shape (n_test, n_features)
        Embeddings of the true test images, assigned to the nearest centroid.
    k : int
        Number of clusters, at most n_train.
    random_state : int

    Returns
    -------
    ClusterOracle
    """
    from sklearn.cluster import KMeans

    train = np.asarray(train_features, np.float64).reshape(len(train_features), -1)
    test = np.asarray(test_features, np.float64).reshape(len(test_features), -1)
    if not 1 <= k <= len(train):
        raise InputError(
            "the cluster oracle cannot make that many clusters",
            found=f"k = {k}, {len(train)} training images",
            expected=f"1 <= k <= {len(train)}",
        )
    model = KMeans(n_clusters=k, n_init=10, random_state=random_state).fit(train)
    assigned = model.predict(test).astype(np.int64)
    distances = model.transform(train)
    sizes = np.bincount(assigned, minlength=k)[assigned]
    rates = two_way(similarity(model.cluster_centers_[assigned], test))
    return ClusterOracle(
        assigned=assigned,
        centroids=model.cluster_centers_.astype(np.float32),
        members=[np.flatnonzero(model.labels_ == label) for label in range(k)],
        representatives=distances.argmin(axis=0).astype(np.int64),
        expected_twoway=1 - 1 / (2 * k),
        expected_twoway_sizes=float(np.mean(1 - 0.5 * (sizes - 1) / max(1, len(test) - 1))),
        measured_twoway=float(rates.mean()),
    )


def mean_training_image(images: Iterable[NDArray[np.generic]]) -> NDArray[np.float32]:
    """Return the mean of the training images: what to guess when the brain says nothing.

    Parameters
    ----------
    images : iterable of ndarray, each (height, width, 3)
        uint8 or float 0..1; read one at a time.

    Returns
    -------
    ndarray of float32, shape (height, width, 3)
        Intensities 0..1.
    """
    total: Any = 0.0
    scale, n = 1.0, 0
    for image in images:
        scale = 255.0 if image.dtype == np.uint8 else 1.0
        total = total + image
        n += 1
    return np.asarray(total / n / scale, np.float32)


def nearest_training(
    decoded: NDArray[np.generic],
    train_features: NDArray[np.generic],
    *,
    centred: bool = False,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Find the training image whose features are most like the decoded ones.

    Parameters
    ----------
    decoded : ndarray, shape (n, n_features)
    train_features : ndarray, shape (n_train, n_features)
    centred : bool
        False: cosine. True: correlation (each row minus its own mean).

    Returns
    -------
    index : ndarray of int64, shape (n,)
        Row of `train_features`; the first one among equals.
    similarity : ndarray of float32, shape (n,)
    """
    queries = unit_rows(decoded, centred)
    best = np.full(len(queries), -np.inf, np.float32)
    index = np.zeros(len(queries), np.int64)
    for start in range(0, len(train_features), CHUNK_ROWS):
        block = queries @ unit_rows(train_features[start : start + CHUNK_ROWS], centred).T
        here = block.argmax(axis=1)
        value = block[np.arange(len(queries)), here]
        better = value > best
        index[better], best[better] = start + here[better], value[better]
    return index, best


def _identical_images(
    splits: Mapping[str, Sequence[str]], image_hashes: Mapping[str, str]
) -> tuple[list[str], int]:
    """Return the groups of stimuli of equal content in two splits, and the number of contents."""
    owners: dict[str, list[str]] = defaultdict(list)
    for stimulus in sorted(set(splits) & set(image_hashes)):
        owners[image_hashes[stimulus]].append(stimulus)
    same = [
        " = ".join(group)
        for group in owners.values()
        if len(group) > 1 and len({split for one in group for split in splits[one]}) > 1
    ]
    return same, len(owners)


def _tally(splits: Sequence[str]) -> str:
    return ", ".join(f"{n} in {split}" for split, n in sorted(Counter(splits).items()))


def _check(name: str, problems: Sequence[str], fine: str) -> dict[str, Any]:
    shown = ", ".join(problems[:N_NAMED]) + (", ..." if len(problems) > N_NAMED else "")
    detail = f"{len(problems)} found: {shown}" if problems else fine
    return {"check": name, "ok": not problems, "detail": detail}
