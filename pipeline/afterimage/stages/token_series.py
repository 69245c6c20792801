"""Cleaned recordings as tokenizers take them: sensors, scale, and windows read from disk."""

from __future__ import annotations

import hashlib
import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from afterimage.bids.entities import parse_name, run_prefix
from afterimage.errors import AfterimageError, InputError
from afterimage.io.series import Series, open_series
from afterimage.tokenizers.signals import (
    Signal,
    place,
    rate_ratio,
    resample,
    scaling,
    standardise,
    window_starts,
)

if TYPE_CHECKING:
    from afterimage.tokenizers.tokenizer import SignalTokenizer

#: Files that are open at once, at most.
N_OPEN = 32
#: Samples read at once where a whole file is looked through.
N_BLOCK = 100_000
#: Samples that the scale of a recording is taken from, about.
N_SCALE = 20_000
#: A window is resampled together with this much on either side, s.
MARGIN_S = 0.25


@dataclass(frozen=True, eq=False)
class RecordingFile:
    """One cleaned run on disk.

    Attributes
    ----------
    path : Path
    name : str
        ``sub-01_task-rest_run-1``.
    entities : dict of str
        ``subject``, ``session``, ``task``, ``run``; ``n/a`` where a recording has none.
    layout : Signal
        Its sensors, without samples.
    picks : ndarray of int, (n_channels,)
        Columns of the file that the sensors are.
    how : tuple of ndarray, (n_channels,)
        Centre and scale, see `afterimage.tokenizers.signals.scaling`.
    n_times : int
    censored : ndarray of bool, (n_times,)
    digest : str
        SHA-256 of the samples: tells a recording from others whatever its name.
    """

    path: Path
    name: str
    entities: dict[str, str]
    layout: Signal
    picks: NDArray[np.int64]
    how: tuple[NDArray[np.float32], NDArray[np.float32]]
    n_times: int
    censored: NDArray[np.bool_]
    digest: str

    @property
    def duration_s(self) -> float:
        """Length in s."""
        return self.n_times / self.layout.sfreq_hz

    def placed(self, tokenizer: SignalTokenizer) -> RecordingFile:
        """Leave out sensors that the tokenizer cannot use; see `place`."""
        if not tokenizer.needs_positions:
            return self
        layout = place(self.layout, tokenizer.settings.unknown_positions)
        kept = np.flatnonzero(np.isin(self.layout.names, layout.names))
        centre, scale = self.how
        return replace(
            self, layout=layout, picks=self.picks[kept], how=(centre[kept], scale[kept])
        )

    def read(self, file: Series, start: int, stop: int) -> Signal:
        """Read samples of the open file, standardised by the whole recording."""
        values = np.ascontiguousarray(file.read(times=slice(start, stop))[:, self.picks].T)
        return standardise(replace(self.layout, values=values), self.how)

    def prepared(self, rate_hz: float, start_s: float = 0.0, stop_s: float = math.inf) -> Signal:
        """Read a part, standardised by the whole recording, and bring it to a rate."""
        sfreq_hz = self.layout.sfreq_hz
        start = min(self.n_times, round(start_s * sfreq_hz))
        stop = self.n_times if stop_s == math.inf else round(stop_s * sfreq_hz)
        with open_series(self.path) as file:
            return resample(self.read(file, start, min(self.n_times, stop)), rate_hz)


def open_recordings(paths: Sequence[Path]) -> tuple[list[RecordingFile], list[AfterimageError]]:
    """Look through cleaned runs; what cannot be used is left out and said.

    A run that cleaning left out is said there already.
    """
    found: list[RecordingFile] = []
    errors: list[AfterimageError] = []
    for path in paths:
        try:
            with open_series(path) as file:
                if file.n_times:
                    found.append(_look_through(path, file))
        except InputError as error:
            error.where = error.where or str(path)
            errors.append(error)
    return found, errors


