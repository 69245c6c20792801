"""Time the index of 500 subjects with 20 BOLD runs each, and pybids' on a part where installed.

python tests/benchmarks/bench_index.py
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from afterimage.bids.index import index_dataset, read_units, write_units

LIMIT_S = 2.0
FMRIPREP = '{"Name": "fMRIPrep", "BIDSVersion": "1.4.0", "GeneratedBy": [{"Name": "fMRIPrep"}]}'


def make_dataset(folder: Path, n_subjects: int, n_runs: int) -> None:
    """Write a raw dataset of empty images, with events and a sidecar beside each."""
    folder.mkdir()
    (folder / "dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.10.0"}')
    header = "onset\tduration\ttrial_type\tstim_file\n0\t1\tview\ta.png\n"
    for subject in range(1, n_subjects + 1):
        func = folder / f"sub-{subject:03d}" / "func"
        func.mkdir(parents=True)
        for run in range(1, n_runs + 1):
            stem = f"sub-{subject:03d}_task-view_run-{run:02d}"
            (func / f"{stem}_bold.nii.gz").touch()
            (func / f"{stem}_bold.json").write_text('{"RepetitionTime": 2.0}')
            (func / f"{stem}_events.tsv").write_text(header)


def add_fmriprep(folder: Path) -> None:
    """Write fMRIPrep output of every run in two spaces, empty files."""
    out = folder / "derivatives" / "fmriprep"
    out.mkdir(parents=True)
    (out / "dataset_description.json").write_text(FMRIPREP)
    for bold in sorted(folder.glob("sub-*/func/*_bold.nii.gz")):
        func = out / bold.parent.relative_to(folder)
        func.mkdir(parents=True, exist_ok=True)
        stem = bold.name.removesuffix("_bold.nii.gz")
        (func / f"{stem}_desc-confounds_timeseries.tsv").touch()
        for space in ("T1w", "MNI152NLin2009cAsym"):
            for rest in ("desc-preproc_bold.nii.gz", "desc-preproc_bold.json",
                         "desc-brain_mask.nii.gz", "boldref.nii.gz"):  # fmt: skip
                (func / f"{stem}_space-{space}_{rest}").touch()


def seconds(call: Callable[[], object], repeats: int = 3) -> float:
    """Return the shortest time of several calls, after one that warms the file system's cache."""
    call()
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return min(times)


def compare_with_pybids(folder: Path, n_subjects: int) -> None:
    """Print how long pybids takes for the same runs, where it is installed."""
    try:
        from bids import BIDSLayout
    except ImportError:
        print("pybids is not installed: no comparison")
        return
    ours = seconds(lambda: index_dataset(folder))
    theirs = seconds(lambda: BIDSLayout(folder, validate=False), repeats=1)
    print(
        f"{n_subjects} subjects: index {ours:.3f} s, pybids {theirs:.2f} s, {theirs / ours:.0f} x"
    )


def main() -> int:
    """Write the datasets, time them, print the seconds; 1 if the raw index is too slow."""
    with tempfile.TemporaryDirectory() as name:
        dataset, part = Path(name) / "dataset", Path(name) / "part"
        make_dataset(dataset, 500, 20)
        rows = index_dataset(dataset)
        assert len(rows) == 10_000
        assert {row["problem"] for row in rows} == {"n/a"}
        raw = seconds(lambda: index_dataset(dataset))
        table = Path(name) / "units.tsv"
        writing, reading = (
            seconds(lambda: write_units(table, rows)),
            seconds(lambda: read_units(table)),
        )
        print(f"500 subjects x 20 runs: index {raw:.2f} s (limit {LIMIT_S:g} s), "
              f"write_units {writing:.2f} s, read_units {reading:.2f} s")  # fmt: skip
        make_dataset(part, 25, 20)
        compare_with_pybids(part, 25)
        add_fmriprep(dataset)
        assert {row["source"] for row in index_dataset(dataset)} == {"fmriprep"}
        print(
            f"the same with fMRIPrep output in two spaces: {seconds(lambda: index_dataset(dataset)):.2f} s"
        )
    return int(raw > LIMIT_S)


if __name__ == "__main__":
    sys.exit(main())
