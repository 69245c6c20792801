"""The leak linter of fits: no held-out stimulus inside, no stimulus on both sides of a fold."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from afterimage.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Collection


def check_fit(fitted: Collection[str], held_out: Collection[str]) -> None:
    """Raise InputError when a held-out stimulus is among those a model is fitted on.

    Parameters
    ----------
    fitted : collection of str
        Stimulus of every trial of the fit.
    held_out : collection of str
        Stimuli the model will be judged by.
    """
    leaked = sorted({str(name) for name in fitted} & {str(name) for name in held_out})
    if leaked:
        raise InputError(
            "held-out stimuli are in the fit",
            where="decoder fit",
            found=f"{len(leaked)} leaked: {', '.join(leaked[:5])}{' ...' * (len(leaked) > 5)}",
            expected="no stimulus on both sides of the split",
            fix="make the split by stimulus, so that repeats of one stimulus stay together",
        )


def grouped_folds(
    groups: np.ndarray, n_folds: int, random_state: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Split trials into folds by stimulus; every fold is checked with `check_fit`.

    Parameters
    ----------
    groups : (n_trials,) of str
        Stimulus of each trial.
    n_folds : int
        Number of folds wanted; never more than there are stimuli.
    random_state : int
        Seed of the order in which stimuli are dealt to the folds.

    Returns
    -------
    list of (train, test)
        Trial numbers, increasing, of each fold.
    """
    stimuli, stimulus_of_trial = np.unique(np.asarray(groups).astype(str), return_inverse=True)
    if len(stimuli) < 3:
        raise InputError(
            "too few stimuli to cross-validate",
            where="decoder fit",
            found=f"{len(stimuli)} different stimuli in {len(groups)} trials",
            expected="at least 3",
            fix="give the training part more stimuli",
        )
    n_folds = min(n_folds, len(stimuli))
    order = np.random.default_rng(random_state).permutation(len(stimuli))
    fold_of_trial = (np.argsort(order) % n_folds)[stimulus_of_trial]
    folds = []
    for fold in range(n_folds):
        train, test = np.flatnonzero(fold_of_trial != fold), np.flatnonzero(fold_of_trial == fold)
        check_fit(np.asarray(groups)[train], np.asarray(groups)[test])
        folds.append((train, test))
    return folds
