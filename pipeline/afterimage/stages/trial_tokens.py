"""Trials in the tokens of one tokenizer: each window is coded by itself, from the trial's first sample."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from afterimage.errors import InputError
from afterimage.io.arrays import open_dataset
from afterimage.io.series import Series
from afterimage.io.trial_readers import StoredReader
from afterimage.stages.token_series import RecordingFile, open_recordings, usable_by
from afterimage.tokenizers.signals import Signal
from afterimage.tokenizers.tokenizer import SignalTokenizer

#: Whether the tokenizer was trained on a trial's recording, on others of its person, or on neither.
SEEN = ("yes", "person", "no")


@dataclass(frozen=True, eq=False)
class TrialTokens:
    """The tokens of the trials of one subject.

    Attributes
    ----------
    codes : ndarray of int, (n_trials, n_streams, n_steps, n_stages)
    streams : ndarray of str, (n_streams,)
    times_s : ndarray of float64, (n_steps,)
        Start of each token from onset.
    layout : Signal
        The sensors, without samples.
    recordings : list of RecordingFile
        Run or prepared trial that each trial lies in.
    """

    codes: NDArray[np.signedinteger]
    streams: NDArray[np.str_]
    times_s: NDArray[np.float64]
    layout: Signal
    recordings: list[RecordingFile]


def encode_trials(tokenizer: SignalTokenizer, path: Path) -> TrialTokens:
    """Encode the trials of a ``_trials.nc`` file.

    Trials of a recording are cut from the cleaned run, before anything that `epoch_meeg` does to
    them, since that is what tokenizers are trained on.
    """
    places, times_s = _places(tokenizer, path)
    sfreq_hz, rate_hz = places[0][0].layout.sfreq_hz, tokenizer.settings.sfreq_hz
    width = math.floor(len(times_s) / sfreq_hz * rate_hz + 1e-9)
    if width < tokenizer.window_samples:
        raise InputError(
            "a trial is shorter than a window of the tokenizer", where=str(path),
            found=f"{width / rate_hz:.3g} s",
            expected=f"{tokenizer.window_samples / rate_hz:g} s or more",
            fix="set a shorter window_s in train_tokenizer, or longer trials in epoch_meeg",
        )  # fmt: skip
    files: dict[Path, Series | StoredReader] = {}
    codes, streams = [], None
    try:
        for recording, start in places:
            if recording.path not in files:
                files[recording.path] = recording.open()
            file = files[recording.path]
            signal = recording.cut(file, start, len(times_s), rate_hz, width)
            tokens = tokenizer.encode(signal, prepared=True)
            streams = tokens.streams if streams is None else streams
            if tokens.streams.tolist() != streams.tolist():
                raise InputError(
                    "trials of a subject have tokens of different streams",
                    where=f"{path}, {recording.name}",
                    found=f"{len(tokens.streams)} streams", expected=f"the {len(streams)} of others",
                    fix="leave the run out",
                )  # fmt: skip
            codes.append(tokens.codes)
    finally:
        for file in files.values():
            file.close()
    assert streams is not None  # noqa: S101  # a file of trials has one or more
    steps = np.arange(codes[0].shape[1]) * tokenizer.step_samples / rate_hz
    recordings = [recording for recording, _ in places]
    return TrialTokens(
        np.stack(codes), streams, times_s[0] + steps, recordings[0].layout, recordings
    )


def _places(
    tokenizer: SignalTokenizer, path: Path
) -> tuple[list[tuple[RecordingFile, int]], NDArray[np.float64]]:
    """Return the recording and first sample of each trial, and the times of a trial's samples."""
    with open_dataset(path) as dataset:
        stored = "responses" in dataset.variables
        if "time" not in dataset.variables:
            raise InputError(
                "responses cannot be tokenised", where=str(path), found="no time axis",
                expected="trials with a time axis", fix="leave the subject out",
            )  # fmt: skip
        times_s = np.asarray(dataset["time"].values, np.float64)
        files, index, first = [path], np.zeros(dataset.sizes["trial"], int), None
        if not stored:
            files = [path.parent / name for name in dataset["series_file"].values.astype(str)]
            index = np.asarray(dataset["series_index"].values, int)
            first = np.asarray(dataset["first_sample"].values, int)
    found, errors = open_recordings([files[i] for i in np.unique(index)])
    usable, unusable = usable_by(tokenizer, found)
    if errors or unusable:
        raise [*errors, *unusable][0]
    if first is None:
        return [(one, 0) for one in usable], times_s
    by_file = dict(zip(np.unique(index).tolist(), usable, strict=True))
    return [
        (by_file[i], at) for i, at in zip(index.tolist(), first.tolist(), strict=True)
    ], times_s


def seen_by(ledger: Sequence[dict[str, str]], recordings: Sequence[RecordingFile]) -> list[str]:
    """Say of each recording whether it, or another of its person, was trained on; see `SEEN`."""
    trained = [row for row in ledger if row["part"] == "train"]
    digests = {row["sha256"] for row in trained}
    people = {row["subject"] for row in trained}
    return [
        "yes" if one.digest in digests else "person" if one.entities["subject"] in people else "no"
        for one in recordings
    ]


def embeddings(
    codes: NDArray[np.signedinteger], codebooks: NDArray[np.floating]
) -> NDArray[np.float32]:
    """Return the vectors of tokens, the sum over stages, (..., n_dimensions)."""
    vectors = sum(book[codes[..., stage]] for stage, book in enumerate(codebooks))
    return np.asarray(vectors, np.float32)
