"""A small study on disk, and the command line run on it as a user would."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import yaml
from filelock import FileLock
from PIL import Image

#: Small enough for seconds, with every kind of stage, block, decoder and method in it.
SMALL = {
    "extract_features": {
        "encoders": {
            "gabor": {"size_px": 32, "n_grid": 4, "n_orientations": 4, "n_color_orientations": 2},
            "pixels": {"size_px": 16},
        }
    },
    "train_decoder": {
        "decoders": {
            "ridge": {"n_folds": 2, "n_components": 5, "alphas": [1.0, 10.0]},
            "bayesian": {"n_folds": 2, "penalties": [1.0], "component_variances": [1.0]},
        }
    },
    "reconstruct": {"methods": {"latent_diffusion": {"n_candidates": 2, "n_steps": 4}}},
    "evaluate": {"n_bootstraps": 100, "n_permutations": 100, "n_clusters": 3},
    "report_subject": {"n_gallery_rows": 1},
}
#: The same without anything that needs torch, for tests of the machinery alone.
LIGHT = {
    **SMALL,
    "extract_features": {
        "encoders": {**SMALL["extract_features"]["encoders"], "clip": None, "vae": None}
    },
    "train_decoder": {
        "decoders": {**SMALL["train_decoder"]["decoders"], "bayesian": None},
    },
    "reconstruct": {
        "methods": {
            "latent_diffusion": None,
            "low_level": None,
            "retrieval": {"embedding": "gabor"},
        }
    },
    "evaluate": {**SMALL["evaluate"], "encoders": ["gabor", "pixels"]},
}


class Study:
    """A dataset of prepared responses that tests write, damage and run.

    Parameters
    ----------
    folder : Path
        Where the dataset goes.
    n_train, n_test : int
        Pictures of either split.
    split : bool
        Whether ``stimuli.tsv`` has the column ``split``.
    """

    def __init__(
        self, folder: Path, n_train: int = 14, n_test: int = 4, split: bool = True
    ) -> None:
        self.folder = folder
        self.train = [f"train_{index:02d}" for index in range(n_train)]
        self.test = [f"test_{index:02d}" for index in range(n_test)]
        if folder.is_dir():  # it was written before
            return
        (folder / "stimuli").mkdir(parents=True)
        for index, name in enumerate(self.train + self.test):
            self.draw(name, index)
        rows = [("train", name) for name in self.train] + [("test", name) for name in self.test]
        lines = ["stimulus_id\tfile" + "\tsplit" * split]
        lines += [f"{name}\t{name}.png" + f"\t{part}" * split for part, name in rows]
        (folder / "stimuli.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")

    def draw(self, name: str, seed: int, file: str | None = None) -> Path:
        """Write one smooth random picture of 32 x 32 pixels."""
        coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
        path = self.folder / "stimuli" / (file or f"{name}.png")
        Image.fromarray(coarse).resize((32, 32), Image.Resampling.BILINEAR).save(path)
        return path

    def add_stimulus(self, name: str, file: str, split: str = "train") -> None:
        """Append a row to the table of stimuli."""
        with (self.folder / "stimuli.tsv").open("a", encoding="utf-8") as table:
            table.write(f"{name}\t{file}\t{split}\n")

    def trials_of(self, n_test_repeats: int = 2) -> list[str]:
        """Return the stimuli in the order shown."""
        return self.train + self.test * n_test_repeats

    def subject(
        self,
        label: str,
        shown: Sequence[str] | None = None,
        n_units: int = 12,
        n_times: int | None = None,
        columns: dict[str, Sequence[object]] | None = None,
        kind: str | None = None,
    ) -> Path:
        """Write a healthy subject; return its folder.

        Responses are a random linear code of the stimulus and noise.
        """
        shown = list(self.trials_of() if shown is None else shown)
        folder = self.folder / f"sub-{label}"
        folder.mkdir()
        rng = np.random.default_rng(int(hashlib.sha256(label.encode()).hexdigest()[:8], 16))
        shape = (n_units,) if n_times is None else (n_units, n_times)
        code = {name: rng.normal(size=shape) for name in dict.fromkeys(shown)}
        responses = np.stack([code[name] for name in shown])
        responses += 0.3 * rng.normal(size=responses.shape)
        self.write_responses(label, responses.astype(np.float32))
        self.write_trials(label, shown, columns or {})
        if kind:
            units = "kind\n" + f"{kind}\n" * n_units
            (folder / f"sub-{label}_units.tsv").write_text(units, encoding="utf-8")
        return folder

    def file(self, label: str, suffix: str) -> Path:
        """Return the path of one file of a subject."""
        return self.folder / f"sub-{label}" / f"sub-{label}_{suffix}"

    def write_responses(self, label: str, responses: np.ndarray) -> None:
        """Save the responses of a subject."""
        np.save(self.file(label, "responses.npy"), responses)

    def write_trials(
        self, label: str, shown: Sequence[str], columns: dict[str, Sequence[object]]
    ) -> None:
        """Save the trials of a subject, with more columns where asked."""
        lines = ["\t".join(["stimulus_id", "run", *columns])]
        values = zip(*columns.values(), strict=True) if columns else [()] * len(shown)
        for name, more in zip(shown, values, strict=True):
            lines.append("\t".join([name, "1", *map(str, more)]))
        self.file(label, "trials.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_config(path: Path, values: dict[str, object]) -> Path:
    """Write a configuration file; return its path."""
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


def environment(**more: str) -> dict[str, str]:
    """Return the variables of a child process: one thread, no colour, nothing fetched."""
    threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    return {**os.environ, **threads, "NO_COLOR": "1", "COLUMNS": "120", **more}


def command(*arguments: object) -> list[str]:
    """Return the command line of ``afterimage`` by this interpreter."""
    return [sys.executable, "-m", "afterimage", *map(str, arguments)]


def run(
    *arguments: object, cwd: Path | None = None, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run the command line to its end."""
    return subprocess.run(
        command(*arguments), capture_output=True, text=True, check=False, cwd=cwd,
        env=environment(**variables), timeout=500,
    )  # fmt: skip


