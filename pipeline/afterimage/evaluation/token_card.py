"""The card of a tokenizer: how much comes back, how the codes are used, what they stand for.

Perplexity and use of codebooks as in van den Oord et al. 2017, arXiv:1711.00937. What differs: use
is counted on people never seen; that a code stands for a rhythm or an event is tested on people who
were not asked what it stands for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

#: Bands of the token-to-frequency table, Hz.
BANDS = {"delta": (1, 4), "theta": (4, 8), "alpha": (8, 13), "beta": (13, 30), "gamma": (30, 45)}
#: A token is looked at together with what is around it, so that slow rhythms can be seen, s.
CONTEXT_S = 1.0


def channel_correlations(
    target: NDArray[np.floating], decoded: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Return the correlation over time (and bins) of each channel; NaN where one does not vary.

    Parameters
    ----------
    target, decoded : ndarray, (n_channels, n_times) or (n_channels, n_steps, n_bins)
    """
    flat = (np.asarray(x, np.float64).reshape(len(x), -1) for x in (target, decoded))
    a, b = (x - x.mean(1, keepdims=True) for x in flat)
    size = np.sqrt((a**2).sum(1) * (b**2).sum(1))
    found: NDArray[np.float64] = (a * b).sum(1) / np.where(size > 1e-12, size, np.nan)
    return found


@dataclass(frozen=True)
class StageUse:
    """How the codes of one stage are used.

    Attributes
    ----------
    perplexity : float
        Number of codes that, used alike, would say as much.
    used : float
        Share of the codes that occur.
    entropy_bits : float
        Bits that a token of the stage says on average.
    """

    perplexity: float
    used: float
    entropy_bits: float


def stage_use(codes: Sequence[NDArray[np.integer]], codebook_size: int) -> list[StageUse]:
    """Count the codes of each stage.

    Parameters
    ----------
    codes : sequence of ndarray of int, (n_streams, n_steps, n_stages)
    codebook_size : int
    """
    found = []
    for stage in range(codes[0].shape[2]):
        counts = sum(np.bincount(c[..., stage].ravel(), minlength=codebook_size) for c in codes)
        share = np.asarray(counts) / np.sum(counts)
        bits = float(-np.sum(share[share > 0] * np.log2(share[share > 0])))
        found.append(StageUse(2.0**bits, float((share > 0).mean()), bits))
    return found


def stream_values(
    values: NDArray[np.float32],
    names: NDArray[np.str_],
    regions: NDArray[np.str_],
    streams: NDArray[np.str_],
) -> NDArray[np.float32]:
    """Return what the signal of each stream of tokens is shown as.

    Its channel, or the mean of the channels of its region. Streams that are neither, such as
    latent sources, are shown on the first principal component over channels.

    Returns
    -------
    ndarray of float32, (n_streams, n_times)
    """
    channel = {name: number for number, name in enumerate(names.tolist())}
    centred = values - values.mean(1, keepdims=True)
    main: NDArray[np.float32] | None = None
    rows = []
    for stream in streams.tolist():
        if stream in channel:
            rows.append(values[channel[stream]])
        elif stream and stream in regions:
            rows.append(values[regions == stream].mean(0))
        else:
            if main is None:
                _, vectors = np.linalg.eigh(centred @ centred.T)
                main = (vectors[:, -1] @ centred).astype(np.float32)
            rows.append(main)
    return np.stack(rows)


def token_segments(
    values: NDArray[np.float32], n_steps: int, step_samples: int, span_samples: int, rate_hz: float
) -> NDArray[np.float32]:
    """Cut out what every token stands for, with a second around it at least.

    Parameters
    ----------
    values : ndarray of float32, (n_streams, n_times)
    n_steps, step_samples, span_samples : int
        Of the tokens.
    rate_hz : float

    Returns
    -------
    ndarray of float32, (n_streams, n_steps, n_samples)
        Beyond the ends the signal is 0. A view.
    """
    width = max(span_samples, round(CONTEXT_S * rate_hz))
    before = (width - span_samples) // 2
    padded = np.pad(values, ((0, 0), (before, width)))
    cut = np.lib.stride_tricks.sliding_window_view(padded, width, axis=1)
    found: NDArray[np.float32] = cut[:, ::step_samples][:, :n_steps]
    return found


