"""Regions of a subject: atlases, masks, clusters; against nilearn's maskers, and what is refused."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel
import numpy as np
import pytest

from afterimage.errors import InputError
from afterimage.io.nifti import write_nifti
from afterimage.io.series import write_series
from afterimage.io.tables import read_tsv, write_tsv
from afterimage.preprocess.fmri.masks import voxel_coordinates
from afterimage.preprocess.fmri.parcels import cluster_voxels, extract
from afterimage.stages.parcellate import Config, Inputs, Outputs, read_parcels, run

made = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[1] / "series_example.py")))
AFFINE, SHAPE, make_mask, slabs = made.AFFINE, made.SHAPE, made.make_mask, made.slabs
N_TIMES, T_R_S = 40, 2.0


class Study:
    """One subject of one run on disk.

    Parameters
    ----------
    folder : Path
    """

    def __init__(self, folder: Path) -> None:
        rng = np.random.default_rng(0)
        self.folder, self.mask = folder, make_mask()
        (folder / "dataset_description.json").write_text(json.dumps({"Name": "x"}))
        self.values = 100 + rng.standard_normal((N_TIMES, int(self.mask.sum()))).astype(np.float32)
        self.series = folder / "sub-1_task-rest_desc-clean_series.nc"
        attributes = {
            "t_r_s": T_R_S, "start_time_s": 0.0, "source": "raw", "affine": AFFINE.ravel(),
            "shape": np.array(SHAPE),
        }  # fmt: skip
        write_series(
            self.series, self.values, voxel_coordinates(self.mask, AFFINE), attributes,
            np.zeros(N_TIMES, dtype=bool),
        )  # fmt: skip
        self.mask_file = folder / "sub-1_desc-brain_mask.nii.gz"
        write_nifti(self.mask_file, self.mask, AFFINE)

    def write(self, name: str, image: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
        """Write an image."""
        write_nifti(self.folder / name, image, affine)
        return self.folder / name

    def table(self, name: str, *rows: dict[str, Any]) -> Path:
        """Write a table."""
        write_tsv(self.folder / name, rows, list(rows[0]))
        return self.folder / name

    def parcellate(
        self, seg: str, atlas: tuple[Path, ...] = (), rois: tuple[Path, ...] = (),
        bold: str = "sub-1_task-rest_bold.nii.gz", **config: Any,
    ) -> Any:  # fmt: skip
        """Run the stage; return what `read_parcels` reads, and the table."""
        outputs = Outputs(
            self.folder / f"sub-1_seg-{seg}_parcels.nc",
            self.folder / f"sub-1_seg-{seg}_parcels.tsv",
        )
        inputs = Inputs(
            (self.series,), (Path(bold),), self.mask_file,
            self.folder / "dataset_description.json", atlas, rois,
        )  # fmt: skip
        run(inputs, outputs, Config(**config))
        return *read_parcels(outputs.parcels), read_tsv(outputs.table)


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return Study(tmp_path)


def image_of(study: Study) -> nibabel.Nifti1Image:
    volume = np.zeros((*SHAPE, N_TIMES), dtype=np.float32)
    volume[study.mask] = study.values.T
    return nibabel.Nifti1Image(volume, AFFINE)


def test_signals_of_labels_equal_nilearn(study: Study) -> None:
    from nilearn.maskers import NiftiLabelsMasker

    path = study.write("atlas.nii.gz", slabs())
    parcels, centres, _, rows = study.parcellate("slabs", (path,))
    found = extract(lambda s: study.values[:, s], parcels, n_voxels_batch=37)
    masker = NiftiLabelsMasker(
        str(path), mask_img=str(study.mask_file), standardize=None, resampling_target=None
    )
    np.testing.assert_allclose(found, masker.fit_transform(image_of(study)), atol=1e-4)
    assert parcels.names.tolist() == ["region0001", "region0002", "region0003", "region0004"]
    assert (np.diff(centres["y"]) > 0).all()
    assert [row["status"] for row in rows] == ["used"] * 4
    # The table numbers what the image beside it holds.
    written = nibabel.load(study.folder / "sub-1_seg-slabs_dseg.nii.gz").get_fdata()
    np.testing.assert_array_equal(written, np.where(study.mask, slabs(), 0))


def test_signals_of_overlapping_maps_equal_nilearn(study: Study) -> None:
    from nilearn.maskers import NiftiMapsMasker

    y = np.arange(SHAPE[1])
    maps = np.stack([np.exp(-((y - m) ** 2) / 8) for m in (2, 5, 9)], -1).astype(np.float32)
    maps = np.broadcast_to(maps[None, :, None], (*SHAPE, 3)).copy()
    path = study.write("maps.nii.gz", maps)
    parcels, _, _, _ = study.parcellate("maps", (path,))
    assert parcels.overlap
    found = extract(lambda s: study.values[:, s], parcels, n_voxels_batch=50)
    masker = NiftiMapsMasker(
        str(path), mask_img=str(study.mask_file), standardize=None, resampling_target=None
    )
    np.testing.assert_allclose(found, masker.fit_transform(image_of(study)), atol=1e-3)


def test_an_atlas_on_another_grid_of_the_same_space_is_resampled(study: Study) -> None:
    fine = np.kron(slabs(), np.ones((2, 2, 2), dtype=np.int32))
    affine = np.diag([1.5, 1.5, 1.5, 1.0])
    affine[:3, 3] = AFFINE[:3, 3] - 0.75
    path = study.write("fine.nii.gz", fine, affine)
    parcels, _, _, _ = study.parcellate("fine", (path,))
    labels = slabs()[study.mask]
    expected = np.bincount(labels, minlength=5)[1:]
    # Where the middle of a voxel is on the edge of two, either may be taken.
    assert np.abs(parcels.n_voxels - expected).max() <= 0.15 * expected.max()
    assert (parcels.coverage > 0.2).all()
    assert (parcels.coverage <= 1).all()


def test_names_and_networks_come_from_the_table(study: Study) -> None:
    path = study.write("atlas_dseg.nii.gz", slabs(2))
    table = study.table(
        "atlas_dseg.tsv",
        {"index": 0, "name": "background", "network": "n/a"},
        {"index": 2, "name": "back", "network": "Visual"},
        {"index": 1, "name": "front", "network": "Default"},
    )
    parcels, _, _, _ = study.parcellate("two", (path, table))
    assert parcels.names.tolist() == ["front", "back"]
    assert parcels.network.tolist() == ["Default", "Visual"]


def test_regions_without_voxels_are_listed_and_left_out(study: Study) -> None:
    labels = slabs()
    labels[0, 0, 0] = 9  # a corner, outside the brain
    assert not study.mask[0, 0, 0]
    parcels, _, about, rows = study.parcellate("corner", (study.write("a.nii.gz", labels),))
    assert "region0009" not in parcels.names
    assert "1 regions have no voxels in the brain" in about["notes"]
    assert rows[-1]["status"] == "no voxels in the brain mask"
    assert rows[-1]["coverage"] == "0"


def test_masks_of_regions_become_regions(study: Study) -> None:
    back, front = slabs(2) == 2, slabs(2) == 1
    rois = (
        study.write("sub-1_label-V1_mask.nii.gz", back),
        study.write("sub-1_label-FFA_mask.nii.gz", front),
    )
    parcels, _, about, _ = study.parcellate("rois", rois=rois)
    assert parcels.names.tolist() == ["FFA", "V1"]
    assert parcels.n_voxels.tolist() == [(front & study.mask).sum(), (back & study.mask).sum()]
    assert not about["individual"]


@pytest.mark.parametrize("method", ["ward", "rena", "kmeans"])
def test_clusters_find_planted_regions(method: str) -> None:
    from sklearn.metrics import adjusted_rand_score

    mask = np.ones((12, 12, 6), dtype=bool)
    truth = (np.arange(12)[:, None, None] // 6 * 2 + np.arange(12)[None, :, None] // 6) * np.ones(
        (1, 1, 6), int
    )
    rng = np.random.default_rng(0)
    series = rng.standard_normal((80, 4))[:, truth[mask]] + 0.7 * rng.standard_normal((80, 864))
    found = cluster_voxels(series, mask, 4, method)
    assert sorted(set(found.tolist())) == [1, 2, 3, 4]
    assert adjusted_rand_score(truth[mask], found) > (0.9 if method != "rena" else 0.6)
    np.testing.assert_array_equal(found, cluster_voxels(series, mask, 4, method))
    assert found[0] == 1


def test_clusters_are_each_persons_own(study: Study) -> None:
    parcels, _, about, _ = study.parcellate("clusters", n_parcels=6)
    assert len(parcels.names) == 6
    assert parcels.n_voxels.sum() == study.mask.sum()
    assert about["individual"] == 1
    assert "6 clusters of voxels (ward)" in about["notes"]


def test_an_atlas_somewhere_else_is_refused(study: Study) -> None:
    far = AFFINE.copy()
    far[:3, 3] += 24
    with pytest.raises(InputError, match="another space") as caught:
        study.parcellate("far", (study.write("far.nii.gz", slabs(), far),))
    assert "% of its labelled volume lies in the brain mask" in caught.value.found


@pytest.mark.parametrize(
    ("atlas", "bold", "fits"),
    [
        ("tpl-MNI152NLin2009cAsym_atlas-A_dseg.nii.gz", "sub-1_task-rest_bold.nii.gz", False),
        ("Schaefer2018_FSLMNI152_2mm.nii.gz", "sub-1_task-rest_space-T1w_bold.nii.gz", False),
        ("Schaefer2018_FSLMNI152_2mm.nii.gz", "sub-1_space-MNI152NLin2009cAsym_bold.nii.gz", True),
        ("sub-1_space-T1w_dseg.nii.gz", "sub-1_task-rest_space-T1w_bold.nii.gz", True),
        ("mine.nii.gz", "sub-1_task-rest_bold.nii.gz", True),
    ],
)
def test_names_of_spaces_must_agree(study: Study, atlas: str, bold: str, fits: bool) -> None:
    path = study.write(atlas, slabs())
    if fits:
        study.parcellate("a", (path,), bold=bold)
        return
    with pytest.raises(InputError, match="another space"):
        study.parcellate("a", (path,), bold=bold)
    study.parcellate("a", (path,), bold=bold, trust_space=True)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([(1, "a"), (2, "b"), (3, "c")], "does not belong"),
        ([(1, "a"), (2, "b"), (3, "c"), (4, "d"), (7, "e")], "does not belong"),
        ([(1, "a"), (2, "b"), (3, "c"), (3, "d")], "entry twice"),
        ([(1, "a"), (2, "b"), (3, "c"), (4, "c")], "entry twice"),
        ([(1, "a"), (2, "b"), (3, "c"), ("x", "d")], "no number"),
    ],
)
def test_wrong_tables_are_refused(study: Study, rows: Any, message: str) -> None:
    path = study.write("atlas.nii.gz", slabs())
    table = study.table("atlas.tsv", *[{"index": i, "name": n} for i, n in rows])
    with pytest.raises(InputError, match=message):
        study.parcellate("a", (path, table))


def test_images_that_are_no_atlas_are_refused(study: Study) -> None:
    smooth = study.write("smooth.nii.gz", slabs() * np.float32(0.37))
    with pytest.raises(InputError, match="no labels"):
        study.parcellate("a", (smooth,))
    with pytest.raises(InputError, match="empty"):
        study.parcellate("a", (study.write("empty.nii.gz", np.zeros(SHAPE, np.int32)),))
    with pytest.raises(InputError, match="fewer than two regions"):
        study.parcellate("a", (study.write("one.nii.gz", study.mask.astype(np.int32)),))
    maps = study.write("maps.nii.gz", np.ones((*SHAPE, 2), np.float32))
    table = study.table("maps.tsv", {"index": 1, "name": "a"})
    with pytest.raises(InputError, match="does not belong"):
        study.parcellate("a", (maps, table), min_overlap=0)