def run_and_kill(*arguments: object, logs: Path, after_s: float) -> bool:
    """Start the command line, kill it and all its children a while after its workflow began.

    It has begun when the folder of the run appears in ``logs``; a busy machine takes longer to get
    there. Returns whether it was still running when it was killed.
    """
    known = set(logs.glob("2*"))
    process = subprocess.Popen(
        command(*arguments), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        env=environment(), start_new_session=True,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while set(logs.glob("2*")) == known and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    try:
        process.wait(timeout=after_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        deadline = time.monotonic() + 10
        while _group_alive(process.pid) and time.monotonic() < deadline:
            time.sleep(0.05)
        return True
    return False


def _group_alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def contents(
    root: Path, patterns: Iterable[str] = ("**/*",), skip: Callable[[str], bool] | None = None
) -> dict[str, str]:
    """Return a digest of every file below a folder by its relative path."""
    files = {path for pattern in patterns for path in root.glob(pattern) if path.is_file()}
    found = {path.relative_to(root).as_posix(): path for path in files}
    return {
        name: hashlib.sha256(path.read_bytes()).hexdigest()
        for name, path in sorted(found.items())
        if not (skip and skip(name))
    }


def is_data(name: str) -> bool:
    """Tell data outputs from records of runs (logs, reports, Snakemake's own notes)."""
    return not (name.endswith(".html") or name.startswith(("logs/", ".snakemake/")))


@dataclass(frozen=True)
class Tools:
    """What tests of the workflow share."""

    small = SMALL
    light = LIGHT
    study = Study
    write_config = staticmethod(write_config)
    environment = staticmethod(environment)
    command = staticmethod(command)
    run = staticmethod(run)
    run_and_kill = staticmethod(run_and_kill)
    contents = staticmethod(contents)
    is_data = staticmethod(is_data)


@pytest.fixture(scope="session")
def tools() -> Tools:
    """Return the builder of studies and the runner of commands."""
    return Tools()


@dataclass(frozen=True)
class Finished:
    """One undisturbed run on a healthy study of one subject, never changed by a test."""

    study: Study
    out: Path
    config: Path


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """Run everything once on a healthy study of one subject; workers share the run by copies."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "finished"
    config, done = folder / "config.yaml", folder / "done"
    with FileLock(f"{folder}.lock"):
        study = Study(folder / "data")
        if not done.is_file():
            study.subject("01")
            write_config(config, SMALL)
            ran = run(
                study.folder, folder / "out", "participant", "--config", config, "--cores", 2
            )
            assert ran.returncode == 0, ran.stdout + ran.stderr
            done.touch()
        out = base / "finished-out"
        shutil.copytree(folder / "out", out, symlinks=True)
    return Finished(study, out, config)
