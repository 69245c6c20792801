"""A hundred corrupted copies of inputs: each is refused by name, and the healthy ones complete.

The copies stand side by side, a subject a corruption, beside healthy subjects, in three datasets:
prepared responses, BOLD, and EEG with MEG. What concerns a dataset as a whole has a run of its own.
"""

from __future__ import annotations

import re
import runpy
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from afterimage.io.tables import read_tsv
from afterimage.stages import simulate_bold


def example(name: str) -> SimpleNamespace:
    return SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[1] / f"{name}_example.py")))


corrupted, recordings = example("corrupted"), example("corrupted_recordings")
PARTS = ("where:", "found:", "expected:", "fix:")


@dataclass(frozen=True)
class Finished:
    """One run over healthy subjects and corrupted copies of them.

    Attributes
    ----------
    out : Path
    done : subprocess.CompletedProcess
    labels : dict
        Corruption to the label of its subject.
    names : dict
        Corruption to the name that its message must say.
    changed : list of str
        What is no longer as it was outside the output folder.
    """

    out: Path
    done: subprocess.CompletedProcess[str]
    labels: Mapping[str, str]
    names: Mapping[str, str]
    changed: list[str]

    @property
    def messages(self) -> list[str]:
        """Return the errors that the user was shown, each with its subject and stage."""
        return re.split(r"\n(?=sub-.*, \w+:\n)|\n\n", self.done.stderr)

    def message(self, name: str) -> str:
        """Return the message about one corruption; "" where none names it."""
        own = [text for text in self.messages if self.names[name] in text and "Error: " in text]
        return own[0] if own else ""


def run_all(
    tools: Any, folder: Path, study: Any, copies: Mapping[str, Any], copy: Callable[[str], Any],
    settings: Mapping[str, Any],
) -> Finished:  # fmt: skip
    labels = {name: f"c{number:03d}" for number, name in enumerate(copies, start=1)}
    names = {}
    for name, corrupt in copies.items():
        copy(labels[name])
        names[name] = corrupt(study, labels[name])
    config = tools.write_config(folder / "config.yaml", dict(settings))
    (folder / "work").mkdir()
    before = tools.contents(folder)
    done = tools.run(
        study.folder, folder / "out", "participant", "--config", config, "--cores", 2,
        cwd=folder / "work",
    )  # fmt: skip
    after = tools.contents(folder, skip=lambda name: name.startswith("out/"))
    changed = [name for name in before | after if before.get(name) != after.get(name)]
    finished = Finished(folder / "out", done, labels, names, changed)
    print(f"\nexit code {done.returncode}, {len(copies)} corrupted copies")
    for name in copies:
        said = re.findall(r"Error: (.+)", finished.message(name)) or ["NOTHING"]
        print(f"{name:<48} {said[0]}")
    return finished


def check(finished: Finished, healthy: tuple[str, ...]) -> None:
    """Check everything that must hold of a run over corrupted copies."""
    done = finished.done
    assert done.returncode in (65, 1), done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr, done.stderr
    assert not finished.changed
    logs = [path for path in finished.out.rglob("*.log") if "Traceback" in path.read_text()]
    assert not logs
    unsaid = []
    for name in finished.labels:
        message = finished.message(name)
        if not all(re.search(rf"^  {part}\s+\S", message, flags=re.M) for part in PARTS):
            unsaid.append(f"{name}: {message or 'no message names ' + finished.names[name]}")
    assert not unsaid, "\n".join(unsaid)
    for label in healthy:
        assert f"sub-{label}," not in done.stderr
        assert read_tsv(finished.out / f"sub-{label}" / "evaluation" / f"sub-{label}_metrics.tsv")
        assert (finished.out / f"sub-{label}.html").is_file()
    for page in finished.out.glob("*.html"):
        assert "<script>alert" not in page.read_text(encoding="utf-8")
    scored = {path.name for path in finished.out.glob("sub-*/evaluation/*_metrics.tsv")}
    assert scored == {f"sub-{label}_metrics.tsv" for label in healthy}


@pytest.mark.slow
def test_prepared_responses(tools: Any, tmp_path: Path) -> None:
    study = tools.study(tmp_path / "data")
    study.draw("outside", 7).rename(tmp_path / "outside.png")
    study.subject("01", kind="voxel")
    study.subject("02")
    finished = run_all(
        tools, tmp_path, study, example("corrupted_prepared").PREPARED,
        lambda label: study.subject(label, kind="voxel"), tools.light,
    )  # fmt: skip
    check(finished, ("01", "02"))


