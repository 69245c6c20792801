"""The reader of THINGS-fMRI, on miniature tables and runs in the published layout."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import h5py
import nibabel
import numpy as np
import pytest

from afterimage.bids.events import read_events
from afterimage.bids.index import index_dataset
from afterimage.datasets.things_fmri import ThingsFmri, ThingsFmriSettings
from afterimage.errors import InputError
from afterimage.io.tables import read_tsv

#: trial_type, stimulus, concept, session, run: in the order of the columns of the responses.
TRIALS = [
    ("train", "dog_12s.jpg", "dog", 1, 1),
    ("test", "dog_01b.jpg", "dog", 1, 1),
    ("train", "wind_chime_03n.jpg", "wind_chime", 1, 2),
    ("test", "fan_05s.jpg", "fan", 1, 2),
    ("train", "aardvark_02s.jpg", "aardvark", 2, 1),
    ("test", "fan_05s.jpg", "fan", 2, 1),
    ("test", "dog_01b.jpg", "dog", 2, 1),
]
SHAPE = (5, 6, 4)
MASK = np.random.default_rng(0).random(SHAPE) < 0.3
INDICES = np.argwhere(MASK)
N_VOXELS = len(INDICES)
BETAS = np.random.default_rng(1).normal(size=(N_VOXELS, len(TRIALS)))
REGIONS = {
    "V1": np.arange(N_VOXELS) % 3 == 0,
    "LO1 (prf)": np.arange(N_VOXELS) % 5 == 1,
    "lFFA": np.arange(N_VOXELS) % 6 == 0,
}
AFFINE = np.array([[-2.0, 0, 0, 90], [0, 2, 0, -126], [0, 0, 2, -72], [0, 0, 0, 1]])


def save_responses(path: Path, betas: np.ndarray, pickled: bool = True) -> None:
    """Write what ``DataFrame.to_hdf`` writes for a column voxel_id and numbered trials.

    Blocks of one type: float64 responses first, the integer ids behind them. The names of numbered
    columns are pickled objects, those of text columns are bytes.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        group = file.create_group("ResponseData")
        group.attrs.update({"pandas_type": np.bytes_(b"frame"), "nblocks": 2, "ndim": 2})
        group["axis1"] = np.arange(len(betas))
        group["block0_values"] = betas.astype(np.float64)
        names = np.arange(betas.shape[1])
        if pickled:
            bomb = np.frombuffer(pickle.dumps(names), np.uint8)
            items = group.create_dataset("block0_items", (1,), dtype=h5py.vlen_dtype(np.uint8))
            items[0] = bomb
        else:
            group["block0_items"] = names.astype("S8")
        group["block1_values"] = 100 + np.arange(len(betas))[:, None]
        group["block1_items"] = np.array([b"voxel_id"])


