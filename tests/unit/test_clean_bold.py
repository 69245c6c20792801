"""One run is corrected, sampled and described; what cannot be used is left out and named."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray
from scipy.ndimage import gaussian_filter

from afterimage.errors import InputError
from afterimage.io.nifti import open_bold, read_volume, write_nifti
from afterimage.io.series import open_series
from afterimage.io.tables import read_tsv, write_tsv
from afterimage.preprocess.fmri.confounds import nuisance_regressors, read_columns
from afterimage.preprocess.fmri.resampling import Resampler, grid_center, parameters_to_matrix
from afterimage.stages.clean_bold import Config, Inputs, Outputs, run

SHAPE, N_VOLUMES, T_R_S = (20, 22, 12), 40, 2.0
AFFINE = np.array([[-3.0, 0, 0, 30], [0, 3.0, 0, -33], [0, 0, 3.0, -18], [0, 0, 0, 1]])


def head() -> np.ndarray:
    rng = np.random.default_rng(0)
    axes = np.meshgrid(*[np.linspace(-1, 1, size) for size in SHAPE], indexing="ij")
    texture = gaussian_filter(rng.standard_normal(SHAPE), 1.3)
    inside = sum(axis**2 for axis in axes) < 0.7
    return np.where(inside, 800 + 120 * texture / texture.std(), 15).astype(np.float32)


@dataclass
class Scan:
    """Files of one raw run."""

    inputs: Inputs
    outputs: Outputs
    values: np.ndarray

    def write(self, values: np.ndarray | None = None, affine: np.ndarray = AFFINE) -> None:
        write_nifti(self.inputs.bold, self.values if values is None else values, affine, T_R_S)

    def sidecar(self, **keys: Any) -> None:
        self.inputs.sidecars[0].write_text(json.dumps({"RepetitionTime": T_R_S, **keys}))

    def run(self, **config: Any) -> None:
        run(self.inputs, self.outputs, Config(**{"on_bad_run": "fail", **config}))

    def problem(self, **config: Any) -> str:
        """Run with on_bad_run: skip; check that all outputs are there and empty."""
        self.run(on_bad_run="skip", **config)
        with open_series(self.outputs.series) as series:
            assert series.n_times == 0
            problem = str(series.attrs["problem"])
        assert read_tsv(self.outputs.confounds) == []
        quality = self.quality()
        assert quality.sizes["time"] == 0
        assert quality.attrs["n_volumes"] == 0
        assert quality.attrs["problem"] == problem
        folder = self.outputs.series.parent / "logs" / "errors"
        record = json.loads(next(folder.glob("clean_bold*_skipped.json")).read_text())
        assert record["exit_code"] == 65
        assert record["unit"] == "sub-01"
        assert record["message"].endswith(problem)
        assert self.inputs.bold.name in problem
        assert "sub-01" in problem
        return problem

    def quality(self) -> xarray.Dataset:
        with xarray.open_dataset(self.outputs.quality, engine="h5netcdf") as dataset:
            return dataset.load()


@pytest.fixture
def scan(tmp_path: Path) -> Scan:
    data, out = tmp_path / "data", tmp_path / "out"
    data.mkdir()
    out.mkdir()
    (out / "dataset_description.json").write_text("{}")
    still = head()
    noise = np.random.default_rng(1).normal(0, 8, (*SHAPE, N_VOLUMES))
    values = (still[..., None] + noise).astype(np.float32)
    inputs = Inputs(
        data / "sub-01_task-x_bold.nii.gz", (data / "sub-01_task-x_bold.json",),
        out / "sub-01_desc-reference_boldref.nii.gz", out / "sub-01_desc-brain_mask.nii.gz",
    )  # fmt: skip
    ends = ("desc-clean_series.nc", "desc-confounds_timeseries.tsv", "desc-bold_quality.nc")
    scan = Scan(inputs, Outputs(*(out / f"sub-01_task-x_{end}" for end in ends)), values)
    write_nifti(inputs.reference, still, AFFINE)
    write_nifti(inputs.mask, still > 300, AFFINE)
    scan.write()
    scan.sidecar()
    return scan


def moved(values: np.ndarray, poses: np.ndarray) -> np.ndarray:
    """Really move each volume (the noise with it)."""
    everywhere = Resampler(np.indices(SHAPE).reshape(3, -1).T, AFFINE)
    center = grid_center(SHAPE, AFFINE)
    volumes = [
        everywhere.sample(
            np.ascontiguousarray(values[..., k]), AFFINE,
            np.linalg.inv(parameters_to_matrix(pose, center)),
        ).reshape(SHAPE)
        for k, pose in enumerate(poses)
    ]  # fmt: skip
    return np.stack(volumes, axis=-1)


def test_outputs_of_a_raw_run(scan: Scan) -> None:
    scan.run()
    mask = read_volume(scan.inputs.mask)[0] > 0
    with open_series(scan.outputs.series) as series:
        assert (series.n_times, series.n_units) == (N_VOLUMES, mask.sum())
        assert series.attrs["source"] == "raw"
        np.testing.assert_allclose(series.attrs["affine"], AFFINE)
        assert series.attrs["shape"] == SHAPE
        index = np.column_stack([series.units[axis] for axis in "ijk"])
        np.testing.assert_array_equal(index, np.argwhere(mask))
        assert series.times_s[0] == pytest.approx(T_R_S / 2)  # the sidecar has no slice times
        assert not series.censored.any()
    quality = scan.quality()
    assert quality["carpet"].dims == ("row", "time")
    assert quality["carpet"].shape[0] <= 400
    assert quality["motion"].shape == (N_VOLUMES, 6)
    assert quality["tsnr"].shape == SHAPE
    assert np.isnan(quality["framewise_displacement"][0])
    assert quality.attrs["median_tsnr"] == pytest.approx(800 / 8, rel=0.15)
    assert quality.attrs["n_volumes"] == N_VOLUMES
    assert "times of the slices are not known" in quality.attrs["notes"]
    rows = read_tsv(scan.outputs.confounds)
    assert len(rows) == N_VOLUMES
    assert {"trans_x", "rot_z_derivative1", "framewise_displacement", "dvars", "t_comp_cor_04",
            "global_signal", "cosine00", "censored"} <= set(rows[0])  # fmt: skip
    nuisance = nuisance_regressors(read_columns(rows, ""), N_VOLUMES, T_R_S)
    assert np.isfinite(nuisance.values).all()


def test_motion_is_undone_and_spikes_are_censored(scan: Scan) -> None:
    rng = np.random.default_rng(2)
    poses = np.cumsum(rng.normal(size=(N_VOLUMES, 6)) * np.r_[[0.03] * 3, [0.0005] * 3], axis=0)
    poses[25] += [1.5, 0, -1, 0.02, 0, 0]
    scan.write(moved(scan.values, poses))
    scan.run()
    found = scan.quality()["motion"].values
    assert np.abs((found - poses)[:, :3]).max() < 0.1
    assert np.degrees(np.abs((found - poses)[:, 3:])).max() < 0.15
    with open_series(scan.outputs.series) as series:
        assert {25, 26} <= set(np.flatnonzero(series.censored))
        corrected = series.read().std(axis=0)
    scan.run(motion_correction=False, fd_threshold_mm=None)
    with open_series(scan.outputs.series) as series:
        assert not series.censored.any()
        raw = series.read().std(axis=0)
    assert np.median(corrected) < 0.75 * np.median(raw)
    assert "not corrected, as configured" in scan.quality().attrs["notes"]


def test_slices_are_brought_to_one_time(scan: Scan) -> None:
    """A wave that each slice sees at its own time is the same in all slices afterwards."""
    slice_times_s = np.arange(SHAPE[2])[::-1] * T_R_S / SHAPE[2]
    times_s = np.arange(N_VOLUMES) * T_R_S + slice_times_s[:, None]  # (slices, volumes)
    wave = 30 * np.sin(2 * np.pi * times_s / 16)
    scan.write((head()[..., None] + wave).astype(np.float32))
    scan.sidecar(SliceTiming=slice_times_s.tolist())
    reference_s = (slice_times_s.min() + slice_times_s.max()) / 2
    for correct in (True, False):
        scan.run(slice_timing=correct, motion_correction=False, fd_threshold_mm=None)
        with open_series(scan.outputs.series) as series:
            expected = 30 * np.sin(2 * np.pi * series.times_s / 16)
            np.testing.assert_allclose(series.times_s[0], reference_s)
            values = series.read()
            error = np.abs(values - values.mean(axis=0) - expected[:, None])[4:-4].max()
        assert (error < 2.5) == correct
    assert not list(scan.outputs.series.parent.glob(".scratch*"))


def test_blocks_do_not_matter(scan: Scan, monkeypatch: pytest.MonkeyPatch) -> None:
    poses = np.zeros((N_VOLUMES, 6))
    poses[10:] = [0.4, -0.3, 0.2, 0.01, 0, -0.005]
    scan.write(moved(scan.values, poses))
    times = (np.arange(SHAPE[2]) * T_R_S / SHAPE[2]).tolist()
    scan.sidecar(SliceTiming=times)
    found = []
    for block_bytes in (4 * 5280 * 3, 2**26):
        monkeypatch.setattr("afterimage.io.nifti.BLOCK_BYTES", block_bytes)
        scan.run()
        with open_series(scan.outputs.series) as series:
            found.append(series.read())
    np.testing.assert_array_equal(found[0], found[1])


def test_corrected_image_is_written(scan: Scan) -> None:
    scan.run(write_nifti=True)
    path = scan.outputs.series.with_name("sub-01_task-x_desc-preproc_bold.nii.gz")
    bold = open_bold(path)
    mask = read_volume(scan.inputs.mask)[0] > 0
    _, block = next(bold.blocks())
    with open_series(scan.outputs.series) as series:
        np.testing.assert_array_equal(block[mask].T, series.read())
    assert not block[~mask].any()
    assert bold.header_t_r == T_R_S
    sidecar = json.loads(path.with_name(path.name.replace(".nii.gz", ".json")).read_text())
    assert sidecar["RepetitionTime"] == T_R_S


def test_run_with_a_shifted_field_of_view(scan: Scan) -> None:
    """The same head, seen through a grid two voxels further: the same series."""
    scan.run(motion_correction=False)
    with open_series(scan.outputs.series) as series:
        expected = series.read()
    affine = AFFINE.copy()
    affine[:3, 3] += AFFINE[:3, :3] @ [-1, 2, 0]
    shifted = np.roll(scan.values, (1, -2), axis=(0, 1))
    scan.write(shifted, affine)
    scan.run()
    assert "differs from that of the reference" in scan.quality().attrs["notes"]
    with open_series(scan.outputs.series) as series:
        found = series.read()
    inner = np.corrcoef(found.mean(axis=0), expected.mean(axis=0))[0, 1]
    assert inner > 0.999


def test_run_whose_header_places_it_wrongly(scan: Scan) -> None:
    affine = AFFINE.copy()
    affine[:3, 3] += [45, -30, 12]
    scan.write(affine=affine)
    scan.run()
    quality = scan.quality()
    assert "places the head 55.4 mm away" in quality.attrs["notes"]
    assert np.abs(quality["motion"].values[:, :3]).max() < 0.2
    assert quality.attrs["median_tsnr"] > 80


def test_a_few_values_that_are_not_finite(scan: Scan) -> None:
    values = scan.values.copy()
    values[0, 0, 0] = np.nan
    values[10, 11, 6, 7] = np.inf
    scan.write(values)
    scan.run()
    notes = scan.quality().attrs["notes"]
    assert "40 values outside the brain were not finite" in notes
    assert "1 values in 1 voxels of the brain were not finite" in notes
    with open_series(scan.outputs.series) as series:
        assert np.isfinite(series.read()).all()
        assert not series.censored.any()


def test_a_damaged_volume_is_censored(scan: Scan) -> None:
    values = scan.values.copy()
    values[..., 12] = np.nan
    scan.write(values)
    scan.run(max_nonfinite_fraction=0.05)
    with open_series(scan.outputs.series) as series:
        assert np.flatnonzero(series.censored).tolist() == [12]
    assert "1 volumes with many values" in scan.quality().attrs["notes"]


def test_many_values_that_are_not_finite(scan: Scan) -> None:
    values = scan.values.copy()
    values[8:12] = np.nan
    scan.write(values)
    assert "too many values that are not finite" in scan.problem()


def test_truncated_run(scan: Scan) -> None:
    content = scan.inputs.bold.read_bytes()
    scan.inputs.bold.write_bytes(content[: len(content) * 2 // 3])
    assert "an image cannot be read" in scan.problem()
    with pytest.raises(InputError, match="cannot be read"):
        scan.run()


def test_one_volume(scan: Scan) -> None:
    scan.write(scan.values[..., :1])
    assert "a run has one volume" in scan.problem()
    scan.write(scan.values[..., :6])
    assert "too few volumes" in scan.problem()


def test_contradicting_repetition_time(scan: Scan) -> None:
    scan.sidecar(RepetitionTime=3.0)
    assert "contradicts the sidecar" in scan.problem()
    scan.run(repetition_time="sidecar")
    with open_series(scan.outputs.series) as series:
        assert series.attrs["t_r_s"] == 3.0


def test_slice_times_in_milliseconds(scan: Scan) -> None:
    scan.sidecar(SliceTiming=(np.arange(SHAPE[2]) * 100).tolist())
    assert "slice timing does not fit" in scan.problem()


def test_run_that_does_not_cover_the_brain(scan: Scan) -> None:
    scan.write(scan.values[:, :, :3])
    assert "does not cover the brain" in scan.problem()


def test_missing_sidecar_is_named(scan: Scan) -> None:
    scan.inputs.sidecars[0].write_text("{not json")
    scan.run(on_bad_run="skip")
    with open_series(scan.outputs.series) as series:
        assert "sub-01_task-x_bold.json" in str(series.attrs["problem"])


@pytest.fixture
def fmriprep(scan: Scan) -> Scan:
    """Return the same run as fMRIPrep would give it."""
    bold = scan.inputs.bold.with_name("sub-01_task-x_space-T1w_desc-preproc_bold.nii.gz")
    table = scan.inputs.bold.with_name("sub-01_task-x_desc-confounds_timeseries.tsv")
    scan.inputs = replace(scan.inputs, bold=bold, confounds=table)
    scan.write()
    scan.sidecar(StartTime=0.95, SliceTimingCorrected=True)
    write_table(table, N_VOLUMES)
    return scan


def write_table(path: Path, n_rows: int) -> None:
    rng = np.random.default_rng(0)
    names = ["csf", "trans_x", "trans_y", "trans_z", "rot_x", "rot_y", "rot_z",
             "framewise_displacement", "a_comp_cor_00", "non_steady_state_outlier00"]  # fmt: skip
    rows = [dict(zip(names, rng.normal(scale=0.01, size=10), strict=True)) for _ in range(n_rows)]
    for index, row in enumerate(rows):
        row["non_steady_state_outlier00"] = float(index == 0)
        row["framewise_displacement"] = np.nan if index == 0 else 0.9 if index == 8 else 0.1
    write_tsv(path, rows, names)


def test_fmriprep_is_taken_as_it_is(fmriprep: Scan) -> None:
    fmriprep.run()
    mask = read_volume(fmriprep.inputs.mask)[0] > 0
    with open_series(fmriprep.outputs.series) as series:
        np.testing.assert_array_equal(series.read(), fmriprep.values[mask].T)
        assert series.attrs["source"] == "fmriprep"
        assert series.times_s[0] == pytest.approx(0.95)
        assert np.flatnonzero(series.censored).tolist() == [0, 8]
    assert fmriprep.inputs.confounds is not None
    given, written = (
        read_tsv(path) for path in (fmriprep.inputs.confounds, fmriprep.outputs.confounds)
    )
    assert [{k: v for k, v in row.items() if k != "censored"} for row in written] == given
    assert [row["censored"] for row in written[:2]] == ["1", "0"]
    assert fmriprep.quality().attrs["source"] == "fmriprep"


def test_fmriprep_confounds_of_another_length(fmriprep: Scan) -> None:
    assert fmriprep.inputs.confounds is not None
    write_table(fmriprep.inputs.confounds, N_VOLUMES - 2)
    problem = fmriprep.problem()
    assert "another length" in problem
    assert "38 rows" in problem


def test_fmriprep_on_another_grid(fmriprep: Scan) -> None:
    fmriprep.write(fmriprep.values[1:])
    assert "not on the grid of its subject" in fmriprep.problem()


def test_raw_single_slice(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "haxby2001-raw" / "sub-001" / "func"
    if not folder.is_dir():
        pytest.skip("haxby2001-raw is absent")
    from afterimage.stages import reference_bold

    name = "sub-001_task-objectviewing_run-{}_bold"
    runs = tuple(folder / f"{name.format(number)}.nii.gz" for number in ("01", "10"))
    (tmp_path / "dataset_description.json").write_text("{}")
    shared = reference_bold.Outputs(tmp_path / "sub-001_ref.nii.gz", tmp_path / "sub-001_m.nii.gz")
    reference_bold.run(reference_bold.Inputs(runs), shared, reference_bold.Config())
    ends = ("desc-clean_series.nc", "desc-confounds_timeseries.tsv", "desc-bold_quality.nc")
    outputs = Outputs(*(tmp_path / f"sub-001_run-10_{end}" for end in ends))
    sidecars = (folder / f"{name.format('10')}.json",)
    inputs = Inputs(runs[1], sidecars, shared.reference, shared.mask)
    run(inputs, outputs, Config(on_bad_run="fail"))
    with xarray.open_dataset(outputs.quality, engine="h5netcdf") as quality:
        assert quality.attrs["n_volumes"] == 121
        assert 80 < quality.attrs["median_tsnr"] < 150
        assert "within the slice only" in quality.attrs["notes"]
        motion = quality["motion"].values
    assert np.abs(motion[:, [2, 3, 4]]).max() < 1e-9
    assert 0.2 < np.abs(motion[:, 0]).max() < 1.5
    with open_series(outputs.series) as series:
        assert 400 < series.n_units < 520  # 461 by Otsu's threshold on the mean of all runs
        assert series.n_times == 121
