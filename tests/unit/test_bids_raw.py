"""The index of raw BIDS and fMRIPrep datasets, the inheritance of sidecars, and names taken apart."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from afterimage.bids.entities import natural_key, parse_name, run_key, run_prefix
from afterimage.bids.index import COLUMNS, index_dataset, read_units, select_units, write_units
from afterimage.bids.sidecars import applicable_files, join_paths, read_sidecars, split_paths
from afterimage.bids.stimuli import read_stimulus_table, stimulus_id, stimulus_table
from afterimage.errors import InputError

HEADER = "onset\tduration\ttrial_type\tstim_file\n"


def touch(root: Path, *names: str, text: str = "") -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return root / names[-1]


def run(root: Path, stem: str, events: str | None = HEADER) -> None:
    """Write one raw run, with events and a sidecar beside it."""
    parts = stem.split("_")
    session = next((part + "/" for part in parts if part.startswith("ses-")), "")
    folder = f"{parts[0]}/{session}func"
    touch(root, f"{folder}/{stem}_bold.nii.gz")
    touch(root, f"{folder}/{stem}_bold.json", text='{"RepetitionTime": 2}')
    if events is not None:
        touch(root, f"{folder}/{stem}_events.tsv", text=events)


def derivative(root: Path, name: str, **more: Any) -> Path:
    """Write the description of a derivative dataset; return its folder."""
    made_by = [{"Name": "fMRIPrep" if "fmriprep" in name else name, "Version": "24.1.1"}]
    text = json.dumps({"Name": name, "BIDSVersion": "1.9.0", "GeneratedBy": made_by, **more})
    return touch(root, f"{name}/dataset_description.json", text=text).parent


def preprocessed(out: Path, stem: str, *spaces: str) -> None:
    """Write what fMRIPrep makes of a run: empty files."""
    parts = stem.split("_")
    session = next((part + "/" for part in parts if part.startswith("ses-")), "")
    start = f"{parts[0]}/{session}func/{stem}"
    touch(out, f"{start}_desc-confounds_timeseries.tsv", f"{start}_desc-coreg_boldref.nii.gz")
    for space in spaces:
        place = f"_{space}" if space else ""
        for rest in ("desc-preproc_bold.nii.gz", "desc-brain_mask.nii.gz", "boldref.nii.gz"):
            if rest != "boldref.nii.gz" or space:
                touch(out, f"{start}{place}_{rest}")
        touch(out, f"{start}{place}_desc-preproc_bold.json", text='{"StartTime": 1}')
    # Surfaces, CIFTI files and figures are of no interest.
    touch(
        out,
        f"{start}_hemi-L_space-fsaverage_bold.func.gii",
        f"{start}_space-fsLR_den-91k_bold.dtseries.nii",
    )
    touch(out, f"{parts[0]}/figures/{stem}_desc-preproc_bold.nii.gz")


def problems(rows: list[dict[str, str]]) -> dict[str, str]:
    return {row["bold"].rpartition("/")[2]: row["problem"] for row in rows}


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Two sessions, the second one lacks a run; one subject without sessions."""
    root = tmp_path / "study"
    touch(root, "dataset_description.json", text='{"Name": "x", "BIDSVersion": "1.10.0"}')
    touch(root, "task-view_bold.json", text='{"RepetitionTime": 2, "TaskName": "view"}')
    for stem in ("ses-1_task-view_run-1", "ses-1_task-view_run-2", "ses-1_task-view_run-10",
                 "ses-1_task-floc_run-1", "ses-2_task-view_run-2"):  # fmt: skip
        run(root, f"sub-01_{stem}")
    touch(
        root,
        "sub-01/ses-1/anat/sub-01_ses-1_T1w.nii.gz",
        "sub-01/ses-2/anat/sub-01_ses-2_T1w.nii.gz",
    )
    touch(root, "sub-01/ses-1/func/sub-01_ses-1_task-view_run-1_sbref.nii.gz")
    run(root, "sub-02_task-view", "onset\tduration\ttrial_type\n")
    return root


