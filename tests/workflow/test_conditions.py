"""Prepared EEG without pictures, people all in one split: decoded alone and with people left out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from afterimage.io.tables import read_json, read_tsv

CONFIG = {
    "decode_conditions": {
        "classifiers": {"xdawn": None, "tangentSpace": None, "cspLDA": None},
        "n_permutations": 4, "n_bootstraps": 100,
        "contrasts": {
            "picture": {"classes": {"first": ["S1"], "second": ["S2"]}},
            "late": {"classes": {"first": ["S1"], "second": ["S2"]}, "tmin_s": 0.2},
            "person": {"condition_column": "group"},
        },
    }
}  # fmt: skip


def write(folder: Path) -> Path:
    """Write four people: three with two runs and one with one; the third and fourth are test."""
    folder.mkdir()
    (folder / "stimuli.tsv").write_text("stimulus_id\tfile\tsplit\nS1\tn/a\tn/a\nS2\tn/a\tn/a\n")
    (folder / "participants.tsv").write_text(
        "participant_id\tgroup\nsub-a\tone\nsub-b\ttwo\nsub-c\tone\nsub-d\ttwo\n"
    )
    for number, label in enumerate("abcd"):
        rng = np.random.default_rng(number)
        own = folder / f"sub-{label}"
        own.mkdir()
        shown = ["S1", "S2"] * 10
        responses = rng.normal(size=(20, 4, 50)) + 3 * rng.normal(size=(4, 1))
        responses[1::2, 1, 25:] += 1.5
        np.save(own / f"sub-{label}_responses.npy", responses.astype(np.float32))
        split = "train" if label in "ab" else "test"
        lines = [f"{s}\t{1 + (i > 9 and label != 'd')}\t{split}" for i, s in enumerate(shown)]
        text = "\n".join(["stimulus_id\trun\tsplit", *lines]) + "\n"
        (own / f"sub-{label}_trials.tsv").write_text(text)
        names = ["Fz", "Cz", "Pz", "Oz"] if label != "c" else ["Cz", "Fz", "Pz", "T7"]
        table = "kind\tname\n" + "".join(f"eeg\t{name}\n" for name in names)
        (own / f"sub-{label}_units.tsv").write_text(table)
        (own / f"sub-{label}_responses.json").write_text(
            '{"sampling_rate_hz": 100, "tmin_s": -0.1}'
        )
    return folder


@pytest.fixture(scope="module")
def out(tools: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("conditions")
    data = write(folder / "data")
    config = tools.write_config(folder / "config.yaml", CONFIG)
    done = tools.run(data, folder / "out", "participant", "--config", config, "--cores", 2)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "out"


def test_people_are_left_out(out: Path) -> None:
    rows = read_tsv(out / "group" / "conditions.tsv")
    assert {row["subject"] for row in rows} == {"group"}
    found = {(r["contrast"], r["role"]): r for r in rows if r["metric"] == "auc"}
    assert set(found) == {
        (contrast, role)
        for contrast in ("picture", "late", "person")
        for role in ("decoding", "alarm", "leak")
    }
    assert (found["picture", "decoding"]["n"], found["picture", "decoding"]["n_groups"]) == (
        "80",
        "4",
    )
    assert float(found["late", "decoding"]["tmin_s"]) == pytest.approx(0.2)
    assert float(found["picture", "decoding"]["tmin_s"]) == pytest.approx(0.0)
    assert found["person", "decoding"]["protocol"].startswith("leave persons out, 2 folds")
    assert float(found["person", "leak"]["value"]) > 0.95
    details = read_json(out / "group" / "conditions.json")
    assert details["n_channels"] == 3  # Cz, Fz and Pz, in the order of the first
    assert details["notes"] == ["left out: 2 channels that not all subjects have"]


def test_a_subject_is_decoded_where_runs_can_be_left_out(out: Path) -> None:
    rows = read_tsv(out / "sub-a" / "decoding" / "sub-a_conditions.tsv")
    assert {row["contrast"] for row in rows} == {"picture", "late"}
    assert all(row["n"] == "20" for row in rows)
    notes = read_json(out / "sub-a" / "decoding" / "sub-a_conditions.json")["notes"]
    assert notes == [
        "person was not told apart: group belongs to the person, who is one; see the group"
    ]
    assert not read_tsv(out / "sub-d" / "decoding" / "sub-d_conditions.tsv")
    notes = read_json(out / "sub-d" / "decoding" / "sub-d_conditions.json")["notes"]
    assert "nothing can be left out, all trials are of one run (1)" in notes[0]


def test_splits_are_those_of_the_trials(out: Path) -> None:
    quality = read_json(out / "sub-c" / "sub-c_quality.json")
    assert quality["n_trials"] == {"train": 0, "val": 0, "test": 20}
    assert {row["split"] for row in read_tsv(out / "sub-c" / "sub-c_split.tsv")} == {"test"}


def test_reports_say_it(out: Path) -> None:
    group = (out / "group.html").read_text(encoding="utf-8")
    for words in (
        "Can conditions be told apart in people never seen?", "picture (first against second)",
        "What is the leak of people worth?", "person (one against two)",
        "2 channels that not all subjects have",
    ):  # fmt: skip
        assert words in group, words
    assert "No subject has scores" not in group
    alone = (out / "sub-d.html").read_text(encoding="utf-8")
    assert "nothing can be left out, all trials are of one run (1)" in alone
