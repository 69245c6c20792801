"""Cleaned runs and prepared trials as tokenizers take them: sensors, scale, windows from disk."""

from __future__ import annotations

import hashlib
import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
from numpy.typing import NDArray

from afterimage.bids.entities import parse_name, run_prefix
from afterimage.bids.names import unit_of
from afterimage.errors import AfterimageError, InputError
from afterimage.io.arrays import open_dataset
from afterimage.io.series import Series, open_series
from afterimage.io.tables import read_tsv
from afterimage.io.trial_readers import StoredReader
from afterimage.io.trials import open_reader
from afterimage.tokenizers.signals import (
    Kind,
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
#: Columns of trials that may say what was shown, the first there is counting.
SHOWN = ("condition", "trial_type", "stimulus")


@dataclass(frozen=True, eq=False)
class RecordingFile:
    """One cleaned run on disk, or one prepared trial, which is a short recording of its own.

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
    trial : int or None
        Row of a file of trials; None for a run.
    shown : tuple of (float, str), or None
        Onset in s and kind of what a trial is of; a run has a table of events instead.
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
    trial: int | None = None
    shown: tuple[float, str] | None = None

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

    def open(self) -> Series | StoredReader:
        """Open its file."""
        return open_series(self.path) if self.trial is None else open_reader(self.path)

    def read(self, file: Series | StoredReader, start: int, stop: int) -> Signal:
        """Read samples of the open file, standardised by the whole recording."""
        times = slice(start, stop)
        if isinstance(file, Series):
            values = np.ascontiguousarray(file.read(times=times)[:, self.picks].T)
        else:
            values = file.read(np.array([self.trial]), times=times)[0][self.picks]
        return standardise(replace(self.layout, values=values), self.how)

    def cut(
        self, file: Series | StoredReader, start: int, n_times: int, rate_hz: float, width: int
    ) -> Signal:
        """Read ``n_times`` samples from ``start`` on as ``width`` samples at another rate.

        What lies beside them is resampled together with them, so that they have no edges.
        """
        sfreq_hz = self.layout.sfreq_hz
        # Whole steps of the slower grid before the window, so that it starts on a sample.
        ratio = rate_ratio(sfreq_hz, rate_hz)
        down = ratio.denominator
        before = min(start, math.ceil(MARGIN_S * sfreq_hz)) // down * down
        first, after = start - before, math.ceil(MARGIN_S * sfreq_hz)
        stop = min(self.n_times, start + n_times + after)
        signal = resample(self.read(file, first, stop), rate_hz)
        at = before // down * ratio.numerator
        at = max(0, min(at, signal.n_times - width))
        return signal.crop(at, at + width)

    def events(self, tables: Sequence[Path]) -> list[tuple[float, str]]:
        """Return onset in s and kind of what was shown: of a trial, or by the table of the run."""
        if self.trial is not None:
            return [self.shown] if self.shown else []
        path = next((path for path in tables if run_prefix(path.name) == self.name), None)
        rows = read_tsv(path) if path is not None else []
        return [(float(row["onset"]), str(row.get("trial_type", "n/a"))) for row in rows]

    def prepared(self, rate_hz: float, start_s: float = 0.0, stop_s: float = math.inf) -> Signal:
        """Read a part, standardised by the whole recording, and bring it to a rate."""
        sfreq_hz = self.layout.sfreq_hz
        start = min(self.n_times, round(start_s * sfreq_hz))
        stop = self.n_times if stop_s == math.inf else round(stop_s * sfreq_hz)
        with self.open() as file:
            return resample(self.read(file, start, min(self.n_times, stop)), rate_hz)


def open_recordings(paths: Sequence[Path]) -> tuple[list[RecordingFile], list[AfterimageError]]:
    """Look through cleaned runs, and prepared trials; what cannot be used is left out and said.

    A run that cleaning left out is said there already.
    """
    found: list[RecordingFile] = []
    errors: list[AfterimageError] = []
    for path in paths:
        try:
            if path.name.endswith("_trials.nc"):
                found += _look_through_trials(path)
                continue
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
        _check_finite(block)
        digest.update(np.ascontiguousarray(block, "<f4").tobytes())
        few.append(block[::every])
    layout = _layout(file.units, float(file.attrs["sampling_rate_hz"]))
    name = parse_name(path.name)
    entities = name.entities if name else {}
    keys = {"subject": "sub", "session": "ses", "task": "task", "run": "run"}
    return RecordingFile(
        path=path,
        name=run_prefix(path.name),
        entities={key: entities.get(short, "n/a") for key, short in keys.items()},
        layout=layout,
        picks=np.arange(file.n_units),
        how=scaling(replace(layout, values=np.concatenate(few).T)),
        n_times=file.n_times,
        censored=file.censored,
        digest=digest.hexdigest(),
    )


def _layout(units: Mapping[str, NDArray[Any]], sfreq_hz: float) -> Signal:
    """Return the sensors that coordinates of units describe, without samples."""
    n_units = len(units["kind"])
    nowhere = np.full(n_units, np.nan)
    positions = np.stack([units.get(axis, nowhere) for axis in "xyz"], axis=1).astype(np.float64)
    # A head is a tenth of a metre: larger numbers are mm.
    if np.nanmax(np.abs(positions), initial=0) > 1:
        positions = positions / 1000
    turned = np.stack([units.get(f"o{axis}", np.zeros(n_units)) for axis in "xyz"], axis=1)
    regions = units.get("roi", np.full(n_units, "")).astype(str)
    return Signal(
        values=np.zeros((n_units, 0), np.float32),
        sfreq_hz=sfreq_hz,
        positions_m=positions.astype(np.float32),
        orientations=np.nan_to_num(turned).astype(np.float32),
        kinds=units["kind"].astype(str),
        names=units.get("name", np.arange(n_units)).astype(str),
        regions=np.where(regions == "n/a", "", regions),
    )


def _look_through_trials(path: Path) -> list[RecordingFile]:
    """Read prepared trials once; each is centred for itself, all have the scale of their person."""
    with open_dataset(path) as dataset, open_reader(path) as reader:
        if reader.times_s is None or len(reader.times_s) < 2:
            raise InputError(
                "responses cannot be tokenised", found="no time axis",
                expected="trials with a time axis", fix="leave the subject out",
            )  # fmt: skip
        columns = {
            str(key): np.asarray(values)
            for key, values in dataset.variables.items()
            if values.dims in (("trial",), ("unit",))
        }
        values, times_s = reader.read(np.arange(reader.shape[0])), reader.times_s
    _check_finite(values)
    units = {key: column for key, column in columns.items() if len(column) == values.shape[1]}
    picks = np.flatnonzero(np.isin(units["kind"].astype(str), get_args(Kind)))
    if not len(picks):
        raise InputError(
            "responses cannot be tokenised", found="no channel of the brain",
            expected=f"units of kind {', '.join(get_args(Kind))}",
            fix="give their kinds in _units.tsv",
        )  # fmt: skip
    rate_hz = float(1 / np.diff(times_s).mean())
    layout = _layout({key: column[picks] for key, column in units.items()}, rate_hz)
    values = values[:, picks]
    centres = np.median(values, axis=2).astype(np.float32)
    every = max(1, values.shape[0] * values.shape[2] // N_SCALE)
    together = np.concatenate(list(values - centres[..., None]), axis=1)
    _, scale = scaling(replace(layout, values=together[:, ::every]))
    name = unit_of(path)
    shown = next((columns[key] for key in SHOWN if key in columns), None)
    kept = ("session", "run")
    return [
        RecordingFile(
            path=path,
            name=f"{name}_trial-{number + 1:0{len(str(len(values)))}d}",
            entities={
                "subject": name.removeprefix("sub-"), "task": "n/a",
                **{k: str(columns[k][number]) if k in columns else "n/a" for k in kept},
            },
            layout=layout,
            picks=picks,
            how=(centres[number], scale),
            n_times=values.shape[2],
            censored=np.zeros(values.shape[2], bool),
            digest=hashlib.sha256(np.ascontiguousarray(one, "<f4").tobytes()).hexdigest(),
            trial=number,
            shown=None if shown is None else (-float(times_s[0]), str(shown[number])),
        )
        for number, one in enumerate(values)
    ]  # fmt: skip


def _check_finite(values: NDArray[np.floating]) -> None:
    if not np.isfinite(values).all():
        raise InputError(
            "a recording cannot be tokenised", found="values that are not finite",
            expected="finite samples", fix="clean the recording, or leave it out",
        )  # fmt: skip


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
        self._files: OrderedDict[Path, Series | StoredReader] = OrderedDict()
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
            width = self._recorded_width(one)
            found.append(one.cut(self._file(one), start, width, self.rate_hz, self.width))
        return found

    def _file(self, recording: RecordingFile) -> Series | StoredReader:
        """Return an open file; the one that was not needed for the longest time is closed."""
        path = recording.path
        if path not in self._files:
            if len(self._files) >= N_OPEN:
                self._files.popitem(last=False)[1].close()
            self._files[path] = recording.open()
        self._files.move_to_end(path)
        return self._files[path]

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