def test_one_row_a_run_in_order(study: Path) -> None:
    rows = index_dataset(study)
    found = [(row["subject"], row["session"], row["task"], row["run"]) for row in rows]
    assert found == [
        ("01", "1", "floc", "1"), ("01", "1", "view", "1"), ("01", "1", "view", "2"),
        ("01", "1", "view", "10"), ("01", "2", "view", "2"), ("02", "n/a", "view", "n/a"),
    ]  # fmt: skip
    assert all(tuple(row) == COLUMNS for row in rows)
    assert {row["problem"] for row in rows} == {"n/a"}
    assert {row["modality"] for row in rows} == {"fmri"}
    assert {row["source"] for row in rows} == {"raw"}
    row = rows[1]
    assert row["bold"] == "sub-01/ses-1/func/sub-01_ses-1_task-view_run-1_bold.nii.gz"
    assert row["events"] == row["bold"].replace("bold.nii.gz", "events.tsv")
    assert row["sidecar"] == "task-view_bold.json;" + row["bold"].replace(".nii.gz", ".json")
    assert row["anat"].split(";") == [
        f"sub-01/ses-{n}/anat/sub-01_ses-{n}_T1w.nii.gz" for n in "12"
    ]
    assert [row["stimuli"] for row in rows] == ["yes"] * 5 + ["no"]
    assert rows[0]["sidecar"] == "sub-01/ses-1/func/sub-01_ses-1_task-floc_run-1_bold.json"


def test_rows_come_back_and_are_selected_together(study: Path, tmp_path: Path) -> None:
    rows = index_dataset(study)
    write_units(tmp_path / "units.tsv", rows)
    assert read_units(tmp_path / "units.tsv") == rows
    assert select_units(rows, ["sub-01"], ["fmri"]) == rows[:5]
    with pytest.raises(InputError) as caught:
        select_units(rows, ["3"])
    assert caught.value.expected == "01, 02"


def test_tasks_and_sessions_are_chosen(study: Path) -> None:
    floc = index_dataset(study, tasks=["task-floc"])
    assert [row["task"] for row in floc] == ["floc"]
    second = index_dataset(study, sessions=["2"])
    assert [(row["session"], row["run"]) for row in second] == [("2", "2")]
    with pytest.raises(InputError, match="no task") as caught:
        index_dataset(study, tasks=["view", "words"])
    assert (caught.value.found, caught.value.expected) == ("words", "floc, view")
    with pytest.raises(InputError, match="no session") as caught:
        index_dataset(study, sessions=["03"])
    assert caught.value.expected == "1, 2"


def test_events_and_sidecars_are_inherited(study: Path) -> None:
    (study / "sub-02/func/sub-02_task-view_events.tsv").unlink()
    touch(study, "task-view_events.tsv", text=HEADER)
    assert index_dataset(study)[-1]["events"] == "task-view_events.tsv"
    closer = touch(
        study, "sub-02/sub-02_task-view_events.tsv", text="onset\tduration\ttrial_type\n"
    )
    row = index_dataset(study)[-1]
    assert row["events"] == "sub-02/sub-02_task-view_events.tsv"
    assert row["stimuli"] == "no"
    closer.rename(closer.with_name("sub-02_task-floc_events.tsv"))
    assert index_dataset(study)[-1]["events"] == "task-view_events.tsv"


def test_zeros_before_the_number_of_a_run_make_no_difference(study: Path) -> None:
    func = study / "sub-01/ses-2/func"
    (func / "sub-01_ses-2_task-view_run-2_events.tsv").rename(
        func / "sub-01_ses-2_task-view_run-02_events.tsv"
    )
    row = index_dataset(study)[4]
    assert row["events"].endswith("run-02_events.tsv")
    assert row["problem"] == "n/a"
    run(study, "sub-01_ses-2_task-view_run-02")
    rows = index_dataset(study, sessions=["2"])
    assert len(rows) == 1
    assert "one run is there twice" in rows[0]["problem"]


