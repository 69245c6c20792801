"""Captions in the workflow: off until a feature block is of kind git, then from scans to report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from afterimage.io.tables import read_tsv


def with_captions(tools: Any) -> dict[str, Any]:
    encoders = {**tools.light["extract_features"]["encoders"], "git": {"kind": "git"}}
    return {**tools.light, "extract_features": {"encoders": encoders}}


def test_captions_are_planned_where_image_tokens_are_decoded(tools: Any, tmp_path: Path) -> None:
    study = tools.study(tmp_path / "data")
    study.subject("01")
    for name, values, planned in (("off", tools.light, False), ("on", with_captions(tools), True)):
        config = tools.write_config(tmp_path / f"{name}.yaml", values)
        done = tools.run(study.folder, tmp_path / name, "participant", "--config", config, "-n")
        assert done.returncode == 0, done.stdout + done.stderr
        assert ("captions.tsv" in done.stdout) == planned


@pytest.mark.slow
def test_captions_reach_scores_and_report(tools: Any, tmp_path: Path) -> None:
    study = tools.study(tmp_path / "data")
    study.subject("01")
    config = tools.write_config(tmp_path / "config.yaml", with_captions(tools))
    out = tmp_path / "out"
    done = tools.run(study.folder, out, "participant", "--config", config, "--cores", 2)
    assert done.returncode == 0, done.stdout + done.stderr
    written = read_tsv(out / "sub-01" / "recon" / "sub-01_captions.tsv")
    assert {row["source"] for row in written} == {"brain", "shuffled", "mean", "nearest", "truth"}
    rows = read_tsv(out / "sub-01" / "evaluation" / "sub-01_metrics.tsv")
    found = {row["metric"]: row for row in rows if row["role"] == "caption"}
    assert found["meteor_git"]["ceiling"] != "n/a"
    page = (out / "sub-01.html").read_text(encoding="utf-8")
    assert "From the seen image" in page
    assert "METEOR (captioner" in page
    brain = [row["caption"] for row in written if row["source"] == "brain"]
    assert any(text in page for text in brain)
