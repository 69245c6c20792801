"""Memory and speed of training a network decoder on 16 thousand and on 1.6 million trials.

Each size is trained in a process of its own, on a sparse file on disk that is read in batches.
Scaling, whitening, start and readouts look at 20,000 trials at most. What is compared is the memory
that the process holds itself (Linux: RssAnon); pages of the mapped file that the system keeps while
it has room (RssFile) are said beside it. Run: python tests/benchmarks/bench_networks.py
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

N_UNITS, N_TIMES, N_STIMULI, N_FEATURES, N_STEPS = 32, 50, 16_000, 64, 30
SIZES = (16_000, 1_600_000)
#: Bytes a trial by which the peak may grow: its name, stimulus, subject and place in the order.
GROWTH = 400.0


def train(n_trials: int, file: str) -> None:
    """Train on a file, and print what it took."""
    from afterimage.decoding.contrastive import ContrastiveDecoder, ContrastiveSettings
    from afterimage.decoding.layout import Layout
    from afterimage.decoding.streams import Rows

    responses = np.memmap(file, np.float16, "r", shape=(n_trials, N_UNITS, N_TIMES))
    rng = np.random.default_rng(0)
    row = rng.integers(0, N_STIMULI, n_trials).astype(np.int32)
    features = {"clip": Rows(rng.normal(size=(N_STIMULI, N_FEATURES)).astype(np.float32), row)}
    names = np.char.mod("%05d", np.arange(N_STIMULI)).astype("U5")[row]
    positions = rng.normal(size=(N_UNITS, 3))
    layout = Layout(N_UNITS, N_TIMES, np.arange(N_TIMES) / 50, positions, np.full(N_UNITS, "eeg"))
    steps: list[float] = []
    peaks = {"RssAnon": 0.0, "RssFile": 0.0}
    threading.Thread(target=watch, args=(peaks,), daemon=True).start()
    settings = ContrastiveSettings(n_steps=N_STEPS)
    started = time.perf_counter()
    ContrastiveDecoder(settings).fit(
        responses, features, names, layout=layout,
        on_progress=lambda _step, _loss: steps.append(time.perf_counter()),
    )  # fmt: skip
    whole = time.perf_counter() - started
    rate = (len(steps) - 1) / (steps[-1] - steps[0])
    own, mapped = peaks.values()
    print(f"{own:.0f} {mapped:.0f} {rate:.2f} {steps[0] - started:.1f} {whole:.1f}")


def watch(peaks: dict[str, float]) -> None:
    """Keep the highest values of this process's memory, in MiB, looking ten times a second."""
    while True:
        lines = Path("/proc/self/status").read_text().splitlines()
        sizes = dict(line.split(":") for line in lines)
        for name, peak in peaks.items():
            peaks[name] = max(peak, float(sizes[name].split()[0]) / 1024)
        time.sleep(0.1)


def noise(file: Path, n_trials: int) -> None:
    """Write a sparse file whose first trials are noise; the others take no place on the disk."""
    rng = np.random.default_rng(0)
    with file.open("wb") as opened:
        opened.write(rng.normal(size=(2000, N_UNITS, N_TIMES)).astype(np.float16).tobytes())
        opened.truncate(2 * n_trials * N_UNITS * N_TIMES)


def main() -> int:
    """Compare the sizes; return 1 if memory grows with the responses."""
    peaks = []
    with tempfile.TemporaryDirectory() as folder:
        for n_trials in SIZES:
            file = Path(folder) / "responses"
            noise(file, n_trials)
            command = [sys.executable, __file__, str(n_trials), str(file)]
            run = subprocess.run(command, check=True, capture_output=True, text=True)
            peak, mapped, rate, before, whole = map(float, run.stdout.split())
            stored = 2 * n_trials * N_UNITS * N_TIMES / 2**20
            print(
                f"{n_trials:>9,} trials ({stored:,.0f} MiB): peak {peak:,.0f} MiB of its own, "
                f"{mapped:,.0f} MiB of mapped pages, {rate:.2f} steps a second, "
                f"{before:.1f} s before the first step, {whole:.1f} s in all"
            )
            peaks.append(peak)
    growth = (peaks[1] - peaks[0]) * 2**20 / (SIZES[1] - SIZES[0])
    print(f"{growth:.0f} bytes a trial more, of {2 * N_UNITS * N_TIMES} stored (at most {GROWTH})")
    return int(growth > GROWTH)


if __name__ == "__main__":
    if len(sys.argv) == 3:
        train(int(sys.argv[1]), sys.argv[2])
    else:
        sys.exit(main())
