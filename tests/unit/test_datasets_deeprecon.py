"""The reader of Deep Image Reconstruction, on miniature files in the layout of ds001506."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from afterimage.bids.events import read_events
from afterimage.datasets.deeprecon import Deeprecon, DeepreconSettings
from afterimage.errors import ConfigError, InputError
from afterimage.io.tables import read_tsv

NEW = "onset\tduration\tevent_type\tstimulus_id\tstimulus_name\tcategory_index\timage_index\tresponse_time\n"
OLD = "onset\tduration\tevent_type\tstimulus_id\tresponse_time\n"
TRAINING = OLD + (
    "0\t32\t-1\tn/a\t0.0\n32\t8\t1\t1518878.008432\t0.0\n40\t8\t1\t2437971.0050129998\t0.0\n"
    "48\t8\t2\t2437971.005013\t49.04\n56\t6\t-2\tn/a\t0.0\n"
)
TEST = NEW + (
    "0\t32\t-1\tn/a\tn/a\tn/a\tn/a\tn/a\n"
    "32\t8\t1\t3954393.0100379996\tn03954393_10038\t41\t41\tn/a\n"
    "40\t8\t1\t3767745.0001089997\tn03767745_109\t39\t39\tn/a\n"
    "48\t8\t2\t3767745.000109\tn03767745_109\t39\t39\t49.1\n"
    "56\t6\t-2\tn/a\tn/a\tn/a\tn/a\tn/a\n"
)
LETTERS = NEW + (
    "0\t32\t-1\ton/a\tn/a\tn/a\tn/a\tn/a\n32\t12\t1\t7\tletter_black_img028_R\t7\t7\tn/a\n"
    "44\t12\t-3\ton/a\tn/a\tn/a\tn/a\tn/a\n56\t12\t1\t3\tletter_black_img015_E\t3\t3\tn/a\n"
    "68\t6\t-2\ton/a\tn/a\tn/a\tn/a\tn/a\n"
)
SHAPES = OLD + (
    "0\t32\t-1\tn/a\t0.0\n32\t8\t1\t19.0\t0.0\n40\t8\t1\t2.0\t0.0\n48\t8\t2\t2.0\t49.0\n"
    "56\t6\t-2\tn/a\t0.0\n"
)
SESSIONS = {
    "perceptionNaturalImageTraining01": TRAINING, "perceptionNaturalImageTest01": TEST,
    "perceptionLetterImage01": LETTERS, "perceptionArtificalImage01": SHAPES,
    "perceptionArtificialImage02": SHAPES,
}  # fmt: skip


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "ds001506"
    for session, table in SESSIONS.items():
        path = run_of(folder, session, "bold.nii.gz")
        path.parent.mkdir(parents=True)
        nibabel.save(nibabel.Nifti1Image(np.zeros((4, 5, 6, 3), np.int16), np.eye(4)), path)
        run_of(folder, session).write_text(table)
    return folder


def run_of(folder: Path, session: str, ending: str = "events.tsv") -> Path:
    name = f"sub-01_ses-{session}_task-perception_run-01_{ending}"
    return folder / "sub-01" / f"ses-{session}" / "func" / name


def convert(source: Path, **options: Any) -> tuple[Path, list[str]]:
    target = source.parent / "out"
    notes = Deeprecon(DeepreconSettings(**options)).convert(source, target, ("01",), print)
    return target, notes


def test_numbers_of_event_types(source: Path) -> None:
    target, notes = convert(source)
    rows = read_tsv(run_of(target, "perceptionNaturalImageTest01"))
    kinds = ["rest", "stimulus", "stimulus", "repetition", "rest"]
    assert [row["trial_type"] for row in rows] == kinds
    assert [row["stimulus_id"] for row in rows] == [
        "n/a", "n03954393_10038", "n03767745_109", "n/a", "n/a",
    ]  # fmt: skip
    assert [row["split"] for row in rows] == ["n/a", "test", "test", "n/a", "n/a"]
    assert any("request form" in note for note in notes)


def test_names_from_float_ids_where_the_table_has_none(source: Path) -> None:
    target, _ = convert(source)
    path = run_of(target, "perceptionNaturalImageTraining01")
    found = read_events(path, subject="01")
    assert found.stimulus.tolist() == ["n01518878_8432", "n02437971_5013"]
    target, _ = convert(source, keep_repetitions=True)
    assert read_events(path, subject="01").stimulus.tolist() == [
        "n01518878_8432", "n02437971_5013", "n02437971_5013",
    ]  # fmt: skip


def test_natural_images_only_unless_asked_for(source: Path) -> None:
    target, _ = convert(source)
    assert {row["split"] for row in read_tsv(target / "stimuli.tsv")} == {"train", "test"}
    assert len(list(target.rglob("*_bold.nii.gz"))) == 2
    target, _ = convert(source, images="natural,letter,artificial")
    assert len(list(target.rglob("*_bold.nii.gz"))) == 5


def test_letters_tolerate_the_misspelt_cell(source: Path) -> None:
    target, _ = convert(source, images="letter")
    rows = read_tsv(run_of(target, "perceptionLetterImage01"))
    assert [row["stimulus_id"] for row in rows if row["stim_file"] != "n/a"] == [
        "letter_black_img028_R", "letter_black_img015_E",
    ]  # fmt: skip
    assert "on/a" not in run_of(target, "perceptionLetterImage01").read_text()


def test_shapes_in_both_spellings_of_their_session(source: Path) -> None:
    target, _ = convert(source, images="artificial")
    names = [row["stimulus_id"] for row in read_tsv(target / "stimuli.tsv")]
    assert names == ["artificial02", "artificial19"]
    assert len(list(target.rglob("*_bold.nii.gz"))) == 2


def test_unknown_event_type(source: Path) -> None:
    path = run_of(source, "perceptionNaturalImageTest01")
    path.write_text(TEST.replace("\t8\t2\t", "\t8\t5\t"))
    with pytest.raises(InputError, match="unknown type") as caught:
        convert(source)
    assert caught.value.found == "5"
    assert path.name in caught.value.where


def test_time_that_is_no_number(source: Path) -> None:
    path = run_of(source, "perceptionNaturalImageTest01")
    path.write_text(TEST.replace("40\t8\t1", "forty\t8\t1"))
    with pytest.raises(InputError, match="not a number") as caught:
        convert(source)
    assert "line 4, column onset" in caught.value.where


def test_unknown_images() -> None:
    with pytest.raises(ConfigError, match="no such images"):
        Deeprecon(DeepreconSettings(images=("faces",)))
