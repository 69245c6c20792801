"""The index of EEG and MEG recordings."""

from __future__ import annotations

from pathlib import Path

import pytest

from afterimage.bids.entities import run_prefix
from afterimage.bids.index import index_dataset, read_units, select_units, write_units
from afterimage.bids.recordings import common_channels, common_rate_hz, mixed_modalities
from afterimage.bids.sidecars import split_paths

HEADER = "onset\tduration\ttrial_type\tstim_file\n"


def touch(root: Path, *names: str, text: str = "") -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return root / names[-1]


def run(root: Path, stem: str, *endings: str, kind: str = "eeg", events: bool = True) -> None:
    """Write one recording of empty files, with events beside it."""
    parts = stem.split("_")
    session = next((part + "/" for part in parts if part.startswith("ses-")), "")
    folder = f"{parts[0]}/{session}{kind}"
    for ending in endings:
        touch(root, f"{folder}/{stem}_{kind}{ending}")
    touch(root, f"{folder}/{stem}_{kind}.json", text='{"SamplingFrequency": 500}')
    if events:
        bare = "_".join(part for part in parts if not part.startswith("split-"))
        touch(root, f"{folder}/{bare}_events.tsv", text=HEADER)


@pytest.fixture
def study(tmp_path: Path) -> Path:
    root = tmp_path / "study"
    run(root, "sub-01_ses-1_task-view_run-10", ".vhdr", ".eeg", ".vmrk")
    run(root, "sub-01_ses-1_task-view_run-2", ".vhdr", ".eeg", ".vmrk")
    touch(root, "sub-01/ses-1/eeg/sub-01_ses-1_task-view_run-2_channels.tsv", text="name\ttype\n")
    touch(root, "sub-01/ses-1/eeg/sub-01_ses-1_space-CapTrak_electrodes.tsv", text="name\n")
    run(root, "sub-02_task-view", ".edf")
    run(root, "sub-02_task-resting", ".edf", events=False)
    return root


def problems(rows: list[dict[str, str]]) -> list[str]:
    return [row["problem"] for row in rows if row["problem"] != "n/a"]


def test_a_recording_is_listed_with_what_belongs_to_it(study: Path, tmp_path: Path) -> None:
    rows = index_dataset(study)
    assert [(row["subject"], row["run"]) for row in rows] == [
        ("01", "2"), ("01", "10"), ("02", "n/a"), ("02", "n/a"),
    ]  # fmt: skip
    row = rows[0]
    folder = "sub-01/ses-1/eeg/sub-01_ses-1"
    assert row["recording"] == f"{folder}_task-view_run-2_eeg.vhdr"
    assert row["events"] == f"{folder}_task-view_run-2_events.tsv"
    assert [path.name for path in split_paths(row["sidecar"], study)] == [
        "sub-01_ses-1_task-view_run-2_eeg.json",
        "sub-01_ses-1_task-view_run-2_channels.tsv",
        "sub-01_ses-1_space-CapTrak_electrodes.tsv",
    ]
    assert (row["modality"], row["source"], row["stimuli"]) == ("eeg", "raw", "yes")
    assert (row["bold"], row["problem"]) == ("n/a", "n/a")
    assert run_prefix(row["recording"]) == "sub-01_ses-1_task-view_run-2"
    write_units(tmp_path / "units.tsv", rows)
    assert read_units(tmp_path / "units.tsv") == rows


@pytest.mark.parametrize("ending", [".edf", ".bdf", ".set", ".vhdr"])
def test_formats_of_eeg(tmp_path: Path, ending: str) -> None:
    partners = (".eeg", ".vmrk") if ending == ".vhdr" else ()
    run(tmp_path, "sub-1_task-a", ending, *partners)
    (row,) = index_dataset(tmp_path)
    assert row["recording"] == f"sub-1/eeg/sub-1_task-a_eeg{ending}"
    assert row["problem"] == "n/a"


@pytest.mark.parametrize("ending", [".fif", ".con", ".sqd"])
def test_files_of_meg(tmp_path: Path, ending: str) -> None:
    run(tmp_path, "sub-1_task-a", ending, kind="meg")
    (row,) = index_dataset(tmp_path)
    assert (row["recording"], row["modality"]) == (f"sub-1/meg/sub-1_task-a_meg{ending}", "meg")


@pytest.mark.parametrize("ending", [".ds", ""])
def test_folders_of_meg(tmp_path: Path, ending: str) -> None:
    run(tmp_path, "sub-1_task-a", kind="meg")
    touch(tmp_path, f"sub-1/meg/sub-1_task-a_meg{ending}/sub-1_task-a_meg.meg4")
    (row,) = index_dataset(tmp_path)
    assert row["recording"] == f"sub-1/meg/sub-1_task-a_meg{ending}"
    assert row["problem"] == "n/a"