def save_tables(prefix: str, separator: str, endings: tuple[str, str]) -> None:
    header = separator.join(["", "trial_type", "session", "run", "stimulus", "concept"])
    rows = [
        separator.join(map(str, (n, kind, session, run, stimulus, concept)))
        for n, (kind, stimulus, concept, session, run) in enumerate(TRIALS)
    ]
    Path(prefix + endings[0]).write_text("\n".join([header, *rows]) + "\n")
    columns = ["voxel_id", "voxel_x", "voxel_y", "voxel_z", "nc_singletrial", "nc_testset"]
    lines = [separator.join([*columns, "prf-size", *REGIONS])]
    for v, index in enumerate(INDICES):
        cells = [100 + v, *index, 0.5 * v, 0.7 * v, 1.0, *(int(r[v]) for r in REGIONS.values())]
        lines.append(separator.join(map(str, cells)))
    Path(prefix + endings[1]).write_text("\n".join(lines) + "\n")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Subject 02, as unpacked from ``betas_csv.zip``."""
    folder = tmp_path / "things" / "betas_csv"
    save_responses(folder / "sub-02_ResponseData.h5", BETAS)
    endings = ("StimulusMetadata.csv", "VoxelMetadata.csv")
    save_tables(f"{folder}/sub-02_", ",", endings)
    (folder / "brainmasks").mkdir()
    image = nibabel.Nifti1Image(MASK.astype(np.uint8), AFFINE)
    nibabel.save(image, folder / "brainmasks" / "sub-02_space-T1w_brainmask.nii.gz")
    pictures = tmp_path / "things" / "images_THINGS" / "object_images"
    for concept, name in {(trial[2], trial[1]) for trial in TRIALS}:
        (pictures / concept).mkdir(parents=True, exist_ok=True)
        (pictures / concept / name).write_bytes(b"picture")
    return folder.parent


def convert(source: Path, **options: Any) -> tuple[Path, list[str]]:
    target = source.parent / "out"
    notes = ThingsFmri(ThingsFmriSettings(**options)).convert(source, target, (), print)
    return target, notes


def responses(target: Path) -> np.ndarray:
    return np.load(target / "sub-02/sub-02_responses.npy")


INSIDE = np.logical_or.reduce(list(REGIONS.values()))


def test_betas_of_every_region_trial_by_trial(source: Path) -> None:
    before = {p: p.read_bytes() for p in source.rglob("*") if p.is_file()}
    target, notes = convert(source)
    assert {p: p.read_bytes() for p in source.rglob("*") if p.is_file()} == before
    np.testing.assert_array_equal(responses(target), BETAS[INSIDE].T.astype(np.float32))
    trials = read_tsv(target / "sub-02/sub-02_trials.tsv")
    assert [row["stimulus_id"] for row in trials] == [trial[1] for trial in TRIALS]
    assert [row["split"] for row in trials] == [trial[0] for trial in TRIALS]
    assert [row["repeat"] for row in trials] == ["0", "0", "0", "0", "0", "1", "1"]
    assert any("1 of 2 test concepts are also trained on (1 trials" in note for note in notes)
    assert index_dataset(target)[0]["problem"] == "n/a"


def test_units_have_regions_positions_and_ceilings(source: Path) -> None:
    target, _ = convert(source)
    units = read_tsv(target / "sub-02/sub-02_units.tsv")
    voxels = np.flatnonzero(INSIDE)
    assert [int(unit["voxel_id"]) for unit in units] == (100 + voxels).tolist()
    places = INDICES[voxels] @ AFFINE[:3, :3].T + AFFINE[:3, 3]
    np.testing.assert_allclose([[float(u[a]) for a in "xyz"] for u in units], places)
    for unit, voxel in zip(units, voxels, strict=True):
        inside = [name for name, region in REGIONS.items() if region[voxel]]
        assert (unit["roi"], unit["rois"]) == (inside[0], ";".join(inside))
        assert float(unit["nc_testset"]) == pytest.approx(0.7 * voxel)


def test_regions_can_be_chosen(source: Path) -> None:
    target, _ = convert(source, roi="lFFA,V1")
    chosen = REGIONS["lFFA"] | REGIONS["V1"]
    np.testing.assert_array_equal(responses(target), BETAS[chosen].T.astype(np.float32))
    target, _ = convert(source, roi="all")
    assert responses(target).shape == (len(TRIALS), N_VOXELS)
    with pytest.raises(InputError, match="no such region") as caught:
        convert(source, roi="FFA")
    assert "LO1 (prf)" in caught.value.expected


def test_pickled_names_of_columns_are_not_unpickled(source: Path) -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            return (Path.touch, (source / "exploded",))

    path = source / "betas_csv" / "sub-02_ResponseData.h5"
    with h5py.File(path, "r+") as file:
        file["ResponseData/block0_items"][0] = np.frombuffer(pickle.dumps(Bomb()), np.uint8)
    convert(source)
    assert not (source / "exploded").exists()


def test_file_that_pandas_wrote(source: Path) -> None:
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("tables", reason="PyTables, which only writes this test's file")
    table = pandas.DataFrame(BETAS)
    table.insert(0, "voxel_id", 100 + np.arange(N_VOXELS))
    table.to_hdf(source / "betas_csv" / "sub-02_ResponseData.h5", key="ResponseData", mode="w")
    target, _ = convert(source)
    np.testing.assert_array_equal(responses(target), BETAS[INSIDE].T.astype(np.float32))


def test_copy_of_openneuro(source: Path) -> None:
    folder = source / "derivatives/ICA-betas/sub-02/voxel-metadata"
    prefix = f"{folder}/sub-02_task-things_"
    save_responses(Path(prefix + "voxel-wise-responses.h5"), BETAS, pickled=False)
    save_tables(prefix, "\t", ("stimulus-metadata.tsv", "voxel-metadata.tsv"))
    for path in (source / "betas_csv").glob("sub-02*"):
        path.unlink()
    target, notes = convert(source)
    np.testing.assert_array_equal(responses(target), BETAS[INSIDE].T.astype(np.float32))
    assert any("no position" in note for note in notes)


def test_concepts_held_out(source: Path) -> None:
    target, notes = convert(source, hold_out_test_concepts=True)
    trials = read_tsv(target / "sub-02/sub-02_trials.tsv")
    split = [row["split"] for row in trials]
    assert split == ["val", "test", "train", "test", "train", "test", "test"]
    assert any("held out (val)" in note for note in notes)


def test_indices_that_do_not_fit_the_mask_give_no_positions(source: Path) -> None:
    path = source / "betas_csv/brainmasks/sub-02_space-T1w_brainmask.nii.gz"
    nibabel.save(nibabel.Nifti1Image((~MASK).astype(np.uint8), AFFINE), path)
    target, notes = convert(source)
    assert any("lie outside" in note for note in notes)
    assert "x" not in read_tsv(target / "sub-02/sub-02_units.tsv")[0]


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("trials", "differ in number"),
        ("voxels", "do not belong together"),
        ("ids", "do not belong"),
    ],
)
def test_tables_that_do_not_belong_together(source: Path, what: str, message: str) -> None:
    path = source / "betas_csv" / "sub-02_ResponseData.h5"
    save_responses(path, {"trials": BETAS[:, :-1], "voxels": BETAS[:-1], "ids": BETAS}[what])
    if what == "ids":
        with h5py.File(path, "r+") as file:
            file["ResponseData/block1_values"][0] = 7
    with pytest.raises(InputError, match=message):
        convert(source)


def test_missing_and_unreadable_tables(source: Path) -> None:
    path = source / "betas_csv" / "sub-02_ResponseData.h5"
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(InputError, match="cannot be read"):
        convert(source)
    path.unlink()
    with pytest.raises(InputError, match="table of a subject is missing") as caught:
        convert(source)
    assert "sub-02_ResponseData.h5" in caught.value.fix


def test_no_test_trial(source: Path) -> None:
    path = source / "betas_csv" / "sub-02_StimulusMetadata.csv"
    path.write_text(path.read_text().replace("test", "exam"))
    with pytest.raises(InputError, match="no trial is a test trial") as caught:
        convert(source)
    assert "exam" in caught.value.found


def test_missing_pictures(source: Path) -> None:
    (source / "images_THINGS/object_images/dog/dog_12s.jpg").unlink()
    target, notes = convert(source)
    files = {row["stimulus_id"]: row["file"] for row in read_tsv(target / "stimuli.tsv")}
    assert files["dog_12s.jpg"] == "dog/dog_12s.jpg"
    assert (target / "stimuli" / files["fan_05s.jpg"]).is_file()
    assert any("1 pictures are not there" in note and "osf.io" in note for note in notes)


EVENTS = (
    "onset\tduration\ttrial_type\tcategory_nr\texemplar_nr\ttest_image_nr\tthings_category_nr\t"
    "things_exemplar_nr\tresponse_time\tfile_path\n"
    "3.0\t0.5\texp\t1\t2\tn/a\t3\t12\tn/a\tdog/dog_12s.jpg\n"
    "7.5\t0.5\tcatch\tn/a\tn/a\tn/a\tn/a\tn/a\t0.61\tcatch/catch_042.jpg\n"
    "12.0\t0.5\ttest\tn/a\tn/a\t5\t9\t5\tn/a\tfan/fan_05s.jpg\n"
)


def test_raw_runs_where_there_are_no_betas(source: Path) -> None:
    for path in (source / "betas_csv").glob("sub-02*"):
        path.unlink()
    for session, run in (("things01", 1), ("things03", 2), ("localizer1", 1)):
        task = "things" if session != "localizer1" else "6cat"
        name = f"sub-02_ses-{session}_task-{task}_run-{run:02d}"
        folder = source / "sub-02" / f"ses-{session}" / "func"
        folder.mkdir(parents=True)
        image = nibabel.Nifti1Image(np.ones((*SHAPE, 4), np.int16), AFFINE)
        nibabel.save(image, folder / f"{name}_bold.nii.gz")
        (folder / f"{name}_events.tsv").write_text(EVENTS)
    (source / "task-things_bold.json").write_text('{"RepetitionTime": 1.5}')
    target, notes = convert(source)
    assert any("sessions 2, 4" in note for note in notes)
    rows = index_dataset(target)
    assert [(row["session"], row["problem"]) for row in rows] == [
        ("things01", "n/a"), ("things03", "n/a"),
    ]  # fmt: skip
    found = read_events(target / rows[0]["events"], subject="02", stimuli_dir=target / "stimuli")
    assert found.stimulus.tolist() == ["dog_12s.jpg", "fan_05s.jpg"]
    assert found.file.tolist() == ["dog/dog_12s.jpg", "fan/fan_05s.jpg"]
    split = {row["stimulus_id"]: row["split"] for row in read_tsv(target / "stimuli.tsv")}
    assert split == {"dog_12s.jpg": "train", "fan_05s.jpg": "test"}
    with pytest.raises(InputError, match="files of a subject are missing"):
        convert(source, form="betas")
