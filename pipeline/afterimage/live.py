"""The command `afterimage decode-live`: a trained decoder behind a stream of trials."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from afterimage import __version__
from afterimage.errors import AfterimageError, InputError, UsageError

if TYPE_CHECKING:
    from afterimage.stages.live_decoder import Subject
    from afterimage.stages.live_session import Session

EPILOG = """\
The decoder must have been trained on causal trials: a run of afterimage with the configuration
  clean_meeg: {causal: true}
makes one (docs/live.md). The stream must have the channels and the rate of its recordings.

A growing folder holds
  stream.json    {"channels": ["Fz", ...], "sampling_rate_hz": 500, "units": "uV", "bads": []}
  samples.f32    little-endian float32, all channels of a sample, sample after sample
  markers.tsv    sample, tab, stimulus_id (n/a where it is not known): one line a trial
  end            an empty file, when the recording has ended
lsl:NAME is a stream of Lab Streaming Layer with channel labels and units; markers come from
NAME-markers, or the only stream of type Markers (pip install 'afterimage[live]').

examples:
  afterimage decode-live results --participant-label 03 --simulate
  afterimage decode-live results --participant-label 03 --decoder ridge --stream /data/now
  afterimage decode-live results --participant-label 03 --stream lsl:amplifier

Ctrl-C ends the session; its report is written all the same. Exit codes: 0 fine, 2 usage, 65 the
stream was not right (what was decoded before is kept), 78 the decoder is not one for streams.
"""


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    made = argparse.ArgumentParser(
        prog="afterimage decode-live",
        description="Decode the trials of a stream of EEG or MEG as they end: the pictures they are "
        "most like, and a picture by a few steps of the generator. Writes a table of all trials, a "
        "summary, and a report with the latencies.",
        epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    add = made.add_argument
    add("output_dir", type=Path, help="a finished OUT_DIR of afterimage")
    add("--participant-label", "--participant_label", required=True, metavar="LABEL",
        help="the subject whose decoder is used, with or without 'sub-'")  # fmt: skip
    add("--decoder", metavar="NAME", help="which one (default: ridge, or the only one there is)")
    add("--stream", metavar="FOLDER|lsl:NAME", help="where samples come from")
    add("--simulate", nargs="?", const="", metavar="RUN",
        help="play a recording of the study, such as run-03 (default: the last), into --stream, or "
        "into a folder of its own")  # fmt: skip
    add("--speed", type=float, default=1.0, metavar="X", help="pace of --simulate (default: 1)")
    add("--session", metavar="LABEL",
        help="session whose noise whitens the trials (default: the last of the training)")  # fmt: skip
    add("--bids-dir", type=Path, metavar="DIR",
        help="the dataset that OUT_DIR was made of, if it has moved")  # fmt: skip
    add("--method", metavar="NAME",
        help="reconstruction that paints (default: the first with a sampler)")  # fmt: skip
    add("--n-steps", type=int, default=4, metavar="N",
        help="steps of its sampler (default: 4); 0: no pictures")  # fmt: skip
    add("--device", choices=("auto", "cpu", "cuda"), default="cpu", help="where it paints")
    add("--stall-s", type=float, default=10.0, metavar="S",
        help="a stream that is silent for so long has stalled (default: 10)")  # fmt: skip
    add("--output", type=Path, metavar="DIR",
        help="where table, summary, report and pictures go "
        "(default: OUT_DIR/sub-LABEL/live/<time>)")  # fmt: skip
    return made


def main(arguments: list[str]) -> int:
    """Run the command; return the exit code."""
    options = parser().parse_args(arguments)
    if options.stream is None and options.simulate is None:
        raise UsageError(
            "no stream is named", where="afterimage decode-live", expected="--stream or --simulate",
            fix="name where samples come from, or play a recording of the study",
        )  # fmt: skip
    if options.speed <= 0 or options.n_steps < 0 or options.stall_s <= 0:
        raise UsageError(
            "a number is out of range", found=f"--speed {options.speed:g} --n-steps "
            f"{options.n_steps} --stall-s {options.stall_s:g}",
            expected="a speed and a time above 0, and 0 or more steps",
        )  # fmt: skip
    from afterimage.stages.runner import limit_threads, resolve_device

    limit_threads(1)
    device = resolve_device(options.device)
    subject = _subject(options)
    folder = options.output
    if folder is None:
        folder = subject.out / subject.name / "live" / time.strftime("%Y%m%d-%H%M%S")
    with _played(options, subject) as (target, play):
        session, paths = _session(options, subject, target, play, folder, device)
    n_live = sum(trial.live for trial in session.trials)
    print(f"{session.ended}: {len(session.trials)} trials, {n_live} of them live")
    for path in paths.values():
        print(path)
    if session.error is not None:
        raise session.error
    return 0


def _subject(options: argparse.Namespace) -> Subject:
    """Find the subject, its decoder and the dataset."""
    from afterimage.stages.live_decoder import Subject, causal_series, decoders_of

    out = options.output_dir.resolve()
    name = "sub-" + options.participant_label.removeprefix("sub-")
    known = decoders_of(out, name)
    decoder = options.decoder or ("ridge" if "ridge" in known else "".join(known[:1]))
    if decoder not in known or (options.decoder is None and len(known) > 1 and decoder != "ridge"):
        raise UsageError(
            "there is no such decoder" if known else "no decoder was trained",
            where=f"{out}, {name}", found=decoder or "none", expected=", ".join(known) or "a trained one",
            fix="name one with --decoder" if known else "give a finished OUT_DIR of EEG or MEG",
        )  # fmt: skip
    bids_dir = options.bids_dir
    if bids_dir is None:
        record = out / "code" / "workflow.yaml"
        saved = yaml.safe_load(record.read_text(encoding="utf-8")) if record.is_file() else {}
        bids_dir = Path(str(saved.get("bids_dir", out)))
    subject = Subject(out, bids_dir.resolve(), name, decoder)
    causal_series(subject)  # refused before anything is loaded
    return subject


@contextmanager
def _played(
    options: argparse.Namespace, subject: Subject
) -> Iterator[tuple[str, Callable[[], None]]]:
    """Give the name of the stream, and what starts to play a recording into it, where asked."""
    if options.simulate is None:
        yield options.stream, lambda: None
        return
    from afterimage.stages.live_player import Player

    with tempfile.TemporaryDirectory(prefix="afterimage-live-") as scratch:
        target = options.stream or str(Path(scratch) / "stream")
        player = Player(subject, options.simulate, target, options.speed)
        try:
            yield target, player.start
        finally:
            player.stop()


def _session(
    options: argparse.Namespace, subject: Subject, target: str, play: Callable[[], None],
    folder: Path, device: str,
) -> tuple[Session, dict[str, Path]]:  # fmt: skip
    """Open the decoder and the stream, decode, and write what came of it."""
    from afterimage.io.live_streams import open_stream
    from afterimage.stages.live_decoder import LiveCleaning, LiveDecoder, open_painter
    from afterimage.stages.live_session import (
        Painter,
        decode_stream,
        summary_of,
        write_session,
    )

    painter: Painter | None = None
    folder.mkdir(parents=True, exist_ok=True)
    if options.n_steps:
        paint, blocks = open_painter(subject, options.method, options.n_steps, device)
        decoder = LiveDecoder(subject, blocks)
        painter = Painter(paint, decoder.nothing, folder, subject.name)
        painter.start()
    else:
        decoder = LiveDecoder(subject)
    stream = open_stream(target)
    try:
        cleaning = LiveCleaning(subject, stream.header, stream.where, options.session)
        play()
        with _progress() as show:
            session = decode_stream(
                stream, cleaning, decoder, painter, stall_s=options.stall_s, on_progress=show
            )
    finally:
        stream.close()
        if painter is not None:
            painter.finish()
    if painter is not None and painter.error is not None and session.error is None:
        session.error = _painting_failed(painter.error, subject)
    about = {
        "subject": subject.name, "decoder": subject.decoder, "stream": stream.where,
        "created": time.strftime("%Y-%m-%d %H:%M:%S"), "version": __version__,
        "n_steps": options.n_steps, "output": str(subject.out),
    }  # fmt: skip
    summary = summary_of(session, cleaning, decoder, about)
    stem = f"{subject.name}_desc-{subject.decoder}"
    return session, write_session(folder, stem, session, summary, subject)


def _painting_failed(error: Exception, subject: Subject) -> AfterimageError:
    if isinstance(error, AfterimageError):
        return error
    return InputError(
        "pictures could not be painted", where=f"{subject.name}, {subject.decoder}",
        found=f"{type(error).__name__}: {error}"[:300], expected="a picture a trial",
        fix="the trials were decoded all the same; --n-steps 0 leaves pictures out",
    )  # fmt: skip


@contextmanager
def _progress() -> Iterator[Callable[[Session, float], None]]:
    """Show how far the session is: a line that stays in place, on a terminal only."""
    if not sys.stdout.isatty():
        yield lambda session, seconds: None
        return
    from rich.live import Live
    from rich.text import Text

    with Live(Text("waiting for the calibration"), refresh_per_second=8) as shown:

        def show(session: Any, seconds: float) -> None:
            if not session.trials:
                shown.update(Text(f"{seconds:7.1f} s  calibrating"))
                return
            trial = session.trials[-1]
            right = f", shown {trial.stimulus}, rank {trial.rank}" if trial.rank else ""
            shown.update(
                Text(
                    f"{seconds:7.1f} s  trial {trial.number}: {', '.join(trial.best)}{right}  "
                    f"({trial.embedding_ms:.1f} ms)"
                )
            )

        yield show
