"""Tokenizers on planted motifs: what their tokens tell, beside k-means on spectra and the truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from afterimage.evaluation.token_features import histograms, ngram_bayes
from afterimage.simulate.motifs import MOTIFS, PlantedMotifs, frame_motifs, planted_motifs
from afterimage.tokenizers.signals import Signal, new_signal
from afterimage.tokenizers.spectral import SpectralTokenizer
from afterimage.tokenizers.tfm import Tfm


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


def spectra_of(
    tokenizer: SpectralTokenizer, planted: PlantedMotifs, *, plain: bool = False
) -> NDArray[np.float64]:
    """Return what codes are to say, or plain magnitudes, (n_recordings, n_channels, n_frames, bins)."""
    import torch

    prepared = [tokenizer.prepare(one) for one in signals_of(planted)]
    if not plain:
        return np.stack([tokenizer.target(one) for one in prepared])
    frames = tokenizer.network_.frames
    return np.stack([frames(torch.from_numpy(one.values))[2].numpy() for one in prepared])


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


def band_power(planted: PlantedMotifs) -> NDArray[np.float64]:
    """Log power of five bands by Welch's method, relative to the sum, (n_items, 5)."""
    from scipy.signal import welch

    hz, power = welch(planted.values, planted.sfreq_hz, nperseg=round(planted.sfreq_hz))
    edges = (1, 4, 8, 13, 30, 80)
    bands = [power[..., (hz >= low) & (hz < high)].sum(-1) for low, high in pairwise(edges)]
    stacked = np.log(np.stack(bands, axis=-1)).reshape(-1, 5)
    centred: NDArray[np.float64] = stacked - stacked.mean(1, keepdims=True)
    return centred


def items(codes: NDArray[Any]) -> list[NDArray[np.int64]]:
    """Each channel of each recording by itself: (1, n_frames) of (n_recordings, n_channels, ...)."""
    return [stream[None] for recording in codes for stream in recording]


def labels_of(planted: PlantedMotifs) -> NDArray[np.int64]:
    """State of each item of `items`."""
    return np.repeat(planted.states, planted.values.shape[1])


@dataclass(frozen=True)
class Found:
    """All that is asked of a tokenizer on planted motifs; accuracies are of four states.

    Attributes
    ----------
    agreement, k_means, k_means_smooth : Agreement
        Of the tokens; of k-means on the spectra of the same frames, and on what codes are to say.
    probe, probe_k_means, probe_truth : float
        Of histograms of tokens, of codes of k-means, and of the motifs planted.
    average, electrode : float
        The probe on channels never seen, with each of two references never seen.
    bayes, bayes_truth, band_power : float
        Naive Bayes over n-grams of tokens, of motifs; logistic regression on band power.
    shifted : float
        Share of the tokens that stay when the recording begins one hop later.
    r : float
        Correlation of what is decoded with the target.
    """

    agreement: Agreement
    all_frames: Agreement
    k_means: Agreement
    k_means_smooth: Agreement
    probe: float
    probe_k_means: float
    probe_truth: float
    average: float
    electrode: float
    bayes: float
    bayes_truth: float
    band_power: float
    shifted: float
    r: float


SEEN, UNSEEN = range(16), range(16, 20)


def data(
    n_train: int, n_test: int, duration_s: float, random_state: int
) -> dict[str, PlantedMotifs]:
    """Draw recordings to learn from and to be judged on; the last two with a montage never seen."""
    seeds = [10 * random_state + number for number in range(1, 5)]
    shared: dict[str, Any] = {"duration_s": duration_s}
    return {
        "train": planted_motifs(n_train, channels=SEEN, random_state=seeds[0], **shared),
        "test": planted_motifs(n_test, channels=SEEN, random_state=seeds[1], **shared),
        "average": planted_motifs(
            4 * n_test, channels=UNSEEN, reference="average", random_state=seeds[2], **shared
        ),
        "electrode": planted_motifs(
            4 * n_test, channels=UNSEEN, reference="electrode", random_state=seeds[3], **shared
        ),
    }