DEFECTS: dict[str, tuple[Callable[[Path], Any], str, str]] = {
    "no events": (
        lambda func: (func / "sub-01_ses-1_task-view_run-1_events.tsv").unlink(),
        "sub-01_ses-1_task-view_run-1_bold.nii.gz",
        "a run has no events",
    ),
    "twice": (
        lambda func: (func / "sub-01_ses-1_task-view_run-1_bold.nii").touch(),
        "sub-01_ses-1_task-view_run-1_bold.nii.gz",
        "one run is there twice",
    ),
    "no BIDS name": (
        lambda func: (func / "sub-01_ses-1_task-view_final_bold.nii.gz").touch(),
        "sub-01_ses-1_task-view_final_bold.nii.gz",
        "not a BIDS name",
    ),
    "other session": (
        lambda func: (func / "sub-01_ses-2_task-words_bold.nii.gz").touch(),
        "sub-01_ses-2_task-words_bold.nii.gz",
        "contradicts its folder",
    ),
    "no task": (
        lambda func: (func / "sub-01_ses-1_bold.nii.gz").touch(),
        "sub-01_ses-1_bold.nii.gz",
        "has no task",
    ),
    "echoes": (
        lambda func: [
            (func / f"sub-01_ses-1_task-echoes_echo-{n}_bold.nii.gz").touch() for n in (1, 2, 3)
        ],
        "sub-01_ses-1_task-echoes_echo-1_bold.nii.gz",
        "a run has several echoes",
    ),
    "not fetched": (
        lambda func: (func / "sub-01_ses-1_task-annex_bold.nii.gz").symlink_to("nowhere"),
        "sub-01_ses-1_task-annex_bold.nii.gz",
        "not on this machine",
    ),
}


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_defect_is_said_of_its_run_and_the_others_go_on(study: Path, defect: str) -> None:
    damage, file, words = DEFECTS[defect]
    damage(study / "sub-01/ses-1/func")
    found = problems(index_dataset(study))
    assert words in found.pop(file)
    assert set(found.values()) == {"n/a"}
    assert len(found) >= 5
    assert not any("\n" in problem for problem in problems(index_dataset(study)).values())


def test_a_problem_names_subject_and_file(study: Path) -> None:
    touch(study, "sub-02/func/sub-02_task-view_bold.nii")
    (problem,) = [row["problem"] for row in index_dataset(study) if row["problem"] != "n/a"]
    for words in (
        "sub-02, sub-02/func/sub-02_task-view_bold.nii",
        "sub-02/func/sub-02_task-view_bold.nii.gz",
    ):
        assert words in problem
    assert problem.count(" | ") == 4


def test_magnitude_is_taken_and_phase_is_not(study: Path) -> None:
    func = "sub-03/func/sub-03_task-view"
    touch(
        study,
        f"{func}_part-mag_bold.nii.gz",
        f"{func}_part-phase_bold.nii.gz",
        f"{func}_events.tsv",
    )
    (row,) = [row for row in index_dataset(study) if row["subject"] == "03"]
    assert row["bold"].endswith("part-mag_bold.nii.gz")
    assert row["events"] == f"{func}_events.tsv"
    assert row["problem"] == "n/a"


def test_runs_without_events_are_listed_without_them(study: Path) -> None:
    run(study, "sub-02_task-rest", None)
    run(study, "sub-04_task-rest", None)
    rows = index_dataset(study)
    without = [row for row in rows if row["events"] == "n/a"]
    assert [row["subject"] for row in without] == ["02", "04"]
    for row in without:
        assert row["bold"].endswith("_bold.nii.gz")
        assert row["stimuli"] == "no"
        assert row["problem"] == "n/a"
    # Where one run of the task has events, another without them is missing a file.
    run(study, "sub-02_task-rest", HEADER)
    found = {r["subject"]: r for r in index_dataset(study) if r["task"] == "rest"}
    assert found["02"]["events"].endswith(".tsv")
    assert "a run has no events" in found["04"]["problem"]


