"""Latency of live decoding: from the last sample of a trial to its embedding, and to its picture.

A recording is played at its own pace into a growing folder, in blocks of 20 ms, and decoded in the
same process, which is pinned to one core: player, decoder and painter share it. Counted from the
moment the last sample of a trial was written, and from the moment it was read. Run it as

    OMP_NUM_THREADS=1 python tests/benchmarks/bench_live.py [OUT_DIR LABEL DECODER BIDS_DIR]

Without arguments a small subject (32 channels, 250 Hz) is simulated and trained first; with them,
the last recording of a subject of a finished OUT_DIR is played.
"""

from __future__ import annotations

import os
import runpy
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from afterimage.io.live_streams import FolderStream
from afterimage.reports.live import LIMITS_MS
from afterimage.stages.live_decoder import LiveCleaning, LiveDecoder, Subject, open_painter
from afterimage.stages.live_player import Player
from afterimage.stages.live_session import Painter, Session, decode_stream
from afterimage.stages.runner import limit_threads

N_STEPS = 4


def small_subject(folder: Path) -> Subject:
    """Simulate and train the subject of the tests."""
    example = runpy.run_path(str(Path(__file__).parents[1] / "live_example.py"))
    example["write_study"](folder / "study")
    example["train"](folder / "study", folder / "out", {"ridge": {"kind": "ridge"}})
    return Subject(folder / "out", folder / "study", "sub-01", "ridge")


def show(what: str, values_ms: list[float]) -> float:
    """Print the distribution; return the 95th percentile."""
    p50, p95, p100 = np.percentile(values_ms, [50, 95, 100])
    print(f"{what}: n = {len(values_ms)}, median {p50:.2f} ms, 95th percentile {p95:.2f} ms, "
          f"slowest {p100:.2f} ms")  # fmt: skip
    return float(p95)


def measure(subject: Subject, folder: Path) -> bool:
    """Play the last recording; return whether both limits are kept."""
    player = Player(subject, "", str(folder / "stream"), 1.0)
    paint, blocks = open_painter(subject, None, N_STEPS, "cpu")
    decoder = LiveDecoder(subject, blocks)
    painter = Painter(paint, decoder.nothing, folder, subject.name)
    painter.start()
    stream = FolderStream(folder / "stream")
    cleaning = LiveCleaning(subject, stream.header, stream.where)
    since_written: dict[int, float] = {}
    tail_s = cleaning.tmax_s

    def note(session: Session, _: float) -> None:
        now, rate_hz = time.perf_counter(), stream.header.sampling_rate_hz
        for trial in session.trials[len(since_written) :]:
            end = trial.sample + round(tail_s * rate_hz)
            written = next((at for stop, at in player.written_s if stop > end), now)
            since_written[trial.number] = 1000 * (now - written)

    player.start()
    session = decode_stream(stream, cleaning, decoder, painter, stall_s=10.0, on_progress=note)
    painter.finish()
    player.stop()
    live = [trial for trial in session.trials if trial.live]
    name = f"{subject.name}, {subject.decoder}, {len(cleaning.order)} channels"
    print(f"{name}: {session.ended}, {len(session.trials)} trials, {len(live)} live")
    show("written to embedding", [since_written[t.number] for t in live])
    first = show("read to embedding", [t.embedding_ms for t in live])
    painted = [t.image_ms for t in live if t.image_ms is not None]
    second = show(f"read to picture ({N_STEPS} steps at strength 1)", painted)
    return first <= LIMITS_MS["embedding_ms"] and second <= LIMITS_MS["image_ms"]


def main() -> int:
    """Measure; 1 where a limit is not kept."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    limit_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if len(sys.argv) > 1:
            out, label, decoder, bids_dir = sys.argv[1:]
            subject = Subject(Path(out), Path(bids_dir), f"sub-{label}", decoder)
        else:
            subject = small_subject(folder)
        return int(not measure(subject, folder))


if __name__ == "__main__":
    sys.exit(main())
