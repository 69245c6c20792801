"""Fractional ridge regression (Rokem & Kay 2020, doi:10.1093/gigascience/giaa133).

Penalties are named by what they leave of the length of the least-squares coefficients, which makes
them comparable between voxels. The penalty of each voxel is the one under which responses to a
stimulus in some runs agree best with responses to it in another run. What differs: coefficients
shrink towards the voxel's mean response and not towards 0, since most of a response is common to
all stimuli; agreement is a correlation, because the scale is restored afterwards; and the
responses of the run left out are shrunk too (by the penalty of greatest marginal likelihood, the
same for all candidates), because least squares would bury them in noise where trials overlap.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from afterimage.preprocess.fmri.evidence import SNR_GRID, Decomposition

#: Penalties tried a decade when the penalty that leaves a fraction is interpolated.
PENALTIES_A_DECADE = 8
#: Fewer trials than this with a repeat in another run cannot choose a penalty.
MIN_REPEATED_TRIALS = 10


class Repeats:
    """Averages over the repeats of each trial's stimulus in other runs.

    Parameters
    ----------
    stimulus : (n_trials,) str
    runs : (n_trials,) int
    """

    def __init__(self, stimulus: np.ndarray, runs: np.ndarray) -> None:
        from scipy.sparse import csr_array

        n = len(stimulus)
        kind = np.unique(stimulus, return_inverse=True)[1].reshape(-1)
        # a stimulus within a run: repeats there share noise with the trial itself
        pair = np.unique(kind * (int(runs.max(initial=0)) + 1) + runs, return_inverse=True)[1]
        ones, trials = np.ones(n), np.arange(n)
        self._by_kind = csr_array((ones, (kind, trials)), shape=(kind.max(initial=-1) + 1, n))
        self._by_pair = csr_array((ones, (pair, trials)), shape=(pair.max(initial=-1) + 1, n))
        self._kind, self._pair = kind, pair
        count = np.bincount(kind)[kind] - np.bincount(pair)[pair] if n else np.zeros(0)
        self._rows = np.flatnonzero(count > 0)
        self._count = count[self._rows]

    @property
    def n_trials(self) -> int:
        """Number of trials whose stimulus was shown in another run too."""
        return len(self._rows)

    @property
    def enough(self) -> bool:
        """Whether repeats can choose anything."""
        return self.n_trials >= MIN_REPEATED_TRIALS

    def agreement(self, betas: np.ndarray, target: np.ndarray) -> np.ndarray:
        """Correlate averages of ``betas`` over other runs with the trials of ``target``.

        Parameters
        ----------
        betas, target : (n_trials, n) float64

        Returns
        -------
        (n,) float64
            0 where either does not vary.
        """
        betas = betas - betas.mean(axis=0)
        rows = self._rows
        elsewhere = (self._by_kind @ betas)[self._kind[rows]]
        elsewhere -= (self._by_pair @ betas)[self._pair[rows]]
        elsewhere /= self._count[:, None]
        elsewhere -= elsewhere.mean(axis=0)
        wanted = target[rows] - target[rows].mean(axis=0)
        power = (elsewhere**2).sum(axis=0) * (wanted**2).sum(axis=0)
        product = (elsewhere * wanted).sum(axis=0)
        return np.asarray(product / np.sqrt(np.where(power > 0, power, np.inf)))


@dataclass(frozen=True)
class Components:
    """Least-squares coefficients of some voxels in the singular vectors of several runs.

    Attributes
    ----------
    singular : (r,) float64
        Of all runs, one after the other.
    loading : (r,) float64
        What an amplitude of 1 in every trial adds.
    found : (r, n) float64
        The signal in these components.
    right : list of (r_run, n_trials_run)
    """

    singular: np.ndarray
    loading: np.ndarray
    found: np.ndarray
    right: list[np.ndarray]

    @classmethod
    def of(
        cls, parts: Sequence[Decomposition], cleaned: Sequence[np.ndarray], hrf: int
    ) -> Components:
        """Collect the components of runs for one response shape."""
        return cls(
            singular=np.concatenate([part.singular[hrf] for part in parts]),
            loading=np.concatenate([part.mean_loading[hrf] for part in parts]),
            found=np.concatenate(
                [part.components(hrf, block) for part, block in zip(parts, cleaned, strict=True)]
            ),
            right=[part.right[hrf] for part in parts],
        )

    def coefficients(self, mean: np.ndarray) -> np.ndarray:
        """Least-squares coefficients of what the mean response leaves, (r, n)."""
        return self.without(mean) / np.where(self.singular > 0, self.singular, np.inf)[:, None]

    def without(self, mean: np.ndarray) -> np.ndarray:
        """Components of the signal less the mean response (n,), (r, n)."""
        return self.found - self.loading[:, None] * mean

    def kept(self, alphas: np.ndarray) -> np.ndarray:
        """Share of each coefficient that a penalty a voxel (n,) leaves, (r, n)."""
        square = self.singular[:, None] ** 2
        return square / np.where(square + alphas > 0, square + alphas, 1.0)

    def betas(self, coefficients: np.ndarray) -> np.ndarray:
        """Turn coefficients (r, n) into trials, (n_trials, n)."""
        pieces, first = [], 0
        for right in self.right:
            pieces.append(right.T @ coefficients[first : first + len(right)])
            first += len(right)
        return np.concatenate(pieces)

    def alphas(self, coefficients: np.ndarray, fractions: np.ndarray) -> np.ndarray:
        """Penalties that leave these fractions of the length of the coefficients.

        Parameters
        ----------
        coefficients : (r, n) float64
        fractions : (n_fractions,) float64
            In (0, 1]; 1 is exactly no penalty.

        Returns
        -------
        (n_fractions, n) float64
        """
        alphas = np.zeros((len(fractions), coefficients.shape[1]))
        square = self.singular[self.singular > 0] ** 2
        if not len(square):
            return alphas
        low, high = np.log10(square.min()) - 3, np.log10(square.max()) + 5
        grid = np.logspace(low, high, int((high - low) * PENALTIES_A_DECADE) + 2)
        weight = (square / (square + grid[:, None])) ** 2
        power = coefficients[self.singular > 0] ** 2
        total = power.sum(axis=0)
        ratio = np.sqrt((weight @ power) / np.where(total > 0, total, 1.0))
        for voxel in np.flatnonzero(total > 0):
            # from strong to weak penalties, for np.interp wants increasing numbers
            exponent = np.interp(fractions, ratio[::-1, voxel], np.log10(grid[::-1]))
            alphas[:, voxel] = 10**exponent
        alphas[fractions >= 1] = 0
        return alphas


def likely_alphas(snr: np.ndarray) -> np.ndarray:
    """Penalty of greatest marginal likelihood: one over the signal-to-noise ratio, (n,)."""
    return 1 / np.maximum(snr, SNR_GRID[1])


def choose_alphas(
    components: Components,
    mean: np.ndarray,
    snr: np.ndarray,
    repeats: Repeats,
    fractions: np.ndarray,
) -> np.ndarray:
    """Penalty of each voxel, from repeats across runs, else from the marginal likelihood.

    Parameters
    ----------
    components : Components
        Of training trials.
    mean, snr : (n,) float64
        Mean response and signal-to-noise ratio of each voxel.
    repeats : Repeats
        Of the same trials.
    fractions : (n_fractions,) float64
        Candidates.

    Returns
    -------
    (n,) float64
    """
    likely = likely_alphas(snr)
    if not repeats.enough:
        return likely
    coefficients = components.coefficients(mean)
    target = components.betas(components.kept(likely) * coefficients)
    candidates = components.alphas(coefficients, fractions)
    best, chosen = np.zeros(len(mean)), likely.copy()
    for alphas in candidates:
        betas = components.betas(components.kept(alphas) * coefficients)
        score = repeats.agreement(betas, target)
        better = score > best
        best[better], chosen[better] = score[better], alphas[better]
    return chosen