class CodeMeanings:
    """Mean spectrum, examples and mean shape of the most used codes, gathered over recordings.

    Parameters
    ----------
    shares : ndarray of float, (codebook_size,)
        Share of each code of the first stage, in the training part.
    n_codes, n_examples : int
        Codes looked at, the most used first, and examples of each.
    """

    def __init__(
        self, shares: NDArray[np.floating], n_codes: int = 16, n_examples: int = 8
    ) -> None:
        order = np.argsort(-np.asarray(shares), kind="stable")[:n_codes]
        self.codes = order[np.asarray(shares)[order] > 0]
        self.shares = np.asarray(shares)[self.codes]
        self.n_examples = n_examples
        self._sums: dict[int, NDArray[np.float64]] = {}
        self._waves: dict[int, NDArray[np.float64]] = {}
        self._counts: dict[int, int] = {}
        self._examples: dict[int, list[NDArray[np.float32]]] = {}
        self._all = (np.zeros(0), 0)
        self.frequency_hz: NDArray[np.floating] = np.zeros(0)

    def add(
        self, codes: NDArray[np.integer], segments: NDArray[np.float32], rate_hz: float
    ) -> None:
        """Add one recording: codes (n_streams, n_steps), segments (..., n_samples)."""
        flat = np.ascontiguousarray(segments).reshape(-1, segments.shape[-1])
        power = segment_power(flat)
        self.frequency_hz = np.fft.rfftfreq(segments.shape[-1], 1 / rate_hz)
        total, n = self._all
        self._all = (power.sum(0) + (total if n else 0.0), n + len(power))
        said = codes.ravel()
        for code in self.codes.tolist():
            here = np.flatnonzero(said == code)
            if not len(here):
                continue
            self._sums[code] = self._sums.get(code, 0.0) + power[here].sum(0)
            self._waves[code] = self._waves.get(code, 0.0) + flat[here].sum(0, dtype=np.float64)
            self._counts[code] = self._counts.get(code, 0) + len(here)
            kept = self._examples.setdefault(code, [])
            few = here[np.linspace(0, len(here) - 1, min(2, len(here))).astype(int)]
            kept += [flat[place] for place in few[: self.n_examples - len(kept)]]

    def arrays(self) -> dict[str, NDArray[np.float32]]:
        """Return ``codes``, ``shares``, ``frequency_hz``, ``spectra``, ``motifs``, ``examples``.

        Spectra (n_codes, n_frequencies) are in dB beside the mean of all tokens, motifs (n_codes,
        n_samples) the mean of what a code stands for, examples (n_codes, n_examples, n_samples) NaN
        where there are fewer.
        """
        total, n = self._all
        mean = total / max(n, 1)
        shown = [code for code in self.codes.tolist() if self._counts.get(code)]
        n_samples = len(self._waves[shown[0]]) if shown else 0
        examples = np.full((len(shown), self.n_examples, n_samples), np.nan)
        for row, code in enumerate(shown):
            kept = self._examples[code]
            examples[row, : len(kept)] = kept
        spectra = [
            10 * np.log10((self._sums[c] / self._counts[c] + 1e-12) / (mean + 1e-12))
            for c in shown
        ]
        share = dict(zip(self.codes.tolist(), self.shares.tolist(), strict=True))
        found = {
            "codes": np.array(shown), "shares": np.array([share[c] for c in shown]),
            "frequency_hz": self.frequency_hz,
            "spectra": np.array(spectra).reshape(len(shown), -1),
            "motifs": np.array([self._waves[c] / self._counts[c] for c in shown]),
            "examples": examples,
        }  # fmt: skip
        return {key: np.asarray(array, np.float32) for key, array in found.items()}

    def table(self) -> list[dict[str, str | float]]:
        """Return a row a code: share, frequency and band that stand out, amplitude."""
        arrays = self.arrays()
        frequency = arrays["frequency_hz"]
        inside = (frequency >= 1) & (frequency <= 45)
        rows: list[dict[str, str | float]] = []
        for code, share, spectrum, motif in zip(
            *(arrays[key] for key in ("codes", "shares", "spectra", "motifs")), strict=True
        ):
            of_band = {
                name: float(spectrum[(frequency >= low) & (frequency < high)].mean())
                for name, (low, high) in BANDS.items()
                if ((frequency >= low) & (frequency < high)).any()
            }
            peak = int(np.argmax(np.where(inside, spectrum, -np.inf)))
            rows.append(
                {
                    "code": int(code), "share": float(share),
                    "peak_hz": float(frequency[peak]), "peak_db": float(spectrum[peak]),
                    "band": max(of_band, key=lambda name: of_band[name]) if of_band else "n/a",
                    "power_db": float(10 * np.log10(np.mean(10 ** (spectrum[inside] / 10)))),
                    "motif_amplitude": float(np.ptp(motif)),
                }
            )  # fmt: skip
        return rows


