"""The same bytes again: without test pictures, after kills; and no work twice."""

from __future__ import annotations

import json
import random
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from afterimage.io.arrays import groups_of, read_blocks
from afterimage.io.tables import read_json, read_tsv


def test_no_peeking(tools: Any, finished: Any, tmp_path: Path) -> None:
    """Without its test pictures a dataset gives the same reconstructions, byte for byte."""
    blind = tmp_path / "data"
    shutil.copytree(finished.study.folder, blind)
    for name in finished.study.test:
        (blind / "stimuli" / f"{name}.png").unlink()
    out = tmp_path / "out"
    done = tools.run(blind, out, "participant", "--config", finished.config, "--cores", 2)
    assert done.returncode == 0, done.stdout + done.stderr

    def brain_made(name: str) -> bool:
        kinds = ("_trials.nc", "_split.tsv", "_model.safetensors", "_model.json", ".npy")
        made = name.endswith((*kinds, "_predictions.nc", "_recon.nc", "_recon.png"))
        return made and "ceiling" not in name and name.startswith("sub-")

    seeing = tools.contents(finished.out, skip=lambda name: not brain_made(name))
    assert tools.contents(out, skip=lambda name: not brain_made(name)) == seeing
    n_pictures = sum(name.endswith(".png") for name in seeing)
    assert n_pictures == 2 * 4 * len(finished.study.test)  # decoders, methods, test stimuli
    assert sum(name.endswith("_recon.nc") for name in seeing) == 2
    assert sum(name.endswith("_model.safetensors") for name in seeing) == 2

    recon = next(out.glob("sub-01/recon/*_desc-ridge_recon.nc"))
    assert groups_of(recon) == ["brain", "shuffled", "mean", "noise"]
    ids, blocks = read_blocks(recon, "brain")
    assert sorted(ids) == finished.study.test
    assert all(block.any() for block in blocks.values())

    metrics = "sub-01/evaluation/sub-01_metrics.tsv"
    assert read_tsv(out / metrics) == []
    assert len(read_tsv(finished.out / metrics)) > 50
    assert read_json(out / "sub-01/evaluation/sub-01_audit.json")["n_test_pictures"] == 0
    sentence = "the test images are absent"
    assert sentence in (out / "sub-01.html").read_text(encoding="utf-8")
    assert sentence not in (finished.out / "sub-01.html").read_text(encoding="utf-8")


def test_killed_and_resumed(tools: Any, finished: Any, tmp_path: Path) -> None:
    """Killed at random moments and started again, a run ends with the same bytes."""
    out = tmp_path / "out"
    arguments = [finished.study.folder, out, "participant", "--config", finished.config]
    rng = random.Random(20)
    kills = sum(
        tools.run_and_kill(
            *arguments, "--cores", 2, logs=out / "logs", after_s=rng.uniform(0.5, 6.0)
        )
        for _ in range(3)
    )
    assert kills == 3, "the run ended before it was killed"
    started = len(list((out / "logs").glob("2*")))
    assert started >= 2, "the kills came before the workflow began"
    done = tools.run(*arguments, "--cores", 2)
    assert done.returncode == 0, done.stdout + done.stderr

    def data(root: Path) -> dict[str, str]:
        return dict(tools.contents(root, skip=lambda name: not tools.is_data(name)))

    assert data(out) == data(finished.out)
    assert not list(out.rglob(".writing-*"))
    assert (out / "sub-01.html").is_file()
    assert (out / "group.html").is_file()
    again = tools.run(*arguments, "--cores", 2)
    assert "nothing to be done" in again.stdout


