"""The runner of stages: binding, errors, records and provenance."""

from __future__ import annotations

import errno
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from afterimage.bids.index import COLUMNS, write_units
from afterimage.errors import ConfigError, InputError, UsageError
from afterimage.io.tables import read_json
from afterimage.record import error_records, finish_run, reset_errors
from afterimage.stages import extract_features, runner
from afterimage.stages.report_subject import stage_errors


@dataclass(frozen=True)
class Some:
    """Paths of a made-up stage."""

    one: Path
    many: tuple[Path, ...]
    maybe: Path | None = None


def test_paths_are_bound_by_name() -> None:
    found = runner.bind_paths(Some, {"one": ["a"], "many": ["b", "c"]}, "input")
    assert found == Some(Path("a"), (Path("b"), Path("c")))
    assert runner.bind_paths(Some, {"one": ["a"], "maybe": ["d"]}, "input").maybe == Path("d")
    # Snakemake gives an absent optional file as a name without a path.
    assert runner.bind_paths(Some, {"one": ["a"], "maybe": []}, "input").maybe is None


@pytest.mark.parametrize(
    "values", [{}, {"one": ["a", "b"]}, {"one": ["a"], "other": ["b"]}, {"one": []}]
)
def test_paths_that_do_not_fit(values: dict[str, list[str]]) -> None:
    with pytest.raises(UsageError):
        runner.bind_paths(Some, values, "input")


def test_unknown_stage_and_key() -> None:
    with pytest.raises(UsageError, match="unknown stage"):
        runner.stage_module("evaluat")
    with pytest.raises(ConfigError) as caught:
        runner.parse_config("evaluate", {"n_bootstraps": 200, "colour": 3})
    assert caught.value.where == "evaluate.colour"


def test_device() -> None:
    import torch

    assert runner.resolve_device("cpu") == "cpu"
    if torch.cuda.is_available():
        assert runner.resolve_device("auto") == "cuda"
    else:
        assert runner.resolve_device("auto") == "cpu"
        with pytest.raises(ConfigError, match="no CUDA device"):
            runner.resolve_device("cuda")


def test_interface_lists_the_fields() -> None:
    found = runner.stage_interface("extract_features")
    assert found["version"] == extract_features.VERSION
    assert found["inputs"] == ["split", "dataset", "generator"]
    assert found["outputs"] == ["features"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "dataset_description.json").write_text("{}")
    (tmp_path / "code").mkdir()
    rows = [
        {"subject": "01", "responses": "x", "trials": "x"},
        {"subject": "02", "problem": "no files | here"},
    ]
    write_units(tmp_path / "code" / "units.tsv", [dict.fromkeys(COLUMNS, "n/a") | r for r in rows])
    return tmp_path


def job(root: Path) -> int:
    features = root / "sub-01" / "features" / "sub-01_split-train_features.nc"
    return runner.guarded_run(
        "extract_features",
        {"split": [str(root / "split.tsv")], "dataset": [str(root / "stimuli.tsv")]},
        {"features": [str(features)]},
        {"version": 1, "config": {}},
    )


@pytest.mark.parametrize(
    ("error", "code", "words", "traced"),
    [
        (InputError("bad data", where="there"), 65, "InputError: bad data", False),
        (ConfigError("bad key"), 78, "ConfigError: bad key", False),
        (OSError(errno.ENOSPC, "full", "/there"), 65, "no space left", False),
        (RuntimeError("unable to close file, errno = 28, error message"), 65, "no space", False),
        (ZeroDivisionError("oh"), 70, "ZeroDivisionError: oh", True),
        (OSError(errno.EACCES, "denied"), 70, "PermissionError", True),
    ],
    ids=["data", "config", "disk", "disk-in-hdf5", "defect", "permission"],
)
def test_errors_become_records(
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: Exception,
    code: int,
    words: str,
    traced: bool,
) -> None:
    def fail(*args: Any, **options: Any) -> None:
        raise error

    monkeypatch.setattr(extract_features, "run", fail)
    assert job(root) == code
    shown = capsys.readouterr().err
    assert words in shown
    assert ("Traceback" in shown) == traced
    (record,) = error_records(root)
    assert record["stage"] == "extract_features"
    assert record["unit"] == "sub-01"
    assert record["exit_code"] == code
    assert words in record["message"]
    assert "Traceback" not in record["message"]
    assert not list((root / "logs" / "running").iterdir())


