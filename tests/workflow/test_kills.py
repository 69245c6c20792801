"""Fifty kills of a run at seeded moments: it goes on each time and ends as if nothing had been.

A kill is SIGKILL of every process of the run at once: the command, Snakemake, the warm interpreter,
its forks and all jobs. After each one, every output that stands there is compared with that of an
undisturbed run: a file is there whole or not at all. Runs that end before they are killed are begun
anew in another folder, until fifty were killed.

``demo`` is the whole demo, which takes an idle machine of two processors about 40 minutes. Its study is
taken from the undisturbed run: simulating takes longer than the longest time between two kills
(`test_a_simulation_goes_on` stops it instead). ``AFTERIMAGE_DEMO`` may name the folder of an undisturbed
demo of this version, which is then not made again. ``small`` is a study of seconds with every kind of
decoder and method, whose jobs are so short that kills fall everywhere.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

N_KILLS = 50
SEED = 50
#: Seconds of processor time between the start of the command and its end, on one processor. So a
#: busy machine, which gets less far in a second, is no harder a test.
AFTER_S = (2.0, 20.0)
N_PROCESSORS = 2
#: What two undisturbed runs do not share: the folder in which the run was, its time and cost.
OTHER = re.compile(
    r"^(results/)?(logs|\.snakemake)/"  # times, run ids, Snakemake's notes
    r"|^(results/)?(code/workflow\.yaml|dataset_description\.json)$"  # the path of the dataset
    r"|^(results/)?group/subjects\.json$"  # seconds that fits took
    r"|^dataset/(derivatives/simulation/)?logs/"  # seconds that simulating took
    r"|\.html$"  # seconds, memory, versions and date in the provenance; compared below as text
)
#: What is being written: temporary names, checkpoints, and work that is not the cache of features.
UNFINISHED = re.compile(r"(^|/)\.(writing|scratch|begun)-|^(results/)?work/(?!features/)")


def kill_after(command: list[str], environment: dict[str, str], after_s: float) -> int | None:
    """Run a command, kill it and all its descendants; return its exit code if it ended before."""
    # Words are dropped: a pipe that nobody reads would stop the run.
    process = subprocess.Popen(
        command, env=environment, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    while processor_s(process.pid) < after_s:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.wait(timeout=0.05)
    session = process.pid
    for child in psutil.Process(session).children(recursive=True):
        with contextlib.suppress(ProcessLookupError):
            assert os.getsid(child.pid) == session, f"{child} left the session of its run"
            assert os.getpgid(child.pid) == session, f"{child} left the group of its run"
    os.killpg(session, signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 10
    while (left := members(session)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not left, f"processes outlived the kill: {left}"
    return None


def processor_s(pid: int) -> float:
    """Return the processor time that a process and its descendants took, ended ones too."""
    total = 0.0
    with contextlib.suppress(psutil.Error):
        run = psutil.Process(pid)
        for process in (run, *run.children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                total += sum(process.cpu_times()[:4])
    return total


def members(session: int) -> list[str]:
    """Return the living processes of a session."""
    found = []
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == session and process.status() != psutil.STATUS_ZOMBIE:
                found.append(" ".join(process.cmdline()))
        except (OSError, psutil.Error):
            continue
    return found


class Outputs:
    """The files of a demo by their digests; those that did not change are not read again."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._known: dict[str, tuple[tuple[int, int], str]] = {}

    def digests(self) -> dict[str, str]:
        """Return the digest of every file but those that differ between any two runs."""
        found = {}
        for path in sorted(self.root.rglob("*")):
            name = path.relative_to(self.root).as_posix()
            if not path.is_file() or OTHER.search(name) or UNFINISHED.search(name):
                continue
            about = path.stat()
            stamp = (about.st_mtime_ns, about.st_size)
            if self._known.get(name, (None, ""))[0] != stamp:
                self._known[name] = (stamp, digest(path))
            found[name] = self._known[name][1]
        return found

    def unfinished(self) -> list[str]:
        """Return what is left of writing: temporary files, checkpoints, scratch matrices."""
        files = (path for path in self.root.rglob("*") if path.is_file())
        names = sorted(path.relative_to(self.root).as_posix() for path in files)
        return [name for name in names if UNFINISHED.search(name)]