def _look_through(path: Path, file: Series) -> RecordingFile:
    """Read a file once: its digest, its scale, whether all is finite."""
    digest = hashlib.sha256()
    every = max(1, file.n_times // N_SCALE)
    few = []
    for start in range(0, file.n_times, N_BLOCK - N_BLOCK % every):
        block = file.read(times=slice(start, min(start + N_BLOCK - N_BLOCK % every, file.n_times)))
        if not np.isfinite(block).all():
            raise InputError(
                "a recording cannot be tokenised", found="values that are not finite",
                expected="finite samples", fix="clean the recording, or leave it out",
            )  # fmt: skip
        digest.update(np.ascontiguousarray(block, "<f4").tobytes())
        few.append(block[::every])
    units, n_units = file.units, file.n_units
    nowhere = np.full(n_units, np.nan)
    positions = np.stack([units.get(axis, nowhere) for axis in "xyz"], axis=1)
    turned = np.stack([units.get(f"o{axis}", np.zeros(n_units)) for axis in "xyz"], axis=1)
    regions = units.get("roi", np.full(n_units, "")).astype(str)
    layout = Signal(
        values=np.zeros((n_units, 0), np.float32),
        sfreq_hz=float(file.attrs["sampling_rate_hz"]),
        positions_m=positions.astype(np.float32),
        orientations=np.nan_to_num(turned).astype(np.float32),
        kinds=units["kind"].astype(str),
        names=units.get("name", np.arange(n_units)).astype(str),
        regions=np.where(regions == "n/a", "", regions),
    )
    name = parse_name(path.name)
    entities = name.entities if name else {}
    keys = {"subject": "sub", "session": "ses", "task": "task", "run": "run"}
    return RecordingFile(
        path=path,
        name=run_prefix(path.name),
        entities={key: entities.get(short, "n/a") for key, short in keys.items()},
        layout=layout,
        picks=np.arange(n_units),
        how=scaling(replace(layout, values=np.concatenate(few).T)),
        n_times=file.n_times,
        censored=file.censored,
        digest=digest.hexdigest(),
    )


class SeriesSource:
    """Training windows read from disk when they are asked for: memory does not grow with the data.

    Parameters
    ----------
    recordings : sequence of RecordingFile
        Each one window or longer.
    tokenizer : SignalTokenizer
    overlap : float
        Share of a window that the next one has too.
    max_censored : float
        Windows of which more is censored are not learned from.
    """

    def __init__(
        self,
        recordings: Sequence[RecordingFile],
        tokenizer: SignalTokenizer,
        overlap: float = 0.0,
        max_censored: float = 0.25,
    ) -> None:
        self.rate_hz = tokenizer.settings.sfreq_hz
        self.width = tokenizer.window_samples
        self.recordings = recordings
        self.places: list[tuple[int, int]] = []
        self._files: OrderedDict[int, Series] = OrderedDict()
        for number, one in enumerate(recordings):
            width = self._recorded_width(one)
            bad = np.concatenate([[0], np.cumsum(one.censored)])
            for start in window_starts(one.n_times, width, overlap).tolist():
                if bad[start + width] - bad[start] <= max_censored * width:
                    self.places.append((number, start))

    def _recorded_width(self, recording: RecordingFile) -> int:
        """Return the samples of a window at the rate of the recording."""
        return math.ceil(self.width / self.rate_hz * recording.layout.sfreq_hz - 1e-9)

    def __len__(self) -> int:
        return len(self.places)

    def read(self, indices: NDArray[np.integer]) -> list[Signal]:
        """Return some windows, standardised by their recordings, at the tokenizer's rate."""
        found = []
        for number, start in (self.places[int(index)] for index in indices):
            one = self.recordings[number]
            sfreq_hz = one.layout.sfreq_hz
            # Whole steps of the slower grid before the window, so that it starts on a sample.
            ratio = rate_ratio(sfreq_hz, self.rate_hz)
            down = ratio.denominator
            before = min(start, math.ceil(MARGIN_S * sfreq_hz)) // down * down
            first = start - before
            after = math.ceil(MARGIN_S * sfreq_hz)
            stop = min(one.n_times, start + self._recorded_width(one) + after)
            signal = resample(one.read(self._file(number), first, stop), self.rate_hz)
            at = before // down * ratio.numerator
            at = max(0, min(at, signal.n_times - self.width))
            found.append(signal.crop(at, at + self.width))
        return found

    def _file(self, number: int) -> Series:
        """Return an open file; the one that was not needed for the longest time is closed."""
        if number not in self._files:
            if len(self._files) >= N_OPEN:
                self._files.popitem(last=False)[1].close()
            self._files[number] = open_series(self.recordings[number].path)
        self._files.move_to_end(number)
        return self._files[number]

    def close(self) -> None:
        """Close all files."""
        while self._files:
            self._files.popitem()[1].close()


def usable_by(
    tokenizer: SignalTokenizer, recordings: Sequence[RecordingFile]
) -> tuple[list[RecordingFile], list[AfterimageError]]:
    """Return the recordings that a tokenizer can take, and why it cannot take others."""
    found: list[RecordingFile] = []
    errors: list[AfterimageError] = []
    for one in recordings:
        try:
            placed = one.placed(tokenizer)
            asked = tokenizer.window_samples / tokenizer.settings.sfreq_hz
            if placed.duration_s < asked:
                raise InputError(
                    "a recording is shorter than a window of the tokenizer",
                    found=f"{placed.duration_s:.3g} s", expected=f"{asked:g} s or more",
                    fix="set a shorter window_s, or leave the recording out",
                )  # fmt: skip
            found.append(placed)
        except InputError as error:
            error.where = one.name
            errors.append(error)
    return found, errors