def test_success_forgets_the_error(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **options: Any) -> None:
        raise InputError("bad data")

    def succeed(inputs: Any, outputs: Any, config: Any, **options: Any) -> None:
        outputs.features.parent.mkdir(parents=True)
        outputs.features.touch()

    monkeypatch.setattr(extract_features, "run", fail)
    assert job(root) == 65
    monkeypatch.setattr(extract_features, "run", succeed)
    assert job(root) == 0
    assert error_records(root) == []
    cost = read_json(root / "logs/cost/extract_features/sub-01_split-train_features.json")
    assert cost["seconds"] >= 0
    assert 20 < cost["peak_memory_mb"] < 20_000
    sidecar = read_json(root / "sub-01" / "features" / "sub-01_split-train_features.json")
    assert sidecar["Stage"] == "extract_features"
    assert sidecar["StageVersion"] == extract_features.VERSION
    assert sidecar["Config"]["split"] == "train"
    assert sidecar["Sources"][0] == "bids::split.tsv"


def test_a_job_that_was_killed_is_found(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed(BaseException):
        """As little caught by the runner as a signal."""

    def die(*args: Any, **options: Any) -> None:
        raise Killed

    monkeypatch.setattr(extract_features, "run", die)
    with pytest.raises(Killed):
        job(root)
    assert error_records(root) == []
    finish_run(root, failed=True)
    (record,) = error_records(root)
    assert "a stage was killed" in record["message"]
    assert record["exit_code"] == 1
    assert "a stage was killed" in (root / "sub-01.html").read_text(encoding="utf-8")
    reset_errors(root, ["01"])
    assert error_records(root) == []


def test_problems_of_the_index_are_recorded_for_the_subjects_of_the_run(root: Path) -> None:
    reset_errors(root, ["01"])
    assert error_records(root) == []
    reset_errors(root, ["01", "02"])
    (record,) = error_records(root)
    assert record == {
        "stage": "index", "unit": "sub-02", "exit_code": 65, "message": "no files\nhere",
        "log": None,
    }  # fmt: skip


def test_the_log_of_the_failed_job_is_shown(root: Path) -> None:
    """Not that of another decoder, nor of a subject whose label begins alike."""
    logs = root / "logs" / "train_decoder"
    logs.mkdir(parents=True)
    for name in ("sub-1_desc-ridge", "sub-1_desc-bayesian", "sub-10_desc-ridge"):
        (logs / f"{name}.log").write_text(f"log of {name}")
    errors = root / "logs" / "errors"
    errors.mkdir()
    record = {"stage": "train_decoder", "unit": "sub-1", "exit_code": 65, "message": "m"}
    (errors / "train_decoder_sub-1_desc-ridge_model.json").write_text(json.dumps(record))
    (error,) = stage_errors(root, "sub-1")
    assert error.log_tail == "log of sub-1_desc-ridge"
    assert stage_errors(root, "sub-10") == []


def test_config_hash_follows_the_values() -> None:
    config = extract_features.Config()
    assert runner.config_hash(config) == runner.config_hash(extract_features.Config())
    other = config.model_copy(update={"split": "test"})
    assert runner.config_hash(other) != runner.config_hash(config)


def test_threads_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    import threadpoolctl

    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.setenv(name, "9")
    np.ones((4, 4)) @ np.ones((4, 4))
    runner.limit_threads(1)
    assert all(pool["num_threads"] == 1 for pool in threadpoolctl.threadpool_info())
