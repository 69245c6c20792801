"""Responses read in batches from anything that can be indexed: memory does not grow with trials."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from afterimage.decoding.layout import LayoutLike, in_units_and_times
from afterimage.errors import InputError
from afterimage.training.pieces import pieces


@dataclass(frozen=True)
class Rows:
    """Rows of a table, in any order and number, read when asked for."""

    values: Any
    order: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of what all rows together would be."""
        return (len(self.order), *self.values.shape[1:])

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, index: Any) -> np.ndarray:
        return np.asarray(self.values[self.order[index]])

    def only(self, rows: np.ndarray) -> Rows:
        """Return some of the rows, still read when asked for."""
        return Rows(self.values, self.order[rows])


@dataclass(frozen=True)
class Targets:
    """A block of features, a row a trial, of which columns are read when asked for.

    Parameters
    ----------
    read : callable
        Columns (a slice) to float32 (n_stimuli, n_columns).
    order : int, (n_trials,)
        Row of each trial's stimulus.
    n_features : int
    """

    read: Callable[[slice], np.ndarray]
    order: np.ndarray
    n_features: int

    @property
    def shape(self) -> tuple[int, int]:
        """(n_trials, n_features)."""
        return len(self.order), self.n_features

    def columns(self, part: slice) -> np.ndarray:
        """Read some columns of all trials, (n_trials, n_columns)."""
        return self.read(part)[self.order]


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


def column_means(table: Any) -> np.ndarray:
    """Mean of every column, float64 (n_columns,), of a table that may lie on disk."""
    total: np.ndarray = np.zeros(table.shape[1])
    for part in pieces(*table.shape):
        # one row after the other, as the mean of the whole would: pieces do not change a bit
        total = np.add.reduce(np.concatenate([total[None], table[part]]), axis=0)
    return total / len(table)


SHRINKAGE = 0.01  # of covariances that responses are whitened by, towards the mean variance
N_TIME_MAX = 2000  # trials that the covariance over times is estimated from


@dataclass(frozen=True)
class Statistics:
    """What responses are standardised by."""

    mean: np.ndarray  # float32 (n_subjects, n_units, n_times), over trials
    #: float32 (n_subjects, n_units), standard deviation around the mean; infinite for a unit that
    #: never changes, which is thereby zero ever after
    scale: np.ndarray
    #: float32 (n_subjects, n_units, n_units), inverse root of the covariance of scaled units
    space: np.ndarray


def spread(subject: np.ndarray, n_max: int) -> np.ndarray:
    """Return at most ``n_max`` trials, in order: as many of each subject, evenly spread."""
    numbers = np.unique(subject)
    chosen = []
    for number in numbers:
        rows = np.flatnonzero(subject == number)
        step = max(1.0, len(rows) / max(1, n_max // len(numbers)))
        chosen.append(rows[np.arange(0, len(rows), step).astype(np.int64)])
    return np.sort(np.concatenate(chosen))


def stream_statistics(
    responses: Any,
    subject: np.ndarray,
    n_subjects: int,
    layout: LayoutLike,
    chunk: int,
    rows: np.ndarray,
) -> Statistics:
    """Mean, scale and whitening over units, for each subject, in one pass over ``rows``."""
    n_units, n_times = int(layout.n_units), int(layout.n_times)
    shape = (n_subjects, n_units, n_times)
    total, squares = np.zeros(shape), np.zeros(shape)
    # without a time axis there is one value a unit, and often too many units
    product = np.zeros((n_subjects, n_units, n_units)) if n_times > 1 else None
    count = np.bincount(subject[rows], minlength=n_subjects)[:, None, None]
    shift = np.zeros(shape)  # a first trial: squares of large offsets would lose digits
    for number in range(n_subjects):
        first = rows[np.flatnonzero(subject[rows] == number)[:1]]
        shift[number] = read_trials(responses, first, layout)[0]
    for start in range(0, len(rows), chunk):
        some = rows[start : start + chunk]
        values = read_trials(responses, some, layout).astype(np.float64)
        check_finite(values)
        values -= shift[subject[some]]
        for number in np.unique(subject[some]):
            part = values[subject[some] == number]
            total[number] += part.sum(0)
            squares[number] += (part**2).sum(0)
            if product is not None:
                flat = part.transpose(1, 0, 2).reshape(n_units, -1)
                product[number] += flat @ flat.T
    mean = total / count
    scale = np.sqrt(np.maximum(squares / count - mean**2, 0).mean(2))
    space = np.zeros((n_subjects, 0, 0))
    centre = mean + shift
    scale[scale <= 1e-7 * np.abs(centre).max(2)] = np.inf
    scale[scale == 0] = np.inf
    if product is not None:
        inner = np.einsum("sut,svt->suv", mean, mean)
        covariance = (product / count - inner) / n_times
        covariance /= scale[:, :, None] * scale[:, None, :]
        space = np.stack([inverse_root(one) for one in covariance])
    parts = (centre.astype(np.float32), scale.astype(np.float32), space.astype(np.float32))
    return Statistics(*parts)


def inverse_root(covariance: np.ndarray) -> np.ndarray:
    """Symmetric inverse root of a covariance, shrunk towards its mean variance."""
    level = max(float(np.trace(covariance)) / len(covariance), 1e-12)
    values, vectors = np.linalg.eigh(covariance / level)
    values = (1 - SHRINKAGE) * np.maximum(values, 0) + SHRINKAGE
    root: np.ndarray = (vectors / np.sqrt(level * values)) @ vectors.T
    return root


def whitening_over_times(stream: Stream, rows: np.ndarray, chunk: int) -> np.ndarray:
    """Inverse root of the covariance over times, (n_times, n_times), of a stream without one."""
    n_times = stream.mean.shape[2]
    product: np.ndarray = np.zeros((n_times, n_times))
    rows = rows[:: max(1, len(rows) // N_TIME_MAX)]
    for start in range(0, len(rows), chunk):
        flat = stream(rows[start : start + chunk]).reshape(-1, n_times)
        product += flat.T @ flat
    return inverse_root(product / max(1, len(rows) * stream.mean.shape[1])).astype(np.float32)


def check_finite(values: np.ndarray) -> None:
    """Raise InputError for a missing value."""
    if not np.isfinite(values).all():
        raise InputError(
            "a value that is not finite",
            where="decoder fit",
            found="responses",
            expected="finite numbers",
            fix="leave out the units or trials that have missing values",
        )


@dataclass(frozen=True)
class Stream:
    """Standardised and whitened trials, read when called; see `afterimage.training.contrastive`."""

    responses: Any
    layout: LayoutLike
    subject: np.ndarray  # (n_trials,)
    statistics: Statistics
    clamp: float
    time: np.ndarray | None = None  # (n_times, n_times)

    @property
    def mean(self) -> np.ndarray:
        """Mean over trials, (n_subjects, n_units, n_times)."""
        return self.statistics.mean

    def __call__(self, indices: np.ndarray) -> np.ndarray:
        """Return float32 (n, n_units, n_times)."""
        values = read_trials(self.responses, indices, self.layout)
        check_finite(values)
        number = self.subject[indices]
        values = (values - self.mean[number]) / self.statistics.scale[number][:, :, None]
        values = np.clip(values, -self.clamp, self.clamp)
        if self.statistics.space.size:
            for one in np.unique(number):
                own = number == one
                values[own] = self.statistics.space[one] @ values[own]
        if self.time is not None:
            values = values @ self.time
        return values.astype(np.float32)
