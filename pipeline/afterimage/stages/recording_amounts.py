"""How much of a recording an amount such as ``15 min``, ``100 trials`` or ``25 %`` is."""

from __future__ import annotations

import re

import numpy as np

AMOUNT = re.compile(r"(?P<number>\d+(\.\d+)?) ?(?P<unit>min|h|trials|%)|all")


def minutes_recorded(
    session: np.ndarray, run: np.ndarray, onset_s: np.ndarray
) -> np.ndarray | None:
    """Minutes of recording until the end of each trial, breaks between runs apart.

    A trial lasts until the next one of its run, the last of a run as long as the median.

    Parameters
    ----------
    session, run : (n_trials,) of str
        Of trials in the order of recording.
    onset_s : (n_trials,) float
        From the start of the run.

    Returns
    -------
    (n_trials,) float, or None where an onset is unknown
    """
    onset_s = np.asarray(onset_s, np.float64)
    if len(onset_s) < 2 or not np.isfinite(onset_s).all():
        return None
    same = (session[1:] == session[:-1]) & (run[1:] == run[:-1])
    step_s = np.diff(onset_s)
    if not same.any() or (step_s[same] < 0).any():
        return None
    length_s = np.append(np.where(same, step_s, np.nan), np.nan)
    length_s[np.isnan(length_s)] = np.median(step_s[same])
    return np.cumsum(length_s) / 60


def n_trials_of(amount: str, n_trials: int, minutes: np.ndarray | None) -> int | None:
    """How many of the trials an amount is; None where they are fewer, or time is unknown."""
    found = AMOUNT.fullmatch(amount)
    if found is None or found["unit"] is None:
        return n_trials
    number = float(found["number"])
    if found["unit"] in ("min", "h"):
        if minutes is None:
            return None
        limit = number * (60 if found["unit"] == "h" else 1)
        n = int(np.searchsorted(minutes, limit * (1 + 1e-9), side="right"))
        return n if minutes[-1] >= limit else None
    n = round(number if found["unit"] == "trials" else n_trials * number / 100)
    return n if n <= n_trials else None
