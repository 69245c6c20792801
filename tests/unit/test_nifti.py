"""NIfTI files: read with checks and in blocks, written whole or not at all."""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel
import numpy as np
import pytest

from afterimage.errors import InputError
from afterimage.io.nifti import (
    open_bold,
    read_volume,
    repetition_time_s,
    write_nifti,
    write_nifti_blocks,
)

AFFINE = np.array([[-3.0, 0, 0, 30], [0, 2.9, 0.5, -20], [0, -0.5, 2.9, 5], [0, 0, 0, 1]])


@pytest.fixture
def values() -> np.ndarray:
    return np.random.default_rng(0).normal(100, 10, size=(6, 5, 4, 13)).astype(np.float32)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_round_trip(tmp_path: Path, values: np.ndarray, suffix: str) -> None:
    path = tmp_path / f"bold{suffix}"
    write_nifti(path, values, AFFINE, 2.2)
    image = nibabel.load(path)
    np.testing.assert_array_equal(np.asarray(image.dataobj), values)
    np.testing.assert_allclose(image.get_sform(coded=True)[0], AFFINE, atol=1e-5)
    np.testing.assert_allclose(image.get_qform(), AFFINE, atol=1e-4)
    assert image.header.get_xyzt_units() == ("mm", "sec")
    assert image.header.get_zooms()[3] == pytest.approx(2.2)
    bold = open_bold(path)
    assert (bold.shape, bold.n_volumes) == ((6, 5, 4), 13)
    blocks = list(bold.blocks(volumes_per_block=4))
    assert [start for start, _ in blocks] == [0, 4, 8, 12]
    np.testing.assert_array_equal(np.concatenate([block for _, block in blocks], 3), values)
    assert sum(block.shape[3] for _, block in bold.blocks(7, 4)) == 7


def test_same_values_give_the_same_bytes(tmp_path: Path, values: np.ndarray) -> None:
    for name in ("a.nii.gz", "b.nii.gz"):
        write_nifti(tmp_path / name, values, AFFINE)
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()


def test_scaled_integers_are_scaled(tmp_path: Path, values: np.ndarray) -> None:
    image = nibabel.Nifti1Image(values, AFFINE)
    image.header.set_data_dtype(np.int16)
    nibabel.save(image, tmp_path / "bold.nii.gz")
    _, block = next(open_bold(tmp_path / "bold.nii.gz").blocks())
    assert block.dtype == np.float32
    np.testing.assert_allclose(block, values, atol=0.01)


def test_masks_keep_their_labels(tmp_path: Path) -> None:
    labels = np.arange(60, dtype=np.int64).reshape(3, 4, 5) * 40
    write_nifti(tmp_path / "dseg.nii.gz", labels, AFFINE)
    found, affine = read_volume(tmp_path / "dseg.nii.gz")
    np.testing.assert_array_equal(found, labels)
    np.testing.assert_allclose(affine, AFFINE, atol=1e-5)
    write_nifti(tmp_path / "mask.nii.gz", labels > 0, AFFINE)
    assert read_volume(tmp_path / "mask.nii.gz")[0].dtype == np.uint8


def test_nothing_is_left_of_a_failed_write(tmp_path: Path, values: np.ndarray) -> None:
    with pytest.raises(ValueError, match="values given for an image"):
        write_nifti_blocks(tmp_path / "a.nii.gz", [values], (6, 5, 4, 14), AFFINE)
    assert not list(tmp_path.iterdir())


def test_truncated_files_are_refused(tmp_path: Path, values: np.ndarray) -> None:
    for suffix in (".nii", ".nii.gz"):
        path = tmp_path / f"whole{suffix}"
        write_nifti(path, values, AFFINE, 2.0)
        cut = tmp_path / f"cut{suffix}"
        cut.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        with pytest.raises(InputError, match="cannot be read") as caught:
            open_bold(cut)
        assert str(cut) in caught.value.where
        assert "truncated" in caught.value.fix
    short = tmp_path / "short.nii.gz"
    short.write_bytes(
        gzip.compress(gzip.decompress((tmp_path / "whole.nii.gz").read_bytes())[:-9])
    )
    with pytest.raises(InputError, match="cannot be read"):
        open_bold(short)


def test_pieces_of_gzip_are_read(tmp_path: Path, values: np.ndarray) -> None:
    """The size at the end of such a file is that of its last piece only."""
    write_nifti(tmp_path / "a.nii", values, AFFINE)
    plain = (tmp_path / "a.nii").read_bytes()
    (tmp_path / "b.nii.gz").write_bytes(gzip.compress(plain[:999]) + gzip.compress(plain[999:]))
    _, block = next(open_bold(tmp_path / "b.nii.gz").blocks())
    np.testing.assert_array_equal(block, values)


