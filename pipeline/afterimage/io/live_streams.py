"""Streams of EEG or MEG while they are recorded: a growing folder, or Lab Streaming Layer (LSL).

A growing folder holds ``stream.json``, ``samples.f32``, ``markers.tsv`` and, when the recording has
ended, ``end``; whoever records appends to the first two, whoever decodes reads what was added.
LSL (Kothe et al. 2024, doi:10.1101/2024.02.13.580071) needs the extra ``live`` (pylsl, with its library).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from afterimage.errors import InputError, UsageError
from afterimage.io.atomic import write_json
from afterimage.io.tables import read_json

#: Factors from the units that a stream may have to those that are worked in (V, T, T/m).
FACTORS = {
    "V": 1.0, "mV": 1e-3, "uV": 1e-6, "µV": 1e-6, "microvolts": 1e-6, "nV": 1e-9,
    "T": 1.0, "pT": 1e-12, "fT": 1e-15, "T/m": 1.0, "fT/cm": 1e-13,
}  # fmt: skip
#: Files of a growing folder.
HEADER, SAMPLES, MARKERS, END = "stream.json", "samples.f32", "markers.tsv", "end"
#: Time for a stream to appear, and for somebody to listen to one, in s.
WAIT_S = 10.0
#: Bytes read at once.
N_BYTES = 1 << 22
#: Most channels and highest rate that a header may name, before anything is allocated by it.
MAX_CHANNELS, MAX_RATE_HZ = 4096, 200_000.0


@dataclass(frozen=True)
class StreamHeader:
    """What a stream says of itself.

    Attributes
    ----------
    names : tuple of str
    sampling_rate_hz : float
    units : tuple of str
        Of each channel; keys of `FACTORS`.
    bads : tuple of str
        Channels known to be bad.
    """

    names: tuple[str, ...]
    sampling_rate_hz: float
    units: tuple[str, ...]
    bads: tuple[str, ...] = ()

    @classmethod
    def parse(cls, values: Any, where: str) -> StreamHeader:
        """Check what was read from JSON."""
        try:
            names = [str(name) for name in values["channels"]]
            rate_hz = float(values["sampling_rate_hz"])
            units = values["units"]
            units = [units] * len(names) if isinstance(units, str) else [str(u) for u in units]
            bads = tuple(str(name) for name in values.get("bads", []))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(
                "the header of a stream cannot be read", where=where, found=str(error)[:200],
                expected="channels (names), sampling_rate_hz (a number) and units (V, uV, T, fT, ...)",
                fix="write such a header; docs/live.md has an example",
            ) from None  # fmt: skip
        return cls(tuple(names), rate_hz, tuple(units), bads).checked(where)

    def checked(self, where: str) -> StreamHeader:
        """Refuse what cannot be decoded."""
        if not (
            0 < len(self.names) <= MAX_CHANNELS
            and len(set(self.names)) == len(self.names) == len(self.units)
            and 0 < self.sampling_rate_hz <= MAX_RATE_HZ
        ):
            raise InputError(
                "the header of a stream makes no sense", where=where,
                found=f"{len(self.names)} channels ({len(set(self.names))} names, {len(self.units)} "
                f"units) at {self.sampling_rate_hz:g} Hz",
                expected=f"1 to {MAX_CHANNELS} channels of different names, a unit each, and a rate",
                fix="correct the header",
            )  # fmt: skip
        if unknown := sorted(set(self.units) - set(FACTORS)):
            raise InputError(
                "a stream has a unit that is not known", where=where, found=", ".join(unknown)[:200],
                expected=", ".join(FACTORS), fix="correct the units in the header of the stream",
            )  # fmt: skip
        return self


@dataclass(frozen=True)
class Chunk:
    """What came since the last look.

    Attributes
    ----------
    samples : array of shape (n_samples, n_channels), float32
        In the units of the header.
    markers : list of (int, str)
        Sample that a trial starts at, counted from the first of the stream, and the stimulus
        (``n/a`` where it is not known).
    """

    samples: np.ndarray
    markers: list[tuple[int, str]]


class Stream(Protocol):
    """Where samples come from."""

    header: StreamHeader
    where: str

    def read(self) -> Chunk | None:
        """Return what has come, at once; None where the stream has ended."""

    def close(self) -> None:
        """Let go of it."""


class FolderStream:
    """A folder that grows; see the top of this file.

    Parameters
    ----------
    folder : Path
    wait_s : float
        Time for the header to appear.
    """

    def __init__(self, folder: Path, wait_s: float = WAIT_S) -> None:
        self.where, self._folder = str(folder), folder
        until = time.monotonic() + wait_s
        while not (folder / HEADER).is_file():
            if time.monotonic() > until:
                raise InputError(
                    "there is no stream", where=self.where, found=f"no {HEADER} after {wait_s:g} s",
                    expected=f"a folder with {HEADER}, {SAMPLES} and {MARKERS}",
                    fix="start what records, or name its folder",
                )  # fmt: skip
            time.sleep(0.02)
        self.header = StreamHeader.parse(read_json(folder / HEADER), str(folder / HEADER))
        self._n_row = 4 * len(self.header.names)
        self._bytes_read = self._text_read = 0

    def read(self) -> Chunk | None:
        """Return the samples and markers that were added; None at the end."""
        ended = (self._folder / END).is_file()  # asked first: what came before it is read now
        markers = self._markers()
        samples = self._samples(ended=ended)
        if ended and not len(samples) and not markers:
            return None
        return Chunk(samples, markers)

    def close(self) -> None:
        """Do nothing: no file stays open."""

    def _samples(self, *, ended: bool) -> np.ndarray:
        path = self._folder / SAMPLES
        size = path.stat().st_size if path.is_file() else 0
        if size < self._bytes_read:
            raise InputError(
                "a stream became shorter", where=str(path),
                found=f"{size} bytes, after {self._bytes_read} had been read",
                expected="a file that only grows", fix="record into a new folder",
            )  # fmt: skip
        n_bytes = min(size - self._bytes_read, N_BYTES)
        n_bytes -= n_bytes % self._n_row
        if not n_bytes:
            if ended and size > self._bytes_read:
                raise InputError(
                    "a stream is cut off within a sample", where=str(path), found=f"{size} bytes",
                    expected=f"a multiple of {self._n_row} bytes, {len(self.header.names)} channels",
                    fix="the trials before are kept; see why the recording broke off",
                )  # fmt: skip
            return np.zeros((0, len(self.header.names)), np.float32)
        with path.open("rb") as file:
            file.seek(self._bytes_read)
            found = file.read(n_bytes)
        self._bytes_read += len(found)
        return np.frombuffer(found, "<f4").reshape(-1, len(self.header.names))

    def _markers(self) -> list[tuple[int, str]]:
        """Read the whole lines that were added: ``sample``, tab, ``stimulus_id``."""
        path = self._folder / MARKERS
        if not path.is_file() or path.stat().st_size <= self._text_read:
            return []
        with path.open("rb") as file:
            file.seek(self._text_read)
            text = file.read(N_BYTES)
        text = text[: text.rfind(b"\n") + 1]
        self._text_read += len(text)
        found = []
        for line in text.decode("utf-8", errors="replace").splitlines():
            sample, _, stimulus = line.partition("\t")
            if sample == "sample" or not line.strip():
                continue
            if not sample.strip().isdecimal():
                raise InputError(
                    "a marker of a stream is not right", where=str(path), found=repr(line[:80]),
                    expected="the number of a sample, a tab and the id of the stimulus",
                    fix="correct what writes the markers",
                )  # fmt: skip
            found.append((int(sample), stimulus.strip() or "n/a"))
        return found


class FolderWriter:
    """Write a growing folder: the other side of `FolderStream`.

    Parameters
    ----------
    folder : Path
        Empty or absent.
    header : StreamHeader
    """

    def __init__(self, folder: Path, header: StreamHeader) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise UsageError(
                "a stream is recorded into a folder of its own", where=str(folder),
                found="a folder with files", expected="an empty one", fix="name another folder",
            )  # fmt: skip
        self._folder = folder
        (folder / MARKERS).write_text("sample\tstimulus_id\n", encoding="utf-8")
        (folder / SAMPLES).touch()
        values = {"channels": header.names, "sampling_rate_hz": header.sampling_rate_hz}
        values |= {"units": header.units, "bads": header.bads}
        write_json(folder / HEADER, values)

    def write(self, samples: np.ndarray, markers: Sequence[tuple[int, str]]) -> None:
        """Append samples (n, n_channels) and the markers that lie in them."""
        if markers:
            with (self._folder / MARKERS).open("a", encoding="utf-8") as file:
                file.write("".join(f"{sample}\t{stimulus}\n" for sample, stimulus in markers))
        with (self._folder / SAMPLES).open("ab") as file:
            file.write(np.ascontiguousarray(samples, "<f4").tobytes())

    def close(self) -> None:
        """Say that the recording has ended."""
        (self._folder / END).touch()


class LslStream:
    """A stream of Lab Streaming Layer on this machine or its network, and its markers.

    Parameters
    ----------
    name : str
        Of the stream of samples. Markers come from the stream of type ``Markers`` whose name is
        this and ``-markers``, or the only one there is; a marker is the id of a stimulus.
    wait_s : float
        Time for both to be found.
    """

    def __init__(self, name: str, wait_s: float = WAIT_S) -> None:
        pylsl = _pylsl()
        self.where = f"LSL stream {name}"
        found = pylsl.resolve_byprop("name", name, timeout=wait_s)
        if not found:
            raise InputError(
                "there is no such stream", where=self.where, found=f"none within {wait_s:g} s",
                expected="an outlet of this name", fix="start what records; check the name",
            )  # fmt: skip
        markers = pylsl.resolve_byprop("name", f"{name}-markers", timeout=min(wait_s, 1.0))
        markers = markers or pylsl.resolve_byprop("type", "Markers", timeout=min(wait_s, 1.0))
        if len(markers) != 1:
            raise InputError(
                "the markers of a stream are not known", where=self.where,
                found=f"{len(markers)} streams of type Markers", expected=f"one, or {name}-markers",
                fix=f"name the stream of markers {name}-markers",
            )  # fmt: skip
        clocks = pylsl.proc_clocksync | pylsl.proc_dejitter
        self._inlet = pylsl.StreamInlet(found[0], processing_flags=clocks, recover=False)
        self._marks = pylsl.StreamInlet(markers[0], processing_flags=pylsl.proc_clocksync)
        info = self._inlet.info(timeout=wait_s)
        names = info.get_channel_labels() or []
        units = info.get_channel_units() or []
        rate_hz = info.nominal_srate()
        values = {
            "channels": names,
            "units": [u or "?" for u in units],
            "sampling_rate_hz": rate_hz,
        }
        self.header = StreamHeader.parse(values, self.where)
        self._lost = pylsl.util.LostError
        self._n_samples, self._last_s = 0, 0.0
        self._pending: list[tuple[float, str]] = []
        for inlet in (self._inlet, self._marks):
            inlet.open_stream(timeout=wait_s)

    def read(self) -> Chunk | None:
        """Return the samples that came, and the markers whose time lies within them."""
        try:
            samples, times_s = self._inlet.pull_chunk(timeout=0.0, max_samples=4096)
            texts, at_s = self._marks.pull_chunk(timeout=0.0)
        except self._lost:
            return None
        self._pending += [(t, str(text[0])) for t, text in zip(at_s, texts, strict=True)]
        if len(times_s):
            self._n_samples += len(times_s)
            self._last_s = float(times_s[-1])
        rate_hz = self.header.sampling_rate_hz
        markers = []
        for pair in list(self._pending):
            sample = self._n_samples - 1 - round((self._last_s - pair[0]) * rate_hz)
            if sample < self._n_samples:
                self._pending.remove(pair)
                if sample >= 0:  # else it was set before this stream was joined
                    markers.append((sample, pair[1]))
        rows = np.asarray(samples, np.float32).reshape(-1, len(self.header.names))
        return Chunk(rows, markers)

    def close(self) -> None:
        """Leave the streams."""
        self._inlet.close_stream()
        self._marks.close_stream()


class LslWriter:
    """Send samples and markers through LSL: the other side of `LslStream`.

    Parameters
    ----------
    name : str
    header : StreamHeader
    """

    def __init__(self, name: str, header: StreamHeader) -> None:
        pylsl = _pylsl()
        self._clock, self._rate_hz = pylsl.local_clock, header.sampling_rate_hz
        info = pylsl.StreamInfo(
            name,
            "EEG",
            len(header.names),
            header.sampling_rate_hz,
            "float32",
            f"afterimage-{name}",
        )
        info.set_channel_labels(list(header.names))
        info.set_channel_units(list(header.units))
        marks = pylsl.StreamInfo(
            f"{name}-markers", "Markers", 1, 0.0, "string", f"afterimage-{name}-markers"
        )
        self._outlet, self._marks = pylsl.StreamOutlet(info), pylsl.StreamOutlet(marks)
        self._first_s: float | None = None
        self._n_sent = 0

    def write(self, samples: np.ndarray, markers: Sequence[tuple[int, str]]) -> None:
        """Send samples (n, n_channels) and the markers that lie in them."""
        if self._first_s is None:
            self._outlet.wait_for_consumers(WAIT_S)  # what is sent to nobody is lost
            self._marks.wait_for_consumers(WAIT_S)
            self._first_s = self._clock()
        self._n_sent += len(samples)
        for sample, stimulus in markers:
            self._marks.push_sample([stimulus], self._first_s + sample / self._rate_hz)
        if len(samples):
            last_s = self._first_s + (self._n_sent - 1) / self._rate_hz
            self._outlet.push_chunk(np.ascontiguousarray(samples, np.float32), last_s)

    def close(self) -> None:
        """Leave, which ends the stream."""
        self._outlet = self._marks = None


def open_stream(text: str, wait_s: float = WAIT_S) -> Stream:
    """Open ``lsl:NAME``, or a folder."""
    kind, _, name = text.partition(":")
    return LslStream(name, wait_s) if kind == "lsl" and name else FolderStream(Path(text), wait_s)


def _pylsl() -> Any:
    try:
        import pylsl
    except (ImportError, RuntimeError) as error:  # without its library it raises RuntimeError
        raise UsageError(
            "Lab Streaming Layer is not installed", found=str(error).splitlines()[0][:200],
            expected="pylsl", fix="pip install 'afterimage[live]', or stream through a folder",
        ) from None  # fmt: skip
    return pylsl