def study(tokenizer: SpectralTokenizer, sets: dict[str, PlantedMotifs]) -> Found:
    """Ask all of a fitted tokenizer."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    size = tokenizer.settings.quantiser.codebook_size
    codes = {name: codes_of(tokenizer, planted) for name, planted in sets.items()}
    n_frames = codes["test"].shape[-1]
    truth = {name: truth_of(tokenizer, planted, n_frames) for name, planted in sets.items()}
    labels = {name: labels_of(planted) for name, planted in sets.items()}

    def accuracy(features: dict[str, NDArray[Any]]) -> dict[str, float]:
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=500))
        model.fit(features["train"], labels["train"])
        return {name: float(model.score(features[name], labels[name])) for name in features}

    def counted(some: dict[str, NDArray[Any]], n_codes: int) -> dict[str, NDArray[Any]]:
        return {
            name: histograms([item[..., None] for item in items(one)], n_codes)
            for name, one in some.items()
        }

    def bayes(some: dict[str, NDArray[Any]]) -> float:
        model = ngram_bayes(2).fit(items(some["train"]), labels["train"])
        return float(model.score(items(some["test"]), labels["test"]))

    plain = {name: spectra_of(tokenizer, sets[name], plain=True) for name in ("train", "test")}
    smooth = {name: spectra_of(tokenizer, sets[name]) for name in ("train", "test")}
    clusters = k_means_codes(plain["train"], [plain["train"], plain["test"]], size)
    near = k_means_codes(smooth["train"], [smooth["test"]], size)[0]
    probes = accuracy(counted(codes, size))
    motifs = {name: truth[name][0] for name in ("train", "test")}
    both = dict(zip(("train", "test"), clusters, strict=True))
    power = {name: band_power(sets[name]) for name in ("train", "test")}
    return Found(
        agreement=agreement(codes["test"], truth["test"], size),
        all_frames=agreement(codes["test"], truth["test"], size, least=0.0),
        k_means=agreement(clusters[1], truth["test"], size),
        k_means_smooth=agreement(near, truth["test"], size),
        probe=probes["test"],
        probe_k_means=accuracy(counted(both, size))["test"],
        probe_truth=accuracy(counted(motifs, N_MOTIFS + 1))["test"],
        average=probes["average"],
        electrode=probes["electrode"],
        bayes=bayes(codes),
        bayes_truth=bayes(motifs),
        band_power=accuracy(power)["test"],
        shifted=shifted(tokenizer, sets["test"]),
        r=reconstruction(tokenizer, sets["test"]),
    )


def shifted(tokenizer: SpectralTokenizer, planted: PlantedMotifs) -> float:
    """Share of tokens that stay the same when a recording begins one hop later."""
    same = []
    for signal in signals_of(planted)[:8]:
        later = signal.crop(tokenizer.step_samples, signal.n_times)
        a, b = (tokenizer.encode(one).codes[..., 0] for one in (signal, later))
        same.append(np.mean(a[:, 1 : 1 + b.shape[1]] == b))
    return float(np.mean(same))


def reconstruction(tokenizer: SpectralTokenizer, planted: PlantedMotifs) -> float:
    """Correlation over frames and bins of what is decoded, mean of channels."""
    found = []
    for signal in signals_of(planted)[:8]:
        target = tokenizer.target(tokenizer.prepare(signal))
        said = tokenizer.decode(tokenizer.encode(signal), signal)
        found += [
            np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(target, said, strict=True)
        ]
    return float(np.mean(found))


def told_of_hidden(tokenizer: Tfm, planted: PlantedMotifs) -> tuple[float, float]:
    """Share of the variance of spectra that is told with all of them hidden, and with none.

    The first is 0 at best where nothing leaks: all that is given are the masks.
    """
    import torch

    network = tokenizer.network_
    found = []
    for share in (0.0, 1.0):
        error = spread = 0.0
        for signal in signals_of(planted)[:8]:
            values = torch.from_numpy(tokenizer.prepare(signal).values)[
                :, : tokenizer.window_samples
            ]
            with torch.inference_mode():
                target = network.look(values)
                seen = torch.full((*target.shape[:2], network.n_bands), share > 0)
                latents = torch.nn.functional.normalize(
                    network.narrow(network.latents(values, seen)), dim=-1
                )
                said = network.spectra(network.quantiser(latents)[0])
                error += float((said - target).square().sum())
                spread += float((target - target.mean((0, 1))).square().sum())
        found.append(1 - error / spread)
    return found[0], found[1]


N_MOTIFS = len(MOTIFS)
