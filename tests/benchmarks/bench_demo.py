"""Measure what the demo costs: wall time, peak memory of any process tree, a second run, start-up.

    python tests/benchmarks/bench_demo.py [OUT_DIR]

Prints numbers for the release notes; nothing is asserted, because machines differ.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil


def measure(command: list[str]) -> tuple[float, float, int]:
    """Run a command; return seconds, the peak of the tree's resident memory (GB), exit code."""
    peak = 0.0
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    done = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.25):
            try:
                parent = psutil.Process(process.pid)
                tree = [parent, *parent.children(recursive=True)]
                total = sum(p.memory_info().rss for p in tree if p.is_running())
            except psutil.Error:
                continue
            peak = max(peak, total / 1e9)

    watcher = threading.Thread(target=watch)
    watcher.start()
    code = process.wait()
    done.set()
    watcher.join()
    return time.perf_counter() - started, peak, code


def main() -> None:
    """Run the demo twice and the commands that must start at once."""
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(tempfile.mkdtemp()) / "demo"
    afterimage = [sys.executable, "-m", "afterimage"]
    config = out.parent / "empty.yaml"
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text("random_state: 0\n", encoding="utf-8")
    for name, command in (
        ("demo, first run", [*afterimage, "demo", str(out)]),
        ("demo, second run", [*afterimage, "demo", str(out)]),
        ("--help", [*afterimage, "--help"]),
        ("config check", [*afterimage, "config", "check", str(config)]),
    ):
        seconds, peak, code = measure(command)
        print(f"{name:<18} {seconds:8.2f} s   peak {peak:5.2f} GB   exit {code}")


if __name__ == "__main__":
    main()
