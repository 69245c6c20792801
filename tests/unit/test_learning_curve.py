"""Learning curves: amounts are first parts of the recording, and more data tell more."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from afterimage.decoding.mindeye import MindEyeSettings
from afterimage.decoding.ridge import RidgeSettings
from afterimage.errors import ConfigError
from afterimage.io.arrays import block_writer
from afterimage.io.tables import read_tsv
from afterimage.io.trials import write_trials
from afterimage.reports.assemble import assemble_subject
from afterimage.reports.figures.learning import learning_panels
from afterimage.reports.figures.style import LIGHT
from afterimage.reports.model import SubjectReport
from afterimage.stages import train_shared_decoder
from afterimage.stages.learning_curve import Config, Inputs, Outputs, run
from afterimage.stages.recording_amounts import minutes_recorded, n_trials_of

N_TRAIN, N_TEST, N_FEATURES, N_UNITS = 240, 40, 12, 60


def make_study(folder: Path, *, onsets: bool = True, jumbled: bool = False) -> Inputs:
    """Write trials 6 s apart in runs of 60; the file is in another order than the recording."""
    rng = np.random.default_rng(0)
    names = np.array([f"image{number:03d}" for number in range(N_TRAIN + N_TEST)])
    features = rng.standard_normal((len(names), N_FEATURES)).astype(np.float32)
    responses = features @ rng.standard_normal((N_FEATURES, N_UNITS))
    responses += 6 * rng.standard_normal(responses.shape)
    order = np.arange(len(names))
    trials = {
        "stimulus": names, "subject": np.full(len(names), "01"),
        "split": np.where(order < N_TRAIN, "train", "test"), "repeat": np.zeros(len(names), int),
        "session": np.full(len(names), "1"), "run": np.array([f"{i // 60 + 1:02d}" for i in order]),
    }  # fmt: skip
    if onsets:
        trials["onset"] = 6.0 * (order % 60)
    shuffle = rng.permutation(len(names)) if jumbled else order
    inputs = Inputs(folder / "sub-01_trials.nc", folder / "train.nc", folder / "test.nc")
    write_trials(
        inputs.trials, [responses[shuffle].astype(np.float32)],
        {name: values[shuffle] for name, values in trials.items()},
        {"kind": np.full(N_UNITS, "voxel"), "roi": np.full(N_UNITS, "n/a")}, None, {"units": "1"},
    )  # fmt: skip
    for path, part in (
        (inputs.features, slice(N_TRAIN)),
        (inputs.test_features, slice(N_TRAIN, None)),
    ):
        with block_writer(path) as writer:
            writer.group("", names[part])
            writer.write("", "clip", [features[part]], (N_FEATURES,), {"encoder": "{}"})
    return inputs


def rows_of(inputs: Inputs, **settings: object) -> list[dict[str, str]]:
    outputs = Outputs(inputs.trials.parent / "sub-01_learning.tsv")
    config = Config(
        decoders={"ridge": RidgeSettings()}, n_bootstraps=100, n_permutations=100, **settings
    )
    run(inputs, outputs, config)
    return read_tsv(outputs.table)


def test_more_minutes_tell_more_and_amounts_are_first_parts(tmp_path: Path) -> None:
    rows = rows_of(make_study(tmp_path), amounts=("2 min", "12 min", "all", "1 h"))
    told = {row["amount"]: row for row in rows if row["metric"] == "twoway_clip"}
    assert [told[a]["n_trials"] for a in ("2 min", "12 min", "all")] == ["20", "120", "240"]
    assert [float(told[a]["minutes"]) for a in ("2 min", "12 min", "all")] == [2, 12, 24]
    values = [float(told[a]["value"]) for a in ("2 min", "12 min", "all")]
    assert values[0] < values[1] < values[2]
    assert values[2] > 0.8
    assert float(told["all"]["ci_low"]) > float(told["all"]["chance_high"])
    (short,) = [row for row in rows if row["amount"] == "1 h"]
    assert "shorter" in short["note"]
    assert short["value"] == "n/a"
    panels = learning_panels(SubjectReport("01", learning=rows))
    assert [panel.title for panel in panels] == [
        "Retrieval, top 1, CLIP (brain → image)", "Two-way identification, CLIP"
    ]  # fmt: skip
    assert "after 240 trials (ridge)" in panels[1].alt
    assert b"<svg" in panels[1].draw(LIGHT)
    page = assemble_subject(SubjectReport("01", learning=rows))
    assert page.count("over the amount of training data") >= 2
    assert learning_panels(SubjectReport("01", learning=[short])) == []


def test_order_is_that_of_the_recording_not_of_the_file(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    settings = {"amounts": ("60 trials", "25 %")}
    inputs = make_study(tmp_path / "a"), make_study(tmp_path / "b", jumbled=True)
    first, second = (rows_of(one, **settings) for one in inputs)
    assert first
    assert [row["value"] for row in first] == [row["value"] for row in second]


def test_minutes_need_onsets(tmp_path: Path) -> None:
    rows = rows_of(make_study(tmp_path, onsets=False), amounts=("2 min", "100 trials", "3 trials"))
    notes = {row["amount"]: row["note"] for row in rows}
    assert "onsets are unknown" in notes["2 min"]
    assert notes["100 trials"] == "n/a"
    assert "fewer than 10" in notes["3 trials"]


def test_breaks_between_runs_are_no_recording() -> None:
    session, one = np.array(["1"] * 4), np.array(["1", "1", "2", "2"])
    found = minutes_recorded(session, one, np.array([0.0, 30, 0, 30]))
    np.testing.assert_allclose(found, [0.5, 1, 1.5, 2])
    assert minutes_recorded(session, one, np.array([0, np.nan, 0, 30])) is None
    assert n_trials_of("1.5 min", 4, found) == 3
    assert n_trials_of("3 min", 4, found) is None
    assert n_trials_of("50 %", 4, None) == 2


def test_blocks_that_are_not_there_are_named(tmp_path: Path) -> None:
    inputs = make_study(tmp_path)
    with pytest.raises(ConfigError, match="gabor"):
        rows_of(inputs, blocks=("gabor",))
    with pytest.raises(ConfigError, match="vae"):
        rows_of(inputs, block="vae")


def test_an_amount_that_is_none_is_refused() -> None:
    with pytest.raises(ValidationError, match="'soon' is none of"):
        Config(amounts=("soon",))


def write_person(folder: Path, label: str, *, named: bool) -> Inputs:
    """Write trials and features of one of several people with much the same channels."""
    rng = np.random.default_rng(int(label))
    mixing = np.random.default_rng(9).standard_normal((N_FEATURES, N_UNITS))
    mixing += 0.3 * rng.standard_normal(mixing.shape)
    tests = np.random.default_rng(8).standard_normal((N_TEST, N_FEATURES))
    features = np.concatenate([rng.standard_normal((N_TRAIN, N_FEATURES)), tests])
    names = np.array(
        [f"{label}-{i:03d}" for i in range(N_TRAIN)] + [f"test{i:03d}" for i in range(N_TEST)]
    )
    responses = 3 + 5 * (features @ mixing + 6 * rng.standard_normal((len(names), N_UNITS)))
    own = folder / f"sub-{label}"
    own.mkdir()
    inputs = Inputs(own / f"sub-{label}_trials.nc", own / "train.nc", own / "test.nc")
    units = {"kind": np.full(N_UNITS, "eeg"), "roi": np.full(N_UNITS, "n/a")}
    if named:
        units["name"] = np.array([f"E{number}" for number in range(N_UNITS)])
    write_trials(
        inputs.trials, [responses.astype(np.float32)],
        {
            "stimulus": names, "subject": np.full(len(names), label),
            "split": np.where(np.arange(len(names)) < N_TRAIN, "train", "test"),
        },
        units, None, {"units": "1"},
    )  # fmt: skip
    for path, part in (
        (inputs.features, slice(N_TRAIN)),
        (inputs.test_features, slice(N_TRAIN, None)),
    ):
        with block_writer(path) as writer:
            writer.group("", names[part])
            values = features[part].astype(np.float32)
            writer.write("", "clip", [values], (N_FEATURES,), {"encoder": "{}"})
    return inputs


@pytest.mark.parametrize("named", [True, False])
def test_a_decoder_of_others_is_adapted_to_every_amount_and_asked_before(
    tmp_path: Path, named: bool
) -> None:
    (tmp_path / "dataset_description.json").write_text("{}")
    people = {label: write_person(tmp_path, label, named=named) for label in ("01", "02", "03")}
    model = tmp_path / "group" / "decoding" / "desc-eye_model.safetensors"
    model.parent.mkdir(parents=True)
    settings = MindEyeSettings(prior="none", n_hidden=32, n_steps=40, adaptation_steps=30)
    train_shared_decoder.run(
        train_shared_decoder.Inputs(
            tuple(people[label].trials for label in ("01", "02")),
            tuple(people[label].features for label in ("01", "02")),
        ),
        train_shared_decoder.Outputs(model),
        train_shared_decoder.Config(decoders={"eye": settings}, adapt=("03",)),
    )
    rows = rows_of(replace(people["03"], shared=(model,)), amounts=("20 trials", "all", "1 h"))
    told = {
        (row["decoder"], row["analysis"], row["amount"]): float(row["value"])
        for row in rows
        if row["metric"] == "twoway_clip"
    }
    notes = {(row["analysis"], row["amount"]): row["note"] for row in rows}
    assert "onsets are unknown" in notes["adapted", "1 h"]
    few, many = told["eye", "adapted", "20 trials"], told["eye", "adapted", "all"]
    assert many > max(few, 0.8)
    assert few > told["ridge", "own data", "20 trials"]
    if named:
        assert told["eye", "zero-shot", "0 trials"] > 0.8
        panel = learning_panels(SubjectReport("03", learning=rows))[0]
        assert b"<svg" in panel.draw(LIGHT)
    else:
        assert ("eye", "zero-shot", "0 trials") not in told
        assert "are not those of the subjects" in notes["zero-shot", "0 trials"]
