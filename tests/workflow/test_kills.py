"""Fifty kills of the demo at seeded moments: it goes on each time and ends as if nothing had been.

A kill is SIGKILL of every process of the run at once: the command, Snakemake, the warm interpreter,
its forks and all jobs. After each one, every output that stands there is compared with that of an
undisturbed run: a file is there whole or not at all. The simulated study is taken from that run: it
alone takes longer than the longest time between two kills (`test_a_simulation_goes_on` stops it
instead). ``AFTERIMAGE_DEMO`` may name the folder of an undisturbed demo of this version, which is then
not made again.
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
#: The demo from prepared responses with short jobs, of which some end between any two kills.
QUICK = {
    "extract_features": {"encoders": {"git": None}},
    "train_decoder": {
        "decoders": {
            "ridge": {"n_folds": 2},
            "bayesian": {"n_folds": 2, "penalties": [1.0], "component_variances": [1.0]},
        }
    },
    "reconstruct": {"methods": {"latent_diffusion": {"n_candidates": 1, "n_steps": 2}}},
    "evaluate": {"n_bootstraps": 100, "n_permutations": 100},
    "learning_curve": {"enabled": False},
    "report_subject": {"n_gallery_rows": 1},
}
#: What two undisturbed runs do not share: the folder in which the run was, its time and cost.
OTHER = re.compile(
    r"^results/(logs|\.snakemake)/"  # times, run ids, Snakemake's notes
    r"|^results/(code/workflow\.yaml|dataset_description\.json)$"  # the absolute path of the dataset
    r"|^results/group/subjects\.json$"  # seconds that fits took
    r"|^dataset/(derivatives/simulation/)?logs/"  # seconds that simulating took
    r"|\.html$"  # seconds, memory, versions and date in the provenance; compared below as text
)
#: What is being written: temporary names, checkpoints, and work that is not the cache of features.
UNFINISHED = re.compile(r"(^|/)\.(writing|scratch|begun)-|^results/work/(?!features/)")


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
    return re.sub(r"\d[\d.,]*\s*(s|min|h|MB|GB)\b", "COST", text)


@pytest.mark.slow
@pytest.mark.timeout(4 * 3600)
@pytest.mark.parametrize("raw", [False, True], ids=["prepared", "raw"])
def test_fifty_kills(
    raw: bool, tools: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options: list[Any] = ["--cores", N_PROCESSORS]
    if not raw:
        config = tools.write_config(tmp_path / "quick.yaml", QUICK)
        options += ["--prepared", "--config", config]
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    environment = tools.environment(TMPDIR=str(temporary))
    log = tmp_path / "run.log"

    def finish(out: Path) -> None:
        command = tools.command("demo", out, *options)
        with log.open("w") as sink:
            done = subprocess.run(
                command, env=environment, stdout=sink, stderr=subprocess.STDOUT, check=False
            )
        assert done.returncode == 0, log.read_text()

    reference = Path(os.environ.get("AFTERIMAGE_DEMO", "none"))
    if not raw or not reference.is_dir():
        reference = tmp_path / "undisturbed"
        finish(reference)
    expected = Outputs(reference).digests()
    # A job must be able to end between two kills; those of raw recordings take twice as long.
    scale = 1 + raw
    draw = random.Random(SEED)
    kills, demos = 0, 0
    damaged: list[str] = []
    while kills < N_KILLS:
        demos += 1
        out = tmp_path / f"demo{demos}"
        shutil.copytree(reference / "dataset", out / "dataset")
        outputs = Outputs(out)
        ended = False
        while kills < N_KILLS and not ended:
            after_s = draw.uniform(*AFTER_S)
            code = kill_after(tools.command("demo", out, *options), environment, scale * after_s)
            ended = code is not None
            assert code in (None, 0), f"run after {kills} kills ended by itself with {code}"
            kills += not ended
            there = outputs.digests()
            wrong = sorted(name for name, value in there.items() if expected.get(name) != value)
            damaged += [f"after kill {kills}: {name}" for name in wrong]
            with capsys.disabled():
                print(
                    f"{time.strftime('%H:%M:%S')} kill {kills} after {scale * after_s:.1f} s: "
                    f"{len(there)} of {len(expected)} files, {len(wrong)} wrong: {wrong[:3]}",
                    flush=True,
                )
        if not ended:
            finish(out)
        assert not damaged
        assert outputs.digests() == expected
        assert not outputs.unfinished()
        pages = sorted(path.relative_to(reference) for path in reference.rglob("*.html"))
        assert pages
        for page in pages:
            assert page_without_costs(out / page) == page_without_costs(reference / page), page
        with capsys.disabled():
            print(f"{time.strftime('%H:%M:%S')} demo {demos} is that of an undisturbed run")
    assert not list(temporary.iterdir()), "the temporary folder is not empty"
    again = tools.run("demo", out, *options)
    assert "nothing to be done" in again.stdout
