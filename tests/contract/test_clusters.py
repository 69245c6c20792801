"""Profiles for clusters, the requests of the rules, and the recipe of the image agree with each other."""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path

import pytest
import yaml

from afterimage.launch import on_cluster

ROOT = Path(__file__).resolve().parents[2]
PROFILES = ROOT / "workflows" / "profiles"
RULES = {
    match[1]: match[0]
    for file in sorted((ROOT / "workflows" / "rules").glob("*.smk"))
    for match in re.finditer(r"^rule (\w+):\n(?:(?:    .*)?\n)+", file.read_text(), re.MULTILINE)
}


def read(name: str) -> dict[str, object]:
    return yaml.safe_load((PROFILES / name / "profile.yaml").read_text())


def test_every_rule_says_what_it_asks_of_a_cluster() -> None:
    assert len(RULES) > 35
    for name, text in RULES.items():
        assert re.search(r"mem_mb=memory\(\d+, \d+(, \w+=\d+)*\)", text), name
        assert re.search(r"runtime=minutes\(\d+\)", text), name


def test_stages_that_use_the_device_ask_for_a_gpu() -> None:
    stages = ROOT / "pipeline" / "afterimage" / "stages"
    for name, text in RULES.items():
        file = stages / f"{name}.py"
        if file.is_file():
            code = re.sub(
                r"(?s)^def run\(.*?\) -> None:", "", file.read_text(), flags=re.MULTILINE
            )
            uses = re.search(
                r"\bdevice=(self\.\w*\.?)?device|[(, ]device[,)]|self\.device\b", code
            )
            assert bool(uses) == ("ON_DEVICE" in text), name


def test_the_profiles_for_slurm_differ_in_accounting_alone() -> None:
    with_accounts, without = read("slurm"), read("slurm_no_accounting")
    assert with_accounts.pop("slurm-status-command") == "sacct"
    assert without.pop("slurm-status-command") == "squeue"
    assert without.pop("slurm-no-account") is True
    assert with_accounts == without
    assert "slurm-array-jobs" not in without  # see docs/clusters.md: they lose outputs


@pytest.mark.parametrize("name", ["slurm", "kubernetes", "default"])
def test_every_value_has_its_reason(name: str) -> None:
    for line in (PROFILES / name / "profile.yaml").read_text().splitlines():
        assert "#" in line or line.endswith(":"), line


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--workflow-profile", str(PROFILES / "default")], False),
        (["--workflow-profile", str(PROFILES / "slurm")], True),
        (["--workflow-profile", str(PROFILES / "slurm"), "--executor", "local"], False),
        (["--workflow-profile", str(PROFILES / "default"), "--executor=slurm"], True),
        ([], False),
    ],
)
def test_who_runs_the_jobs(options: list[str], expected: bool) -> None:
    assert on_cluster(["snakemake", *options]) is expected


def test_the_image_holds_what_the_lock_file_says() -> None:
    recipe = (ROOT / "workflows" / "containers" / "Containerfile").read_text()
    for line in re.findall(r"^COPY (.+)$", recipe, re.MULTILINE):
        assert all((ROOT / source).exists() for source in line.split()[:-1]), line
    assert "-c /opt/afterimage/constraints.txt" in recipe
    pinned = (ROOT / "constraints.txt").read_text()
    assert re.search(r"^snakemake-executor-plugin-slurm==", pinned, re.MULTILINE)
    assert re.search(r"^snakemake-executor-plugin-cluster-generic==", pinned, re.MULTILINE)
    assert (
        'container: os.environ.get("AFTERIMAGE_IMAGE", "afterimage.sif")'
        in (ROOT / "Snakefile").read_text()
    )


def test_a_job_of_kubernetes_asks_for_what_its_rule_says(tmp_path: Path) -> None:
    script = tmp_path / "snakejob.sh"
    job = {"rule": "train_decoder", "threads": 2,
           "resources": {"mem_mb": 8000, "runtime": 240, "gpu": 1}}  # fmt: skip
    script.write_text(f"#!/bin/sh\n# properties = {json.dumps(job)}\ncd /study/out && true\n")
    manifest = runpy.run_path(str(PROFILES / "kubernetes" / "submit.py"))["manifest"]
    variables = {"AFTERIMAGE_IMAGE": "registry/afterimage:1", "AFTERIMAGE_CLAIM": "data"}
    found = manifest(script, variables)
    assert found["metadata"]["generateName"] == "afterimage-train-decoder-"
    assert found["spec"]["activeDeadlineSeconds"] == 240 * 60
    pod = found["spec"]["template"]["spec"]
    container = pod["containers"][0]
    assert container["command"] == ["/bin/sh", str(script)]
    requests = {"cpu": "2", "memory": "8000M", "nvidia.com/gpu": "1"}
    assert container["resources"]["requests"] == requests
    assert container["volumeMounts"] == [{"name": "study", "mountPath": "/study"}]
    assert pod["volumes"] == [{"name": "study", "persistentVolumeClaim": {"claimName": "data"}}]
