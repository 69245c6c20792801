"""The profile for Kubernetes against a kubectl that runs every job on this machine at once."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

#: Keeps the manifest of every job, runs its command, and answers what the cluster would.
KUBECTL = """#!/usr/bin/env python3
import json, os, subprocess, sys
from pathlib import Path
state = Path(os.environ["FAKE_CLUSTER"])
verb = next(word for word in sys.argv[1:] if word in ("create", "get", "delete"))
if verb == "create":
    job = json.load(sys.stdin)
    name = job["metadata"]["generateName"] + str(len(list(state.iterdir())))
    command = job["spec"]["template"]["spec"]["containers"][0]["command"]
    code = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode
    (state / name).write_text(json.dumps({"status": {"failed" if code else "succeeded": 1}}))
    print(name)
elif verb == "get":
    print((state / sys.argv[sys.argv.index("job") + 1]).read_text())
"""


@pytest.fixture
def plugin() -> None:
    pytest.importorskip(
        "snakemake_executor_plugin_cluster_generic", reason="pip install afterimage[kubernetes]"
    )


def test_a_dry_run_plans_every_job(plugin: None, tools, tmp_path: Path) -> None:
    study = tools.study(tmp_path / "data")
    study.subject("01")
    options = ("--profile", "kubernetes", "-n", "--", "--quiet", "rules")
    done = tools.run(study.folder, tmp_path / "out", "participant", *options)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "profiles/kubernetes" in done.stdout
    planned = dict(re.findall(r"^(\w+) +(\d+)$", done.stdout, flags=re.MULTILINE))
    assert planned["train_decoder"] == "2"
    assert planned["report_group"] == "1"


@pytest.mark.slow
def test_a_bad_subject_fails_alone_and_the_others_make_the_same(
    plugin: None, tools, tmp_path: Path
) -> None:
    study = tools.study(tmp_path / "data")
    study.subject("01")
    (study.subject("02") / "sub-02_responses.npy").write_bytes(b"no array")
    programs, state = tmp_path / "bin", tmp_path / "state"
    programs.mkdir()
    state.mkdir()
    (programs / "kubectl").write_text(KUBECTL)
    (programs / "kubectl").chmod(0o755)
    config = tools.write_config(tmp_path / "config.yaml", tools.light)
    command = ("participant", "--config", config, "--until", "prepare_responses")
    cluster = {
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", "FAKE_CLUSTER": str(state),
        "AFTERIMAGE_IMAGE": "image", "AFTERIMAGE_CLAIM": "claim",
    }  # fmt: skip
    more = ("--profile", "kubernetes", "--", "--seconds-between-status-checks", "1",
            "--latency-wait", "5", "--retries", "0")  # fmt: skip
    for out, options, variables in (("here", (), {}), ("there", more, cluster)):
        done = tools.run(study.folder, tmp_path / out, *command, *options, **variables)
        assert done.returncode == 65, done.stdout + done.stderr
        assert "sub-02, prepare_responses" in done.stderr
    assert len(list(state.iterdir())) == 2
    here, there = (
        tools.contents(tmp_path / out, skip=lambda name: not tools.is_data(name))
        for out in ("here", "there")
    )
    assert there == here
