"""The reader of NSD, on miniature files in the published layout with planted values."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import nibabel
import numpy as np
import pytest
import xarray
from scipy.io import savemat

from afterimage.bids.index import index_dataset
from afterimage.datasets import nsd_files
from afterimage.datasets.nsd import Nsd, NsdSettings
from afterimage.errors import InputError
from afterimage.io.images import read_image
from afterimage.io.tables import read_tsv
from afterimage.stages import import_dataset, prepare_responses

SHAPE = (4, 5, 3)
AFFINE = np.diag([1.8, 1.8, 1.8, 1.0]) + np.array([[0, 0, 0, -3.0], *[[0] * 4] * 3])
BETAS = "betas_fithrf_GLMdenoise_RR"
RNG = np.random.default_rng(0)
GENERAL = RNG.choice([-1, 0, 1], size=SHAPE)
VISUAL = RNG.integers(0, 8, size=SHAPE)
NCSNR = RNG.random(SHAPE).astype(np.float32)
#: As in the dataset: 10000 of 73000 images a subject, the 1000 shared ones first.
SHARED = RNG.choice(73000, 1000, replace=False) + 1
OTHERS = RNG.permutation(np.setdiff1d(np.arange(1, 73001), SHARED))
IMAGES = np.stack([np.r_[SHARED, OTHERS[9000 * s : 9000 * s + 9000][:9000]] for s in range(8)])
# Few images, so that the first sessions have repeats; 1-based.
ORDERING = RNG.permutation(
    np.r_[np.tile(np.arange(1, 1001), 10), np.tile(np.arange(1001, 3001), 10)]
)
for _first, _place in enumerate((1, 1000, 1001, 3000)):  # the first and last of each kind
    _at = np.flatnonzero(_place == ORDERING)[0]
    ORDERING[[_first, _at]] = ORDERING[[_at, _first]]
PATTERN = np.zeros((40, 12, 75))
for _session in range(40):
    PATTERN[_session].ravel()[np.sort(RNG.choice(900, 750, replace=False))] = 1


def planted(session: int) -> np.ndarray:
    """Return one session's betas as published; (X, Y, Z, 750), int16."""
    x, y, z, t = np.ogrid[:4, :5, :3, :750]
    return (x + 10 * y + 100 * z + 7 * t - 3000 * session).astype(np.int16)


def save(path: Path, values: np.ndarray, dtype: Any = np.float32) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(values.astype(dtype), AFFINE), path)


def save_hdf5(path: Path, values: np.ndarray) -> None:
    """Write (X, Y, Z, T) as h5py shows the published file: (T, Z, Y, X), chunks along trials."""
    path.parent.mkdir(parents=True, exist_ok=True)
    turned = values.transpose(3, 2, 1, 0)
    with h5py.File(path, "w") as file:
        file.create_dataset("betas", data=turned, chunks=(len(turned), 1, 1, 1))


def save_design(source: Path, **changes: np.ndarray) -> None:
    path = source / "nsddata/experiments/nsd/nsd_expdesign.mat"
    path.parent.mkdir(parents=True, exist_ok=True)
    variables = {
        "masterordering": ORDERING[None].astype(float), "subjectim": IMAGES.astype(float),
        "sharedix": SHARED[None].astype(float), "stimpattern": PATTERN,
    }  # fmt: skip
    savemat(path, variables | changes)


def betas_folder(source: Path, subject: str = "01") -> Path:
    return source / f"nsddata_betas/ppdata/subj{subject}/func1pt8mm/{BETAS}"


def roi_folder(source: Path, subject: str = "01") -> Path:
    return source / f"nsddata/ppdata/subj{subject}/func1pt8mm/roi"


