"""Play a recording of the study as a stream, at its own pace or faster: a session without a head."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Protocol

import numpy as np

from afterimage.errors import UsageError
from afterimage.io.live_streams import FolderWriter, LslWriter, StreamHeader
from afterimage.stages import clean_meeg
from afterimage.stages.live_decoder import Subject, made_by
from afterimage.stages.meeg_files import open_run
from afterimage.stages.runner import parse_config

#: Length of the blocks that amplifiers send, in s.
BLOCK_S = 0.02


class Writer(Protocol):
    """Where a recording is played to."""

    def write(self, samples: np.ndarray, markers: list[tuple[int, str]]) -> None:
        """Send samples (n, n_channels) and the markers that lie in them."""

    def close(self) -> None:
        """Say that the recording has ended."""


class Player(threading.Thread):
    """Plays one recording in a thread of its own.

    Parameters
    ----------
    subject : Subject
    run : str
        A part of the name of the recording, such as ``run-03``; "": the last one.
    target : str
        A folder, or ``lsl:NAME``.
    speed : float
        1 is the pace of the recording.
    block_s : float
        Length of the blocks that are sent.

    Attributes
    ----------
    written_s : list of (int, float)
        Samples that were written, and when (`time.perf_counter`).
    """

    def __init__(
        self, subject: Subject, run: str, target: str, speed: float, block_s: float = BLOCK_S
    ) -> None:
        super().__init__(daemon=True)
        series = recording_of(subject, run)
        made = made_by(series)
        sources = [subject.bids_dir / name.split(":", 2)[2] for name in made["Sources"]]
        tables = tuple(p for p in sources[1:] if not p.name.endswith("_events.tsv"))
        events = [path for path in sources if path.name.endswith("_events.tsv")]
        inputs = clean_meeg.Inputs(sources[0], tables, events[-1] if events else None)
        opened, _ = open_run(inputs, parse_config("clean_meeg", made["Config"]))
        names = opened.units.name.tolist()
        unit = {"eeg": "V", "mag": "T", "grad": "T/m"}
        bads = tuple(name for name in names if name in opened.raw.info["bads"])
        self.header = StreamHeader(
            tuple(names), opened.rate_hz, tuple(unit[str(k)] for k in opened.units.kind), bads
        )
        self._samples = opened.raw.get_data(picks=names).T.astype(np.float32)
        onsets = np.round(opened.events.onsets_s * opened.rate_hz).astype(int).tolist()
        self._markers = list(zip(onsets, opened.events.stimulus.tolist(), strict=True))
        self._speed, self._block = speed, max(1, round(block_s * opened.rate_hz))
        kind, _, name = target.partition(":")
        self._writer: Writer
        if kind == "lsl" and name:
            self._writer = LslWriter(name, self.header)
        else:
            self._writer = FolderWriter(Path(target), self.header)
        self.written_s: list[tuple[int, float]] = []
        self._halt = threading.Event()

    def stop(self) -> None:
        """Stop playing."""
        self._halt.set()
        if self.is_alive():
            self.join()

    def run(self) -> None:
        """Play until the end, or until `stop`."""
        markers = list(self._markers)
        started_s: float | None = None
        for start in range(0, len(self._samples), self._block):
            stop = min(start + self._block, len(self._samples))
            due_s = stop / self.header.sampling_rate_hz / self._speed
            if started_s is not None and self._halt.wait(
                max(0.0, started_s + due_s - time.perf_counter())
            ):
                break
            inside = []
            while markers and markers[0][0] < stop:
                inside.append(markers.pop(0))
            self._writer.write(self._samples[start:stop], inside)
            started_s = started_s or time.perf_counter()
            self.written_s.append((stop, time.perf_counter()))
        self._writer.close()


def recording_of(subject: Subject, run: str) -> Path:
    """Return the series of a recording of the subject, by a part of its name."""
    names = made_by(subject.file("", "trials.nc")).get("Sources", [])
    series = [subject.out / str(name).removeprefix("bids::") for name in names]
    series = [path for path in series if path.name.endswith("_series.nc")]
    labels = [path.name.split("_desc-")[0] for path in series]
    found = [path for path, label in zip(series, labels, strict=True) if run in label]
    if not found or (run and len(found) > 1):
        raise UsageError(
            "no recording can be played", where="--simulate", found=run or "no recording",
            expected="a part of one of these names: " + ", ".join(labels)[:400],
            fix="name one run, for example --simulate run-01",
        )  # fmt: skip
    return found[-1]