@pytest.mark.slow
def test_bold(tools: Any, tmp_path: Path) -> None:
    study = SimpleNamespace(folder=tmp_path / "data")
    simulate_bold.run(
        simulate_bold.Inputs(),
        simulate_bold.Outputs(description=study.folder / "dataset_description.json"),
        simulate_bold.Config(
            n_subjects=1, missing_run=False, n_training_images=24, n_training_repeats=2,
            repeated_share=1.0, n_test_images=6, n_test_repeats=2, trials_per_run=20,
            n_early_units=60, n_selective_units=24, shape_voxels=(16, 18, 10),
        ),
    )  # fmt: skip

    def copy(label: str) -> None:
        """Copy one run of the healthy subject."""
        for path in sorted((study.folder / "sub-01").rglob("*ses-01_task-pictures_run-01_*")):
            name = path.relative_to(study.folder).as_posix().replace("sub-01", f"sub-{label}")
            (study.folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, study.folder / name)

    finished = run_all(tools, tmp_path, study, example("corrupted_bold").BOLD, copy, tools.light)
    check(finished, ("01",))


@pytest.mark.slow
def test_eeg_and_meg(tools: Any, tmp_path: Path) -> None:
    study = recordings.made.Study(tmp_path / "data")
    study.subject("01")
    study.subject("02", "meg")
    kinds = dict.fromkeys(recordings.EEG, "eeg") | {
        f"MEG: {name}": "meg" for name in recordings.MEG
    }
    copies = recordings.EEG | {f"MEG: {name}": one for name, one in recordings.MEG.items()}
    modalities = iter(kinds.values())
    settings = tools.light | {"clean_meeg": {"ransac": False}}
    finished = run_all(
        tools, tmp_path, study, copies,
        lambda label: study.subject(label, next(modalities), n_runs=1), settings,
    )  # fmt: skip
    check(finished, ("01", "02"))


def root_file(name: str, data: bytes) -> Callable[[Any], str]:
    def corrupt(study: Any) -> str:
        (study.folder / name).write_bytes(data)
        return name

    return corrupt


def table(change: Callable[[bytes], bytes]) -> Callable[[Any], str]:
    def corrupt(study: Any) -> str:
        path = study.folder / "stimuli.tsv"
        path.write_bytes(change(path.read_bytes()))
        return "stimuli.tsv"

    return corrupt


def linked_to(target: str) -> Callable[[Any], str]:
    def corrupt(study: Any) -> str:
        (study.folder / "stimuli.tsv").unlink()
        (study.folder / "stimuli.tsv").symlink_to(target)
        return "stimuli.tsv"

    return corrupt


#: Corruptions of what a whole dataset shares; nothing can be decoded without it.
SHARED = {
    "stimuli cut": table(lambda data: data[:-20]),
    "stimuli with flipped bytes": table(lambda data: corrupted.flipped(data, 0, 5, 30)),
    "stimuli in UTF-16": table(lambda data: data.decode().encode("utf-16")),
    "stimuli with a NUL": table(lambda data: data.replace(b"train_00", b"train\x00", 1)),
    "stimuli without ids": table(lambda data: data.replace(b"stimulus_id", b"name")),
    "stimuli behind a link to nothing": linked_to("nowhere.tsv"),
    "stimuli behind a link to itself": linked_to("stimuli.tsv"),
}
#: Configurations that cannot be used.
CONFIGS = {
    "cut": b"evaluate: {n_bootstraps: 10",
    "in binary": bytes(range(256)),
    "with a tag that makes objects": b"evaluate: !!python/object/apply:os.mkdir [sprung]",
    "deeply nested": b"evaluate: " + b"[" * 20_000,
    "of aliases of aliases": b"a: &a [1,1,1,1,1,1,1,1,1]\n"
    + b"".join(
        b"%c: &%c [%s]\n" % (98 + n, 98 + n, b",".join([b"*%c" % (97 + n)] * 9)) for n in range(12)
    ),
    "with an impossible date": b"evaluate: 2024-99-99",
    "with a huge number": b"random_state: " + b"9" * 10_000,
    "with text as number": b"evaluate: {n_bootstraps: many}",
    "with a negative number": b"evaluate: {n_bootstraps: -5}",
    "with a list in place of a section": b"evaluate: [1, 2]",
    "with keys that are no text": b"? [1, 2]\n: 3\n1: 2\n",
    "with a script as key": b"'<script>alert(1)</script>': 1",
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", SHARED)
def test_what_a_dataset_shares(tools: Any, tmp_path: Path, name: str) -> None:
    study = tools.study(tmp_path / "data")
    study.subject("01")
    said = SHARED[name](study)
    done = tools.run(study.folder, tmp_path / "out", "participant", "--until", "prepare_responses")
    text = done.stdout + done.stderr
    assert done.returncode in (65, 1), text
    assert "Traceback" not in text
    assert said in done.stderr
    for part in PARTS:
        assert re.search(rf"^  {part}\s+\S", done.stderr, flags=re.MULTILINE), done.stderr


@pytest.mark.parametrize("name", CONFIGS)
def test_configuration(tmp_path: Path, name: str, capsys: Any) -> None:
    """In this process: the command would only start the same function."""
    from afterimage.cli import main

    path = tmp_path / "config.yaml"
    path.write_bytes(CONFIGS[name])
    assert main(["config", "check", str(path)]) in (78, 65)
    said = capsys.readouterr().err
    assert "Error: " in said
    assert re.search(r"^  fix:\s+\S", said, flags=re.MULTILINE), said
    assert list(tmp_path.iterdir()) == [path]
