"""Time `-n` on a table of 1,000 subjects (one tiny recording, linked 1,000 times).

python tests/benchmarks/bench_dry_run.py
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

MINIMAL = Path(__file__).resolve().parents[1] / "data" / "minimal"


def main() -> None:
    """Write the dataset, run the dry run, print the seconds."""
    with tempfile.TemporaryDirectory() as name:
        dataset = Path(name) / "dataset"
        (dataset / "stimuli").mkdir(parents=True)
        (dataset / "stimuli.tsv").write_bytes((MINIMAL / "stimuli.tsv").read_bytes())
        for number in range(1000):
            folder = dataset / f"sub-{number:04d}"
            folder.mkdir()
            for suffix in ("responses.npy", "trials.tsv"):
                source = MINIMAL / "sub-01" / f"sub-01_{suffix}"
                (folder / f"sub-{number:04d}_{suffix}").write_bytes(source.read_bytes())
        command = [sys.executable, "-m", "afterimage", str(dataset), str(Path(name) / "out")]
        started = time.perf_counter()
        done = subprocess.run([*command, "participant", "-n"], capture_output=True, check=False)
        seconds = time.perf_counter() - started
        print(f"dry run of 1,000 subjects: {seconds:.1f} s, exit {done.returncode}")


if __name__ == "__main__":
    main()