def test_a_subject_with_nothing_to_read_says_what_it_has(study: Path) -> None:
    touch(study, "sub-03/nirs/sub-03_task-view_nirs.snirf", "sub-04/anat/sub-04_T1w.nii.gz")
    (study / "sub-05").mkdir()
    found = {row["subject"]: row["problem"] for row in index_dataset(study)}
    assert "not read yet (nirs)" in found["03"]
    assert "no responses and no scans" in found["04"]
    assert "anat/" in found["04"]
    assert "nothing" in found["05"]
    assert found["02"] == "n/a"


def test_series_of_xcp_d_stand_for_scans_at_rest(tmp_path: Path) -> None:
    root = tmp_path / "study"
    for label in ("01", "02", "03"):
        run(root, f"sub-{label}_task-rest", None)
    run(root, "sub-02_task-see")
    xcp = derivative(root / "derivatives", "xcp_d")
    for label in ("01", "02"):
        start = f"sub-{label}/func/sub-{label}_task-rest_space-MNI152NLin2009cAsym_seg-Glasser"
        touch(
            xcp,
            f"{start}_stat-mean_timeseries.tsv",
            f"sub-{label}/func/sub-{label}_task-rest_desc-confounds_timeseries.tsv",
            f"sub-{label}/func/sub-{label}_task-rest_outliers.tsv",
        )
    rows = index_dataset(root)
    assert [(row["subject"], row["task"], row["source"]) for row in rows] == [
        ("01", "rest", "series"), ("02", "rest", "raw"), ("02", "see", "raw"), ("03", "rest", "raw"),
    ]  # fmt: skip
    first = rows[0]
    assert first["series"].startswith("derivatives/xcp_d/sub-01/func/")
    assert first["confounds"].endswith("_outliers.tsv")
    assert {row["problem"] for row in rows} == {"n/a"}


def test_prepared_and_raw_subjects_side_by_side(study: Path) -> None:
    touch(study, "sub-10/sub-10_responses.npy", "sub-10/sub-10_trials.tsv")
    row = index_dataset(study)[-1]
    assert "need a table of stimuli" in row["problem"]
    touch(study, "stimuli.tsv", text="stimulus_id\tfile\na\ta.png\n")
    rows = index_dataset(study)
    assert [row["source"] for row in rows] == ["raw"] * 6 + ["prepared"]
    assert rows[-1]["responses"] == "sub-10/sub-10_responses.npy"
    assert rows[-1]["stimuli"] == "yes"
    assert rows[-1]["problem"] == "n/a"
    # Who has exported responses is read from these.
    run(study, "sub-10_task-view")
    assert [row["source"] for row in index_dataset(study)] == ["raw"] * 6 + ["prepared"]


def test_stimulus_ids_name_pictures_where_there_is_a_table(study: Path) -> None:
    run(study, "sub-02_task-view", "onset\tduration\tstimulus_id\n")
    assert index_dataset(study)[-1]["stimuli"] == "no"
    touch(study, "stimuli/stimuli.tsv", text="stimulus_id\nstim-a\n")
    assert index_dataset(study)[-1]["stimuli"] == "yes"


def test_a_dataset_with_neither_way_in(tmp_path: Path) -> None:
    touch(tmp_path, "sub-01/nirs/sub-01_task-view_nirs.snirf")
    with pytest.raises(InputError, match="no table of stimuli") as caught:
        index_dataset(tmp_path)
    assert "raw scans" in caught.value.expected
    assert "responses.npy" in caught.value.expected


