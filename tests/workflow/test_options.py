"""The options of the command line, and the shapes of data it takes."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray

from afterimage.io.tables import read_json, read_tsv


@dataclass(frozen=True)
class Shapes:
    """A study without a split whose subjects differ in every way, run as far as the decoders."""

    study: Any
    out: Path
    config: Path
    done: subprocess.CompletedProcess[str]

    def trials(self, label: str) -> xarray.Dataset:
        path = self.out / f"sub-{label}" / f"sub-{label}_trials.nc"
        return xarray.open_dataset(path, engine="h5netcdf")


@pytest.fixture(scope="module")
def shapes(tools: Any, tmp_path_factory: pytest.TempPathFactory) -> Shapes:
    folder = tmp_path_factory.mktemp("shapes")
    study = tools.study(folder / "data", n_train=20, n_test=5, split=False)
    everything = study.train + study.test
    study.subject("few", everything, n_units=7, kind="voxel")
    study.subject("many", everything[::-1], n_units=31, kind="neuron")
    study.subject("times", everything, n_units=5, n_times=6, kind="eeg")
    times = {"sampling_rate_hz": 100.0, "tmin_s": -0.01, "units": "uV"}
    study.file("times", "responses.json").write_text(json.dumps(times))
    sessions = ["a"] * len(everything) + ["b"] * len(everything)
    study.subject("repeats", everything * 2, columns={"session": sessions})
    config = tools.write_config(folder / "config.yaml", tools.light)
    out = folder / "out"
    done = tools.run(
        study.folder, out, "participant", "--config", config, "--cores", 2,
        "--until", "train_decoder",
    )  # fmt: skip
    return Shapes(study, out, config, done)


def test_all_shapes_are_decoded(shapes: Shapes) -> None:
    assert shapes.done.returncode == 0, shapes.done.stdout + shapes.done.stderr
    for label in ("few", "many", "times", "repeats"):
        assert list(shapes.out.glob(f"sub-{label}/decoding/*_desc-ridge_predictions.nc"))


def test_until_stops_there(shapes: Shapes) -> None:
    assert not list(shapes.out.glob("sub-*/recon"))
    assert not list(shapes.out.glob("sub-*/evaluation"))
    assert "reconstruct" not in shapes.done.stdout


def test_responses_arrive_unchanged(shapes: Shapes) -> None:
    expected = {"few": (25, 7), "many": (25, 31), "times": (25, 5, 6), "repeats": (50, 12)}
    for label, shape in expected.items():
        with shapes.trials(label) as trials:
            assert trials["responses"].shape == shape
            given = np.load(shapes.study.file(label, "responses.npy"))
            np.testing.assert_array_equal(trials["responses"].values, given)
            table = read_tsv(shapes.study.file(label, "trials.tsv"))
            assert trials["stimulus"].values.tolist() == [row["stimulus_id"] for row in table]


def test_time_axis_and_sessions(shapes: Shapes) -> None:
    with shapes.trials("times") as trials:
        np.testing.assert_allclose(trials["time"], [-0.01, 0.0, 0.01, 0.02, 0.03, 0.04])
        assert trials["time"].attrs["units"] == "s"
        assert set(trials["kind"].values) == {"eeg"}
    with shapes.trials("repeats") as trials:
        assert trials["session"].values.tolist() == ["a"] * 25 + ["b"] * 25
        assert trials["repeat"].values.tolist() == [0] * 25 + [1] * 25
        assert np.isfinite(trials["ceiling"]).all()
    with shapes.trials("few") as trials:
        assert np.isnan(trials["ceiling"]).all()  # without repeats nobody knows the ceiling


def test_seeded_split_is_the_same_for_all(shapes: Shapes) -> None:
    splits = {}
    for path in sorted(shapes.out.glob("sub-*/*_split.tsv")):
        splits[path.name] = {row["stimulus_id"]: row["split"] for row in read_tsv(path)}
    assert len(splits) == 4
    first = next(iter(splits.values()))
    assert all(split == first for split in splits.values())
    assert sum(value == "test" for value in first.values()) == 5
    quality = read_json(shapes.out / "sub-repeats" / "sub-repeats_quality.json")
    assert quality["n_trials"] == {"train": 40, "test": 10, "val": 0}


def planned(tools: Any, shapes: Shapes, *options: object, until: bool = True) -> str:
    """Return what a dry run into a new folder would do."""
    out = shapes.out.with_name("planned")
    stop = ["--until", "prepare_responses"] if until else []
    done = tools.run(shapes.study.folder, out, "participant", "-n", *stop, *options)
    assert done.returncode == 0, done.stdout + done.stderr
    return str(done.stdout)


def subjects(text: str) -> set[str]:
    return {
        line.split("subject=")[1].split(",")[0] for line in text.splitlines() if "subject=" in line
    }


def test_participant_label(tools: Any, shapes: Shapes) -> None:
    text = planned(tools, shapes, "--participant-label", "sub-few", "times")
    assert subjects(text) == {"few", "times"}


def test_unknown_participant_label(tools: Any, shapes: Shapes) -> None:
    done = tools.run(
        shapes.study.folder, shapes.out, "participant", "-n", "--participant-label", "fuw"
    )
    assert done.returncode == 65
    assert "a participant is not in the dataset" in done.stderr
    assert "few, many, repeats, times" in done.stderr
    assert "Traceback" not in done.stderr


def test_modality(tools: Any, shapes: Shapes) -> None:
    assert subjects(planned(tools, shapes, "--modality", "eeg", "spikes")) == {"many", "times"}
    done = tools.run(shapes.study.folder, shapes.out, "participant", "-n", "--modality", "meg")
    assert done.returncode == 65
    assert "no subject is left to run" in done.stderr


def test_unknown_stage_profile_and_level(tools: Any, shapes: Shapes) -> None:
    for options, code, words in (
        (["--until", "simulate_responses"], 2, "unknown stage"),
        (["--until", "train_generator"], 2, "unknown stage"),  # off by default
        (["--profile", "nowhere"], 78, "debug, default"),
        (["--config", "absent.yaml"], 78, "a configuration file is missing"),
    ):
        done = tools.run(shapes.study.folder, shapes.out, "participant", "-n", *options)
        assert done.returncode == code, done.stderr
        assert words in done.stderr
        assert "Traceback" not in done.stderr
    assert tools.run(shapes.study.folder, shapes.out, "both").returncode == 2
    inside = tools.run(shapes.study.folder, shapes.study.folder, "participant")
    assert inside.returncode == 2
    assert "written into the dataset" in inside.stderr


def test_options_for_snakemake(tools: Any, shapes: Shapes) -> None:
    text = planned(
        tools, shapes, "--participant-label", "few", "--", "--forcerun", "prepare_responses",
        "--cores", "1",
    )  # fmt: skip
    assert "Forced execution" in text
    assert text.count("--cores") == text.count("--cores 1") > 0


def test_plain_snakemake_has_the_same_power(tools: Any, shapes: Shapes) -> None:
    """The command that is printed does the same by hand."""
    import shlex
    import sys

    text = planned(tools, shapes, "--participant-label", "few", until=False)
    shown = next(line for line in text.splitlines() if line.startswith("dry run of: "))
    words = shlex.split(shown.removeprefix("dry run of: "))
    assert words[0] == "snakemake"
    snakefile = words[words.index("--snakefile") + 1]
    profile = words[words.index("--workflow-profile") + 1]
    out = shapes.out.with_name("plain")
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "-s", snakefile, "--directory", str(out), "--config",
         f"bids_dir={shapes.study.folder}", "participants=few", "--workflow-profile", profile,
         "--cores", "1", "preprocess"],
        capture_output=True, text=True, check=False, env=tools.environment(),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    made = out / "sub-few" / "sub-few_trials.nc"
    assert made.read_bytes() == (shapes.out / "sub-few" / "sub-few_trials.nc").read_bytes()
    assert not (out / "sub-many").exists()
    assert (out / "logs" / "plain" / "environment.json").is_file()


def test_broken_subject_left_out_does_not_matter(tools: Any, tmp_path: Path) -> None:
    study = tools.study(tmp_path / "data")
    study.subject("01")
    (study.folder / "sub-02").mkdir()
    arguments = [study.folder, tmp_path / "out", "participant", "--until", "prepare_responses"]
    done = tools.run(*arguments, "--participant-label", "01")
    assert done.returncode == 0, done.stdout + done.stderr
    both = tools.run(*arguments)
    assert both.returncode == 65
    assert "sub-02, index:" in both.stderr


def test_report_again(tools: Any, finished: Any, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(finished.out, out)
    before = {
        name: (out / name).read_text(encoding="utf-8") for name in ("sub-01.html", "group.html")
    }
    for name in before:
        (out / name).unlink()
    done = tools.run("report", out)
    assert done.returncode == 0, done.stdout + done.stderr
    for name, text in before.items():
        assert str(out / name) in done.stdout
        again = (out / name).read_text(encoding="utf-8")
        assert again.count("<section") == text.count("<section") > 2
        assert again.count("<img") == text.count("<img") > 2
    around = tools.run("report", tmp_path)
    assert around.returncode == 65
    assert f"afterimage report {out}" in around.stderr


def test_group_level(tools: Any, finished: Any, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(finished.out, out)
    (out / "group.html").unlink()
    done = tools.run(finished.study.folder, out, "group")
    assert done.returncode == 0, done.stdout + done.stderr
    assert str(out / "group.html") in done.stdout
    assert "sub-01" in (out / "group.html").read_text(encoding="utf-8")


def test_killed_stage_is_recorded(tools: Any, tmp_path: Path) -> None:
    """A stage that dies without a word is named all the same, and has its report."""
    study = tools.study(tmp_path / "data")
    study.subject("01")
    # Every Python imports sitecustomize, before it sets sys.argv; this one has the stage die.
    (tmp_path / "sitecustomize.py").write_text(
        "import os, sys\n"
        "if {'extract_features', 'serve'} & set(sys.orig_argv):\n"
        "    import afterimage.stages.extract_features as stage\n"
        "    stage.run = lambda *args, **options: os.kill(os.getpid(), 9)\n"
    )
    config = tools.write_config(tmp_path / "c.yaml", tools.light)
    done = tools.run(
        study.folder, tmp_path / "out", "participant", "--config", config,
        "--participant-label", "01", PYTHONPATH=str(tmp_path),
    )  # fmt: skip
    assert done.returncode == 1, done.stdout + done.stderr
    assert "sub-01, extract_features:" in done.stderr
    assert "a stage was killed" in done.stderr
    assert "a stage was killed" in (tmp_path / "out" / "sub-01.html").read_text(encoding="utf-8")
    assert not list((tmp_path / "out" / "logs" / "running").glob("*"))
