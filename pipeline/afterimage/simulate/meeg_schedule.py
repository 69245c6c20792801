"""The schedule of a simulated EEG or MEG recording: pictures in rapid succession.

A large and rich EEG dataset for modeling human visual object recognition (Gifford et al. 2022,
doi:10.1016/j.neuroimage.2022.119754): the responses of successive pictures overlap, test pictures
are shown more often.

What differs: test pictures have runs of their own, as in `scanning`; a picture appears at a sample.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from afterimage.simulate import scanning

#: Rest before the first picture of a run, and after the last has appeared.
LEAD_S, TAIL_S = 3.0, 3.0


@dataclass(frozen=True)
class RecordedRun:
    """One run of a recording.

    Attributes
    ----------
    run : int
        From 1.
    split : {"train", "test"}
    shown : array of int, shape (n_trials,)
        Index of the picture of each trial.
    first_samples : array of int, shape (n_trials,)
        Sample at which each picture appears.
    n_samples : int
    """

    run: int
    split: str
    shown: np.ndarray
    first_samples: np.ndarray
    n_samples: int


def plan_recording(
    n_pictures: dict[str, int],
    n_repeats: dict[str, int],
    *,
    trials_per_run: int,
    trial_s: float,
    jitter_s: float,
    sampling_rate_hz: float,
    rng: np.random.Generator,
) -> list[RecordedRun]:
    """Lay out the runs of one subject, as `scanning.plan_runs`, without blanks, on the sample grid.

    Parameters
    ----------
    n_pictures, n_repeats : dict of str to int
        Of ``train`` and ``test``: pictures, and how often each is shown.
    trials_per_run : int
        About.
    trial_s, jitter_s, sampling_rate_hz : float
    rng : Generator
    """
    planned = scanning.plan_runs(
        {"train": n_pictures["train"], "test": n_pictures["test"]},
        {"train": n_repeats["train"], "test": n_repeats["test"]},
        repeated_share=1.0, trials_per_run=trials_per_run, n_sessions=1, trial_s=trial_s,
        jitter_s=jitter_s, blank_share=0.0, t_r_s=1.0, rng=rng,
    )  # fmt: skip
    runs = []
    for run in planned:
        onsets_s = run.onsets_s - scanning.LEAD_S + LEAD_S
        first = np.round(onsets_s * sampling_rate_hz).astype(int)
        n_samples = int((onsets_s[-1] + TAIL_S) * sampling_rate_hz)
        runs.append(RecordedRun(run.run, run.split, run.shown, first, n_samples))
    return runs
