"""24,000 files more, chosen by what they reach in the code; see `fuzz_coverage.py`."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

fuzz = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[1] / "fuzz_example.py")))
#: Of files of HDF5, whose library (2.0.0) was seen to loop for ever in a damaged heap: nothing of
#: ours can end that. `test_fuzz_readers` has them.
BY_HDF5 = ("series", "trials", "features", "betas", "voxel table")


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in fuzz.READERS if name not in BY_HDF5])
def test_no_file_breaks_a_reader(name: str) -> None:
    pytest.importorskip("atheris", reason="pip install 'afterimage[fuzz]'")
    n_runs = fuzz.READERS[name].n_examples // 4
    program = Path(__file__).with_name("fuzz_coverage.py")
    done = subprocess.run(
        [sys.executable, program, name, "--runs", str(n_runs)],
        capture_output=True, text=True, errors="replace", check=False, timeout=3000,
    )  # fmt: skip
    assert done.returncode == 0, (done.stdout + done.stderr)[-8000:]
    print([line for line in done.stderr.splitlines() if "DONE" in line])
    assert f"Done {n_runs} runs" in done.stderr
