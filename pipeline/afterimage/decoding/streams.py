"""Responses read in batches from anything that can be indexed: memory does not grow with trials."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from afterimage.decoding.layout import LayoutLike, in_units_and_times
from afterimage.errors import InputError


@dataclass(frozen=True)
class Rows:
    """Rows of a table, in any order and number, read when asked for."""

    values: np.ndarray
    order: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of what all rows together would be."""
        return (len(self.order), *self.values.shape[1:])

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, index: Any) -> np.ndarray:
        return np.asarray(self.values[self.order[index]])


@dataclass(frozen=True)
class TrialRows:
    """Some trials of a reader, flat over units and times, read when asked for.

    Parameters
    ----------
    reader : object with ``shape`` and ``read(rows, times=slice)``
    rows : int, (n_trials,)
    times : slice
    """

    reader: Any
    rows: np.ndarray
    times: slice

    @property
    def shape(self) -> tuple[int, int]:
        """(n_trials, n_units * n_times)."""
        n_units, *n_times = self.reader.shape[1:]
        if n_times:
            n_units *= len(range(*self.times.indices(n_times[0])))
        return len(self.rows), int(n_units)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any) -> np.ndarray:
        values = self.reader.read(self.rows[index], times=self.times)
        return np.asarray(values).reshape(len(values), -1)


def read_trials(responses: Any, indices: np.ndarray, layout: LayoutLike) -> np.ndarray:
    """Read some trials, float32 (n, n_units, n_times); each is asked for once, in order."""
    sorted_, place = np.unique(indices, return_inverse=True)
    return in_units_and_times(responses[sorted_], layout)[place]


def stream_statistics(
    responses: Any, subject: np.ndarray, n_subjects: int, layout: LayoutLike, chunk: int
) -> tuple[np.ndarray, np.ndarray]:
    """Mean response and the scale of each unit, for each subject, in one pass.

    Returns
    -------
    mean : float32, (n_subjects, n_units, n_times)
        Mean over trials.
    scale : float32, (n_subjects, n_units)
        Standard deviation around that mean over trials and times; infinite for a unit that never
        changes, which is thereby zero ever after.
    """
    shape = (n_subjects, int(layout.n_units), int(layout.n_times))
    total, squares = np.zeros(shape), np.zeros(shape)
    count = np.bincount(subject, minlength=n_subjects)[:, None, None]
    shift = np.zeros(shape)  # a first trial: squares of large offsets would lose digits
    for number in range(n_subjects):
        first = np.flatnonzero(subject == number)[:1]
        shift[number] = read_trials(responses, first, layout)[0]
    for start in range(0, len(subject), chunk):
        rows = np.arange(start, min(start + chunk, len(subject)))
        values = read_trials(responses, rows, layout).astype(np.float64)
        if not np.isfinite(values).all():
            raise InputError(
                "a value that is not finite",
                where="decoder fit",
                found="responses",
                expected="finite numbers",
                fix="leave out the units or trials that have missing values",
            )
        values -= shift[subject[rows]]
        for number in np.unique(subject[rows]):
            part = values[subject[rows] == number]
            total[number] += part.sum(0)
            squares[number] += (part**2).sum(0)
    mean = total / count
    scale = np.sqrt(np.maximum(squares / count - mean**2, 0).mean(2))
    mean = mean + shift
    scale[scale <= 1e-7 * np.abs(mean).max(2)] = np.inf
    scale[scale == 0] = np.inf
    return mean.astype(np.float32), scale.astype(np.float32)


@dataclass(frozen=True)
class Stream:
    """Standardised trials, read when called; see `afterimage.training.contrastive`."""

    responses: Any
    layout: LayoutLike
    subject: np.ndarray  # (n_trials,)
    mean: np.ndarray  # (n_subjects, n_units, n_times)
    scale: np.ndarray  # (n_subjects, n_units)
    clamp: float

    def __call__(self, indices: np.ndarray) -> np.ndarray:
        """Return float32 (n, n_units, n_times)."""
        values = read_trials(self.responses, indices, self.layout)
        number = self.subject[indices]
        values = (values - self.mean[number]) / self.scale[number][:, :, None]
        return np.clip(values, -self.clamp, self.clamp).astype(np.float32)
