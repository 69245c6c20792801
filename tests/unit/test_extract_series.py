"""Series of regions of one run: truth recovered, contract of the files, bad runs left out."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from afterimage.io.nifti import write_nifti
from afterimage.io.series import open_series, write_series
from afterimage.io.tables import read_json, read_tsv, write_tsv
from afterimage.preprocess.fmri.masks import voxel_coordinates
from afterimage.stages import parcellate
from afterimage.stages.extract_series import Config, Inputs, Outputs, run
from afterimage.stages.series_files import Recording, common_units, read_recording, read_recordings

made = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[1] / "series_example.py")))
AFFINE, SHAPE, make_mask, slabs = made.AFFINE, made.SHAPE, made.make_mask, made.slabs
N_TIMES, T_R_S = 240, 2.0
STEM = "sub-1_ses-a_task-rest_run-1"


def make_study(folder: Path, **changes: Any) -> tuple[Inputs, np.ndarray]:
    """Write a run with motion in it; return its files and the signal of each of four regions."""
    rng = np.random.default_rng(0)
    (folder / "dataset_description.json").write_text(json.dumps({"Name": "x"}))
    mask = make_mask()
    labels = slabs()[mask]
    times = np.arange(N_TIMES) * T_R_S
    truth = np.column_stack(
        [
            np.cos(2 * np.pi * k / (2 * N_TIMES * T_R_S) * (times + T_R_S / 2))
            for k in (20, 33, 47, 60)
        ]
    )
    motion = 0.1 * rng.standard_normal((N_TIMES, 6))
    values = 500 + 5 * truth[:, labels - 1] + 40 * motion @ rng.standard_normal((6, mask.sum()))
    censored = np.zeros(N_TIMES, dtype=bool)
    censored[[30, 31, 100]] = True
    values[censored] += 1e4
    values = changes.get("values", lambda v: v)(values)
    censored = changes.get("censored", censored)
    attributes = {
        "t_r_s": T_R_S, "start_time_s": 1.0, "source": "raw", "affine": AFFINE.ravel(),
        "shape": np.array(SHAPE),
    }  # fmt: skip
    series = folder / f"{STEM}_desc-clean_series.nc"
    write_series(series, values, voxel_coordinates(mask, AFFINE), attributes, censored)
    names = [f"{a}_{b}" for a in ("trans", "rot") for b in "xyz"]
    table = folder / f"{STEM}_desc-confounds_timeseries.tsv"
    write_tsv(table, [dict(zip(names, row, strict=True)) for row in motion.tolist()], names)
    write_nifti(folder / "atlas.nii.gz", slabs(), AFFINE)
    write_nifti(folder / "mask.nii.gz", mask, AFFINE)
    parcels = folder / "sub-1_seg-slabs_parcels.nc"
    parcellate.run(
        parcellate.Inputs(
            (series,), (Path("b.nii.gz"),), folder / "mask.nii.gz",
            folder / "dataset_description.json", (folder / "atlas.nii.gz",),
        ),
        parcellate.Outputs(parcels, folder / "sub-1_seg-slabs_parcels.tsv"), parcellate.Config(),
    )  # fmt: skip
    return Inputs(series, table, parcels), truth


def outputs_of(folder: Path) -> Outputs:
    stem = folder / f"{STEM}_seg-slabs_desc-denoised"
    return Outputs(Path(f"{stem}_series.nc"), Path(f"{stem}_timeseries.tsv"))


def test_the_signal_of_every_region_comes_back(tmp_path: Path) -> None:
    inputs, truth = make_study(tmp_path)
    outputs = outputs_of(tmp_path)
    run(inputs, outputs, Config())
    recording = read_recording(outputs.series)
    assert isinstance(recording, Recording)
    assert (recording.subject, recording.session, recording.seg) == ("1", "a", "slabs")
    assert recording.name == "ses-a_task-rest_run-1"
    assert recording.sampling_rate_hz == pytest.approx(0.5)
    assert np.flatnonzero(~recording.kept).tolist() == [30, 31, 100]
    assert not recording.values[~recording.kept].any()
    used = recording.used()
    for index in range(4):
        # Motion takes 6 of the 76 dimensions inside the band with it.
        assert np.corrcoef(used[:, index], truth[recording.kept, index])[0, 1] > 0.92
    # 5 of 500 in percent.
    np.testing.assert_allclose(used.std(axis=0), 1 / np.sqrt(2), rtol=0.1)
    assert recording.attrs["n_confounds"] == 6
    # 9 cosines up to .01 Hz, 143 above .1 Hz, 6 motion parameters, the constant, 3 spikes.
    assert recording.attrs["degrees_of_freedom"] == N_TIMES - 3 - (9 + 143 + 6 + 1)


def test_the_table_has_names_and_blanks_what_is_censored(tmp_path: Path) -> None:
    inputs, _ = make_study(tmp_path)
    outputs = outputs_of(tmp_path)
    run(inputs, outputs, Config(confounds=(), high_pass_hz=None, low_pass_hz=None))
    rows = read_tsv(outputs.table)
    assert list(rows[0]) == ["region0001", "region0002", "region0003", "region0004"]
    assert rows[30]["region0002"] == "n/a"
    sidecar = read_json(outputs.table.with_suffix(".json"))
    assert sidecar["RepetitionTime"] == pytest.approx(2.0)
    assert sidecar["Censored"] == 3
    assert sidecar["degrees_of_freedom"] == N_TIMES - 4


def test_a_region_that_does_not_vary_is_named_and_not_connected(tmp_path: Path) -> None:
    labels = slabs()[make_mask()]

    def stop(values: np.ndarray) -> np.ndarray:
        values[:, labels == 3] = 7.0
        return values

    inputs, _ = make_study(tmp_path, values=stop)
    outputs = outputs_of(tmp_path)
    run(inputs, outputs, Config())
    found, _ = read_recordings([outputs.series])
    assert "1 regions do not vary: region0003" in str(found[0].attrs["notes"])
    kept, dropped = common_units(found)
    assert dropped == ["region0003"]
    assert kept[0].values.shape == (N_TIMES, 3)


@pytest.mark.parametrize(
    ("changes", "config", "reason"),
    [
        ({"censored": np.ones(N_TIMES, dtype=bool)}, {}, "all volumes of a run are censored"),
        ({}, {"low_pass_hz": 0.011}, "too little of a run is left"),
        ({"values": lambda v: np.where(v > 505, np.inf, v)}, {}, "no finite numbers"),
    ],
)
def test_a_run_that_cannot_be_used_is_left_out_and_recorded(
    tmp_path: Path, changes: Any, config: Any, reason: str
) -> None:
    inputs, _ = make_study(tmp_path, **changes)
    outputs = outputs_of(tmp_path)
    run(inputs, outputs, Config(**config))
    with open_series(outputs.series) as series:
        assert reason in str(series.attrs["problem"])
        assert series.n_times == 0
    found, notes = read_recordings([outputs.series])
    assert not found
    assert reason in notes[0]
    records = list((tmp_path / "logs" / "errors").glob("extract_series_*_skipped.json"))
    assert len(records) == 1
    assert reason in json.loads(records[0].read_text())["message"]


def test_a_table_of_confounds_of_another_run_is_named(tmp_path: Path) -> None:
    inputs, _ = make_study(tmp_path)
    rows = read_tsv(inputs.confounds)[:-5]
    write_tsv(inputs.confounds, rows, list(rows[0]))
    outputs = outputs_of(tmp_path)
    run(inputs, outputs, Config())
    with open_series(outputs.series) as series:
        assert "another length than its run" in str(series.attrs["problem"])
