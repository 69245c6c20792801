"""The commands of the README are run as they stand there."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
#: Commands that change the installation: looked at, never run by a test.
INSTALLING = ("pip install",)
#: Commands that take minutes: they exist in the default suite, and are run by `make test-all`.
LONG = ("make demo", "afterimage demo")


def commands(name: str) -> list[str]:
    """Return the commands of the fenced console and bash blocks of a page, in order."""
    text = (REPOSITORY / name).read_text(encoding="utf-8")
    found = []
    for language, block in re.findall(r"^```(console|bash)\n(.*?)^```$", text, flags=re.M | re.S):
        lines = block.splitlines()
        prompt = "$ " if language == "console" else ""
        found += [line.removeprefix(prompt) for line in lines if line.startswith(prompt) and line]
    return found


def shell(command: str, folder: Path, timeout_s: float = 500) -> subprocess.CompletedProcess[str]:
    """Run one command where ``afterimage`` is this copy of the code, as an installed one would be."""
    binaries = folder / ".bin"
    binaries.mkdir(exist_ok=True)
    script = binaries / "afterimage"
    script.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m afterimage "$@"\n')
    script.chmod(0o755)
    environment = os.environ | {
        "PATH": os.pathsep.join([str(binaries), os.environ["PATH"]]),
        "PYTHONPATH": str(REPOSITORY / "pipeline"),
        "OMP_NUM_THREADS": "1",
    }
    return subprocess.run(
        ["/bin/sh", "-c", command], cwd=folder, env=environment, capture_output=True, text=True,
        timeout=timeout_s, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder in which the example of 'Your own data' has written ``my-study``."""
    folder = tmp_path_factory.mktemp("readme")
    page = (REPOSITORY / "docs" / "getting_started.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"^```python\n(.*?)^```$", page, flags=re.M | re.S)
    done = subprocess.run(
        [sys.executable, "-c", example], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return folder


def test_readme_names_the_two_commands() -> None:
    found = commands("README.md")
    assert "make demo" in found
    assert "afterimage my-study results participant" in found


def test_commands_run_in_their_order(study: Path) -> None:
    run = [one for one in commands("README.md") if not one.startswith((*INSTALLING, *LONG))]
    assert len(run) >= 6
    for command in run:
        done = shell(command, study)
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        assert "Traceback" not in done.stderr, command
    results = study / "results"
    for name in ("sub-01.html", "group.html", "group/metrics.tsv", "dataset_description.json"):
        assert (results / name).is_file(), name
    assert list(results.glob("sub-01/recon/*_recon.png"))
    table = (results / "group" / "metrics.tsv").read_text(encoding="utf-8").splitlines()
    header = table[0].split("\t")
    rows = [dict(zip(header, line.split("\t"), strict=True)) for line in table[1:]]
    planted = [
        float(row["value"])
        for row in rows
        if row["role"] == "reconstruction" and row["metric"] == "twoway_pixels"
    ]
    assert max(planted) > 0.9  # the example's responses do carry its pictures


def test_the_second_run_has_nothing_to_do(study: Path) -> None:
    command = "afterimage my-study results participant"
    assert command in commands("README.md")
    shell(command, study)
    again = shell(command, study)
    assert again.returncode == 0, again.stderr
    assert "nothing to be done" in again.stdout


def test_the_example_is_a_clean_dataset(study: Path) -> None:
    """Its pictures are no copies of each other: the first report has no warning of that."""
    audit = (study / "results" / "sub-01" / "evaluation" / "sub-01_audit.json").read_text()
    assert '"n_test_with_duplicate": 0' in audit
    assert '"ok": false' not in audit


@pytest.mark.parametrize("command", LONG)
def test_long_commands_exist(command: str, tmp_path: Path) -> None:
    assert command in commands("README.md")
    program, *arguments = command.split()
    if program == "make":
        if shutil.which("make") is None:
            pytest.skip("make is not installed")
        done = subprocess.run(
            ["make", "-n", *arguments], cwd=REPOSITORY, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert "afterimage demo" in done.stdout
    else:
        done = shell(f"{command} --help", tmp_path)
        assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("command", LONG)
def test_long_commands_run(command: str, tmp_path: Path) -> None:
    folder = REPOSITORY if command.startswith("make") else tmp_path
    if folder == REPOSITORY:
        done = subprocess.run(
            command.split(), cwd=folder, capture_output=True, text=True, check=False
        )
    else:
        done = shell(command, folder, timeout_s=3600)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    assert "report: file://" in done.stdout
    (report,) = re.findall(r"^report: file://(.*group\.html)$", done.stdout, flags=re.M)
    assert Path(report).is_file()


def test_installing_commands_name_what_is_there() -> None:
    for command in commands("README.md"):
        if command == "pip install .":
            assert (REPOSITORY / "pyproject.toml").is_file()
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    assert "-c constraints.txt" in text
    assert (REPOSITORY / "constraints.txt").is_file()
