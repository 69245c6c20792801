"""Reliability of responses from repeats, by unit and time (Allen 2022, doi:10.1038/s41593-021-00962-x).

What differs: ceilings are correlations and not percent of variance, and are summed up trial by
trial, so that memory does not grow with their number. The caller passes training trials only.
"""

from __future__ import annotations

import numpy as np

#: Correlating halves over fewer stimuli says nothing.
MIN_STIMULI = 3


class Reliability:
    """Sums from which the noise ceiling and the split-half reliability follow.

    Parameters
    ----------
    shape : tuple of int
        (n_units, n_times)
    """

    def __init__(self, shape: tuple[int, int]) -> None:
        self._n = self._n_repeats = self._degrees = self._n_halves = 0
        self._total, self._squares, self._within = (np.zeros(shape) for _ in range(3))
        self._halves = np.zeros((5, *shape))  # of halves a, b: a, b, a*a, b*b, a*b
        self._stimulus: object = None
        self._open: list[np.ndarray] = [np.zeros(shape), np.zeros(shape)]
        self._open_squares, self._odd = np.zeros(shape), np.zeros(shape)

    def update(self, epochs: np.ndarray, stimuli: np.ndarray) -> None:
        """Add epochs; all trials of a stimulus must follow each other, over batches too.

        Parameters
        ----------
        epochs : array of shape (n_epochs, n_units, n_times)
        stimuli : array of shape (n_epochs,)
        """
        for epoch, stimulus in zip(epochs, stimuli.tolist(), strict=True):
            if stimulus != self._stimulus:
                self._close()
                self._stimulus = stimulus
            values = np.asarray(epoch, dtype=np.float64)
            square = values * values
            self._open[self._n_repeats % 2] += values
            self._open_squares += square
            self._n_repeats += 1
            self._odd = values
            self._n += 1
            self._total += values
            self._squares += square

    def _close(self) -> None:
        """Take up the sums of the stimulus that is complete."""
        n, (first, second) = self._n_repeats, self._open
        if n > 1:
            self._within += self._open_squares - (first + second) ** 2 / n
            self._degrees += n - 1
            first = (first - self._odd if n % 2 else first) / (n // 2)
            second = second / (n // 2)
            self._halves += [first, second, first * first, second * second, first * second]
            self._n_halves += 1
        for array in (*self._open, self._open_squares):
            array[...] = 0
        self._n_repeats = 0

    def noise_ceiling(self) -> np.ndarray:
        """Return the largest correlation a model can reach with single trials.

        Returns
        -------
        array of shape (n_units, n_times), float32
            NaN where no stimulus was repeated.
        """
        self._close()
        if not self._degrees:
            return np.full(self._total.shape, np.nan, dtype=np.float32)
        noise = np.maximum(self._within, 0) / self._degrees
        total = (self._squares - self._total**2 / self._n) / (self._n - 1)
        signal = np.maximum(total - noise, 0)
        power = signal + noise
        return np.sqrt(signal / np.where(power > 0, power, 1)).astype(np.float32)

    def split_half(self) -> np.ndarray:
        """Return the correlation over stimuli of odd with even repeats.

        Returns
        -------
        array of shape (n_units, n_times), float32
            NaN where fewer than three stimuli were repeated; 0 where nothing varies.
        """
        self._close()
        n = self._n_halves
        if n < MIN_STIMULI:
            return np.full(self._total.shape, np.nan, dtype=np.float32)
        a, b, aa, bb, ab = self._halves / n
        power = (aa - a * a) * (bb - b * b)
        tiny = power <= 1e-24 * aa * bb
        return np.asarray(np.where(tiny, 0, ab - a * b) / np.sqrt(np.where(tiny, 1, power)), "f4")


def over_times(ceiling: np.ndarray, times_s: np.ndarray) -> np.ndarray:
    """Sum up ceilings after onset in one number a unit: their root mean square.

    Parameters
    ----------
    ceiling : array of shape (n_units, n_times)
    times_s : array of shape (n_times,)
        Seconds from onset; all are taken where none is after it.

    Returns
    -------
    array of shape (n_units,), float32
    """
    after = times_s >= 0 if (times_s >= 0).any() else np.ones(len(times_s), bool)
    return np.asarray(np.sqrt(np.square(ceiling[:, after], dtype=np.float64).mean(axis=1)), "f4")