def test_second_run_at_once_is_refused(tools: Any, tmp_path: Path) -> None:
    import fcntl

    study = tools.study(tmp_path / "data")
    study.subject("01")
    out = tmp_path / "out"
    (out / "logs").mkdir(parents=True)
    with (out / "logs" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = tools.run(study.folder, out, "participant", "--until", "prepare_responses")
    assert done.returncode == 2
    assert "another run is working on this output" in done.stderr
    assert not (out / "sub-01").exists()


def dry_run(tools: Any, finished: Any, *options: object) -> dict[str, list[str]]:
    """Return what a dry run would do: the reason of every job, by rule."""
    before = tools.contents(finished.out, skip=lambda name: name.startswith(".snakemake/"))
    done = tools.run(finished.study.folder, finished.out, "participant", *options, "-n")
    assert done.returncode == 0, done.stdout + done.stderr
    after = tools.contents(finished.out, skip=lambda name: name.startswith(".snakemake/"))
    assert after == before, "a dry run wrote"
    return jobs(done.stdout)


def jobs(text: str) -> dict[str, list[str]]:
    """Read the jobs and their reasons from Snakemake's words."""
    found: dict[str, list[str]] = {}
    for block in re.split(r"\n(?=(?:local)?rule \w+:)", text)[1:]:
        rule = re.match(r"(?:local)?rule (\w+):", block)
        reason = re.search(r"^    reason: (.*)$", block, flags=re.MULTILINE)
        assert rule is not None
        wildcards = re.search(r"^    wildcards: (.*)$", block, flags=re.MULTILINE)
        decoder = re.search(r"decoder=(\w+)", wildcards[1]) if wildcards else None
        name = f"{rule[1]}:{decoder[1]}" if decoder else rule[1]
        found.setdefault(name, []).append(reason[1] if reason else "")
    return found


LAST = {"evaluate", "report_subject", "report_group", "all"}


def test_second_run_does_nothing(tools: Any, finished: Any) -> None:
    assert dry_run(tools, finished, "--config", finished.config) == {}
    before = tools.contents(finished.out, skip=lambda name: not tools.is_data(name))
    stamps = {path: path.stat().st_mtime_ns for path in finished.out.glob("sub-01/**/*")}
    done = tools.run(
        finished.study.folder, finished.out, "participant", "--config", finished.config
    )
    assert done.returncode == 0
    assert "nothing to be done" in done.stdout
    assert tools.contents(finished.out, skip=lambda name: not tools.is_data(name)) == before
    assert {path: path.stat().st_mtime_ns for path in finished.out.glob("sub-01/**/*")} == stamps


@pytest.mark.parametrize(
    ("values", "first", "expected"),
    [
        ({"evaluate": {"n_bootstraps": 150}}, "evaluate", LAST),
        (
            {"train_decoder": {"decoders": {"ridge": {"n_folds": 3}}}},
            "train_decoder:ridge",
            {"train_decoder:ridge", "reconstruct:ridge", *LAST},
        ),
        (
            {"reconstruct": {"methods": {"latent_diffusion": {"n_steps": 5}}}},
            "reconstruct:ceiling",
            {"reconstruct:ridge", "reconstruct:bayesian", "reconstruct:ceiling", *LAST},
        ),
        (
            {"report_subject": {"n_gallery_rows": 2}},
            "report_subject",
            {"report_subject", "all"},
        ),
    ],
    ids=["evaluate", "one-decoder", "reconstruct", "report"],
)
def test_an_edit_reruns_that_stage_and_what_follows(
    tools: Any,
    finished: Any,
    tmp_path: Path,
    values: dict[str, Any],
    first: str,
    expected: set[str],
) -> None:
    edit = tools.write_config(tmp_path / "edit.yaml", values)
    found = dry_run(tools, finished, "--config", finished.config, "--config", edit)
    assert set(found) == expected
    assert any("Params have changed since last execution" in reason for reason in found[first])
    followers = set(found) - {first, "all", "report_subject", "report_group"}
    followers = {name for name in followers if name.split(":")[0] != first.split(":")[0]}
    for name in followers:
        assert all("Input files updated by another job" in reason for reason in found[name])


def test_a_new_version_reruns_that_stage_and_what_follows(
    tools: Any, finished: Any, tmp_path: Path
) -> None:
    """The package is copied, one VERSION in the copy is raised, and the copy is run."""
    import afterimage
    from afterimage.resources import resource_root

    source = Path(afterimage.__file__).parent
    copy = tmp_path / "pipeline" / "afterimage"
    shutil.copytree(source, copy, ignore=shutil.ignore_patterns("__pycache__"))
    root = resource_root()
    for name in ("Snakefile", "workflows", "data"):
        (tmp_path / name).symlink_to(root / name)
    variables = {"PYTHONPATH": str(tmp_path / "pipeline")}
    arguments = [finished.study.folder, finished.out, "participant", "--config", finished.config]
    same = tools.run(*arguments, "-n", **variables)
    assert same.returncode == 0, same.stdout + same.stderr
    assert jobs(same.stdout) == {}
    stage = copy / "stages" / "train_decoder.py"
    text, n_changes = re.subn(
        r"^VERSION = (\d+)$", lambda m: f"VERSION = {int(m[1]) + 1}", stage.read_text(), flags=re.M
    )
    assert n_changes == 1
    stage.write_text(text)
    bumped = tools.run(*arguments, "-n", **variables)
    assert bumped.returncode == 0, bumped.stdout + bumped.stderr
    found = jobs(bumped.stdout)
    decoders = {"train_decoder:ridge", "train_decoder:bayesian"}
    made = {"reconstruct:ridge", "reconstruct:bayesian"}
    assert set(found) == decoders | made | LAST
    for name in decoders:
        assert all("Params have changed" in reason for reason in found[name])
    assert "version" in bumped.stdout


def test_dry_run_of_a_new_output_writes_nothing(tools: Any, finished: Any, tmp_path: Path) -> None:
    for out in (tmp_path / "absent", tmp_path / "empty"):
        if out.name == "empty":
            out.mkdir()
        done = tools.run(finished.study.folder, out, "participant", "-n")
        assert done.returncode == 0, done.stdout + done.stderr
        assert len(jobs(done.stdout)["reconstruct:ridge"]) == 1
        assert not out.exists() or not list(out.iterdir())
    group = tools.run(finished.study.folder, tmp_path / "absent", "group", "-n")
    assert group.returncode == 0
    assert not (tmp_path / "absent").exists()


def test_new_test_pictures_are_scored(tools: Any, tmp_path: Path) -> None:
    """Pictures that arrive later are noticed; what they may not influence is not made again."""
    study = tools.study(tmp_path / "data")
    study.subject("01")
    late = study.folder / "stimuli" / "test_00.png"
    kept = late.read_bytes()
    late.unlink()
    config = tools.write_config(tmp_path / "c.yaml", tools.light)
    out = tmp_path / "out"
    arguments = [study.folder, out, "participant", "--config", config, "--cores", 2]
    assert tools.run(*arguments, "--until", "evaluate").returncode == 0
    audit = out / "sub-01/evaluation/sub-01_audit.json"
    assert read_json(audit)["n_test_pictures"] == 3
    late.write_bytes(kept)
    found = jobs(tools.run(*arguments, "-n").stdout)
    assert set(found) == {"extract_features", "reconstruct:ceiling", "evaluate_time", *LAST}
    assert len(found["extract_features"]) == 1


@pytest.mark.slow
def test_dry_run_of_a_thousand_subjects(
    tools: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import time

    study = tools.study(tmp_path / "data")
    folder = study.subject("0000")
    for number in range(1, 1000):
        other = study.folder / f"sub-{number:04d}"
        other.mkdir()
        for path in folder.iterdir():
            (other / path.name.replace("0000", f"{number:04d}")).hardlink_to(path)
    started = time.monotonic()
    done = tools.run(study.folder, tmp_path / "out", "participant", "-n", "--", "--quiet", "rules")
    seconds = time.monotonic() - started
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    table = dict(re.findall(r"^(\w+) +(\d+)$", done.stdout, flags=re.MULTILINE))
    assert table["prepare_responses"] == "1000"
    assert table["train_decoder"] == "2000"
    with capsys.disabled():
        print(f"\ndry run of 1,000 subjects, {table['total']} jobs: {seconds:.1f} s")


def test_sidecars_say_what_made_them(finished: Any) -> None:
    for path in sorted(finished.out.glob("sub-01/**/*.nc")):
        sidecar = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        assert sidecar["Stage"] in {
            "prepare_responses", "extract_features", "train_decoder", "reconstruct",
            "evaluate_time",
        }  # fmt: skip
        assert isinstance(sidecar["StageVersion"], int)
        for source in sidecar["Sources"]:
            if not source.startswith("bids:source:"):
                assert (finished.out / source.removeprefix("bids::")).is_file()
            else:
                relative = source.removeprefix("bids:source:")
                assert (finished.study.folder / relative).is_file()
