"""Raw EEG and MEG through the command line: bad runs are named and left out, the rest is finished.

The defects stand side by side in one dataset: a subject a kind of defect, and in each subject a
healthy run before the damaged ones, one a defect. One run of the command meets them all.
"""

from __future__ import annotations

import html
import json
import re
import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from afterimage.io.arrays import open_dataset
from afterimage.io.tables import read_tsv, write_tsv

made = SimpleNamespace(
    **runpy.run_path(str(Path(__file__).parents[1] / "bad_recordings_example.py"))
)
HEALTHY = {"01": "eeg", "02": "meg", "03": "eeg"}


def cases(groups: dict[str, dict[str, Any]]) -> list[Any]:
    return [
        pytest.param(label, number, defect, id=f"{label}-{name.replace(' ', '_')}")
        for label, defects in groups.items()
        for number, (name, defect) in enumerate(defects.items(), start=2)
    ]


def plain(text: str) -> str:
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", " ", text)))


class Finished:
    """One run over healthy subjects and those with defects, and what was read of it.

    Attributes
    ----------
    study : Study
    out : Path
    done : subprocess.CompletedProcess
    """

    def __init__(self, study: Any, out: Path, done: Any) -> None:
        self.study, self.out, self.done = study, out, done

    def quality(self, label: str) -> dict[str, Any]:
        path = self.out / f"sub-{label}" / f"sub-{label}_quality.json"
        return dict(json.loads(path.read_text()))

    def notes(self, label: str, number: int) -> str:
        """Return what was noted of a run."""
        (path,) = (self.out / f"sub-{label}").rglob(f"*_run-{number:02d}_desc-meeg_quality.nc")
        with open_dataset(path) as dataset:
            return str(dataset.attrs["notes"])

    def message(self, label: str, number: int) -> str:
        """Return the error that the user was shown for one run."""
        blocks = re.split(r"\n(?=sub-\w+, \w+:\n)|\n\n", self.done.stderr)
        own = f"sub-{label}_task-pictures_run-{number:02d}_"
        found = [block for block in blocks if own in block]
        assert len(found) == 1, f"{len(found)} errors for {own}:\n{self.done.stderr}"
        return found[0]

    def report(self, label: str) -> str:
        return plain((self.out / f"{label}.html").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def finished(tools: Any, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """One run until the trials of every subject; then all reports from what is there."""
    folder = tmp_path_factory.mktemp("raw")
    study = made.Study(folder / "dataset")
    for label, modality in HEALTHY.items():
        study.subject(label, modality, pictures=label != "03")
    made.add_defects(study)
    before = tools.contents(study.folder)
    done = tools.run(
        study.folder, folder / "out", "participant", "--until", "epoch_meeg", "--cores", 2
    )
    assert tools.contents(study.folder) == before  # nothing is written into the dataset
    tools.run("report", folder / "out")
    return Finished(study, folder / "out", done)


def test_all_subjects_are_finished(finished: Finished) -> None:
    assert finished.done.returncode == 65, finished.done.stdout + finished.done.stderr
    assert "Traceback" not in finished.done.stdout + finished.done.stderr
    for label in (*HEALTHY, *made.LEFT_OUT, *made.NOTED):
        assert (finished.out / f"sub-{label}" / f"sub-{label}_trials.nc").is_file(), label


@pytest.mark.parametrize("label", HEALTHY)
def test_healthy_subjects_have_their_trials(finished: Finished, label: str) -> None:
    assert f"sub-{label}," not in finished.done.stderr
    with open_dataset(finished.out / f"sub-{label}" / f"sub-{label}_trials.nc") as trials:
        assert trials.sizes["trial"] == 2 * len(made.PICTURES)
    path = next((finished.out / f"sub-{label}").rglob("*_run-02_desc-meeg_quality.nc"))
    with open_dataset(path) as quality:
        assert int(quality["bad"].sum()) == 0


@pytest.mark.parametrize(("label", "number", "defect"), cases(made.LEFT_OUT))
def test_bad_run_is_named_and_left_out(
    finished: Finished, label: str, number: int, defect: Any
) -> None:
    message = finished.message(label, number)
    assert "InputError: " in message
    for part in ("where:", "found:", "expected:", "fix:"):
        assert re.search(rf"^  {part}\s+\S", message, flags=re.MULTILINE), message
    for words in defect.said:
        assert re.search(words, message), (words, message)
    headline = re.findall(r"InputError: (.+)", message)[0]
    report, group = finished.report(f"sub-{label}"), finished.report("group")
    assert headline in report
    for words in defect.said:
        assert re.search(words, report), words
    assert headline in group
    assert f"sub-{label}" in group


@pytest.mark.parametrize("label", made.LEFT_OUT)
def test_the_healthy_run_of_the_subject_is_used(finished: Finished, label: str) -> None:
    assert finished.quality(label)["n_runs"] == 1
    with open_dataset(finished.out / f"sub-{label}" / f"sub-{label}_trials.nc") as trials:
        assert trials.sizes["trial"] == len(made.PICTURES)
        assert set(np.unique(trials["run"].values).astype(str)) == {"01"}


@pytest.mark.parametrize(("label", "number", "defect"), cases(made.NOTED))
def test_what_can_be_mended_is_noted(
    finished: Finished, label: str, number: int, defect: Any
) -> None:
    assert f"sub-{label}," not in finished.done.stderr
    assert finished.quality(label)["n_runs"] == 1 + len(made.NOTED[label])
    # Where rates differ, the note stands with the run that was brought to the other one's.
    notes = finished.notes(label, 1 if label == "rates" else number)
    report = finished.report(f"sub-{label}")
    for words in defect.said:
        assert re.search(words, notes), (words, notes)
        assert re.search(words, report, flags=re.IGNORECASE), words  # notes start as sentences


def test_runs_of_one_cap_have_one_reference(finished: Finished) -> None:
    """Also the runs in which channels are bad, so that fewer than 16 are good."""
    found = set()
    for path in (finished.out / "sub-noted").rglob("*_desc-meeg_quality.nc"):
        with open_dataset(path) as quality:
            found.add(str(quality.attrs["reference"]))
    assert found == {"average"}


def test_index_tells_a_person_what_is_wrong(finished: Finished, tools: Any) -> None:
    done = tools.run("index", finished.study.folder)
    assert done.returncode == 65
    assert len(done.stdout.splitlines()) == 1 + len(read_tsv(finished.out / "code" / "units.tsv"))
    assert "InputError: a run has no events\n  where:    sub-events, " in done.stderr
    assert re.search(r"\d of \d+ rows cannot be used", done.stderr)


def test_second_run_does_nothing_and_a_mended_run_is_taken_up(
    finished: Finished, tools: Any
) -> None:
    arguments = (
        finished.study.folder, finished.out, "participant", "--until", "epoch_meeg",
        "--participant-label", "01", "meg",
    )  # fmt: skip
    again = tools.run(*arguments)
    assert "nothing to be done" in again.stdout, again.stdout + again.stderr
    place = finished.study.folder / "sub-meg" / "meg"
    for number in (1, 2):
        finished.study.write(place, number, *finished.study.meg)
    mended = tools.run(*arguments)
    assert mended.returncode == 0, mended.stdout + mended.stderr
    assert finished.quality("meg")["n_runs"] == 3


@pytest.mark.slow
def test_decoding_goes_on_beside_subjects_that_cannot(tools: Any, tmp_path: Path) -> None:
    """The whole way for pictures and conditions; one class, one run and an unknown picture fail."""
    study = made.Study(tmp_path / "dataset")
    study.subject("01")
    for label in ("02", "oneclass"):
        study.subject(label, pictures=False)
    study.subject("onerun", pictures=False, n_runs=1)
    study.subject("unknown")
    for path in (study.folder / "sub-oneclass").rglob("*_events.tsv"):
        rows = [row | {"trial_type": "face"} for row in read_tsv(path)]
        write_tsv(path, rows, list(rows[0]))
    path = made.file(study.folder / "sub-unknown" / "eeg", 1, "events.tsv")
    rows = read_tsv(path)
    rows[4]["stim_file"] = "gone.png"
    write_tsv(path, rows, list(rows[0]))
    quick = {
        "classifiers": dict.fromkeys(("xdawn", "tangentSpace", "cspLDA")),
        "n_permutations": 20, "n_bootstraps": 100,
    }  # fmt: skip
    settings = {**tools.light, "decode_conditions": quick, "clean_meeg": {"ransac": False}}
    config = tools.write_config(tmp_path / "config.yaml", settings)
    out = tmp_path / "out"
    done = tools.run(study.folder, out, "participant", "--config", config, "--cores", 2)
    assert done.returncode == 65, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert read_tsv(out / "sub-01" / "evaluation" / "sub-01_metrics.tsv")
    assert read_tsv(out / "sub-01" / "evaluation" / "sub-01_time.tsv")
    assert read_tsv(out / "sub-02" / "decoding" / "sub-02_conditions.tsv")
    group = plain((out / "group.html").read_text(encoding="utf-8"))
    for label, words in {
        "oneclass": ("nothing to tell apart", "face"),
        "onerun": ("no group of trials can be left out", "one run"),
        "unknown": ("not in the table of stimuli", "gone"),
    }.items():
        report = plain((out / f"sub-{label}.html").read_text(encoding="utf-8"))
        said = done.stderr.partition(f"sub-{label}, ")[2].partition("\nsub-")[0]
        for word in words:
            assert word in said, (word, said)
            assert word in report
        assert words[0] in group
    for label in ("01", "02"):
        assert f"sub-{label}," not in done.stderr
        assert (out / f"sub-{label}.html").is_file()
