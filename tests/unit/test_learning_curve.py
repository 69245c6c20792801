"""Learning curves: amounts are first parts of the recording, and more data tell more."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from afterimage.decoding.ridge import RidgeSettings
from afterimage.errors import ConfigError
from afterimage.io.arrays import block_writer
from afterimage.io.tables import read_tsv
from afterimage.io.trials import write_trials
from afterimage.reports.assemble import assemble_subject
from afterimage.reports.figures.learning import learning_panels
from afterimage.reports.figures.style import LIGHT
from afterimage.reports.model import SubjectReport
from afterimage.stages.learning_curve import (
    Config,
    Inputs,
    Outputs,
    minutes_recorded,
    n_trials_of,
    run,
)

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