def ids(subject: int, session: int) -> np.ndarray:
    """Return the 0-based ids of the images of one session."""
    trials = slice(750 * (session - 1), 750 * session)
    return IMAGES[subject - 1, ORDERING[trials] - 1] - 1


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Subject 01 with sessions 1 and 3."""
    source = tmp_path_factory.mktemp("nsd")
    save_design(source)
    for session in (1, 3):
        save_hdf5(betas_folder(source) / f"betas_session{session:02d}.hdf5", planted(session))
    save(betas_folder(source) / "ncsnr.nii.gz", NCSNR)
    save(roi_folder(source) / "nsdgeneral.nii.gz", GENERAL)
    save(
        roi_folder(source) / "lh.prf-visualrois.nii.gz",
        np.where(np.arange(5)[:, None] < 2, VISUAL, 0),
    )
    save(
        roi_folder(source) / "rh.prf-visualrois.nii.gz",
        np.where(np.arange(5)[:, None] < 2, 0, VISUAL),
    )
    used = np.unique(np.r_[ids(1, 1), ids(1, 3)])
    stimuli = source / "nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5"
    stimuli.parent.mkdir(parents=True)
    with h5py.File(stimuli, "w") as file:
        brick = file.create_dataset("imgBrick", (73000, 4, 4, 3), np.uint8, chunks=(1, 4, 4, 3))
        for number in used:
            brick[number] = picture(number)
    return source


def picture(number: int) -> np.ndarray:
    return ((np.arange(48) * 5 + number) % 256).astype(np.uint8).reshape(4, 4, 3)


@pytest.fixture
def source(published: Path, tmp_path: Path) -> Path:
    """Return a copy of the published files that a test may damage."""
    return shutil.copytree(published, tmp_path / "source")


@pytest.fixture
def convert(tmp_path: Path) -> Callable[..., list[str]]:
    def run(source: Path, subjects: tuple[str, ...] = (), **options: Any) -> list[str]:
        options = {"pictures": False} | options
        return Nsd(NsdSettings(**options)).convert(source, tmp_path / "out", subjects, print)

    return run


def responses(out: Path, subject: str = "01") -> np.ndarray:
    return np.load(out / f"sub-{subject}/sub-{subject}_responses.npy")


def expected(*sessions: int) -> np.ndarray:
    return np.concatenate([planted(s)[GENERAL > 0].T for s in sessions]).astype(np.float32) / 300


def test_published_files_become_trials_with_planted_betas(published: Path, tmp_path: Path) -> None:
    target = tmp_path / "dataset"
    before = {path: path.stat().st_mtime_ns for path in published.rglob("*")}
    notes = import_dataset.import_dataset(published, target, import_dataset.Config(), print)
    assert {path: path.stat().st_mtime_ns for path in published.rglob("*")} == before
    assert any("sessions 2, 4" in note for note in notes)
    row = index_dataset(target)[0]
    assert (row["subject"], row["modality"], row["problem"]) == ("01", "fmri", "n/a")
    out = tmp_path / "out"
    out.mkdir()
    paths = [target / row[name] for name in ("responses", "trials", "units", "sidecar")]
    outputs = [out / f"sub-01_{name}" for name in ("trials.nc", "split.tsv", "quality.json")]
    prepare_responses.run(
        prepare_responses.Inputs(target / "stimuli.tsv", *paths),
        prepare_responses.Outputs(*outputs),
        prepare_responses.Config(),
    )
    with xarray.open_dataset(outputs[0], engine="h5netcdf") as trials:
        shown = np.r_[ids(1, 1), ids(1, 3)]
        assert trials["stimulus"].values.tolist() == [f"nsd{number:05d}" for number in shown]
        assert trials["session"].values.tolist() == ["01"] * 750 + ["03"] * 750
        np.testing.assert_array_equal(trials["responses"], expected(1, 3))
        np.testing.assert_array_equal(trials["split"].values == "test", np.isin(shown + 1, SHARED))
        np.testing.assert_allclose(
            trials["x"], np.argwhere(GENERAL > 0)[:, 0] * 1.8 - 3, atol=1e-3
        )
        assert trials.attrs["response_units"] == "percent signal change"
    first = read_tsv(target / "stimuli.tsv")[0]
    found = read_image(target / "stimuli" / first["file"])
    np.testing.assert_array_equal(found, picture(int(first["nsd_id"])))
    assert len(list((target / "stimuli").iterdir())) == len(np.unique(shown))
    assert "sessions 2, 4" in (target / "README.md").read_text()


@pytest.mark.parametrize("form", ["nii.gz", "mat"])
def test_other_forms_of_the_betas_hold_the_same(
    source: Path, tmp_path: Path, form: str, convert: Callable[..., list[str]]
) -> None:
    for path in betas_folder(source).glob("*.hdf5"):
        path.rename(path.with_suffix(".mat"))  # a MAT file of version 7.3 is HDF5
    if form == "nii.gz":
        for session in (1, 3):
            (betas_folder(source) / f"betas_session{session:02d}.mat").unlink()
            path = betas_folder(source) / f"betas_session{session:02d}.nii.gz"
            save(path, planted(session), np.int16)
    convert(source)
    np.testing.assert_array_equal(responses(tmp_path / "out"), expected(1, 3))


def test_small_slabs_give_the_same(
    published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    convert: Callable[..., list[str]],
) -> None:  # fmt: skip
    monkeypatch.setattr(nsd_files, "_SLAB_BYTES", 1)
    convert(published, sessions=(3,))
    np.testing.assert_array_equal(responses(tmp_path / "out"), expected(3))


def test_voxels_outside_the_cortex_are_not_kept(
    published: Path, tmp_path: Path, convert: Callable[..., list[str]]
) -> None:
    notes = convert(published)
    n_voxels = int((GENERAL == 1).sum())
    assert n_voxels < int((GENERAL != -1).sum())
    assert responses(tmp_path / "out").shape[1] == n_voxels
    assert any(f"{n_voxels} voxels > 0, the published mask 15724" in note for note in notes)


def test_regions_and_ceilings_of_voxels(
    published: Path, tmp_path: Path, convert: Callable[..., list[str]]
) -> None:
    convert(published)
    units = read_tsv(tmp_path / "out/sub-01/sub-01_units.tsv")
    names = ("n/a", "V1v", "V1d", "V2v", "V2d", "V3v", "V3d", "hV4")
    fine = [names[value] for value in VISUAL[GENERAL > 0]]
    assert [unit["prf-visualrois"] for unit in units] == fine
    assert [unit["roi"] for unit in units] == [n if n in ("hV4", "n/a") else n[:2] for n in fine]
    np.testing.assert_allclose(
        [float(unit["ncsnr"]) for unit in units], NCSNR[GENERAL > 0], rtol=1e-6
    )
    ratio = NCSNR[GENERAL > 0].astype(float) ** 2
    found = [float(unit["published_ceiling"]) for unit in units]
    np.testing.assert_allclose(found, np.sqrt(ratio / (ratio + 1)), rtol=1e-6)


def test_label_table_of_the_dataset_wins(
    source: Path, tmp_path: Path, convert: Callable[..., list[str]]
) -> None:
    table = source / "nsddata/freesurfer/fsaverage/label/prf-visualrois.mgz.ctab"
    table.parent.mkdir(parents=True)
    table.write_text(
        "".join(f"{n} {name} 0 0 0 0\n" for n, name in enumerate(["Unknown", *"abcdefg"]))
    )
    convert(source)
    units = read_tsv(tmp_path / "out/sub-01/sub-01_units.tsv")
    assert {unit["prf-visualrois"] for unit in units} <= set("abcdefg") | {"n/a"}


def test_other_region(published: Path, tmp_path: Path, convert: Callable[..., list[str]]) -> None:
    convert(published, roi="prf-visualrois,nsdgeneral")
    assert responses(tmp_path / "out").shape[1] == int(((GENERAL > 0) | (VISUAL > 0)).sum())
    with pytest.raises(InputError, match="ROI volume is missing") as caught:
        convert(published, roi="streams")
    assert "nsdgeneral" in caught.value.found


def test_runs_and_onsets_of_the_pattern(
    published: Path, tmp_path: Path, convert: Callable[..., list[str]]
) -> None:
    convert(published, sessions=(1,))
    trials = read_tsv(tmp_path / "out/sub-01/sub-01_trials.tsv")
    runs, slots = np.nonzero(PATTERN[0])
    assert [int(row["run"]) for row in trials] == (runs + 1).tolist()
    assert [float(row["onset"]) for row in trials] == (4.0 * slots).tolist()


def behaviour(source: Path, shown: np.ndarray) -> None:
    """Write the behavioural table of session 1; runs of 62 and 63 trials."""
    runs = np.repeat(np.arange(1, 13), [62, 63] * 6)
    rows = [
        f"1\t1\t{run}\t{trial + 1}\t{image}\n"
        for trial, (run, image) in enumerate(zip(runs, shown, strict=True))
    ]
    path = source / "nsddata/ppdata/subj01/behav/responses.tsv"
    path.parent.mkdir(parents=True)
    path.write_text("SUBJECT\tSESSION\tRUN\tTRIAL\t73KID\n" + "".join(rows))


def test_behavioural_table_gives_runs_and_confirms_images(
    source: Path, tmp_path: Path, convert: Callable[..., list[str]]
) -> None:
    behaviour(source, ids(1, 1) + 1)
    notes = convert(source, sessions=(1,))
    trials = read_tsv(tmp_path / "out/sub-01/sub-01_trials.tsv")
    assert [row["run"] for row in trials[60:64]] == ["01", "01", "02", "02"]
    assert not any("not checked" in note for note in notes)


@pytest.mark.parametrize("shift", [0, 2])
def test_images_that_do_not_agree(
    source: Path, shift: int, convert: Callable[..., list[str]]
) -> None:
    behaviour(source, ids(1, 1) + shift)
    with pytest.raises(InputError, match="behavioural table differ") as caught:
        convert(source)
    assert f"constant difference of {1 - shift}" in caught.value.found


@pytest.mark.parametrize("name", ["masterordering", "subjectim"])
def test_ids_that_count_from_0(source: Path, name: str, convert: Callable[..., list[str]]) -> None:
    values = {"masterordering": ORDERING[None] - 1.0, "subjectim": IMAGES - IMAGES.min() * 1.0}
    save_design(source, **{name: values[name]})
    with pytest.raises(InputError, match="count from 0") as caught:
        convert(source)
    assert name in caught.value.where


def test_ids_out_of_range(source: Path, convert: Callable[..., list[str]]) -> None:
    save_design(source, subjectim=IMAGES + 73000.0)
    with pytest.raises(InputError, match="out of range"):
        convert(source)


def test_shared_images_of_another_design(source: Path, convert: Callable[..., list[str]]) -> None:
    save_design(source, sharedix=OTHERS[None, :1000].astype(float))
    with pytest.raises(InputError, match="shared images do not come first"):
        convert(source)


def test_transposed_table_of_images(source: Path, convert: Callable[..., list[str]]) -> None:
    save_design(source, subjectim=IMAGES.T.astype(float))
    with pytest.raises(InputError, match="wrong shape"):
        convert(source)


def damaged(values: np.ndarray, how: str) -> np.ndarray:
    if how == "transposed":
        return values.transpose(2, 1, 0, 3)
    if how == "scaled":
        return values / 300
    if how == "trials":
        return values[..., :700]
    return values[:, :4]


@pytest.mark.parametrize("form", ["hdf5", "nii.gz"])
@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("transposed", "axes of"), ("scaled", "16-bit integers"),
        ("trials", "wrong number of trials"), ("grid", "another grid"),
    ],
)  # fmt: skip
def test_betas_of_another_form(
    source: Path, form: str, how: str, message: str, convert: Callable[..., list[str]]
) -> None:
    path = betas_folder(source) / "betas_session01.hdf5"
    path.unlink()
    values = damaged(planted(1), how)
    if form == "hdf5":
        save_hdf5(path, values)
    else:
        save(path.with_name("betas_session01.nii.gz"), values, values.dtype)
    with pytest.raises(InputError, match=message) as caught:
        convert(source)
    assert "betas_session01" in caught.value.where
    assert caught.value.fix
    assert not list(source.parent.glob("out/**/*.npy"))


def test_truncated_file(source: Path, convert: Callable[..., list[str]]) -> None:
    path = betas_folder(source) / "betas_session01.hdf5"
    path.unlink()
    path = path.with_name("betas_session01.nii.gz")
    save(path, RNG.integers(0, 9000, size=(*SHAPE, 750)), np.int16)
    path.write_bytes(path.read_bytes()[:-20000])
    with pytest.raises(InputError, match="cannot be read"):
        convert(source)


def test_missing_design(source: Path, convert: Callable[..., list[str]]) -> None:
    (source / "nsddata/experiments/nsd/nsd_expdesign.mat").unlink()
    with pytest.raises(InputError, match="experimental design is missing"):
        convert(source)


def test_missing_pictures(source: Path, convert: Callable[..., list[str]]) -> None:
    shutil.rmtree(source / "nsddata_stimuli")
    notes = convert(source, pictures=True)
    assert any("nsd_stimuli.hdf5" in note and "terms" in note for note in notes)


def test_subjects(published: Path, convert: Callable[..., list[str]]) -> None:
    with pytest.raises(InputError, match="no such subject") as caught:
        convert(published, ("subj09",))
    assert caught.value.expected.startswith("01, 02")
    with pytest.raises(InputError, match="files of a subject are missing") as caught:
        convert(published, ("sub-02",))
    assert BETAS in caught.value.expected
    with pytest.raises(InputError, match="not released"):
        convert(published, ("subj01",), sessions=(41,))


def test_subjects_that_come_later_are_added(
    source: Path, tmp_path: Path, convert: Callable[..., list[str]]
) -> None:
    convert(source, ("subj01",), sessions=(1,))
    save_hdf5(betas_folder(source, "02") / "betas_session01.hdf5", planted(2))
    save(roi_folder(source, "02") / "nsdgeneral.nii.gz", GENERAL)
    convert(source, ("02",))
    out = tmp_path / "out"
    np.testing.assert_array_equal(responses(out, "02"), expected(2))
    listed = {row["stimulus_id"] for row in read_tsv(out / "stimuli.tsv")}
    shown = np.unique(np.r_[ids(1, 1), ids(2, 1)])
    assert listed == {f"nsd{number:05d}" for number in shown}
