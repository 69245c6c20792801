"""One session of live decoding: trials of a stream to features, pictures, times, and a report."""

from __future__ import annotations

import contextlib
import os
import queue
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from afterimage.bids.names import stimulus_labels
from afterimage.errors import AfterimageError, InputError
from afterimage.evaluation.statistics import wilson_interval
from afterimage.io.atomic import write_json, write_text
from afterimage.io.images import read_image, write_png
from afterimage.io.live_streams import Stream
from afterimage.io.tables import write_tsv
from afterimage.reports.live import live_page
from afterimage.stages.live_decoder import LiveCleaning, LiveDecoder, Paint, Subject
from afterimage.stages.report_pictures import stimulus_pictures

#: Pause where nothing has come, in s: a small part of the 20 ms that a trial may take.
POLL_S = 0.002
#: A chunk longer than this was waiting: its trials say nothing about latency, in s.
BEHIND_S = 1.0
#: Pictures that a trial is said to be, best first.
N_BEST = 5
COLUMNS = (
    "trial", "onset_s", "sample", "stimulus_id", *(f"top{k}" for k in range(1, N_BEST + 1)),
    "rank", "embedding_ms", "image_ms", "live", "image",
)  # fmt: skip


@dataclass
class Trial:
    """One decoded trial.

    Attributes
    ----------
    number, sample : int
        Counted from 1; sample of the onset, from the first of the stream.
    onset_s : float
    stimulus : str
        ``n/a`` where the stream does not say.
    best : list of str
        Pictures of the gallery, best first.
    rank : int or None
        Of the stimulus, 1 is first; None where it is not in the gallery.
    embedding_ms, image_ms : float or None
        From the arrival of its last sample; None where no picture was painted.
    live : bool
        Whether it was waited for; else it lay in the calibration or in what had piled up.
    image : str
        File beside the table; "" for none.
    """

    number: int
    sample: int
    onset_s: float
    stimulus: str
    best: list[str]
    rank: int | None
    embedding_ms: float
    live: bool
    image_ms: float | None = None
    image: str = ""

    def row(self) -> dict[str, Any]:
        """Return the row of the table."""
        shown = {f"top{k}": name for k, name in enumerate(self.best, start=1)}
        ms = {"embedding_ms": self.embedding_ms, "image_ms": self.image_ms}
        return {
            "trial": self.number, "onset_s": repr(self.onset_s), "sample": self.sample,
            "stimulus_id": self.stimulus, **dict.fromkeys(COLUMNS[4 : 4 + N_BEST], "n/a"), **shown,
            "rank": "n/a" if self.rank is None else self.rank,
            **{key: "n/a" if value is None else f"{value:.3f}" for key, value in ms.items()},
            "live": "yes" if self.live else "no", "image": self.image or "n/a",
        }  # fmt: skip


@dataclass
class Session:
    """What happened; filled by `decode_stream`.

    Attributes
    ----------
    trials : list of Trial
    n_outside : int
        Trials that began before the stream, or were marked too late.
    ended : str
        How it ended, one sentence.
    error : AfterimageError or None
    """

    trials: list[Trial] = field(default_factory=list)
    n_outside: int = 0
    ended: str = ""
    error: AfterimageError | None = None


