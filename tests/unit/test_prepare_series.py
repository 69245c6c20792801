"""Prepared series and those of xcp_d: read as they are, checked, written as ours."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from afterimage.bids.index import index_dataset
from afterimage.errors import InputError
from afterimage.io.series import open_series
from afterimage.io.tables import write_tsv
from afterimage.stages.prepare_series import Config, Inputs, Outputs, run
from afterimage.stages.series_files import Recording, read_recording

N_TIMES, N_UNITS = 60, 5


def make_values(seed: int = 0) -> np.ndarray:
    return 450 + np.random.default_rng(seed).standard_normal((N_TIMES, N_UNITS))


def prepare(
    folder: Path, values: Any, name: str = "sub-1_ses-2_timeseries.npy", **more: Any
) -> Any:
    """Write one recording, prepare it, and read it again; a reason where it was left out."""
    folder.mkdir(exist_ok=True, parents=True)
    (folder / "dataset_description.json").write_text("{}")
    path = folder / name
    if name.endswith(".npy"):
        np.save(path, values)
    else:
        names = [f"R{index}" for index in range(values.shape[1])]
        write_tsv(path, [dict(zip(names, row, strict=True)) for row in values.tolist()], names)
    sidecars = ()
    if "sidecar" in more:
        (folder / "timeseries.json").write_text(json.dumps(more["sidecar"]))
        sidecars = (folder / "timeseries.json",)
    for key in ("units", "confounds"):
        if key in more:
            write_tsv(folder / f"{key}.tsv", more[key], list(more[key][0]))
            more[key] = folder / f"{key}.tsv"
    stem = folder / "sub-1_ses-2_seg-prepared_desc-denoised"
    outputs = Outputs(Path(f"{stem}_series.nc"), Path(f"{stem}_timeseries.tsv"))
    inputs = Inputs(path, sidecars, more.get("units"), more.get("confounds"))
    run(inputs, outputs, Config(**more.get("config", {})))
    return read_recording(outputs.series)


def test_an_array_without_a_rate_keeps_its_values_less_their_mean(tmp_path: Path) -> None:
    values = make_values()
    found = prepare(tmp_path, values.astype(np.float32))
    assert isinstance(found, Recording)
    np.testing.assert_allclose(found.values, values - values.mean(axis=0), atol=1e-4)
    assert found.sampling_rate_hz == 0.0
    assert found.names[0] == "region0001"
    assert found.attrs["degrees_of_freedom"] == N_TIMES - 1
    with open_series(tmp_path / "sub-1_ses-2_seg-prepared_desc-denoised_series.nc") as series:
        np.testing.assert_array_equal(series.times_s, np.arange(N_TIMES))


@pytest.mark.parametrize(
    ("sidecar", "rate_hz"),
    [
        ({"RepetitionTime": 0.8}, 1.25),
        ({"sampling_rate_hz": 4}, 4.0),
        ({"SamplingFrequency": 2}, 2.0),
    ],
)
def test_the_rate_comes_from_the_sidecar(tmp_path: Path, sidecar: Any, rate_hz: float) -> None:
    found = prepare(tmp_path, make_values(), sidecar=sidecar)
    assert found.sampling_rate_hz == pytest.approx(rate_hz)


def test_a_table_of_units_names_places_and_networks(tmp_path: Path) -> None:
    units = [
        {"name": f"A{i}", "kind": "parcel", "x": i, "y": -i, "z": 2.5, "network": "Visual"}
        for i in range(N_UNITS)
    ]
    found = prepare(tmp_path, make_values(), units=units)
    assert found.names.tolist() == ["A0", "A1", "A2", "A3", "A4"]
    assert found.units["y"].tolist() == [0, -1, -2, -3, -4]
    assert set(found.units["network"]) == {"Visual"}


def test_volumes_and_regions_that_are_missing(tmp_path: Path) -> None:
    values = make_values()
    values[7] = np.nan  # censored, as a whole
    values[:, 3] = np.nan  # a region that the scan does not cover
    values[20, 1] = np.nan  # a gap
    found = prepare(tmp_path, values, "sub-1_ses-2_seg-A_timeseries.tsv")
    assert found.names.tolist() == ["R0", "R1", "R2", "R4"]
    assert np.flatnonzero(~found.kept).tolist() == [7, 20]
    assert "R3" in str(found.attrs["notes"])
    assert "1 samples with gaps" in str(found.attrs["notes"])


@pytest.mark.parametrize("form", ["whole", "left out", "missing"])
def test_outliers_of_xcp_d_are_censored_in_every_form(tmp_path: Path, form: str) -> None:
    values, out = make_values(), np.zeros(N_TIMES, dtype=int)
    out[[4, 5, 50]] = 1
    written = values.copy()
    if form == "left out":
        written = values[out == 0]
    elif form == "missing":
        written[out == 1] = np.nan
    rows = [{"framewise_displacement": int(flag)} for flag in out]
    found = prepare(tmp_path, written, "sub-1_seg-A_timeseries.tsv", confounds=rows)
    assert len(found.kept) == N_TIMES
    np.testing.assert_array_equal(found.kept, out == 0)
    expected = values[out == 0] - values[out == 0].mean(axis=0)
    np.testing.assert_allclose(found.used(), expected, atol=1e-4)


@pytest.mark.parametrize(
    ("values", "more", "reason"),
    [
        (make_values()[:, 0], {}, "wrong number of dimensions"),
        (np.full((N_TIMES, N_UNITS), np.nan), {}, "all volumes of a run are censored"),
        (np.where(make_values() > 450, np.nan, make_values()), {}, "no finite numbers"),
        (make_values()[:6], {}, "too little of a run is left"),
        (make_values(), {"config": {"high_pass_hz": 0.01}}, "cannot be filtered"),
        (make_values(), {"sidecar": {"RepetitionTime": "2"}}, "not possible"),
        (make_values(), {"units": [{"name": "a"}] * N_TIMES}, "is the array transposed"),
        (make_values(), {"units": [{"name": "a"}] * N_UNITS}, "two units have one name"),
        (make_values(), {"confounds": [{"outlier": 0}] * 10}, "another length than its series"),
    ],
)
def test_what_cannot_be_used_is_left_out_with_the_reason(
    tmp_path: Path, values: np.ndarray, more: Any, reason: str
) -> None:
    found = prepare(tmp_path, values, **more)
    assert isinstance(found, str)
    assert reason in found
    (record,) = (tmp_path / "logs" / "errors").glob("prepare_series_*_skipped.json")
    assert reason in json.loads(record.read_text())["message"]
    with pytest.raises(InputError):
        config = {**more.get("config", {}), "on_bad_run": "fail"}
        prepare(tmp_path / "strict", values, **{**more, "config": config})


def test_text_in_a_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "dataset_description.json").write_text("{}")
    path = tmp_path / "sub-1_timeseries.tsv"
    path.write_text("A\tB\n1\tx\n")
    outputs = Outputs(tmp_path / "sub-1_seg-p_desc-denoised_series.nc", tmp_path / "t.tsv")
    run(Inputs(path), outputs, Config())
    assert "a series holds text" in str(read_recording(outputs.series))


def touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_series_are_indexed_by_run_and_atlas(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "dataset_description.json",
        "timeseries.json",
        "units.tsv",
        "sub-01/ses-1/sub-01_ses-1_timeseries.npy",
        "sub-01/ses-2/func/sub-01_ses-2_timeseries.tsv",
        "sub-02/func/sub-02_task-rest_run-1_space-MNI_seg-4S156Parcels_stat-mean_timeseries.tsv",
        "sub-02/func/sub-02_task-rest_run-1_space-MNI_seg-4S156Parcels_stat-mean_timeseries.json",
        "sub-02/func/sub-02_task-rest_run-1_space-MNI_atlas-Gordon_timeseries.tsv",
        "sub-02/func/sub-02_task-rest_run-1_outliers.tsv",
        "sub-02/func/sub-02_task-rest_run-1_desc-confounds_timeseries.tsv",
        "sub-02/func/sub-02_task-rest_run-1_space-MNI_seg-Gordon_stat-pearsoncorrelation_relmat.tsv",
        "sub-03/func/sub-03_task-rest_bold.nii.gz",
        "sub-03/func/sub-03_task-rest_timeseries.tsv",
        "sub-04/ses-1/sub-04_ses-2_timeseries.npy",
        "sub-05/sub-05_timeseries.npy",
        "sub-05/func/sub-05_timeseries.npy",
    )
    rows = index_dataset(tmp_path)
    found = {row["series"].rpartition("/")[2]: row for row in rows if row["series"] != "n/a"}
    first = found["sub-01_ses-1_timeseries.npy"]
    assert (first["source"], first["session"], first["modality"]) == ("series", "1", "fmri")
    assert (first["sidecar"], first["units"]) == ("timeseries.json", "units.tsv")
    atlases = [row for row in rows if row["subject"] == "02"]
    assert len(atlases) == 2
    for row in atlases:
        assert row["confounds"].endswith("_outliers.tsv")
    assert ";" in atlases[-1]["sidecar"]  # that of the root, then its own
    # Raw scans come first; a name in the wrong folder, and a run that is there twice, are said.
    assert [row["series"] for row in rows if row["subject"] == "03"] == ["n/a"]
    problems = {row["subject"]: row["problem"] for row in rows if row["problem"] != "n/a"}
    assert "contradicts its folder" in problems["04"]
    assert "one run is there twice" in problems["05"]
    assert set(problems) == {"04", "05"}
    assert len(index_dataset(tmp_path, sessions=["2"])) >= 1
