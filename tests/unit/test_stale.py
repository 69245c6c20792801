"""Outputs that do not belong to the configuration, or follow from what failed, are marked as stale."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from afterimage.config.load import load_config
from afterimage.reports.provenance import StageError
from afterimage.stages import evaluate, prepare_responses, train_decoder
from afterimage.stages.report_stages import stage_runs

ROWS = [{"subject": "01", "source": "prepared", "modality": "fmri", "problem": "n/a",
         "stimuli": "yes", "events": "n/a", "recording": "n/a", "series": "n/a"}]  # fmt: skip


def sidecar(path: Path, version: int, config: dict[str, object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    told = {"StageVersion": version, "Config": config, "ConfigHash": "abc"}
    path.write_text(json.dumps(told), encoding="utf-8")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two subjects with what two stages made at the defaults."""
    sections = load_config([]).model_dump(mode="json")
    for name in ("sub-01", "sub-02"):
        folder = tmp_path / name
        prepared = sections["prepare_responses"]
        sidecar(folder / f"{name}_trials.json", prepare_responses.VERSION, prepared)
        for decoder, settings in sections["train_decoder"]["decoders"].items():
            own = {**sections["train_decoder"], "decoders": {decoder: settings}}
            made = folder / "decoding" / f"{name}_desc-{decoder}_predictions.json"
            sidecar(made, train_decoder.VERSION, own)
    return tmp_path


def stale(root: Path, name: str = "sub-01", *errors: StageError, **changed: object) -> dict:
    sections = load_config([]).model_dump(mode="json")
    for section, values in changed.items():
        sections[section] = sections[section] | values
    runs = stage_runs(root, name, [ROWS[0] | {"subject": name[4:]}], sections, errors)
    return {run.name: (run.status, run.stale) for run in runs}


def test_nothing_is_stale_at_the_settings_that_made_it(root: Path) -> None:
    found = stale(root)
    assert found["prepare_responses"] == ("done", "")
    assert found["train_decoder"] == ("done", "")
    assert found["evaluate"] == ("missing", "")


def test_only_the_stage_with_other_settings_is_stale(root: Path) -> None:
    found = stale(root, train_decoder={"tmin_s": 0.1})
    assert found["train_decoder"] == ("done", "made with another value of tmin_s")
    assert found["prepare_responses"] == ("done", "")


@pytest.mark.parametrize("decoder", ["ridge", "bayesian"])
def test_any_decoder_is_found_stale(root: Path, decoder: str) -> None:
    decoders = load_config([]).model_dump(mode="json")["train_decoder"]["decoders"]
    decoders[decoder] = decoders[decoder] | {"n_folds": 9}
    found = stale(root, train_decoder={"decoders": decoders})
    assert found["train_decoder"] == ("done", "made with another value of decoders")


def test_only_the_subject_that_an_older_version_made_is_stale(root: Path) -> None:
    path = root / "sub-02" / "sub-02_trials.json"
    told = json.loads(path.read_text()) | {"StageVersion": prepare_responses.VERSION - 1}
    path.write_text(json.dumps(told))
    assert "made by version" in stale(root, "sub-02")["prepare_responses"][1]
    assert stale(root, "sub-01")["prepare_responses"] == ("done", "")


def test_what_follows_from_a_failure_is_of_an_earlier_run(root: Path) -> None:
    error = StageError("prepare_responses", "bad", "", "", False)
    # The failed stage is failed, whatever its old files say.
    found = stale(root, "sub-01", error, prepare_responses={"min_training_trials": 77})
    assert found["prepare_responses"] == ("failed", "")
    assert found["train_decoder"] == (
        "skipped", "of an earlier run: prepare_responses failed since",
    )  # fmt: skip
    assert found["evaluate"] == ("skipped", "")  # it has no files
    partial = StageError("prepare_responses", "one run", "", "", True)
    assert stale(root, "sub-01", partial)["train_decoder"] == ("done", "")
    assert evaluate.VERSION >= 1