def test_damaged_data_are_refused(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 30000, (20, 20, 20, 20)).astype(np.int16)
    path = tmp_path / "bold.nii.gz"
    write_nifti(path, noise, AFFINE)
    content = bytearray(path.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 64] = bytes(64)
    path.write_bytes(content)
    with pytest.raises(InputError, match="cannot be read"):
        list(open_bold(path).blocks())


def test_what_is_no_run_is_refused(tmp_path: Path, values: np.ndarray) -> None:
    with pytest.raises(InputError, match="an image is missing"):
        open_bold(tmp_path / "absent.nii.gz")
    (tmp_path / "text.nii").write_text("not an image" * 100)
    with pytest.raises(InputError, match="cannot be read"):
        open_bold(tmp_path / "text.nii")
    write_nifti(tmp_path / "one.nii.gz", values[..., 0], AFFINE)
    with pytest.raises(InputError, match="a run has one volume"):
        open_bold(tmp_path / "one.nii.gz")
    write_nifti(tmp_path / "few.nii.gz", values[..., :4], AFFINE)
    with pytest.raises(InputError, match="too few volumes"):
        open_bold(tmp_path / "few.nii.gz", min_volumes=10)
    with pytest.raises(InputError, match="wrong number of dimensions"):
        read_volume(tmp_path / "few.nii.gz")
    header = nibabel.Nifti1Header()
    header.set_sform(np.array([[3.0, 3, 0, 0], [0, 0, 0, 0], [0, 0, 3, 0], [0, 0, 0, 1]]), 1)
    nibabel.save(nibabel.Nifti1Image(values, None, header), tmp_path / "flat.nii.gz")
    with pytest.raises(InputError, match="orientation of an image"):
        open_bold(tmp_path / "flat.nii.gz")


def run_with(path: Path, zoom: float, unit: str | None) -> Path:
    image = nibabel.Nifti1Image(np.ones((3, 3, 3, 12), dtype=np.float32), AFFINE)
    image.header.set_zooms((3, 3, 3, zoom))
    image.header.set_xyzt_units("mm", unit)
    nibabel.save(image, path)
    return path


@pytest.mark.parametrize(
    ("zoom", "unit", "sidecar", "expected", "n_notes"),
    [
        (2.0, "sec", 2.0, 2.0, 0),
        (2.0004, "sec", 2.0, 2.0, 0),  # rounding
        (2000.0, "msec", 2.0, 2.0, 0),
        (2000.0, "sec", 2.0, 2.0, 1),  # milliseconds, said to be seconds
        (2000.0, None, 2.0, 2.0, 1),
        (1.0, None, 2.0, 2.0, 0),  # a header nobody filled in
        (0.0, "sec", 2.0, 2.0, 0),
        (2.5, "sec", None, 2.5, 1),
    ],
)
def test_repetition_time(
    tmp_path: Path, zoom: float, unit: str, sidecar: float | None, expected: float, n_notes: int
) -> None:
    bold = open_bold(run_with(tmp_path / "bold.nii.gz", zoom, unit))
    stated = {} if sidecar is None else {"RepetitionTime": sidecar}
    t_r_s, notes = repetition_time_s(bold, stated)
    assert t_r_s == pytest.approx(expected, abs=1e-6)
    assert len(notes) == n_notes


def test_contradicting_repetition_times(tmp_path: Path) -> None:
    bold = open_bold(run_with(tmp_path / "bold.nii.gz", 2.5, "sec"))
    with pytest.raises(InputError, match="contradicts the sidecar") as caught:
        repetition_time_s(bold, {"RepetitionTime": 2.0})
    assert "2.5 s in the header, 2 s in the sidecar" in caught.value.found
    assert repetition_time_s(bold, {"RepetitionTime": 2.0}, "sidecar")[0] == 2.0
    assert repetition_time_s(bold, {"RepetitionTime": 2.0}, "header")[0] == 2.5
    with pytest.raises(InputError, match="not a number"):
        repetition_time_s(bold, {"RepetitionTime": "2.5 s"})
    unset = open_bold(run_with(tmp_path / "unset.nii.gz", 0.0, None))
    with pytest.raises(InputError, match="no repetition time"):
        repetition_time_s(unset, {})
    with pytest.raises(InputError, match="not possible"):
        repetition_time_s(unset, {"RepetitionTime": 2000})


def test_volume_timing(tmp_path: Path) -> None:
    unset = open_bold(run_with(tmp_path / "unset.nii.gz", 0.0, None))
    even = {"VolumeTiming": (3.0 * np.arange(12)).tolist()}
    assert repetition_time_s(unset, even)[0] == pytest.approx(3.0)
    uneven = {"VolumeTiming": (np.arange(12) ** 2).tolist()}
    with pytest.raises(InputError, match="not evenly spaced"):
        repetition_time_s(unset, uneven)