def test_fmriprep_runs_take_the_place_of_raw_ones(study: Path) -> None:
    out = derivative(study / "derivatives", "fmriprep")
    preprocessed(out, "sub-02_task-view", "space-T1w", "space-MNI152NLin2009cAsym_res-2", "")
    touch(out, "sub-02/anat/sub-02_desc-preproc_T1w.nii.gz")
    touch(out, "sub-02/anat/sub-02_space-MNI152NLin2009cAsym_desc-preproc_T1w.nii.gz")
    touch(
        out, "sub-02/anat/sub-02_label-GM_mask.nii.gz", "sub-02/anat/sub-02_desc-brain_mask.nii.gz"
    )
    rows = index_dataset(study)
    assert [row["source"] for row in rows] == ["raw"] * 5 + ["fmriprep"]
    start = "derivatives/fmriprep/sub-02/func/sub-02_task-view"
    row = rows[-1]
    assert row["problem"] == "n/a"
    assert row["bold"] == f"{start}_space-T1w_desc-preproc_bold.nii.gz"
    assert row["mask"] == f"{start}_space-T1w_desc-brain_mask.nii.gz"
    assert row["boldref"] == f"{start}_space-T1w_boldref.nii.gz"
    assert row["confounds"] == f"{start}_desc-confounds_timeseries.tsv"
    assert row["sidecar"].split(";") == [
        "task-view_bold.json",
        "sub-02/func/sub-02_task-view_bold.json",
        f"{start}_space-T1w_desc-preproc_bold.json",
    ]
    assert row["events"] == "sub-02/func/sub-02_task-view_events.tsv"
    assert row["anat"] == "derivatives/fmriprep/sub-02/anat/sub-02_desc-preproc_T1w.nii.gz"
    assert row["rois"] == "n/a"


@pytest.mark.parametrize(
    ("spaces", "wanted", "chosen"),
    [
        (["space-MNI152NLin2009cAsym", "space-T1w"], None, "space-T1w_"),
        (["space-MNI152NLin2009cAsym", "space-Other"], None, "space-MNI152NLin2009cAsym_"),
        (["space-MNI152NLin2009cAsym", ""], None, "task-view_desc"),
        (["space-Zebra", "space-Other"], None, "space-Other_"),
        (["space-T1w", ""], "func", "task-view_desc"),
        (["space-T1w", "space-X_res-1", "space-X_res-2"], "X", "space-X_res-2_"),
        (["space-T1w", "space-X_res-1", "space-X_res-2"], "X:res-1", "space-X_res-1_"),
        (["space-T1w", "space-X_res-10", "space-X_res-native"], "X", "space-X_res-native_"),
        (["space-A_cohort-1", "space-A_cohort-2"], "A:cohort-2", "space-A_cohort-2_"),
    ],
)
def test_the_space_is_chosen(
    study: Path, spaces: list[str], wanted: str | None, chosen: str
) -> None:
    preprocessed(derivative(study / "derivatives", "fmriprep"), "sub-02_task-view", *spaces)
    row = index_dataset(study, space=wanted)[-1]
    assert row["problem"] == "n/a"
    assert chosen in row["bold"]
    assert chosen.removesuffix("desc") in row["mask"]
    assert row["boldref"] != "n/a"


def test_runs_in_their_own_spaces_come_last(study: Path) -> None:
    out = derivative(study / "derivatives", "fmriprep")
    for stem in ("sub-02_task-view", "sub-02_task-floc"):
        run(study, stem)
        preprocessed(out, stem, "", "space-Other")
    assert all("space-Other" in row["bold"] for row in index_dataset(study)[5:])


def test_fmriprep_output_that_does_not_fit(study: Path) -> None:
    out = derivative(study / "derivatives", "fmriprep")
    for stem in ("ses-1_task-view_run-1", "ses-1_task-view_run-2", "ses-1_task-view_run-10"):
        preprocessed(out, f"sub-01_{stem}", "space-T1w")
    preprocessed(out, "sub-01_ses-2_task-view_run-2", "space-MNI152NLin2009cAsym")
    found = problems(index_dataset(study))
    lacking = "sub-01_ses-2_task-view_run-2_bold.nii.gz"
    assert "missing from the fMRIPrep output" in found[lacking]
    assert "missing from the fMRIPrep output" in found["sub-01_ses-1_task-floc_run-1_bold.nii.gz"]
    assert sum(problem != "n/a" for problem in found.values()) == 2
    # A task that fMRIPrep was not run on is read raw where only that task is asked for.
    (row,) = index_dataset(study, tasks=["floc"])
    assert (row["source"], row["problem"]) == ("raw", "n/a")
    rows = index_dataset(study, space="fsnative")[:5]
    assert all("not in the space asked for" in row["problem"] for row in rows)
    assert "MNI152NLin2009cAsym, T1w" in rows[0]["problem"]


