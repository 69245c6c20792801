"""Two processes that train together compute what one does with the whole batch."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from afterimage.errors import ConfigError
from afterimage.stages.several_processes import processes_for
from afterimage.training.loop import LoopSettings, _check_shares

SCRIPT = Path(__file__).parents[1] / "two_processes.py"
alone = SimpleNamespace(**runpy.run_path(str(SCRIPT)))


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, np.ndarray]]:
    """Start two gloo processes; return what each of them found."""
    folder = tmp_path_factory.mktemp("two")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node=2", str(SCRIPT), str(folder)]
    done = subprocess.run(
        command, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-4000:]
    # The first process alone writes checkpoints.
    assert sorted(p.name for p in (folder / "checkpoints-0").iterdir()) == ["0"]
    found = []
    for number in (0, 1):
        with np.load(folder / f"process-{number}.npz") as arrays:
            found.append(dict(arrays))
    return found


@pytest.mark.parametrize("name", ["contrastive", "soft", "mixed"])
def test_loss_and_gradient_are_those_of_the_whole_batch(
    two: list[dict[str, np.ndarray]], name: str
) -> None:
    expected = alone.losses()
    for found in two:
        for what in ("loss", "gradient"):
            key = f"{name}/{what}"
            np.testing.assert_allclose(found[f"losses/{key}"], expected[key], atol=1e-5)


@pytest.mark.parametrize("n_subjects", [0, 3])
def test_training_ends_with_the_weights_of_one_process(
    two: list[dict[str, np.ndarray]], n_subjects: int
) -> None:
    # Of a part of a step, two processes have the examples that one process has.
    expected = alone.trained(n_subjects, None)
    for key, values in expected.items():
        if key != "order":
            for found in two:
                mine = found[f"trained{n_subjects}/{key}"]
                np.testing.assert_allclose(mine, values, atol=1e-5, err_msg=key)


def test_a_step_is_split_between_processes_the_same_each_time(
    two: list[dict[str, np.ndarray]],
) -> None:
    steps = alone.SETTINGS
    for step in range(steps.n_steps):
        both = alone.__dict__["train"].__globals__["batch_indices"](
            alone.N_TRIALS, steps.batch_size, step, 3
        )
        for number, found in enumerate(two):
            own = both[number::2]
            order = found["trained0/order"]
            # Two parts a step, each followed by the number of the step.
            size = len(own) + 2
            assert order[:size].tolist() == [
                *np.array_split(own, 2)[0], step, *np.array_split(own, 2)[1], step
            ]  # fmt: skip
            found["trained0/order"] = order[size:]


def test_a_run_that_resumes_gives_all_processes_the_state_of_the_first(
    two: list[dict[str, np.ndarray]],
) -> None:
    for found in two:
        for key in [key for key in found if key.startswith("resumed/") and "order" not in key]:
            np.testing.assert_array_equal(
                found[key], two[0][key.replace("resumed", "trained0")], err_msg=key
            )


def test_pictures_do_not_depend_on_the_number_of_processes(
    two: list[dict[str, np.ndarray]],
) -> None:
    expected = alone.painted()
    for found in two:
        for key, values in expected.items():
            np.testing.assert_array_equal(found[f"painted/{key}"], values)


def test_a_step_must_have_an_example_for_everybody() -> None:
    _check_shares(LoopSettings(batch_size=8, n_parts=4), 2)
    with pytest.raises(ConfigError, match="shared by so many"):
        _check_shares(LoopSettings(batch_size=7, n_parts=4), 2)


def test_a_job_takes_the_devices_it_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,3")
    assert processes_for("train_decoder", "cuda") == 3
    assert processes_for("train_decoder", "cpu") == 1
    assert processes_for("evaluate", "cuda") == 1
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert processes_for("train_decoder", "cuda") == 1


@pytest.mark.slow
def test_a_stage_of_two_processes_writes_what_one_writes(tmp_path: Path) -> None:
    from afterimage.cli import main
    from afterimage.io.images import write_png
    from afterimage.io.tables import write_tsv
    from afterimage.simulate.stimuli import draw_stimuli

    rows = []
    for number, picture in enumerate(draw_stimuli(6, 0)[0]):
        write_png(tmp_path / "stimuli" / f"p{number}.png", picture)
        row = {"stimulus_id": f"p{number}", "file": f"p{number}.png", "split": "train"}
        rows.append(row)
    write_tsv(tmp_path / "split.tsv", rows, list(rows[0]))
    (tmp_path / "dataset_description.json").write_text("{}")
    config = {"autoencoder_steps": 0, "denoiser_steps": 2, "batch_size": 4}
    made = []
    for n in (1, 2):
        out = tmp_path / f"out{n}"
        out.mkdir()
        (out / "dataset_description.json").write_text("{}")
        target = out / "sub-01" / "generator"
        arguments = ["stage", "train_generator", "--processes", str(n)]
        arguments += ["--input", "split", str(tmp_path / "split.tsv")]
        arguments += ["--input", "dataset", str(tmp_path / "dataset_description.json")]
        arguments += ["--output", "generator", str(target)]
        assert main([*arguments, "--params", json.dumps({"config": config})]) == 0
        made.append(sorted(p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()))
        assert not list((tmp_path / f"out{n}").rglob(".writing-*"))
    assert made[0] == made[1]
