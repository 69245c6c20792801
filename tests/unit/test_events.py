"""Events are read strictly: what is a trial, what was shown, and every defect said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from afterimage.bids.events import (
    Events,
    drop_late,
    missing_conditions,
    read_events,
    stimulus_files,
)
from afterimage.errors import InputError


@pytest.fixture
def write(tmp_path: Path):  # type: ignore[no-untyped-def]
    def write_table(text: str, name: str = "sub-01_task-view_events.tsv") -> Path:
        path = tmp_path / name
        path.write_text(text.replace(" ", "\t"), encoding="utf-8")
        return path

    return write_table


def test_pictures_by_file(write) -> None:  # type: ignore[no-untyped-def]
    path = write(
        "onset duration trial_type stim_file\n"
        "0 10 fixation n/a\n"
        "10.25 2 view faces/anna.png\n"
        "14 2 view stimuli/cat.jpg\n"
        "15.5 0 response n/a\n"
        "18 2 catch dot.png\n"
        "22 2 n/a cat.jpg\n"
    )
    events = read_events(path, subject="01")
    assert events.column == "stim_file"
    assert events.stimulus.tolist() == ["faces_anna", "cat", "cat"]
    assert events.file.tolist() == ["faces/anna.png", "cat.jpg", "cat.jpg"]
    assert events.trial_type.tolist() == ["view", "view", "n/a"]
    np.testing.assert_array_equal(events.onsets_s, [10.25, 14, 22])
    np.testing.assert_array_equal(events.durations_s, [2, 2, 2])
    assert events.notes == ("3 of 6 events are no trials (1 fixation, 1 response, 1 catch)",)
    assert stimulus_files([events]) == {"faces_anna": "faces/anna.png", "cat": "cat.jpg"}


def test_ids_come_before_files(write) -> None:  # type: ignore[no-untyped-def]
    path = write(
        "onset duration stimulus_id stim_file\n1 1 7 a.png\n2 1 n/a b.png\n3 1 rest n/a\n"
    )
    events = read_events(path, subject="01")
    assert events.stimulus.tolist() == ["7", "rest"]
    assert events.file.tolist() == ["a.png", "n/a"]
    events = read_events(path, subject="01", stimulus_column="stim_file")
    assert events.stimulus.tolist() == ["a", "b"]


def test_categories_where_nothing_else_is_known(write) -> None:  # type: ignore[no-untyped-def]
    kinds = ["Rest", "face", "Button-Press", "house", "n/a", "fixation_cross", "ITI", "catch"]
    text = "".join(f"{n} 1 {kind}\n" for n, kind in enumerate(kinds))
    path = write("onset duration trial_type\n" + text)
    events = read_events(path, subject="01")
    assert events.stimulus.tolist() == ["face", "house"]
    assert set(events.file.tolist()) == {"n/a"}
    chosen = read_events(path, subject="01", trial_types=["catch", "face"])
    assert chosen.stimulus.tolist() == ["face", "catch"]


def test_a_column_of_ones_own(write) -> None:  # type: ignore[no-untyped-def]
    path = write(
        "onset late duration event_type file_path\n"
        "1 8 1 1 dog/dog_12s.jpg\n2 9 1 -1 n/a\n3 10 1 1 aardvark\n"
    )
    events = read_events(path, subject="01", stimulus_column="file_path", onset_column="late")
    assert events.stimulus.tolist() == ["dog_dog_12s", "aardvark"]
    assert events.file.tolist() == ["dog/dog_12s.jpg", "n/a"]
    assert events.onsets_s.tolist() == [8, 10]


def test_what_can_be_mended_is_noted(write) -> None:  # type: ignore[no-untyped-def]
    path = write("onset duration trial_type\n8 n/a b\n-2 1 a\n4 1 a\n8 n/a b\n12 1 c\n")
    events = read_events(path, subject="01")
    assert events.stimulus.tolist() == ["a", "b", "c"]
    np.testing.assert_array_equal(events.onsets_s, [4, 8, 12])
    np.testing.assert_array_equal(events.durations_s, [1, 0, 1])
    assert events.notes == (
        "2 of 5 durations are n/a: taken as 0 s",
        "1 of 5 trials start before the first volume: left out",
        "the events were not in order of their onsets: sorted",
        "1 trial has the onset and stimulus of another one: left out",
    )


DEFECTS = {
    "lacks a column": "start duration trial_type\n1 1 a\n",
    "a table is empty": "",
    "wrong number of cells": "onset duration trial_type\n1 1\n",
    "do not say what was shown": "onset duration value\n1 1 3\n",
    "a run has no trials": "onset duration trial_type\n1 1 rest\n2 1 n/a\n",
    "has no trials": "onset duration trial_type\n",
    "time of an event is not a number": "onset duration trial_type\n1 1 a\nn/a 1 a\n",
    "of an event is not a number": "onset duration trial_type\n1 inf a\n",
    "duration of an event is negative": "onset duration trial_type\n1 -1 a\n",
    "start at the same time": "onset duration trial_type\n1 1 a\n1 1 b\n2 1 a\n",
    "all trials lie before": "onset duration trial_type\n-3 1 a\n-1 1 b\n",
    "leads out of the dataset": "onset duration stim_file\n1 1 stimuli/../../x.png\n",
    "path of a stimulus leads": "onset duration stim_file\n1 1 /stimuli/x.png\n",
}


@pytest.mark.parametrize("words", DEFECTS)
def test_defects(write, words: str) -> None:  # type: ignore[no-untyped-def]
    path = write(DEFECTS[words])
    with pytest.raises(InputError, match=words) as caught:
        read_events(path, subject="01")
    assert str(path) in caught.value.where
    assert caught.value.found
    assert caught.value.fix


def test_a_defect_of_what_is_no_trial_does_no_harm(write) -> None:  # type: ignore[no-untyped-def]
    path = write("onset duration trial_type\nn/a n/a response\n3 1 a\n3 0 cue\n")
    assert read_events(path, subject="01").stimulus.tolist() == ["a"]


def test_trial_types_need_their_column(write) -> None:  # type: ignore[no-untyped-def]
    path = write("onset duration stim_file\n1 1 a.png\n")
    with pytest.raises(InputError, match="no such column"):
        read_events(path, subject="01", trial_types=["a"])
    path = write("onset duration trial_type\n1 1 a\n")
    with pytest.raises(InputError, match="has no trials") as caught:
        read_events(path, subject="01", trial_types=["b"])
    assert caught.value.found == "1 events, 1 of a"


def test_a_line_is_named(write) -> None:  # type: ignore[no-untyped-def]
    path = write("onset duration trial_type\n1 1 rest\n2 1 a\nsoon 1 a\n")
    with pytest.raises(InputError) as caught:
        read_events(path, subject="01")
    assert caught.value.where == f"sub-01, {path}, line 4, column onset"


def test_links_may_not_lead_out(write, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    stimuli = tmp_path / "dataset" / "stimuli"
    stimuli.mkdir(parents=True)
    (stimuli / "a.png").touch()
    (stimuli / "b.png").symlink_to(tmp_path / "b.png")
    path = write("onset duration stim_file\n1 1 a.png\n")
    assert len(read_events(path, subject="01", stimuli_dir=stimuli)) == 1
    path = write("onset duration stim_file\n1 1 a.png\n2 1 b.png\n")
    with pytest.raises(InputError, match="leads out") as caught:
        read_events(path, subject="01", stimuli_dir=stimuli)
    assert "line 3" in caught.value.where


def events_at(onsets_s: list[float], kinds: list[str], name: str = "run-1") -> Events:
    labels = np.array(kinds)
    empty = np.full(len(kinds), "n/a")
    return Events(
        Path(f"{name}_events.tsv"), "01", np.array(onsets_s), np.ones(len(kinds)), labels, labels,
        empty, "trial_type", ("before",),
    )  # fmt: skip


def test_late_trials() -> None:
    events = events_at([0.0, 799.9, 800.0, 805.0, 812.0], list("abcde"))
    kept = drop_late(events, 800.0)
    assert kept.stimulus.tolist() == ["a", "b"]
    text = "3 onsets lie after the last volume (812.0 s > 800.0 s)"
    assert kept.notes == ("before", f"{text}: left out")
    assert len(events) == 5
    assert drop_late(events, 813.0) is events
    with pytest.raises(InputError, match="after the last volume") as caught:
        drop_late(events, 800.0, allowed=False)
    assert caught.value.found == text
    with pytest.raises(InputError):
        drop_late(events_at([5.0], ["a"]), 5.0)


def test_conditions_that_a_run_lacks() -> None:
    runs = [events_at([0.0, 1.0], ["a", "b"], f"run-{n}") for n in (1, 2, 3)]
    assert missing_conditions(runs) == []
    runs.append(events_at([0.0, 1.0], ["a", "a"], "run-4"))
    assert missing_conditions(runs) == [
        "sub-01, run-4_events.tsv: no trial of b, which 3 of 4 runs have"
    ]
    # Where every picture is its own condition, none is expected in all runs.
    pictures = [events_at([0.0, 1.0], [f"p{n}", f"q{n}"]) for n in range(4)]
    assert missing_conditions(pictures) == []
    assert missing_conditions(runs[:1]) == []


def test_one_id_is_one_picture(write) -> None:  # type: ignore[no-untyped-def]
    header = "onset duration stim_file\n"
    first = read_events(write(header + "1 1 x/a.png\n", "1.tsv"), subject="01")
    second = read_events(write(header + "1 1 x_a.png\n", "2.tsv"), subject="01")
    with pytest.raises(InputError, match="stands for two pictures") as caught:
        stimulus_files([first, second])
    assert caught.value.found == "x_a: x/a.png and x_a.png"


def test_real_events(shared_data: Path) -> None:
    folder = shared_data / "haxby2001-raw" / "sub-001" / "func"
    runs = [read_events(path, subject="001") for path in sorted(folder.glob("*_events.tsv"))]
    assert [len(run) for run in runs] == [8] * 12
    assert {len(set(run.stimulus)) for run in runs} == {8}
    assert {kind for run in runs for kind in run.stimulus} >= {"face", "scrambledpix"}
    assert missing_conditions(runs) == []
    assert all(len(drop_late(run, 121 * 2.5)) == 8 for run in runs)
    late = read_events(runs[0].path, subject="001", onset_column="onset_labels")
    np.testing.assert_allclose(late.onsets_s - runs[0].onsets_s, 7)
