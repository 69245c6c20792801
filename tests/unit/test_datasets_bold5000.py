"""The reader of BOLD5000, on miniature files named and shaped as release 2 publishes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from afterimage.datasets.bold5000 import ROIS, Bold5000, Bold5000Settings
from afterimage.errors import InputError
from afterimage.io.tables import read_tsv

SHAPE = (4, 5, 3)
RNG = np.random.default_rng(0)
MASK = RNG.random(SHAPE) < 0.5
RIGHT = np.diag([2.0, 2.0, 2.0, 1.0])
WRONG = np.diag([-1.0, 1.0, 1.0, 1.0])
#: Trials of the sessions of CSI4, which has nine: two runs, or one and a bit.
SIZES = dict(zip(range(1, 10), (74, 74, 74, 40, 74, 74, 74, 74, 74), strict=True))
REPEATED = ["COCO_train2014_000000000001.jpg", "n01930112_18908.JPEG", "castle2.jpg"]
BETAS = "GLMbetas-TYPED-FITHRF-GLMDENOISE-RR"


def names() -> list[str]:
    """Return the pictures of all trials: three come back in every session, the rest once."""
    shown = [f"COCO_train2014_{n:012d}.jpg" for n in range(100, 100 + sum(SIZES.values()))]
    start = 0
    for size in SIZES.values():
        shown[start + 1 : start + 4] = REPEATED
        start += size
    return shown


def save(path: Path, values: np.ndarray, affine: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(values, affine), path)


VALUES = {
    number: RNG.normal(size=(*SHAPE, size)).astype(np.float32) for number, size in SIZES.items()
}


def add_session(source: Path, number: int, values: np.ndarray | None = None) -> None:
    path = source / "GLMbetas" / f"CSI4_{BETAS}_ses-{number:02d}.nii.gz"
    save(path, VALUES[number] if values is None else values, WRONG)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "bold5000"
    for number in SIZES:
        add_session(folder, number)
    save(folder / "CSI4_brainmask.nii.gz", MASK.astype(np.uint8), RIGHT)
    # The first of the repeats is written with the prefix of the presentation lists.
    lines = [f"rep_{n}" if n == REPEATED[2] and i > 80 else n for i, n in enumerate(names())]
    (folder / "CSI4_imgnames.txt").write_text("\n".join(lines) + "\n")
    scenes = folder / "BOLD5000_Stimuli" / "Scene_Stimuli"
    for place, name in zip(("COCO", "ImageNet", "Scene"), REPEATED, strict=True):
        (scenes / "Presented_Stimuli" / place).mkdir(parents=True)
        (scenes / "Presented_Stimuli" / place / name).write_bytes(b"picture")
    (scenes / "repeated_stimuli_113_list.txt").write_text("\n".join(REPEATED) + "\n")
    return folder


def convert(source: Path, **options: Any) -> tuple[Path, list[str]]:
    target = source.parent / "out"
    notes = Bold5000(Bold5000Settings(**options)).convert(source, target, ("sub-CSI4",), print)
    return target, notes


def responses(target: Path) -> np.ndarray:
    return np.load(target / "sub-CSI4/sub-CSI4_responses.npy")


def expected(*sessions: int) -> np.ndarray:
    return np.concatenate([VALUES[number][MASK].T for number in sessions])


def test_volumes_become_trials_in_the_order_of_the_list(source: Path) -> None:
    target, notes = convert(source)
    np.testing.assert_array_equal(responses(target), expected(*SIZES))
    trials = read_tsv(target / "sub-CSI4/sub-CSI4_trials.tsv")
    assert [row["stimulus_id"] for row in trials] == names()
    assert {row["stimulus_id"] for row in trials if row["split"] == "test"} == set(REPEATED)
    assert [row["session"] for row in trials[72:76]] == ["01", "01", "02", "02"]
    assert [row["run"] for row in trials[35:39]] == ["01", "01", "02", "02"]
    assert {row["run"] for row in trials if row["session"] == "04"} == {"n/a"}
    assert any("names 3 pictures, the published list 113" in note for note in notes)


def test_positions_come_from_the_mask(source: Path) -> None:
    target, _ = convert(source)
    units = read_tsv(target / "sub-CSI4/sub-CSI4_units.tsv")
    places = [[float(unit[axis]) for axis in "xyz"] for unit in units]
    np.testing.assert_array_equal(places, 2.0 * np.argwhere(MASK))


def test_pictures_are_found_in_their_folders(source: Path) -> None:
    target, notes = convert(source)
    files = {row["stimulus_id"]: row["file"] for row in read_tsv(target / "stimuli.tsv")}
    assert [files[name] for name in REPEATED] == [
        f"COCO/{REPEATED[0]}", f"ImageNet/{REPEATED[1]}", f"Scene/{REPEATED[2]}",
    ]  # fmt: skip
    assert (target / "stimuli" / files[REPEATED[1]]).read_bytes() == b"picture"
    assert any("pictures are not there" in note for note in notes)


@pytest.mark.parametrize("absent", [(3,), (8, 9), (1,), (4, 5)])
def test_missing_sessions_in_one_stretch(source: Path, absent: tuple[int, ...]) -> None:
    for number in absent:
        (source / "GLMbetas" / f"CSI4_{BETAS}_ses-{number:02d}.nii.gz").unlink()
    target, notes = convert(source)
    there = [number for number in SIZES if number not in absent]
    np.testing.assert_array_equal(responses(target), expected(*there))
    starts = dict(zip(SIZES, np.cumsum([0, *SIZES.values()]), strict=False))
    shown = [name for n in there for name in names()[starts[n] : starts[n] + SIZES[n]]]
    trials = read_tsv(target / "sub-CSI4/sub-CSI4_trials.tsv")
    assert [row["stimulus_id"] for row in trials] == shown
    assert any(f"sessions {', '.join(map(str, absent))} are not there" in note for note in notes)


def test_sessions_missing_in_several_places(source: Path) -> None:
    for number in (2, 5):
        (source / "GLMbetas" / f"CSI4_{BETAS}_ses-{number:02d}.nii.gz").unlink()
    with pytest.raises(InputError, match="several places"):
        convert(source)


def test_list_of_another_length(source: Path) -> None:
    path = source / "CSI4_imgnames.txt"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(InputError, match="differ in number"):
        convert(source)


def test_mask_of_another_grid(source: Path) -> None:
    add_session(source, 2, VALUES[2].transpose(2, 1, 0, 3))
    with pytest.raises(InputError, match="reverse order") as caught:
        convert(source)
    assert "ses-02" in caught.value.where


def test_voxel_that_is_not_finite_in_one_trial_is_left_out(source: Path) -> None:
    values = VALUES[5].copy()
    i, j, k = np.argwhere(MASK)[2]
    values[i, j, k, 7] = np.nan
    add_session(source, 5, values)
    target, notes = convert(source)
    found = responses(target)
    assert np.isnan(found[:, 2]).all()
    np.testing.assert_array_equal(np.delete(found, 2, 1), np.delete(expected(*SIZES), 2, 1))
    assert any("1 of" in note and "not finite" in note for note in notes)


def test_repeated_pictures_without_their_list(source: Path) -> None:
    next(source.rglob("repeated_stimuli_113_list.txt")).unlink()
    target, notes = convert(source)
    tests = [r["stimulus_id"] for r in read_tsv(target / "stimuli.tsv") if r["split"] == "test"]
    assert sorted(tests) == sorted(REPEATED)
    assert any("more than once" in note for note in notes)


def test_arrays_of_regions(source: Path) -> None:
    folder = source / "BOLD5000_GLMsingle_ROI_betas" / "py"
    folder.mkdir(parents=True)
    arrays = {}
    for n, roi in enumerate(ROIS):
        for side in ("LH", "RH"):
            arrays[side + roi] = RNG.normal(size=(len(names()), n + 2)).astype(np.float32)
            np.save(folder / f"CSI4_{BETAS}_allses_{side}{roi}.npy", arrays[side + roi])
    target, _ = convert(source)
    np.testing.assert_array_equal(responses(target), np.concatenate(list(arrays.values()), axis=1))
    units = read_tsv(target / "sub-CSI4/sub-CSI4_units.tsv")
    wanted = [(name[2:], name[0]) for name, array in arrays.items() for _ in array.T]
    assert [(unit["roi"], unit["hemisphere"]) for unit in units] == wanted
    target, _ = convert(source, roi="PPA")
    assert responses(target).shape[1] == 10
    target, _ = convert(source, form="volumes")
    assert responses(target).shape[1] == MASK.sum()
    np.save(folder / f"CSI4_{BETAS}_allses_LHPPA.npy", arrays["LHPPA"].T)
    with pytest.raises(InputError, match="transposed"):
        convert(source)


def test_what_is_missing_is_named(source: Path) -> None:
    with pytest.raises(InputError, match="arrays of regions are missing"):
        convert(source, form="rois")
    (source / "CSI4_brainmask.nii.gz").unlink()
    with pytest.raises(InputError, match="brain mask is missing"):
        convert(source)
    with pytest.raises(InputError, match="no such subject") as caught:
        Bold5000(Bold5000Settings()).convert(source, source.parent / "o", ("CSI5",), print)
    assert caught.value.expected == "CSI1, CSI2, CSI3, CSI4"
