"""Subjects compared by the workflow: who takes part, when it runs again, what the page says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from afterimage.io.tables import read_json, read_tsv
from afterimage.stages.simulate_meeg import Config, Inputs, Outputs, run

QUICK = {"n_bootstraps": 100, "n_permutations": 100, "k_values": [4], "block": "gabor"}


def test_two_people_with_eeg_are_compared_and_scans_are_not(tools: Any, tmp_path: Path) -> None:
    study = tools.study(tmp_path / "data")
    for label in ("01", "02", "03"):
        study.subject(label, n_units=6, n_times=8, kind="eeg")
        times = {"sampling_rate_hz": 100.0, "tmin_s": -0.01}
        study.file(label, "responses.json").write_text(json.dumps(times))
    study.subject("scan", kind="voxel")
    config = tools.write_config(tmp_path / "c.yaml", {**tools.light, "evaluate_subjects": QUICK})
    out = tmp_path / "out"
    arguments = [study.folder, out, "participant", "--config", config, "--cores", 2]
    done = tools.run(*arguments, "--until", "evaluate_subjects")
    assert done.returncode == 0, done.stdout + done.stderr
    rows = read_tsv(out / "group" / "subjects.tsv")
    assert {row["subject"] for row in rows} == {"01", "02", "03"}
    assert {row["k"] for row in rows if row["analysis"] == "few_shot"} == {"4"}
    assert {row["n"] for row in rows} == {"4"}
    (found,) = read_json(out / "group" / "subjects.json")["comparisons"]
    assert (found["modality"], found["n_units"]) == ("eeg", 6)
    again = tools.run(*arguments, "--until", "evaluate_subjects", "-n")
    assert "rule evaluate_subjects:" not in again.stdout
    # One person left out of the run: the others are compared again, without it.
    fewer = tools.run(
        *arguments, "--until", "evaluate_subjects", "--participant-label", "01", "02", "-n"
    )
    assert "rule evaluate_subjects:" in fewer.stdout
    off = tools.write_config(tmp_path / "off.yaml", {"evaluate_subjects": {"enabled": False}})
    assert "rule evaluate_subjects:" not in tools.run(*arguments, "--config", off, "-n").stdout
    # A network among the decoders joins the comparison.
    net = {"train_decoder": {"decoders": {"net": {"kind": "contrastive", "target": "gabor"}}}}
    more = tools.write_config(tmp_path / "net.yaml", net)
    assert "rule evaluate_subjects:" in tools.run(*arguments, "--config", more, "-n").stdout


def shared_decoder_run(tools: Any, folder: Path, until: str) -> tuple[Any, Path]:
    """Run two people and a decoder that is fitted on one and adapted to the other."""
    study = tools.study(folder / "data")
    for label, n_units in (("01", 12), ("02", 7)):
        study.subject(label, n_units=n_units, kind="voxel")
    tiny = {"n_steps": 10, "n_hidden": 16, "n_blocks": 1, "adaptation_steps": 5, "target": "gabor"}
    shared = {
        "train_decoder": {"decoders": {"ridge": None, "bayesian": None}},
        "train_shared_decoder": {
            "decoders": {"bridge": {"kind": "mindbridge", "n_common": 8, **tiny}}, "adapt": ["02"],
        },
        "apply_shared_decoder": {"n_adaptation_trials": 10},
    }  # fmt: skip
    config = tools.write_config(folder / "c.yaml", {**tools.light, **shared})
    arguments = [study.folder, folder / "out", "participant", "--config", config, "--cores", 2]
    done = tools.run(*arguments, "--until", until)
    assert done.returncode == 0, done.stdout + done.stderr
    return arguments, folder / "out"


def test_a_decoder_of_one_person_is_adapted_to_another(tools: Any, tmp_path: Path) -> None:
    arguments, out = shared_decoder_run(tools, tmp_path, "apply_shared_decoder")
    cards = [
        read_json(out / f"sub-{label}" / "decoding" / f"sub-{label}_desc-bridge_model.json")
        for label in ("01", "02")
    ]
    assert [card["n_training_trials"] for card in cards] == [14, 10]
    assert cards[1]["subjects_of_fit"] == ["01"]
    # What follows takes the files as those of any other decoder, of the adapted subject too.
    plan = tools.run(*arguments, "-n").stdout
    assert "rule train_shared_decoder:" not in plan
    assert "sub-02/recon/sub-02_desc-bridge_recon.nc" in plan


@pytest.mark.slow
def test_shared_decoders_are_scored_like_others(tools: Any, tmp_path: Path) -> None:
    _, out = shared_decoder_run(tools, tmp_path, "report_group")
    for label in ("01", "02"):
        rows = read_tsv(out / f"sub-{label}" / "evaluation" / f"sub-{label}_metrics.tsv")
        assert {"bridge"} == {row["decoder"] for row in rows if row["role"] == "reconstruction"}
        assert [row for row in rows if row["metric"].startswith("retrieval")]
    assert (out / "group.html").is_file()


@pytest.mark.slow
def test_raw_eeg_of_two_people_reaches_the_group_report(tools: Any, tmp_path: Path) -> None:
    data = tmp_path / "data"
    simulated = Config(
        modality="eeg", n_subjects=2, first_subject=1, n_training_images=40, n_test_images=6,
        n_test_repeats=2, trials_per_run=20, n_early_units=60, n_selective_units=40,
        random_state=5,
    )  # fmt: skip
    run(Inputs(), Outputs(data / "derivatives" / "simulation" / "meeg.json"), simulated)
    config = tools.write_config(tmp_path / "c.yaml", {**tools.light, "evaluate_subjects": QUICK})
    out = tmp_path / "out"
    done = tools.run(data, out, "participant", "--config", config, "--cores", 2)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = read_tsv(out / "group" / "subjects.tsv")
    assert {row["analysis"] for row in rows} == {
        *("within_subject", "cross_subject", "few_shot", "pooled_subjects")
    }
    (found,) = read_json(out / "group" / "subjects.json")["comparisons"]
    assert found["n_units"] > 50
    page = (out / "group.html").read_text(encoding="utf-8")
    assert "From one person to another" in page
    assert "adapted to 4 own trials" in page
