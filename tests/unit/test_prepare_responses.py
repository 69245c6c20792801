"""Prepared responses become trials: splits, units, ceilings; and what is refused."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray

from afterimage.errors import InputError
from afterimage.io.tables import read_json, read_tsv
from afterimage.preprocess.noise_ceiling import noise_ceiling
from afterimage.stages.prepare_responses import Config, Inputs, Outputs, run


@dataclass
class Subject:
    """Files of one subject; pictures do not exist and are never needed."""

    folder: Path
    inputs: Inputs
    outputs: Outputs

    def run(self, **config: Any) -> None:
        run(self.inputs, self.outputs, Config(**config))

    def trials(self) -> xarray.Dataset:
        return xarray.open_dataset(self.outputs.trials, engine="h5netcdf").load()

    def split(self) -> dict[str, str]:
        return {row["stimulus_id"]: row["split"] for row in read_tsv(self.outputs.split)}


@pytest.fixture
def subject(tmp_path: Path) -> Subject:
    data, out = tmp_path / "data", tmp_path / "out"
    (data / "stimuli").mkdir(parents=True)
    out.mkdir()
    inputs = Inputs(
        data / "stimuli.tsv", data / "sub-01_responses.npy", data / "sub-01_trials.tsv"
    )
    names = ("sub-01_trials.nc", "sub-01_split.tsv", "sub-01_quality.json")
    outputs = Outputs(*(out / name for name in names))
    subject = Subject(data, inputs, outputs)
    stimuli(subject, {f"s{i:02d}": "train" if i < 15 else "test" for i in range(20)})
    trials(subject, [f"s{i:02d}" for i in range(20)])
    respond(subject, np.random.default_rng(0).normal(size=(20, 6)))
    return subject


def stimuli(subject: Subject, split: dict[str, str]) -> None:
    rows = [f"{name}\t{name}.png\t{part}\n" for name, part in split.items()]
    subject.inputs.stimuli_table.write_text("stimulus_id\tfile\tsplit\n" + "".join(rows))


def trials(subject: Subject, shown: list[str], split: list[str] | None = None) -> None:
    header = "stimulus_id" + ("\tsplit" if split else "")
    rows = shown if split is None else [f"{s}\t{p}" for s, p in zip(shown, split, strict=True)]
    subject.inputs.trials.write_text("\n".join([header, *rows]) + "\n")


def respond(subject: Subject, responses: np.ndarray) -> None:
    np.save(subject.inputs.responses, responses.astype(np.float32))


def test_split_of_the_table_of_stimuli(subject: Subject) -> None:
    subject.run()
    split = subject.split()
    assert [name for name, part in split.items() if part == "test"] == [
        "s15", "s16", "s17", "s18", "s19",
    ]  # fmt: skip
    found = subject.trials()
    assert found["split"].values.tolist() == ["train"] * 15 + ["test"] * 5
    assert found["responses"].dtype == np.float32


def test_split_of_the_trials_wins(subject: Subject) -> None:
    parts = ["test"] * 5 + ["train"] * 13 + ["val", "n/a"]
    trials(subject, [f"s{i:02d}" for i in range(20)], parts)
    subject.run()
    split = subject.split()
    assert split["s00"] == "test"
    assert split["s15"] == "train"
    assert split["s18"] == "val"
    assert split["s19"] == "test"  # not said in the trials: as in the table of stimuli
    assert read_json(subject.outputs.quality)["n_trials"] == {"train": 13, "val": 1, "test": 6}


def test_unknown_word_for_a_split(subject: Subject) -> None:
    stimuli(subject, {f"s{i:02d}": "train" if i < 19 else "heldout" for i in range(20)})
    with pytest.raises(InputError, match="no known split") as caught:
        subject.run()
    assert caught.value.found == "heldout"


def test_no_test_trial(subject: Subject) -> None:
    stimuli(subject, {f"s{i:02d}": "train" for i in range(20)})
    with pytest.raises(InputError, match="too few test trials"):
        subject.run()


def test_minimum_of_training_trials_can_be_set(subject: Subject) -> None:
    subject.run(min_training_trials=15)
    with pytest.raises(InputError, match="too few train trials"):
        subject.run(min_training_trials=16)


def test_failed_checks_write_nothing(subject: Subject) -> None:
    respond(subject, np.zeros((19, 6)))
    with pytest.raises(InputError):
        subject.run()
    assert not list(subject.outputs.trials.parent.iterdir())


@pytest.mark.parametrize("shape", [(20,), (20, 2, 2, 2), (20, 0), (0, 6)])
def test_shapes_that_are_refused(subject: Subject, shape: tuple[int, ...]) -> None:
    respond(subject, np.zeros(shape))
    with pytest.raises(InputError) as caught:
        subject.run()
    assert caught.value.found
    assert caught.value.expected


def test_all_units_unusable(subject: Subject) -> None:
    respond(subject, np.ones((20, 6)))
    with pytest.raises(InputError, match="no unit can be used"):
        subject.run()


def test_values_too_large_for_single_precision(subject: Subject) -> None:
    responses = np.random.default_rng(0).normal(size=(20, 6))
    responses[4, 2] = 1e300
    np.save(subject.inputs.responses, responses)
    with pytest.raises(InputError, match="not finite"), np.errstate(over="ignore"):
        subject.run()


def test_units_keep_their_description_when_others_are_dropped(subject: Subject) -> None:
    responses = np.random.default_rng(0).normal(size=(20, 6))
    responses[:, 1], responses[:, 4] = 2.0, np.nan
    respond(subject, responses)
    table = subject.folder / "sub-01_units.tsv"
    rows = [f"neuron\tR{i}\t{i if i else 'n/a'}" for i in range(6)]
    table.write_text("\n".join(["kind\troi\tx", *rows]) + "\n")
    subject.inputs = replace(subject.inputs, units=table)
    subject.run()
    found = subject.trials()
    assert found["roi"].values.tolist() == ["R0", "R2", "R3", "R5"]
    assert found["column"].values.tolist() == [0, 2, 3, 5]
    np.testing.assert_array_equal(found["x"].values, [np.nan, 2, 3, 5])
    np.testing.assert_array_equal(found["responses"], responses[:, [0, 2, 3, 5]].astype("f4"))


def test_more_trials_than_a_chunk(subject: Subject) -> None:
    shown = [f"s{i % 20:02d}" for i in range(600)]
    trials(subject, shown)
    responses = np.random.default_rng(0).normal(size=(600, 3))
    respond(subject, responses)
    subject.run()
    found = subject.trials()
    np.testing.assert_array_equal(found["responses"], responses.astype("f4"))
    assert found["repeat"].values.max() == 29


def test_ceiling_knows_nothing_of_test_trials(subject: Subject) -> None:
    shown = [f"s{i % 20:02d}" for i in range(60)]
    trials(subject, shown)
    rng = np.random.default_rng(0)
    responses = rng.normal(size=(60, 4))
    respond(subject, responses)
    subject.run()
    before = subject.trials()["ceiling"].values
    test = np.array([int(name[1:]) >= 15 for name in shown])
    responses[test] = rng.normal(size=(test.sum(), 4)) * 9
    respond(subject, responses)
    subject.run()
    np.testing.assert_array_equal(subject.trials()["ceiling"].values, before)


@pytest.mark.parametrize("truth", [0.3, 0.6, 0.9])
def test_ceiling_is_the_planted_one(truth: float) -> None:
    rng = np.random.default_rng(1)
    stimuli_shown = np.repeat(np.arange(1500), 4).astype(str)
    signal = np.repeat(rng.normal(size=(1500, 20)), 4, axis=0)
    noise = rng.normal(size=signal.shape) * np.sqrt(1 / truth**2 - 1)
    found = noise_ceiling(signal + noise, stimuli_shown)
    assert abs(found.mean() - truth) < 0.02


def test_time_axis(subject: Subject) -> None:
    respond(subject, np.random.default_rng(0).normal(size=(20, 3, 4)))
    sidecar = subject.folder / "sub-01_responses.json"
    subject.inputs = replace(subject.inputs, sidecar=sidecar)
    for bad in ({}, {"sampling_rate_hz": 0}, {"sampling_rate_hz": "fast"}):
        sidecar.write_text(json.dumps(bad))
        with pytest.raises(InputError, match="sampling rate"):
            subject.run()
    sidecar.write_text('{"sampling_rate_hz": 50, "tmin_s": 0.1, "units": "uV"}')
    subject.run()
    found = subject.trials()
    np.testing.assert_allclose(found["time"], [0.1, 0.12, 0.14, 0.16])
    assert found.attrs["response_units"] == "uV"


def test_ceiling_over_time_counts_responses_that_change_sign(subject: Subject) -> None:
    """A mean over time of what rises and falls would have none; before onset nothing counts."""
    shown = [f"s{i % 20:02d}" for i in range(200)]
    trials(subject, shown)
    rng = np.random.default_rng(2)
    number = np.array([int(name[1:]) for name in shown])
    course = np.array([0.0, 0.0, 1.0, -1.0])
    planted = rng.normal(size=(20, 3))[number][:, :, None] * course
    respond(subject, planted + rng.normal(size=(200, 3, 4)))
    sidecar = subject.folder / "sub-01_responses.json"
    sidecar.write_text('{"sampling_rate_hz": 100, "tmin_s": -0.02}')
    subject.inputs = replace(subject.inputs, sidecar=sidecar)
    subject.run()
    ceiling = subject.trials()["ceiling"].values
    training = number < 15
    values = subject.trials()["responses"].values[training][:, :, 2:].reshape(-1, 6)
    at = noise_ceiling(values, number[training].astype(str)).reshape(3, 2)
    np.testing.assert_allclose(ceiling, np.sqrt((at**2).mean(axis=1)), atol=1e-5)
    assert ceiling.min() > 0.4


def test_links_inside_the_dataset_are_fine(subject: Subject) -> None:
    """As git-annex and DataLad keep pictures: links to elsewhere in the same dataset."""
    (subject.folder / ".git" / "annex").mkdir(parents=True)
    (subject.folder / ".git" / "annex" / "key").write_bytes(b"picture")
    (subject.folder / "stimuli" / "s00.png").symlink_to("../.git/annex/key")
    subject.run()
    (subject.folder.parent / "outside").write_bytes(b"picture")
    (subject.folder / "stimuli" / "s01.png").symlink_to("../../outside")
    with pytest.raises(InputError, match="out of the dataset"):
        subject.run()


def test_folder_of_pictures_may_be_a_link(subject: Subject, tmp_path: Path) -> None:
    (subject.folder / "stimuli").rename(tmp_path / "pictures")
    (tmp_path / "pictures" / "s00.png").write_bytes(b"picture")
    (subject.folder / "stimuli").symlink_to(tmp_path / "pictures")
    subject.run()
    assert "s00" in subject.split()


def test_seeded_split_where_there_is_none(subject: Subject) -> None:
    rows = "".join(f"s{i:02d}\ts{i:02d}.png\n" for i in range(20))
    subject.inputs.stimuli_table.write_text("stimulus_id\tfile\n" + rows)
    subject.run(random_state=1)
    first = subject.split()
    assert sum(part == "test" for part in first.values()) == 4
    subject.run(random_state=1)
    assert subject.split() == first
    subject.run(random_state=2)
    assert subject.split() != first


def test_input_is_left_alone(subject: Subject) -> None:
    before = {path: path.read_bytes() for path in subject.folder.rglob("*") if path.is_file()}
    subject.run()
    after = {path: path.read_bytes() for path in subject.folder.rglob("*") if path.is_file()}
    assert after == before


def test_without_pictures_a_subject_may_be_all_test(subject: Subject) -> None:
    """Categories return in every trial: the split is that of the trials, whatever the category."""
    table = "stimulus_id\tfile\tsplit\nface\tn/a\tn/a\nhouse\tn/a\tn/a\n"
    subject.inputs.stimuli_table.write_text(table)
    trials(subject, ["face", "house"] * 10, ["test"] * 20)
    subject.run()
    assert subject.split() == {"face": "test", "house": "test"}
    assert np.isnan(subject.trials()["ceiling"].values).all()
    trials(subject, ["face", "house"] * 10, ["train"] * 11 + ["n/a"] * 2 + ["test"] * 7)
    subject.run()
    assert subject.split() == {"face": "n/a", "house": "n/a"}
    assert subject.trials()["split"].values.tolist() == ["train"] * 13 + ["test"] * 7
    trials(subject, ["face", "house"] * 10, ["train"] * 19 + ["tset"])
    with pytest.raises(InputError, match="no known split"):
        subject.run()


def test_condition_and_names_are_kept(subject: Subject) -> None:
    shown = [f"s{i:02d}\tkind {i % 2}" for i in range(20)]
    subject.inputs.trials.write_text("\n".join(["stimulus_id\tcondition", *shown]) + "\n")
    units = subject.inputs.trials.with_name("sub-01_units.tsv")
    units.write_text("kind\tname\n" + "".join(f"eeg\tE{i}\n" for i in range(6)))
    replace(subject, inputs=replace(subject.inputs, units=units)).run()
    found = subject.trials()
    assert found["condition"].values.tolist() == ["kind 0", "kind 1"] * 10
    assert found["name"].values.tolist() == [f"E{i}" for i in range(6)]
