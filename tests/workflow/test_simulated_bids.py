"""The simulated study on disk: valid BIDS, complete, and its truth beside it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from afterimage.io.tables import read_tsv
from afterimage.simulate.visual_brain import EARLY, SELECTIVE
from afterimage.stages.simulate_bold import Config, Inputs, Outputs, run

CONFIG = Config(
    n_training_images=40, n_test_images=6, n_test_repeats=2, trials_per_run=12, n_early_units=60,
    n_selective_units=40, shape_voxels=(18, 20, 14), random_state=5,
)  # fmt: skip


def simulate(folder: Path, config: Config = CONFIG, threads: int = 1) -> Path:
    run(Inputs(), Outputs(folder / "dataset_description.json"), config, threads=threads)
    return folder


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return simulate(tmp_path_factory.mktemp("study"))


def contents(folder: Path) -> dict[str, bytes]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def validate(dataset: Path, *options: str) -> list[dict[str, str]]:
    """Return what the BIDS validator finds."""
    validator = Path(sys.executable).parent / "bids-validator-deno"
    if not validator.is_file():
        pytest.skip("bids-validator-deno is not installed")
    command = [str(validator), str(dataset), "--format", "json", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.startswith("{"), done.stdout + done.stderr
    issues: list[dict[str, str]] = json.loads(done.stdout)["issues"]["issues"]
    return issues


def test_the_bids_validator_finds_no_error(dataset: Path) -> None:
    issues = validate(dataset)
    assert not [issue for issue in issues if issue["severity"] == "error"]
    # Keys that only a real scanner could fill in.
    warnings = {issue["code"] for issue in issues}
    assert warnings <= {"SIDECAR_KEY_RECOMMENDED", "JSON_KEY_RECOMMENDED"}


def test_the_bids_validator_finds_no_error_in_the_masks(dataset: Path) -> None:
    issues = validate(dataset / "derivatives" / "rois")
    assert not [issue for issue in issues if issue["severity"] == "error"]


def test_every_run_is_there_but_one(dataset: Path) -> None:
    runs = sorted(path.name for path in dataset.rglob("*_bold.nii.gz"))
    events = sorted(path.name for path in dataset.rglob("*_events.tsv"))
    assert [name.replace("_bold.nii.gz", "_events.tsv") for name in runs] == events
    first = {name[7:] for name in runs if name.startswith("sub-01")}
    second = {name[7:] for name in runs if name.startswith("sub-02")}
    assert len(first) == 5
    assert len(first - second) == 1
    assert not second - first
    assert {"ses-01", "ses-02"} == {name[:6] for name in first}
    assert len(list(dataset.rglob("*_T1w.nii.gz"))) == 2


def test_images_agree_with_their_sidecar_and_their_events(dataset: Path) -> None:
    import nibabel

    sidecar = json.loads((dataset / "task-pictures_bold.json").read_text())
    known = {row["file"]: row for row in read_tsv(dataset / "stimuli" / "stimuli.tsv")}
    affines = []
    for path in dataset.rglob("*_bold.nii.gz"):
        image = nibabel.load(path)
        affines.append(image.affine)
        assert image.shape[:3] == CONFIG.shape_voxels
        assert image.header.get_zooms() == pytest.approx((3, 3, 3, 2))
        assert image.header.get_xyzt_units() == ("mm", "sec")
        assert nibabel.aff2axcodes(image.affine) == ("R", "A", "S")
        assert sidecar["RepetitionTime"] == 2.0
        assert len(sidecar["SliceTiming"]) == image.shape[2]
        assert max(sidecar["SliceTiming"]) < 2.0
        rows = read_tsv(path.with_name(path.name.replace("_bold.nii.gz", "_events.tsv")))
        onsets = np.array([float(row["onset"]) for row in rows])
        assert (np.diff(onsets) > 0).all()
        assert onsets[-1] + 10 < image.shape[3] * 2.0
        assert np.abs(onsets / 2 - np.round(onsets / 2)).mean() > 0.05
        assert {row["stim_file"] for row in rows} <= set(known)
        assert all(known[row["stim_file"]]["category"] == row["trial_type"] for row in rows)
        # Training and test pictures have runs of their own.
        assert len({known[row["stim_file"]]["split"] for row in rows}) == 1
        assert (dataset / "stimuli" / rows[0]["stim_file"]).is_file()
    assert all(np.array_equal(affine, affines[0]) for affine in affines)


def test_truth_tells_the_trials_of_the_events_and_the_voxels_of_the_masks(dataset: Path) -> None:
    import nibabel

    for label in ("sub-01", "sub-02"):
        folder = dataset / "derivatives" / "simulation" / label
        trials = read_tsv(folder / f"{label}_trials.tsv")
        units = read_tsv(folder / f"{label}_units.tsv")
        planted = np.load(folder / f"{label}_responses.npy")
        assert planted.shape == (len(trials), len(units)) == (len(trials), 100)
        assert planted.dtype == np.float32
        told = []
        for path in sorted((dataset / label).rglob("*_events.tsv")):
            rows = read_tsv(path)
            session, number = (path.name.split(key)[1][:2] for key in ("ses-", "run-"))
            told += [(row["stim_file"][:-4], session, number, float(row["onset"])) for row in rows]
            motion = read_tsv(
                folder / f"ses-{session}" / "func" / path.name.replace("events", "motion")
            )
            image = nibabel.load(str(path).replace("_events.tsv", "_bold.nii.gz"))
            assert len(motion) == image.shape[3]
        found = [
            (row["stimulus_id"], row["session"], row["run"], float(row["onset"])) for row in trials
        ]
        assert found == told

        masks = dataset / "derivatives" / "rois" / label / "func"
        for roi in (*EARLY, *SELECTIVE):
            mask = nibabel.load(masks / f"{label}_task-pictures_label-{roi}_mask.nii.gz")
            values = np.asarray(mask.dataobj)
            chosen = [row for row in units if row["roi"] == roi]
            assert all(values[int(row["i"]), int(row["j"]), int(row["k"])] == 1 for row in chosen)
            assert values.sum() >= len(chosen)
            for row in chosen:
                place = mask.affine @ [int(row["i"]), int(row["j"]), int(row["k"]), 1]
                np.testing.assert_allclose(place[:3], [float(row[axis]) for axis in "xyz"])
        peaks = np.array([float(row["hrf_peak_s"]) for row in units])
        assert peaks.min() > 4.4
        assert peaks.max() < 7.6
        ceilings = np.array([float(row["ceiling"]) for row in units])
        assert abs(np.median(ceilings) - CONFIG.ceiling) < 0.05


def test_the_description_is_written_last_and_tells_the_settings(dataset: Path) -> None:
    description = dataset / "dataset_description.json"
    assert json.loads(description.read_text())["Simulation"] == CONFIG.model_dump(mode="json")
    newest = max(path.stat().st_mtime_ns for path in dataset.rglob("*") if path.is_file())
    assert description.stat().st_mtime_ns == newest


def test_another_simulation_in_the_same_place_leaves_nothing_of_the_first(
    dataset: Path, tmp_path: Path
) -> None:
    settings = CONFIG.model_dump() | {"n_subjects": 1, "missing_run": False}
    smaller = Config(**settings | {"random_state": 6, "n_training_images": 30})
    simulate(tmp_path)
    (tmp_path / "dataset_description.json").unlink()  # as if it had been interrupted
    again = contents(simulate(tmp_path, smaller))
    assert not [name for name in again if "sub-02" in name]
    whole = simulate(tmp_path)
    # The same settings give the same bytes, here and in another folder, however many threads.
    assert contents(whole) == contents(dataset)
    (tmp_path / "derivatives" / "simulation" / "dataset_description.json").write_text("{}")
    (tmp_path / "sub-77").mkdir()
    simulate(tmp_path, threads=2)
    assert (tmp_path / "sub-77").is_dir(), "a folder that no simulation made was removed"
    (tmp_path / "sub-77").rmdir()
    assert contents(tmp_path) == contents(dataset)


def test_a_simulation_goes_on(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped in the third run and begun again, it makes the others only, and the same study."""
    from afterimage.simulate import bold

    simulate_run, made = bold.simulate_run, []

    def counted(subject: Any, number: int) -> Any:
        if len(made) == 2:
            raise KeyboardInterrupt
        made.append(number)
        return simulate_run(subject, number)

    folder = tmp_path / "study"
    monkeypatch.setattr(bold, "simulate_run", counted)
    with pytest.raises(KeyboardInterrupt):
        simulate(folder)
    assert not (folder / "dataset_description.json").exists()
    made.clear()
    monkeypatch.setattr(
        bold, "simulate_run", lambda *given: made.append(given) or simulate_run(*given)
    )
    simulate(folder)
    assert contents(folder) == contents(dataset)
    assert len(made) == len(list(dataset.glob("sub-*/ses-*/func/*_bold.nii.gz"))) - 2
