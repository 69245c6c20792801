"""Within-subject, cross-subject and few-shot scores of one decoder, comparable in one table.

How much a decoder gains from the subject's own data, as cross-subject protocols of THINGS-EEG2 ask
(Song et al. 2024, arXiv:2308.13234).

What differs: the test images of the new subject are never fitted on, in any subject (published
cross-subject scores choose the epoch on the same 200 test images seen by other people); few-shot takes
its trials image by image from the new subject's training images; the rows of all protocols share
images, gallery, resamples and chance, so that they can be compared.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from afterimage.errors import InputError
from afterimage.evaluation.gallery import (
    average_by,
    centred_gallery,
    curve_rows,
    metrics_of,
    pair_scores,
    score_curve,
)
from afterimage.evaluation.metrics import protocol
from afterimage.evaluation.scores import Resampling


@dataclass(frozen=True)
class SubjectTrials:
    """Training and test trials of one subject.

    Attributes
    ----------
    train : ndarray, shape (n_trials, ...)
    targets : ndarray, shape (n_trials, n_features)
    stimuli : ndarray of str, shape (n_trials,)
    test : ndarray, shape (n_test_trials, ...)
    test_stimuli : ndarray of str, shape (n_test_trials,)
    """

    train: NDArray[np.floating]
    targets: NDArray[np.floating]
    stimuli: NDArray[np.str_]
    test: NDArray[np.floating]
    test_stimuli: NDArray[np.str_]


@dataclass(frozen=True)
class FitPart:
    """What a decoder is fitted on: trials of one or several subjects, in order.

    Attributes
    ----------
    responses : ndarray, shape (n_trials, ...)
    targets : ndarray, shape (n_trials, n_features)
    stimuli, subjects : ndarray of str, shape (n_trials,)
        Folds and validation inside a fit must keep a stimulus together, over subjects too.
    """

    responses: NDArray[np.floating]
    targets: NDArray[np.floating]
    stimuli: NDArray[np.str_]
    subjects: NDArray[np.str_]


#: Takes what to fit on; returns what decodes responses (n, ...) of a named subject.
Fit = Callable[[FitPart], Callable[[NDArray[np.floating], str], NDArray[np.floating]]]


def within_subject(
    subjects: Mapping[str, SubjectTrials],
    fit: Fit,
    gallery_names: Sequence[str],
    gallery: NDArray[np.floating],
    *,
    label: str,
    resampling: Resampling | None = None,
) -> list[dict[str, Any]]:
    """Fit on a subject's training trials, score its test trials; rows of every subject.

    Parameters
    ----------
    subjects : mapping of str to SubjectTrials
    fit : callable
        `FitPart` to ``predict(responses, subject)``.
    gallery_names : sequence of str, length n_gallery
    gallery : ndarray, shape (n_gallery, n_features)
    label : str
        Name of the decoder.
    resampling : Resampling, optional

    Returns
    -------
    list of dict
        Keys are `gallery.COLUMNS`; analysis ``within_subject``.
    """
    rows = []
    for name in subjects:
        part = _together(subjects, {name: None})
        rows += _score(
            subjects[name], name, fit(part), part, gallery_names, gallery, "within_subject",
            "fitted on this subject", label, resampling,
        )  # fmt: skip
    return rows


def cross_subject(
    subjects: Mapping[str, SubjectTrials],
    fit: Fit,
    gallery_names: Sequence[str],
    gallery: NDArray[np.floating],
    *,
    label: str,
    resampling: Resampling | None = None,
) -> list[dict[str, Any]]:
    """Leave each subject out: fit on the training trials of all others, score its test trials.

    Parameters
    ----------
    subjects, fit, gallery_names, gallery, label, resampling
        As in `within_subject`; all subjects must have the same units and times.

    Returns
    -------
    list of dict
        Analysis ``cross_subject``.
    """
    _check_agree(subjects)
    rows = []
    for name in subjects:
        part = _together(subjects, {other: None for other in subjects if other != name})
        told = f"fitted on {len(subjects) - 1} other subjects, no trial of this one"
        rows += _score(
            subjects[name], name, fit(part), part, gallery_names, gallery, "cross_subject", told,
            label, resampling,
        )  # fmt: skip
    return rows


def few_shot(
    subjects: Mapping[str, SubjectTrials],
    fit: Fit,
    gallery_names: Sequence[str],
    gallery: NDArray[np.floating],
    n_trials: Sequence[int],
    *,
    label: str,
    resampling: Resampling | None = None,
) -> list[dict[str, Any]]:
    """Fit on all other subjects and on a few training trials of the new one.

    Parameters
    ----------
    subjects, fit, gallery_names, gallery, label, resampling
        As in `cross_subject`.
    n_trials : sequence of int
        Trials of the new subject, of different images before any image twice; nested, so that a
        larger number holds the smaller.

    Returns
    -------
    list of dict
        Analysis ``few_shot``; column ``k`` holds the number of trials.
    """
    _check_agree(subjects)
    drawing = resampling or Resampling()
    rows = []
    for name, own in subjects.items():
        order = _images_first(own.stimuli, drawing.random_state)
        for number in n_trials:
            if not 1 <= number <= len(order):
                raise InputError(
                    "too few trials for few-shot", where=f"sub-{name}",
                    found=f"{number} of {len(order)} training trials asked for",
                    expected=f"1 to {len(order)}",
                )  # fmt: skip
            chosen = {other: None if other != name else order[:number] for other in subjects}
            part = _together(subjects, chosen)
            told = f"fitted on {len(subjects) - 1} other subjects and {number} trials of this one"
            found = _score(
                own, name, fit(part), part, gallery_names, gallery, "few_shot", told, label,
                drawing,
            )  # fmt: skip
            rows += [row | {"k": number} for row in found]
    return rows


def _check_agree(subjects: Mapping[str, SubjectTrials]) -> None:
    shapes = {name: one.train.shape[1:] for name, one in subjects.items()}
    if len(subjects) < 2 or len(set(shapes.values())) > 1:
        raise InputError(
            "subjects cannot be decoded across", where="cross-subject evaluation",
            found=", ".join(f"sub-{name} {shape}" for name, shape in shapes.items()),
            expected="two or more subjects with the same units and times",
            fix="keep the units that all subjects have, in one order",
        )  # fmt: skip


def _images_first(stimuli: NDArray[np.str_], seed: int) -> NDArray[np.int64]:
    """Order trials at random, the first of every image before the second of any."""
    order = np.random.default_rng(seed).permutation(len(stimuli))
    seen: dict[str, int] = {}
    turn = []
    for row in order.tolist():
        name = str(stimuli[row])
        turn.append(seen.get(name, 0))
        seen[name] = turn[-1] + 1
    return order[np.argsort(turn, kind="stable")]


def _together(
    subjects: Mapping[str, SubjectTrials], chosen: Mapping[str, NDArray[np.int64] | None]
) -> FitPart:
    """Join the chosen training trials; refuse any whose image is a test image of any subject."""
    parts = []
    for name, rows in chosen.items():
        own = subjects[name]
        kept = np.arange(len(own.stimuli)) if rows is None else np.sort(rows)
        who = np.full(len(kept), name, dtype=object).astype(str)
        parts.append((own.train[kept], own.targets[kept], own.stimuli[kept], who))
    joined = FitPart(*(np.concatenate(column) for column in zip(*parts, strict=True)))
    held_out = {image for one in subjects.values() for image in one.test_stimuli.tolist()}
    leaked = sorted(held_out & set(joined.stimuli.tolist()))
    if leaked:
        raise InputError(
            "test images of one subject are training images of another",
            where="cross-subject evaluation",
            found=f"{len(leaked)}: {', '.join(leaked[:5])}",
            expected="one split by image for all subjects",
        )
    return joined


def _score(
    own: SubjectTrials,
    name: str,
    predict: Callable[[NDArray[np.floating], str], NDArray[np.floating]],
    part: FitPart,
    gallery_names: Sequence[str],
    gallery: NDArray[np.floating],
    analysis: str,
    told: str,
    label: str,
    resampling: Resampling | None,
) -> list[dict[str, Any]]:
    """Rows for the averaged test trials of one subject."""
    names = [str(one) for one in gallery_names]
    shown = set(own.test_stimuli.tolist())
    columns = [number for number, one in enumerate(names) if one in shown]
    average = average_by(own.test, own.test_stimuli, [names[number] for number in columns])
    mean = np.asarray(np.mean(part.targets, axis=0, dtype=np.float64))
    decoded = predict(average.astype(np.float32), name)
    similarities = np.round((decoded - mean) @ centred_gallery(gallery, mean).T, 10)
    scores = pair_scores(similarities)
    text = protocol(
        size="decoded features", n=len(columns), repeats="averaged", selection="no selection",
        direction="brain_to_image", gallery=len(names),
        extra=("centred on training mean", told, f"{len(part.stimuli)} training trials"),
    )  # fmt: skip
    identity = {"subject": name, "label": label, "analysis": analysis, "p_corrected": None}
    rows = []
    for metric in metrics_of(len(names)):
        curve = score_curve(metric, [scores[metric]], columns, resampling)
        rows += curve_rows(curve, identity, [{}], text)
    return rows
