"""What tokens can be guessed from without a network: their frequency, the last one, a neighbour.

The masked-token cross-entropy of a model means little beside these: many tokenizers say the same
token twice in a row, and copying a neighbour then beats chance by far.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

#: Counts that the unigram lends to the bigram of a token that was rarely seen.
PRIOR = 10.0


class CodeGuesses:
    """Unigram, bigram and copy-neighbour predictors of one stage of codes.

    The rivals are given all neighbours, also those that would be hidden from a masked model.

    Parameters
    ----------
    recordings : sequence of ndarray of int, (n_streams, n_steps)
        Codes of the training part.
    codebook_size : int

    Attributes
    ----------
    unigram_ : ndarray of float64, (codebook_size,)
        Share of each code, one count added to each.
    copied_ : float
        Weight of the neighbours in the copy predictor, the best of the training part.
    """

    def __init__(self, recordings: Sequence[NDArray[np.integer]], codebook_size: int) -> None:
        self.codebook_size = codebook_size
        counts = np.zeros(codebook_size)
        keys: list[NDArray[np.int64]] = []
        for codes in recordings:
            counts += np.bincount(codes.ravel(), minlength=codebook_size)
            before, after = codes[:, :-1].astype(np.int64), codes[:, 1:].astype(np.int64)
            keys.append((before * codebook_size + after).ravel())
        self.unigram_ = (counts + 1) / (counts.sum() + codebook_size)
        # A table of all pairs would not fit into memory for large codebooks.
        empty = np.zeros(0, np.int64)
        pairs = np.concatenate(keys) if keys else empty
        self._pairs, self._pair_counts = np.unique(pairs, return_counts=True)
        self._before = np.bincount(pairs // codebook_size, minlength=codebook_size)
        weights = np.linspace(0.0, 0.99, 34)
        losses = [
            sum(float(self._copy(codes, weight).sum()) for codes in recordings)
            for weight in weights
        ]
        self.copied_ = float(weights[int(np.argmin(losses))])

    def losses(self, codes: NDArray[np.integer]) -> dict[str, float]:
        """Return the cross-entropy of the tokens of a recording, nats a token.

        Parameters
        ----------
        codes : ndarray of int, (n_streams, n_steps)

        Returns
        -------
        dict of float
            ``chance`` (all codes alike), ``unigram``, ``bigram`` (of the token before),
            ``copy neighbour`` (the tokens before and after, mixed with the unigram).
        """
        return {
            "chance": float(np.log(self.codebook_size)),
            "unigram": float(-np.log(self.unigram_[codes]).mean()),
            "bigram": float(self._bigram(codes).mean()),
            "copy neighbour": float(self._copy(codes, self.copied_).mean()),
        }

    def _bigram(self, codes: NDArray[np.integer]) -> NDArray[np.float64]:
        """Return -log p of each token given the one before, (n_streams, n_steps)."""
        share = self.unigram_[codes]
        if codes.shape[1] > 1:
            before, after = codes[:, :-1].astype(np.int64), codes[:, 1:].astype(np.int64)
            keys = before * self.codebook_size + after
            place = np.minimum(np.searchsorted(self._pairs, keys), max(0, len(self._pairs) - 1))
            seen = np.zeros(keys.shape)
            if len(self._pairs):
                found = self._pairs[place] == keys
                seen = np.where(found, self._pair_counts[place], 0)
            share = share.copy()
            share[:, 1:] = (seen + PRIOR * share[:, 1:]) / (self._before[before] + PRIOR)
        result: NDArray[np.float64] = -np.log(share)
        return result

    def _copy(self, codes: NDArray[np.integer], weight: float) -> NDArray[np.float64]:
        """Return -log p of each token given those beside it, (n_streams, n_steps)."""
        share = self.unigram_[codes]
        if codes.shape[1] > 1:
            same = codes[:, 1:] == codes[:, :-1]
            agree = np.zeros(codes.shape)
            agree[:, 1:] += same
            agree[:, :-1] += same
            agree[:, 1:-1] /= 2  # those at the ends have one neighbour
            share = weight * agree + (1 - weight) * share
        result: NDArray[np.float64] = -np.log(share)
        return result


class PatchMeans:
    """k-means of raw patches of single channels, at the rate and vocabulary of a tokenizer.

    What a tokenizer must beat: the same number of codes a channel and second, without a network.

    Parameters
    ----------
    recordings : sequence of ndarray of float32, (n_channels, n_times)
        The training part, standardised.
    patch_samples : int
        Samples of a patch: a step of the tokenizer.
    codebook_size, n_stages : int
        As of the tokenizer; each stage codes what is left by the last.
    random_state : int
    """

    #: Patches that the codes are fitted on, at most.
    N_PATCHES = 20_000

    def __init__(
        self,
        recordings: Sequence[NDArray[np.float32]],
        patch_samples: int,
        codebook_size: int,
        n_stages: int,
        random_state: int = 0,
    ) -> None:
        from sklearn.cluster import MiniBatchKMeans

        self.patch_samples = patch_samples
        patches = np.concatenate([self._cut(values) for values in recordings])
        rng = np.random.default_rng(random_state)
        left = patches[rng.permutation(len(patches))[: self.N_PATCHES]]
        self.stages_ = []
        for _ in range(n_stages):
            model = MiniBatchKMeans(
                min(codebook_size, len(left)), n_init=1, batch_size=4096, max_iter=20,
                random_state=random_state,
            ).fit(left)  # fmt: skip
            left = left - model.cluster_centers_[model.predict(left)]
            self.stages_.append(model)

    def _cut(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        whole = values.shape[1] // self.patch_samples * self.patch_samples
        return np.ascontiguousarray(values[:, :whole]).reshape(-1, self.patch_samples)

    def come_back(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return what the codes say a recording (n_channels, n_times) was, its whole patches."""
        left = self._cut(values)
        said = np.zeros_like(left)
        for model in self.stages_:
            said += model.cluster_centers_[model.predict(left - said)].astype(np.float32)
        return said.reshape(len(values), -1)
