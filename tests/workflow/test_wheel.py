"""The wheel carries all that a run needs: installed alone, it works from any folder."""

from __future__ import annotations

import importlib.util
import os
import site
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Installed:
    """A folder that holds the installed wheel, and how to run it."""

    wheel: Path
    packages: Path

    def run(self, *arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
        # -S leaves out what the environment adds by .pth files: the repository above all.
        libraries = [str(self.packages), *site.getsitepackages()]
        variables = {**os.environ, "PYTHONPATH": os.pathsep.join(libraries)}
        command = [sys.executable, "-S", "-m", "afterimage", *map(str, arguments)]
        return subprocess.run(
            command, capture_output=True, text=True, check=False, cwd=cwd, env=variables
        )


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    if importlib.util.find_spec("hatchling") is None:
        pytest.skip("hatchling is not installed")
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder)]
    done = subprocess.run(
        [*build, str(REPOSITORY)], capture_output=True, text=True, check=False, cwd=folder
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = folder.glob("*.whl")
    target = folder / "packages"
    subprocess.run(
        [*pip, "install", "--no-deps", "--target", str(target), str(wheel)],
        check=True, capture_output=True,
    )  # fmt: skip
    return Installed(wheel, target)


def test_wheel_is_complete(installed: Installed) -> None:
    names = set(zipfile.ZipFile(installed.wheel).namelist())
    package = REPOSITORY / "pipeline" / "afterimage"
    sources = [path for path in package.rglob("*") if path.is_file()]
    sources = [path for path in sources if path.suffix != ".pyc"]
    missing = [
        path.relative_to(package.parent).as_posix()
        for path in sources
        if path.relative_to(package.parent).as_posix() not in names
    ]
    assert not missing
    for path in [REPOSITORY / "Snakefile", *(REPOSITORY / "workflows").rglob("*.*")]:
        if path.is_file():
            assert f"afterimage/bundle/{path.relative_to(REPOSITORY).as_posix()}" in names
    assert "afterimage/bundle/data/tiny/clip/model.safetensors" in names
    assert "afterimage/bundle/data/tiny/generator/model_index.json" in names
    assert not [name for name in names if name.startswith(("tests/", "docs/")) or ".pyc" in name]
    assert installed.wheel.stat().st_size < 30e6


def test_installed_command_line(installed: Installed, tmp_path: Path) -> None:
    shown = installed.run("--help", cwd=tmp_path)
    assert shown.returncode == 0
    assert "BIDS_DIR" in shown.stdout.upper()
    (tmp_path / "my.yaml").write_text("evaluate: {n_bootstraps: 500}\n")
    checked = installed.run("config", "check", "my.yaml", cwd=tmp_path)
    assert checked.returncode == 0, checked.stderr
    assert "evaluate.n_bootstraps: 500" in checked.stdout


def test_installed_workflow(installed: Installed, tools: Any, tmp_path: Path) -> None:
    study = tools.study(tmp_path / "data")
    study.subject("01")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    planned = installed.run(study.folder, "out", "participant", "-n", cwd=elsewhere)
    assert planned.returncode == 0, planned.stdout + planned.stderr
    assert str(installed.packages / "afterimage" / "bundle" / "Snakefile") in planned.stdout
    assert str(REPOSITORY / "Snakefile") not in planned.stdout
    assert "reconstruct" in planned.stdout
    assert not (elsewhere / "out").exists()
