"""The schedule of a simulated study: which picture is shown when, in which run and session.

The design of the Natural Scenes Dataset in small (Allen et al. 2022,
doi:10.1038/s41593-021-00962-x): pictures every few seconds, blank trials among them, repeats spread
over runs and sessions.

What differs: test pictures have runs of their own, so that whatever is chosen on training runs has
seen no test run; onsets are jittered off the grid of the volumes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

Split = Literal["train", "test"]
SPLITS: tuple[Split, ...] = ("train", "test")
#: Rest before the first and after the last trial; the response to a trial needs the latter.
LEAD_S, TAIL_S = 8.0, 14.0


@dataclass(frozen=True)
class ScannedRun:
    """One run of the scanner.

    Attributes
    ----------
    session, run : int
        From 1; runs are counted within a session.
    split : {"train", "test"}
    shown : array of int, shape (n_trials,)
        Index of the picture of each trial.
    onsets_s : array of shape (n_trials,)
        From the start of the first volume, to the millisecond.
    n_volumes : int
    """

    session: int
    run: int
    split: Split
    shown: np.ndarray
    onsets_s: np.ndarray
    n_volumes: int


def plan_runs(
    n_pictures: dict[Split, int],
    n_repeats: dict[Split, int],
    *,
    repeated_share: float,
    trials_per_run: int,
    n_sessions: int,
    trial_s: float,
    jitter_s: float,
    blank_share: float,
    t_r_s: float,
    rng: np.random.Generator,
) -> list[ScannedRun]:
    """Lay out all runs of one subject.

    Parameters
    ----------
    n_pictures : dict of str to int
        Pictures of each split; training pictures come first in the numbering.
    n_repeats : dict of str to int
        How often a repeated picture of each split is shown.
    repeated_share : float
        Share of the training pictures that are repeated; the others are shown once.
    trials_per_run : int
        About; the repeats of a training picture lie in different runs, and in different sessions
        where there are enough.
    n_sessions : int
    trial_s : float
        From onset to onset, before the jitter.
    jitter_s : float
        Largest move of an onset to either side.
    blank_share : float
        Blank trials, as a share of the trials with a picture.
    t_r_s : float
    rng : Generator

    Returns
    -------
    list of ScannedRun
        By session and run; the test runs of a session come last.
    """
    lists: dict[Split, list[np.ndarray]] = {}
    for split in SPLITS:
        first = 0 if split == "train" else n_pictures["train"]
        share = repeated_share if split == "train" else 1.0
        times = np.ones(n_pictures[split], dtype=int)
        times[: round(share * n_pictures[split])] = n_repeats[split]
        order = rng.permutation(n_pictures[split])
        trials = first + np.repeat(order, times[order])
        n_runs = max(1, round(len(trials) / trials_per_run))
        if split == "train":
            n_runs = max(n_runs, int(times.max()))
        # The repeats of a picture are neighbours here: dealt out, they go to different runs.
        lists[split] = [rng.permutation(trials[index::n_runs]) for index in range(n_runs)]
    runs: list[ScannedRun] = []
    for session in range(1, n_sessions + 1):
        chosen = [
            (split, shown) for split in SPLITS for shown in lists[split][session - 1 :: n_sessions]
        ]
        for number, (split, shown) in enumerate(chosen, start=1):
            onsets_s, end_s = _onsets(len(shown), trial_s, jitter_s, blank_share, rng)
            n_volumes = int(np.ceil((end_s + TAIL_S) / t_r_s))
            runs.append(ScannedRun(session, number, split, shown, onsets_s, n_volumes))
    return runs


def _onsets(
    n_trials: int, trial_s: float, jitter_s: float, blank_share: float, rng: np.random.Generator
) -> tuple[np.ndarray, float]:
    """Onsets of the trials with a picture, and the end of the last."""
    n_slots = n_trials + round(blank_share * n_trials)
    slots = np.sort(rng.choice(n_slots, n_trials, replace=False))
    jitter = rng.uniform(-jitter_s, jitter_s, n_trials)
    return np.round(LEAD_S + slots * trial_s + jitter, 3), LEAD_S + n_slots * trial_s