class Painter(threading.Thread):
    """Paints the newest trial in a thread of its own, so that no embedding waits for a picture.

    A trial that ends while a picture is painted takes the place of one that still waits.

    Parameters
    ----------
    paint : callable
    nothing : dict of array
        Features that are painted once beforehand: what is loaded then makes no trial wait.
    folder : Path
        Where the pictures go.
    subject : str
    """

    def __init__(
        self, paint: Paint, nothing: Mapping[str, np.ndarray], folder: Path, subject: str
    ) -> None:
        super().__init__(daemon=True)
        paint(nothing, "nothing")
        self._paint, self._folder, self._subject = paint, folder, subject
        self._next: queue.Queue[tuple[Trial, Mapping[str, np.ndarray], float] | None]
        self._next = queue.Queue(maxsize=1)
        self.error: Exception | None = None

    def offer(self, trial: Trial, predicted: Mapping[str, np.ndarray], came_s: float) -> None:
        """Ask for the picture of a trial whose last sample came at ``came_s``."""
        with contextlib.suppress(queue.Empty):
            self._next.get_nowait()
        self._next.put((trial, predicted, came_s))

    def finish(self) -> None:
        """Paint what waits, then end."""
        self._next.put(None)
        self.join()

    def run(self) -> None:
        """Paint until `finish`."""
        if hasattr(os, "setpriority"):  # the other thread, whose trials must not wait, goes first
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)
        while (asked := self._next.get()) is not None:
            trial, predicted, came_s = asked
            if self.error:
                continue
            try:
                picture = self._paint(predicted, f"{self._subject} trial {trial.number}")
                trial.image_ms = 1000 * (time.perf_counter() - came_s)
                label = "".join(stimulus_labels([trial.stimulus]).values())
                file = f"{self._subject}_trial-{trial.number:04d}_stim-{label}_live.png"
                write_png(self._folder / file, picture)
                trial.image = file
            except Exception as error:  # noqa: BLE001  the trials go on without pictures
                self.error = error


def decode_stream(
    stream: Stream,
    cleaning: LiveCleaning,
    decoder: LiveDecoder,
    painter: Painter | None,
    *,
    stall_s: float,
    on_progress: Callable[[Session, float], None],
) -> Session:
    """Decode a stream until it ends, stalls, breaks or is stopped by the keyboard.

    Parameters
    ----------
    stream : Stream
    cleaning : LiveCleaning
    decoder : LiveDecoder
    painter : Painter or None
        Started by the caller.
    stall_s : float
        A stream that sends nothing for so long has stalled.
    on_progress : callable
        Called with the session and the seconds of the stream that have come.

    Returns
    -------
    Session
    """
    session = Session()
    stimuli: dict[int, list[str]] = {}
    rate_hz = stream.header.sampling_rate_hz
    last_s = time.perf_counter()
    try:
        while (chunk := stream.read()) is not None:
            came_s = time.perf_counter()
            for sample, stimulus in chunk.markers:
                stimuli.setdefault(sample, []).append(stimulus)
                cleaning.stream.mark(sample)
            if not len(chunk.samples) and not chunk.markers:
                if came_s - last_s > stall_s:
                    raise _stalled(stream, cleaning, stall_s, rate_hz)
                time.sleep(POLL_S)
                continue
            last_s = came_s
            live = cleaning.stream.calibrated and len(chunk.samples) <= BEHIND_S * rate_hz
            block = _checked(chunk.samples, cleaning, stream)
            for sample, epoch in cleaning.stream.push(block):
                stimulus = stimuli[sample].pop(0)
                if epoch is None:
                    session.n_outside += 1
                    continue
                trial, predicted = _decoded(decoder, epoch, sample, stimulus, rate_hz, session)
                trial.embedding_ms = 1000 * (time.perf_counter() - came_s)
                trial.live = live
                if painter is not None and live:
                    painter.offer(trial, predicted, came_s)
            on_progress(session, cleaning.stream.n_samples / rate_hz)
        session.ended = "the stream ended"
        if not cleaning.stream.calibrated:
            raise InputError(
                "a stream ended within its calibration", where=stream.where,
                found=f"{cleaning.stream.n_samples / rate_hz:.1f} s",
                expected=f"more than {cleaning.calibration_s:g} s (clean_meeg.calibration_s)",
                fix="record for longer",
            )  # fmt: skip
    except KeyboardInterrupt:
        session.ended = "stopped by the keyboard"
    except AfterimageError as error:
        session.ended, session.error = error.what, error
    return session


def _checked(samples: np.ndarray, cleaning: LiveCleaning, stream: Stream) -> np.ndarray:
    """Return the channels that are decoded, in SI units; refuse values that are no numbers."""
    block = samples[:, cleaning.order].astype(np.float64) * cleaning.factors
    finite = np.isfinite(block).all(axis=0)
    if not finite.all():
        names = [stream.header.names[place] for place in cleaning.order[~finite]]
        raise InputError(
            "a stream has values that are no numbers", where=stream.where,
            found=f"in {', '.join(names[:8])}, about second "
            f"{cleaning.stream.n_samples / stream.header.sampling_rate_hz:.1f}",
            expected="numbers throughout",
            fix="a filter would carry them for ever: send 0 for a channel that is broken, and name "
            "it among bads of the header",
        )  # fmt: skip
    return np.asarray(block)


