"""The report stages read what the stages of scans write, whole, partial or absent."""

from __future__ import annotations

import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from afterimage.errors import InputError
from afterimage.io.arrays import write_dataset
from afterimage.io.atomic import write_json
from afterimage.io.series import write_series
from afterimage.io.tables import write_tsv
from afterimage.io.trials import write_trials
from afterimage.preprocess.fmri.quality import carpet_rows, quality_dataset, run_quality
from afterimage.stages import report_group, report_scans, report_stages, report_subject
from afterimage.stages.runner import record_skipped, run_stage

TESTS = Path(__file__).resolve().parents[1]
made = SimpleNamespace(**runpy.run_path(str(TESTS / "scan_example.py")))
SHAPE = (9, 10, 6)
N_VOLUMES = 60
COLUMNS = ("subject", "session", "run", "source", "bold", "stimuli", "problem")
AFFINE = np.diag([3.0, 3.0, 3.0, 1.0])


def report_of(root: Path) -> str:
    """Return the page of the subject."""
    return report_subject.pages(root, "01", report_subject.Config())[root / "sub-01.html"]


def brain() -> np.ndarray:
    mask = np.zeros(SHAPE, dtype=bool)
    mask[1:-1, 1:-1, 1:-1] = True
    return mask


def write_run(folder: Path, run: str, problem: str = "") -> Path:
    """Write the series and the quality of a run as the stage does; return its series."""
    rng = np.random.default_rng(int(run))
    mask = brain()
    n = 0 if problem else N_VOLUMES
    bold = (600 + rng.normal(0, 6, (n, mask.sum()))).astype(np.float32)
    units = {"kind": np.full(mask.sum(), "voxel")}
    units |= dict(zip("ijk", (axis.astype(np.int32) for axis in np.nonzero(mask)), strict=True))
    attributes: dict[str, Any] = {
        "t_r_s": 2.0, "start_time_s": 1.0, "source": "raw", "affine": AFFINE.ravel(),
        "shape": np.array(SHAPE), "problem": problem,
    }  # fmt: skip
    censored = np.arange(n) == 5
    stem = f"sub-01_task-view_run-{run}"
    series = folder / "func" / f"{stem}_desc-clean_series.nc"
    write_series(series, bold, units, attributes, censored)
    moved = np.concatenate([[np.nan], np.full(n - 1, 0.1 * int(run))]) if n else np.zeros(0)
    if not problem:
        quality = run_quality(lambda columns: bold[:, columns], carpet_rows(mask))
        dataset = quality_dataset(
            quality, mask, AFFINE, 1 + 2.0 * np.arange(n), 2.0, rng.normal(0, 0.1, (n, 6)),
            moved, censored, ["two volumes before the steady state"],
        )  # fmt: skip
        path = folder / "func" / f"{stem}_desc-bold_quality.nc"
        write_dataset(path, dataset.assign_attrs(source="raw", problem=""))
    return series