def test_split_files_and_calibration_are_one_recording(tmp_path: Path) -> None:
    for part in ("01", "02"):
        touch(tmp_path, f"sub-1/meg/sub-1_task-a_split-{part}_meg.fif")
    touch(tmp_path, "sub-1/meg/sub-1_task-a_events.tsv", text=HEADER)
    touch(
        tmp_path,
        "sub-1/meg/sub-1_acq-crosstalk_meg.fif",
        "sub-1/meg/sub-1_acq-calibration_meg.dat",
    )
    touch(tmp_path, "sub-emptyroom/ses-20260101/meg/sub-emptyroom_ses-20260101_task-noise_meg.fif")
    (row,) = index_dataset(tmp_path)
    assert row["recording"].endswith("_split-01_meg.fif")
    assert (row["problem"], row["events"]) == ("n/a", "sub-1/meg/sub-1_task-a_events.tsv")
    assert run_prefix(row["recording"]) == "sub-1_task-a"


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda r: run(r, "sub-03_task-x", ".edf", ".set"), "one run is there twice"),
        (lambda r: run(r, "sub-03_task-x", ".vhdr", ".vmrk"), "no sub-03_task-x_eeg.eeg"),
        (lambda r: run(r, "sub-03_task-x", ".vhdr", ".eeg"), "no sub-03_task-x_eeg.vmrk"),
        (lambda r: run(r, "sub-03_run-1", ".edf"), "has no task"),
        (lambda r: touch(r, "sub-03/eeg/sub-04_task-x_eeg.edf"), "contradicts its folder"),
        (lambda r: touch(r, "sub-03/eeg/sub-03_task-x_eeg_old.edf"), "is not a BIDS name"),
        (lambda r: run(r, "sub-03_task-noise", ".edf", events=False), "only recordings of the empty"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_says_why_and_the_rest_stays(study: Path, make, text: str) -> None:  # type: ignore[no-untyped-def]
    make(study)
    rows = index_dataset(study)
    assert [row["subject"] for row in rows[:4]] == ["01", "01", "02", "02"]
    assert not problems(rows[:4])
    (problem,) = problems(rows[4:])
    assert text in problem
    assert "sub-03" in problem
    assert "\n" not in problem


def test_links_that_lead_nowhere_are_found(study: Path) -> None:
    data = study / "sub-02/eeg/sub-02_task-view_eeg.edf"
    data.unlink()
    data.symlink_to("../../.git/annex/objects/nothing")
    (problem,) = problems(index_dataset(study))
    assert "datalad get" in problem


def test_subjects_of_two_modalities_must_choose(study: Path) -> None:
    touch(study, "sub-02/func/sub-02_task-view_bold.nii.gz")
    touch(study, "sub-02/func/sub-02_task-view_events.tsv", text=HEADER)
    rows = index_dataset(study)
    assert [row["modality"] for row in rows if row["subject"] == "02"] == ["fmri", "eeg", "eeg"]
    marked = mixed_modalities(rows)
    assert [row["subject"] for row in marked if row["problem"] != "n/a"] == ["02"] * 3
    assert "--modality fmri" in marked[-1]["problem"]
    chosen = select_units(rows, modalities=["eeg"])
    assert mixed_modalities(chosen) == chosen
    # At rest in another scanner: the modality with events counts, the others are left out.
    (study / "sub-02/func/sub-02_task-view_events.tsv").unlink()
    bold = study / "sub-02/func/sub-02_task-view_bold.nii.gz"
    bold.rename(bold.with_name("sub-02_task-still_bold.nii.gz"))
    kept = mixed_modalities(index_dataset(study))
    assert [row["modality"] for row in kept if row["subject"] == "02"] == ["eeg", "eeg"]
    assert not problems(kept)


def test_tasks_and_sessions_choose_recordings(study: Path) -> None:
    assert [row["subject"] for row in index_dataset(study, sessions=["1"])] == ["01", "01"]
    assert len(index_dataset(study, tasks=["view"])) == 3


def test_channels_and_rates_of_a_subject(study: Path) -> None:
    folder = study / "sub-01/ses-1/eeg"
    table = "name\ttype\nCz\tEEG\nPz\tEEG\nHEOG\tEOG\n"
    touch(folder, "sub-01_ses-1_task-view_run-2_channels.tsv", text=table)
    touch(study, "sub-01/ses-2/eeg/sub-01_ses-2_task-view_channels.tsv", text=table)
    odd = table.replace("Pz", "P3")
    touch(folder, "sub-01_ses-1_task-view_run-10_channels.tsv", text=odd)
    touch(folder, "sub-01_ses-1_task-view_run-10_eeg.json", text='{"SamplingFrequency": 200}')
    recording = folder / "sub-01_ses-1_task-view_run-10_eeg.vhdr"
    assert common_channels(recording) == ["Cz", "Pz"]
    assert common_rate_hz(recording) == 200


def test_real_datasets_are_listed(shared_data: Path) -> None:
    rows = index_dataset(shared_data / "eeg-n170-raw")
    assert [row["run"] for row in rows] == ["01", "02", "03", "04", "05", "06"]
    assert {row["modality"] for row in rows} == {"eeg"}
    assert not problems(rows)
    motor = index_dataset(shared_data / "eeg-motor-raw")
    assert len(motor) == 8
    assert [row["task"] for row in motor if row["events"] == "n/a"] == ["eyesclosed", "eyesopen"]
    assert not problems(motor)