def test_several_fmriprep_outputs_must_be_told_apart(study: Path, tmp_path: Path) -> None:
    for name in ("fmriprep-23", "fmriprep-24"):
        preprocessed(derivative(study / "derivatives", name), "sub-02_task-view", "space-T1w")
    assert "in several fMRIPrep outputs" in index_dataset(study)[-1]["problem"]
    rows = index_dataset(study, derivatives=[study / "derivatives" / "fmriprep-24"])
    assert "derivatives/fmriprep-24/" in rows[-1]["bold"]
    outside = derivative(tmp_path / "elsewhere", "fmriprep")
    preprocessed(outside, "sub-02_task-view", "space-T1w")
    for given in (outside, tmp_path / "elsewhere"):
        row = index_dataset(study, derivatives=[given])[-1]
        assert row["bold"].startswith(str(outside))
        assert row["problem"] == "n/a"
    with pytest.raises(InputError, match="does not exist"):
        index_dataset(study, derivatives=[tmp_path / "nowhere"])


def test_multi_echo_runs_are_read_as_fmriprep_combined_them(study: Path) -> None:
    for echo in (1, 2, 3):
        touch(study, f"sub-03/func/sub-03_task-view_echo-{echo}_bold.nii.gz")
    touch(study, "sub-03/func/sub-03_task-view_events.tsv", text=HEADER)
    assert "several echoes" in index_dataset(study)[-1]["problem"]
    out = derivative(study / "derivatives", "fmriprep")
    preprocessed(out, "sub-03_task-view", "space-T1w")
    touch(out, "sub-03/func/sub-03_task-view_echo-1_desc-preproc_bold.nii.gz")
    row = index_dataset(study)[-1]
    assert row["problem"] == "n/a"
    assert row["bold"].endswith("sub-03_task-view_space-T1w_desc-preproc_bold.nii.gz")


@pytest.mark.parametrize("link", ["DatasetLinks", "SourceDatasets", "folder"])
def test_fmriprep_output_as_the_dataset(study: Path, tmp_path: Path, link: str) -> None:
    more = {
        "DatasetLinks": {"DatasetLinks": {"raw": study.as_uri(), "templateflow": "https://x.org"}},
        "SourceDatasets": {"SourceDatasets": [{"URL": "https://x.org"}, {"URL": "../../study"}]},
        "folder": {},
    }[link]
    parent = study / "derivatives" if link == "folder" else tmp_path / "elsewhere"
    out = derivative(parent, "fmriprep", **more)
    preprocessed(out, "sub-02_task-view", "space-T1w")
    (row,) = index_dataset(out)
    assert row["problem"] == "n/a"
    assert row["source"] == "fmriprep"
    assert row["bold"] == "sub-02/func/sub-02_task-view_space-T1w_desc-preproc_bold.nii.gz"
    assert row["events"] == str(study / "sub-02/func/sub-02_task-view_events.tsv")


def test_fmriprep_output_that_names_no_raw_dataset(tmp_path: Path) -> None:
    out = derivative(tmp_path, "fmriprep")
    preprocessed(out, "sub-02_task-view", "space-T1w")
    (row,) = index_dataset(out)
    assert (row["source"], row["events"], row["problem"]) == ("fmriprep", "n/a", "n/a")


