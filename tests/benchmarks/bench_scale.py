"""Time and memory of large studies: index, dry run, and a run with nothing to do.

    python tests/benchmarks/bench_scale.py

1,000 subjects with 20 runs in each of BOLD, EEG and MEG (60,000 recordings); 1,000 subjects of prepared
responses; and 100 of those, finished. Limits of issue 8: a dry run within 1 GB, nothing to do in 10 s.
Memory is that of the whole tree of processes, shared pages counted once.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil

MINIMAL = Path(__file__).resolve().parents[1] / "data" / "minimal"
LIMIT_MB, LIMIT_S = 1000, 10
N_RUNS = 20
EVENTS = "onset\tduration\ttrial_type\tstim_file\n0\t1\tview\ttest_00.png\n"


def make_scans(folder: Path, n_subjects: int) -> None:
    """Write empty recordings of three modalities, with events and a sidecar beside each."""
    (folder / "stimuli").mkdir(parents=True)
    (folder / "dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.10.0"}')
    (folder / "stimuli.tsv").write_text("stimulus_id\tfile\na\ta.png\n")
    events = folder / "events.tsv"  # one file with many names: the index reads the first line
    events.write_text(EVENTS)
    sidecar = folder / "sidecar.json"
    sidecar.write_text('{"RepetitionTime": 2.0, "SamplingFrequency": 100.0}')
    for number in range(n_subjects):
        for datatype, ending in (("func", "bold.nii.gz"), ("eeg", "eeg.edf"), ("meg", "meg.fif")):
            inside = folder / f"sub-{number:04d}" / datatype
            inside.mkdir(parents=True)
            for run in range(1, N_RUNS + 1):
                stem = f"{inside}/sub-{number:04d}_task-view_run-{run:02d}_"
                with open(stem + ending, "xb"):
                    pass
                os.link(events, stem + "events.tsv")
                os.link(sidecar, f"{stem}{ending.split('.')[0]}.json")


def make_prepared(folder: Path, n_subjects: int) -> None:
    """Write subjects with the same few responses."""
    folder.mkdir()
    (folder / "stimuli").symlink_to(MINIMAL / "stimuli")
    (folder / "stimuli.tsv").write_bytes((MINIMAL / "stimuli.tsv").read_bytes())
    for number in range(n_subjects):
        inside = folder / f"sub-{number:04d}"
        inside.mkdir()
        for suffix in ("responses.npy", "trials.tsv"):
            source = MINIMAL / "sub-01" / f"sub-01_{suffix}"
            (inside / f"sub-{number:04d}_{suffix}").write_bytes(source.read_bytes())


def tree_mb(process: psutil.Process) -> float:
    """Return the memory of a process and its children in MB; a page of several counts once."""
    total = 0
    with contextlib.suppress(psutil.Error):
        for one in [process, *process.children(recursive=True)]:
            with contextlib.suppress(psutil.Error):
                total += one.memory_full_info().pss
    return total / 1e6


def measure(*arguments: object) -> tuple[float, float, str]:
    """Run the command line; return seconds, the peak memory in MB, and what it printed."""
    peak, done = 0.0, threading.Event()
    command = [sys.executable, "-m", "afterimage", *map(str, arguments)]
    started = time.perf_counter()
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)

        def watch() -> None:
            nonlocal peak
            while not done.wait(0.2):
                peak = max(peak, tree_mb(psutil.Process(process.pid)))

        watcher = threading.Thread(target=watch)
        watcher.start()
        code = process.wait()
        seconds = time.perf_counter() - started
        done.set()
        watcher.join()
        output.seek(0)
        text = output.read().decode()
    assert code == 0, text[-3000:]
    return seconds, peak, text


def tell(what: str, seconds: float, peak_mb: float, jobs: str = "") -> None:
    """Print one line of results."""
    print(f"{what:<55} {seconds:7.1f} s   {peak_mb:6.0f} MB   {jobs}", flush=True)


def n_jobs(text: str) -> str:
    """Return how many jobs a dry run found."""
    totals = [int(line.split()[1]) for line in text.splitlines() if line.startswith("total")]
    return f"{max(totals)} jobs"


def main() -> int:
    """Write the datasets, run, print; 1 if a limit is passed."""
    with tempfile.TemporaryDirectory() as name:
        scans, prepared, small = (Path(name) / part for part in ("scans", "prepared", "small"))
        make_scans(scans, 1000)
        seconds, peak, _ = measure("index", scans, "--output", Path(name) / "units.tsv")
        tell("index of 60,000 recordings", seconds, peak)
        asked = ("participant", "-n", "--modality", "fmri")
        seconds, scans_mb, text = measure(scans, Path(name) / "out", *asked)
        tell("dry run, 20,000 of 60,000 recordings", seconds, scans_mb, n_jobs(text))
        make_prepared(prepared, 1000)
        seconds, prepared_mb, text = measure(prepared, Path(name) / "out", "participant", "-n")
        tell("dry run, 1,000 subjects of prepared responses", seconds, prepared_mb, n_jobs(text))
        make_prepared(small, 100)
        out = Path(name) / "small-out"
        # Empty outputs that Snakemake is told to take for made: what is timed is to look through them.
        _, _, text = measure(small, out, "participant", "-n", "--", "--cores", "1")
        for line in re.findall(r"^    output: (.+)$", text, re.MULTILINE):
            for file in line.split(", "):
                (out / file).parent.mkdir(parents=True, exist_ok=True)
                (out / file).touch()
        measure(small, out, "participant", "--", "--touch", "--cores", "1")
        seconds, peak, text = measure(small, out, "participant")
        assert "nothing to be done" in text
        tell("nothing to be done, 100 subjects", seconds, peak)
    return int(max(scans_mb, prepared_mb) > LIMIT_MB or seconds > LIMIT_S)


if __name__ == "__main__":
    sys.exit(main())