def segment_power(segments: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the power spectrum of segments (n, n_samples), Hann window, (n, n_frequencies)."""
    window = np.hanning(segments.shape[-1] + 2)[1:-1]
    centred = segments - segments.mean(-1, keepdims=True)
    found: NDArray[np.float64] = np.abs(np.fft.rfft(centred * window, axis=-1)) ** 2
    return found


def band_power(segments: NDArray[np.float32], rate_hz: float) -> NDArray[np.float64]:
    """Return the log power of segments (..., n_samples) in the bands of `BANDS`, (n, n_bands)."""
    flat = np.ascontiguousarray(segments).reshape(-1, segments.shape[-1])
    power = segment_power(flat)
    frequency = np.fft.rfftfreq(flat.shape[-1], 1 / rate_hz)
    columns = []
    for low, high in BANDS.values():
        inside = (frequency >= low) & (frequency < high)
        if inside.any():
            columns.append(np.log10(power[:, inside].mean(1) + 1e-9))
    return np.stack(columns, axis=1)


def power_told(
    train: Sequence[tuple[NDArray[np.integer], NDArray[np.floating]]],
    test: Sequence[tuple[NDArray[np.integer], NDArray[np.floating]]],
    codebook_size: int,
) -> NDArray[np.float64]:
    """Return how much of the band power around it a token tells, a test recording.

    The mean log power of each code is taken from the training part and used as prediction: R2, mean
    over bands. It is 0 or less where a code does not tell what rhythm it stands for.

    Parameters
    ----------
    train, test : sequence of (codes (n,), powers (n, n_bands))
        One a recording; codes of the first stage.
    codebook_size : int

    Returns
    -------
    ndarray of float64, (n_test,)
    """
    sums = np.zeros((codebook_size, train[0][1].shape[1]))
    counts = np.zeros(codebook_size)
    for codes, powers in train:
        np.add.at(sums, codes.ravel(), powers)
        counts += np.bincount(codes.ravel(), minlength=codebook_size)
    overall = sums.sum(0) / counts.sum()
    # A code seen a few times is drawn towards the mean of all.
    means = (sums + 5 * overall) / (counts + 5)[:, None]
    scores = []
    for codes, powers in test:
        error = ((powers - means[codes.ravel()]) ** 2).sum(0)
        spread = ((powers - overall) ** 2).sum(0)
        scores.append(float(np.mean(1 - error / np.maximum(spread, 1e-12))))
    return np.array(scores)


@dataclass(frozen=True)
class EventTable:
    """How codes and kinds of events go together.

    Attributes
    ----------
    kinds : list of str
    rates : ndarray of float, (codebook_size, n_kinds)
        Share of a code after events of a kind, over its share everywhere; NaN where it is not seen.
    information_bits : float
        Mutual information of a token after an event and the kind of the event.
    chance_bits, chance_high_bits, p : float
        Mean and 97.5 % quantile of it with the kinds permuted within recordings, and the share of
        permutations with as much or more.
    n_events : int
    """

    kinds: list[str]
    rates: NDArray[np.float64]
    information_bits: float
    chance_bits: float
    chance_high_bits: float
    p: float
    n_events: int


def event_table(
    recordings: Sequence[tuple[NDArray[np.integer], NDArray[np.int64], Sequence[str]]],
    codebook_size: int,
    n_after: int,
    *,
    n_permutations: int = 200,
    random_state: int = 0,
) -> EventTable | None:
    """Count the codes after each kind of event.

    Parameters
    ----------
    recordings : sequence of (codes (n_streams, n_steps), steps (n_events,), kinds (n_events,))
        Codes of the first stage, the step at which each event began, and its kind.
    codebook_size : int
    n_after : int
        Steps after the start of an event that belong to it.
    n_permutations, random_state : int

    Returns
    -------
    EventTable or None
        None with fewer than two kinds of events.
    """
    names = sorted({kind for *_, kinds in recordings for kind in kinds})
    overall = np.zeros(codebook_size)
    counts, labels, groups = [], [], []
    for number, (codes, steps, kinds) in enumerate(recordings):
        overall += np.bincount(codes.ravel(), minlength=codebook_size)
        for step, kind in zip(steps.tolist(), kinds, strict=True):
            if step + n_after <= codes.shape[1]:
                after = codes[:, step : step + n_after].ravel()
                counts.append(np.bincount(after, minlength=codebook_size))
                labels.append(names.index(kind))
                groups.append(number)
    if len(set(labels)) < 2:
        return None
    table, label, group = np.array(counts, np.float64), np.array(labels), np.array(groups)
    used = table.any(0)
    small = table[:, used]

    def information(label: NDArray[np.int64]) -> float:
        joint = np.stack([small[label == k].sum(0) for k in range(len(names))])
        joint = joint / joint.sum()
        independent = joint.sum(0) * joint.sum(1, keepdims=True)
        inside = joint > 0
        return float((joint[inside] * np.log2(joint[inside] / independent[inside])).sum())

    rng = np.random.default_rng(random_state)
    observed, null = information(label), []
    for _ in range(n_permutations):
        mixed = label.copy()
        for number in np.unique(group):
            here = np.flatnonzero(group == number)
            mixed[here] = rng.permutation(label[here])
        null.append(information(mixed))
    after_kind = np.stack([table[label == k].sum(0) for k in range(len(names))], axis=1)
    everywhere = np.where(overall > 0, overall / overall.sum(), np.nan)
    rates = after_kind / np.maximum(after_kind.sum(0), 1) / everywhere[:, None]
    p = (1 + sum(value >= observed - 1e-12 for value in null)) / (1 + n_permutations)
    return EventTable(
        names, rates, observed, float(np.mean(null)), float(np.quantile(null, 0.975)), p,
        len(label),
    )  # fmt: skip


def mean_of_groups(
    values: Sequence[float] | NDArray[np.floating],
    groups: Sequence[str],
    n_bootstraps: int,
    random_state: int = 0,
) -> Mapping[str, float]:
    """Return mean, 95 % interval over groups (people) and their number; NaN values are left out."""
    from afterimage.evaluation.statistics import bootstrap_interval

    array, names = np.asarray(values, np.float64), np.asarray(groups)
    kept = np.isfinite(array)
    if not kept.any():
        return {"value": np.nan, "ci_low": np.nan, "ci_high": np.nan, "n": 0}
    means = np.array([array[kept & (names == g)].mean() for g in np.unique(names[kept])])
    low = high = np.nan
    if len(means) > 1:
        low, high = bootstrap_interval(means, n_bootstraps=n_bootstraps, random_state=random_state)
    return {"value": float(means.mean()), "ci_low": low, "ci_high": high, "n": len(means)}
