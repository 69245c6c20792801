"""Conditions read from real EEG by the stages, on runs and people the fit has not seen.

The recordings go the way a user's go, with the configurations that ``docs/meeg.md`` shows. Windows,
bands and baselines in them have reasons that were known before: windows from the stimulus on; the
band of the sensorimotor rhythms (8 to 30 Hz); 0.5 to 3.5 s after a cue to imagine, when people have
begun and not yet stopped; the first 40 ms as baseline where there is nothing before the stimulus.
The rows ``selected`` let each fold choose its classifier inside its own training trials; for the
others, which classifier does well was seen on these same trials, so their margins are optimistic.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from afterimage.bids.index import index_dataset
from afterimage.config.load import check_config
from afterimage.config.schema import Config
from afterimage.io.tables import Row, read_tsv
from afterimage.stages import clean_meeg, decode_conditions, epoch_meeg, prepare_responses

pytestmark = pytest.mark.slow
DOCUMENT = Path(__file__).parents[2] / "docs" / "meeg.md"

Key = tuple[str, str, str, str]
Told = tuple[dict[Key, Row], dict[str, Any]]


def documented(name: str) -> Config:
    """Return the configuration that the documentation shows for a dataset."""
    text = DOCUMENT.read_text(encoding="utf-8")
    block = re.search(rf"<!-- config {name} -->\s*```yaml\n(.*?)```", text, re.S)
    assert block, f"docs/meeg.md shows no configuration of {name}"
    return check_config(yaml.safe_load(block.group(1)))


def trials_of(root: Path, out: Path, subject: str, config: Config) -> Path:
    """Clean and cut the recordings of a subject by the stages that the workflow runs."""
    rows = [row for row in index_dataset(root) if row["subject"] == subject]
    rows = [row for row in rows if row["events"] != "n/a"]  # rest is not for decoding
    assert rows and all(row["problem"] == "n/a" for row in rows)
    folder = out / f"sub-{subject}"
    cleaned = []
    for number, row in enumerate(rows):
        stem = Path(row["recording"]).name.rpartition("_")[0]
        base = folder / "eeg" / stem
        outputs = clean_meeg.Outputs(
            base.with_name(f"{stem}_desc-clean_series.nc"),
            base.with_name(f"{stem}_desc-clean_events.tsv"),
            base.with_name(f"{stem}_desc-meeg_quality.nc"),
        )
        outputs.series.parent.mkdir(parents=True, exist_ok=True)
        inputs = clean_meeg.Inputs(
            root / row["recording"],
            tuple(root / part for part in row["sidecar"].split(";")),
            root / row["events"],
        )
        clean_meeg.run(inputs, outputs, config.clean_meeg)
        cleaned.append(outputs)
        assert number < 12
    trials = folder / f"sub-{subject}_trials.nc"
    epoch_meeg.run(
        epoch_meeg.Inputs(
            tuple(found.series for found in cleaned),
            tuple(found.events for found in cleaned),
            root / "dataset_description.json",
        ),
        epoch_meeg.Outputs(
            trials,
            folder / f"sub-{subject}_split.tsv",
            folder / f"sub-{subject}_quality.json",
            folder / f"sub-{subject}_desc-responses_quality.nc",
        ),
        config.epoch_meeg,
    )
    return trials


def decode(
    trials: tuple[Path, ...], out: Path, config: Config, participants: Path | None = None
) -> Told:
    """Run the stage; rows by contrast, classifier, role and metric, and the details."""
    outputs = decode_conditions.Outputs(out / "conditions.tsv", out / "conditions.json")
    inputs = decode_conditions.Inputs(trials, participants)
    decode_conditions.run(inputs, outputs, config.decode_conditions, threads=2)
    rows = read_tsv(outputs.table, decode_conditions.COLUMNS)
    keys = ("contrast", "classifier", "role", "metric")
    print(outputs.table.read_text())
    return {tuple(row[key] for key in keys): row for row in rows}, json.loads(
        outputs.details.read_text()
    )  # type: ignore[return-value]


def number(row: Row, key: str = "value") -> float:
    return float(row[key])


def rings(details: dict[str, Any], contrast: str) -> bool:
    """Say whether an alarm of the contrast rings."""
    notes = [n for c in details["contrasts"] if c["contrast"] == contrast for n in c["notes"]]
    return any("the alarm rings" in note for note in notes)


def test_faces_and_houses_with_four_electrodes(shared_data: Path, tmp_path: Path) -> None:
    """Six runs, one left out at a time; nothing is known before the picture."""
    config = documented("faces")
    trials = trials_of(shared_data / "eeg-n170-raw", tmp_path, "01", config)
    found, details = decode((trials,), tmp_path, config)
    assert details["group_column"] == "run"
    for name in ("windowLDA", "xdawn", "selected"):
        row = found["conditions", name, "decoding", "auc"]
        assert int(row["n"]) > 1100
        assert number(row) >= 0.70
        assert number(row, "ci_low") > 0.66
    row = found["conditions", "windowLDA", "decoding", "auc"]
    assert number(row, "p") < 0.05
    assert number(row, "chance_high") < number(row, "ci_low")
    for name in ("windowLDA", "xdawn"):
        alarm = found["conditions", name, "alarm", "auc"]
        assert number(alarm, "tmax_s") < 0
        assert number(alarm, "ci_low") < 0.5 < number(alarm, "ci_high")
    assert not rings(details, "conditions")


@pytest.fixture(scope="module")
def motor(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Told:
    """Sixty-four channels, three runs of each of two pairs of imagined movements."""
    out = tmp_path_factory.mktemp("motor")
    config = documented("movements")
    trials = trials_of(shared_data / "eeg-motor-raw", out, "001", config)
    return decode((trials,), out, config)


POWER = ("cspLDA", "tangentSpace")


def test_imagined_fists_and_feet(motor: Told) -> None:
    found, _ = motor
    for name in (*POWER, "selected"):
        row = found["fists_feet", name, "decoding", "balanced_accuracy"]
        assert 40 <= int(row["n"]) <= 45  # trials that touch bad segments are left out
        assert number(row) >= 0.95
        assert number(row, "ci_low") > 0.85
    for name in POWER:
        assert number(found["fists_feet", name, "decoding", "balanced_accuracy"], "p") < 0.05
        assert number(found["fists_feet", name, "alarm", "auc"], "ci_low") < 0.5


def test_left_and_right_fist_are_not_oversold(motor: Told) -> None:
    """Not far above chance across the runs of this person, and the interval of 45 trials says so."""
    found, _ = motor
    for name in (*POWER, "selected"):
        row = found["left_right", name, "decoding", "balanced_accuracy"]
        assert 0.5 < number(row) < 0.9
        assert number(row, "ci_high") - number(row, "ci_low") > 0.15


@pytest.fixture(scope="module")
def people(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Told:
    """Twelve people who are all training or all test in the table, left out in turn."""
    root, out = shared_data / "eeg-uci-visual", tmp_path_factory.mktemp("people")
    config = documented("people")
    files = []
    for row in index_dataset(root):
        assert (row["problem"], row["stimuli"], row["modality"]) == ("n/a", "no", "eeg")
        stem = out / f"sub-{row['subject']}" / f"sub-{row['subject']}"
        stem.parent.mkdir()
        files.append(Path(f"{stem}_trials.nc"))
        parts = [root / row[name] for name in ("responses", "trials", "units", "sidecar")]
        prepare_responses.run(
            prepare_responses.Inputs(root / "stimuli.tsv", *parts),
            prepare_responses.Outputs(
                files[-1], Path(f"{stem}_split.tsv"), Path(f"{stem}_quality.json")
            ),
            config.prepare_responses,
        )
    assert len(files) == 12
    return decode(tuple(files), out, config, root / "participants.tsv")


def test_first_and_second_picture_in_people_never_seen(people: Told) -> None:
    """Told apart, but in part before the picture can matter: the alarm rings, and must be shown."""
    found, details = people
    row = found["picture", "windowLDA", "decoding", "auc"]
    assert (int(row["n"]), int(row["n_groups"])) == (360, 12)
    assert number(row) >= 0.86
    assert number(row, "ci_low") > 0.78
    assert number(row, "p") < 0.1
    alarm = found["picture", "windowLDA", "alarm", "auc"]
    assert number(alarm, "tmax_s") <= 0.031
    assert number(alarm, "ci_low") > 0.5
    assert rings(details, "picture")


def test_match_and_nonmatch_in_people_never_seen(people: Told) -> None:
    found, details = people
    row = found["match", "windowLDA", "decoding", "auc"]
    assert number(row) >= 0.72
    assert number(row, "ci_low") > 0.6
    assert number(row, "p") < 0.1
    assert number(found["match", "windowLDA", "alarm", "auc"], "ci_low") < 0.5
    assert not rings(details, "match")


def test_what_the_person_leak_is_worth(people: Told) -> None:
    """Patients and controls: random trials recognise the person; people left out do not."""
    found, _ = people
    for metric in ("auc", "balanced_accuracy"):
        honest = found["group", "windowLDA", "decoding", metric]
        leaked = found["group", "windowLDA", "leak", metric]
        assert number(leaked) > number(honest) + 0.1
        assert "do not report" in leaked["protocol"]
        assert honest["protocol"].startswith("leave persons out")