def digest(path: Path) -> str:
    """Return the digest of a file; of FIF files, which tell when they were written, of the data."""
    if path.suffix != ".fif":
        return hashlib.sha256(path.read_bytes()).hexdigest()
    import mne

    raw = mne.io.read_raw_fif(path, verbose="error")
    data = np.ascontiguousarray(raw.get_data())
    return hashlib.sha256(data.tobytes() + repr(raw.info["ch_names"]).encode()).hexdigest()


def page_without_costs(path: Path) -> str:
    """Return the text of a report without its date, and the time and memory that stages took."""
    text = path.read_text(encoding="utf-8")
    text = re.sub(r"\d{4}-\d\d-\d\d( \d\d:\d\d(:\d\d)?)?", "DATE", text)
    text = re.sub(r'data-sort="[\d.]+"', "", text)  # what is shown is compared below
    return re.sub(r"(\d[\d.,]*\s*(s|min|h|MB|GB)\b\s*)+", "COST", text)


@dataclass(frozen=True)
class Killed:
    """A command that is killed: its words for an output folder, what is there at the start, pace."""

    command: Callable[[Path], list[str]]
    study: Path | None
    pace: float


@pytest.fixture(params=["small", "demo"])
def killed(request: pytest.FixtureRequest, tools: Any, tmp_path: Path) -> Killed:
    """Return the run that is killed; jobs of the demo take longer, and so it is given more time."""
    cores = ["--cores", N_PROCESSORS]
    if request.param == "demo":
        known = Path(os.environ.get("AFTERIMAGE_DEMO", tmp_path / "undisturbed"))
        return Killed(lambda out: tools.command("demo", out, *cores), known / "dataset", 2.0)
    study = tools.study(tmp_path / "data")
    study.subject("01")
    study.subject("02", n_units=20)
    config = tools.write_config(tmp_path / "config.yaml", tools.small)
    words = ["participant", "--config", config, *cores]
    return Killed(lambda out: tools.command(study.folder, out, *words), None, 1.0)


@pytest.mark.slow
@pytest.mark.timeout(4 * 3600)
def test_fifty_kills(
    killed: Killed, tools: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    environment = tools.environment(TMPDIR=str(temporary))

    def say(*words: object) -> None:
        with capsys.disabled():
            print(time.strftime("%H:%M:%S"), *words, flush=True)

    def finish(out: Path) -> None:
        done = subprocess.run(
            killed.command(out), env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr

    reference = killed.study.parent if killed.study else tmp_path / "undisturbed"
    if not reference.is_dir():
        finish(reference)
    expected = Outputs(reference).digests()
    say("undisturbed:", len(expected), "files")
    draw = random.Random(SEED)
    n_killed, n_runs = 0, 0
    while n_killed < N_KILLS:
        n_runs += 1
        out = tmp_path / f"run{n_runs}"
        if killed.study:
            shutil.copytree(killed.study, out / "dataset")
        outputs = Outputs(out)
        damaged: list[str] = []
        ended = False
        while n_killed < N_KILLS and not ended:
            after_s = killed.pace * draw.uniform(*AFTER_S)
            code = kill_after(killed.command(out), environment, after_s)
            ended = code is not None
            assert code in (None, 0), f"a run ended by itself with {code} after kill {n_killed}"
            n_killed += not ended
            there = outputs.digests()
            wrong = sorted(name for name, value in there.items() if expected.get(name) != value)
            damaged += [f"after kill {n_killed}: {name}" for name in wrong]
            what = "ended" if ended else f"kill {n_killed} after {after_s:.1f} s"
            say(f"{what}: {len(there)} of {len(expected)} files, {len(wrong)} wrong", wrong[:3])
        if not ended:
            finish(out)
        assert not damaged
        assert outputs.digests() == expected
        assert not outputs.unfinished()
        pages = sorted(path.relative_to(reference) for path in reference.rglob("*.html"))
        assert pages
        for page in pages:
            assert page_without_costs(out / page) == page_without_costs(reference / page), page
        say(f"run {n_runs} ended like an undisturbed one")
    # Snakemake leaves an empty folder and files of its scheduler, and torch a folder with any run.
    left = [path for path in temporary.iterdir() if "afterimage" in path.name]
    assert not left, "temporary files of ours outlived the kills"
    again = subprocess.run(
        killed.command(out), env=environment, capture_output=True, text=True, check=False
    )
    assert "nothing to be done" in again.stdout
