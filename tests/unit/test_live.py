"""Live decoding: a stream gives what the offline causal pipeline gives, and says what is wrong."""

from __future__ import annotations

import csv
import json
import os
import runpy
import signal
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from afterimage.cli import main
from afterimage.errors import InputError, UsageError
from afterimage.io.arrays import read_blocks
from afterimage.io.live_streams import (
    Chunk,
    FolderStream,
    FolderWriter,
    LslStream,
    LslWriter,
    StreamHeader,
    open_stream,
)
from afterimage.io.trials import open_trials
from afterimage.stages import live_session
from afterimage.stages.live_decoder import LiveCleaning, LiveDecoder, Subject
from afterimage.stages.live_player import Player
from afterimage.stages.live_session import Session, decode_stream
from afterimage.stages.shared_decoders import open_decoder

example = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[1] / "live_example.py")))
HEADER = StreamHeader(("A", "B", "C"), 100.0, ("uV", "uV", "uV"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    """Train a decoder for streams."""
    folder = tmp_path_factory.mktemp("live")
    example.write_study(folder / "study")
    example.train(folder / "study", folder / "out", {"ridge": {"kind": "ridge"}})
    return Subject(folder / "out", folder / "study", "sub-01", "ridge")


class Blocks:
    """A recording as a stream of blocks, all there at once."""

    def __init__(self, player: Player, size: int) -> None:
        self.header, self.where = player.header, "blocks"
        self._player, self._size, self._next = player, size, 0

    def read(self) -> Chunk | None:
        start, stop = self._next, self._next + self._size
        if start >= len(self._player._samples):
            return None
        self._next = stop
        inside = [pair for pair in self._player._markers if start <= pair[0] < stop]
        return Chunk(self._player._samples[start:stop], inside)

    def close(self) -> None:
        pass


def decode(subject: Subject, size: int, folder: Path) -> tuple[Session, list[Any], LiveCleaning]:
    """Decode the second run in blocks; return the session, the epochs and what cleaned them."""
    stream = Blocks(Player(subject, "run-02", str(folder / f"{size}"), 1.0), size)
    cleaning = LiveCleaning(subject, stream.header, stream.where)
    decoder = LiveDecoder(subject)
    epochs = []
    plain = decoder.decode

    def kept(epoch: np.ndarray) -> Any:
        epochs.append((epoch, *plain(epoch)))
        return epochs[-1][1:]

    decoder.decode = kept  # type: ignore[method-assign]
    session = decode_stream(
        stream, cleaning, decoder, None, stall_s=1.0, on_progress=lambda *_: None
    )
    assert session.error is None
    return session, epochs, cleaning


@pytest.mark.parametrize("size", [1, 37, 10**6])
def test_a_stream_gives_what_the_offline_pipeline_gives(
    trained: Subject, tmp_path: Path, size: int
) -> None:
    session, found, cleaning = decode(trained, size, tmp_path)
    assert set(cleaning.bad_channels) == {"F3"}
    decoder, _ = open_decoder(
        trained.file("decoding", f"desc-{trained.decoder}_model.safetensors")
    )
    ids, gallery = read_blocks(trained.file("features", "split-test_features.nc"))
    with open_trials(trained.file("", "trials.nc")) as trials:
        own = np.flatnonzero(trials["run"].values.astype(str) == "02")
        own = own if len(own) else np.arange(trials.sizes["trial"] // 2, trials.sizes["trial"])
        responses = trials["responses"].values[own]
        stimuli = trials["stimulus"].values[own].astype(str)
        onsets_s = trials["onset"].values[own]
    by_onset = {round(trial.onset_s, 6): n for n, trial in enumerate(session.trials)}
    assert len(by_onset) == len(own) >= 60  # none is lost
    flat = responses.reshape(len(responses), -1)
    expected, scores = decoder.predict(flat), decoder.scores(flat, gallery)
    for row, onset_s in enumerate(onsets_s):
        number = by_onset[round(float(onset_s), 6)]
        epoch, predicted, live_scores = found[number]
        trial = session.trials[number]
        # In units of the standard deviation of the noise, to which trials are whitened.
        np.testing.assert_allclose(epoch, responses[row], atol=2e-3)
        for block, values in predicted.items():
            scale = expected[block].std()
            np.testing.assert_allclose(values[0], expected[block][row], atol=2e-3 * scale)
        np.testing.assert_allclose(live_scores, scores[row], atol=2e-3 * scores.std())
        assert trial.stimulus == stimuli[row]
        if stimuli[row] in ids:
            mine = scores[row, ids == stimuli[row]]
            clear = np.abs(scores[row] - mine) > 1e-2 * scores.std()
            rank = 1 + int((scores[row] > mine)[clear].sum())
            assert trial.rank is not None and abs(trial.rank - rank) <= (~clear).sum() - 1


def test_a_simulated_session_writes_table_summary_report_and_pictures(
    trained: Subject, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "session"
    arguments = ["decode-live", str(trained.out), "--participant-label", "01", "--simulate"]
    arguments += ["run-02", "--speed", "12", "--n-steps", "2", "--output", str(out)]
    assert main(arguments) == 0
    assert "the stream ended" in capsys.readouterr().out
    with (out / "sub-01_desc-ridge_live.tsv").open() as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    summary = json.loads((out / "sub-01_desc-ridge_live.json").read_text())
    live = [row for row in rows if row["live"] == "yes"]
    assert len(rows) == summary["n_trials"] >= 60
    # Trials that end after the calibration are waited for (on a busy machine not all of them).
    assert 0 < len(live) == summary["embedding_ms"]["n"] < len(rows)
    assert all(float(row["onset_s"]) > example.CALIBRATION_S - 0.5 for row in live)
    assert all(float(row["embedding_ms"]) > 0 for row in live)
    painted = [row for row in rows if row["image"] != "n/a"]
    assert painted and len(painted) == summary["image_ms"]["n"]
    assert all((out / row["image"]).is_file() for row in painted)
    assert summary["bad_channels"] == {"F3": "flat"}
    # Pictures that the training never saw, found in single trials more often than by chance.
    top = summary["retrieval"]["top1"]
    assert summary["retrieval"]["n_pictures"] == 4 and top["chance"] == 0.25
    assert top["ci_low"] > top["chance"]
    page = (out / "sub-01_desc-ridge_live.html").read_text()
    assert "95th percentile" in page and "data:image/svg+xml" in page
    assert f"{len(rows)}, {len(live)} of them live" in page
    # What was shown stands beside what was painted.
    n_shown = min(12, len(painted))
    assert page.count('alt="stimulus p') == page.count('alt="painted in trial ') == n_shown


def test_a_decoder_of_other_trials_is_refused_with_the_line_that_helps(
    trained: Subject, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in (trained.out / "sub-01").rglob("*_series.json"):
        made = json.loads(path.read_text())
        made["Config"]["causal"] = False
        path.write_text(json.dumps(made))
    try:
        arguments = ["decode-live", str(trained.out), "--participant-label", "01", "--simulate"]
        assert main(arguments) == 78
        assert "clean_meeg: {causal: true}" in capsys.readouterr().err
    finally:
        for path in (trained.out / "sub-01").rglob("*_series.json"):
            made = json.loads(path.read_text())
            made["Config"]["causal"] = True
            path.write_text(json.dumps(made))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"names": ("Fz",)}, "lacks channels"),
        ({"sampling_rate_hz": 500.0}, "another rate"),
        ({"units": "T"}, "units of another quantity"),
    ],
)
def test_streams_that_do_not_fit_are_named(
    trained: Subject, tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    header = Player(trained, "run-02", str(tmp_path / "s"), 1.0).header
    names = change.get("names", header.names)
    unit = change.get("units", "V")
    other = StreamHeader(
        names, change.get("sampling_rate_hz", header.sampling_rate_hz), (unit,) * len(names)
    )
    with pytest.raises(InputError, match=said):
        LiveCleaning(trained, other, "a stream")


def test_wrong_units_and_broken_values_end_the_session_with_what_was_decoded(
    trained: Subject, tmp_path: Path
) -> None:
    def ended(player: Player) -> Session:
        stream = Blocks(player, 250)
        cleaning = LiveCleaning(trained, stream.header, stream.where)
        return decode_stream(
            stream, cleaning, LiveDecoder(trained), None, stall_s=1.0, on_progress=lambda *_: None
        )

    player = Player(trained, "run-02", str(tmp_path / "a"), 1.0)
    player._samples = 1e6 * player._samples  # microvolt, said to be volt
    session = ended(player)
    assert not session.trials and "are not in V" in str(session.error)
    player = Player(trained, "run-02", str(tmp_path / "b"), 1.0)
    player._samples[30 * 250 :, 5] = np.nan
    session = ended(player)
    assert len(session.trials) > 30 and "no numbers" in str(session.error)
    assert player.header.names[5] in str(session.error)


def test_ctrl_c_ends_a_session_and_its_report_is_written(
    trained: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, out = tmp_path / "stream", tmp_path / "session"
    player = Player(trained, "run-02", str(folder), 1.0)
    player._writer.write(player._samples[: 30 * 250], player._markers[:40])  # not its end
    # All that has come is decoded when the session waits for more: then the key is pressed.
    monkeypatch.setattr(live_session.time, "sleep", lambda _: signal.raise_signal(signal.SIGINT))
    arguments = ["decode-live", str(trained.out), "--participant-label", "01", "--n-steps", "0"]
    # a shell starts what it runs in the background deaf to the key, and so are these tests then
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        assert main([*arguments, "--stream", str(folder), "--output", str(out)]) == 0
    finally:
        signal.signal(signal.SIGINT, before)
    summary = json.loads((out / "sub-01_desc-ridge_live.json").read_text())
    assert summary["ended"] == "stopped by the keyboard" and summary["n_trials"] == 40
    assert (out / "sub-01_desc-ridge_live.html").is_file()


def test_a_folder_that_grows_is_read_as_it_grows(tmp_path: Path) -> None:
    folder = tmp_path / "stream"
    writer = FolderWriter(folder, HEADER)
    stream = open_stream(str(folder))
    assert stream.header == HEADER
    rng = np.random.default_rng(0)
    samples = rng.normal(size=(50, 3)).astype(np.float32)
    assert stream.read() == Chunk(pytest.approx(np.zeros((0, 3))), [])
    writer.write(samples[:20], [(3, "p1")])
    with (folder / "samples.f32").open("ab") as file:
        file.write(samples[20:].tobytes()[:7])  # half a sample, still being written
    with (folder / "markers.tsv").open("a") as file:
        file.write("31\tp")  # half a line
    found = stream.read()
    assert found is not None and found.markers == [(3, "p1")]
    np.testing.assert_array_equal(found.samples, samples[:20])
    with (folder / "samples.f32").open("ab") as file:
        file.write(samples[20:].tobytes()[7:])
    with (folder / "markers.tsv").open("a") as file:
        file.write("2\n40\tn/a\n")
    writer.close()
    found = stream.read()
    assert found is not None and found.markers == [(31, "p2"), (40, "n/a")]
    np.testing.assert_array_equal(found.samples, samples[20:])
    assert stream.read() is None


def test_folders_that_are_no_streams_say_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no stream"):
        FolderStream(tmp_path / "absent", wait_s=0.05)
    folder = tmp_path / "cut"
    writer = FolderWriter(folder, HEADER)
    writer.write(np.zeros((4, 3)), [])
    with (folder / "samples.f32").open("ab") as file:
        file.write(b"12345")
    writer.close()
    stream = FolderStream(folder)
    assert stream.read() is not None
    with pytest.raises(InputError, match="within a sample"):
        stream.read()
    (folder / "samples.f32").write_bytes(b"")
    with pytest.raises(InputError, match="shorter"):
        stream.read()
    (folder / "markers.tsv").write_text("sample\tstimulus_id\nlater\tp1\n")
    with pytest.raises(InputError, match="marker"):
        FolderStream(folder).read()
    with pytest.raises(UsageError, match="folder of its own"):
        FolderWriter(folder, HEADER)


@pytest.mark.parametrize(
    "text",
    [
        "{}", "[1]", '{"channels": ["A"], "sampling_rate_hz": 0, "units": "V"}',
        '{"channels": ["A", "A"], "sampling_rate_hz": 100, "units": "V"}',
        '{"channels": ["A"], "sampling_rate_hz": 1e300, "units": "V"}',
        '{"channels": ["A"], "sampling_rate_hz": 100, "units": "furlong"}',
        '{"channels": 5, "sampling_rate_hz": 100, "units": "V"}', "not json",
    ],
)  # fmt: skip
def test_headers_that_make_no_sense_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "stream.json").write_text(text)
    with pytest.raises(InputError):
        FolderStream(tmp_path)


def test_a_stream_that_stalls_ends_the_session(trained: Subject, tmp_path: Path) -> None:
    player = Player(trained, "run-02", str(tmp_path / "silent"), 1.0)
    cleaning = LiveCleaning(trained, player.header, "silent")
    stream = FolderStream(tmp_path / "silent")
    session = decode_stream(
        stream, cleaning, LiveDecoder(trained), None, stall_s=0.1, on_progress=lambda *_: None
    )
    assert "stalled" in session.ended


def test_an_lsl_stream_gives_samples_and_markers_in_place() -> None:
    pytest.importorskip("pylsl", reason="Lab Streaming Layer needs the extra 'live'")
    name = f"afterimage-test-{os.getpid()}"
    samples = np.arange(300, dtype=np.float32).reshape(100, 3)
    writer = LslWriter(name, HEADER)
    started = threading.Event()

    def play() -> None:
        started.wait()
        for start in range(0, 100, 20):
            marks = [(33, "p1")] if start == 20 else [(80, "p2")] if start == 80 else []
            writer.write(samples[start : start + 20], marks)
            time.sleep(0.05)

    thread = threading.Thread(target=play)
    thread.start()
    stream = LslStream(name)
    started.set()
    assert stream.header == HEADER
    rows, markers = [], []
    until = time.monotonic() + 15
    while time.monotonic() < until and (sum(map(len, rows)) < 100 or len(markers) < 2):
        chunk = stream.read()
        assert chunk is not None
        rows.append(chunk.samples)
        markers += chunk.markers
        time.sleep(0.01)
    thread.join()
    stream.close()
    np.testing.assert_array_equal(np.concatenate(rows), samples)
    assert markers == [(33, "p1"), (80, "p2")]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ([], "no stream is named"),
        (["--stream", "x"], "no decoder was trained"),
        (["--stream", "x", "--speed", "0"], "out of range"),
    ],
)
def test_commands_that_cannot_be_followed_are_explained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], said: str
) -> None:
    assert main(["decode-live", str(tmp_path), "--participant-label", "01", *more]) == 2
    assert said in capsys.readouterr().err
