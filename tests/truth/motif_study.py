"""Tokenizers on planted motifs: what their tokens tell, beside k-means on spectra and the truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from afterimage.evaluation.token_features import histograms
from afterimage.simulate.motifs import MOTIFS, PlantedMotifs, frame_motifs
from afterimage.tokenizers.signals import Signal, new_signal
from afterimage.tokenizers.spectral import SpectralTokenizer


def signals_of(planted: PlantedMotifs) -> list[Signal]:
    """Make a signal of each recording."""
    names = [f"E{number + 1}" for number in range(planted.values.shape[1])]
    return [
        new_signal(values, planted.sfreq_hz, names, positions_m=planted.positions_m)
        for values in planted.values
    ]


def codes_of(tokenizer: SpectralTokenizer, planted: PlantedMotifs) -> NDArray[np.int64]:
    """Tokens of all recordings, (n_recordings, n_channels, n_frames)."""
    found = [tokenizer.encode(signal).codes[..., 0] for signal in signals_of(planted)]
    return np.stack(found).astype(np.int64)


def truth_of(
    tokenizer: SpectralTokenizer, planted: PlantedMotifs, n_frames: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Motif of each frame and the share of the frame it fills, (n_recordings, n_channels, n_frames)."""
    return frame_motifs(planted.motifs, tokenizer.span_samples, tokenizer.step_samples, n_frames)


def spectra_of(tokenizer: SpectralTokenizer, planted: PlantedMotifs) -> NDArray[np.float64]:
    """Standardised magnitudes of frames, (n_recordings, n_channels, n_frames, n_bins)."""
    return np.stack([tokenizer.target(tokenizer.prepare(one)) for one in signals_of(planted)])


@dataclass(frozen=True)
class Agreement:
    """How well codes go with motifs.

    Attributes
    ----------
    nmi_motifs, nmi_all : float
        Normalised mutual information over frames of a motif; with frames of none as a ninth.
    told : float
        Mutual information over the entropy of the motif, frames of a motif alone.
    perplexity, used : float
        Of the codes, all frames.
    """

    nmi_motifs: float
    nmi_all: float
    told: float
    perplexity: float
    used: float


def agreement(
    codes: NDArray[Any],
    truth: tuple[NDArray[np.int64], NDArray[np.float64]],
    codebook_size: int,
    least: float = 0.75,
) -> Agreement:
    """Compare codes with motifs, over frames of which one motif, or none, fills a share."""
    from sklearn.metrics import mutual_info_score, normalized_mutual_info_score

    share = np.bincount(codes.ravel(), minlength=codebook_size) / codes.size
    motifs, filled = truth
    codes, motifs = codes[filled >= least], motifs[filled >= least]
    on = motifs > 0
    entropy = -(share[share > 0] * np.log(share[share > 0])).sum()
    return Agreement(
        nmi_motifs=float(normalized_mutual_info_score(motifs[on], codes[on])),
        nmi_all=float(normalized_mutual_info_score(motifs, codes)),
        told=float(
            mutual_info_score(motifs[on], codes[on]) / mutual_info_score(motifs[on], motifs[on])
        ),
        perplexity=float(np.exp(entropy)),
        used=float((share > 0).mean()),
    )


def k_means_codes(
    train: NDArray[np.floating], others: Sequence[NDArray[np.floating]], size: int
) -> list[NDArray[np.int64]]:
    """Codes of k-means on spectra (..., n_bins), fitted on the first."""
    from sklearn.cluster import KMeans

    n_bins = train.shape[-1]
    model = KMeans(size, n_init=1, max_iter=60, random_state=0).fit(train.reshape(-1, n_bins))
    return [model.predict(one.reshape(-1, n_bins)).reshape(one.shape[:-1]) for one in others]


def probe(
    train: NDArray[Any], train_labels: NDArray[Any], test: NDArray[Any], labels: NDArray[Any]
) -> float:
    """Accuracy of logistic regression on features of recordings (n, n_features)."""
    from sklearn.linear_model import LogisticRegressionCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = LogisticRegressionCV(
        Cs=np.logspace(-4, 1, 6), l1_ratios=(0,), cv=5, max_iter=500, use_legacy_attributes=False
    )
    return float(
        make_pipeline(StandardScaler(), model).fit(train, train_labels).score(test, labels)
    )


def counts(codes: NDArray[Any], size: int) -> NDArray[np.float64]:
    """Histogram of one stage's codes (n_recordings, n_channels, n_frames)."""
    return histograms(list(codes[..., None]), size)


def band_power(spectra: NDArray[np.floating], frame_s: float) -> NDArray[np.float64]:
    """Mean log power of five bands of each recording, mean of channels, (n_recordings, 5)."""
    edges = np.array([1, 4, 8, 13, 30, 80]) * frame_s
    power = [
        np.log(np.square(spectra[..., int(low) : int(high)]).mean((1, 2, 3)))
        for low, high in zip(edges[:-1], edges[1:], strict=True)
    ]
    return np.stack(power, axis=1)


N_MOTIFS = len(MOTIFS)
