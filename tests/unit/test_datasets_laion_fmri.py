"""The reader of LAION-fMRI, on miniature files in the layout of its public package."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import h5py
import nibabel
import numpy as np
import pytest
from PIL import Image

from afterimage.datasets.laion_fmri import LaionFmri, LaionFmriSettings
from afterimage.errors import ConfigError, InputError
from afterimage.io.images import read_image
from afterimage.io.tables import read_tsv

SHAPE = (4, 5, 3)
RNG = np.random.default_rng(0)
R2 = RNG.uniform(0, 40, size=SHAPE).astype(np.float32)
MASK = R2 > 15
CEILING = RNG.uniform(0, 100, size=SHAPE).astype(np.float32)
REGION = RNG.random(SHAPE) < 0.4
AFFINE = np.diag([1.778, 1.778, 1.778, 1.0])
TRAIN = ["shared_12rep_LAION_cluster_1003_i0.jpg", "unique_LAION_cluster_2817_i38_p01.jpg"]
TEST = ["shared_4rep_LAION_cluster_77_i2.jpg"]
OUTSIDE = ["shared_4rep_OOD_gabor_3.png"]
LABELS = {1: [*TRAIN, *TEST, TRAIN[0]], 2: [*OUTSIDE, *TEST, TRAIN[0], TRAIN[0], TRAIN[1]]}
VALUES = {n: RNG.normal(size=(*SHAPE, len(v))).astype(np.float32) for n, v in LABELS.items()}


def save(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(values, AFFINE), path)


def folder_of(source: Path) -> Path:
    return source / "derivatives" / "glmsingle-tedana" / "sub-03"


def trials_of(source: Path, number: int) -> Path:
    place = folder_of(source) / f"ses-{number:02d}" / "func"
    return place / f"sub-03_ses-{number:02d}_task-images_desc-SingletrialBetas_trials.tsv"


def write_trials(source: Path, number: int, indices: list[int]) -> None:
    rows = [f"ses-{number:02d}\trun-01\t{index}\t{LABELS[number][index]}\n" for index in indices]
    trials_of(source, number).write_text("session\trun\tbeta_index\tlabel\n" + "".join(rows))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "laion"
    prefix = "sub-03_task-images_space-T1w"
    for number, values in VALUES.items():
        name = f"sub-03_ses-{number:02d}_task-images_space-T1w_stat-effect_desc-SingletrialBetas"
        save(folder_of(folder) / f"ses-{number:02d}" / "func" / f"{name}_statmap.nii.gz", values)
    write_trials(folder, 1, [0, 1, 2, 3])
    write_trials(folder, 2, [4, 0, 3, 1, 2])  # the order of the rows is that of beta_index
    save(folder_of(folder) / f"{prefix}_stat-rsquare_desc-R2mean_statmap.nii.gz", R2)
    save(folder_of(folder) / f"{prefix}_desc-Noiseceiling12rep_statmap.nii.gz", CEILING)
    rois = folder / "derivatives" / "rois" / "sub-03"
    save(rois / "sub-03_space-T1w_label-hlvis_mask.nii.gz", REGION.astype(np.uint8))
    save(rois / "sub-03_space-MNI_label-V1_mask.nii.gz", np.ones((9, 9, 9), np.uint8))
    for pool in ("sub-03", "shared"):
        path = folder / "splits" / "data" / pool / "tau.json"
        path.parent.mkdir(parents=True)
        train = TRAIN if pool == "sub-03" else TRAIN[:1]
        variant = {"variant_id": 0, "train_ids": train, "test_ids": TEST}
        path.write_text(json.dumps({"name": "tau", "pool": pool, "variants": [variant]}))
    add_pictures(folder)
    return folder


def encoded(number: int) -> bytes:
    buffer = io.BytesIO()
    picture = np.full((8, 8, 3), 40 * number, np.uint8)
    Image.fromarray(picture).save(buffer, format="JPEG", quality=100)
    return buffer.getvalue()


def add_pictures(folder: Path) -> None:
    """Write the archive of pictures: encoded bytes, in the order of the table."""
    (folder / "stimuli").mkdir()
    names = [*OUTSIDE, *TEST, *TRAIN]
    rows = "".join(f"{name},LAION,sub-03,shared,12\n" for name in names)
    table = folder / "stimuli" / "task-images_metadata.csv"
    table.write_text("image_name,dataset,participant,unique_or_shared,n_reps\n" + rows)
    with h5py.File(folder / "stimuli" / "task-images_stimuli.h5", "w") as file:
        images = file.create_dataset("images", (len(names),), dtype=h5py.vlen_dtype(np.uint8))
        for number in range(len(names)):
            images[number] = np.frombuffer(encoded(number), np.uint8)


def convert(source: Path, **options: Any) -> tuple[Path, list[str]]:
    target = source.parent / "out"
    notes = LaionFmri(LaionFmriSettings(**options)).convert(source, target, (), print)
    return target, notes


def responses(target: Path) -> np.ndarray:
    return np.load(target / "sub-03/sub-03_responses.npy")


def expected(mask: np.ndarray, labels: set[str]) -> np.ndarray:
    return np.array(
        [
            VALUES[number][mask][:, trial]
            for number, shown in LABELS.items()
            for trial, label in enumerate(shown)
            if label in labels
        ]
    )


def test_trials_of_the_split_with_their_betas(source: Path) -> None:
    target, notes = convert(source)
    np.testing.assert_array_equal(responses(target), expected(MASK, {*TRAIN, *TEST}))
    trials = read_tsv(target / "sub-03/sub-03_trials.tsv")
    shown = [label for labels in LABELS.values() for label in labels if label not in OUTSIDE]
    assert [row["stimulus_id"] for row in trials] == shown
    assert {row["stimulus_id"] for row in trials if row["split"] == "test"} == set(TEST)
    assert [row["session"] for row in trials] == ["01"] * 4 + ["02"] * 4
    assert {row["run"] for row in trials} == {"01"}
    assert any("1 trials of pictures outside the split tau (subject)" in note for note in notes)


def test_units_have_regions_and_ceilings(source: Path) -> None:
    target, _ = convert(source)
    units = read_tsv(target / "sub-03/sub-03_units.tsv")
    assert [unit["roi"] for unit in units] == np.where(REGION[MASK], "hlvis", "n/a").tolist()
    found = [float(unit["noiseceiling12rep_percent"]) for unit in units]
    np.testing.assert_allclose(found, CEILING[MASK], rtol=1e-6)
    target, _ = convert(source, roi="hlvis")
    found = responses(target)
    np.testing.assert_array_equal(found, expected(MASK & REGION, {*TRAIN, *TEST}))
    with pytest.raises(InputError, match="no such region"):
        convert(source, roi="V9")


def test_shared_pool_and_no_split(source: Path) -> None:
    target, _ = convert(source, pool="shared")
    np.testing.assert_array_equal(responses(target), expected(MASK, {TRAIN[0], *TEST}))
    target, _ = convert(source, split="none")
    assert len(responses(target)) == 9
    assert "split" not in read_tsv(target / "sub-03/sub-03_trials.tsv")[0]


def test_published_mask_is_taken_where_it_is(source: Path) -> None:
    path = folder_of(source) / "sub-03_task-images_space-T1w_desc-meanR2gt15mask_mask.nii.gz"
    save(path, REGION.astype(np.uint8))
    target, _ = convert(source)
    np.testing.assert_array_equal(responses(target), expected(REGION, {*TRAIN, *TEST}))


def test_names_of_an_earlier_release(source: Path) -> None:
    for number in LABELS:
        place = trials_of(source, number).parent
        stem = f"sub-03_ses-{number:02d}_task-images"
        next(place.glob("*_statmap.nii.gz")).rename(
            place / f"{stem}_desc-singletrial_stat-effect_statmap.nii.gz"
        )
        trials_of(source, number).rename(place / f"{stem}_desc-GLMsingle_events.tsv")
    target, _ = convert(source)
    np.testing.assert_array_equal(responses(target), expected(MASK, {*TRAIN, *TEST}))


def test_pictures_come_out_of_the_archive(source: Path) -> None:
    target, _ = convert(source)
    names = sorted(path.name for path in (target / "stimuli").iterdir())
    assert names == sorted([*TRAIN, *TEST])
    picture = read_image(target / "stimuli" / TRAIN[1])
    assert abs(picture.astype(int) - 120).max() <= 2
    (source / "stimuli" / "task-images_stimuli.h5").unlink()
    _, notes = convert(source)
    assert any("https://laion-fmri.hebartlab.com/request" in note for note in notes)


def test_picture_that_is_not_in_the_table(source: Path) -> None:
    table = source / "stimuli" / "task-images_metadata.csv"
    table.write_text(table.read_text().replace(TRAIN[0], "other.jpg"))
    with pytest.raises(InputError, match="not in the table of pictures") as caught:
        convert(source)
    assert TRAIN[0] in caught.value.found


def test_missing_split(source: Path) -> None:
    (source / "splits" / "data" / "sub-03" / "tau.json").unlink()
    with pytest.raises(InputError, match="published split is missing") as caught:
        convert(source)
    assert "pip install laion-fmri" in caught.value.fix
    with pytest.raises(ConfigError, match="no such split"):
        LaionFmri(LaionFmriSettings(split="best"))


def test_picture_in_two_splits(source: Path) -> None:
    path = source / "splits" / "data" / "sub-03" / "tau.json"
    path.write_text(json.dumps({"variants": [{"train_ids": TEST, "test_ids": TEST}]}))
    with pytest.raises(InputError, match="in two splits"):
        convert(source)


def test_index_that_counts_from_1(source: Path) -> None:
    path = trials_of(source, 1)
    header, *rows = path.read_text().splitlines()
    cells = [row.split("\t") for row in rows]
    moved = ["\t".join([*cell[:2], str(int(cell[2]) + 1), cell[3]]) for cell in cells]
    path.write_text("\n".join([header, *moved]) + "\n")
    with pytest.raises(InputError, match="does not count from 0") as caught:
        convert(source)
    assert caught.value.found == "1 to 4"


def test_table_of_another_length(source: Path) -> None:
    write_trials(source, 1, [0, 1, 2])
    with pytest.raises(InputError, match="betas and trials differ in number"):
        convert(source)


def test_session_that_is_not_whole(source: Path) -> None:
    trials_of(source, 2).unlink()
    with pytest.raises(InputError, match="not complete"):
        convert(source)
    target, _ = convert(source, sessions="1")
    assert len(responses(target)) == 4


def test_mask_of_another_grid(source: Path) -> None:
    path = (
        folder_of(source) / "sub-03_task-images_space-T1w_stat-rsquare_desc-R2mean_statmap.nii.gz"
    )
    save(path, R2.transpose(2, 1, 0))
    with pytest.raises(InputError, match="reverse order"):
        convert(source)
    path.unlink()
    with pytest.raises(InputError, match="mask of a subject is missing"):
        convert(source)