def _decoded(
    decoder: LiveDecoder, epoch: np.ndarray, sample: int, stimulus: str, rate_hz: float,
    session: Session,
) -> tuple[Trial, Mapping[str, np.ndarray]]:  # fmt: skip
    predicted, scores = decoder.decode(epoch)
    order = np.argsort(-scores, kind="stable")
    ids = decoder.gallery_ids
    own = np.flatnonzero(ids == stimulus)
    rank = int((scores >= scores[own[0]]).sum()) if len(own) else None  # ties count in full
    best = [str(name) for name in ids[order[:N_BEST]]]
    number = len(session.trials) + 1
    trial = Trial(number, sample, sample / rate_hz, stimulus, best, rank, 0.0, False)
    session.trials.append(trial)
    return trial, predicted


def _stalled(stream: Stream, cleaning: LiveCleaning, stall_s: float, rate_hz: float) -> InputError:
    return InputError(
        "a stream stalled", where=stream.where,
        found=f"nothing for {stall_s:g} s, after {cleaning.stream.n_samples / rate_hz:.1f} s",
        expected="samples, or the sign that the recording has ended",
        fix="see what records; --stall-s sets how long is waited",
    )  # fmt: skip


def summary_of(
    session: Session, cleaning: LiveCleaning, decoder: LiveDecoder, about: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what the session comes to, as it is written to JSON."""
    live = [trial for trial in session.trials if trial.live]
    ranked = [trial.rank for trial in session.trials if trial.rank is not None]
    n_pictures = len(decoder.gallery_ids)
    retrieval = {}
    for k in (1, N_BEST):
        n_right = sum(rank <= k for rank in ranked)
        share = n_right / len(ranked) if ranked else None
        low, high = (None, None) if share is None else wilson_interval(share, len(ranked))
        chance = min(1.0, k / n_pictures)
        retrieval[f"top{k}"] = {"value": share, "ci_low": low, "ci_high": high, "chance": chance}
    return {
        **about,
        "ended": session.ended,
        "error": str(session.error) if session.error else None,
        "n_trials": len(session.trials),
        "n_outside": session.n_outside,
        "n_live": len(live),
        "embedding_ms": latency([trial.embedding_ms for trial in live]),
        "image_ms": latency([t.image_ms for t in live if t.image_ms is not None]),
        "retrieval": {"n": len(ranked), "n_pictures": n_pictures, **retrieval},
        "bad_channels": cleaning.bad_channels,
        "notes": cleaning.notes,
    }


def latency(values_ms: list[float]) -> dict[str, Any]:
    """Return number, median, 95th percentile and maximum, in ms."""
    if not values_ms:
        return {"n": 0, "median": None, "p95": None, "max": None}
    median, p95, largest = np.percentile(values_ms, [50, 95, 100]).tolist()
    return {"n": len(values_ms), "median": median, "p95": p95, "max": largest}


def write_session(
    folder: Path, stem: str, session: Session, summary: Mapping[str, Any], subject: Subject
) -> dict[str, Path]:
    """Write the table of trials, the summary and the report; return where."""
    paths = {kind: folder / f"{stem}_live.{kind}" for kind in ("tsv", "json", "html")}
    write_tsv(paths["tsv"], [trial.row() for trial in session.trials], COLUMNS)
    write_json(paths["json"], dict(summary))
    rows = [trial.row() for trial in session.trials]
    painted = {
        row["image"]: read_image(folder / row["image"]) for row in rows if row["image"] != "n/a"
    }
    shown = list(dict.fromkeys(row["stimulus_id"] for row in rows if row["image"] in painted))
    seen = stimulus_pictures(subject.file("", "split.tsv"), subject.bids_dir, shown)
    write_text(paths["html"], live_page(summary, rows, seen or {}, painted))
    return paths
