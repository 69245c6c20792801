"""Bad input: one clear error each, exit code 65, the others finished, the reports written.

Most defects stand side by side in one dataset, one subject a defect, and are met in one run of the
real command line beside healthy subjects.
"""

from __future__ import annotations

import html
import os
import pickle
import re
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from afterimage.io.tables import read_json, read_tsv

HEALTHY = ("01", "dropped")


class Trap:
    """Pickled, it writes a file when somebody reads the pickle."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.marker),)


def missing_picture(study: Any) -> None:
    study.add_stimulus("gone", "gone.png")
    study.subject("missing", [*study.trials_of(), "gone"])


def truncated_picture(study: Any) -> None:
    study.add_stimulus("cut", "cut.png")
    path = study.draw("cut", 99)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    study.subject("truncated", [*study.trials_of(), "cut"])


def wrong_length(study: Any) -> None:
    study.subject("length")
    responses = np.load(study.file("length", "responses.npy"))
    study.write_responses("length", responses[:-3])


def not_finite(study: Any) -> None:
    study.subject("nan")
    responses = np.load(study.file("nan", "responses.npy"))
    responses[2, 5], responses[7, 1] = np.nan, np.inf
    study.write_responses("nan", responses)


def object_array(study: Any) -> None:
    study.subject("objects")
    trap = np.array([Trap(study.folder.parent / "sprung-object")] * 22, dtype=object)
    np.save(study.file("objects", "responses.npy"), trap, allow_pickle=True)


def bare_pickle(study: Any) -> None:
    study.subject("pickle")
    data = pickle.dumps(Trap(study.folder.parent / "sprung-pickle"))
    study.file("pickle", "responses.npy").write_bytes(data)


def text_array(study: Any) -> None:
    study.subject("text")
    study.write_responses("text", np.full((22, 12), "1.0"))


def cut_array(study: Any) -> None:
    study.subject("cutarray")
    path = study.file("cutarray", "responses.npy")
    path.write_bytes(path.read_bytes()[:300])


def duplicate_stimulus(study: Any) -> None:
    study.add_stimulus("twice", "train_00.png")
    study.add_stimulus("twice", "train_01.png")
    study.subject("duplicate", [*study.trials_of(), "twice"])


def unknown_stimulus(study: Any) -> None:
    study.subject("unknown", [*study.trials_of(), "train_0x"])


def empty_folder(study: Any) -> None:
    (study.folder / "sub-nofiles").mkdir()


def no_trials(study: Any) -> None:
    study.subject("notrials")
    study.write_trials("notrials", [], {})
    study.write_responses("notrials", np.zeros((0, 12), np.float32))


def empty_files(study: Any) -> None:
    study.subject("emptyfiles")
    study.file("emptyfiles", "trials.tsv").write_text("")
    study.file("emptyfiles", "responses.npy").write_bytes(b"")


def both_splits(study: Any) -> None:
    shown = [*study.trials_of(), study.train[0]]
    split = ["train"] * len(study.train) + ["test"] * (len(shown) - len(study.train))
    study.subject("both", shown, columns={"split": split})


def few_trials(study: Any) -> None:
    study.subject("few", [*study.train[:9], *study.test])


def not_utf8(study: Any) -> None:
    study.subject("latin")
    path = study.file("latin", "trials.tsv")
    path.write_bytes(path.read_bytes() + "train_00\tmüde\n".encode("latin-1"))


def no_tabs(study: Any) -> None:
    study.subject("commas")
    path = study.file("commas", "trials.tsv")
    path.write_text(path.read_text().replace("\t", ","))


def ragged_row(study: Any) -> None:
    study.subject("ragged")
    with study.file("ragged", "trials.tsv").open("a") as table:
        table.write("train_00\n")


def path_upwards(study: Any) -> None:
    study.add_stimulus("up", "../../outside.png")
    study.subject("upwards", [*study.trials_of(), "up"])


def path_absolute(study: Any) -> None:
    study.add_stimulus("root", str(study.folder.parent / "outside.png"))
    study.subject("absolute", [*study.trials_of(), "root"])


def path_linked(study: Any) -> None:
    (study.folder / "stimuli" / "linked.png").symlink_to(study.folder.parent / "outside.png")
    study.add_stimulus("link", "linked.png")
    study.subject("linked", [*study.trials_of(), "link"])


def bad_label(study: Any) -> None:
    (study.folder / "sub-old-copy").mkdir()


def short_units(study: Any) -> None:
    study.subject("units", kind="voxel")
    study.file("units", "units.tsv").write_text("kind\nvoxel\n")


def bad_position(study: Any) -> None:
    study.subject("position")
    rows = "".join(f"voxel\t{value}\n" for value in ["left", *range(11)])
    study.file("position", "units.tsv").write_text("kind\tx\n" + rows)


def no_rate(study: Any) -> None:
    study.subject("norate", n_units=4, n_times=3)


def bad_sidecar(study: Any) -> None:
    study.subject("sidecar")
    study.file("sidecar", "responses.json").write_text('{"units": "z",}')


@dataclass(frozen=True)
class Defect:
    """A subject that cannot be used: how it is made, which stage says so, and in which words."""

    make: Callable[[Any], None]
    stage: str
    words: tuple[str, ...]


PREPARE = "prepare_responses"
DEFECTS = {
    "missing": Defect(missing_picture, "extract_features", ("file is missing", "gone.png")),
    "truncated": Defect(truncated_picture, "extract_features", ("cannot be read", "cut.png")),
    "length": Defect(wrong_length, PREPARE, ("differ in length", "19 rows", "22 trials")),
    "nan": Defect(not_finite, PREPARE, ("not finite", "2 of 22 trials", "rows 3, 8")),
    "objects": Defect(object_array, PREPARE, ("pickled objects", "responses.npy", "float32")),
    "pickle": Defect(bare_pickle, PREPARE, ("pickled objects", "responses.npy", "float32")),
    "text": Defect(text_array, PREPARE, ("not numeric", "<U3", "real numbers")),
    "cutarray": Defect(cut_array, PREPARE, ("an array cannot be read", "responses.npy")),
    "duplicate": Defect(duplicate_stimulus, PREPARE, ("stands twice", "2 rows with twice")),
    "unknown": Defect(unknown_stimulus, PREPARE, ("not in the table", "train_0x", "line 24")),
    "nofiles": Defect(empty_folder, "index", ("has no responses", "nothing", "_trials.tsv")),
    "notrials": Defect(no_trials, PREPARE, ("has no trials", "0 trials", "at least one")),
    "emptyfiles": Defect(empty_files, PREPARE, ("table is empty", "trials.tsv")),
    "both": Defect(both_splits, PREPARE, ("in two splits", "train_00 is train", "line 24")),
    "few": Defect(few_trials, PREPARE, ("too few train trials", "9 of 13", "at least 10")),
    "latin": Defect(not_utf8, PREPARE, ("not UTF-8", "byte 0xfc", "trials.tsv, byte")),
    "commas": Defect(no_tabs, PREPARE, ("has no tabs", "stimulus_id,run", "by tabs")),
    "ragged": Defect(ragged_row, PREPARE, ("wrong number of cells", "1 cells", "line 24")),
    "upwards": Defect(path_upwards, PREPARE, ("out of the dataset", "../../outside.png")),
    "absolute": Defect(path_absolute, PREPARE, ("out of the dataset", "/outside.png")),
    "linked": Defect(path_linked, PREPARE, ("out of the dataset", "linked.png")),
    "old-copy": Defect(bad_label, "index", ("label", "sub-old-copy", "letters and digits")),
    "units": Defect(short_units, PREPARE, ("units has the wrong length", "1 rows", "12")),
    "position": Defect(bad_position, PREPARE, ("not a number", "line 2", "left")),
    "norate": Defect(no_rate, PREPARE, ("sampling rate", "sampling_rate_hz")),
    "sidecar": Defect(bad_sidecar, PREPARE, ("JSON file cannot be read", "line 1")),
}  # fmt: skip


@dataclass(frozen=True)
class BadRun:
    """The dataset of all defects after one run."""

    study: Any
    out: Path
    done: subprocess.CompletedProcess[str]

    def message(self, label: str) -> str:
        """Return the error that the user was shown for one subject."""
        found = re.findall(
            rf"^sub-{label}, (\w+):\n((?:.+\n)+)", self.done.stderr, flags=re.MULTILINE
        )
        assert len(found) == 1, f"{len(found)} errors for sub-{label}:\n{self.done.stderr}"
        return found[0][0] + "\n" + found[0][1]


@pytest.fixture(scope="module")
def bad(tools: Any, tmp_path_factory: pytest.TempPathFactory) -> BadRun:
    """Run every defect beside two healthy subjects."""
    folder = tmp_path_factory.mktemp("bad")
    study = tools.study(folder / "data")
    study.draw("outside", 7).rename(folder / "outside.png")
    study.subject("01")
    study.subject("dropped")
    responses = np.load(study.file("dropped", "responses.npy"))
    responses[:, 3], responses[:, 6] = 4.0, np.nan
    study.write_responses("dropped", responses)
    for defect in DEFECTS.values():
        defect.make(study)
    config = tools.write_config(folder / "config.yaml", tools.light)
    out = folder / "out"
    done = tools.run(study.folder, out, "participant", "--config", config, "--cores", 2)
    return BadRun(study, out, done)


def test_exit_code_and_no_traceback(bad: BadRun) -> None:
    assert bad.done.returncode == 65, bad.done.stdout + bad.done.stderr
    assert "Traceback" not in bad.done.stdout + bad.done.stderr


@pytest.mark.parametrize("label", HEALTHY)
def test_healthy_subjects_are_finished(bad: BadRun, label: str) -> None:
    folder = bad.out / f"sub-{label}"
    metrics = read_tsv(folder / "evaluation" / f"sub-{label}_metrics.tsv", required=("value",))
    assert {row["label"] for row in metrics} >= {"ridge", "ridgeLinearPixels", "ridgeRetrieval"}
    assert (bad.out / f"sub-{label}.html").is_file()
    assert f"sub-{label}," not in bad.done.stderr


@pytest.mark.parametrize("label", DEFECTS)
def test_one_clear_error(bad: BadRun, label: str) -> None:
    message = bad.message(label)
    stage, words = DEFECTS[label].stage, DEFECTS[label].words
    assert message.startswith(f"{stage}\nInputError: ")
    for part in ("where:", "found:", "expected:", "fix:"):
        assert re.search(rf"^  {part}\s+\S", message, flags=re.MULTILINE), message
    for word in words:
        assert word in message, message


@pytest.mark.parametrize("label", DEFECTS)
def test_reports_name_the_error(bad: BadRun, label: str) -> None:
    headline = bad.message(label).splitlines()[1].removeprefix("InputError: ")
    report = html.unescape((bad.out / f"sub-{label}.html").read_text(encoding="utf-8"))
    group = html.unescape((bad.out / "group.html").read_text(encoding="utf-8"))
    assert headline in report
    assert "Traceback" not in report
    assert DEFECTS[label].words[-1] in report
    assert f"sub-{label}" in group
    assert headline in group


def test_no_code_of_a_pickle_ran(bad: BadRun) -> None:
    assert not (bad.study.folder.parent / "sprung-object").exists()
    assert not (bad.study.folder.parent / "sprung-pickle").exists()
    with pytest.raises(FileNotFoundError):  # the trap works: read carelessly, it springs
        pickle.loads(pickle.dumps(Trap(bad.study.folder / "absent" / "marker")))  # noqa: S301


def test_unusable_units_are_dropped_counted_and_reported(bad: BadRun) -> None:
    quality = read_json(bad.out / "sub-dropped" / "sub-dropped_quality.json")
    assert quality["units_constant"] == [3]
    assert quality["units_never_finite"] == [6]
    assert (quality["n_units"], quality["n_units_kept"]) == (12, 10)
    report = (bad.out / "sub-dropped.html").read_text(encoding="utf-8")
    assert "constant over all trials" in report
    assert "no finite value in any trial" in report


def test_failed_subjects_leave_no_scores(bad: BadRun) -> None:
    scored = sorted(path.name for path in bad.out.glob("sub-*/evaluation/*_metrics.tsv"))
    assert scored == [f"sub-{label}_metrics.tsv" for label in HEALTHY]
    assert not list(bad.out.rglob(".writing-*"))


def test_dataset_is_left_alone(bad: BadRun) -> None:
    assert {path.name for path in bad.study.folder.iterdir() if not path.name.startswith("sub-")} == {
        "stimuli", "stimuli.tsv",
    }  # fmt: skip


def bad_table(change: Callable[[bytes], bytes]) -> Callable[[Any], None]:
    def damage(study: Any) -> None:
        path = study.folder / "stimuli.tsv"
        path.write_bytes(change(path.read_bytes()))

    return damage


TABLES = {
    "not UTF-8": bad_table(lambda data: data + b"\xff\tx.png\ttrain\n"),
    "no tabs": bad_table(lambda data: data.replace(b"\t", b",")),
    "lacks a column": bad_table(lambda data: data.replace(b"file", b"picture")),
    "table is empty": bad_table(lambda data: b""),
    "same column twice": bad_table(lambda data: data.replace(b"split", b"file")),
    "no table of stimuli": lambda study: (study.folder / "stimuli.tsv").unlink(),
}


@pytest.mark.parametrize("words", TABLES)
def test_bad_table_of_stimuli(tools: Any, tmp_path: Path, words: str) -> None:
    study = tools.study(tmp_path / "data")
    study.subject("01")
    TABLES[words](study)
    done = tools.run(study.folder, tmp_path / "out", "participant")
    assert done.returncode == 65, done.stdout + done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    for part in ("where:", "found:", "expected:", "fix:"):
        assert re.search(rf"^  {part}\s+\S", done.stderr, flags=re.MULTILINE), done.stderr
    group = html.unescape((tmp_path / "out" / "group.html").read_text(encoding="utf-8"))
    assert words in group


def test_unknown_configuration_key(tools: Any, tmp_path: Path) -> None:
    study = tools.study(tmp_path / "data")
    study.subject("01")
    config = tools.write_config(tmp_path / "c.yaml", {"evaluate": {"n_bootstrap": 200}})
    done = tools.run(study.folder, tmp_path / "out", "participant", "--config", config)
    assert done.returncode == 78
    assert "unknown configuration key" in done.stderr
    assert "evaluate.n_bootstrap" in done.stderr
    assert "did you mean n_bootstraps?" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a file system of 4 MB, or skip where that is not allowed."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount command here")
    if done.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_disk_too_small_for_one_subject(tools: Any, tmp_path: Path, small_disk: Path) -> None:
    study = tools.study(tmp_path / "data")
    study.subject("01")
    study.subject("big", n_units=60_000)  # its trials alone take 5 MB
    config = tools.write_config(tmp_path / "config.yaml", tools.light)
    done = tools.run(
        study.folder, small_disk / "out", "participant", "--config", config,
        "--cores", 1, "--until", "evaluate",
    )  # fmt: skip
    assert done.returncode == 65, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert re.search(
        r"^sub-big, prepare_responses:\nInputError: there is no space left on the disk",
        done.stderr, flags=re.MULTILINE,
    )  # fmt: skip
    assert "fix:" in done.stderr
    assert (small_disk / "out/sub-01/evaluation/sub-01_metrics.tsv").is_file()
    assert "no space left" in (small_disk / "out/sub-big.html").read_text(encoding="utf-8")
    assert "no space left" in (small_disk / "out/group.html").read_text(encoding="utf-8")


def test_disk_full_from_the_start(tools: Any, tmp_path: Path, small_disk: Path) -> None:
    study = tools.study(tmp_path / "data")
    study.subject("01")
    filler = os.open(small_disk / "filler", os.O_WRONLY | os.O_CREAT)
    with pytest.raises(OSError, match="No space"):
        while os.write(filler, b"0" * 4096):
            pass
    os.close(filler)
    done = tools.run(study.folder, small_disk / "out", "participant")
    assert done.returncode == 65, done.stdout + done.stderr
    assert "there is no space left on the disk" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