def test_masks_and_regions_of_raw_scans(study: Path) -> None:
    masks = derivative(study / "derivatives", "masks")
    wanted = [
        "sub-02/func/sub-02_task-view_hemi-L_label-V1_mask.nii.gz",
        "sub-02/func/sub-02_task-view_hemi-R_label-V1_mask.nii.gz",
        "sub-02/roi/sub-02_desc-FFA_mask.nii.gz",
        "sub-02/roi/sub-02_atlas-Wang_dseg.nii.gz",
    ]
    touch(masks, *wanted, "sub-02/func/sub-02_task-view_label-brain_mask.nii.gz")
    touch(masks, "atlas-Wang_dseg.tsv", text="index\tname\n1\tV1\n")
    touch(
        masks,
        "sub-02/anat/sub-02_label-V2_mask.nii.gz",  # on the grid of the T1w image
        "sub-02/func/sub-02_space-T1w_label-V3_mask.nii.gz",
        "sub-02/func/sub-02_label-WM_mask.nii.gz",
        "sub-02/roi/sub-02_atlas-NoTable_dseg.nii.gz",
        "sub-02/ses-1/func/sub-02_ses-1_desc-FFA_mask.nii.gz",  # the general one wins
    )
    rows = index_dataset(study)
    assert sorted(rows[-1]["rois"].split(";")) == sorted(f"derivatives/masks/{w}" for w in wanted)
    assert rows[-1]["mask"].endswith("sub-02_task-view_label-brain_mask.nii.gz")
    assert {row["rois"] for row in rows[:-1]} == {"n/a"}
    assert {row["mask"] for row in rows[:-1]} == {"n/a"}


def test_masks_in_the_space_of_fmriprep(study: Path) -> None:
    preprocessed(derivative(study / "derivatives", "fmriprep"), "sub-02_task-view", "space-T1w")
    masks = derivative(study / "derivatives", "regions")
    touch(
        masks,
        "sub-02/anat/sub-02_label-V2_mask.nii.gz",
        "sub-02/func/sub-02_space-T1w_label-V3_mask.nii.gz",
        "sub-02/func/sub-02_label-V4_mask.nii.gz",
        "sub-02/func/sub-02_space-T1w_desc-brain_mask.nii.gz",
    )
    row = index_dataset(study)[-1]
    assert [path.rpartition("label-")[2] for path in row["rois"].split(";")] == [
        "V2_mask.nii.gz", "V3_mask.nii.gz",
    ]  # fmt: skip
    assert "derivatives/fmriprep" in row["mask"]


def test_a_brain_mask_of_one_session_serves_that_session(study: Path) -> None:
    masks = derivative(study / "derivatives", "masks")
    touch(
        masks,
        "sub-01/sub-01_label-brain_mask.nii.gz",
        "sub-01/ses-2/func/sub-01_ses-2_label-brain_mask.nii.gz",
    )
    found = {row["session"]: row["mask"] for row in index_dataset(study)[:5]}
    assert found["1"] == "derivatives/masks/sub-01/sub-01_label-brain_mask.nii.gz"
    assert found["2"].endswith("sub-01_ses-2_label-brain_mask.nii.gz")


def test_our_own_output_is_not_read_back(study: Path) -> None:
    out = derivative(study / "derivatives", "afterimage")
    touch(out, "sub-02/sub-02_desc-brain_mask.nii.gz", "sub-02/sub-02_label-V1_mask.nii.gz")
    row = index_dataset(study)[-1]
    assert (row["mask"], row["rois"]) == ("n/a", "n/a")


def test_real_runs_are_found(shared_data: Path) -> None:
    rows = index_dataset(shared_data / "haxby2001-raw")
    assert [row["run"] for row in rows] == [f"{run:02d}" for run in range(1, 13)]
    assert {row["problem"] for row in rows} == {"n/a"}
    assert {row["mask"].rpartition("/")[2] for row in rows} == {
        "sub-001_task-objectviewing_label-brain_mask.nii.gz"
    }
    for row in rows:
        sidecar = read_sidecars(split_paths(row["sidecar"], shared_data / "haxby2001-raw"))
        assert sidecar["RepetitionTime"] == 2.5
    rows = index_dataset(shared_data / "haxby2001-raw-lowres")
    assert {row["rois"].rpartition("_label-")[2] for row in rows} == {
        "ventraltemporal_mask.nii.gz"
    }


