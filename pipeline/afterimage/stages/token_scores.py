"""The card of a tokenizer computed from recordings on disk: its table, its details, its pictures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from afterimage.errors import AfterimageError, InputError
from afterimage.evaluation.token_baselines import CodeGuesses, PatchMeans
from afterimage.evaluation.token_card import (
    CodeMeanings,
    EventTable,
    band_power,
    channel_correlations,
    event_table,
    mean_of_groups,
    power_told,
    stage_use,
    stream_values,
    token_segments,
)
from afterimage.stages.token_series import RecordingFile
from afterimage.tokenizers.signals import Signal
from afterimage.tokenizers.tokenizer import SignalTokenizer, Tokens

COLUMNS = ("tokenizer", "measure", "part", "stage", "value", "ci_low", "ci_high", "n")
#: What follows an event for this long belongs to it, s.
AFTER_S = 0.8
#: Channels that are drawn as an example, and for how long, s.
EXAMPLE_CHANNELS, EXAMPLE_S = 6, 4.0
#: More kinds of events than this are pictures, of which no table is made.
MAX_KINDS = 20


@dataclass(frozen=True, eq=False)
class Scored:
    """A part of one recording, and what the tokenizer made of it.

    Attributes
    ----------
    group : str
        Person, or family, that intervals are over.
    signal : Signal
        Prepared.
    tokens : Tokens
    start_s : float
        Where the part begins in the recording.
    """

    group: str
    signal: Signal
    tokens: Tokens
    start_s: float

    @property
    def codes(self) -> NDArray[np.signedinteger]:
        """Codes of the first stage, (n_streams, n_steps)."""
        return self.tokens.codes[..., 0]


def scored_parts(
    tokenizer: SignalTokenizer,
    recordings: Sequence[RecordingFile],
    groups: Sequence[str],
    seconds: float,
    limit: int,
) -> tuple[list[Scored], list[RecordingFile], list[AfterimageError]]:
    """Encode the middle of some recordings, spread over people; say which cannot be encoded."""
    chosen = np.sort(np.random.default_rng(0).permutation(len(recordings))[:limit])
    rate_hz = tokenizer.settings.sfreq_hz
    # A sample more than a window, so that none is lost to rounding at another rate.
    asked = max(seconds, (tokenizer.window_samples + 1) / rate_hz)
    found: list[Scored] = []
    files: list[RecordingFile] = []
    errors: list[AfterimageError] = []
    for place in chosen.tolist():
        one = recordings[place]
        start_s = max(0.0, (one.duration_s - asked) / 2)
        try:
            signal = one.prepared(rate_hz, start_s, start_s + asked)
            tokens = tokenizer.encode(signal, prepared=True)
        except InputError as error:
            error.where = one.name
            errors.append(error)
            continue
        found.append(Scored(str(groups[place]), signal, tokens, start_s))
        files.append(one)
    return found, files, errors


def card_of(
    tokenizer: SignalTokenizer,
    train: list[Scored],
    test: list[Scored],
    events: Sequence[tuple[str, Sequence[tuple[float, str]]]],
    n_bootstraps: int,
    random_state: int,
) -> tuple[list[dict[str, Any]], dict[str, Any], dict[str, np.ndarray]]:
    """Return the rows of the table, the details and the arrays of the report.

    Parameters
    ----------
    tokenizer : SignalTokenizer
    train, test : list of Scored
        Parts of recordings of people that were learned from, and that were not.
    events : sequence of (str, list of (float, str))
        Of each recording of ``test``: its file, and onset in s and kind of what was shown. Kinds
        are permuted within files: a trial alone has one.
    n_bootstraps, random_state : int
    """
    rows: list[dict[str, Any]] = []

    def say(measure: str, part: str, values: Any, of: list[Scored], stage: str | int = "") -> None:
        told = mean_of_groups(values, [s.group for s in of], n_bootstraps, random_state)
        rows.append({"measure": measure, "part": part, "stage": stage, **told})

    _reconstruction(say, tokenizer, train, test, random_state)
    size = tokenizer.settings.quantiser.codebook_size
    uses = stage_use([s.tokens.codes for s in test], size)
    for stage, use in enumerate(uses, start=1):
        whole = {"ci_low": np.nan, "ci_high": np.nan, "n": len(test), "stage": stage}
        for measure, value in (("perplexity", use.perplexity), ("codes used", use.used)):
            rows.append({"measure": measure, "part": "unseen", "value": value, **whole})
    bits = _bit_rates(test, size, sum(use.entropy_bits for use in uses))
    for part, value in bits.items():
        rows.append({"measure": "bits per second", "part": part, "value": value, "n": len(test)})
    _guesses(say, train, test, size)
    told, meanings = _powers(tokenizer, train, test, size)
    say("band power told", "unseen", told, test)
    after = max(1, math.ceil(AFTER_S / test[0].tokens.step_s))
    event = _events(test, events, size, after, random_state)
    if event is not None:
        for part, value in (
            ("unseen", event.information_bits), ("chance", event.chance_bits)
        ):  # fmt: skip
            rows.append(
                {"measure": "event information", "part": part, "value": value, "n": event.n_events}
            )
    codes = meanings.table()
    details = {
        "codebook_size": size, "n_stages": len(uses), "step_s": test[0].tokens.step_s,
        "sfreq_hz": tokenizer.settings.sfreq_hz, "decodes": tokenizer.decodes,
        "n_streams": len(test[0].tokens.streams), "codes": codes,
        "events": _event_details(event, [int(row["code"]) for row in codes]),
    }  # fmt: skip
    arrays = meanings.arrays() | _example(tokenizer, test[0])
    return rows, details, arrays | {"losses": tokenizer.losses_}


def _reconstruction(
    say: Any, tokenizer: SignalTokenizer, train: list[Scored], test: list[Scored], seed: int
) -> None:
    """Say how much comes back of people and layouts seen and unseen, and with fewer stages."""

    def come_back(one: Scored, tokens: Tokens, n_stages: int | None = None) -> float:
        target = tokenizer.target(one.signal)
        decoded = tokenizer.decode(tokens, one.signal, n_stages)
        return float(np.nanmean(channel_correlations(target, decoded)))

    measure = "correlation"
    say(measure, "unseen", [come_back(one, one.tokens) for one in test], test)
    say(measure, "seen", [come_back(one, one.tokens) for one in train], train)
    fewer = [half for one in test if (half := half_of(tokenizer, one, seed)) is not None]
    if fewer:
        say(measure, "layout unseen", [come_back(one, one.tokens) for one in fewer], fewer)
    moved = [
        Tokens(
            np.roll(one.tokens.codes, one.tokens.codes.shape[1] // 2, axis=1),
            one.tokens.streams, one.tokens.step_s, one.tokens.start_s, one.tokens.codebook_size,
        )
        for one in test
    ]  # fmt: skip
    say(measure, "chance (tokens moved)", map_list(come_back, test, moved), test)
    n_stages = test[0].tokens.codes.shape[2]
    if n_stages > 1:
        for n in range(1, n_stages + 1):
            values = [come_back(one, one.tokens, n) for one in test]
            say("correlation by stages", "unseen", values, test, n)
    if tokenizer.decodes == "signal":
        rival = PatchMeans(
            [one.signal.values for one in train], tokenizer.step_samples,
            tokenizer.settings.quantiser.codebook_size, n_stages, seed,
        )  # fmt: skip
        values = []
        for one in test:
            said = rival.come_back(one.signal.values)
            target = one.signal.values[:, : said.shape[1]]
            values.append(float(np.nanmean(channel_correlations(target, said))))
        say(measure, "k-means of patches", values, test)


def map_list(function: Any, *sequences: Sequence[Any]) -> list[float]:
    """Return the values of a function of several sequences, as a list."""
    return [function(*values) for values in zip(*sequences, strict=True)]


def half_of(tokenizer: SignalTokenizer, one: Scored, seed: int) -> Scored | None:
    """Encode half of the channels, at random: a layout never seen; None where that cannot be."""
    n_channels = one.signal.n_channels
    if n_channels < 4:
        return None
    drawn = np.random.default_rng(seed).permutation(n_channels)[: n_channels // 2]
    half = one.signal.pick(np.sort(drawn))
    try:
        tokens = tokenizer.encode(half, prepared=True)
    except InputError:  # such as a region that all channels of were dropped
        return None
    return Scored(one.group, half, tokens, one.start_s)


def _bit_rates(test: list[Scored], size: int, entropy_bits: float) -> dict[str, float]:
    """Return bits a second of a recording: at most, as used, and of 16-bit samples."""
    streams = float(np.mean([len(one.tokens.streams) / one.tokens.step_s for one in test]))
    samples = float(np.mean([one.signal.n_channels * one.signal.sfreq_hz for one in test]))
    n_stages = test[0].tokens.codes.shape[2]
    return {
        "at most": streams * n_stages * math.log2(size),
        "as used": streams * entropy_bits,
        "16-bit samples": samples * 16,
    }


def _guesses(say: Any, train: list[Scored], test: list[Scored], size: int) -> None:
    """Say how well tokens can be guessed without a network, nats a token."""
    for stage in range(test[0].tokens.codes.shape[2]):
        guesses = CodeGuesses([one.tokens.codes[..., stage] for one in train], size)
        losses = [guesses.losses(one.tokens.codes[..., stage]) for one in test]
        for name in losses[0]:
            say("cross-entropy", name, [loss[name] for loss in losses], test, stage + 1)


def _shown(tokenizer: SignalTokenizer, one: Scored) -> NDArray[np.float32]:
    """Return what every token stands for, (n_streams, n_steps, n_samples)."""
    signal = one.signal
    values = stream_values(signal.values, signal.names, signal.regions, one.tokens.streams)
    n_steps = one.tokens.codes.shape[1]
    return token_segments(
        values, n_steps, tokenizer.step_samples, tokenizer.span_samples, signal.sfreq_hz
    )


def _powers(
    tokenizer: SignalTokenizer, train: list[Scored], test: list[Scored], size: int
) -> tuple[NDArray[np.float64], CodeMeanings]:
    """Return how much of the band power tokens tell, and what the most used ones stand for."""
    counts = sum(np.bincount(one.codes.ravel(), minlength=size) for one in train)
    meanings = CodeMeanings(np.asarray(counts) / np.sum(counts))
    parts: dict[str, list[Any]] = {"train": [], "test": []}
    for side, some in (("train", train), ("test", test)):
        for one in some:
            segments, rate_hz = _shown(tokenizer, one), one.signal.sfreq_hz
            parts[side].append((one.codes.ravel(), band_power(segments, rate_hz)))
            if side == "test":
                meanings.add(one.codes, segments, rate_hz)
    return power_told(parts["train"], parts["test"], size), meanings


def _events(
    test: list[Scored],
    events: Sequence[tuple[str, Sequence[tuple[float, str]]]],
    size: int,
    after: int,
    seed: int,
) -> EventTable | None:
    """Count codes after events, where events have from two to twenty kinds."""
    found: dict[str, list[tuple[NDArray[np.signedinteger], NDArray[np.int64], list[str]]]] = {}
    for one, (file, rows) in zip(test, events, strict=True):
        onset = np.array([onset_s for onset_s, _ in rows]) - one.start_s
        steps = np.floor(onset / one.tokens.step_s + 1e-9).astype(np.int64)
        inside = (steps >= 0) & (steps + after <= one.codes.shape[1])
        kinds = [kind for (_, kind), here in zip(rows, inside, strict=True) if here]
        found.setdefault(file, []).append((one.codes, steps[inside], kinds))
    recordings = []
    for some in found.values():
        starts = np.cumsum([0, *(codes.shape[1] for codes, *_ in some[:-1])])
        at = [steps + start for (_, steps, _), start in zip(some, starts, strict=True)]
        kinds = [kind for *_, of_one in some for kind in of_one]
        joined = np.concatenate([codes for codes, *_ in some], axis=1)
        recordings.append((joined, np.concatenate(at), kinds))
    if len({kind for *_, kinds in recordings for kind in kinds}) > MAX_KINDS:
        return None
    return event_table(recordings, size, after, random_state=seed)


def _event_details(event: EventTable | None, codes: list[int]) -> dict[str, Any] | None:
    """Return the table of events as plain values, of the most used codes."""
    if event is None:
        return None
    return {
        "kinds": event.kinds,
        "rates": {
            str(code): [None if np.isnan(rate) else float(rate) for rate in event.rates[code]]
            for code in codes
        },
        "information_bits": event.information_bits,
        "chance_bits": event.chance_bits,
        "chance_high_bits": event.chance_high_bits,
        "p": event.p,
        "n_events": event.n_events,
    }


def _example(tokenizer: SignalTokenizer, one: Scored) -> dict[str, np.ndarray]:
    """Return some channels as they were and as they came back, and their tokens."""
    target = tokenizer.target(one.signal)
    decoded = np.asarray(tokenizer.decode(one.tokens, one.signal), np.float32)
    rate_hz = one.signal.sfreq_hz if tokenizer.decodes == "signal" else 1 / one.tokens.step_s
    n_shown = round(EXAMPLE_S * rate_hz)
    channels = np.unique(np.linspace(0, len(target) - 1, EXAMPLE_CHANNELS).astype(int))
    n_steps = round(EXAMPLE_S / one.tokens.step_s)
    return {
        "target": np.asarray(target[channels, :n_shown], np.float32),
        "decoded": decoded[channels, :n_shown],
        "example_codes": one.codes[:, :n_steps].astype(np.int32),
    }
