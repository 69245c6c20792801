"""Tokens as features: histograms of codes, and naive Bayes over n-grams of them.

Naive Bayes over n-grams of codes is how EEGFormer (Chen et al. 2024, arXiv:2401.10278) shows what its
codes stand for. What differs: a run of one code counts once, so that an n-gram says what follows
what and not how long it lasts; n-grams do not cross streams.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline


def histograms(
    codes: Sequence[NDArray[np.integer]], codebook_size: int, *, by_stream: bool = False
) -> NDArray[np.float64]:
    """Return the share of each code in each recording.

    Parameters
    ----------
    codes : sequence of ndarray of int, (n_streams, n_steps, n_stages)
        One a recording.
    codebook_size : int
    by_stream : bool
        Count each stream for itself; recordings must then have the same streams.

    Returns
    -------
    ndarray of float64, (n_recordings, n_stages * codebook_size)
        Or, by stream, (n_recordings, n_streams * n_stages * codebook_size).
    """
    rows = []
    for one in codes:
        n_streams, n_steps, n_stages = one.shape
        place = one + codebook_size * np.arange(n_stages)  # (n_streams, n_steps, n_stages)
        place = place + n_stages * codebook_size * np.arange(n_streams)[:, None, None]
        size = n_streams * n_stages * codebook_size
        counts = np.bincount(place.ravel(), minlength=size).reshape(n_streams, -1) / n_steps
        rows.append(counts.ravel() if by_stream else counts.mean(0))
    return np.stack(rows)


def ngrams(codes: NDArray[np.integer], longest: int) -> list[str]:
    """Return the n-grams of one recording, of one code up to ``longest``.

    Parameters
    ----------
    codes : ndarray of int, (n_streams, n_steps)
        Of one stage.
    longest : int
    """
    found = []
    for stream in codes:
        changed = np.append(True, stream[1:] != stream[:-1])
        words = stream[changed].tolist()
        for n in range(1, longest + 1):
            found += ["-".join(map(str, words[at : at + n])) for at in range(len(words) - n + 1)]
    return found


def ngram_bayes(longest: int) -> Pipeline:
    """Return an untrained multinomial naive Bayes over n-grams up to ``longest``.

    Its ``fit`` and ``predict`` take a list of codes (n_streams, n_steps), one a recording. N-grams
    that the training part does not have are left out.
    """
    from functools import partial

    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.naive_bayes import MultinomialNB
    from sklearn.pipeline import make_pipeline

    words = CountVectorizer(analyzer=partial(ngrams, longest=longest))
    return make_pipeline(words, MultinomialNB())
