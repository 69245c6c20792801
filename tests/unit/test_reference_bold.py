"""The reference image and the brain mask of a subject, whatever some of its files are like."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from afterimage.errors import InputError
from afterimage.io.nifti import read_volume, write_nifti
from afterimage.stages.reference_bold import Config, Inputs, Outputs, run

SHAPE = (20, 22, 14)
AFFINE = np.array([[-3.0, 0, 0, 30], [0, 3.0, 0, -33], [0, 0, 3.0, -18], [0, 0, 0, 1]])


def inside() -> np.ndarray:
    axes = np.meshgrid(*[np.linspace(-1, 1, size) for size in SHAPE], indexing="ij")
    return np.asarray(sum(axis**2 for axis in axes) < 0.65)


def head() -> np.ndarray:
    texture = gaussian_filter(np.random.default_rng(0).standard_normal(SHAPE), 1.3)
    return np.where(inside(), 800 + 80 * texture / texture.std(), 15).astype(np.float32)


def write_run(path: Path, affine: np.ndarray = AFFINE, n_volumes: int = 20) -> Path:
    noise = np.random.default_rng(1).normal(0, 8, (*SHAPE, n_volumes))
    write_nifti(path, (head()[..., None] + noise).astype(np.float32), affine, 2.0)
    return path


@pytest.fixture
def outputs(tmp_path: Path) -> Outputs:
    (tmp_path / "dataset_description.json").write_text("{}")
    return Outputs(
        tmp_path / "sub-01_desc-reference_boldref.nii.gz",
        tmp_path / "sub-01_desc-brain_mask.nii.gz",
    )


def records(outputs: Outputs) -> list[Path]:
    return list((outputs.mask.parent / "logs" / "errors").glob("reference_bold*"))


def test_reference_and_mask_of_raw_runs(tmp_path: Path, outputs: Outputs) -> None:
    bold = tuple(write_run(tmp_path / f"sub-01_run-{k}_bold.nii.gz") for k in (1, 2))
    run(Inputs(bold), outputs, Config())
    reference, affine = read_volume(outputs.reference)
    mask, _ = read_volume(outputs.mask)
    np.testing.assert_allclose(affine, AFFINE)
    assert np.abs(reference - head())[inside()].mean() < 5
    assert 2 * (mask & inside()).sum() / (mask.sum() + inside().sum()) > 0.93
    sidecar = json.loads(outputs.mask.with_name("sub-01_desc-brain_mask.json").read_text())
    assert sidecar["SourceFile"] == "sub-01_run-1_bold.nii.gz"
    assert sidecar["NVoxels"] == mask.sum()
    assert not records(outputs)


def test_runs_that_cannot_be_read_are_passed_over(tmp_path: Path, outputs: Outputs) -> None:
    cut = write_run(tmp_path / "sub-01_run-1_bold.nii.gz")
    cut.write_bytes(cut.read_bytes()[:5000])
    short = write_run(tmp_path / "sub-01_run-2_bold.nii.gz", n_volumes=1)
    whole = write_run(tmp_path / "sub-01_run-3_bold.nii.gz")
    run(Inputs((cut, short, whole)), outputs, Config())
    sidecar = json.loads(outputs.mask.with_name("sub-01_desc-brain_mask.json").read_text())
    assert sidecar["SourceFile"] == whole.name
    with pytest.raises(InputError, match="no run of a subject can be read"):
        run(Inputs((cut, short)), outputs, Config())


def test_given_masks_are_intersected(tmp_path: Path, outputs: Outputs) -> None:
    bold = write_run(tmp_path / "sub-01_run-1_bold.nii.gz")
    halves = [np.zeros(SHAPE, dtype=np.uint8) for _ in range(2)]
    halves[0][:14], halves[1][6:] = 1, 1
    paths = tuple(tmp_path / f"sub-01_run-{k}_desc-brain_mask.nii.gz" for k in (1, 2))
    for path, half in zip(paths, halves, strict=True):
        write_nifti(path, half, AFFINE)
    run(Inputs((bold,), paths), outputs, Config())
    np.testing.assert_array_equal(read_volume(outputs.mask)[0] > 0, (halves[0] * halves[1]) > 0)


def test_a_mask_of_another_shape_is_left_out_and_recorded(
    tmp_path: Path, outputs: Outputs
) -> None:
    bold = write_run(tmp_path / "sub-01_run-1_bold.nii.gz")
    wrong = tmp_path / "sub-01_desc-other_mask.nii.gz"
    write_nifti(wrong, np.ones((20, 22, 13), dtype=np.uint8), AFFINE)
    run(Inputs((bold,), (wrong,)), outputs, Config())
    assert 2 * (read_volume(outputs.mask)[0] & inside()).sum() > 1.8 * inside().sum()
    message = json.loads(records(outputs)[0].read_text())["message"]
    assert "another shape" in message
    assert str(wrong) in message
    assert "sub-01" in message
    with pytest.raises(InputError, match="another shape"):
        run(Inputs((bold,), (wrong,)), outputs, Config(on_bad_run="fail"))


def test_fmriprep_reference_is_taken(tmp_path: Path, outputs: Outputs) -> None:
    bold = write_run(tmp_path / "sub-01_task-x_space-T1w_desc-preproc_bold.nii.gz")
    boldref = tmp_path / "sub-01_task-x_space-T1w_boldref.nii.gz"
    write_nifti(boldref, head() * 2, AFFINE)
    run(Inputs((bold,), (), (boldref,)), outputs, Config())
    np.testing.assert_array_equal(read_volume(outputs.reference)[0], head() * 2)


def test_mask_keeps_what_all_runs_cover(tmp_path: Path, outputs: Outputs) -> None:
    whole = write_run(tmp_path / "sub-01_run-1_bold.nii.gz")
    cut = tmp_path / "sub-01_run-2_bold.nii.gz"
    noise = np.random.default_rng(2).normal(0, 8, (20, 22, 9, 20))
    write_nifti(cut, (head()[:, :, :9, None] + noise).astype(np.float32), AFFINE, 2.0)
    run(Inputs((whole, cut)), outputs, Config())
    mask = read_volume(outputs.mask)[0]
    assert mask[:, :, :8].any()
    assert not mask[:, :, 10:].any()
    notes = json.loads(outputs.mask.with_name("sub-01_desc-brain_mask.json").read_text())["Notes"]
    assert "some run does not cover them" in notes[0]
    run(Inputs((whole, cut)), outputs, Config(min_coverage=0.95))
    assert read_volume(outputs.mask)[0][:, :, 10:].any()
