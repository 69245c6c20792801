"""The reader of Generic Object Decoding, on miniature files in the layout of ds001246."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from afterimage.bids.events import read_events
from afterimage.bids.index import index_dataset
from afterimage.datasets.god import God, GodSettings
from afterimage.datasets.kamitani import image_name
from afterimage.errors import InputError
from afterimage.io.tables import read_json, read_tsv
from afterimage.stages.import_dataset import Config, import_dataset
from afterimage.stages.runner import run_stage

HEADER = (
    "onset\tduration\ttrial_no\tevent_type\tstimulus_id\tstimulus_name\tcategory_index\t"
    "image_index\tresponse_time\n"
)
TRAINING = ["n01518878_8432", "n01530575_12", "n01530575_12", "n02071294_46212"]
TEST = ["n03626115_19498", "n03345837_12501", "n03767745_109"]
SHAPE = (6, 7, 5)


def events(names: list[str]) -> str:
    """Write the events of one run as published: rest, blocks of 9 s, rest."""
    rows = ["0\t33\t1\trest\tn/a\tn/a\tn/a\tn/a\tn/a\n"]
    for n, name in enumerate(names):
        category, image = name[1:].split("_")
        number = f"{int(category)}.{int(image):06d}"
        time = f"{34.5 + 9 * n}" if n and names[n - 1] == name else "n/a"
        rows.append(f"{33 + 9 * n}\t9\t{n + 2}\tstimulus\t{number}\t{name}\t1\t1\t{time}\n")
    end = 33 + 9 * len(names)
    return HEADER + "".join(rows) + f"{end}\t6\t{len(names) + 2}\trest" + "\tn/a" * 5 + "\n"


def save(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    affine = np.diag([3.0, 3.0, 3.0, 1.0])
    nibabel.save(nibabel.Nifti1Image(values, affine), path)


def add_run(source: Path, session: str, run: int, names: list[str]) -> None:
    folder = source / "sub-01" / f"ses-{session}" / "func"
    name = f"sub-01_ses-{session}_task-perception_run-{run:02d}"
    save(folder / f"{name}_bold.nii.gz", np.full((*SHAPE, 4), run, np.int16))
    (folder / f"{name}_events.tsv").write_text(events(names))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "ds001246"
    add_run(folder, "perceptionTraining01", 1, TRAINING)
    add_run(folder, "perceptionTest01", 1, TEST)
    add_run(folder, "perceptionTest02", 1, TEST[::-1])
    imagery = folder / "sub-01/ses-imageryTest01/func/sub-01_ses-imageryTest01_task-imagery_run-01"
    save(Path(f"{imagery}_bold.nii.gz"), np.zeros((*SHAPE, 4), np.int16))
    Path(f"{imagery}_events.tsv").write_text(
        "onset\tduration\ttrial_no\tevent_type\n0\t3\t1\tcue\n"
    )
    save(folder / "sub-01/ses-anatomy/anat/sub-01_ses-anatomy_T1w.nii.gz", np.zeros(SHAPE))
    (folder / "task-perception_bold.json").write_text('{"RepetitionTime": 3.0}')
    left, right = np.zeros(SHAPE, np.uint8), np.zeros(SHAPE, np.uint8)
    left[0, 1, 2] = right[5, 1, 2] = 1
    masks = folder / "sourcedata/sub-01/anat"
    save(masks / "sub-01_mask_LH_V1v.nii.gz", left)
    save(masks / "sub-01_mask_RH_V1v.nii.gz", right)
    save(masks / "sub-01_mask_LH_LOC.nii.gz", left)
    pictures = tmp_path / "pictures"
    for place, names in (("training", TRAINING), ("test", TEST[:2])):
        (pictures / place).mkdir(parents=True)
        for name in set(names):
            (pictures / place / f"{name}.JPEG").write_bytes(b"picture")
    return folder


def convert(source: Path, **options: Any) -> tuple[Path, list[str]]:
    target = source.parent / "out"
    options = {"stimuli": source.parent / "pictures"} | options
    notes = God(GodSettings(**options)).convert(source, target, (), print)
    return target, notes


def run_of(target: Path, session: str, ending: str = "events.tsv") -> Path:
    name = f"sub-01_ses-{session}_task-perception_run-01_{ending}"
    return target / "sub-01" / f"ses-{session}" / "func" / name


@pytest.mark.parametrize(
    ("number", "name"),
    [
        ("3626115.019498", "n03626115_19498"),
        ("3767745.0001089997", "n03767745_109"),  # as the floats of ds001506 are rounded
        ("3954393.0100379996", "n03954393_10038"),
        ("4210120.009062001", "n04210120_9062"),
        ("1943899.024131", "n01943899_24131"),
    ],
)
def test_name_behind_a_float_id(number: str, name: str) -> None:
    assert image_name(number) == name


def test_runs_are_linked_and_events_name_pictures(source: Path) -> None:
    before = {p: p.read_bytes() for p in source.rglob("*") if p.is_file()}
    target, notes = convert(source)
    assert {p: p.read_bytes() for p in source.rglob("*") if p.is_file()} == before
    path = run_of(target, "perceptionTest01")
    bold = run_of(target, "perceptionTest01", "bold.nii.gz")
    assert bold.is_symlink()
    assert bold.resolve() == run_of(source, "perceptionTest01", "bold.nii.gz").resolve()
    found = read_events(path, subject="01", stimuli_dir=target / "stimuli")
    assert found.stimulus.tolist() == TEST
    assert found.onsets_s.tolist() == [33, 42, 51]
    assert found.durations_s.tolist() == [9, 9, 9]
    assert found.file.tolist() == [f"test/{n}.JPEG" for n in TEST[:2]] + [f"{TEST[2]}.JPEG"]
    assert (target / "stimuli" / found.file[0]).read_bytes() == b"picture"
    assert any("1 pictures are not there (n03767745_109" in note for note in notes)
    assert (target / "task-perception_bold.json").is_file()
    assert (target / "sub-01/ses-anatomy/anat/sub-01_ses-anatomy_T1w.nii.gz").is_file()


def test_sessions_are_the_split_and_imagery_is_left_out(source: Path) -> None:
    target, _ = convert(source)
    split = {row["stimulus_id"]: row["split"] for row in read_tsv(target / "stimuli.tsv")}
    assert split == dict.fromkeys(TRAINING, "train") | dict.fromkeys(TEST, "test")
    assert not list(target.rglob("*imagery*"))
    rows = read_tsv(run_of(target, "perceptionTraining01"))
    assert [row["split"] for row in rows] == ["n/a", "train", "train", "n/a", "train", "n/a"]


def test_repetition_is_an_event_without_a_picture_unless_asked_for(source: Path) -> None:
    target, _ = convert(source)
    rows = read_tsv(run_of(target, "perceptionTraining01"))
    kinds = ["rest", "stimulus", "stimulus", "repetition", "stimulus", "rest"]
    assert [row["trial_type"] for row in rows] == kinds
    assert rows[3]["stim_file"] == "n/a"
    assert rows[3]["response_time"] == "52.5"
    target, _ = convert(source, keep_repetitions=True)
    found = read_events(run_of(target, "perceptionTraining01"), subject="01")
    assert found.stimulus.tolist() == TRAINING


def test_hemispheres_are_joined(source: Path) -> None:
    target, notes = convert(source)
    masks = target / "derivatives/rois/sub-01"
    joined = nibabel.load(masks / "sub-01_label-V1v_mask.nii.gz")
    assert np.argwhere(joined.get_fdata()).tolist() == [[0, 1, 2], [5, 1, 2]]
    np.testing.assert_array_equal(joined.affine, np.diag([3.0, 3.0, 3.0, 1.0]))
    assert (masks / "sub-01_label-LOC_mask.nii.gz").is_file()
    assert any("LOC has one hemisphere only" in note for note in notes)


def test_masks_on_different_grids(source: Path) -> None:
    save(source / "sourcedata/sub-01/anat/sub-01_mask_RH_V1v.nii.gz", np.ones((5, 7, 6), np.uint8))
    with pytest.raises(InputError, match="reverse order") as caught:
        convert(source)
    assert "RH_V1v" in caught.value.where


def test_runs_that_are_not_whole_are_left_out(source: Path) -> None:
    run_of(source, "perceptionTest02", "bold.nii.gz").unlink()
    run_of(source, "perceptionTest02", "bold.nii.gz").symlink_to("../.git/annex/not-there")
    target, notes = convert(source)
    assert not run_of(target, "perceptionTest02").exists()
    assert any("perceptionTest02" in note and "not downloaded" in note for note in notes)


def test_without_pictures(source: Path) -> None:
    target, notes = convert(source, stimuli=None)
    assert any("request form" in note for note in notes)
    found = read_events(run_of(target, "perceptionTest01"), subject="01")
    assert found.file.tolist() == [f"{name}.JPEG" for name in TEST]
    with pytest.raises(InputError, match="folder of pictures does not exist"):
        convert(source, stimuli=source / "nothing")


def test_picture_in_both_splits(source: Path) -> None:
    add_run(source, "perceptionTest03", 1, TRAINING[:1])
    with pytest.raises(InputError, match="in two splits") as caught:
        convert(source)
    assert TRAINING[0] in caught.value.found


def test_second_import_is_the_same(source: Path) -> None:
    convert(source)
    target, _ = convert(source)
    assert len(read_tsv(target / "stimuli.tsv")) == 6
    assert run_of(target, "perceptionTest01", "bold.nii.gz").is_file()


def test_index_finds_everything(source: Path) -> None:
    target = source.parent / "out"
    import_dataset(source, target, Config(dataset=GodSettings()), print)
    rows = index_dataset(target)
    assert read_json(target / "dataset_description.json")["DatasetType"] == "raw"
    assert [row["session"] for row in rows] == [
        "perceptionTest01", "perceptionTest02", "perceptionTraining01",
    ]  # fmt: skip
    for row in rows:
        assert (row["modality"], row["source"], row["problem"]) == ("fmri", "raw", "n/a")
        assert row["stimuli"] == "yes"
        assert "task-perception_bold.json" in row["sidecar"]
        assert row["anat"].endswith("_T1w.nii.gz")
        assert {Path(path).name for path in row["rois"].split(";")} == {
            "sub-01_label-LOC_mask.nii.gz", "sub-01_label-V1v_mask.nii.gz",
        }  # fmt: skip


def test_the_stage_runner_runs_it(source: Path) -> None:
    target = source.parent / "out"
    options = {"kind": "god", "stimuli": str(source.parent / "pictures")}
    run_stage(
        "import_dataset",
        {"source": [str(source)]},
        {"description": [str(target / "dataset_description.json")]},
        {"version": 1, "config": {"dataset": options, "participants": ["sub-01"]}},
    )
    assert (target / "sub-01").is_dir()
    assert "* 1 pictures are not there" in (target / "README.md").read_text(encoding="utf-8")
