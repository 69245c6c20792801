"""A full disk ends in one clear message, and with more space the same command ends as it should."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

#: Sizes in kB of the disk: full at the first record, in the first stages, in the middle, at reports.
SIZES_KB = (64, 200, 400, 700, 1300, 2600, 4200)


def mount(*options: str, at: Path) -> None:
    """Mount a file system in memory, or change its size; skip where that is not allowed."""
    command = ["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", str(at)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount command here")
    if done.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {done.stderr.strip()}")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[tuple[Path, Callable[[int], None]]]:
    """Return a folder of its own file system, and what makes that larger."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount("size=4k", at=folder)
    try:
        yield folder, lambda kb: mount("remount", f"size={kb}k", at=folder)
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture(scope="module")
def whole(tools: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Any], Path]:
    """Return the arguments of a run, and the output of one that had space."""
    folder = tmp_path_factory.mktemp("whole")
    study = tools.study(folder / "data")
    study.subject("01")
    config = tools.write_config(folder / "config.yaml", tools.light)
    arguments = ["participant", "--config", config, "--cores", 2]
    done = tools.run(study.folder, folder / "out", *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return [study.folder, *arguments], folder / "out"


@pytest.mark.slow
def test_space_that_comes_step_by_step(
    tools: Any, disk: tuple[Path, Callable[[int], None]], whole: tuple[list[Any], Path],
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """The disk fills in one stage after the other; each run takes up what the last one left."""
    folder, resize = disk
    (bids, *arguments), expected = whole
    out = folder / "out"
    for size_kb in SIZES_KB:
        resize(size_kb)
        done = tools.run(bids, out, *arguments)
        said = done.stdout + done.stderr
        stages = re.findall(r"^\S+, (\w+):$", done.stderr, flags=re.MULTILINE)
        with capsys.disabled():
            print(f"\n{size_kb} kB: exit {done.returncode}, {stages or done.stderr[-300:]}")
        assert done.returncode == 65, said
        assert "Traceback" not in said
        assert done.stderr.count("there is no space left on the disk") == 1, said
        (where,) = re.findall(r"^ *where: +(.*)$", done.stderr, flags=re.MULTILINE)
        assert Path(where).is_relative_to(folder), said
        assert "free some space and run the same command again" in said
        assert not list(out.rglob(".writing-*"))
    resize(64_000)
    done = tools.run(bids, out, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr

    def data(root: Path) -> dict[str, str]:
        # Paths, and settings whose order is not fixed where a default is taken out by null.
        skipped = ("code/workflow.yaml", "code/config.yaml", "dataset_description.json")
        return {
            name: value
            for name, value in tools.contents(root).items()
            if tools.is_data(name) and name not in skipped
        }

    assert data(out) == data(expected)
    for page in ("sub-01.html", "group.html"):
        assert "no space left" not in (out / page).read_text(encoding="utf-8")
    assert "nothing to be done" in tools.run(bids, out, *arguments).stdout