def test_sidecars_are_merged_from_the_root_down(study: Path) -> None:
    own = "sub-01/ses-1/func/sub-01_ses-1_task-view_run-1_bold"
    touch(study, f"{own}.json", text='{"RepetitionTime": 1.5}')
    touch(study, "bold.json", text='{"Manufacturer": "x", "TaskName": "?"}')
    touch(study, "sub-01/sub-01_task-floc_bold.json", text='{"EchoTime": 1}')
    paths = applicable_files(study / f"{own}.nii.gz", study)
    assert [path.name for path in paths] == [
        "bold.json", "task-view_bold.json", "sub-01_ses-1_task-view_run-1_bold.json",
    ]  # fmt: skip
    assert read_sidecars(paths) == {"Manufacturer": "x", "TaskName": "view", "RepetitionTime": 1.5}
    row = index_dataset(study)[1]
    assert split_paths(row["sidecar"], study) == paths
    touch(study, "bold.json", text='{"Manufacturer": ')
    with pytest.raises(InputError) as caught:
        read_sidecars(paths)
    assert str(study / "bold.json") in caught.value.where


def test_paths_that_the_table_cannot_hold() -> None:
    assert join_paths([]) == "n/a"
    assert split_paths("n/a", Path("/x")) == []
    assert split_paths("a;/b/c", Path("/x")) == [Path("/x/a"), Path("/b/c")]
    with pytest.raises(InputError, match="cannot be written"):
        join_paths(["a;b"])


def test_names_are_taken_apart() -> None:
    name = parse_name("sub-01_task-view_run-02_part-mag_space-T1w_desc-preproc_bold.nii.gz")
    assert name is not None
    assert name.entities["run"] == "02"
    assert (name.suffix, name.extension) == ("bold", ".nii.gz")
    assert run_key(name) == {("sub", "01"), ("task", "view"), ("run", "2")}
    for bad in (
        "sub-01_bold_x_bold.nii",
        "sub-01_sub-02_bold.nii",
        "sub-0.1_bold.nii",
        "_bold.nii",
    ):
        assert parse_name(bad) is None, bad
    prefix = "sub-1_ses-a_task-view_acq-fast_run-02"
    assert run_prefix(f"x/{prefix}_space-T1w_res-2_desc-preproc_bold.nii.gz") == prefix
    assert run_prefix(f"{prefix}_bold.nii") == prefix
    assert sorted(["run-10", "run-9", "run-1"], key=natural_key) == ["run-1", "run-9", "run-10"]


def test_tables_of_stimuli(tmp_path: Path) -> None:
    assert stimulus_table(tmp_path) is None
    assert read_stimulus_table(tmp_path) == {}
    touch(tmp_path, "stimuli/stim-a_image.png")
    inner = touch(
        tmp_path, "stimuli/stimuli.tsv", text="stimulus_id\tsplit\nstim-a\ttest\nb\ttrain\n"
    )
    assert stimulus_table(tmp_path) == inner
    rows = read_stimulus_table(tmp_path)
    assert rows["stim-a"] == {"stimulus_id": "stim-a", "split": "test", "file": "stim-a_image.png"}
    assert rows["b"]["file"] == "n/a"
    table = touch(tmp_path, "stimuli.tsv", text="stimulus_id\tfile\na\tx/a.png\n")
    assert stimulus_table(tmp_path) == table
    assert read_stimulus_table(tmp_path)["a"]["file"] == "x/a.png"
    assert stimulus_id("stimuli/x/a.1.png") == "x_a.1"
    touch(tmp_path, "stimuli.tsv", text="stimulus_id\tfile\na\ta.png\na\tb.png\n")
    with pytest.raises(InputError, match="stands twice"):
        read_stimulus_table(tmp_path)
    (tmp_path / "stimuli/link.png").symlink_to(tmp_path.parent)
    for file in ("../a.png", "/etc/passwd", "C:/a.png", "link.png", "link.png/x.png"):
        touch(tmp_path, "stimuli.tsv", text=f"stimulus_id\tfile\na\t{file}\n")
        with pytest.raises(InputError, match="leads out of the dataset"):
            read_stimulus_table(tmp_path)
