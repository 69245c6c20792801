"""How well BrainTokenizer says what sensors of layouts it has seen, or has never seen, measure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from afterimage.simulate.sensor_layouts import SeenSources, SharedSources, draw_sources, record
from afterimage.tokenizers.brain_tokenizer import BrainTokenizer
from afterimage.tokenizers.signals import Signal, new_signal

#: Sensor noise over signal, variance, in all recordings.
NOISE_SHARE = 0.3


def signal_of(seen: SeenSources) -> Signal:
    """Return a simulated recording as tokenizers take it."""
    return new_signal(
        seen.values, seen.sfreq_hz, seen.names, seen.kinds,
        positions_m=seen.positions_m, orientations=seen.orientations,
    )  # fmt: skip


def recordings(
    sources: SharedSources, layout: str, seeds: Sequence[int], **more: Any
) -> list[SeenSources]:
    """Record people with one layout."""
    return [
        record(sources, layout, noise_share=NOISE_SHARE, random_state=seed, **more)
        for seed in seeds
    ]


def correlations(found: NDArray[Any], target: NDArray[Any], width: int) -> NDArray[np.float64]:
    """Correlate series window by window: (n_channels, n_windows)."""
    n_windows = min(found.shape[1], target.shape[1]) // width
    both = [
        a[:, : n_windows * width].reshape(len(a), n_windows, width).astype(np.float64)
        for a in (found, target)
    ]
    first, second = (a - a.mean(-1, keepdims=True) for a in both)
    lengths = np.linalg.norm(first, axis=-1) * np.linalg.norm(second, axis=-1)
    correlation: NDArray[np.float64] = (first * second).sum(-1) / np.maximum(lengths, 1e-30)
    return correlation


def spline(seen: SeenSources, dropped: NDArray[np.int64]) -> NDArray[np.float64]:
    """Interpolate dropped channels from the others as MNE does (Perrin et al. 1989)."""
    import mne

    from afterimage.simulate.meeg_geometry import CENTRE_M

    raw = mne.io.RawArray(seen.values.astype(np.float64), seen.info.copy(), verbose="error")
    raw.info["bads"] = [seen.names[channel] for channel in dropped]
    raw.interpolate_bads(mode="accurate", origin=tuple(CENTRE_M), verbose="error")
    return raw.get_data()[dropped]


def known_field(seen: SeenSources, dropped: NDArray[np.int64]) -> NDArray[np.float64]:
    """Predict dropped channels by the best linear filter of one sample of the others.

    It knows the dipoles, their fields and the noise; it does not use that courses are smooth.
    """
    kept = np.setdiff1d(np.arange(len(seen.field)), dropped)
    signal = seen.field @ np.cov(seen.courses) @ seen.field.T
    noise = NOISE_SHARE * np.diag(signal).mean() * np.eye(len(kept))
    weights = signal[np.ix_(dropped, kept)] @ np.linalg.inv(signal[np.ix_(kept, kept)] + noise)
    return weights @ seen.values[kept]


def layout_scores(
    tokenizer: BrainTokenizer, people: Sequence[SeenSources], *, shuffled: bool = False
) -> dict[str, NDArray[np.float64]]:
    """Score one layout: mean correlations over channels and windows of 2 s, one a person.

    Parameters
    ----------
    tokenizer : BrainTokenizer
    people : sequence of SeenSources
    shuffled : bool
        Give sensors the places of others.

    Returns
    -------
    dict of str to ndarray, (n_people,)
        ``all``: all channels, all seen. Of a quarter of the channels that the encoder did not see:
        ``dropped``, ``dropped clean`` (with what they measure but for noise), and the same of
        ``spline`` (electrodes only) and ``known field``.
    """
    found: dict[str, list[float]] = {}
    for number, seen in enumerate(people):
        rng = np.random.default_rng(number)
        signal, width = signal_of(seen), round(2 * seen.sfreq_hz)
        n_channels = signal.n_channels
        if shuffled:
            order = rng.permutation(n_channels)
            signal = replace(
                signal,
                positions_m=signal.positions_m[order],
                orientations=signal.orientations[order],
            )
        dropped = np.sort(rng.permutation(n_channels)[: round(0.25 * n_channels)])
        kept = np.setdiff1d(np.arange(n_channels), dropped)
        whole = tokenizer.decode(tokenizer.encode(signal), signal)
        part = tokenizer.decode(tokenizer.encode(signal.pick(kept)), signal)[dropped]
        scores = {
            "all": correlations(whole, seen.values, width),
            "dropped": correlations(part, seen.values[dropped], width),
            "dropped clean": correlations(part, seen.clean[dropped], width),
        }
        if not shuffled:
            others = {"known field": known_field(seen, dropped)}
            if seen.kinds[0] == "eeg":
                others["spline"] = spline(seen, dropped)
            for name, series in others.items():
                scores[name] = correlations(series, seen.values[dropped], width)
                scores[f"{name} clean"] = correlations(series, seen.clean[dropped], width)
        for name, values in scores.items():
            found.setdefault(name, []).append(float(values.mean()))
    return {name: np.array(values) for name, values in found.items()}


def stage_errors(tokenizer: BrainTokenizer, people: Sequence[SeenSources]) -> list[float]:
    """Return the mean squared error after each stage, on the tokenizer's scale."""
    errors: dict[int, list[float]] = {}
    for seen in people:
        signal = tokenizer.prepare(signal_of(seen))
        tokens = tokenizer.encode(signal, prepared=True)
        for stage in range(1, tokens.codes.shape[2] + 1):
            decoded = tokenizer.decode(tokens, signal, n_stages=stage)
            errors.setdefault(stage, []).append(
                float(np.square(decoded - tokenizer.target(signal)).mean())
            )
    return [float(np.mean(errors[stage])) for stage in sorted(errors)]


def code_use(codes: NDArray[Any], size: int) -> list[tuple[float, float]]:
    """Return perplexity over size, and share of the codes used, of each stage."""
    use = []
    for stage in codes.reshape(-1, codes.shape[-1]).T:
        share = np.bincount(stage, minlength=size) / len(stage)
        entropy = -(share[share > 0] * np.log(share[share > 0])).sum()
        use.append((float(np.exp(entropy)) / size, float((share > 0).mean())))
    return use


def trained(
    settings: Any, n_people: int, duration_s: float, sources_state: int = 0, **more: Any
) -> tuple[BrainTokenizer, SharedSources]:
    """Train on people with 32 electrodes and others with 102 magnetometers."""
    torch.set_num_threads(1)
    sources = draw_sources(random_state=sources_state)
    signals = [
        signal_of(seen)
        for first, layout in enumerate(("eeg32", "mag102"))
        for seen in recordings(
            sources,
            layout,
            range(100 * first, 100 * first + n_people),
            duration_s=duration_s,
            sfreq_hz=settings.sfreq_hz,
        )
    ]
    tokenizer = BrainTokenizer(settings)
    return tokenizer.fit(tokenizer.source(signals), **more), sources