def write_responses(folder: Path, late_s: float) -> None:
    """Write trials, their counts and their quality as the stage does."""
    import xarray

    rng = np.random.default_rng(0)
    mask = brain()
    stimulus = np.array(["face", "house"] * 12)
    n_units = 30
    write_trials(
        folder / "sub-01_trials.nc",
        [rng.normal(size=(24, n_units)).astype(np.float32)],
        {"stimulus": stimulus, "split": np.full(24, "train")},
        {
            "kind": np.full(n_units, "voxel"),
            "roi": np.full(n_units, "n/a"),
            "ceiling": np.full(n_units, 0.4, np.float32),
        },
        None,
        {"response_units": "percent signal change"},
    )
    write_json(
        folder / "sub-01_quality.json",
        {
            "n_units": int(mask.sum()), "n_units_kept": n_units, "units_constant": [],
            "units_never_finite": [], "n_trials": {"train": 24, "test": 0, "val": 0},
            "n_stimuli": {"train": 2, "test": 0, "val": 0}, "best_onset_shift_s": -late_s,
            "estimator_summary": {"n_hrfs": 21, "n_noise_components": 3},
        },
    )  # fmt: skip
    example = made.make_response_quality(late_s)
    volume = np.where(mask, rng.uniform(0, 0.8, SHAPE), np.nan).astype(np.float32)
    space = ("x", "y", "z")
    write_dataset(
        folder / "sub-01_desc-responses_quality.nc",
        xarray.Dataset(
            {
                "design": (("volume", "column"), example.design),
                "column_name": (("column",), np.array(example.column_names, dtype=object)),
                "onset_shift_s": ("shift", example.onset_shift_s),
                "onset_shift_r2": ("shift", example.onset_shift_r2),
                "response_time_s": ("lag", example.response_time_s),
                "average_response": ("lag", example.average_response),
                "map_ceiling": (space, volume),
                "map_hrf_peak_s": (space, volume * 5 + 3.5),
                "mean": (space, np.full(SHAPE, 600, np.float32)),
                "brain_mask": (space, mask.astype(np.uint8)),
                "units_mask": (space, (mask & (volume > 0.5)).astype(np.uint8)),
            },
            attrs={
                "estimator": "ridge_glm", "best_onset_shift_s": -late_s, "t_r_s": 2.0,
                "affine": AFFINE.ravel(), "notes": "12 voxels are kept",
                "onset_shift_measure": "variance",
            },
        ),
    )  # fmt: skip


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Output of a subject with two good runs and one that was left out, without pictures."""
    write_json(tmp_path / "dataset_description.json", {"Name": "out", "DatasetType": "derivative"})
    rows = [
        dict(zip(COLUMNS, ("01", "n/a", run, "raw", f"sub-01/func/sub-01_task-view_run-{run}_bold.nii.gz",
                           "no", problem), strict=True))
        for run, problem in (("2", "n/a"), ("1", "n/a"), ("3", "n/a"),
                             ("4", "events.tsv is missing | where: sub-01"))
    ]  # fmt: skip
    write_tsv(tmp_path / "code" / "units.tsv", rows, COLUMNS)
    folder = tmp_path / "sub-01"
    write_run(folder, "1")
    write_run(folder, "2")
    series = write_run(folder, "3", "the file is truncated\n  found: 3 of 60 volumes")
    record_skipped("clean_bold", series, InputError("the file is truncated", found="3 volumes"))
    write_responses(folder, 7.0)
    (folder / "sub-01_desc-reference_boldref.nii.gz").touch()
    return tmp_path


def test_scans_are_read_in_the_order_of_the_table(root: Path) -> None:
    rows = report_stages.read_rows(root, "01")
    scans = report_scans.read_scans(root / "sub-01", "sub-01", rows)
    assert scans is not None and scans.source == "raw"
    assert [run.name for run in scans.runs] == ["run-2", "run-1"]
    assert [run.name for run in scans.skipped] == ["run-4", "run-3"]
    assert "found: 3 of 60 volumes" in scans.skipped[1].reason
    first = scans.runs[0]
    assert first.n_volumes == N_VOLUMES and first.n_censored == 1 and first.censored[5]
    assert first.mean_fd_mm == pytest.approx(0.2, abs=1e-6)
    assert first.carpet is not None and first.carpet.shape[1] == N_VOLUMES
    assert scans.tsnr is not None and np.median(scans.tsnr[brain()]) == pytest.approx(100, rel=0.2)
    np.testing.assert_array_equal(scans.affine, AFFINE)
    assert scans.responses is not None and scans.responses.best_onset_shift_s == -7
    assert set(scans.responses.maps) == {"ceiling", "hrf_peak_s"}


def test_stage_writes_a_report_without_metrics(root: Path) -> None:
    report = root / "sub-01.html"
    run_stage(
        "report_subject", {"trials": [str(root / "sub-01" / "sub-01_trials.nc")], "metrics": []},
        {"report": [str(report)]}, {},
    )  # fmt: skip
    html = report.read_text(encoding="utf-8")
    for words in (
        "no pictures, so nothing was reconstructed", "The onsets look 7 s late",
        "2 runs were left out", "events.tsv is missing", "3 of 60 volumes",
        "from a library of 21", "reference_bold", "clean_bold", "fit_responses",
    ):  # fmt: skip
        assert words in html, words
    assert "prepare_responses" not in html and "train_decoder" not in html


def test_left_out_input_is_no_failure(root: Path) -> None:
    rows = report_stages.read_rows(root, "01")
    errors = report_stages.stage_errors(root, "sub-01", rows)
    assert [error.partial for error in errors] == [True]
    runs = report_stages.stage_runs(root, "sub-01", rows, {}, errors)
    states = {run.name: run.status for run in runs}
    assert states["reference_bold"] == "done"
    assert "failed" not in states.values() and "skipped" not in states.values()
    write_json(
        root / "logs" / "errors" / "fit_responses_sub-01_trials.json",
        {"stage": "fit_responses", "unit": "sub-01", "message": "InputError: no trial"},
    )
    errors = report_stages.stage_errors(root, "sub-01", rows)
    runs = report_stages.stage_runs(root, "sub-01", rows, {}, errors)
    assert {run.name: run.status for run in runs}["fit_responses"] == "failed"
    assert "fit_responses failed" in report_of(root)


def test_group_report_copes_without_scores(root: Path) -> None:
    run_stage(
        "report_group", {"trials": [str(root / "sub-01" / "sub-01_trials.nc")], "metrics": []},
        {"report": [str(root / "group.html")], "metrics": [str(root / "group" / "metrics.tsv")],
         "comparison": [str(root / "group" / "comparison.tsv")]},
        {},
    )  # fmt: skip
    html = (root / "group.html").read_text(encoding="utf-8")
    assert "1 of 1 subject has responses" in html and "responses only" in html
    assert "The onsets look 7 s late" in html
    assert html.count('href="sub-01.html"') == 1  # a row a subject, not a row a run


def test_a_failed_subject_gets_its_report(root: Path) -> None:
    for path in (root / "sub-01").rglob("*.nc"):
        path.unlink()
    html = report_of(root)
    assert "No responses were read for this subject." in html
    assert "events.tsv is missing" in html  # the index knew of this one
    assert "data_quality" in html
    assert report_group.build(root, report_group.Config())


def test_chain_follows_where_responses_come_from(tmp_path: Path) -> None:
    def names(**row: str) -> list[str]:
        return [link[0] for link in report_stages.chain(tmp_path, [row] if row else [], {})]

    after = ["extract_features", "train_decoder", "reconstruct", "evaluate"]
    scans = ["reference_bold", "clean_bold", "fit_responses"]
    assert names() == ["prepare_responses", *after]
    assert names(source="prepared", stimuli="yes") == ["prepare_responses", *after]
    assert names(source="fmriprep", stimuli="yes") == [*scans, *after]
    assert names(source="raw", stimuli="no") == scans


def test_runs_are_named_by_what_tells_them_apart() -> None:
    labels = report_scans.run_labels(
        ["sub-1_ses-a_task-x_run-1", "sub-1_ses-a_task-x_run-2", "sub-1_ses-b_task-x_run-1"]
    )
    assert list(labels.values()) == ["ses-a run-1", "ses-a run-2", "ses-b run-1"]
    assert report_scans.run_labels(["sub-1_task-x"]) == {"sub-1_task-x": "task-x"}
    assert report_scans.run_labels(["sub-1", "sub-1_run-2"])["sub-1"] == "sub-1"


def test_example_survives_the_way_through_files(root: Path) -> None:
    example = made.make_response_quality(7.0)
    rows = report_stages.read_rows(root, "01")
    scans = report_scans.read_scans(root / "sub-01", "sub-01", rows)
    assert scans is not None and scans.responses is not None
    np.testing.assert_allclose(scans.responses.onset_shift_r2, example.onset_shift_r2)
    assert list(scans.responses.column_names) == list(example.column_names)
    assert scans.responses.duration_s == 0  # no table of trials beside it
